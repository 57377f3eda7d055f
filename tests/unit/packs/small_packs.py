"""Packs of tiny real models, as archives, folders and manifests."""

import hashlib
import io
import zipfile
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
from onnx import ModelProto, TensorProto, helper, numpy_helper

from arcface_api.arrays import InputSpec
from arcface_api.packs.manifest import Licence, Manifest, ModelFile, Role, Source
from tiny_models import linear_model

INSIGHTFACE_ROLES = {Role.RECOGNISER, Role.AGE_GENDER, Role.LANDMARKS_3D}
"""Of InsightFace's packs."""
LICENCE = Licence("Tiny licence", "https://example.org/licence", False, "For tests only.")
RECOGNISER, AGE_GENDER, LANDMARKS, DETECTOR = "face.onnx", "genderage.onnx", "1k3d68.onnx", "det.onnx"


@cache
def model_bytes(size: int, dim: int, *, seed: int = 0, ballast: int = 0, inside: bool = False) -> bytes:
    """A tiny model as a file; `ballast` bytes of unused random weights make a download last."""
    model = linear_model(size, dim, pool=size // 2, seed=seed, normalises_inside=inside)
    if ballast:
        extra = np.random.default_rng(seed).integers(0, 256, ballast, dtype=np.uint8)
        model.graph.initializer.append(numpy_helper.from_array(extra, "ballast"))
    return bytes(model.SerializeToString())


@cache
def odd_model(
    input_shape: tuple[int | str, ...], *output_shapes: tuple[int | str, ...], kind: int = TensorProto.FLOAT
) -> bytes:
    """A graph with any input and outputs; it is inspected, never run."""
    outputs = [
        helper.make_tensor_value_info(f"out{i}", TensorProto.FLOAT, shape) for i, shape in enumerate(output_shapes)
    ]
    nodes = [helper.make_node("Identity", ["in"], [output.name], name=f"Identity_{output.name}") for output in outputs]
    inputs = [helper.make_tensor_value_info("in", kind, input_shape)]
    model: ModelProto = helper.make_model(helper.make_graph(nodes, "odd", inputs, outputs), ir_version=8)
    return bytes(model.SerializeToString())


@cache
def contents() -> dict[str, bytes]:
    """The files of the tiny pack, with a detector that nobody needs."""
    return {
        RECOGNISER: model_bytes(112, 128, seed=1, ballast=900_000),
        AGE_GENDER: model_bytes(96, 3, seed=2, inside=True),
        LANDMARKS: model_bytes(192, 3309, seed=3, inside=True),
        DETECTOR: odd_model(("n", 3, "h", "w"), ("m", 1), ("m", 4)),
    }


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def tiny_pack(name: str = "tiny", *sources: Source, pinned: bool = True) -> Manifest:
    """The manifest of the tiny pack."""

    def file(file_name: str, role: Role, size: int, dim: int, mean: float, std: float, *aliases: str) -> ModelFile:
        content = contents()[file_name]
        size_bytes, digest = (len(content), sha256(content)) if pinned else (None, None)
        return ModelFile(file_name, role, InputSpec(None, size, size, mean, std), dim, size_bytes, digest, aliases)

    return Manifest(
        name=name,
        title="Tiny",
        model=f"{name}_random",
        licence=LICENCE,
        files=(
            file(RECOGNISER, Role.RECOGNISER, 112, 128, 127.5, 127.5, "recognition/model.onnx"),
            file(AGE_GENDER, Role.AGE_GENDER, 96, 3, 0, 1),
            file(LANDMARKS, Role.LANDMARKS_3D, 192, 3309, 0, 1),
        ),
        sources=sources,
    )


def known(*manifests: Manifest) -> dict[str, Manifest]:
    return {manifest.name: manifest for manifest in manifests or (tiny_pack(),)}


def with_sources(*sources: Source, pinned: bool = True) -> dict[str, Manifest]:
    return known(replace(tiny_pack(pinned=pinned), sources=sources))


def archive(members: Mapping[str, bytes] | None = None, *, prefix: str = "", method: int = zipfile.ZIP_STORED) -> bytes:
    """A zip of these members, or of the tiny pack."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as file:
        for name, content in (contents() if members is None else members).items():
            file.writestr(prefix + name, content)
    return buffer.getvalue()


def write_files(folder: Path, *names: str) -> Path:
    """A folder with these files of the tiny pack; with all that it needs, without names."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names or (RECOGNISER, AGE_GENDER, LANDMARKS):
        (folder / name).write_bytes(contents()[name])
    return folder
