import type { IncomingMessage, ServerResponse } from "node:http";

import { type Authority, monotonic } from "./authority";
import type { SeenClient } from "./client";
import { type DataChange, RequestData } from "./data";
import { SessiondError } from "./errors";
import type { AuthenticateSessionResponse__Output } from "./generated/sessiond/v1/AuthenticateSessionResponse";
import type { CookieDirectives__Output } from "./generated/sessiond/v1/CookieDirectives";
import type { Session__Output } from "./generated/sessiond/v1/Session";
import type { ValidateSessionResponse__Output } from "./generated/sessiond/v1/ValidateSessionResponse";
import { vary } from "./hold";
import { Token } from "./token";

/** Milliseconds after which the cookies of a validation are too old to send: the client may have newer ones by then. */
const LATE = 5_000;

/**
 * What a request may do about a session:
 *
 * - `live`: it has one.
 * - `none`: it has none, and may get one.
 * - `kept`: it has none, and its cookie must stay as it is, because a newer one may be on its way to the browser, or
 *   because the user has to authenticate first.
 */
export type Standing = "live" | "none" | "kept";

/** The session of one request: what was presented, what the authority said, and what the response must carry. */
export class RequestState {
  standing: Standing = "none";
  session: Session__Output | undefined;
  data = new RequestData();
  csrfToken: Token | undefined;
  /** Why there is no session although there may be one; for a request that needs it. */
  denial = new SessiondError("login_required", "there is no session");
  /** Whether the request's origin and CSRF token have been checked, as for unsafe methods. */
  csrfChecked = false;
  /** Whether the handler has looked at the session, so that the response depends on the cookie. */
  wasRead = false;
  /** The text that the client presented; the newest token after a login or once a session was opened. */
  token = new Token("");
  #renewed: Token | undefined;
  #last: { headers: CookieDirectives__Output; at: number; fromValidation: boolean } | undefined;

  constructor(
    readonly authority: Authority,
    readonly client: SeenClient,
    readonly request: IncomingMessage,
    readonly now: () => number = monotonic,
  ) {}

  /** The client presented this token. */
  present(token: string): void {
    this.token = new Token(token);
  }

  /** Take over the answer to a validation of the request's token. */
  validated(answer: ValidateSessionResponse__Output, { unsafe, atLogin }: { unsafe: boolean; atLogin: boolean }): void {
    const valid = answer.verdict === "VERDICT_VALID";
    // A form or an upload may take minutes to arrive, and the client may have logged in again by then. A dead cookie
    // that it still has is deleted with the next page.
    if (valid || !unsafe) {
      this.cookies(answer.cookies, true);
    }
    this.session = valid ? (answer.session ?? undefined) : undefined;
    if (this.session !== undefined) {
      this.standing = "live";
      this.csrfToken = answer.csrfToken === "" ? undefined : new Token(answer.csrfToken);
      this.#renewed = answer.renewedToken === "" ? undefined : new Token(answer.renewedToken);
      this.data = new RequestData(answer.data?.values);
      return;
    }
    // A copy of an old token is kept because the client probably has a newer one. The login page is requested after a
    // denial, with the cookie that the client has by then: so this client has none.
    const onlyCopy = atLogin && answer.verdict === "VERDICT_REPLAYED" && answer.signals.length > 0;
    this.standing = answer.nextStep === "NEXT_STEP_DISCARD_TOKEN" || onlyCopy ? "none" : "kept";
    if (answer.nextStep === "NEXT_STEP_STEP_UP") {
      this.denial = new SessiondError("reauthentication_required", "the subject must authenticate again");
    }
  }

  /** Keep the headers of the last call that returned any. */
  cookies(headers: CookieDirectives__Output | null, fromValidation = false): void {
    if (headers !== null) {
      this.#last = { headers, at: this.now(), fromValidation };
    }
  }

  /** Leave the client's cookie alone: after a failed change nobody knows which token counts. */
  forgetCookies(): void {
    this.#last = undefined;
  }

