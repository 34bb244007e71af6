/**
 * Watches the session of a page: warns before it ends for lack of activity, and leaves the page when it has ended.
 *
 *     import { watchSession } from "/session/session.js";
 *     watchSession({ warnBefore: 60 });
 *
 * It never sees the token, which is in a cookie that scripts cannot read. It needs no inline script, style or `eval`,
 * and so works under `Content-Security-Policy: default-src 'self'`.
 *
 * @module
 */

const DEFAULTS = {
  endpoint: "/session/",
  loginPath: "/login",
  warnBefore: 60,
  pollEvery: 15,
  required: false,
  logoutOnClose: false,
  separateTabs: false,
  onWarning: undefined,
  onEnded: undefined,
  texts: {},
};

const TEXTS = {
  warning: (seconds) => `You will be logged out in ${seconds} seconds.`,
  stay: "Stay logged in",
  logout: "Log out",
};

/** How long after a page has gone another one of the browser still says that it is there, in milliseconds. */
const DEPARTURE = 30_000;
const RETRY = 2_000;
/** How long a form that was submitted may take to replace the page, in milliseconds. */
const SUBMITTING = 5_000;
/** The longest delay that timers have. */
const LONGEST = 2 ** 31 - 1;

/**
 * Watch the session of this page.
 *
 * @param {object} [options]
 * @param {string} [options.endpoint] The path of the endpoints, which ends in `/`.
 * @param {string} [options.loginPath] Where a page goes when its session has ended.
 * @param {number} [options.warnBefore] Warn so many seconds before the session ends; 0: never.
 * @param {number} [options.pollEvery] Ask every so many seconds while there is no event stream.
 * @param {boolean} [options.required] The page is for users who are logged in: leave it at once if nobody is.
 * @param {boolean} [options.logoutOnClose] End the session when the last window of the site has closed.
 * @param {boolean} [options.separateTabs] Each tab needs a login of its own.
 * @param {(warning: Warning) => void} [options.onWarning] Warn, instead of the dialog.
 * @param {(ended: Ended) => void} [options.onEnded] Called when the session has ended, instead of leaving the page.
 * @param {{warning?: (seconds: number) => string, stay?: string, logout?: string}} [options.texts] Of the dialog.
 * @returns {{stop: () => void, check: () => Promise<object|undefined>, stay: () => Promise<void>,
 *   logout: () => Promise<void>}} `stop` watching; `check` the status now; `stay` logged in; `logout`.
 *
 * @typedef {object} Warning
 * @property {number} secondsLeft
 * @property {boolean} canStay Whether `stay` helps. Otherwise the session ends whatever the user does.
 * @property {AbortSignal} signal Aborted when the warning is over.
 * @property {() => Promise<void>} stay
 * @property {() => Promise<void>} logout
 *
 * @typedef {object} Ended
 * @property {string} reason `revoked`, `idle_timeout`, `absolute_timeout`, `concurrency_limit`, `suspected`, `logout`,
 *   `other_user`, `other_tab` or `ended`.
 * @property {() => void} leave What the script does without `onEnded`.
 */
export function watchSession(options = {}) {
  const watcher = new Watcher(checked(options));
  watcher.start();
  return {
    stop: () => watcher.stop(),
    check: () => watcher.check(),
    stay: () => watcher.stay(),
    logout: () => watcher.logout(),
  };
}

function checked(options) {
  for (const name of Object.keys(options)) {
    if (!(name in DEFAULTS)) throw new TypeError(`watchSession: there is no option ${name}`);
  }
  const all = { ...DEFAULTS, ...options, texts: { ...TEXTS, ...options.texts } };
  for (const name of ["endpoint", "loginPath"]) {
    if (typeof all[name] !== "string" || !/^\/(?![/\\])/.test(all[name])) {
      throw new TypeError(`watchSession: ${name} must be a path of this site, such as ${DEFAULTS[name]}`);
    }
  }
  if (!all.endpoint.endsWith("/")) throw new TypeError("watchSession: endpoint must end in /");
  for (const name of ["warnBefore", "pollEvery"]) {
    const least = name === "pollEvery" ? 1 : 0;
    if (!Number.isFinite(all[name]) || all[name] < least) {
      throw new TypeError(`watchSession: ${name} must be seconds, at least ${least}`);
    }
  }
  for (const name of ["onWarning", "onEnded"]) {
    if (all[name] !== undefined && typeof all[name] !== "function") {
      throw new TypeError(`watchSession: ${name} must be a function`);
    }
  }
  return all;
}

