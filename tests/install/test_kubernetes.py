"""The files for Kubernetes: against the API of Kubernetes, the chart's reference, and what this course says elsewhere."""

from __future__ import annotations

import re
from typing import Any

import kubernetes_validate
import pytest
import yaml

from helpers import paths
from helpers.server.command import LaunchSpec
from helpers.server.containers import image_version

FOLDER = paths.root() / "containers" / "kubernetes"
# The keys of the chart's configuration reference that our values use or that stand beside them; lists and maps of one's own end in *.
DOCUMENTED = {
    "nameOverride", "serverLoadMetric", "serverLoadThreshold",
    *(f"triton.{key}" for key in ("replicas", "image", "command", "args", "resources.*", "annotations.*", "nodeSelector.*", "tolerations",
      "affinity.*", "modelRepository.enabled", "modelRepository.mountPath", "modelRepository.storageType",
      "modelRepository.pvc.claimName", "service.*")),
    *(f"envoy.{key}" for key in ("enabled", "replicas", "image", "args", "resources.*", "service.type", "service.ports",
      "ingress.enabled", "ingress.hostName", "ingress.ingressClassName", "ingress.annotations.*", "grpc_route_timeout",
      "rate_limiter.*", "loadBalancerPolicy", "auth.enabled", "auth.jwt_issuer", "auth.jwt_remote_jwks_uri", "auth.audiences",
      "auth.url", "auth.port")),
    *(f"keda.{key}" for key in ("enabled", "minReplicaCount", "maxReplicaCount", "pollingInterval", "cooldownPeriod",
      "zeroIdleReplicas")),
    *(f"keda.{way}.{key}" for way in ("scaleUp", "scaleDown") for key in ("stabilizationWindowSeconds", "periodSeconds", "stepsize")),
    *(f"prometheus.{key}" for key in ("enabled", "external.enabled", "external.url", "external.port", "external.scheme",
      "server.retention", "server.global.scrape_interval", "server.global.evaluation_interval")),
}  # fmt: skip


def _manifests() -> dict[str, dict[str, Any]]:
    return {one["kind"]: one for one in yaml.safe_load_all((FOLDER / "server.yaml").read_text())}


def _values() -> dict[str, Any]:
    return yaml.safe_load((FOLDER / "supersonic-values.yaml").read_text())


def _keys(values: Any, path: str = "") -> set[str]:
    if not isinstance(values, dict):
        return {path}
    return set().union(*(_keys(value, f"{path}.{key}".lstrip(".")) for key, value in values.items()))


def _documented(key: str) -> bool:
    return key in DOCUMENTED or any(key.startswith(known[:-1]) for known in DOCUMENTED if known.endswith("*"))


def _image(tag: str = "") -> str:
    return f"nvcr.io/nvidia/tritonserver:{tag or image_version()}-py3"


@pytest.mark.parametrize("kind", ["Secret", "Deployment", "PersistentVolumeClaim"])
def test_the_manifest_is_what_kubernetes_takes(kind: str) -> None:
    manifest = _manifests()[kind]
    for version in ("1.27", kubernetes_validate.latest_version()):
        kubernetes_validate.validate(manifest, version, strict=True)
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate({**manifest, "metadata": {"title": "x"}}, kubernetes_validate.latest_version(), strict=True)


def test_one_server_listens_on_loopback_alone_with_models_it_cannot_change() -> None:
    pod = _manifests()["Deployment"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert container["image"] == _image()
    serving = LaunchSpec(server_id="any", ports=("8000", "8001", "8002"))
    arguments = [word.replace("$COURSE_ADMIN_KEY", "$(COURSE_ADMIN_KEY)") for word in serving.triton_arguments("/models")]
    shared = {word for word in arguments if any(part in word for part in ("address", "model-repository", "restricted"))}
    assert len(shared) == 6 and shared <= set(container["args"]), "the options of our own launcher"
    (models,) = [mount for mount in container["volumeMounts"] if mount["mountPath"] == "/models"]
    volume = next(volume for volume in pod["volumes"] if volume["name"] == models["name"])
    assert models["readOnly"] is True and volume["persistentVolumeClaim"]["readOnly"] is True
    assert volume["persistentVolumeClaim"]["claimName"] == _manifests()["PersistentVolumeClaim"]["metadata"]["name"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "1"
    secret = container["env"][0]["valueFrom"]["secretKeyRef"]
    assert (secret["name"], [secret["key"]]) == (_manifests()["Secret"]["metadata"]["name"], list(_manifests()["Secret"]["stringData"]))
    asked = {name: container[name]["exec"]["command"][-1] for name in ("startupProbe", "livenessProbe", "readinessProbe")}
    at = "http://127.0.0.1:8000/v2/health"
    assert asked == {"startupProbe": f"{at}/live", "livenessProbe": f"{at}/live", "readinessProbe": f"{at}/ready"}


def test_values_for_supersonic_have_only_documented_keys() -> None:
    assert [key for key in sorted(_keys(_values())) if not _documented(key)] == []
    assert not _documented("envoy.auth.enable") and not _documented("keda.maxReplicas"), "the check itself"


def test_values_for_supersonic_serve_these_models_and_scale_on_the_queue() -> None:
    values = _values()
    assert values["triton"]["image"] == _image()
    repository = values["triton"]["modelRepository"]
    assert f"--model-repository={repository['mountPath']}" in values["triton"]["args"][0]
    assert repository["pvc"]["claimName"] == _manifests()["PersistentVolumeClaim"]["metadata"]["name"]
    assert values["triton"]["resources"]["limits"]["nvidia.com/gpu"] == 1
    metric = values["serverLoadMetric"]
    assert re.findall(r"nv_\w+", metric) == ["nv_inference_queue_duration_us", "nv_inference_exec_count"]
    readme = (FOLDER / "README.md").read_text()
    release = re.search(r"helm install (\S+)", readme)
    assert release and metric.count(f'release=~"{release[1]}"') == 2, "the metric names the release"
    assert values["keda"]["enabled"] and values["envoy"]["auth"]["enabled"] and values["prometheus"]["enabled"]
    assert f"grpcs://{values['envoy']['ingress']['hostName']}" in readme


def test_readme_says_what_was_not_run_and_names_files_that_are_there() -> None:
    for file in (FOLDER / "README.md", FOLDER / "server.yaml", FOLDER / "supersonic-values.yaml", FOLDER.parent / "CLIENTS.md"):
        assert re.search(r"not run (this )?on a cluster|were not run here", file.read_text(), re.IGNORECASE), file
    readme = (FOLDER / "README.md").read_text()
    for path in re.findall(r"containers/[\w./-]+\.(?:yaml|txt)", readme):
        assert (paths.root() / path).is_file(), path
