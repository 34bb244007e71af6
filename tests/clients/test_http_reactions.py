"""The client's guide says how to answer the user's client, for everything that a call can return or raise."""

from __future__ import annotations

import inspect
import re
from typing import Any

import pytest

import sessiond_client
from sessiond.authority.results import ValidationResult
from sessiond.crypto.tokens import Token
from sessiond.domain.judge import Judgement
from sessiond.domain.judge import Verdict as Judged
from sessiond.domain.requirements import RequirementKind as Requirement
from sessiond.domain.requirements import Unmet
from sessiond.rpc.encode import next_step
from sessiond_client import (
    ConcurrencyLimit,
    ConcurrencyLimitReached,
    CookieDirectives,
    NextStep,
    RequirementKind,
    SessiondError,
    UnmetRequirement,
    Validation,
    Verdict,
)
from sessiond_stubs.v1 import session_authority_pb2 as pb
from tests.clients.test_readme import BLOCKS, README

PAGE = README.read_text(encoding="utf-8")
NOTHING: dict[str, Any] = {"session": None, "renewed_token": None, "signals": (), "csrf_token": None, "data": None}


def table(heading: str) -> dict[str, list[str]]:
    """The rows of the table under a heading, by the name in their first column."""
    section = PAGE.split(f"\n### {heading}\n")[1].split("\n### ")[0]
    rows = [
        [cell.strip() for cell in line.strip("|").split(" | ")] for line in section.splitlines() if line[:3] == "| `"
    ]
    found = {row[0].strip(" `"): row[1:] for row in rows}
    assert len(found) == len(rows), "a row comes twice"
    return found


VERDICTS, UNMET, EXCEPTIONS = table("Verdicts"), table("Unmet requirements"), table("Exceptions")
CODE: dict[str, Any] = {"NextStep": NextStep}
exec(next(block for block in BLOCKS if "def status_of_answer" in block), CODE)


def steps(cell: str) -> set[str]:
    """The names in the column `next_step`."""
    return set(re.findall(r"`(\w+)`", cell))


def status(cell: str) -> int:
    """The status that a cell begins with."""
    return int(cell[:3])


def validation(verdict: Verdict, step: NextStep, *unmet: RequirementKind) -> Validation:
    return Validation(
        verdict=verdict,
        next_step=step,
        unmet=tuple(UnmetRequirement(kind=kind, remedy="", min_level=0, max_authentication_age=None) for kind in unmet),
        cookies=CookieDirectives(),
        cacheable_until=None,
        consistency_token="",
        **NOTHING,
    )


def exceptions() -> set[str]:
    """The names of all exceptions that the client exports."""
    found = {name: getattr(sessiond_client, name) for name in sessiond_client.__all__}
    return {name for name, item in found.items() if inspect.isclass(item) and issubclass(item, Exception)}


def test_every_verdict_has_its_row() -> None:
    """The table of verdicts has a row for each verdict."""
    assert list(VERDICTS) == [*(item.name for item in Verdict if item is not Verdict.UNSPECIFIED), "UNSPECIFIED"]


def test_every_requirement_has_its_row() -> None:
    """The table of unmet requirements has a row for each kind."""
    assert UNMET.keys() == {item.name for item in RequirementKind}


def test_every_exception_has_its_row() -> None:
    """The table of exceptions has a row for each exception that the client exports."""
    assert EXCEPTIONS.keys() == exceptions()


@pytest.mark.parametrize("verdict", [item for item in Judged if item is not Judged.INSUFFICIENT])
def test_the_next_step_of_each_verdict_is_the_authoritys(verdict: Judged) -> None:
    """The column `next_step` has the steps that the authority can answer this verdict with."""
    ended = verdict in (Judged.REVOKED, Judged.EXPIRED_IDLE, Judged.EXPIRED_ABSOLUTE)
    judgements = [Judgement(verdict), *([Judgement(verdict, in_flight=True)] if ended else [])]
    if verdict is Judged.REPLAYED:
        judgements.append(Judgement(verdict, keeps_token=True))
    answers = [ValidationResult(judgement) for judgement in judgements]
    if verdict is Judged.VALID:
        answers.append(ValidationResult(Judgement(verdict), renewed=Token("renewed")))
    found = {pb.NextStep.Name(next_step(answer)).removeprefix("NEXT_STEP_") for answer in answers}
    assert steps(VERDICTS[verdict.name][0]) == found


