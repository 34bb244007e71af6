import { inspect } from "node:util";

import { type SessionLimit, SessiondError } from "./errors";
import type { Session__Output } from "./generated/sessiond/v1/Session";
import type { Timestamp__Output } from "./generated/google/protobuf/Timestamp";
import { safeNext } from "./paths";
import type { RequestState } from "./state";
import { Token } from "./token";

/** How a subject was authenticated, and what its session shall be. */
export interface LoginOptions {
  /** Assurance level: 1 to 3 as in NIST SP 800-63B-4. Default 0: the application does not rank its logins. */
  level?: number;
  /** Methods as in RFC 8176: `pwd`, `otp`, `hwk`. */
  methods?: readonly string[];
  /** "Remember me": the policy's longer timeouts. */
  persistent?: boolean;
  /** Raise the level for the policy's elevation timeout only. The session must be this subject's. */
  elevate?: boolean;
  /** Public labels, such as a tenant. */
  labels?: Readonly<Record<string, string>>;
  /** The ticket of an error `too_many_sessions`. */
  ticket?: Token | string;
  /** With `ticket`: the sessions that the subject chose to end. */
  evict?: readonly string[];
}

/** One session of a subject, for a page that lists them. */
export interface Device {
  /** The public id of the session, for `endDevice`. */
  id: string;
  /** Whether it is the session of this request. */
  current: boolean;
  /** For example "Firefox 140 on Linux". The client chose it: show it, but do not rely on it. Empty if unknown. */
  description: string;
  /** `desktop`, `phone`, `tablet`, `tv` or `bot`; empty if unknown. */
  type: string;
  /** The address of the last recorded activity. Empty if unknown. */
  ipAddress: string;
  createTime: Date;
  lastActiveTime: Date;
  persistent: boolean;
}

const SESSION_ID = /^[\da-f]{8}(-[\da-f]{4}){3}-[\da-f]{12}$/;
const PAGE_SIZE = 1_000;

/** What a handler does with the session of its request: `req.sessiond`. */
export class RequestSession {
  readonly #state: RequestState;

  /** @internal */
  constructor(state: RequestState) {
    this.#state = state;
  }

  /** The user; undefined for a guest. */
  get subject(): string | undefined {
    return this.#session?.subject || undefined;
  }

  /** The public id of the session; undefined if there is none. It is no secret. */
  get sessionId(): string | undefined {
    return this.#session?.sessionId;
  }

  /** The level of the authentication that counts now; 0 for a guest. */
  get level(): number {
    return this.#session?.authentication?.level ?? 0;
  }

  /** The methods of the authentication that counts now. */
  get methods(): readonly string[] {
    return this.#session?.authentication?.methods ?? [];
  }

  /** The public labels of the session. */
  get labels(): Readonly<Record<string, string>> {
    return this.#session?.labels ?? {};
  }

  /** The session's data: the same object as `req.session`. */
  get data(): Record<string, unknown> {
    this.#state.wasRead = true;
    return this.#state.data.values;
  }

  /** Write changes of the data now. Otherwise they are written before the headers of the response are sent. */
  async save(): Promise<void> {
    await this.#state.save();
  }

  /**
   * Log a subject in, whatever session the client has. Check the credentials first. The session gets a new token and
   * keeps the guest's data. If it was another subject's, that session ends, and nothing of it stays.
   *
   * Rejects with a SessiondError: `locked`, `too_many_sessions`, `unavailable`.
   */
  async login(subject: string, options: LoginOptions = {}): Promise<void> {
    if (typeof subject !== "string" || subject === "") {
      throw new TypeError("login: subject must be a text that is not empty");
    }
    const { level = 0, methods = [], persistent = false, elevate = false, labels = {}, ticket, evict = [] } = options;
    const state = this.#state;
    state.wasRead = true;
    const answer = await state.change(() =>
      state.authority.call("AuthenticateSession", {
        token: state.token.reveal(),
        subject,
        authentication: { level, methods: [...methods] },
        client: state.client,
        persistent,
        elevate,
        orCreate: !elevate,
        labels: { ...labels },
        ticket: ticket instanceof Token ? ticket.reveal() : (ticket ?? ""),
        evictSessionIds: [...evict],
      }),
    );
    if (answer.limit !== null) {
      const { maxSessions, liveCount, liveSessions, ticket: next } = answer.limit;
      const limit: SessionLimit = {
        maxSessions,
        liveCount,
        ticket: next === "" ? undefined : new Token(next),
        sessionIds: liveSessions.map((session) => session.sessionId),
      };
      throw new SessiondError("too_many_sessions", "the subject has reached its limit of sessions", { limit });
    }
    if (answer.verdict !== "VERDICT_VALID") {
      const code = answer.verdict === "VERDICT_LOCKED" ? "locked" : "login_required";
      throw new SessiondError(code, `nobody was logged in: ${answer.verdict}`);
    }
    state.loggedIn(answer);
  }

