"""Recognisers of unusual shapes have the embeddings of the usual one, or are refused with the reason."""

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, external_data_helper, helper, numpy_helper, version_converter

from arcface_api.arrays import InputSpec, to_tensor
from arcface_api.embedder import Embedder
from arcface_api.embedder.models import Recogniser
from arcface_api.errors import GraphUnfit, ModelFailed
from arcface_api.loading import open_embedder
from arcface_api.packs import PackLocations, Role, locate
from arcface_api.session.self_test import probe_crops
from arcface_api.settings import Settings
from conftest import REAL_RECOGNISERS, FaceCrop
from serving import Service
from tiny_models import linear_model

pytestmark = pytest.mark.once  # ONNX Runtime decides

Change = Callable[[onnx.ModelProto], None]
Step = tuple[str, list[Any], dict[str, Any]]
NAME = 'serving "input":0'
FLOAT = TensorProto.FLOAT
IMAGE: list[int | str] = ["n", 3, 112, 112]


Load = Callable[[onnx.ModelProto], Recogniser]
ONE_RECOGNISER = pytest.mark.parametrize("real_recogniser", REAL_RECOGNISERS[-1:], indirect=True)
"""The fastest."""


@pytest.fixture
def load(tmp_path: Path) -> Iterator[Load]:
    """Load a model as a start does."""
    opened: list[Embedder] = []

    def load(model: onnx.ModelProto) -> Recogniser:
        path = tmp_path / f"own{len(opened)}.onnx"
        path.write_bytes(model.SerializeToString())
        pack = locate(path, PackLocations(None, tmp_path / "cache", tmp_path / "insightface"))
        settings = Settings(pack=str(path), device="cpu", lanes=1, max_batch=2, cache_dir=tmp_path / "compiled")
        opened.append(open_embedder(pack, {Role.RECOGNISER: pack.read(Role.RECOGNISER)}, settings))
        return opened[-1].recogniser

    yield load
    for embedder in opened:
        asyncio.run(embedder.close())


def shaped(value: onnx.ValueInfoProto, kind: int, *dims: int | str) -> None:
    value.CopyFrom(helper.make_tensor_value_info(value.name, kind, dims))


def ends_with(graph: onnx.GraphProto, operator: str, *constants: Any, **attributes: Any) -> None:
    """Another node before the output."""
    (output,) = graph.output
    last = next(node for node in graph.node if output.name in node.output)
    last.output[0] = before = f"last_{len(graph.node)}"
    names = [f"{before}_{number}" for number in range(len(constants))]
    graph.initializer.extend(numpy_helper.from_array(np.array(v), n) for n, v in zip(names, constants, strict=True))
    graph.node.append(helper.make_node(operator, [before, *names], [output.name], **attributes))


def begins_with(graph: onnx.GraphProto, kind: int, dims: list[int | str], *steps: Step) -> None:
    """Other nodes behind a new input, each with constants."""
    (given,) = (value.name for value in graph.input)
    last = NAME
    for number, (operator, constants, attributes) in enumerate(steps):
        names = [f"first_{number}_{place}" for place in range(len(constants))]
        graph.initializer.extend(numpy_helper.from_array(np.array(v), n) for n, v in zip(names, constants, strict=True))
        made = given if number == len(steps) - 1 else f"first_{number}"
        graph.node.insert(number, helper.make_node(operator, [last, *names], [made], **attributes))
        last = made
    del graph.input[:]
    graph.input.append(helper.make_tensor_value_info(NAME, kind, dims))


def fixed_batch(model: onnx.ModelProto) -> None:
    shaped(model.graph.input[0], TensorProto.FLOAT, 1, 3, 112, 112)
    shaped(model.graph.output[0], TensorProto.FLOAT, 1, 512)


def one_row_inside(model: onnx.ModelProto) -> None:
    ends_with(model.graph, "Reshape", [1, -1])
    shaped(model.graph.output[0], TensorProto.FLOAT, 1, 512)


