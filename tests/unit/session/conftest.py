"""Models and crops for tests of sessions."""

import hashlib
from pathlib import Path

import numpy as np
import onnx
import pytest

from arcface_api.arrays import Crop, InputSpec
from arcface_api.session import Cache, ModelContent, openvino_cpu
from conftest import MODELS
from tiny_models import linear_model

IS_INSTALLED = openvino_cpu.is_openvino_installed


def model_content(model: onnx.ModelProto | bytes, spec: InputSpec | None = None, dim: int = 512) -> ModelContent:
    """A model as the session room takes it."""
    content = model if isinstance(model, bytes) else model.SerializeToString()
    wanted = spec or InputSpec(None, 112, 112, 127.5, 127.5)
    return ModelContent(content, hashlib.sha256(content).hexdigest(), wanted, dim)


def random_crops(count: int, size: int = 112) -> list[Crop]:
    """Pixels without a meaning."""
    return list(np.random.default_rng(count).integers(0, 256, (count, size, size, 3), dtype=np.uint8))


@pytest.fixture(scope="session")
def recogniser() -> ModelContent:
    """The tiny recogniser."""
    return model_content(linear_model(112, 512))


@pytest.fixture
def mobile_face_net() -> ModelContent:
    """A real recogniser, small enough for tests."""
    path = MODELS / "w600k_mbf_from_int8.onnx"
    if not path.is_file():
        pytest.skip(f"needs {path}: real weights are not part of this project (set ARCFACE_TEST_MODELS)")
    return model_content(path.read_bytes())


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    """An empty cache."""
    return Cache(tmp_path / "compiled")


@pytest.fixture
def with_openvino(monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenVINO may be used, if it is installed."""
    if not IS_INSTALLED():
        pytest.skip("needs the package openvino, which is part of the extra cpu on x86-64 only")
    monkeypatch.setattr(openvino_cpu, "is_openvino_installed", lambda: True)
