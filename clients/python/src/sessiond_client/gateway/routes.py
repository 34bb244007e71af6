"""Whether a request meets what a route requires beyond a session."""

from __future__ import annotations

from dataclasses import replace

from sessiond_client.answers import Validation
from sessiond_client.enums import NextStep, RequirementKind, Verdict
from sessiond_client.gateway.actions import Action, RouteRequirements
from sessiond_client.gateway.exchange import OUTAGES, Exchange
from sessiond_client.gateway.settings import matches
from sessiond_client.gateway.steps import Ask, Steps
from sessiond_client.questions import NOT_REQUIRED, Requirements
from sessiond_client.tokens import Token

__all__ = ["check", "check_csrf", "require", "unmet"]


def check(exchange: Exchange, requirements: RouteRequirements) -> Steps[Action]:
    """What to do with the request. Asks a second question only if the answer to the first does not tell.

    An outage does not raise: it is RETRY_LATER.
    """
    exchange.accessed = True
    gate = exchange.gate()
    if gate is not Action.PROCEED:
        return gate
    session, token = exchange.session, exchange.token
    if session is None or token is None or not session.subject:
        if not requirements.guests:
            return exchange.without_user()
        if requirements.csrf and exchange.is_cross_site():
            return Action.CSRF_ERROR
        if requirements.csrf and session is not None and token is not None:
            return (yield from _ask(exchange, token, RouteRequirements(csrf=True)))
        return Action.PROCEED
    if requirements.level > (session.authentication.level if session.authentication is not None else 0):
        return Action.STEP_UP
    if requirements.max_age is None and requirements.companion is None and not requirements.csrf:
        return Action.PROCEED
    return (yield from _ask(exchange, token, requirements))


def require(exchange: Exchange, requirements: RouteRequirements) -> Steps[None]:
    """Raise `Refused` unless the request meets the requirements. It names those that are not met."""
    action = yield from check(exchange, requirements)
    if action is not Action.PROCEED:
        raise exchange.refuse(action, unmet(exchange, requirements))


def unmet(exchange: Exchange, requirements: RouteRequirements) -> RouteRequirements:
    """Those of the requirements that a step-up has to meet. An authentication with the level is recent, too."""
    session = exchange.session
    level = session.authentication.level if session is not None and session.authentication is not None else 0
    if requirements.level > level:
        return replace(requirements, max_age=None)
    return replace(requirements, level=0)


def check_csrf(exchange: Exchange) -> Steps[Action]:
    """What to do with a request that was opened without the check of the CSRF token, if it needs one after all.

    For a framework that learns only later whether the view does. An outage does not raise: it is RETRY_LATER.
    """
    gate, request = exchange.gate(), exchange.request
    exempt = request.is_safe or matches(request.path, exchange.gateway.settings.csrf_exempt)
    if gate is not Action.PROCEED or exempt or request.token is not None:
        return gate
    if exchange.is_cross_site():
        return Action.CSRF_ERROR
    sent, token = exchange.presented_csrf(), exchange.token
    if exchange.session is None or token is None or (sent is not None and sent == exchange.csrf):
        return Action.PROCEED
    return (yield from _ask(exchange, token, RouteRequirements(csrf=True)))


def _ask(exchange: Exchange, token: Token, requirements: RouteRequirements) -> Steps[Action]:
    needed = Requirements(
        min_level=requirements.level,
        max_authentication_age=requirements.max_age,
        companion=requirements.companion,
        csrf=exchange.presented_csrf() if requirements.csrf else NOT_REQUIRED,
    )
    try:
        answer: Validation = yield Ask(
            "validate",
            (token,),
            {"client": exchange.client, "passive": exchange.is_passive, "requirements": needed},
        )
    except OUTAGES as error:
        return exchange.failed(error)
    if answer.valid:
        return Action.PROCEED
    if answer.verdict is Verdict.LOCKED:
        return Action.LOCKED
    if answer.next_step is NextStep.STEP_UP:
        return Action.STEP_UP
    if answer.verdict is Verdict.INSUFFICIENT:
        kinds = {unmet.kind for unmet in answer.unmet}
        return Action.COMPANION if RequirementKind.COMPANION_TOKEN in kinds else Action.CSRF_ERROR
    return Action.LOGIN
