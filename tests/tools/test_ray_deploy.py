"""Promises of deploy/ray: Ray takes each file, and they say the same where they must."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from packaging.requirements import Requirement

from arcface_api import __version__

pytestmark = pytest.mark.once  # Ray decides
ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy" / "ray"
CHECK_SERVE = """
import sys, yaml
from ray.serve.config import AutoscalingConfig
from ray.serve.schema import ServeDeploySchema
from arcface_api.ray import build_app
schema = ServeDeploySchema.model_validate(yaml.safe_load(sys.stdin))
[app] = schema.applications
built = build_app(app.args)
[deployment] = app.deployments
AutoscalingConfig.model_validate(deployment.autoscaling_config)
assert deployment.name == built._bound_deployment.name, built._bound_deployment.name
print(deployment.max_ongoing_requests, built._bound_deployment.max_ongoing_requests)
"""
CHECK_CLUSTER = """
import sys, yaml
from ray.autoscaler._private.util import prepare_config, validate_config
config = prepare_config(yaml.safe_load(sys.stdin))
validate_config(config)
"""


def read(name: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((FOLDER / name).read_text())
    return found


def check(program: str, content: str) -> str:
    """Run a program of Ray's in a process of its own; returns what it prints."""
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, input=content, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_serve_takes_its_configuration() -> None:
    stated, ours = check(CHECK_SERVE, (FOLDER / "serve.yaml").read_text()).split()
    assert stated == ours


@pytest.mark.parametrize(
    "change", [("min_replicas: 1", "min_replicas: 9"), ("max_ongoing_requests: 512", "max_ongoing_requests: many")]
)
def test_serve_would_refuse_another(change: tuple[str, str]) -> None:
    with pytest.raises(AssertionError):
        check(CHECK_SERVE, (FOLDER / "serve.yaml").read_text().replace(*change))


def test_ray_up_takes_its_configuration() -> None:
    check(CHECK_CLUSTER, (FOLDER / "cluster.yaml").read_text())
    with pytest.raises(AssertionError):
        check(CHECK_CLUSTER, (FOLDER / "cluster.yaml").read_text().replace("idle_timeout_minutes", "idle_timeout"))


@pytest.mark.parametrize("name", ["rayjob.yaml", "rayservice.yaml"])
def test_pods_are_those_of_kubernetes(name: str) -> None:
    spec = read(name)["spec"]
    cluster = spec.get("rayClusterSpec") or spec["rayClusterConfig"]
    for group in [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]:
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, **group["template"]}
        kubernetes_validate.validate(pod, "1.34", strict=True)


def test_service_in_kubernetes_is_the_same() -> None:
    assert yaml.safe_load(read("rayservice.yaml")["spec"]["serveConfigV2"]) == read("serve.yaml")


def test_ray_and_the_image_have_one_version_everywhere() -> None:
    extra = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]["ray"]
    [needed] = [found for each in extra if (found := Requirement(each)).name == "ray"]
    texts = {path.name: path.read_text() for path in FOLDER.iterdir()}
    versions = {
        found
        for text in texts.values()
        for found in re.findall(r"(?:rayVersion: |rayproject/ray:|==)(\d+\.\d+\.\d+)", text)
    }
    assert len(versions) == 1, versions
    assert needed.specifier.contains(versions.pop())
    images = {found for text in texts.values() for found in re.findall(r"arcface-api-ray:([\d.]+)", text)}
    assert images == {__version__}


def test_options_of_the_job_are_those_of_the_command() -> None:
    command = read("rayjob.yaml")["spec"]["entrypoint"].split()
    assert command[:2] == ["arcface-api", "embed"]
    program = "import sys; from arcface_api.cli.embed import embed; embed.make_context('embed', sys.argv[1:])"
    done = subprocess.run([sys.executable, "-c", program, *command[2:]], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
