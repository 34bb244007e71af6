import type { IncomingMessage, ServerResponse } from "node:http";

import { SessiondError, type SessiondErrorCode } from "./errors";
import { vary } from "./hold";

const TEXTS: Record<SessiondErrorCode, string> = {
  ambiguous_cookies: "Your browser sent two session cookies. Please delete the cookies of this site.",
  conflict: "Someone else has changed this in the meantime. Please load the page again.",
  csrf_failed: "Please load the page again, and repeat what you did.",
  internal: "Something went wrong.",
  locked: "Too many attempts from your network. Please try again later.",
  login_required: "Please log in.",
  not_found: "Not found.",
  reauthentication_required: "Please log in again.",
  step_up_required: "Please log in again.",
  too_many_sessions: "You are logged in on too many devices. Please log out on one of them first.",
  unavailable: "Please try again in a moment.",
};

/** Whether a browser shows the response as a page. Scripts ask for JSON or for anything. */
export function isPage(request: IncomingMessage): boolean {
  return /\btext\/html\b|\bapplication\/xhtml\+xml\b/i.test(request.headers.accept ?? "");
}

/**
 * Refuse a request: a page that needs a login is redirected to the login page, with the path to return to if the method
 * was GET; everything else gets the status, and an API the error's code as JSON.
 */
export function refuse(
  request: IncomingMessage & { originalUrl?: string },
  response: ServerResponse,
  error: SessiondError,
  loginPath: string,
): void {
  vary(response, "Accept");
  vary(response, "Cookie");
  response.setHeader("Cache-Control", "no-store");
  const page = isPage(request);
  if (page && error.status === 401) {
    response.statusCode = 303;
    response.setHeader("Location", loginAddress(request, error, loginPath));
    send(request, response, "text/plain; charset=utf-8", "");
    return;
  }
  response.statusCode = error.status;
  for (const [name, value] of Object.entries(error.headers)) {
    response.setHeader(name, value);
  }
  if (page) {
    send(request, response, "text/plain; charset=utf-8", `${TEXTS[error.code]}\n`);
  } else {
    send(request, response, "application/json; charset=utf-8", JSON.stringify({ error: error.code, ...error.details }));
  }
}

function send(request: IncomingMessage, response: ServerResponse, type: string, body: string): void {
  response.setHeader("Content-Type", type);
  response.setHeader("Content-Length", Buffer.byteLength(body));
  response.end(request.method === "HEAD" ? undefined : body);
}

function loginAddress(
  request: IncomingMessage & { originalUrl?: string },
  error: SessiondError,
  loginPath: string,
): string {
  const query = new URLSearchParams();
  if (request.method === "GET") {
    query.set("next", request.originalUrl ?? request.url ?? "/");
  }
  for (const [name, value] of Object.entries(error.details)) {
    query.set(name, String(value));
  }
  const text = query.toString();
  return text === "" ? loginPath : `${loginPath}${loginPath.includes("?") ? "&" : "?"}${text}`;
}

/** Any error as one with a status. */
export function asSessiondError(error: unknown): SessiondError {
  return error instanceof SessiondError ? error : new SessiondError("internal", String((error as Error)?.message));
}