def four_dimensions(model: onnx.ModelProto) -> None:
    ends_with(model.graph, "Reshape", [-1, 512, 1, 1])
    shaped(model.graph.output[0], TensorProto.FLOAT, "n", 512, 1, 1)


def planes_last(model: onnx.ModelProto) -> None:
    begins_with(model.graph, TensorProto.FLOAT, ["n", 112, 112, 3], ("Transpose", [], {"perm": [0, 3, 1, 2]}))


def half(model: onnx.ModelProto) -> None:
    begins_with(model.graph, TensorProto.FLOAT16, IMAGE, ("Cast", [], {"to": FLOAT}))
    ends_with(model.graph, "Cast", to=TensorProto.FLOAT16)
    shaped(model.graph.output[0], TensorProto.FLOAT16, "n", 512)


def free_sizes(model: onnx.ModelProto) -> None:
    shaped(model.graph.input[0], TensorProto.FLOAT, "n", 3, "height", "width")
    shaped(model.graph.output[0], TensorProto.FLOAT, "n", "dim")


@pytest.mark.parametrize(
    ("change", "assumed", "sizes"),
    [
        (fixed_batch, "states a batch of 1: it is run with others, too", [1, 2, 4, 8]),
        (one_row_inside, "", [1]),
        (four_dimensions, "returns rows of the shape nx512x1x1: they are made flat", [1, 2, 4, 8]),
        (planes_last, "takes its colour planes last: they are moved there", [1, 2, 4, 8]),
        (free_sizes, "leaves the size of its input free: 112x112 pixels are assumed", [1, 2, 4, 8]),
        (half, "takes float16: it is given float32 rounded to that", [1, 2, 4, 8]),
    ],
)
def test_it_has_the_embeddings_of_the_usual_model(
    change: Change,
    assumed: str,
    sizes: list[int],
    run_service: Callable[..., Service],
    real_recogniser: Path,
    face_crops: list[FaceCrop],
    tmp_path: Path,
) -> None:
    model = onnx.load(real_recogniser)
    change(model)
    onnx.save(model, tmp_path / "own.onnx")
    usual, own = run_service(real_recogniser), run_service(tmp_path / "own.onnx")
    pictures = [("files", (face.name, face.content)) for face in face_crops[:16]]
    rows = [
        np.array([result["embedding"] for result in service.post("/embed/batch", files=pictures).json()["results"]])
        for service in (usual, own)
    ]
    assert (rows[0] * rows[1]).sum(axis=1).min() > 0.9999
    info = own.get("/info").json()
    assert info["batch_sizes"] == sizes
    assert any(assumed in sentence for sentence in info["assumptions"])
    if sizes == [1]:
        assert "pictures run one by one, because more of them at once fail" in info["reason"]


# ── more kinds, without HTTP ───────────────────────────────────────────────────────────────────────────────────────


def step(operator: str, *constants: Any, **attributes: Any) -> Step:
    return operator, [v if isinstance(v, np.ndarray) else np.float32(v) for v in constants], attributes


def fed(*steps: Step, kind: int = FLOAT, dims: Any = IMAGE) -> Change:
    """A model that does something to its pictures first."""
    return lambda model: begins_with(model.graph, kind, dims, *steps)


def returned(operator: str, *constants: Any, dims: Any = ("n", 512), kind: int = FLOAT, **attributes: Any) -> Change:
    """A model that does something to its embeddings last."""

    def change(model: onnx.ModelProto) -> None:
        ends_with(model.graph, operator, *constants, **attributes)
        shaped(model.graph.output[0], kind, *dims)

    return change


def split_planes(model: onnx.ModelProto) -> None:
    """Blue, green and red, each by itself, are put into the other order."""
    fed(step("Identity"))(model)
    model.graph.node[0].CopyFrom(helper.make_node("Split", [NAME], ["blue", "green", "red"], axis=1))
    (given,) = {name for node in model.graph.node[1:2] for name in node.input if name.startswith("input")} or {"input"}
    model.graph.node.insert(1, helper.make_node("Concat", ["red", "green", "blue"], [given], axis=1))