  /** A login, or its repetition, has succeeded. */
  loggedIn(answer: AuthenticateSessionResponse__Output): void {
    const wasOthers = answer.presentedVerdict === "VERDICT_VALID" || answer.presentedVerdict === "VERDICT_INSUFFICIENT";
    if (answer.created && wasOthers) {
      this.data.clear(); // another subject's data, or what was computed from it
    } else if (answer.created) {
      this.data.detach();
    }
    this.opened(answer);
  }

  /** The client has this session and token from now on. */
  opened(answer: {
    session: Session__Output | null;
    token: string;
    csrfToken: string;
    cookies: CookieDirectives__Output | null;
  }): void {
    this.cookies(answer.cookies);
    this.standing = "live";
    this.session = answer.session ?? undefined;
    this.token = new Token(answer.token);
    this.csrfToken = new Token(answer.csrfToken);
    this.#renewed = undefined;
  }

  /** The session has ended, by the user's wish. A later change opens a new one. */
  ended(headers: CookieDirectives__Output | null): void {
    this.cookies(headers);
    this.standing = headers === null ? "kept" : "none"; // no headers: the client may hold a newer token
    this.session = undefined;
    this.data.clear();
    this.csrfToken = this.#renewed = undefined;
    this.token = new Token("");
  }

  /** Open an anonymous session. */
  async open(fields: { data?: Record<string, Buffer>; loginPage?: boolean }): Promise<void> {
    this.opened(await this.change(() => this.authority.call("CreateSession", { ...fields, client: this.client })));
  }

  /** Write what has changed; undefined if nothing has. */
  save(): Promise<void> | undefined {
    const change = this.data.changes();
    if (change === undefined) {
      return undefined;
    }
    if (this.standing === "live") {
      // The session of a login page ends soon, so what is to be kept needs one of its own.
      return this.session?.loginExpireTime ? this.#saveInNew() : this.#update(change);
    }
    if (this.standing === "kept") {
      return Promise.reject(this.denial);
    }
    return this.#saveInNew();
  }

  async #saveInNew(): Promise<void> {
    const data = this.data.everything();
    if (Object.keys(data).length > 0) {
      await this.open({ data });
      this.data.saved({ set: data, delete: [] });
    }
  }

  async #update(change: DataChange): Promise<void> {
    // By id, a long request with a token that has been renewed since still finds its session. An anonymous one is named
    // by its token: whoever planted it must not write into the session that has become a subject's.
    const session = this.session?.subject
      ? { sessionId: this.session.sessionId }
      : { token: (this.#renewed ?? this.token).reveal() };
    const { verdict } = await this.authority.call("UpdateSessionData", { session, ...change });
    if (verdict !== "VERDICT_VALID") {
      this.forgetCookies(); // the session has ended meanwhile; the response of whoever ended it has the cookies
      throw new SessiondError("login_required", "the session ended before its data was written");
    }
    this.data.saved(change);
  }

  /** Make a call that changes something. If it fails, the client's cookie stays as it is. */
  async change<T>(call: () => Promise<T>): Promise<T> {
    try {
      return await call();
    } catch (error) {
      if (error instanceof SessiondError && error.outcomeUnknown) {
        this.forgetCookies();
      }
      throw error;
    }
  }

  /** Write the headers that the response needs. */
  finish(response: ServerResponse): void {
    if (this.wasRead) {
      vary(response, "Cookie");
    }
    const last = this.#last;
    if (last === undefined || (last.fromValidation && this.now() - last.at > LATE)) {
      return;
    }
    const { setCookie, cacheControl, clearSiteData } = last.headers;
    for (const value of setCookie) {
      response.appendHeader("Set-Cookie", value);
    }
    if (cacheControl !== "") {
      response.setHeader("Cache-Control", cacheControl);
    }
    if (clearSiteData !== "") {
      response.setHeader("Clear-Site-Data", clearSiteData);
    }
  }
}
