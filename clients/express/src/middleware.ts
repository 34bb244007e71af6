import type { IncomingMessage, ServerResponse } from "node:http";

import { asSessiondError, refuse } from "./answers";
import { Authority, CONNECTION_OPTIONS, type ConnectionOptions, monotonic } from "./authority";
import { ClientReader, PROXY_OPTIONS, type ProxyOptions } from "./client";
import { readSessionCookie } from "./cookies";
import { SessiondError } from "./errors";
import type { UnmetRequirement__Output } from "./generated/sessiond/v1/UnmetRequirement";
import type { ValidateSessionResponse__Output } from "./generated/sessiond/v1/ValidateSessionResponse";
import { holdHeaders } from "./hold";
import { checkNames, optionError } from "./options";
import { OriginCheck } from "./origin";
import { matcher, pathOf, type PathPattern } from "./paths";
import { RequestSession } from "./request-session";
import { RuleBook } from "./rules";
import { RequestState } from "./state";

/** Options of the middleware. */
export interface SessiondOptions extends ConnectionOptions, ProxyOptions {
  /** The path of the login page. Default: `/login`. */
  loginPath?: string;
  /** Paths without a check of origin and CSRF token, such as webhooks. */
  csrfExempt?: readonly PathPattern[];
  /** Other origins whose pages may send requests with side effects, such as `https://checkout.example`. */
  trustedOrigins?: readonly string[];
  /** Paths that are served to guests while the authority is out of reach. */
  publicPaths?: readonly PathPattern[];
  /** Called with each error that is answered with 500 or 503. Default: a line on stderr, at most one in 10 s. */
  onError?: (error: SessiondError, request: IncomingMessage) => void;
}

const OPTIONS = [
  ...CONNECTION_OPTIONS,
  ...PROXY_OPTIONS,
  "loginPath",
  "csrfExempt",
  "trustedOrigins",
  "publicPaths",
  "onError",
];
const SAFE_METHODS = new Set(["GET", "HEAD", "OPTIONS"]);
const LOG_PAUSE = 10_000;

/** A request as a middleware sees it. Express's requests have these members. */
export type SessiondRequest = IncomingMessage & { originalUrl?: string; body?: unknown; sessiond?: RequestSession };
export type Next = (error?: unknown) => void;
/** The middleware. `close` closes its connection to the authority. */
export type SessiondMiddleware = ((request: SessiondRequest, response: ServerResponse, next: Next) => void) & {
  close: () => void;
};

/** What the routes of a request need: its state, and the settings of the middleware that made it. */
interface Served {
  state: RequestState;
  gate: Gate;
}

const served = new WeakMap<IncomingMessage, Served>();

/** The state of a request; throws if the middleware has not seen it. */
export function servedBy(request: IncomingMessage): Served {
  const found = served.get(request);
  if (found === undefined) {
    throw new Error("the middleware sessiond() must come before this route: app.use(sessiond({ ... }))");
  }
  return found;
}

/** Validates each request once, before the routes; `req.session` and `req.sessiond` are then ready. */
export function sessiond(options: SessiondOptions): SessiondMiddleware {
  return sessiondAt(options, monotonic);
}

/** The middleware with a clock of its own, in milliseconds, by which an answer is late. */
export function sessiondAt(options: SessiondOptions, now: () => number): SessiondMiddleware {
  const gate = new Gate(options, now);
  const middleware = (request: SessiondRequest, response: ServerResponse, next: Next): void => {
    if (served.has(request)) {
      next(); // mounted twice
      return;
    }
    gate.admit(request, response).then(
      (admitted) => {
        if (admitted) {
          next();
        }
      },
      (error: unknown) => gate.refuse(request, response, error),
    );
  };
  return Object.assign(middleware, { close: () => gate.authority.close() });
}

/** The rules of one middleware: who may come in, and how the others are refused. */
export class Gate {
  readonly authority: Authority;
  readonly #clients: ClientReader;
  readonly #origins: OriginCheck;
  readonly #rules: RuleBook;
  readonly #isExempt: (path: string) => boolean;
  readonly #isPublic: (path: string) => boolean;
  readonly #loginPath: string;
  readonly #report: (error: SessiondError, request: IncomingMessage) => void;

  constructor(
    options: SessiondOptions,
    readonly now: () => number,
  ) {
    if (typeof options !== "object" || options === null) {
      throw optionError("target", undefined, 'sessiond({ target: "127.0.0.1:7443" })');
    }
    checkNames(options, OPTIONS);
    const { loginPath = "/login", onError = reporter(now) } = options;
    if (typeof loginPath !== "string" || !/^\/(?![/\\])[\x21-\x7e]*$/.test(loginPath)) {
      throw optionError("loginPath", loginPath, 'a path of this site, such as "/login"');
    }
    if (typeof onError !== "function") {
      throw optionError("onError", onError, "a function of the error and the request");
    }
    this.#clients = new ClientReader(options);
    this.#origins = new OriginCheck(options.trustedOrigins);
    this.#isExempt = matcher("csrfExempt", options.csrfExempt);
    this.#isPublic = matcher("publicPaths", options.publicPaths);
    this.#loginPath = loginPath;
    this.#report = onError;
    this.authority = new Authority(options);
    this.#rules = new RuleBook(this.authority);
  }

