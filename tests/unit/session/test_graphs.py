"""Promises of `session/graphs.py`: rewritten graphs take pixels and say the same. Checked in numbers, on the CPU."""

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from arcface_api.arrays import ChannelOrder, Crop, Features, InputSpec, to_tensor
from arcface_api.session import ModelContent
from arcface_api.session.graphs import PIXELS, round_to_bfloat16, take_pixels, to_float16
from session.conftest import random_crops
from tiny_models import age_gender_model, linear_model


def convolution_model(*, second_taker: bool = False) -> onnx.ModelProto:
    """A convolution with padding, then mean pooling: (n, 3, 112, 112) → (n, 8)."""
    weights = np.random.default_rng(0).normal(0, 1, (8, 3, 3, 3)).astype(np.float32)
    nodes = [
        helper.make_node("Conv", ["input", "weights"], ["maps"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["maps"], ["positive"]),
        helper.make_node("GlobalAveragePool", ["positive"], ["mean"]),
        helper.make_node("Flatten", ["mean"], ["output"]),
    ]
    if second_taker:
        nodes[2].input[0] = "both"
        nodes.insert(2, helper.make_node("ReduceMean", ["input"], ["level"], axes=[1]))
        nodes.insert(3, helper.make_node("Add", ["positive", "level"], ["both"]))
    graph = helper.make_graph(
        nodes,
        "convolution",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["n", 3, 112, 112])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, ["n", 8])],
        [numpy_helper.from_array(weights, "weights")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return model


def run(model: onnx.ModelProto, **inputs: object) -> Features:
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    features: Features = session.run(None, inputs)[0]
    return features


def rewritten(model: onnx.ModelProto, spec: InputSpec, crops: list[Crop]) -> tuple[Features, onnx.ModelProto]:
    """The rewritten graph's features of the crops, and the graph, which ONNX's own checker has checked."""
    changed = take_pixels(onnx.load_from_string(model.SerializeToString()), spec)
    onnx.checker.check_model(changed, full_check=True)
    return run(changed, **{PIXELS: np.stack(crops)}), changed


@pytest.mark.parametrize("order", list(ChannelOrder))
@pytest.mark.parametrize(("mean", "std"), [(127.5, 127.5), (127.5, 128.0), (0.0, 1.0), (100.0, 1.0), (0.0, 255.0)])
@pytest.mark.parametrize("model", [linear_model(112, 512), convolution_model(), convolution_model(second_taker=True)])
def test_pixels_give_what_the_tensor_gave(model: onnx.ModelProto, mean: float, std: float, order: ChannelOrder) -> None:
    spec, crops = InputSpec(None, 112, 112, mean, std, order), random_crops(3)
    expected = run(model, input=to_tensor(crops, spec))
    found, _ = rewritten(model, spec, crops)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4 * float(np.abs(expected).max()))


def test_models_that_normalise_inside_get_pixels_as_they_are() -> None:
    spec, crops = InputSpec(None, 96, 96, 0.0, 1.0), random_crops(2, size=96)
    found, changed = rewritten(age_gender_model(), spec, crops)
    np.testing.assert_allclose(found, run(age_gender_model(), input=to_tensor(crops, spec)), rtol=1e-5, atol=1e-5)
    assert [node.op_type for node in changed.graph.node][:2] == ["Cast", "Transpose"]


def test_first_convolution_takes_over_the_division_so_that_its_input_is_exact() -> None:
    spec = InputSpec(None, 112, 112, 127.5, 127.5)
    _, folded = rewritten(convolution_model(), spec, random_crops(1))
    assert [node.op_type for node in folded.graph.node][:4] == ["Cast", "Transpose", "Sub", "Conv"]
    _, kept = rewritten(convolution_model(second_taker=True), spec, random_crops(1))
    assert "Mul" in [node.op_type for node in kept.graph.node]
    # (p - 127.5) has at most 8 significant bits, which is what bfloat16 holds
    pixels = np.arange(256, dtype=np.float32) - np.float32(127.5)
    assert not (pixels.view(np.uint32) & 0xFFFF).any()


def test_batch_of_any_size_goes_through() -> None:
    spec = InputSpec(None, 112, 112, 127.5, 127.5)
    changed = take_pixels(convolution_model(), spec)
    crops = random_crops(7)
    together = run(changed, **{PIXELS: np.stack(crops)})
    alone = np.concatenate([run(changed, **{PIXELS: crop[None]}) for crop in crops])
    np.testing.assert_array_equal(together, alone)


def test_weights_rounded_to_bfloat16_are_the_nearest_ones_and_float16_holds_them() -> None:
    model = convolution_model()
    before = numpy_helper.to_array(model.graph.initializer[0])
    after = numpy_helper.to_array(round_to_bfloat16(model).graph.initializer[0])
    assert not (after.view(np.uint32) & 0xFFFF).any()
    np.testing.assert_array_equal(after.astype(np.float16).astype(np.float32), after)
    spacing = np.exp2(np.floor(np.log2(np.abs(before))) - 7)
    assert (np.abs(after - before) <= spacing / 2).all()
    assert (after != before).any()


def test_float16_is_near_and_ends_in_float32(recogniser: ModelContent) -> None:
    spec, crops = recogniser.spec, random_crops(4)
    expected = run(onnx.load_from_string(recogniser.content), input=to_tensor(crops, spec))
    half = take_pixels(to_float16(onnx.load_from_string(recogniser.content)), spec)
    found = run(half, **{PIXELS: np.stack(crops)})
    assert found.dtype == np.float32
    kinds = {tensor.data_type for tensor in half.graph.initializer if len(tensor.dims) > 1}
    assert kinds == {TensorProto.FLOAT16}
    cosine = (found * expected).sum(axis=1) / np.linalg.norm(found, axis=1) / np.linalg.norm(expected, axis=1)
    assert cosine.min() > 0.999


def test_real_recognisers_survive_float16(mobile_face_net: ModelContent) -> None:
    crops = random_crops(2)
    model, spec = onnx.load_from_string(mobile_face_net.content), mobile_face_net.spec
    expected = run(model, **{"input.1": to_tensor(crops, spec)})
    half = take_pixels(to_float16(model), spec)
    found = run(half, **{PIXELS: np.stack(crops)})
    cosine = (found * expected).sum(axis=1) / np.linalg.norm(found, axis=1) / np.linalg.norm(expected, axis=1)
    assert cosine.min() > 0.999