  /** Log out here. The session ends, and its data is gone. Harmless if there is no session. */
  async logout(): Promise<void> {
    const state = this.#state;
    state.wasRead = true;
    const token = state.token.reveal();
    if (token === "") {
      state.data.clear();
      return;
    }
    const { cookies } = await state.change(() =>
      state.authority.call("RevokeSession", { session: { token }, reason: "logout", client: state.client }),
    );
    state.ended(cookies);
  }

  /**
   * Log the subject out on all devices; with `keepCurrent` on all but this one. With `wait`, the call returns when no
   * replica and no cache accepts the sessions any more; that may take some seconds. Returns how many sessions ended.
   */
  async logoutEverywhere({ keepCurrent = false, wait = false } = {}): Promise<number> {
    const { subject, sessionId } = this.#owner();
    const state = this.#state;
    const { revokedCount } = await state.change(() =>
      state.authority.call("RevokeSessions", {
        filter: { subject },
        exceptSessionId: keepCurrent ? sessionId : "",
        reason: "logout everywhere",
        wait: wait ? "REVOCATION_WAIT_FOR_CACHES" : "REVOCATION_WAIT_UNSPECIFIED",
      }),
    );
    if (!keepCurrent) {
      await this.logout(); // the session has ended already; this returns the headers that delete its cookie
    }
    return revokedCount;
  }

  /** The subject's live sessions, newest first. */
  async devices(): Promise<Device[]> {
    const { subject, sessionId } = this.#owner();
    const devices: Device[] = [];
    let pageToken = "";
    do {
      const page = await this.#state.authority.call("ListSessions", {
        filter: { subject },
        pageSize: PAGE_SIZE,
        pageToken,
      });
      devices.push(...page.sessions.map((session) => deviceOf(session, sessionId)));
      pageToken = page.nextPageToken;
    } while (pageToken !== "");
    return devices;
  }

  /**
   * End one of the subject's sessions, by the `id` of `devices`. Returns false if the subject has no such session: the
   * id of another subject's session is treated like one that does not exist.
   */
  async endDevice(id: unknown): Promise<boolean> {
    const { subject, sessionId } = this.#owner();
    if (typeof id !== "string" || !SESSION_ID.test(id)) {
      return false;
    }
    if (id === sessionId) {
      await this.logout();
      return true;
    }
    try {
      await this.#state.authority.call("RevokeSession", {
        session: { sessionId: id },
        subject,
        reason: "signed out by its owner",
      });
      return true;
    } catch (error) {
      if (error instanceof SessiondError && error.code === "not_found") {
        return false;
      }
      throw error;
    }
  }

  /**
   * The CSRF token for the page's forms (field `csrf_token`) and scripts (header `X-CSRF-Token`). If there is no
   * session, an anonymous one for a login page is opened. The text is empty if the client's cookie must not be touched
   * now; a form is then accepted without a token if the browser says that it comes from this site.
   */
  async csrfToken(): Promise<string> {
    const state = this.#state;
    state.wasRead = true;
    if (state.standing === "none") {
      await state.open({ loginPage: true });
    }
    return state.csrfToken?.reveal() ?? "";
  }

  /** The path if it leads to a page of this site, otherwise the fallback: for the `next` of a login page. */
  safeNext(path: unknown, fallback = "/"): string {
    return safeNext(path, fallback);
  }

  [inspect.custom](): object {
    return { subject: this.#state.session?.subject, sessionId: this.#state.session?.sessionId };
  }

  get #session(): Session__Output | undefined {
    this.#state.wasRead = true;
    return this.#state.session;
  }

  /** The subject and its session. Throws `login_required` for a guest. */
  #owner(): { subject: string; sessionId: string } {
    const session = this.#session;
    if (!session?.subject) {
      throw this.#state.denial;
    }
    return { subject: session.subject, sessionId: session.sessionId };
  }
}

function deviceOf(session: Session__Output, current: string): Device {
  const device = session.lastDevice ?? session.device;
  const type = String(device?.type ?? "")
    .replace("DEVICE_TYPE_", "")
    .toLowerCase();
  return {
    id: session.sessionId,
    current: session.sessionId === current,
    description: device?.description ?? "",
    type: type === "unspecified" ? "" : type,
    ipAddress: session.lastClient?.ipAddress || session.client?.ipAddress || "",
    createTime: dateOf(session.createTime),
    lastActiveTime: dateOf(session.lastActiveTime),
    persistent: session.persistent,
  };
}

function dateOf(timestamp: Timestamp__Output | null): Date {
  return new Date(timestamp === null ? 0 : timestamp.seconds * 1_000 + Math.floor(timestamp.nanos / 1e6));
}
