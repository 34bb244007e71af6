import { status as Status } from "@grpc/grpc-js";

import type { Token } from "./token";

/** What went wrong, in the words that an API client receives as `error`. */
export type SessiondErrorCode =
  | "ambiguous_cookies"
  | "conflict"
  | "csrf_failed"
  | "internal"
  | "locked"
  | "login_required"
  | "not_found"
  | "reauthentication_required"
  | "step_up_required"
  | "too_many_sessions"
  | "unavailable";

/** The sessions among which the subject chooses when the policy limits their number (`on_limit = "ask"`). */
export interface SessionLimit {
  /** How many live sessions the subject may have. */
  maxSessions: number;
  /** How many it has. */
  liveCount: number;
  /** Allows one repetition of the login with the subject's choice. Undefined if the policy rejects the login. */
  ticket: Token | undefined;
  /** The ids of the subject's live sessions, newest first; `devices` does not work before the login. */
  sessionIds: string[];
}

const HTTP: Record<SessiondErrorCode, number> = {
  ambiguous_cookies: 400,
  conflict: 409,
  csrf_failed: 403,
  internal: 500,
  locked: 429,
  login_required: 401,
  not_found: 404,
  reauthentication_required: 401,
  step_up_required: 401,
  too_many_sessions: 409,
  unavailable: 503,
};

/** Seconds after which a client should repeat a request that found no authority. */
const RETRY_AFTER = 2;

/**
 * A request that cannot be served. `status` and `headers` are those of the HTTP response; Express's own error handler
 * uses both. The message contains no token.
 */
export class SessiondError extends Error {
  override readonly name = "SessiondError";
  /** What went wrong. */
  readonly code: SessiondErrorCode;
  /** The HTTP status. */
  readonly status: number;
  /** HTTP headers that belong to the status. */
  readonly headers: Record<string, string>;
  /** Further members of the JSON body, such as `min_level`. */
  readonly details: Record<string, string | number>;
  /** For `too_many_sessions`. */
  readonly limit: SessionLimit | undefined;
  /** Whether a change may have been made although the call failed. */
  readonly outcomeUnknown: boolean;

  constructor(
    code: SessiondErrorCode,
    message: string,
    more: {
      details?: Record<string, string | number>;
      limit?: SessionLimit;
      outcomeUnknown?: boolean;
      retryAfter?: number;
    } = {},
  ) {
    super(message);
    this.code = code;
    this.status = HTTP[code];
    this.details = more.details ?? {};
    this.limit = more.limit;
    this.outcomeUnknown = more.outcomeUnknown ?? false;
    const seconds = more.retryAfter ?? (code === "unavailable" ? RETRY_AFTER : undefined);
    this.headers = seconds === undefined ? {} : { "Retry-After": String(seconds) };
    if (this.status === 401) {
      this.headers["WWW-Authenticate"] = "Session"; // RFC 9110 requires a challenge, and has none for cookies
    }
  }
}

const OUTAGES = new Set<number>([
  Status.UNAVAILABLE,
  Status.DEADLINE_EXCEEDED,
  Status.RESOURCE_EXHAUSTED,
  Status.CANCELLED,
]);
const CODES = new Map<number, SessiondErrorCode>([
  [Status.NOT_FOUND, "not_found"],
  [Status.FAILED_PRECONDITION, "conflict"],
  [Status.ABORTED, "conflict"],
]);
const UNKNOWN_OUTCOME = new Set<number>([
  Status.UNAVAILABLE,
  Status.DEADLINE_EXCEEDED,
  Status.CANCELLED,
  Status.INTERNAL,
  Status.UNKNOWN,
]);

/** The error for a call that ended with a gRPC status. The authority's text names fields, and never has a token. */
export function errorOfStatus(method: string, status: number, details: string): SessiondError {
  const code = OUTAGES.has(status) ? "unavailable" : (CODES.get(status) ?? "internal");
  const text = `sessiond: ${method}: ${Status[status] ?? status}: ${details}`;
  return new SessiondError(code, text, { outcomeUnknown: UNKNOWN_OUTCOME.has(status) });
}
