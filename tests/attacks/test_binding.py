"""What a login does not tell of the client does not undo what the session is bound to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sessiond_stubs.v1 import session_authority_pb2 as pb
from tests.attacks.story import ATTACKER, VICTIM, authority, create, login, loose, signal_types, validate
from tests.support.clock import ManualClock

CERTIFICATE, OTHER = b"\xbb" * 32, b"\xcc" * 32
BOUND: list[dict[str, Any]] = [{"certificate_thumbprint": CERTIFICATE}, {"device_id": "a device"}]
NAMES = ["CERTIFICATE_MISMATCH", "DEVICE_MISMATCH"]


def client(**fields: Any) -> pb.ClientContext:
    """The victim's client with more told of it."""
    return pb.ClientContext(ip_address=VICTIM.ip_address, user_agent=VICTIM.user_agent, **fields)


@pytest.mark.parametrize("elevate", [False, True], ids=["login", "elevation"])
@pytest.mark.parametrize("told", ["nothing", "an empty client", "address and agent"])
@pytest.mark.parametrize(("bound", "signal"), list(zip(BOUND, NAMES, strict=True)), ids=["certificate", "device"])
async def test_a_binding_survives_a_login_that_does_not_tell_it(
    tmp_path: Path, clock: ManualClock, bound: dict[str, Any], signal: str, told: str, elevate: bool
) -> None:
    """The token that the login gave is suspicious from a client without certificate or device, as before."""
    async with authority(tmp_path, clock) as (_, stub):
        created = await create(stub, client=client(**bound))
        seen = {"nothing": None, "an empty client": pb.ClientContext(), "address and agent": VICTIM}[told]
        fields: dict[str, Any] = {} if seen is None else {"client": seen}
        again = await stub.AuthenticateSession(
            loose.AuthenticateSessionRequest(token=created.token, subject="ada", elevate=elevate, **fields)
        )
        assert again.verdict == pb.VERDICT_VALID
        assert not signal_types(await validate(stub, again.token, client(**bound), passive=True))
        assert signal in signal_types(await validate(stub, again.token, ATTACKER))


@pytest.mark.parametrize("bound", BOUND, ids=["certificate", "device"])
async def test_a_login_that_tells_another_binds_anew(tmp_path: Path, clock: ManualClock, bound: dict[str, Any]) -> None:
    """The subject who authenticates with another certificate or device is bound to that from then on."""
    other = {"certificate_thumbprint": OTHER} if "certificate_thumbprint" in bound else {"device_id": "another"}
    async with authority(tmp_path, clock) as (_, stub):
        created = await create(stub, client=client(**bound))
        again = await login(stub, created.token, client=client(**other))
        assert not signal_types(await validate(stub, again.token, client(**other), passive=True))
        assert signal_types(await validate(stub, again.token, client(**bound)))
