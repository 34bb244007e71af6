import type { RequestSession } from "./request-session";

export type { ConnectionOptions } from "./authority";
export type { ProxyOptions } from "./client";
export { sessiondErrors } from "./error-handler";
export { SessiondError, type SessiondErrorCode, type SessionLimit } from "./errors";
export { sessiond, type SessiondMiddleware, type SessiondOptions } from "./middleware";
export { type PathPattern, safeNext } from "./paths";
export type { Device, LoginOptions, RequestSession } from "./request-session";
export { requires, type RouteRequirements } from "./requires";
export { Token } from "./token";

declare global {
  namespace Express {
    interface Request {
      /** The session of this request. */
      sessiond: RequestSession;
    }
  }
}
