"""The manifests for Kubernetes: they follow its schema, name what exists, and have settings that the server accepts."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from pathlib import Path

import kubernetes_validate
import pytest
import yaml
from click.testing import CliRunner

import sessiond.cli
from sessiond.config import Config
from sessiond.rpc.health import LIVE, SERVICE
from tests.deploy.manifests import FOLDER, PARTS, Manifest, containers, environment, find, pods, rendered, run
from tests.deploy.orchestrated import DEPLOY, STOP_TIME, authority, guide_commands, sidecar

OLDEST = "1.30"
"""The oldest version that has everything: native sidecars (1.29) and the action `sleep` (1.30)."""


def authority_settings(part: str, tmp_path: Path) -> tuple[Manifest, Config]:
    """Return the container of an authority, and its settings."""
    (container,) = next(spec for found, _, spec in pods() if found == part)["containers"]
    file = None
    if part == "base":
        file = tmp_path / "sessiond.toml"
        file.write_text(find("base", "ConfigMap")["data"]["sessiond.toml"], encoding="utf-8")
    return container, authority(environment(container), file)


def port_of(address: str) -> int:
    return int(address.rpartition(":")[2])


def matches(selector: Mapping[str, str], labels: Mapping[str, str]) -> bool:
    return selector.items() <= labels.items()


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("version", [OLDEST, kubernetes_validate.latest_version()])
def test_the_schema(part: str, version: str) -> None:
    """Each object follows the schema of the oldest version and of the newest one, and has no other fields."""
    for one in rendered(part):
        kubernetes_validate.validate(one, version, strict=True)


def test_the_selectors() -> None:
    """The service, the budget, the spread and the Deployment select the replicas, and not the pod for the first
    caller, which the network policy covers too."""
    deployment = find("base", "Deployment")["spec"]
    replica, first = (metadata["labels"] for part, metadata, _ in pods() if part != "overlays/shop")
    spread = deployment["template"]["spec"]["topologySpreadConstraints"]
    selectors = [find("base", "Service")["spec"]["selector"], deployment["selector"]["matchLabels"]]
    selectors += [find("base", "PodDisruptionBudget")["spec"]["selector"]["matchLabels"]]
    selectors += [one["labelSelector"]["matchLabels"] for one in spread]
    assert [one for one in selectors if not matches(one, replica)] == []
    assert [one for one in selectors if matches(one, first)] == []
    policy = find("base", "NetworkPolicy")["spec"]["podSelector"]["matchLabels"]
    assert matches(policy, replica)
    assert matches(policy, first)


def test_an_application_reaches_the_authority() -> None:
    """The label of pods with a sidecar, their namespace and the upstream's name and port are those of the authority."""
    _, metadata, spec = next(one for one in pods() if one[0] == "overlays/shop")
    service, policy = find("base", "Service"), find("base", "NetworkPolicy")["spec"]
    (peer,) = policy["ingress"][0]["from"]
    assert peer["namespaceSelector"] == {}
    assert matches(peer["podSelector"]["matchLabels"], metadata["labels"])
    (port,) = service["spec"]["ports"]
    assert policy["ingress"][0]["ports"] == [{"port": port["targetPort"]}]
    upstream = environment(spec["initContainers"][0])["SESSIOND_UPSTREAM"]
    assert upstream == f"{service['metadata']['name']}.{service['metadata']['namespace']}.svc:{port['port']}"


def test_the_ports(tmp_path: Path) -> None:
    """The ports of the container, of the service, of the policy and of the scraping are those on which it listens."""
    container, config = authority_settings("base", tmp_path)
    ports = {one["name"]: one["containerPort"] for one in container["ports"]}
    listening = {"grpc": config.listen, "health": config.health_listen, "metrics": config.metrics_listen}
    assert ports == {name: port_of(address) for name, address in listening.items()}
    assert find("base", "Service")["spec"]["ports"][0]["targetPort"] in ports
    assert find("base", "NetworkPolicy")["spec"]["ingress"][1]["ports"] == [{"port": "metrics"}]
    annotations = find("base", "Deployment")["spec"]["template"]["metadata"]["annotations"]
    assert annotations["prometheus.io/port"] == str(ports["metrics"])


