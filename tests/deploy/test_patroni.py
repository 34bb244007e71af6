"""The configuration of a Postgres cluster in `deploy/patroni`, as far as it can be checked without starting one."""

from __future__ import annotations

import re
from pathlib import Path

from scripts.patroni import LocalCluster
from sessiond.config.store_address import parse_store

FOLDER = Path(__file__).parents[2] / "deploy" / "patroni"


def number(name: str) -> int:
    """Return a number in patroni.yml."""
    (found,) = re.findall(rf"^ +{name}: (\d+)$", (FOLDER / "patroni.yml").read_text(encoding="utf-8"), re.MULTILINE)
    return int(found)


def test_a_leader_that_is_cut_off_demotes_itself_in_time() -> None:
    """A leader without contact to the others gives up before they elect another one, by Patroni's rule."""
    assert number("loop_wait") + 2 * number("retry_timeout") <= number("ttl")


def test_the_tests_set_what_an_operator_sets(tmp_path: Path) -> None:
    """`make test-ha` sets the variables of node.env and no others, so it tests the patroni.yml that operators copy."""
    cluster = LocalCluster(tmp_path)
    lines = (FOLDER / "node.env").read_text(encoding="utf-8").splitlines()
    names = [line.partition("=")[0] for line in lines if line and not line.startswith("#")]
    assert sorted(names) == sorted(cluster.environment(cluster.nodes[0]))


def test_the_address_in_the_guide_has_every_node() -> None:
    """The store's address in the README is one that sessiond accepts, with three servers."""
    (text,) = re.findall(r"^ *SESSIOND_STORE='(.*)'$", (FOLDER / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    address = parse_store(text)
    assert address is not None
    assert len(address.servers) == 3
