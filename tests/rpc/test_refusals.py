"""The cached responses to invalid tokens: none is given for another next step."""

from __future__ import annotations

from itertools import permutations

from sessiond.authority.results import ValidationResult
from sessiond.domain.call import Call
from sessiond.domain.judge import Judgement, Verdict
from sessiond.rpc.response_cache import Refusals
from sessiond_stubs.v1 import session_authority_pb2 as pb
from tests.support.work import call_of

JUDGEMENTS = {
    "discarded": Judgement(Verdict.REPLAYED),
    "a copy": Judgement(Verdict.REPLAYED, newer_in_use=True, keeps_token=True),
    "in flight": Judgement(Verdict.REVOKED, in_flight=True),
    "revoked": Judgement(Verdict.REVOKED),
}


def answered(refusals: Refusals, call: Call, judgement: Judgement) -> tuple[str, str, bool]:
    """The verdict and the next step of the response, and whether it deletes the cookie."""
    message = refusals.message(call, ValidationResult(judgement))
    return pb.Verdict.Name(message.verdict), pb.NextStep.Name(message.next_step), message.HasField("cookies")


def test_each_next_step_has_a_response_of_its_own() -> None:
    """Whatever was asked before, a token to keep is never answered like one to discard, nor the other way round."""
    call = call_of()
    for names in permutations(JUDGEMENTS):
        refusals = Refusals()
        for name in (*names, *names):
            verdict, step, deletes = answered(refusals, call, JUDGEMENTS[name])
            assert verdict == f"VERDICT_{JUDGEMENTS[name].verdict.name}"
            assert deletes is (step == "NEXT_STEP_DISCARD_TOKEN") is (name in ("discarded", "revoked"))
