"""The blocks of the documentation that embed many pictures, run as they stand."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from pictures import picture_bytes

ROOT = Path(__file__).parents[2]


@pytest.mark.once
@pytest.mark.timeout(700)
@pytest.mark.parametrize(
    ("page", "prints"),
    [
        ("README.md", r"\(2, 512\)"),
        ("README.ru.md", r"\(2, 512\)"),
        ("docs/bulk.md", r"\(2, 512\) crops/1.jpg\n[0-9a-f]{16}"),
    ],
)
def test_blocks_run_as_they_stand(tmp_path: Path, tiny_recogniser: Path, page: str, prints: str) -> None:
    text = (ROOT / page).read_text()
    (tmp_path / "crops").mkdir()
    for number in (1, 2):
        (tmp_path / f"crops/{number}.jpg").write_bytes(picture_bytes(size=(50 + number, 60)))
    (tmp_path / "crops/3.jpg").write_bytes(b"")
    command = re.search(r"^(?:make embed ARGS='|arcface-api embed )(.*--out faces\.parquet)'?$", text, re.MULTILINE)
    assert command
    run = [sys.executable, "-m", "arcface_api", "embed", *command[1].split(), "--pack", str(tiny_recogniser)]
    subprocess.run(run, cwd=tmp_path, check=True, timeout=300, stderr=subprocess.DEVNULL)
    blocks = [block for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "pyarrow" in block]
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(blocks)],
        cwd=tmp_path,
        check=True,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert re.search(prints, done.stdout), done.stdout
