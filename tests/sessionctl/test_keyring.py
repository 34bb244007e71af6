"""`sessionctl keyring`: what an operator sees of a rotation."""

from __future__ import annotations

from tests.sessionctl.operator import Operator


async def test_a_rotation(operator: Operator) -> None:
    """Adding, promoting and retiring by commands: each names the key, and the status shows what each key is for."""
    (before,) = (await operator.json("keyring", "status"))[0]["keys"]
    added = await operator.anywhere("keyring", "add", "--reason", "yearly")
    new = added.stdout.removeprefix("added: ").strip()
    assert len(new) == 8
    assert "Back up the key file" in added.stderr
    promoted = await operator.anywhere("keyring", "promote")
    assert promoted.stdout == f"sealing: {new}\n"
    status = await operator.anywhere("keyring", "status")
    assert [line.split()[:2] for line in status.stdout.splitlines()[1:3]] == [
        [new, "sealing"],
        [before["fingerprint"][:8], "opening"],
    ]
    retired = await operator.anywhere("keyring", "retire", before["fingerprint"][:8], "--log-out-sessions")
    assert retired.stdout == f"retiring: {before['fingerprint'][:8]}\n"


async def test_refusals(operator: Operator) -> None:
    """What the server refuses is one line on standard error, and the command fails."""
    (only,) = (await operator.json("keyring", "status"))[0]["keys"]
    for arguments, text in (
        (("retire", only["fingerprint"]), "is the sealing key; add and promote another one"),
        (("promote",), "add one first"),
        (("promote", "00000000"), "no key starts with 00000000; the keys are "),
        (("promote", "key"), "must be the first 8 to 32 digits"),
    ):
        result = await operator.anywhere("keyring", *arguments)
        assert result.exit_code != 0
        assert text in result.stderr
        assert len(result.stderr.splitlines()) == 1
