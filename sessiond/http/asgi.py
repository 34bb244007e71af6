"""Answers in the form of ASGI."""

from __future__ import annotations

from starlette.types import Send

from sessiond.http.answers import Answer

__all__ = ["send_answer"]


async def send_answer(answer: Answer, send: Send) -> None:
    """Send a whole response."""
    await send({"type": "http.response.start", "status": answer.status, "headers": answer.headers})
    await send({"type": "http.response.body", "body": answer.body})
