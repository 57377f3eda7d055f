"""Promises of the image and of how it is run: no root, nothing to write to, no shell, and a list of what is inside.

`docs/operations.md` says how the same is tried with a real engine.
"""

import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import pytest
import yaml

from arcface_api import __version__
from arcface_api.settings import Settings
from authority import Authority
from serving import Service

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
FINAL = DOCKERFILE[DOCKERFILE.rindex("\nFROM ") :]
"""The stage that becomes the image."""
pytestmark = pytest.mark.once  # files decide


def compose() -> dict[str, Any]:
    service: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]["arcface-api"]
    return service


def instruction(name: str) -> str:
    """The last one of this name, its lines joined."""
    found: list[str] = re.findall(rf"^{name} ((?:.*\\\n)*.*)$", FINAL, re.MULTILINE)
    return found[-1].replace("\\\n", "")


def test_image_runs_as_a_user_who_is_a_number_and_no_root() -> None:
    assert re.findall(r"^USER (.*)$", FINAL, re.MULTILINE) == ["10001"]


def test_image_needs_no_shell_to_start_or_to_be_examined() -> None:
    """In the form that Docker runs as it stands: a list."""
    assert json.loads(instruction("ENTRYPOINT")) == ["arcface-api"]
    assert json.loads(instruction("CMD")) == ["serve"]
    program, *_ = json.loads(instruction("HEALTHCHECK").partition(" CMD ")[2])
    assert program == "python3"


def test_base_can_be_pinned_and_is_named_in_the_image() -> None:
    assert set(re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE)) == {"${BASE}"}
    assert 'org.opencontainers.image.base.name="$BASE"' in FINAL


def test_tools_of_the_build_stay_out_of_the_image() -> None:
    copied = re.findall(r"^COPY --from=build (\S+) (\S+)$", FINAL, re.MULTILINE)
    assert copied == [
        ("/opt/arcface-api", "/opt/arcface-api"),
        ("/opt/sbom.cdx.json", "/usr/share/arcface-api/sbom.cdx.json"),
    ]
    assert "pip" not in FINAL
    assert "uninstall --quiet --yes pip" in DOCKERFILE


def test_compose_takes_every_right_away() -> None:
    service = compose()
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert not service.keys() & {"privileged", "cap_add", "user", "pid", "ipc", "devices"}
    assert "unconfined" not in str(service), "seccomp's and AppArmor's own profiles"
    assert service["ports"] == ["${ARCFACE_PUBLISH:-127.0.0.1:5555}:5555"]


def test_chart_takes_the_same_rights_away() -> None:
    values = yaml.safe_load((ROOT / "deploy/helm/arcface-api/values.yaml").read_text())
    assert values["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    pod = values["podSecurityContext"]
    assert (pod["runAsNonRoot"], pod["runAsUser"], pod["seccompProfile"]) == (True, 10001, {"type": "RuntimeDefault"})


def test_compose_lets_every_setting_through() -> None:
    inside = {"host", "port", "models_dir", "cache_dir"}  # the image decides
    named = {name.removeprefix("ARCFACE_").lower() for name in compose()["environment"] if name.startswith("ARCFACE_")}
    assert named == Settings.model_fields.keys() - inside


@pytest.mark.parametrize("has_tls", [False, True])
def test_health_check_asks_the_service_with_and_without_tls(
    run_service: Callable[..., Service], tiny_recogniser: Path, tmp_path: Path, *, has_tls: bool
) -> None:
    """Also one that serves callers with a certificate alone."""
    settings, environment = {}, {}
    if has_tls:
        authority = Authority(tmp_path)
        certificate, key = authority.issue()
        settings = {"tls_certificate_file": certificate, "tls_key_file": key, "tls_client_ca_file": authority.ca}
        environment = {"ARCFACE_TLS_CERTIFICATE_FILE": str(certificate)}
    service = run_service(tiny_recogniser, **settings)
    _, *arguments = json.loads(instruction("HEALTHCHECK").partition(" CMD ")[2])
    environment["ARCFACE_PORT"] = str(service.base_url.port)
    for status in (0, 1):
        done = subprocess.run([sys.executable, *arguments], env=environment, capture_output=True, check=False)
        assert done.returncode == status, done.stderr
        service.stop()


# ── what is inside ─────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """The interpreter of a small environment: three packages, one of which names no licence."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "small"], check=True)
    (site,) = (tmp_path / "small" / "lib").glob("python*/site-packages")
    here = Path(str(distribution("httpx").locate_file("")))
    for name in ("httpx", "numpy", "protobuf"):
        (metadata,) = here.glob(f"{name}-*.dist-info")
        shutil.copytree(metadata, site / metadata.name)
    shutil.copytree(ROOT / "src" / "arcface_api", site / "arcface_api", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path / "small" / "bin" / "python"


def test_bill_of_materials_is_whole_licensed_and_the_same_each_time(small: Path, tmp_path: Path) -> None:
    """It is validated against the schema of CycloneDX by the program itself. The second one has the system, too."""
    boms = []
    is_debian = shutil.which("dpkg-query") is not None
    for system in ([], ["--system"] if is_debian else []):
        output = tmp_path / "sbom.json"
        script = [sys.executable, str(ROOT / "requirements" / "sbom.py"), *system, "--output", str(output), str(small)]
        subprocess.run(script, check=True, capture_output=True)
        assert str(tmp_path) not in output.read_text(), "a path of this machine"
        boms.append(json.loads(output.read_text()))
    components, of_system = ({each["bom-ref"]: each for each in bom["components"]} for bom in boms)
    licences = {each["name"]: each["licenses"] for each in components.values()}
    assert licences.keys() == {"httpx", "numpy", "protobuf", "python", "landmarks", "dlib_resnet_v1", "age", "gender"}
    assert all(licences.values())
    described = boms[0]["metadata"]["component"]
    assert (described["name"], described["version"]) == ("arcface-api", __version__)
    models = [each for each in components.values() if each["type"] == "machine-learning-model"]
    assert all(len(each["hashes"][0]["content"]) == 64 for each in models)
    assert components.items() <= of_system.items()
    assert boms[0]["metadata"] == boms[1]["metadata"]
    if is_debian:
        added = of_system.keys() - components.keys()
        assert all(re.match(r"pkg:deb/\w+/[^@]+@[^?]+\?arch=\w+&distro=\w+-\d+$", ref) for ref in added)
        assert any(ref.startswith("pkg:deb/debian/libc6@") for ref in added)


# ── the scripts ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_image_is_built_on_the_base_that_is_given(tmp_path: Path) -> None:
    """`docker` is a program that writes down how it is called: what matters is the call."""
    (tmp_path / "docker").write_text(f'#!/bin/sh\nprintf "%s\\n" "$*" >>{shlex.quote(str(tmp_path / "calls"))}\n')
    (tmp_path / "docker").chmod(0o755)
    path = f"{tmp_path}:/usr/bin:/bin"
    script = ROOT / "deploy" / "build-image"
    subprocess.run([script, "--network=host"], env={"PATH": path, "BASE": "python@sha256:1"}, check=True)
    assert (tmp_path / "calls").read_text() == (
        "build --build-arg BASE=python@sha256:1 --tag arcface-api --network=host .\n"
    )
    done = subprocess.run([script], env={"PATH": path}, check=True, capture_output=True, text=True)
    assert "the base is not pinned" in done.stderr
