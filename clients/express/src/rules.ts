import { type Authority, monotonic } from "./authority";
import { SessiondError } from "./errors";
import type { Duration__Output } from "./generated/google/protobuf/Duration";

/** What the application's policy says that a request needs to know. */
export interface Rules {
  /** The names of the session cookie as browsers send them: of a session with a subject, then of an anonymous one. */
  cookieNames: readonly string[];
  /** For how many seconds a source that guessed tokens is locked. */
  lockSeconds: number;
}

/** Milliseconds after which the rules are read again, because an operator may have reloaded the policies. */
const REFRESH = 60_000;

/** The application's rules, read from the authority at the first request and kept up to date. */
export class RuleBook {
  readonly #authority: Authority;
  #rules: Rules | undefined;
  #readAt = -Infinity;
  #reading: Promise<Rules> | undefined;

  constructor(authority: Authority) {
    this.#authority = authority;
  }

  /** The rules. Only the first call waits; later ones get the rules that are known, also during an outage. */
  async current(): Promise<Rules> {
    if (monotonic() - this.#readAt >= REFRESH && this.#reading === undefined) {
      this.#reading = this.#read().finally(() => (this.#reading = undefined));
      this.#reading.catch(() => undefined); // if nobody waits; whoever waits gets the error
    }
    return this.#rules ?? (await (this.#reading as Promise<Rules>));
  }

  async #read(): Promise<Rules> {
    const { applications } = await this.#authority.call("GetAuthority", {});
    const name = this.#authority.application || "default";
    const policy = applications.find((application) => application.name === name)?.policy;
    const cookie = policy?.cookie;
    if (!cookie?.browserName) {
      const names = applications.map((application) => application.name).join(", ");
      // A caller is shown its own applications only.
      const kind = this.#authority.sendsKey ? "configured for this caller" : "configured";
      throw new SessiondError("internal", `sessiond: unknown application '${name}' (${kind}: ${names || "none"})`);
    }
    this.#rules = {
      cookieNames: [...new Set([cookie.browserName, cookie.browserAnonymousName])],
      lockSeconds: Math.ceil(seconds(policy?.guessing?.lockTime)),
    };
    this.#readAt = monotonic();
    return this.#rules;
  }
}

/** A duration in seconds; 0 if it is unset. */
export function seconds(duration: Duration__Output | null | undefined): number {
  return duration ? duration.seconds + duration.nanos / 1e9 : 0;
}
