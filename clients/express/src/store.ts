import { createCipheriv, createDecipheriv, createHash, hkdfSync, randomBytes } from "node:crypto";

import type { Request } from "express";
import { type Session, type SessionData, Store } from "express-session";

import { Authority, CONNECTION_OPTIONS, type ConnectionOptions } from "./authority";
import { SessiondError } from "./errors";
import { checkNames, optionError } from "./options";
import { Token } from "./token";

/** Options of the store. */
export interface SessionStoreOptions extends ConnectionOptions {
  /** Separates the stores of several programs in one application. Default: `express-session`. */
  name?: string;
  /**
   * Milliseconds by which a cookie's expiry must have moved before `touch` writes it. Default: a twentieth of the
   * cookie's `maxAge`, at most 60,000. The session may end that much before its cookie.
   */
  touchAfter?: number;
}

type Callback<T = void> = (error?: unknown, result?: T) => void;
/** The authority's session of an express-session id. It never changes: a new session has a new id. */
interface Entry {
  sessionId: string;
  token: Token;
}

const STORE_LABEL = "express-store";
const SID_LABEL = "express-sid";
/** Keys of the session data: all but the cookie, the cookie, and the sealed token. */
const CONTENT = "session";
const COOKIE = "cookie";
const SEALED = "token";
const PAGE_SIZE = 1_000;
/** How many sessions are read at the same time for `all` and `length`. */
const READERS = 16;
/** How many ids this process remembers. */
const REMEMBERED = 10_000;
/** What an object with a session's data came from: the authority's session, and the cookie as it is stored. */
interface Source {
  entry: Entry;
  cookie: string | undefined;
}
const SOURCE = Symbol("sessiond");
type Marked = SessionData & { [SOURCE]?: Source };

/**
 * A store for express-session. Each of its sessions is an anonymous session of the authority, which is found by a label
 * with a digest of the session id.
 *
 * express-session chooses the id and signs its cookie, so there is no renewal, no roll at login and no detection of
 * theft. The middleware `sessiond` has all three.
 */
export class SessionStore extends Store {
  readonly #authority: Authority;
  readonly #name: string;
  readonly #touchAfter: number | undefined;
  readonly #entries = new Recent<Entry>();
  readonly #destroyed = new Recent<true>();

  constructor(options: SessionStoreOptions) {
    super();
    if (typeof options !== "object" || options === null) {
      throw optionError("target", undefined, 'new SessionStore({ target: "127.0.0.1:7443" })');
    }
    checkNames(options, [...CONNECTION_OPTIONS, "name", "touchAfter"]);
    const { name = "express-session", touchAfter, ...connection } = options;
    if (typeof name !== "string" || name === "" || name.length > 256) {
      throw optionError("name", name, "a text of 1 to 256 characters");
    }
    if (touchAfter !== undefined && !(typeof touchAfter === "number" && touchAfter >= 0)) {
      throw optionError("touchAfter", touchAfter, "milliseconds, 0 or more");
    }
    this.#name = name;
    this.#touchAfter = touchAfter;
    this.#authority = new Authority(connection);
  }