def with_norm(model: onnx.ModelProto) -> None:
    """AdaFace returns an embedding of length 1, and the length that it had."""
    graph = model.graph
    (output,) = graph.output
    graph.node.append(helper.make_node("LpNormalization", [output.name], ["feature"], axis=1, p=2))
    graph.node.append(helper.make_node("ReduceL2", [output.name], ["norm"], axes=[1], keepdims=1))
    del graph.output[:]
    for name, dim in (("feature", 512), ("norm", 1)):
        graph.output.append(helper.make_tensor_value_info(name, FLOAT, ["n", dim]))


def without_shape(model: onnx.ModelProto) -> None:
    model.graph.output[0].type.tensor_type.ClearField("shape")


def free_planes(model: onnx.ModelProto) -> None:
    shaped(model.graph.input[0], FLOAT, "n", "c", "h", "w")


def batch_of(size: int) -> Change:
    return lambda model: shaped(model.graph.input[0], FLOAT, size, 3, 112, 112)


def quantised_first(model: onnx.ModelProto) -> None:
    fed(step("QuantizeLinear", 1 / 127, np.array(0, np.int8)), step("DequantizeLinear", 1 / 127))(model)


def newest(model: onnx.ModelProto) -> None:
    model.CopyFrom(version_converter.convert_version(model, 21))


TO_PIXELS = step("Sub", 127.5), step("Div", 127.5)
BY_PLANE = np.array([0.229, 0.224, 0.225], np.float32).reshape(3, 1, 1)
MEANS = np.array([0.485, 0.456, 0.406], np.float32).reshape(3, 1, 1)
MIRROR = np.eye(3, dtype=np.float32)[::-1].reshape(3, 3, 1, 1).copy()
FLAT = np.array([1 / 127.5] * 3, np.float32)
NORMALISE = step("BatchNormalization", FLAT, -np.ones(3, np.float32), np.zeros(3, np.float32), np.ones(3, np.float32))
CAST = step("Cast", to=FLOAT)
SIGNED, UNIT, PIXELS = (127.5, 127.5, "rgb"), (0, 255, "rgb"), (0, 1, "rgb")
SIGNED_BGR, PIXELS_BGR = (127.5, 127.5, "bgr"), (0, 1, "bgr")