def test_the_probes(tmp_path: Path) -> None:
    """Kubernetes itself probes the health of the whole process, or of the service, on the port for health checks."""
    for part in ("base", "first-caller"):
        container, config = authority_settings(part, tmp_path)
        probes = {
            name: container[name] for name in ("startupProbe", "readinessProbe", "livenessProbe") if name in container
        }
        assert {probe["grpc"]["port"] for probe in probes.values()} == {port_of(config.health_listen)}
        assert probes["readinessProbe"]["grpc"]["service"] == SERVICE
        assert probes.get("livenessProbe", {"grpc": {"service": LIVE}})["grpc"]["service"] == LIVE


@pytest.mark.parametrize("part", ["base", "first-caller"])
def test_the_authority_accepts_its_settings(part: str, tmp_path: Path) -> None:
    """The authority starts with its configuration and environment, and each path of them is in a volume of the pod."""
    container, config = authority_settings(part, tmp_path)
    paths = [config.data, config.keyring_file, config.tls_certificate, config.tls_key, config.tls_client_ca]
    if config.listen.startswith("unix:"):
        paths.append(Path(config.listen.removeprefix("unix:")))
    mounts = [Path(one["mountPath"]) for one in container["volumeMounts"]]
    for path in filter(None, paths):
        assert any(path.is_relative_to(mount) for mount in mounts), path
    assert config.data.parent in mounts  # a folder inside, because the server refuses a volume that all can write to


def test_the_sidecar_accepts_its_settings() -> None:
    """The sidecar starts with its environment, its paths are in volumes of the pod, and the application's socket is its
    own."""
    _, _, spec = next(one for one in pods() if one[0] == "overlays/shop")
    (container,) = spec["initContainers"]
    config = sidecar(environment(container))
    mounts = [Path(one["mountPath"]) for one in container["volumeMounts"]]
    socket = Path(config.listen.removeprefix("unix:"))
    for path in filter(None, (config.upstream_ca, config.upstream_certificate, config.upstream_key, socket)):
        assert any(path.is_relative_to(mount) for mount in mounts), path
    assert container["restartPolicy"] == "Always"
    assert container["startupProbe"]["exec"]["command"][-1] == config.listen
    (application,) = spec["containers"]
    assert environment(application)["SESSIOND_TARGET"] == config.listen
    shared = {one["mountPath"]: one["name"] for one in application["volumeMounts"]}
    assert shared[str(socket.parent)] == "sessiond-socket"


def test_everything_that_a_pod_uses_exists() -> None:
    """Each volume, configuration and account of a pod is there, and the guide makes each secret with its keys."""
    secrets: set[tuple[str, str]] = set()
    for part, metadata, spec in pods():
        volumes = {one["name"]: one for one in spec["volumes"]}
        mounted = {mount["name"] for container in containers(spec) for mount in container["volumeMounts"]}
        assert mounted == set(volumes)
        maps = {one["metadata"]["name"] for one in rendered(part) if one["kind"] == "ConfigMap"}
        assert {one["configMap"]["name"] for one in volumes.values() if "configMap" in one} <= maps
        if metadata["namespace"] == "sessiond":
            assert spec["serviceAccountName"] == find("base", "ServiceAccount")["metadata"]["name"]
        secrets |= {(metadata["namespace"], one["secret"]["secretName"]) for one in volumes.values() if "secret" in one}
        references = [
            one["valueFrom"] for container in containers(spec) for one in container["env"] if "valueFrom" in one
        ]
        secrets |= {(metadata["namespace"], one["secretKeyRef"]["name"]) for one in references}
    made = re.findall(r"kubectl -n (\S+) create secret \S+ (\S+)", guide_commands())
    assert secrets == set(made)


def making(secret: str) -> str:
    """Return the options with which the guide makes a secret."""
    (found,) = re.findall(rf"create secret \S+ {secret} (.*)$", guide_commands(), re.MULTILINE)
    return str(found)