  /** Read a session. Counts as activity. A session that has ended or whose cookie has expired is not found. */
  override get(sid: string, callback: (error: unknown, session?: SessionData | null) => void): void {
    settle(this.#get(sid), callback as Callback<SessionData | undefined>);
  }

  /** Write a session. One that was destroyed or has ended stays as it is, without an error. */
  override set(sid: string, session: SessionData, callback?: (error?: unknown) => void): void {
    settle(this.#set(sid, session), callback);
  }

  /** End a session. */
  override destroy(sid: string, callback?: (error?: unknown) => void): void {
    settle(this.#destroy(sid), callback);
  }

  /** Write the expiry of a session's cookie, if it has moved far enough. */
  override touch(sid: string, session: SessionData, callback?: (error?: unknown) => void): void {
    settle(this.#touch(sid, session), callback);
  }

  /** All sessions whose cookies have not expired, in no particular order. Their ids are unknown to the store. */
  override all(callback: (error: unknown, sessions?: SessionData[] | null) => void): void {
    settle(this.#all([CONTENT, COOKIE]), callback as Callback<SessionData[]>);
  }

  /** How many sessions `all` returns. */
  override length(callback: (error: unknown, length?: number) => void): void {
    settle(
      this.#all([COOKIE]).then((sessions) => sessions.length),
      callback as Callback<number>,
    );
  }

  /** End all sessions of this store. */
  override clear(callback?: (error?: unknown) => void): void {
    const ended = this.#authority.call("RevokeSessions", {
      filter: { labels: { [STORE_LABEL]: this.#name } },
      reason: "cleared",
    });
    settle(
      ended.then(() => undefined),
      callback,
    );
  }

  /** Make the session object of a request from what was read. */
  override createSession(request: Request, data: SessionData): Session & SessionData {
    const session = super.createSession(request, data);
    const source = (data as Marked)[SOURCE];
    return source === undefined ? session : (marked(session, source) as Session & SessionData);
  }

  /** Close the connection to the authority. */
  close(): void {
    this.#authority.close();
  }

  async #get(sid: string): Promise<SessionData | undefined> {
    const entry = await this.#find(sid);
    if (entry === undefined) {
      return undefined;
    }
    const answer = await this.#authority.call("ValidateSession", { token: entry.token.reveal(), data: {} });
    const session = answer.verdict === "VERDICT_VALID" ? decoded(answer.data?.values ?? {}) : undefined;
    if (session === undefined || hasExpired(session)) {
      return undefined;
    }
    return marked(session, { entry, cookie: textOf(answer.data?.values[COOKIE]) });
  }

  async #set(sid: string, session: Marked): Promise<void> {
    const known = session[SOURCE]?.entry ?? (await this.#find(sid));
    const entry = known ?? (await this.#create(sid));
    if (entry === undefined) {
      return;
    }
    const { cookie, ...content } = JSON.parse(JSON.stringify(session)) as Record<string, unknown>;
    const set: Record<string, Buffer> = { [CONTENT]: json(content) };
    if (cookie) {
      set[COOKIE] = json(cookie);
    }
    if (known === undefined) {
      set[SEALED] = seal(sid, entry.token.reveal());
    }
    await this.#update(entry, { set, delete: cookie ? [] : [COOKIE] });
    this.#entries.put(keyOf(sid), entry);
    marked(session, { entry, cookie: textOf(set[COOKIE]) });
  }

  async #destroy(sid: string): Promise<void> {
    this.#destroyed.put(keyOf(sid), true); // also for a session whose first save is still to come
    const entry = await this.#find(sid, true);
    if (entry !== undefined) {
      await this.#authority.call("RevokeSession", { session: { sessionId: entry.sessionId }, reason: "destroyed" });
    }
  }

  async #touch(sid: string, session: Marked): Promise<void> {
    const source = session[SOURCE] ?? (await this.#source(sid));
    if (source === undefined || !session.cookie) {
      return;
    }
    const { entry, cookie } = source;
    const text = JSON.stringify(session.cookie);
    if (cookie === undefined || this.#isDue(JSON.parse(cookie) as Cookie, JSON.parse(text) as Cookie)) {
      await this.#update(entry, { set: { [COOKIE]: Buffer.from(text) }, delete: [] });
      marked(session, { entry, cookie: text });
    }
  }

  async #source(sid: string): Promise<Source | undefined> {
    const entry = await this.#find(sid);
    if (entry === undefined) {
      return undefined;
    }
    const { sessionId } = entry;
    const { data } = await this.#authority.call("GetSessionData", { session: { sessionId }, keys: [COOKIE] });
    return { entry, cookie: textOf(data[COOKIE]) };
  }

  #isDue(before: Cookie, after: Cookie): boolean {
    const [was, is] = [expiryOf(before), expiryOf(after)];
    const others = (cookie: Cookie): string => JSON.stringify({ ...cookie, expires: undefined });
    if (others(before) !== others(after) || was === undefined || is === undefined) {
      return was !== is || others(before) !== others(after);
    }
    return Math.abs(is - was) >= (this.#touchAfter ?? Math.min(60_000, (after.originalMaxAge ?? 0) / 20));
  }

  async #all(keys: string[]): Promise<SessionData[]> {
    const ids: string[] = [];
    let pageToken = "";
    do {
      const page = await this.#authority.call("ListSessions", {
        filter: { labels: { [STORE_LABEL]: this.#name } },
        pageSize: PAGE_SIZE,
        pageToken,
      });
      ids.push(...page.sessions.map((session) => session.sessionId));
      pageToken = page.nextPageToken;
    } while (pageToken !== "");
    const sessions: SessionData[] = [];
    const reader = async (): Promise<void> => {
      for (let id = ids.pop(); id !== undefined; id = ids.pop()) {
        const session = await this.#read(id, keys);
        if (session !== undefined && !hasExpired(session)) {
          sessions.push(session);
        }
      }
    };
    await Promise.all(Array.from({ length: READERS }, reader));
    return sessions;
  }

  async #read(sessionId: string, keys: string[]): Promise<SessionData | undefined> {
    try {
      const { verdict, data } = await this.#authority.call("GetSessionData", { session: { sessionId }, keys });
      const unread: Record<string, Buffer> = keys.includes(CONTENT) ? {} : { [CONTENT]: Buffer.from("{}") };
      return verdict === "VERDICT_VALID" ? decoded({ ...unread, ...data }) : undefined;
    } catch (error) {
      if (error instanceof SessiondError && error.code === "not_found") {
        return undefined; // it has ended since the list was made
      }
      throw error;
    }
  }

  /** The live session of an id. `ending`: also one that this process has begun to destroy. */
  async #find(sid: string, ending = false): Promise<Entry | undefined> {
    const key = keyOf(sid);
    if (this.#destroyed.get(key) && !ending) {
      return undefined;
    }
    const known = this.#entries.get(key);
    if (known !== undefined) {
      return known;
    }
    const { sessions } = await this.#authority.call("ListSessions", { filter: { labels: this.#labels(sid) } });
    const sessionId = sessions[0]?.sessionId;
    if (sessionId === undefined) {
      return undefined;
    }
    const { data } = await this.#authority.call("GetSessionData", { session: { sessionId }, keys: [SEALED] });
    const token = unseal(sid, data[SEALED]);
    return token === undefined ? undefined : this.#entries.put(key, { sessionId, token });
  }

