"""Who may make a call: what a request is about, compared with what its caller may do."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any

from sessiond.domain.access import ANY_APPLICATION, EVERYTHING, RULES, Grants, Role, Scope, administrative_role, may
from sessiond.domain.call import Caller
from sessiond.domain.errors import NotPermitted, shown

__all__ = ["APPLICATIONS_OF", "applications_of", "authorize", "authorize_for", "role_of"]


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
    "UpdateCallerCertificates": _none,
    "Check": lambda request: (request.attributes.context_extensions.get("application", ""),),
    "GetKeyRing": _none,
    "AddSealingKey": _none,
    "PromoteSealingKey": _none,
    "RetireSealingKey": _none,
    "StreamBackup": _none,
}
"""How to read from a request which applications it is about, if not from its field `application`. None: all."""
_UNNAMED = {"Subscribe": ANY_APPLICATION}
"""What an empty name means if not `default`: a filter selects the events that belong to no application by it."""
_PRIVILEGED = frozenset({Role.OPERATOR, Role.ADMIN})
_OPEN: Grants = frozenset((ANY_APPLICATION, role) for role in Role if role is not Role.OPERATOR)
_ORDINARY_IF_OPEN = {name for name, rule in RULES.items() if rule.roles - _PRIVILEGED}
"""The calls that another role than these two allows whatever the request."""


def applications_of(name: str, request: Any) -> frozenset[str]:
    """Return the applications that a request is about, `default` included; none means all of them."""
    if name == "Follow":
        applications: Iterable[str] = request.start.applications
    elif name not in RULES:
        applications = ()  # nobody may make the call, and its request may have no such field
    else:
        applications = APPLICATIONS_OF.get(name, _one)(request)
    return frozenset(application or _UNNAMED.get(name, "default") for application in applications)


def authorize(name: str, request: Any, caller: Caller) -> None:
    """Raise `NotPermitted` unless the caller may make this call. A call without a rule is denied to everyone."""
    if name not in RULES:
        raise NotPermitted(f"nobody may call {name}")
    if caller.grants == EVERYTHING or _asks_nothing(name, request):
        return
    named = applications_of(name, request)
    # Most rules do not ask whether the request is about one subject, and looking takes longer than the rest.
    about_one_subject = bool(RULES[name].for_one_subject) and _is_about_one_subject(request)
    if len(named) <= _CACHED_NAMES and all(len(application) <= _CACHED_NAME for application in named):
        allowed = _may(caller.grants, name, named, about_one_subject)
    else:
        allowed = may(caller.grants, RULES.get(name), named, about_one_subject=about_one_subject)
    if not allowed:
        raise NotPermitted(_refusal(caller, name, named))


def authorize_for(name: str, application: str, caller: Caller) -> None:
    """Raise `NotPermitted` unless the caller may make this call for an application. There is no message to look at."""
    if caller.grants != EVERYTHING and not may(caller.grants, RULES[name], [application]):
        raise NotPermitted(_refusal(caller, name, frozenset([application])))


def role_of(name: str, request: Any, caller: Caller) -> Role | None:
    """Return the role by which a caller makes a call that it may make: `operator` or `admin`.

    None: its other roles allow the call too. Without any caller there are no roles, and everyone counts as if it had
    those of an application, and as admin.
    """
    if not caller.version and name in _ORDINARY_IF_OPEN:
        return None
    grants = caller.grants if caller.version else _OPEN
    if not _is_privileged(grants) or _asks_nothing(name, request):
        return None
    about_one_subject = bool(RULES[name].for_one_subject) and _is_about_one_subject(request)
    return _administrative_role(grants, name, applications_of(name, request), about_one_subject)


def _asks_nothing(name: str, request: Any) -> bool:
    if name == "Follow":
        return bool(request.WhichOneof("item") != "start")  # only the first message says what the stream is about
    return name in ("ValidateSessions", "StreamValidations") and not request.requests


@lru_cache(maxsize=4096)
def _is_privileged(grants: Grants) -> bool:
    return any(role in _PRIVILEGED for _, role in grants)


@lru_cache(maxsize=4096)
def _administrative_role(
    grants: Grants, name: str, applications: frozenset[str], about_one_subject: bool
) -> Role | None:
    return administrative_role(grants, RULES[name], applications, about_one_subject=about_one_subject)


_CACHED_NAMES, _CACHED_NAME = 16, 64
"""The most names that a cached decision is about, and the longest of them. The names are as the caller sent them:
without these limits the cache would keep up to 4 MB for each of its entries."""
_SHOWN_NAMES = 5


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
    first = sorted(applications)[:_SHOWN_NAMES]
    more = f" and {len(applications) - len(first)} more" if len(applications) > len(first) else ""
    named = where or ", ".join(map(shown, first)) + more
    return f"caller {shown(caller.name)} may not call {name} for {named}: needs role {roles}"
