"""Promise of examples/pgvector: where the faces cannot be downloaded, one sentence says what to do."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

FACES = Path(__file__).parents[2] / "examples" / "pgvector" / "faces.py"


@pytest.mark.once  # a process runs it
def test_download_that_fails_ends_with_what_to_do(tmp_path: Path) -> None:
    nowhere = {"https_proxy": "http://127.0.0.1:1", "no_proxy": "", "SCIKIT_LEARN_DATA": str(tmp_path)}
    command = [sys.executable, "-W", "ignore", str(FACES)]
    done = subprocess.run(
        command, cwd=tmp_path, env=os.environ | nowhere, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 1
    assert done.stderr.startswith("The faces cannot be downloaded: ")
    assert "Use a folder with crops of yours" in done.stderr
    assert done.stderr.count("\n") == 1