@pytest.mark.parametrize(
    ("change", "feed"),
    [
        pytest.param(fed(NORMALISE), PIXELS, id="BatchNormalization first"),
        pytest.param(fed(step("Mul", 1 / 127.5), step("Add", -1)), PIXELS, id="Mul, Add"),
        pytest.param(fed(step("Div", 255), step("Sub", 0.5), step("Div", 0.5)), PIXELS, id="three steps"),
        pytest.param(fed(CAST, *TO_PIXELS, kind=TensorProto.UINT8), PIXELS, id="uint8"),
        pytest.param(fed(CAST, *TO_PIXELS, kind=TensorProto.INT64), PIXELS, id="int64"),
        pytest.param(fed(CAST, kind=TensorProto.DOUBLE), SIGNED, id="double"),
        pytest.param(
            fed(
                CAST, step("Transpose", perm=[0, 3, 1, 2]), *TO_PIXELS, kind=TensorProto.UINT8, dims=["n", 112, 112, 3]
            ),
            PIXELS,
            id="uint8, planes last",
        ),
        pytest.param(fed(step("Gather", np.array([2, 1, 0]), axis=1), *TO_PIXELS), PIXELS_BGR, id="BGR inside"),
        pytest.param(fed(step("Conv", MIRROR)), SIGNED_BGR, id="BGR by a 1x1 Conv"),
        pytest.param(split_planes, SIGNED_BGR, id="BGR by Split and Concat"),
        pytest.param(
            fed(
                step("Sub", MEANS),
                step("Div", BY_PLANE),
                step("Mul", 2 * BY_PLANE),
                step("Add", 2 * MEANS - np.float32(1)),
            ),
            UNIT,
            id="ImageNet's means",
        ),
        pytest.param(fed(step("Pow", 1), step("Mul", 2), step("Sub", 1)), UNIT, id="0 to 1"),
        pytest.param(fed(step("Clip", 0, 255), *TO_PIXELS), PIXELS, id="Clip"),
        pytest.param(fed(step("Reshape", np.array([-1, 3, 112, 112])), *TO_PIXELS), PIXELS, id="Reshape"),
        pytest.param(fed(step("Identity")), SIGNED, id="a strange name"),
        pytest.param(quantised_first, SIGNED, id="QDQ"),
        pytest.param(newest, SIGNED, id="opset 21"),
        pytest.param(batch_of(4), SIGNED, id="a batch of 4"),
        pytest.param(batch_of(0), SIGNED, id="a batch of 0"),
        pytest.param(free_planes, SIGNED, id="free planes"),
        pytest.param(without_shape, SIGNED, id="an output without shape"),
        pytest.param(with_norm, SIGNED, id="AdaFace's two outputs"),
        pytest.param(returned("LpNormalization", axis=1, p=2), SIGNED, id="normalised"),
        pytest.param(returned("Dropout"), SIGNED, id="Dropout"),
        pytest.param(returned("Cast", to=TensorProto.DOUBLE, kind=TensorProto.DOUBLE), SIGNED, id="returns double"),
        pytest.param(returned("Unsqueeze", np.array([0]), dims=(1, "n", 512)), SIGNED, id="(1, n, 512)"),
        pytest.param(returned("Reshape", np.array([-1]), dims=(512,)), SIGNED, id="(512)"),
    ],
)
@ONE_RECOGNISER
def test_it_computes_what_the_usual_model_does(
    change: Change, feed: tuple[float, float, str], real_recogniser: Path, load: Load
) -> None:
    model = onnx.load(real_recogniser)
    given = model.graph.input[0].name
    crops = probe_crops(112, 112)
    tensor = to_tensor(crops, InputSpec(given, 112, 112, 127.5, 127.5))
    (usual,) = onnxruntime.InferenceSession(real_recogniser).run(None, {given: tensor})
    change(model)
    own = load(model)
    assert (own.spec.mean, own.spec.std, own.spec.channel_order) == feed
    rows = np.concatenate([own.session.run([crop]) for crop in crops])
    cosines = (rows * usual).sum(axis=1) / np.linalg.norm(rows, axis=1) / np.linalg.norm(usual, axis=1)
    assert cosines.min() > 0.999
    assert own.doubt is None


def all_weights(value: float) -> Change:
    def change(model: onnx.ModelProto) -> None:
        for tensor in model.graph.initializer:
            if tensor.data_type == FLOAT:
                tensor.CopyFrom(numpy_helper.from_array(np.full(tensor.dims, value, np.float32), tensor.name))

    return change


def two_inputs(model: onnx.ModelProto) -> None:
    model.graph.input.append(helper.make_tensor_value_info("is_training", TensorProto.BOOL, []))


def sequence(model: onnx.ModelProto) -> None:
    graph = model.graph
    graph.node.append(helper.make_node("SequenceConstruct", [graph.output[0].name], ["rows"]))
    del graph.output[:]
    graph.output.append(helper.make_tensor_sequence_value_info("rows", FLOAT, None))


def second_file(model: onnx.ModelProto) -> None:
    tensor = max(model.graph.initializer, key=lambda each: len(each.raw_data))
    external_data_helper.set_external_data(tensor, "weights.bin")
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL


