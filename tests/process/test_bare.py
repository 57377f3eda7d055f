"""Promises of the bare package: the built wheel, in an environment with nothing but what it requires, is the client."""

import os
import re
import subprocess
import sys
import venv
import zipfile
from importlib.metadata import Distribution, distribution
from pathlib import Path

import numpy as np
import pytest
from packaging.requirements import Requirement

from pictures import picture_bytes
from serving import Service

ROOT = Path(__file__).parents[2]
EMBED = """
import sys
from arcface_api.client import Client

with Client(sys.argv[1]) as client:
    one, many = client.embed(sys.argv[2]), list(client.embed_many([sys.argv[2]] * 3))
    print(one.vector.tolist() == many[2].vector.tolist(), one.vector.tolist())
"""
LOADED = """
import arcface_api.client, sys

print(*sorted({name for name in sys.modules if name.startswith("arcface_api.")}))
print(*sorted({name.partition(".")[0] for name in sys.modules}))
"""
OF_THE_CLIENT = re.compile(r"arcface_api\.(client(\.\w+)?|errors|outbound|wording)")


@pytest.fixture(scope="module")
def bare_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of an environment with the wheel and its requirements, which are links to those of this one."""
    folder = tmp_path_factory.mktemp("bare")
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    venv.create(folder / "environment", symlinks=True)
    (site,) = (folder / "environment" / "lib").glob("python*/site-packages")
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel:
        wheel.extractall(site)
    (information,) = site.glob("arcface_api-*.dist-info")
    waiting: list[Distribution] = [Distribution.at(information)]
    linked: set[str] = set()
    while waiting:
        for text in waiting.pop().requires or []:
            required = Requirement(text)
            if required.name in linked or (required.marker and not required.marker.evaluate({"extra": ""})):
                continue
            found = distribution(required.name)
            linked.add(required.name)
            waiting.append(found)
            for top in {file.parts[0] for file in found.files or [] if ".." not in file.parts}:
                if not (site / top).exists():
                    (site / top).symlink_to(str(found.locate_file(top)))
    assert {"httpx", "numpy", "tenacity"} <= linked
    assert len(linked) < 12, "few enough to be installed beside anything"
    return folder / "environment" / "bin" / "python"


def run(python: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    without = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run([python, *arguments], capture_output=True, text=True, check=False, env=without)


def test_client_embeds(bare_python: Path, service: Service, tmp_path: Path) -> None:
    path = tmp_path / "face.png"
    path.write_bytes(picture_bytes("PNG"))
    done = run(bare_python, "-c", EMBED, str(service.base_url), str(path))
    assert done.returncode == 0, done.stderr
    expected = service.post("/embed", files={"file": path.read_bytes()}).json()["embedding"]
    assert done.stdout.split(" ", 1) == ["True", f"{np.array(expected, np.float32).tolist()}\n"]


def test_command_says_its_version_and_what_to_install(bare_python: Path) -> None:
    assert re.fullmatch(r"arcface-api, version [\d.]+\n", run(bare_python, "-m", "arcface_api", "--version").stdout)
    assert "from arcface_api.client import Client" in run(bare_python, "-m", "arcface_api", "--help").stdout
    for command in ("serve", "bench", "packs", "evaluate"):
        done = run(bare_python, "-m", "arcface_api", command)
        assert done.returncode == 1
        assert "pip install 'arcface-api[cpu]'" in done.stderr
        assert "Traceback" not in done.stderr


def test_client_loads_nothing_of_the_service(bare_python: Path) -> None:
    """Also where it is installed."""
    for python in (bare_python, Path(sys.executable)):
        environment = os.environ | ({} if python is not bare_python else {"PYTHONPATH": ""})
        done = subprocess.run([python, "-c", LOADED], capture_output=True, text=True, check=True, env=environment)
        own, top = (line.split() for line in done.stdout.splitlines())
        assert [name for name in own if not OF_THE_CLIENT.fullmatch(name)] == []
        assert {"cv2", "fastapi", "onnxruntime", "openvino", "orjson", "PIL", "pydantic", "uvicorn"}.isdisjoint(top)