/** Watches the session for one page. */
class Watcher {
  #options;
  #events = new EventFeed(this);
  #tabs;
  #tab;
  #warning;
  #curtain = new Curtain();
  /** The session as this page knows it; undefined: nobody was logged in yet. */
  #session;
  /** Whether the authority has said who is logged in, if anybody. */
  #isKnown = false;
  #deadline = Infinity;
  #hasEnded = false;
  #isStopped = false;
  #isLeader = false;
  #failures = 0;
  #submitted = -Infinity;
  #checking;
  #timers = new Set();
  #listening = new AbortController();

  constructor(options) {
    this.#options = options;
    this.#warning = new Warnings(this, options);
    this.#tabs = new Tabs(options.endpoint, (message) => this.#hear(message));
    this.#tab = options.separateTabs ? new OwnTab(options.endpoint) : undefined;
  }

  /** The path of an endpoint. */
  path(name) {
    return this.#options.endpoint + name;
  }

  get pollEvery() {
    return this.#options.pollEvery;
  }

  start() {
    const { signal } = this.#listening;
    addEventListener("pagehide", (event) => this.#leaveFor(event), { signal });
    addEventListener("pageshow", (event) => event.persisted && this.#comeBack(), { signal });
    addEventListener("submit", (event) => event.defaultPrevented || (this.#submitted = performance.now()), { signal });
    addEventListener("online", () => this.#session && this.check(), { signal });
    document.addEventListener("visibilitychange", () => !document.hidden && this.#session && this.check(), { signal });
    this.#connect();
  }

  stop() {
    this.#isStopped = true;
    this.#listening.abort();
    this.#disconnect();
    this.#warning.end();
    this.#curtain.open();
  }

  /** Ask for the status now, and follow from it. Resolves to the status; undefined if nobody could say. */
  check() {
    this.#checking ??= this.#ask("status", "GET").finally(() => (this.#checking = undefined));
    return this.#checking;
  }

  /** Stay logged in: restart the idle timeout. */
  async stay() {
    await this.#ask("extend", "POST");
  }

  async logout() {
    const response = await request(this.path("logout"), "POST");
    if (response?.ok) this.end("logout");
  }

  /** Hear from the event stream that the session has ended. */
  end(reason) {
    this.#tabs.tell({ kind: "ended", reason, session: this.#session?.session_id });
    this.#end(reason);
  }

  /** Whether there is still something to watch. */
  get isOver() {
    return this.#hasEnded || this.#isStopped;
  }

  #connect() {
    this.#tabs.open();
    this.#sayHereIfAsked();
    this.check();
  }

  /** From the first time that somebody is logged in: let one tab have the event stream. */
  #follow() {
    this.#tabs.lead(
      () => {
        this.#isLeader = true;
        this.#events.open();
        this.#sayHereIfAsked(); // the leader before may have been closed
      },
      () => {
        this.#isLeader = false;
        this.#events.close();
      },
    );
  }

  #disconnect() {
    this.#forgetTimers();
    this.#tabs.close();
  }

  #forgetTimers() {
    for (const timer of this.#timers) clearTimeout(timer);
    this.#timers.clear();
  }

  async #ask(name, method) {
    if (this.isOver) return undefined;
    const response = await request(this.path(name), method);
    let status;
    if (response?.ok) status = await response.json().catch(() => undefined);
    else if (response?.status === 401) status = { state: "none" };
    if (this.isOver) return undefined;
    if (status?.state === undefined) {
      // Nobody knows. A page whose time is up shows nothing until somebody does.
      if (performance.now() >= this.#deadline) this.#curtain.close();
      this.#forgetTimers();
      this.#later(Math.min(RETRY * 2 ** this.#failures++, this.#options.pollEvery * 1000), () => this.check());
      return undefined;
    }
    this.#failures = 0;
    this.#tabs.tell({ kind: "status", status });
    this.#apply(status);
    return status;
  }

  #apply(status) {
    if (this.isOver) return;
    this.#isKnown = true;
    if (status.state !== "active") {
      this.#tab?.noteLogin();
      if (this.#session !== undefined) this.#end("ended");
      else if (this.#options.required) this.#end("ended");
      else this.#curtain.open();
      return;
    }
    if (this.#session !== undefined && this.#session.subject !== status.subject) return this.#end("other_user");
    if (this.#tab !== undefined && !this.#tab.owns(status)) return this.#end("other_tab");
    this.#session = status;
    this.#curtain.open();
    this.#schedule(status);
    if (!this.#tabs.isAsking) this.#follow();
  }

  #schedule({ idle_expires_in: idle, expires_in: absolute }) {
    this.#forgetTimers();
    const left = Math.min(idle ?? Infinity, absolute ?? Infinity);
    this.#deadline = performance.now() + left * 1000;
    if (left === Infinity) return;
    const { warnBefore } = this.#options;
    if (left > warnBefore) {
      this.#warning.end();
      // Activity in other tabs and requests of scripts extend it, so ask again before the warning.
      if (warnBefore > 0) this.#later((left - warnBefore) * 1000, () => this.check());
    } else if (left > 0) {
      this.#warning.begin(left, (idle ?? Infinity) < (absolute ?? Infinity));
    }
    this.#later(left * 1000 + 500, () => this.check());
  }

  #later(milliseconds, action) {
    const timer = setTimeout(
      () => {
        this.#timers.delete(timer);
        action();
      },
      Math.min(Math.max(0, milliseconds), LONGEST),
    );
    this.#timers.add(timer);
  }

  #hear({ kind, reason, session, status }) {
    // A page that was opened without a session shows nothing of one, so it is not for it.
    if (this.#session === undefined) return;
    const isOurs = (session ?? status?.session_id) === this.#session.session_id;
    if (kind === "ended" && isOurs) this.#end(reason);
    else if (kind === "status" && status.state === "active" && isOurs) this.#apply(status);
    else if (kind === "closing") this.#options.logoutOnClose && this.#isLeader && this.stay();
    else this.check();
  }

  #end(reason) {
    if (this.isOver) return;
    this.#hasEnded = true;
    this.#warning.end();
    this.#disconnect();
    const leave = () => {
      this.#curtain.close();
      document.body?.replaceChildren();
      const go = () => location.replace(this.#options.loginPath);
      // Perhaps the form has logged out, and the response that deletes the cookie is on its way: do not cancel it.
      if (performance.now() - this.#submitted < SUBMITTING) setTimeout(go, SUBMITTING);
      else go();
    };
    // A page that is hidden has come back by the back button, say, and must not be seen.
    if (this.#options.onEnded === undefined || this.#curtain.isClosed) return leave();
    try {
      this.#options.onEnded({ reason, leave });
    } catch (error) {
      leave();
      throw error;
    }
  }

  #leaveFor({ persisted }) {
    if (this.#options.logoutOnClose && this.#session !== undefined && !this.isOver) {
      this.#tabs.tell({ kind: "closing" });
      Departure.announce(this.#options.endpoint, this.path("close"));
    }
    this.#disconnect();
    // The browser keeps the page as it is now, for the back button. What it shows then is not known yet.
    if (persisted && (this.#session !== undefined || !this.#isKnown)) this.#curtain.close();
  }

  #comeBack() {
    if (this.#hasEnded) location.replace(this.#options.loginPath);
    else if (!this.#isKnown) location.reload(); // it may show something of a session that has ended since
    else this.#connect();
  }

  #sayHereIfAsked() {
    if (!this.#options.logoutOnClose || !Departure.isRecent(this.#options.endpoint)) return;
    this.stay();
    setTimeout(() => this.stay(), DEPARTURE / 6); // in case that the first one was faster than what it answers
  }
}

/** The event stream, or questions now and then while there is none. */
class EventFeed {
  #watcher;
  #source;
  #polling;

  constructor(watcher) {
    this.#watcher = watcher;
  }

  open() {
    this.close();
    this.#connect();
    this.#polling = setInterval(() => {
      if (this.#source?.readyState === EventSource.OPEN) return;
      this.#watcher.check();
      if (this.#source?.readyState === EventSource.CLOSED) this.#connect();
    }, this.#watcher.pollEvery * 1000);
  }

  close() {
    this.#source?.close();
    this.#source = undefined;
    clearInterval(this.#polling);
    this.#polling = undefined;
  }

  #connect() {
    if (typeof EventSource === "undefined") return;
    this.#source?.close();
    const source = (this.#source = new EventSource(this.#watcher.path("events")));
    source.addEventListener("ended", (event) => this.#watcher.end(JSON.parse(event.data).reason));
    source.addEventListener("renewed", () => this.#watcher.check());
  }
}

/** The tabs of this browser that show the site. One of them, the leader, has the event stream. */
class Tabs {
  #name;
  #hear;
  #channel;
  #leading;

  constructor(endpoint, hear) {
    this.#name = `sessiond:${endpoint}`;
    this.#hear = hear;
  }

  open() {
    if (typeof BroadcastChannel === "undefined") return;
    this.#channel = new BroadcastChannel(this.#name);
    this.#channel.onmessage = (event) => this.#hear(event.data);
  }

  close() {
    this.#channel?.close();
    this.#channel = undefined;
    this.#leading?.abort();
    this.#leading = undefined;
  }

  /** Whether this tab leads, or waits for its turn. */
  get isAsking() {
    return this.#leading !== undefined;
  }

  tell(message) {
    this.#channel?.postMessage(message);
  }

  /** Call `begin` when this tab leads, and `end` when it does not any more. A tab alone leads. */
  lead(begin, end) {
    const leading = (this.#leading = new AbortController());
    const isAlone = typeof BroadcastChannel === "undefined" || navigator.locks === undefined;
    const whileLeading = () =>
      new Promise((resolve) => {
        if (leading.signal.aborted) return resolve();
        leading.signal.addEventListener("abort", () => {
          end();
          resolve();
        });
        begin();
      });
    if (isAlone) whileLeading();
    else navigator.locks.request(this.#name, { signal: leading.signal }, whileLeading).catch(() => {});
  }
}

/** Whether the session was begun in this tab. The browser sends the cookie from all tabs, whatever this says. */
class OwnTab {
  #key;

  constructor(endpoint) {
    this.#key = `sessiond:tab:${endpoint}`;
  }

  /** Nobody is logged in: whoever logs in next does it in this tab. */
  noteLogin() {
    sessionStorage.setItem(this.#key, "login");
  }

  owns({ session_id: session, login_time: login }) {
    const known = sessionStorage.getItem(this.#key);
    if (known === session) return true;
    if (known === "login" || (known?.startsWith("not ") && known !== `not ${login}`)) {
      sessionStorage.setItem(this.#key, session);
      return true;
    }
    // Only a login later than this one is this tab's own.
    sessionStorage.setItem(this.#key, `not ${login}`);
    return false;
  }
}

/** The warning that the session will end. */
class Warnings {
  #watcher;
  #options;
  #current;

  constructor(watcher, options) {
    this.#watcher = watcher;
    this.#options = options;
  }

  begin(secondsLeft, canStay) {
    if (this.#current !== undefined) return;
    this.#current = new AbortController();
    const warning = {
      secondsLeft: Math.ceil(secondsLeft),
      canStay,
      signal: this.#current.signal,
      stay: () => this.#watcher.stay(),
      logout: () => this.#watcher.logout(),
    };
    if (this.#options.onWarning !== undefined) this.#options.onWarning(warning);
    else showDialog(warning, this.#options.texts);
  }

  end() {
    this.#current?.abort();
    this.#current = undefined;
  }
}

function showDialog({ secondsLeft, canStay, signal, stay, logout }, texts) {
  const dialog = document.createElement("dialog");
  const text = document.createElement("p");
  const until = performance.now() + secondsLeft * 1000;
  const count = () => {
    text.textContent = texts.warning(Math.max(0, Math.ceil((until - performance.now()) / 1000)));
  };
  const button = (label, action) => {
    const made = document.createElement("button");
    made.type = "button";
    made.textContent = label;
    made.addEventListener("click", action);
    return made;
  };
  dialog.className = "sessiond-warning";
  dialog.setAttribute("role", "alertdialog");
  dialog.append(text, ...(canStay ? [button(texts.stay, stay)] : []), button(texts.logout, logout));
  count();
  const counting = setInterval(count, 1000);
  signal.addEventListener("abort", () => {
    clearInterval(counting);
    dialog.remove();
  });
  // Escape would leave a page that ends without a further word.
  dialog.addEventListener("cancel", (event) => event.preventDefault());
  document.body.append(dialog);
  dialog.showModal();
}

/** Hides the page until it is known whether it may be shown. Nothing in it can make itself visible. */
class Curtain {
  isClosed = false;
  #position = [0, 0];

  close() {
    if (this.isClosed) return;
    this.#position = [scrollX, scrollY];
    this.isClosed = true;
    document.documentElement.style.setProperty("display", "none", "important");
  }

  open() {
    if (!this.isClosed) return;
    this.isClosed = false;
    document.documentElement.style.removeProperty("display");
    scrollTo(...this.#position);
  }
}

/** A page of the browser has gone, perhaps the last one. */
const Departure = {
  announce(endpoint, path) {
    stored(() => localStorage.setItem(`sessiond:gone:${endpoint}`, String(Date.now())));
    if (!navigator.sendBeacon?.(path)) request(path, "POST");
  },

  isRecent(endpoint) {
    const gone = Number(stored(() => localStorage.getItem(`sessiond:gone:${endpoint}`)) ?? 0);
    return Math.abs(Date.now() - gone) < DEPARTURE;
  },
};

/** Storage is refused in some browsers and settings. */
function stored(action) {
  try {
    return action();
  } catch {
    return undefined;
  }
}

/** Make a request to an endpoint; undefined if there is no response. */
async function request(path, method) {
  try {
    return await fetch(path, {
      method,
      credentials: "same-origin",
      cache: "no-store",
      keepalive: method === "POST",
      headers: { accept: "application/json" },
    });
  } catch {
    return undefined;
  }
}
