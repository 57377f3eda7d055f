"""Promises of `packs.graph`: a model is fed as what its first nodes compute needs, whatever they are called."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from arcface_api.arrays import ChannelOrder
from arcface_api.errors import GraphUnfit
from arcface_api.packs.first_nodes import first_nodes
from arcface_api.packs.graph import inspect
from tiny_models import linear_model

RGB, BGR = ChannelOrder.RGB, ChannelOrder.BGR
SIGNED, UNIT, PIXELS = (127.5, 127.5), (0.0, 255.0), (0.0, 1.0)
IMAGENET = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
Step = tuple[str, list[Any], dict[str, Any]]


def step(operator: str, *constants: Any, **attributes: Any) -> Step:
    """A node that takes what the one before it gives, and constants."""
    return operator, list(constants), attributes


def planes(values: list[float]) -> Any:
    return np.array(values, np.float32).reshape(3, 1, 1)


def model(*steps: Step, name: str = "") -> onnx.ModelProto:
    """A recogniser that begins with these steps, each node with that name."""
    made = linear_model(112, 512)
    graph = made.graph
    last = graph.input[0].name
    for number, (operator, constants, attributes) in enumerate(steps):
        names = [f"constant_{number}_{place}" for place in range(len(constants))]
        for each, value in zip(names, constants, strict=True):
            array = np.asarray(value)
            typed = array.astype(np.float32) if array.dtype.kind == "f" else array.astype(np.int64)
            graph.initializer.append(numpy_helper.from_array(typed, each))
        node = helper.make_node(operator, [last, *names], [f"step_{number}"], name and f"{name}{number}", **attributes)
        graph.node.insert(number, node)
        last = node.output[0]
    graph.node[len(steps)].input[0] = last
    return made


BATCH_NORMALISATION = step("BatchNormalization", np.ones(3), np.zeros(3), np.full(3, 120.0), np.full(3, 4096.0))
LEARNED = step("BatchNormalization", np.full(3, 1.2), np.full(3, 0.1), np.full(3, -0.1), np.full(3, 0.3))
TO_LAST, TO_FIRST = step("Transpose", perm=[0, 2, 3, 1]), step("Transpose", perm=[0, 3, 1, 2])
REVERSED = step("Gather", np.array([2, 1, 0]), axis=1)
EYE = np.eye(3, dtype=np.float32).reshape(3, 3, 1, 1) / 127.5
MIRROR = np.ascontiguousarray(EYE[::-1]) * 127.5
TORCH = step("Sub", 127.5), step("Div", 127.5)
SLICED = step("Slice", np.array([-1]), np.array([-(2**62)]), np.array([1]), np.array([-1]))


@pytest.mark.parametrize(
    ("steps", "feed", "order"),
    [
        pytest.param([], SIGNED, RGB, id="nothing"),
        pytest.param([step("Sub", 127.5), step("Div", 127.5)], PIXELS, RGB, id="torch: Sub, Div"),
        pytest.param([step("Sub", 127.5), step("Mul", 0.0078125)], PIXELS, RGB, id="MXNet: Sub, Mul"),
        pytest.param([step("Mul", 1 / 127.5), step("Add", -1.0)], PIXELS, RGB, id="Mul, Add"),
        pytest.param([step("Div", 255.0)], PIXELS, RGB, id="0 to 255 becomes 0 to 1"),
        pytest.param([step("Mul", 2.0), step("Sub", 1.0)], UNIT, RGB, id="0 to 1 becomes -1 to 1"),
        pytest.param([step("Sub", 0.5)], UNIT, RGB, id="0 to 1 becomes -0.5 to 0.5"),
        pytest.param([step("Add", -0.5)], UNIT, RGB, id="the same by Add"),
        pytest.param([step("Sub", planes([0.485, 0.456, 0.406]))], UNIT, RGB, id="ImageNet's means alone"),
        pytest.param([step("Sub", planes(IMAGENET[0])), step("Div", planes(IMAGENET[1]))], UNIT, RGB, id="ImageNet's"),
        pytest.param(
            [step("Div", 255.0), step("Sub", planes(IMAGENET[0])), step("Div", planes(IMAGENET[1]))],
            PIXELS,
            RGB,
            id="ImageNet's, from pixels",
        ),
        pytest.param([BATCH_NORMALISATION], PIXELS, RGB, id="BatchNormalization of pixels"),
        pytest.param([LEARNED], SIGNED, RGB, id="BatchNormalization of -1 to 1"),
        pytest.param(
            [step("Cast", to=TensorProto.FLOAT), step("Identity"), step("Sub", 127.5), step("Div", 128.0)],
            PIXELS,
            RGB,
            id="Cast and Identity before",
        ),
        pytest.param(
            [TO_LAST, step("Sub", np.full(3, 127.5)), step("Div", 127.5), TO_FIRST],
            PIXELS,
            RGB,
            id="planes last meanwhile",
        ),
        pytest.param([REVERSED], SIGNED, BGR, id="Gather reverses"),
        pytest.param([SLICED], SIGNED, BGR, id="Slice reverses"),
        pytest.param([TO_LAST, step("Gather", np.array([2, 1, 0]), axis=3), TO_FIRST], SIGNED, BGR, id="last reverses"),
        pytest.param([REVERSED, SLICED], SIGNED, RGB, id="reversed twice"),
        pytest.param([step("Sub", 127.5), REVERSED, step("Div", 127.5)], PIXELS, BGR, id="both"),
        pytest.param([step("Conv", MIRROR)], SIGNED, BGR, id="a 1x1 Conv reverses"),
        pytest.param([TO_LAST, step("MatMul", MIRROR[:, :, 0, 0]), TO_FIRST], SIGNED, BGR, id="a product reverses"),
        pytest.param([step("Conv", EYE, np.full(3, -1.0))], PIXELS, RGB, id="a 1x1 Conv normalises"),
        pytest.param([step("Pow", 1.0), step("Mul", 2.0), step("Sub", 1.0)], UNIT, RGB, id="Pow before"),
        pytest.param([step("Clip", np.float32(0), np.float32(255)), *TORCH], PIXELS, RGB, id="Clip before"),
        pytest.param([step("Pad", np.zeros(8, np.int64)), *TORCH], PIXELS, RGB, id="Pad before"),
        pytest.param([step("Reshape", np.array([-1, 3, 112, 112])), *TORCH], PIXELS, RGB, id="Reshape before"),
    ],
)
@pytest.mark.parametrize("name", ["", "/Sub", "anything"])
def test_feed_follows_from_operations_and_constants(
    steps: list[Step], feed: tuple[float, float], order: ChannelOrder, name: str
) -> None:
    file, _ = inspect(model(*steps, name=name).SerializeToString(), "own.onnx")
    assert ((file.input.mean, file.input.std), file.input.channel_order) == (feed, order)


def test_names_alone_mean_nothing() -> None:
    """InsightFace takes a graph whose nodes have these names for one that normalises."""
    file, _ = inspect(model(step("Identity"), step("Cast", to=1), name="_minus_mul").SerializeToString(), "own.onnx")
    assert (file.input.mean, file.input.std) == SIGNED


def test_constants_may_be_made_by_nodes() -> None:
    made = model(step("Sub", 127.5), step("Mul", 1.0))
    graph = made.graph
    value = numpy_helper.from_array(np.array([127.5, 127.5, 127.5], np.float32))
    graph.node.insert(0, helper.make_node("Constant", [], ["values"], value=value))
    graph.initializer.append(numpy_helper.from_array(np.array([0, 2, 3], np.int64), "axes"))
    graph.node.insert(1, helper.make_node("Unsqueeze", ["values", "axes"], ["by_plane"]))
    graph.node.insert(2, helper.make_node("Reciprocal", ["by_plane"], ["factors"]))
    graph.node[3].input[1], graph.node[4].input[1] = "by_plane", "factors"
    file, (_, sentence, _) = inspect(made.SerializeToString(), "own.onnx")
    assert (file.input.mean, file.input.std) == PIXELS
    assert sentence == (
        "own.onnx is fed (pixel - 0) / 1, because its first nodes make numbers between -0.945 and 0.796 of that."
    )


@pytest.mark.parametrize("last", [step("Relu"), step("Conv", np.ones((3, 3, 3, 3)), pads=[1, 1, 1, 1])])
def test_it_stops_where_a_node_does_something_else(last: Step) -> None:
    first = first_nodes(model(step("Div", 255.0), last, step("Mul", 255.0)), "input", 112, 112)
    np.testing.assert_allclose(first(np.full((3, 112, 112), 51)), 0.2)


def test_it_stops_before_an_operation_that_cannot_be_run() -> None:
    made = model(step("Div", 255.0), step("Mul", 255.0))
    made.graph.node[1].domain = "somebody's"
    np.testing.assert_allclose(first_nodes(made, "input", 112, 112)(np.full((3, 112, 112), 51)), 0.2)


def test_a_number_minus_the_input_turns_its_sign() -> None:
    made = model(step("Sub", 255.0), step("Div", 255.0))
    node = made.graph.node[0]
    node.input[0], node.input[1] = node.input[1], node.input[0]
    np.testing.assert_allclose(first_nodes(made, "input", 112, 112)(np.full((3, 112, 112), 51)), 0.8)


@pytest.mark.parametrize(
    ("means", "steps", "order"),
    [
        ([123.7, 116.8, 103.9], [], RGB),
        ([103.9, 116.8, 123.7], [], BGR),
        ([103.9, 116.8, 123.7], [REVERSED], RGB),
        ([123.7, 116.8, 103.9], [REVERSED], BGR),
        ([120.0, 121.0, 122.0], [], RGB),
    ],
)
def test_means_of_the_colours_show_their_order(means: list[float], steps: list[Step], order: ChannelOrder) -> None:
    """Faces are redder than they are blue."""
    file, _ = inspect(model(*steps, step("Sub", planes(means)), step("Div", 64.0)).SerializeToString(), "own.onnx")
    assert (file.input.mean, file.input.std, file.input.channel_order) == (*PIXELS, order)


@pytest.mark.parametrize("side", [2000, 2**40])
def test_input_of_a_size_that_no_crop_has_is_refused(side: int) -> None:
    """Measuring it would take all memory."""
    huge = model()
    for dim in huge.graph.input[0].type.tensor_type.shape.dim[2:]:
        dim.dim_value = side
    with pytest.raises(GraphUnfit, match="a face crop has at most 1024 on a side"):
        inspect(huge.SerializeToString(), "own.onnx")


def test_damaged_file_is_refused() -> None:
    with pytest.raises(GraphUnfit, match=r"own\.onnx cannot be read as an ONNX model"):
        inspect(b"\x08\x07broken", "own.onnx")


def test_a_number_of_a_kind_that_does_not_exist_is_refused() -> None:
    made = model(step("Dropout", 0.5, np.array([True])))
    made.graph.initializer[-1].data_type = 65_537
    with pytest.raises(GraphUnfit, match=r"own\.onnx cannot be read as an ONNX model"):
        inspect(made.SerializeToString(), "own.onnx")


def test_a_name_that_is_no_text_is_refused() -> None:
    content = model(step("Sub", 127.5)).SerializeToString().replace(b"\x22\x03Sub", b"\x22\x03\xff\xfe\xfd")
    with pytest.raises(GraphUnfit, match=r"own\.onnx cannot be read as an ONNX model"):
        inspect(content, "own.onnx")


@pytest.mark.parametrize("inputs", [["output"], []])
def test_nodes_in_a_circle_or_without_an_input_are_no_hang(inputs: list[str]) -> None:
    made = model()
    made.graph.node.append(helper.make_node("Identity", inputs, ["output"]))
    assert inspect(made.SerializeToString(), "own.onnx")[0].output_dim == 512


@pytest.mark.parametrize(
    "steps",
    [
        [step("Expand", np.array([700, 3, 112, 112]))],
        [step("Pad", np.array([0, 0, 2000, 2000, 0, 0, 2000, 2000]))],
        [step("Concat", np.zeros((1, 3, 112, 112)), axis=0)] * 30,
    ],
)
def test_first_nodes_that_make_far_more_than_a_picture_are_not_run(steps: list[Step]) -> None:
    """They could ask for terabytes."""
    made = model(*steps)
    for number, node in enumerate(made.graph.node):
        if node.op_type == "Concat":
            node.input[1] = node.input[0]  # twice as much each time
            node.output[0] = f"step_{number}"
    assert first_nodes(made, "input", 112, 112)(np.zeros((3, 112, 112))).size <= 16_000_000


def test_constants_of_a_loop_are_not_computed() -> None:
    """It could go on for ever."""
    made = model(step("Sub", 100.0))
    body = helper.make_graph(
        [helper.make_node("Identity", ["on"], ["on_out"]), helper.make_node("Identity", ["x"], ["x_out"])],
        "body",
        [
            helper.make_tensor_value_info("number", TensorProto.INT64, []),
            helper.make_tensor_value_info("on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("x", TensorProto.FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("on_out", TensorProto.BOOL, []),
            helper.make_tensor_value_info("x_out", TensorProto.FLOAT, None),
        ],
    )
    times, goes_on = np.array(2, np.int64), np.array(True)
    made.graph.initializer.extend([numpy_helper.from_array(times, "times"), numpy_helper.from_array(goes_on, "on")])
    made.graph.node.insert(
        0, helper.make_node("Loop", ["times", "on", made.graph.node[0].input[1]], ["mean"], body=body)
    )
    made.graph.node[1].input[1] = "mean"
    np.testing.assert_array_equal(first_nodes(made, "input", 112, 112)(np.full((3, 112, 112), 50.0)), 50)


def test_real_recogniser_is_fed_as_its_graph_needs(real_recogniser: Path) -> None:
    """With `(pixel - 127.5) / 127.5` in its first nodes, under names as torch writes them."""
    inside = onnx.load(real_recogniser)
    graph = inside.graph
    given = graph.input[0].name
    del graph.input[:]
    graph.input.append(helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["n", 3, 112, 112]))
    graph.initializer.append(numpy_helper.from_array(np.array(127.5, np.float32), "range"))
    graph.node.insert(0, helper.make_node("Sub", ["pixels", "range"], ["shifted"], "/Sub"))
    graph.node.insert(1, helper.make_node("Div", ["shifted", "range"], [given], "/Div"))
    plain, _ = inspect(real_recogniser.read_bytes(), "plain.onnx")
    fed_inside, _ = inspect(inside.SerializeToString(), "inside.onnx")
    assert [(file.input.mean, file.input.std) for file in (plain, fed_inside)] == [SIGNED, PIXELS]
