"""Write docs/reference/access.md: which roles may make which call, from the rules that the server checks."""

from __future__ import annotations

import sys
from pathlib import Path

from sessiond.domain.access import RULES, Role, Rule, Scope

PAGE = Path(__file__).parents[1] / "docs/reference/access.md"

_HEAD = """# Who may call what

Generated from the rules that the server checks (`make generate`). [Add callers](../how-to/add-callers.md) explains
callers, keys and roles.

- **yes**: a caller with this role for the application of the request may make the call.
- **one user**: only if the request presents a token, or names one subject.
- The role `admin` includes all others.
- A call that names several applications, or all of them, needs the role for each, or for all (`*`).
- Check is the call that [Envoy](../how-to/envoy.md) makes. The requests of [other proxies](../how-to/nginx.md) count as
  Check.

"""
_NOTES = {
    Scope.APPLICATIONS: "",
    Scope.AUTHORITY: "`admin` for all applications",
    Scope.ANY: "any role; the response shows the caller's applications",
    Scope.OPEN: "no credentials",
}


def table() -> str:
    """The page."""
    roles = [role for role in Role if role is not Role.ADMIN]
    lines = [f"| call | {' | '.join(roles)} | note |", "| --- |" + " --- |" * (len(roles) + 1)]
    for name, rule in RULES.items():
        cells = " | ".join(_cell(rule, role) for role in roles)
        lines.append(f"| {name} | {cells} | {_NOTES[rule.scope]} |")
    lines.append("| health checks | | | | | no credentials |")
    lines.append("| reflection | yes | yes | yes | yes | any role |")
    return _HEAD + "\n".join(lines) + "\n"


def _cell(rule: Rule, role: Role) -> str:
    if rule.scope is Scope.AUTHORITY:
        return ""
    return "yes" if role in rule.roles else "one user" if role in rule.for_one_subject else ""


if __name__ == "__main__":
    if "--check" in sys.argv:
        sys.exit(PAGE.read_text(encoding="utf-8") != table() and f"{PAGE} is out of date: run make generate")
    PAGE.write_text(table(), encoding="utf-8")
