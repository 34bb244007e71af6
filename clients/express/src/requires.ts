import type { ServerResponse } from "node:http";

import { SessiondError } from "./errors";
import { type Gate, lacksCsrf, type Next, presentedCsrfToken, servedBy, type SessiondRequest } from "./middleware";
import { optionError } from "./options";
import { seconds } from "./rules";
import type { RequestState } from "./state";

/** What a route needs beyond a session with a subject. */
export interface RouteRequirements {
  /** The lowest level of authentication, 0 to 3. */
  level?: number;
  /** The subject must have authenticated within this many seconds. */
  maxAge?: number;
  /**
   * Check origin and CSRF token here: for a path in `csrfExempt` whose body is read by the route itself, such as an
   * upload, and for a GET with side effects.
   */
  csrf?: boolean;
}

/** A middleware for routes that need a logged-in user. */
export function requires(
  requirements: RouteRequirements = {},
): (request: SessiondRequest, response: ServerResponse, next: Next) => void {
  const { level = 0, maxAge, csrf = false } = requirements;
  if (!Number.isInteger(level) || level < 0 || level > 3) {
    throw optionError("level", level, "a whole number from 0 to 3");
  }
  if (maxAge !== undefined && !(typeof maxAge === "number" && maxAge > 0 && Number.isFinite(maxAge))) {
    throw optionError("maxAge", maxAge, "a positive number of seconds");
  }
  return (request, response, next) => {
    const { state, gate } = servedBy(request);
    state.wasRead = true;
    check(request, state, gate, { level, maxAge, csrf: csrf && !state.csrfChecked }).then(
      () => next(),
      (error: unknown) => gate.refuse(request, response, error),
    );
  };
}

async function check(
  request: SessiondRequest,
  state: RequestState,
  gate: Gate,
  { level, maxAge, csrf }: { level: number; maxAge: number | undefined; csrf: boolean },
): Promise<void> {
  if (csrf) {
    gate.checkOrigin(request);
  }
  if (!state.session?.subject) {
    throw state.denial;
  }
  if ((state.session.authentication?.level ?? 0) < level) {
    throw stepUp({ min_level: level });
  }
  if (maxAge === undefined && !csrf) {
    return;
  }
  const answer = await state.authority.call("ValidateSession", {
    token: state.token.reveal(),
    client: state.client,
    requirements: {
      ...(maxAge === undefined ? {} : { maxAuthenticationAge: duration(maxAge) }),
      ...(csrf ? { csrf: { csrfToken: presentedCsrfToken(request) } } : {}),
    },
  });
  state.cookies(answer.cookies, true);
  if (answer.verdict === "VERDICT_VALID") {
    state.csrfChecked ||= csrf;
    return;
  }
  if (answer.verdict === "VERDICT_LOCKED") {
    throw new SessiondError("locked", "the source is locked");
  }
  const unmet = answer.unmet.find((item) => item.kind === "REQUIREMENT_KIND_AUTHENTICATION_AGE");
  if (answer.nextStep === "NEXT_STEP_STEP_UP" && unmet !== undefined) {
    const age = Math.round(seconds(unmet.maxAuthenticationAge));
    throw stepUp({ ...(level > 0 ? { min_level: level } : {}), max_authentication_age: age });
  }
  if (answer.verdict === "VERDICT_INSUFFICIENT" && answer.nextStep !== "NEXT_STEP_STEP_UP" && lacksCsrf(answer)) {
    throw new SessiondError("csrf_failed", "the CSRF token is missing or out of date");
  }
  throw new SessiondError(
    answer.nextStep === "NEXT_STEP_STEP_UP" ? "reauthentication_required" : "login_required",
    "the session is no longer valid",
  );
}

function stepUp(details: Record<string, number>): SessiondError {
  return new SessiondError("step_up_required", "the subject must authenticate again, or with a further factor", {
    details,
  });
}

function duration(total: number): { seconds: number; nanos: number } {
  const whole = Math.floor(total);
  return { seconds: whole, nanos: Math.round((total - whole) * 1e9) };
}
