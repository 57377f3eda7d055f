"""The running service does what its own OpenAPI says, for every operation and by every check of Schemathesis.

`schemathesis.toml` and `schemathesis_hooks.py` say which checks cannot hold, and why.
"""

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from serving import Service

HERE = Path(__file__).parent
OPERATIONS = 7

pytestmark = pytest.mark.once  # it takes a minute


KEY = "0123456789abcdef"


@pytest.mark.parametrize(
    ("keys", "headers"),
    [
        pytest.param("", {}, id="open"),
        pytest.param(f"tests {KEY}", {"Authorization": f"Bearer {KEY}"}, id="with a key"),
        pytest.param(f"tests {KEY}", {}, id="without the key that it asks for"),
    ],
)
def test_service_does_what_its_openapi_says(
    run_service: Callable[..., Service],
    tiny_pack: Path,
    tmp_path: Path,
    keys: str,
    headers: Mapping[str, str],
) -> None:
    (tmp_path / "keys").write_text(keys)
    service = run_service(tiny_pack, api_keys_file=tmp_path / "keys" if keys else None)
    run = [sys.executable, "-c", "from schemathesis.cli import schemathesis; schemathesis()", "--no-color"]
    run += ["--config-file", str(HERE / "schemathesis.toml")]
    run += ["run", str(service.base_url.join("/openapi.json")), "--checks", "all", "--continue-on-failure"]
    for name, value in headers.items():
        run += ["--header", f"{name}: {value}"]
    places = os.pathsep.join([*sys.path, str(HERE)])
    ended = subprocess.run(
        run,
        check=False,
        capture_output=True,
        text=True,
        cwd=tmp_path,  # where it keeps its reports
        env=os.environ | {"SCHEMATHESIS_HOOKS": "schemathesis_hooks", "PYTHONPATH": places},
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert f"Tested: {OPERATIONS}" in ended.stdout
