"""Who may make a call: what a request is about, compared with what its caller may do."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any

from sessiond.domain.access import ANY_APPLICATION, EVERYTHING, RULES, Grants, Role, Scope, may
from sessiond.domain.call import Caller
from sessiond.domain.errors import NotPermitted, shown

__all__ = ["APPLICATIONS_OF", "authorize", "may_see"]


def _one(request: Any) -> Iterable[str]:
    return (request.application,)


def _each(request: Any) -> Iterable[str]:
    return {item.application for item in request.requests}


def _none(_: Any) -> Iterable[str]:
    return ()


APPLICATIONS_OF: dict[str, Callable[[Any], Iterable[str]]] = {
    "ValidateSessions": _each,
    "StreamValidations": _each,
    "Subscribe": lambda request: request.filter.applications,
    "GetAuthority": _none,
    "CreateCaller": _none,
    "ListCallers": _none,
    "RotateCaller": _none,
    "RevokeCaller": _none,
    "GetKeyRing": _none,
    "AddSealingKey": _none,
    "PromoteSealingKey": _none,
    "RetireSealingKey": _none,
}
"""How to read from a request which applications it is about, if not from its field `application`. None: all."""


def authorize(name: str, request: Any, caller: Caller) -> None:
    """Raise `NotPermitted` unless the caller may make this call. A call without a rule is denied to everyone."""
    if name not in RULES:
        raise NotPermitted(f"nobody may call {name}")
    if caller.grants == EVERYTHING:
        return
    if name == "Follow":
        if request.WhichOneof("item") != "start":
            return  # only the first message says what the stream is about
        applications: Iterable[str] = request.start.applications
        batch = True
    else:
        applications = APPLICATIONS_OF.get(name, _one)(request)
        batch = name in ("ValidateSessions", "StreamValidations")
    named = frozenset(application or "default" for application in applications)
    if batch and not named and name != "Follow":
        return  # an empty batch asks nothing
    # Most rules do not ask whether the request is about one subject, and looking takes longer than the rest.
    about_one_subject = bool(RULES[name].for_one_subject) and _is_about_one_subject(request)
    if not _may(caller.grants, name, named, about_one_subject):
        raise NotPermitted(_refusal(caller, name, named))


def may_see(caller: Caller, application: str) -> bool:
    """Return whether a caller may know of an application: it has a role for it."""
    return any(granted in (application, ANY_APPLICATION) for granted, _ in caller.grants)


@lru_cache(maxsize=4096)
def _may(grants: Grants, name: str, applications: frozenset[str], about_one_subject: bool) -> bool:
    return may(grants, RULES.get(name), applications, about_one_subject=about_one_subject)


def _is_about_one_subject(request: Any) -> bool:
    """Return whether the request presents a token, or names one subject."""
    fields = request.DESCRIPTOR.fields_by_name
    if "session" in fields and request.session.WhichOneof("reference") == "token":
        return True
    if "token" in fields and request.token:
        return True
    if "subject" in fields and request.subject:
        return True
    return "filter" in fields and "subject" in request.filter.DESCRIPTOR.fields_by_name and bool(request.filter.subject)


def _refusal(caller: Caller, name: str, applications: frozenset[str]) -> str:
    rule = RULES[name]
    roles = " or ".join(sorted(rule.roles - {Role.ADMIN})) or Role.ADMIN
    where = "all applications" if rule.scope is Scope.AUTHORITY or not applications else ""
    named = where or ", ".join(shown(application) for application in sorted(applications))
    return f"caller {shown(caller.name)} may not call {name} for {named}: it needs the role {roles} there"