  /** Open the session of a new id; undefined if the id had one that has ended. */
  async #create(sid: string): Promise<Entry | undefined> {
    const labels = this.#labels(sid);
    if (this.#destroyed.get(keyOf(sid))) {
      return undefined;
    }
    const ended = await this.#authority.call("ListSessions", {
      filter: { labels, state: "SESSION_STATE_REVOKED" },
      pageSize: 1,
    });
    if (ended.sessions.length > 0) {
      return undefined;
    }
    // The same call for the same id: of two first saves at once, both get one session; and a save that arrives after
    // the session was destroyed gets that session, in which nothing can be written.
    const opened = await this.#authority.call("CreateSession", { labels }, this.#requestId(sid));
    if (opened.session === null) {
      return undefined;
    }
    return { sessionId: opened.session.sessionId, token: new Token(opened.token) };
  }

  async #update(entry: Entry, change: { set: Record<string, Buffer>; delete: string[] }): Promise<void> {
    try {
      await this.#authority.call("UpdateSessionData", { session: { sessionId: entry.sessionId }, ...change });
    } catch (error) {
      if (!(error instanceof SessiondError && error.code === "not_found")) {
        throw error;
      }
    }
  }

  #labels(sid: string): Record<string, string> {
    return { [STORE_LABEL]: this.#name, [SID_LABEL]: keyOf(sid) };
  }

  /** A UUIDv4 that only who knows the session id can compute: with it, the answer with the token can be had again. */
  #requestId(sid: string): string {
    const bytes = Buffer.from(hkdfSync("sha256", sid, this.#name, "sessiond request id", 16));
    bytes[6] = ((bytes[6] as number) & 0x0f) | 0x40;
    bytes[8] = ((bytes[8] as number) & 0x3f) | 0x80;
    return bytes.toString("hex").replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5");
  }
}