def test_the_keys_of_secrets_exist() -> None:
    """Each file of a secret that a setting names is a key with which the guide makes that secret."""
    for part, _, spec in pods():
        volumes = {one["name"]: one.get("secret", {}).get("secretName") for one in spec["volumes"]}
        for container in containers(spec):
            mounts = {one["mountPath"]: volumes[one["name"]] for one in container["volumeMounts"]}
            for value in environment(container).values():
                folder, _, name = value.rpartition("/")
                if (secret := mounts.get(folder)) is not None:
                    assert f"--from-file={name}=" in making(secret), (part, value)
            for variable in container["env"]:
                if (reference := variable.get("valueFrom", {}).get("secretKeyRef")) is not None:
                    assert f"--from-file={reference['key']}=" in making(reference["name"]), (part, variable)


def test_secrets_are_for_the_group_alone() -> None:
    """Each secret is mounted read-only with mode 0440, for the group of the pod."""
    for _, _, spec in pods():
        secrets = {one["name"] for one in spec["volumes"] if "secret" in one}
        assert {one["secret"]["defaultMode"] for one in spec["volumes"] if "secret" in one} == {0o440}
        assert spec["securityContext"]["fsGroup"] == 10001
        mounts = [mount for one in containers(spec) for mount in one["volumeMounts"] if mount["name"] in secrets]
        assert [mount for mount in mounts if mount.get("readOnly") is not True] == []


def test_the_pods_are_confined() -> None:
    """Each pod meets the restricted Pod Security Standard, has a read-only root and no token, and a limit on memory;
    its namespace enforces the standard."""
    for _, metadata, spec in pods():
        assert spec["automountServiceAccountToken"] is False
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["runAsUser"] > 10_000
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in containers(spec):
            assert container["securityContext"]["allowPrivilegeEscalation"] is False
            assert container["securityContext"]["readOnlyRootFilesystem"] is True
            assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
            assert container["resources"]["limits"]["memory"]
        namespaces = [one["metadata"] for part in PARTS for one in rendered(part) if one["kind"] == "Namespace"]
        (own,) = [one for one in namespaces if one["name"] == metadata["namespace"]]
        assert own["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"


def test_there_is_time_to_stop() -> None:
    """Kubernetes waits longer than the pause before SIGTERM and the drain take together."""
    spec = find("base", "Deployment")["spec"]["template"]["spec"]
    pause = spec["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert spec["terminationGracePeriodSeconds"] > pause + STOP_TIME


def test_the_image_is_the_same_everywhere() -> None:
    """Every part names the same image of sessiond, which is not `latest`."""
    images = {one["image"] for _, _, spec in pods() for one in containers(spec) if "shop" not in one["image"]}
    assert images == {"registry.example/sessiond:0.1.0"}


@pytest.mark.skipif(shutil.which("promtool") is None, reason="needs promtool (Debian package prometheus)")
def test_prometheus_accepts_what_it_scrapes(tmp_path: Path) -> None:
    """The tool promtool finds no fault in the scraping, apart from the discovery of pods, which Debian's does not know,
    and the rules; the ports by which pods are chosen are those of the pods."""
    configuration = yaml.safe_load((FOLDER / "prometheus.yaml").read_text(encoding="utf-8"))
    ports = {port["name"] for _, _, spec in pods() for one in containers(spec) for port in one.get("ports", ())}
    for job in configuration["scrape_configs"]:
        assert job["job_name"].startswith("sessiond")
        assert job["relabel_configs"][0]["regex"] in ports
        assert [one["role"] for one in job.pop("kubernetes_sd_configs")] == ["pod"]
    (tmp_path / "prometheus.yaml").write_text(yaml.safe_dump(configuration), encoding="utf-8")
    shutil.copy(DEPLOY / "prometheus" / "sessiond.rules.yaml", tmp_path)
    checked = run("promtool", "check", "config", str(tmp_path / "prometheus.yaml"))
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_the_configuration_passes_the_check() -> None:
    """`sessiond check-config --strict` finds neither an error nor a weak setting in the file."""
    file = FOLDER / "base" / "sessiond.toml"
    checked = CliRunner().invoke(sessiond.cli.main, ["check-config", "--strict", str(file)])
    assert checked.exit_code == 0, checked.output