@pytest.mark.parametrize("kind", list(Requirement))
def test_the_next_step_of_each_requirement_is_the_authoritys(kind: Requirement) -> None:
    """The column `next_step` has the step that the authority answers an unmet requirement with."""
    answer = ValidationResult(Judgement(Judged.INSUFFICIENT), unmet=(Unmet(kind, ""),))
    step = pb.NextStep.Name(next_step(answer)).removeprefix("NEXT_STEP_")
    assert steps(UNMET[kind.name][0]) == {step}
    assert step in steps(VERDICTS["INSUFFICIENT"][0])


@pytest.mark.parametrize("verdict", [item for item in Verdict if item is not Verdict.INSUFFICIENT])
def test_the_code_does_what_the_table_of_verdicts_says(verdict: Verdict) -> None:
    """The example function returns the status of the verdict's row, for pages and for APIs."""
    step_cell, page, api, _ = VERDICTS[verdict.name]
    for step in steps(step_cell):
        answer = validation(verdict, NextStep[step])
        assert CODE["status_of_answer"](answer, page=True) == status(page)
        assert CODE["status_of_answer"](answer, page=False) == status(api)


@pytest.mark.parametrize("kind", [item for item in RequirementKind if item is not RequirementKind.UNSPECIFIED])
def test_the_code_does_what_the_table_of_requirements_says(kind: RequirementKind) -> None:
    """The example function returns the status of the unmet requirement's row, for pages and for APIs."""
    step_cell, page, api = UNMET[kind.name]
    answer = validation(Verdict.INSUFFICIENT, NextStep[steps(step_cell).pop()], kind)
    assert CODE["status_of_answer"](answer, page=True) == status(page)
    assert CODE["status_of_answer"](answer, page=False) == status(api)


@pytest.mark.parametrize("step", [NextStep.STEP_UP, NextStep.KEEP_TOKEN])
def test_the_code_follows_the_next_step_of_a_newer_requirement(step: NextStep) -> None:
    """For a requirement that this package does not know, the example function returns what the row says of the step."""
    step_cell, page, api = UNMET["UNSPECIFIED"]
    assert step.name in steps(step_cell)
    answer = validation(Verdict.INSUFFICIENT, step, RequirementKind.UNSPECIFIED)
    for cell, is_page in ((page, True), (api, False)):
        with_step_up, otherwise = cell.split(" with `STEP_UP`, otherwise ")
        expected = status(with_step_up if step is NextStep.STEP_UP else otherwise)
        assert CODE["status_of_answer"](answer, page=is_page) == expected


@pytest.mark.parametrize("several", [(first, second) for first in UNMET for second in UNMET if first != second])
@pytest.mark.parametrize("step", [NextStep.STEP_UP, NextStep.KEEP_TOKEN])
def test_the_first_row_with_the_next_step_decides(step: NextStep, several: tuple[str, str]) -> None:
    """If several requirements are unmet, the code returns the status of the first row that has the next step."""
    rows = [UNMET[name] for name in UNMET if name in several and step.name in steps(UNMET[name][0])]
    if rows:
        answer = validation(Verdict.INSUFFICIENT, step, *(RequirementKind[name] for name in several))
        for column, is_page in ((1, True), (2, False)):
            cell = rows[0][column]
            expected = cell if step is NextStep.STEP_UP else cell.split(" otherwise ")[-1]
            assert CODE["status_of_answer"](answer, page=is_page) == status(expected)


@pytest.mark.parametrize("name", sorted(exceptions() - {"NotJson", "ConcurrencyLimitReached"}))
def test_the_code_does_what_the_table_of_exceptions_says(name: str) -> None:
    """The example function returns a status that the exception's row names."""
    kind: type[SessiondError] = getattr(sessiond_client, name)
    assert str(CODE["status_of_error"](kind())) in " ".join(EXCEPTIONS[name][1:])


def test_the_code_answers_a_limit_with_409() -> None:
    """A limit of concurrent sessions that was reached is a conflict that the user can resolve."""
    limit = ConcurrencyLimit(max_sessions=1, live_sessions=(), ticket=None, ticket_expire_time=None)
    page, api = EXCEPTIONS["ConcurrencyLimitReached"][1:]
    assert CODE["status_of_error"](ConcurrencyLimitReached(limit)) == status(page) == status(api)
