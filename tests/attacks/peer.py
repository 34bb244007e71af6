"""A process of its own that sends validations: an attacker who floods, or an honest client whose latency is measured.

Reads one command a line from its standard input and answers each with one line of JSON. Processes of their own, because
a client on the authority's own event loop would measure itself.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from base64 import urlsafe_b64encode
from collections.abc import Awaitable, Callable

from sessiond_stubs.v1 import session_authority_pb2 as pb
from tests.support.server import AsyncStub, stub_for


def forged() -> str:
    """A token of the right form that nobody ever issued."""
    return urlsafe_b64encode(os.urandom(52)).rstrip(b"=").decode()


def addresses(sources: int) -> list[str]:
    """So many addresses."""
    return [f"198.{18 + (n >> 16)}.{n >> 8 & 255}.{n & 255}" for n in range(sources)]


async def flood(
    stub: AsyncStub, tokens: int, streams: int, batch: int, sources: int, threshold: int
) -> dict[str, float]:
    """Present forged tokens from `streams` callers who each wait for their answer, in calls of `batch` tokens.

    What came back: how many were called FORGED, how long it took in seconds, and when (by the machine's monotonic
    clock) the answer to the token came that was the `threshold`th.
    """
    where = addresses(sources)
    left, answered, forgeries, crossed = tokens, 0, 0, 0.0

    def question(number: int) -> pb.ValidateSessionRequest:
        client = pb.ClientContext(ip_address=where[number % sources])
        return pb.ValidateSessionRequest(token=forged(), client=client)

    async def caller() -> None:
        nonlocal left, answered, forgeries, crossed
        while left > 0:
            size = min(batch, left)
            left -= size
            questions = [question(left + n) for n in range(size)]
            if batch == 1:
                answers = [await stub.ValidateSession(questions[0])]
            else:
                whole = await stub.ValidateSessions(pb.ValidateSessionsRequest(requests=questions))
                answers = list(whole.responses)
            forgeries += sum(answer.verdict == pb.VERDICT_FORGED for answer in answers)
            answered += size
            if not crossed and answered >= threshold:
                crossed = time.monotonic()

    began = time.monotonic()
    await asyncio.gather(*(caller() for _ in range(streams)))
    return {"forged": forgeries, "seconds": time.monotonic() - began, "crossed": crossed}


async def measure(stub: AsyncStub, token: str, seconds: float, pause: float) -> dict[str, object]:
    """Validate a good token again and again, with a pause between; the latencies in seconds."""
    latencies: list[float] = []
    valid = 0
    request = pb.ValidateSessionRequest(token=token, client=pb.ClientContext(ip_address="192.0.2.1"))
    end = time.monotonic() + seconds
    while (began := time.monotonic()) < end:
        answer = await stub.ValidateSession(request)
        latencies.append(time.monotonic() - began)
        valid += answer.verdict == pb.VERDICT_VALID
        await asyncio.sleep(pause)
    return {"latencies": latencies, "valid": valid}


COMMANDS: dict[str, Callable[..., Awaitable[object]]] = {"flood": flood, "measure": measure}


async def main(address: str) -> None:
    """Carry out commands until there are no more."""
    async with stub_for(address) as stub:
        while line := await asyncio.to_thread(sys.stdin.readline):
            name, *arguments = json.loads(line)
            print(json.dumps(await COMMANDS[name](stub, *arguments)), flush=True)  # noqa: T201 - the answer


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