  /** Validate a request. False: it has been refused. */
  async admit(request: SessiondRequest, response: ServerResponse): Promise<boolean> {
    const state = new RequestState(this.authority, this.#clients.read(request), request, this.now);
    served.set(request, { state, gate: this });
    const unsafe = !SAFE_METHODS.has(request.method ?? "");
    state.csrfChecked = unsafe && !this.#isExempt(pathOf(request));
    if (state.csrfChecked) {
      this.checkOrigin(request);
    }
    try {
      await this.#validate(request, state);
    } catch (error) {
      const failure = asSessiondError(error);
      const unstated = state.csrfChecked && this.#origins.judge(request) !== "ours";
      if (failure.code !== "unavailable" || !this.#isPublic(pathOf(request)) || unstated) {
        throw failure;
      }
      state.standing = "kept";
      state.denial = failure;
    }
    if (unsafe && state.denial.code === "ambiguous_cookies") {
      throw state.denial;
    }
    this.#attach(request, response, state);
    return true;
  }

  /** Throw `csrf_failed` if a page of another site sent the request. */
  checkOrigin(request: SessiondRequest): void {
    if (this.#origins.judge(request) === "other") {
      throw new SessiondError("csrf_failed", "the request comes from another site");
    }
  }

  /** Refuse a request that has been admitted or not. */
  refuse(request: SessiondRequest, response: ServerResponse, error: unknown): void {
    const failure = asSessiondError(error);
    if (failure.status >= 500) {
      this.#report(failure, request);
    }
    refuse(request, response, failure, this.#loginPath);
  }

  async #validate(request: SessiondRequest, state: RequestState): Promise<void> {
    const rules = await this.#rules.current();
    const presented = readSessionCookie(request.headers.cookie, rules.cookieNames);
    if (presented.ambiguous) {
      state.standing = "kept";
      state.denial = new SessiondError("ambiguous_cookies", "two session cookies of the same name");
      return;
    }
    if (presented.token === "") {
      return;
    }
    const answer = await this.authority.call("ValidateSession", {
      token: presented.token,
      client: state.client,
      withCsrfToken: true,
      data: {},
      ...(state.csrfChecked ? { requirements: { csrf: { csrfToken: presentedCsrfToken(request) } } } : {}),
    });
    state.present(presented.token);
    state.validated(answer, {
      unsafe: !SAFE_METHODS.has(request.method ?? ""),
      atLogin: pathOf(request) === this.#loginPath,
    });
    if (answer.verdict === "VERDICT_LOCKED") {
      throw new SessiondError("locked", "the source is locked", { retryAfter: rules.lockSeconds });
    }
    if (answer.verdict === "VERDICT_INSUFFICIENT" && state.csrfChecked && lacksCsrf(answer)) {
      // A session whose user must authenticate again returns no CSRF token, so its login page cannot have one.
      const mayLogIn = answer.nextStep === "NEXT_STEP_STEP_UP" && this.#origins.judge(request) === "ours";
      if (!mayLogIn) {
        throw new SessiondError("csrf_failed", "the CSRF token is missing or out of date");
      }
    }
  }

  #attach(request: SessiondRequest, response: ServerResponse, state: RequestState): void {
    request.sessiond = new RequestSession(state);
    Object.defineProperty(request, "session", {
      configurable: true,
      enumerable: true,
      get: () => {
        state.wasRead = true;
        return state.data.values;
      },
      set: (values: unknown) => {
        if (typeof values !== "object" || values === null) {
          throw new TypeError("req.session must be an object; to end the session, call req.sessiond.logout()");
        }
        state.data.replace(values);
      },
    });
    holdHeaders(response, {
      prepare: () => state.save(),
      finish: () => state.finish(response),
      replace: (error) => {
        state.finish(response);
        this.refuse(request, response, error);
      },
    });
  }
}

/** The CSRF token that the client sent: in the header, or in a form that a body parser has read. */
export function presentedCsrfToken(request: SessiondRequest): string {
  const header = request.headers["x-csrf-token"];
  if (typeof header === "string" && header !== "") {
    return header;
  }
  const body = request.body;
  const field = typeof body === "object" && body !== null ? (body as { csrf_token?: unknown }).csrf_token : undefined;
  return typeof field === "string" ? field : "";
}

/** Whether the CSRF token is among the unmet requirements. */
export function lacksCsrf(answer: ValidateSessionResponse__Output): boolean {
  return answer.unmet.some((unmet: UnmetRequirement__Output) => unmet.kind === "REQUIREMENT_KIND_CSRF_TOKEN");
}

function reporter(now: () => number): (error: SessiondError) => void {
  let last = -Infinity;
  return (error) => {
    if (now() - last >= LOG_PAUSE) {
      last = now();
      console.error(error.message);
    }
  };
}
