"""The files for Docker Compose: they follow its schema, name what exists, and have settings that the server accepts."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

import sessiond.cli
from tests.deploy.orchestrated import DEPLOY, GUIDE, STOP_TIME, authority, guide_commands, sidecar
from tests.test_docs import blocks_of

FOLDER = DEPLOY / "compose"
FILES = [FOLDER / "compose.yaml", FOLDER / "compose.tls.yaml"]
COMPOSE: dict[str, Any] = yaml.safe_load(FILES[0].read_text(encoding="utf-8"))
TLS: dict[str, Any] = yaml.safe_load(FILES[1].read_text(encoding="utf-8"))
SERVICES: dict[str, Any] = COMPOSE["services"]


def names(service: dict[str, Any], kind: str) -> set[str]:
    """Return what a service uses of one kind."""
    used = {one["source"] if isinstance(one, dict) else one for one in service.get(kind, ())}
    return {one.partition(":")[0] for one in used}


def test_the_schema(tmp_path: Path) -> None:
    """Both files, and the example of the guide, follow the JSON schema of the Compose Specification."""
    example = tmp_path / "compose.override.yaml"
    (text,) = blocks_of(GUIDE, "yaml")
    example.write_text(textwrap.dedent(text), encoding="utf-8")
    files = [*map(str, FILES), str(example)]
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", *files]
    run = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert run.returncode == 0, run.stdout


@pytest.mark.parametrize("kind", ["networks", "volumes", "configs", "secrets"])
def test_everything_that_is_used_is_defined(kind: str) -> None:
    """Each network, volume, configuration and secret that a service uses is defined, and all are used."""
    used = set().union(*(names(service, kind) for service in SERVICES.values()))
    assert used == set(COMPOSE[kind])
    assert names(TLS["services"]["authority"], kind) == set(TLS.get(kind, ()))


def test_the_files_that_are_mounted_exist() -> None:
    """Each configuration is a file of the repository, and the guide makes each secret."""
    assert [name for name, one in COMPOSE["configs"].items() if not (FOLDER / one["file"]).is_file()] == []
    secrets = [one["file"] for one in (COMPOSE["secrets"] | TLS["secrets"]).values()]
    assert [path for path in secrets if not re.search(rf"[> ]{re.escape(path)}\b", guide_commands())] == []


def test_the_authority_accepts_its_settings() -> None:
    """The authority starts with its file and environment, and each path is a secret or in a volume."""
    service = SERVICES["authority"]
    config = authority(service["environment"], FOLDER / "sessiond.toml")
    assert config.listen == service["environment"]["SESSIOND_TARGET"]
    assert str(config.keyring_file) == "/run/secrets/keyring"
    assert config.store is not None
    assert str(config.store) == "postgres://postgres/sessiond"
    assert "passfile=%2Frun%2Fsecrets%2Fpgpass" in config.store.url
    assert {"keyring", "pgpass"} <= names(service, "secrets")
    assert str(config.data.parent) in names(service, "tmpfs")
    assert config.listen.removeprefix("unix:").startswith("/run/sessiond/")
    assert "sockets:/run/sessiond" in service["volumes"]


def test_the_authority_accepts_its_settings_with_tls() -> None:
    """With the file for TLS the authority requires certificates of clients on the port that is published."""
    added = TLS["services"]["authority"]
    config = authority(SERVICES["authority"]["environment"] | added["environment"], FOLDER / "sessiond.toml")
    mounted = [Path("/run/secrets", name) for name in added["secrets"]]
    assert [config.tls_certificate, config.tls_key, config.tls_client_ca] == mounted
    assert added["ports"] == [f"{config.listen.rpartition(':')[2]}:7443"]


def test_the_sidecar_accepts_its_settings() -> None:
    """The sidecar starts with its environment, and asks the authority at the socket on which that listens."""
    service = SERVICES["sidecar"]
    config = sidecar(service["environment"])
    assert config.upstream == authority({}, FOLDER / "sessiond.toml").listen
    assert config.listen in service["healthcheck"]["test"]
    assert "sockets:/run/sessiond" in service["volumes"]


def test_prometheus_finds_the_metrics() -> None:
    """Prometheus asks the authority and the sidecar where they serve metrics, in a network that it shares with them."""
    jobs = yaml.safe_load((FOLDER / "prometheus.yaml").read_text(encoding="utf-8"))["scrape_configs"]
    port = authority({}, FOLDER / "sessiond.toml").metrics_listen.rpartition(":")[2]
    assert jobs[0]["static_configs"] == [{"targets": [f"authority:{port}"]}]
    (found,) = jobs[1]["dns_sd_configs"]
    assert found["names"] == ["sidecar"]
    assert sidecar(SERVICES["sidecar"]["environment"]).metrics_listen.endswith(f":{found['port']}")
    assert all("metrics" in SERVICES[name]["networks"] for name in ("authority", "sidecar", "prometheus"))


@pytest.mark.skipif(
    shutil.which("promtool") is None, reason="promtool is not installed here (Debian package prometheus)"
)
def test_prometheus_accepts_its_configuration(tmp_path: Path) -> None:
    """The tool promtool finds no fault in the configuration and the rules, which are side by side in the container."""
    for config in SERVICES["prometheus"]["configs"]:
        shutil.copy(FOLDER / COMPOSE["configs"][config["source"]]["file"], tmp_path / Path(config["target"]).name)
    command = ["promtool", "check", "config", str(tmp_path / "prometheus.yml")]
    run = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert run.returncode == 0, run.stdout + run.stderr


@pytest.mark.parametrize("name", SERVICES)
def test_the_containers_are_confined(name: str) -> None:
    """Each container has a read-only root file system and cannot gain privileges, and those of sessiond have no
    capabilities and enough time to stop."""
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["security_opt"] == ["no-new-privileges:true"]
    if name in ("authority", "sidecar"):
        assert service["cap_drop"] == ["ALL"]
        assert int(service["stop_grace_period"].removesuffix("s")) >= STOP_TIME


def test_only_prometheus_is_published() -> None:
    """Without the file for TLS nothing but Prometheus has a port on this machine, and only for this machine."""
    ports = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert ports == {"prometheus": ["127.0.0.1:9090:9090"]}
    assert [name for name in SERVICES["authority"]["networks"] if not COMPOSE["networks"][name]["internal"]] == []


def test_the_configuration_passes_the_check() -> None:
    """`sessiond check-config` finds no error in the file."""
    checked = CliRunner().invoke(sessiond.cli.main, ["check-config", str(FOLDER / "sessiond.toml")])
    assert checked.exit_code == 0, checked.output