interface Cookie {
  expires?: string | null;
  originalMaxAge?: number | null;
}

/** The last things that were put in, by key. */
class Recent<T> {
  readonly #items = new Map<string, T>();

  get(key: string): T | undefined {
    return this.#items.get(key);
  }

  put(key: string, item: T): T {
    this.#items.delete(key);
    this.#items.set(key, item);
    if (this.#items.size > REMEMBERED) {
      this.#items.delete(this.#items.keys().next().value as string);
    }
    return item;
  }
}

function settle<T>(work: Promise<T>, callback: Callback<T> | undefined): void {
  // setImmediate: an exception of the callback must not look like one of the store.
  work.then(
    (result) => callback && setImmediate(callback, null, result),
    (error: unknown) => callback && setImmediate(callback, error),
  );
}

function keyOf(sid: string): string {
  return createHash("sha256").update(sid).digest("hex");
}

function json(value: unknown): Buffer {
  return Buffer.from(JSON.stringify(value));
}

/** Mark a session object, without a trace in its data, so that a later save finds its session and never opens one. */
function marked(session: Marked, source: Source): SessionData {
  return Object.defineProperty(session, SOURCE, { value: source, enumerable: false, configurable: true });
}

function textOf(bytes: Uint8Array | undefined): string | undefined {
  return bytes === undefined ? undefined : Buffer.from(bytes).toString();
}

function decoded(data: Record<string, Uint8Array>): SessionData | undefined {
  const [content, cookie] = [data[CONTENT], data[COOKIE]];
  if (content === undefined) {
    return undefined; // opened, but never saved
  }
  const session = JSON.parse(Buffer.from(content).toString()) as Record<string, unknown>;
  if (cookie !== undefined) {
    session["cookie"] = JSON.parse(Buffer.from(cookie).toString());
  }
  return session as unknown as SessionData;
}

function expiryOf(cookie: Cookie | undefined): number | undefined {
  const time = cookie?.expires ? Date.parse(cookie.expires) : NaN;
  return Number.isNaN(time) ? undefined : time;
}

function hasExpired(session: SessionData): boolean {
  const expiry = expiryOf(session.cookie as unknown as Cookie | undefined);
  return expiry !== undefined && expiry <= Date.now();
}

/** Seal the token of a session under its id, which only the browser's cookie has. AES-256-GCM. */
function seal(sid: string, token: string): Buffer {
  const nonce = randomBytes(12);
  const cipher = createCipheriv("aes-256-gcm", sealingKey(sid), nonce);
  return Buffer.concat([nonce, cipher.update(token, "utf8"), cipher.final(), cipher.getAuthTag()]);
}

function unseal(sid: string, sealed: Uint8Array | undefined): Token | undefined {
  if (sealed === undefined || sealed.length < 28) {
    return undefined;
  }
  const bytes = Buffer.from(sealed);
  const decipher = createDecipheriv("aes-256-gcm", sealingKey(sid), bytes.subarray(0, 12));
  decipher.setAuthTag(bytes.subarray(-16));
  try {
    return new Token(decipher.update(bytes.subarray(12, -16), undefined, "utf8") + decipher.final("utf8"));
  } catch {
    return undefined;
  }
}

function sealingKey(sid: string): Buffer {
  return Buffer.from(hkdfSync("sha256", sid, "", "sessiond token", 32));
}
