"""Does another version of `image/` give the same pixels? About 2,000 ordinary pictures, decoded by two source trees.

    git worktree add ../before COMMIT
    python -m benchmarks.questions.pixels --before ../before --faces LFW [--cameras FOLDER]

Pictures of LFW's `images.tar` are saved again in many ways by Pillow, OpenCV and cjpeg (Debian's libjpeg-turbo-progs),
and given cameras' metadata by ExifTool (libimage-exiftool-perl, whose source package has files of real cameras with
maker notes for `--cameras`: t/images). The result names every picture whose pixels are not equal to the byte, and how
far each tree's are from Pillow's upright picture: that says which of the two is wrong.
Prints the result as JSON; `--output` also writes it to a file. Progress goes to stderr.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from arcface_api.errors import RequestError
from arcface_api.image import ImageLimits, decode
from benchmarks.lib import machine
from benchmarks.lib.pixel_kinds import faces, write_pictures
from benchmarks.lib.service import ROOT

MAX_PIXELS = 50_000_000
DIFFERS_FROM = 12
"""Mean absolute difference to Pillow's picture, in levels, beyond which a tree's is called wrong.

Pillow turns CMYK to RGB by other rules; pictures that are turned, or other ones, differ by more.
"""


def decode_each(folder: Path, target: Path) -> None:
    """Decode the files whose names come from stdin with the tree that PYTHONPATH names; a line for each on stdout."""
    for line in sys.stdin:
        name = line.strip()
        try:
            decoded = decode((folder / name).read_bytes(), ImageLimits(MAX_PIXELS))
            np.save(target / f"{name}.npy", getattr(decoded, "image", decoded))
            outcome = "decoded"
        except RequestError as error:
            outcome = type(error).__name__
        print(json.dumps([name, outcome]), flush=True)


def decoded_by(tree: Path, folder: Path, names: list[str], target: Path) -> dict[str, str]:
    """Outcome of each name; decoding goes on in another process where one dies."""
    outcomes: dict[str, str] = {}
    environment = os.environ | {"PYTHONPATH": f"{tree / 'src'}:{ROOT}"}
    while rest := [name for name in names if name not in outcomes]:
        command = [sys.executable, "-m", "benchmarks.questions.pixels", "--decode", folder, target]
        child = subprocess.run(
            command, input="\n".join(rest), env=environment, check=False, capture_output=True, text=True
        )
        outcomes |= dict(json.loads(line) for line in child.stdout.splitlines())
        if child.returncode < 0:
            name = next(name for name in rest if name not in outcomes)
            outcomes[name] = "the process died"
        elif child.returncode:
            raise SystemExit(child.stderr)
    return outcomes


def difference(pixels: Path, content: bytes) -> float | None:
    """Mean absolute difference to Pillow's upright picture, in levels; None where one is missing or sizes differ."""
    try:
        picture = Image.open(BytesIO(content))
        picture = ImageOps.exif_transpose(picture)
        mine = np.load(pixels)
    except (OSError, SyntaxError):
        return None
    wanted = np.asarray(picture.convert("RGB")).astype(int)
    return round(float(np.abs(mine - wanted).mean()), 2) if wanted.shape == mine.shape else None


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", type=Path, help="the other source tree")
    parser.add_argument("--faces", type=Path, help="folder that has LFW's images.tar")
    parser.add_argument("--cameras", type=Path, help="folder of cameras' JPEG files")
    parser.add_argument("--output", type=Path, help="write the result as JSON to this file, too")
    parser.add_argument("--decode", type=Path, nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.decode:
        decode_each(*options.decode)
        return
    with tempfile.TemporaryDirectory() as scratch:
        folder, before, after = (Path(scratch) / name for name in ("pictures", "before", "after"))
        for each in (folder, before, after):
            each.mkdir()
        made = write_pictures(faces(options.faces), folder, options.cameras)
        print(f"{len(made)} pictures of {len(set(made.values()))} kinds", file=sys.stderr)
        outcomes = {
            target: decoded_by(tree, folder, list(made), target)
            for tree, target in ((options.before, before), (ROOT, after))
        }
        rows = []
        for name, kind in made.items():
            files = [target / f"{name}.npy" for target in (before, after)]
            said = [outcomes[target][name] for target in (before, after)]
            if said[0] == said[1] and (said[0] != "decoded" or files[0].read_bytes() == files[1].read_bytes()):
                continue
            content = (folder / name).read_bytes()
            to_pillow = [difference(file, content) if file.exists() else None for file in files]
            rows.append({"kind": kind, "name": name, "outcomes": said, "difference_to_pillow": to_pillow})
            rows[-1]["wrong"] = [who for who, far in zip(("before", "after"), to_pillow, strict=True) if is_wrong(far)]
    differing = Counter(row["kind"] for row in rows)
    result = {
        "benchmark": "pixels",
        "pictures": len(made),
        "kinds": {
            kind: {"pictures": count, "differing": differing[kind]} for kind, count in Counter(made.values()).items()
        },
        "outcomes": {target.name: dict(Counter(outcomes[target].values())) for target in (before, after)},
        "equal": len(made) - len(rows),
        "differing": rows,
        "before": revision(options.before),
        "machine": machine.describe(),
    }
    text = json.dumps(result, indent=2)
    print(text)
    if options.output:
        options.output.write_text(text + "\n")


def is_wrong(to_pillow: float | None) -> bool:
    """Whether a tree's picture is missing, or another one than Pillow's."""
    return to_pillow is None or to_pillow > DIFFERS_FROM


def revision(tree: Path) -> str:
    """The commit of the other tree."""
    return subprocess.run(
        ["git", "-C", tree, "rev-parse", "--short", "HEAD"], check=True, capture_output=True, text=True
    ).stdout.strip()


if __name__ == "__main__":
    main()
