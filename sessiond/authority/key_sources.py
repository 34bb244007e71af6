"""Where the keys of the ring come from: a file of the server's own, a file that is mounted, or a command."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from sessiond.config import Config
from sessiond.config.data_folder import key_file_in
from sessiond.crypto.key_file import MOST_BYTES, BadKeyFile, load_key_ring, parse_keys, save_keys
from sessiond.crypto.tokens import KeyRing
from sessiond.domain.values import Entropy
from sessiond.system.commands import CommandFailed, output_of

__all__ = ["CommandKeys", "FolderKeys", "KeySource", "MountedKeys", "key_source"]

COMMAND_SECONDS = 15.0
_ENVIRONMENT = ("PATH", "HOME", "LANG", "LC_ALL", "TZ")
_DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class KeySource(Protocol):
    """Where the keys come from. `name` is what messages call it."""

    name: str
    change: str
    """Empty if the server changes the keys itself; otherwise where the operator changes them."""

    def load(self, *, may_create: bool) -> KeyRing:
        """Return the keys, the one to seal with first. May block. Raise `BadKeyFile`.

        `may_create`: the store is new, so that there may be no keys yet.
        """

    def save(self, keys: Sequence[bytes]) -> None:
        """Store these keys instead, durably. Only if `change` is empty. May block. Raise `BadKeyFile`."""

    def signature(self) -> object:
        """Return what differs once the keys may have changed; always the same if nothing can tell."""


class FolderKeys:
    """The key file in the data folder, which belongs to the server."""

    change = ""

    def __init__(self, path: Path, entropy: Entropy) -> None:
        self.name = f"the key file {path}"
        self._path = path
        self._entropy = entropy

    def load(self, *, may_create: bool) -> KeyRing:
        """See `KeySource`."""
        return load_key_ring(self._path, self._entropy, may_create=may_create)

    def save(self, keys: Sequence[bytes]) -> None:
        """See `KeySource`."""
        save_keys(self._path, keys)

    def signature(self) -> object:
        """See `KeySource`. The server itself writes the file, so it does not watch it; a reload reads it."""
        return None


class MountedKeys:
    """A file that something else provides, such as an orchestrator's secret. Symbolic links are followed."""

    def __init__(self, path: Path) -> None:
        self.name = f"the key file {path} (server.keyring_file)"
        self.change = f"{path}, which server.keyring_file names; the server reads it again when it changes"
        self._path = path

    def load(self, *, may_create: bool) -> KeyRing:
        """See `KeySource`. The file must exist also if the store is new."""
        del may_create
        try:
            # Not O_NOFOLLOW: a mounted secret is a link to a link, so that all of its files change at once.
            handle = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            raise BadKeyFile(f"cannot read {self.name}: {error.strerror}; is it mounted, and readable here?") from error
        try:
            found = os.fstat(handle)
            if not stat.S_ISREG(found.st_mode):
                raise BadKeyFile(f"{self.name} is not a regular file; name the file with the keys")
            if found.st_mode & 0o137:
                raise BadKeyFile(
                    f"{self.name} has mode {stat.S_IMODE(found.st_mode):04o}: others can access it, or its group can "
                    "write it; mount it with mode 0400, 0440, 0600 or 0640"
                )
            content = os.read(handle, MOST_BYTES)
        except OSError as error:
            raise BadKeyFile(f"cannot read {self.name}: {error.strerror}; is it mounted, and readable here?") from error
        finally:
            os.close(handle)
        return parse_keys(self.name, content)

    def save(self, keys: Sequence[bytes]) -> None:
        """See `KeySource`. Not for this source."""
        raise AssertionError("the server does not write a mounted key file")

    def signature(self) -> object:
        """See `KeySource`."""
        try:
            found = os.stat(self._path)
        except OSError:
            return None
        return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_mode


class CommandKeys:
    """A command that writes the keys, such as one that has a key management service decrypt them."""

    name = "the output of server.keyring_command"
    change = "what server.keyring_command writes; then run `sessionctl reload`"

    def __init__(self, command: Sequence[str], seconds: float = COMMAND_SECONDS) -> None:
        self._command = command
        self._seconds = seconds

    def load(self, *, may_create: bool) -> KeyRing:
        """See `KeySource`. Runs the command."""
        del may_create
        environment = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
        environment.setdefault("PATH", _DEFAULT_PATH)
        try:
            content = output_of(self._command, environment, self._seconds, MOST_BYTES)
        except CommandFailed as error:
            raise BadKeyFile(
                f"server.keyring_command {error}; run it by hand, as the server's user, to see why (the server shows "
                "nothing of what it writes)"
            ) from error
        return parse_keys(self.name, content)

    def save(self, keys: Sequence[bytes]) -> None:
        """See `KeySource`. Not for this source."""
        raise AssertionError("the server does not change what a command writes")

    def signature(self) -> object:
        """See `KeySource`. Only a reload runs the command again."""
        return None


def key_source(config: Config, entropy: Entropy) -> KeySource:
    """Return where the keys of a server with this configuration come from."""
    if config.keyring_file is not None:
        return MountedKeys(config.keyring_file)
    if config.keyring_command:
        return CommandKeys(config.keyring_command)
    return FolderKeys(key_file_in(config.data), entropy)