def probabilities(model: onnx.ModelProto) -> None:
    returned("Softmax", axis=1)(model)
    ends_with(model.graph, "Identity")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (returned("Dropout", np.float32(0.4), np.array(True)), r"exported in training mode"),
        (returned("RandomUniformLike"), r"different features for one picture, alone and in a batch, or twice"),
        (two_inputs, r"has 2 inputs and 1 output"),
        (fed(step("Concat"), dims=["n", 1, 112, 112]), r"has the input .*, float \(n, 1, 112, 112\)"),
        (sequence, r"has the output 'rows'"),
        (second_file, r"keeps its weights in a second file"),
        (probabilities, r"ends with Softmax: it classifies, and returns 512 probabilities"),
        (returned("Reshape", np.array([-1, 4]), dims=("k", 4)), r"returns rows of 4 numbers"),
        (returned("Reshape", np.array([4, 512]), dims=(4, 512)), r"failed on a batch of 1: .*Reshape"),
        (all_weights(0), r"not finite, or zero"),
        (all_weights(float("nan")), r"not finite, or zero"),
    ],
)
@ONE_RECOGNISER
def test_what_cannot_be_served_is_refused_with_the_reason(
    change: Change, said: str, real_recogniser: Path, load: Load
) -> None:
    model = onnx.load(real_recogniser)
    change(model)
    with pytest.raises((GraphUnfit, ModelFailed), match=said):
        load(model)


def weights_for_pixels(model: onnx.ModelProto) -> None:
    """Its first layer takes the pixels minus 127.5, which no graph shows."""
    convolution = next(node for node in model.graph.node if node.op_type == "Conv")
    tensor = next(each for each in model.graph.initializer if each.name == convolution.input[1])
    tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) / np.float32(127.5), tensor.name))


def landmarks(model: onnx.ModelProto) -> None:
    """68 points lie nearly in the same places on every face."""
    random = np.random.default_rng(0)
    returned("MatMul", random.normal(0, 0.01, (512, 136)).astype(np.float32), dims=("n", 136))(model)
    ends_with(model.graph, "Add", random.uniform(0, 1, 136).astype(np.float32))


@pytest.mark.parametrize("change", [weights_for_pixels, landmarks])
@ONE_RECOGNISER
def test_what_does_not_distinguish_faces_is_doubted(change: Change, real_recogniser: Path, load: Load) -> None:
    model = onnx.load(real_recogniser)
    change(model)
    doubt = load(model).doubt
    assert doubt is not None
    assert doubt.startswith("The recogniser hardly distinguishes faces")


@ONE_RECOGNISER
def test_a_model_whose_rows_depend_on_the_batch_runs_pictures_one_by_one(real_recogniser: Path, load: Load) -> None:
    """As one does that is quantised dynamically: by the largest number of a batch."""
    model = onnx.load(real_recogniser)
    returned("Identity")(model)
    graph = model.graph
    last = graph.node.pop()
    row, embedding = last.input[0], last.output[0]
    graph.node.append(helper.make_node("ReduceMax", [row], ["largest"], axes=[0], keepdims=1))
    graph.node.append(helper.make_node("Add", [row, "largest"], [embedding]))
    loaded = load(model)
    assert loaded.session.batch_sizes == (1,)
    assert "different features for one picture, alone and in a batch" in str(loaded.reason)


def test_a_model_in_training_mode_is_refused(run_service: Callable[..., Service], tmp_path: Path) -> None:
    model = linear_model(112, 512)
    graph = model.graph
    for name, value in (("gamma", 1.0), ("beta", 0.0), ("mean", 0.0), ("variance", 1.0)):
        graph.initializer.append(numpy_helper.from_array(np.full(3, value, np.float32), name))
    normalise = helper.make_node(
        "BatchNormalization",
        ["input", "gamma", "beta", "mean", "variance"],
        ["normal", "running_mean", "running_variance"],
        training_mode=1,
    )
    graph.node.insert(0, normalise)
    graph.node[1].input[0] = "normal"
    onnx.save(model, tmp_path / "own.onnx")
    with pytest.raises(GraphUnfit, match=r"own\.onnx was exported in training mode: .* `model\.eval\(\)`"):
        run_service(tmp_path / "own.onnx")


def test_another_input_size_is_taken_from_the_graph(
    run_service: Callable[..., Service], face_crops: list[FaceCrop], tmp_path: Path
) -> None:
    onnx.save(linear_model(160, 128), tmp_path / "own.onnx")
    service = run_service(tmp_path / "own.onnx")
    answer = service.post("/embed", files={"file": face_crops[0].content}).json()
    assert (answer["input_size"], len(answer["embedding"])) == ("160x160", 128)
