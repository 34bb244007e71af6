"""The users of the demo. A real shop has them in a database; sessiond has no passwords."""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass, field

__all__ = ["USERS", "User", "code_is_right", "password_is_right"]


@dataclass(slots=True)
class User:
    """One user. `password_hash`: scrypt, with the name as salt. `address`: where orders go, which the user changes."""

    name: str
    password_hash: str = field(repr=False)
    address: str = ""
    is_admin: bool = False


def _hash(name: str, password: str) -> str:
    return hashlib.scrypt(password.encode(), salt=name.encode(), n=2**14, r=8, p=1).hex()


USERS = {
    user.name: user
    for user in (
        User("alice", _hash("alice", "teapot"), "1 Rabbit Hole"),
        User("bob", _hash("bob", "kettle"), "2 Harbour Street"),
        User("carol", _hash("carol", "samovar"), "3 Market Square", is_admin=True),
    )
}
_NOBODY = User("", _hash("", ""))


def password_is_right(name: str, password: str) -> bool:
    """Whether it is the user's password. An unknown user takes as long as a known one."""
    user = USERS.get(name, _NOBODY)
    return hmac.compare_digest(user.password_hash, _hash(user.name, password)) and user is not _NOBODY


def code_is_right(code: str) -> bool:
    """Whether it is the code of the second factor. A real shop asks an authenticator here."""
    return hmac.compare_digest(code.encode(), b"123456")
