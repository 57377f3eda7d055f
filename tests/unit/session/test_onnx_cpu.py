"""Promises of `session/onnx_cpu.py`: explicit threads, checked shapes, features that do not depend on the batch."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper

from arcface_api.arrays import ChannelOrder, InputSpec
from arcface_api.errors import ModelFailed
from arcface_api.session import ModelContent, open_reference
from arcface_api.session.onnx_cpu import FedSession, OnnxCpuSession
from arcface_api.session.self_test import median_similarity
from session.conftest import model_content, random_crops
from tiny_models import linear_model


def test_threads_are_set_explicitly(recogniser: ModelContent, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    real = ort.InferenceSession

    def spying(content: bytes, options: ort.SessionOptions, **rest: object) -> ort.InferenceSession:
        seen.append(options.intra_op_num_threads)
        return real(content, options, **rest)

    monkeypatch.setattr(ort, "InferenceSession", spying)
    assert OnnxCpuSession(recogniser, threads=3).threads == 3
    assert seen == [3]


def test_features_do_not_depend_on_the_batch(recogniser: ModelContent) -> None:
    session, crops = OnnxCpuSession(recogniser, threads=2), random_crops(5)
    batch = session.run(crops)
    assert batch.shape == (5, 512)
    assert batch.dtype == np.float32
    alone = np.concatenate([session.run([crop]) for crop in crops])
    np.testing.assert_allclose(batch, alone, rtol=1e-5, atol=1e-5)


def test_a_model_that_is_fed_in_several_ways_has_the_features_of_each(recogniser: ModelContent) -> None:
    """And zeros where a way makes numbers too large."""
    other, endless = replace(recogniser.spec, mean=0, std=1, channel_order=ChannelOrder.BGR), 1e-38
    ways = [recogniser.spec, other, replace(recogniser.spec, std=endless)]
    session, crops = OnnxCpuSession(recogniser, threads=1), random_crops(3)
    with np.errstate(over="ignore"):
        rows = FedSession(session, ways).run(crops)
    assert rows.shape == (3, 3 * 512)
    for part, way in zip(np.split(rows, 3, axis=1)[:2], ways, strict=False):
        alone = OnnxCpuSession(replace(recogniser, spec=way), threads=1).run(crops)
        np.testing.assert_allclose(part, alone, rtol=1e-5, atol=1e-5)
    assert not rows[:, 2 * 512 :].any()
    assert median_similarity(rows[:, 2 * 512 :]) == 1  # and not 0, as if it distinguished them well


def test_files_that_are_no_models_are_refused(recogniser: ModelContent) -> None:
    for content in (b"", b"not a model", recogniser.content[: len(recogniser.content) // 2]):
        with pytest.raises(ModelFailed, match="cannot load the model"):
            OnnxCpuSession(model_content(content), threads=1)


@pytest.mark.parametrize(
    ("model", "found"),
    [
        (linear_model(96, 512), r"\['n', 3, 96, 96\]"),
        (linear_model(112, 128), r"\['n', 128\]"),
    ],
)
def test_other_shapes_are_refused(model: onnx.ModelProto, found: str) -> None:
    with pytest.raises(ModelFailed, match=rf"{found}.*; needed is one float32 input \(n, 3, 112, 112\)"):
        OnnxCpuSession(model_content(model), threads=1)


def test_a_second_output_is_refused() -> None:
    model = linear_model(112, 512)
    model.graph.output.append(helper.make_tensor_value_info("flat", TensorProto.FLOAT, ["n", 588]))
    with pytest.raises(ModelFailed, match="output flat"):
        OnnxCpuSession(model_content(model), threads=1)


def test_another_input_name_is_refused(recogniser: ModelContent) -> None:
    named = InputSpec("data", 112, 112, 127.5, 127.5)
    with pytest.raises(ModelFailed, match="input input"):
        OnnxCpuSession(model_content(recogniser.content, named), threads=1)


def test_wrong_number_of_rows_is_an_error_not_a_mix_up() -> None:
    """A graph that announces (n, 512) and returns half the rows."""
    model = linear_model(112, 512)
    graph = model.graph
    graph.node[-1].output[0] = "all_rows"
    graph.initializer.append(helper.make_tensor("first", TensorProto.INT64, [1], [0]))
    graph.initializer.append(helper.make_tensor("one", TensorProto.INT64, [1], [1]))
    graph.node.append(helper.make_node("Slice", ["all_rows", "first", "one", "first"], ["output"]))
    session = OnnxCpuSession(model_content(model), threads=1)
    with pytest.raises(ModelFailed, match=r"shape \(1, 512\) for a batch of 2; \(2, 512\) was expected"):
        session.run(random_crops(2))


def test_model_that_loads_but_cannot_run_is_found_at_once() -> None:
    model = linear_model(112, 512)
    model.graph.initializer.append(helper.make_tensor("seven", TensorProto.INT64, [2], [7, 512]))
    model.graph.node[-1].output[0] = "rows"
    model.graph.node.append(helper.make_node("Reshape", ["rows", "seven"], ["output"]))
    with pytest.raises(ModelFailed, match="failed on a batch of 1"):
        open_reference(model_content(model), 1, (1,))


def test_every_batch_size_of_a_reference_is_warmed(recogniser: ModelContent, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[int] = []
    monkeypatch.setattr(OnnxCpuSession, "run", lambda _, crops: ran.append(len(crops)))
    assert open_reference(recogniser, 1, (1, 2, 4)).batch_sizes == (1, 2, 4)
    assert ran == [1, 2, 4]


def test_the_file_s_bytes_are_not_held_for_life() -> None:
    content = linear_model(112, 512).SerializeToString()
    session = OnnxCpuSession(model_content(content), threads=1)
    assert sys.getrefcount(content) == 2, "this test's own name, and getrefcount's argument"
    assert session.run(random_crops(1)).shape == (1, 512)


def test_failing_inference_says_so(recogniser: ModelContent) -> None:
    session = OnnxCpuSession(recogniser, threads=1)
    with pytest.raises(ModelFailed, match="failed on a batch of 1"):
        session.run(random_crops(1, size=50))


def test_onnx_runtime_reports_to_nobody(recogniser: ModelContent, tmp_path: Path) -> None:
    """Its telemetry writes a device identifier below the cache folder before it sends anything."""
    (tmp_path / "model.onnx").write_bytes(recogniser.content)
    script = (
        "from arcface_api.arrays import InputSpec\n"
        "from arcface_api.session import ModelContent, open_reference\n"
        "content = open('model.onnx', 'rb').read()\n"
        "open_reference(ModelContent(content, '', InputSpec(None, 112, 112, 127.5, 127.5), 512), 1, (1,))\n"
    )
    home = {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    environment = {key: value for key, value in os.environ.items() if key not in {"CI", "ORT_DISABLE_TELEMETRY"}}
    subprocess.run([sys.executable, "-c", script], cwd=tmp_path, env=environment | home, check=True)
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]
