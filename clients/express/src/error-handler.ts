import type { ServerResponse } from "node:http";

import { SessiondError } from "./errors";
import { type Next, servedBy, type SessiondRequest } from "./middleware";

/**
 * An error handler that answers a SessiondError of a route as the middleware would: page or API, redirect or status.
 * Mount it after the routes. Without it, Express's own handler sends the status and the headers of the error.
 */
export function sessiondErrors(): (
  error: unknown,
  request: SessiondRequest,
  response: ServerResponse,
  next: Next,
) => void {
  return (error, request, response, next) => {
    if (!(error instanceof SessiondError) || response.headersSent) {
      next(error);
      return;
    }
    servedBy(request).gate.refuse(request, response, error);
  };
}
