"""What the shop sells, and the orders of its users, in memory."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass

__all__ = ["GOODS", "Order", "Orders", "total"]


@dataclass(frozen=True, slots=True)
class Article:
    """One thing to buy. `price`: in cents."""

    id: str
    name: str
    price: int


GOODS = {
    article.id: article
    for article in (
        Article("pot", "Teapot, cast iron", 4900),
        Article("cup", "Cup, stoneware", 1200),
        Article("tea", "Darjeeling, 100 g", 950),
    )
}
_STATES = ((0, "received"), (3, "packed"), (8, "on its way"))
"""From how many seconds after the order it is in which state."""


def total(items: Iterable[str]) -> int:
    """What these articles cost together, in cents."""
    return sum(GOODS[item].price for item in items)


@dataclass(frozen=True, slots=True)
class Order:
    """One order. `placed`: on the monotonic clock, in seconds."""

    number: int
    subject: str
    items: tuple[str, ...]
    placed: float

    def state(self, now: float) -> str:
        """How far it has come."""
        return next(name for seconds, name in reversed(_STATES) if now - self.placed >= seconds)


class Orders:
    """All orders, oldest first."""

    def __init__(self) -> None:
        self.placed: list[Order] = []

    def place(self, subject: str, items: Iterable[str]) -> Order:
        """Take an order."""
        order = Order(len(self.placed) + 1, subject, tuple(items), time.monotonic())
        self.placed.append(order)
        return order

    def rows(self, subject: str = "") -> list[dict[str, str | int]]:
        """The orders of a user, or of all users, for pages and for the feed, newest first."""
        now = time.monotonic()
        return [
            {
                "number": order.number,
                "user": order.subject,
                "items": ", ".join(GOODS[item].name for item in order.items),
                "total": total(order.items),
                "state": order.state(now),
            }
            for order in reversed(self.placed)
            if subject in ("", order.subject)
        ]
