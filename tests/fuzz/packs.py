"""Targets: what `packs import` reads: archives, graphs and manifests. Damage knows zip, protobuf and TOML."""

import atexit
import io
import random
import shutil
import tempfile
import tomllib
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import tomli_w
from google.protobuf.message import DecodeError, Message  # type: ignore[import-untyped]  # no stubs, no inline types
from onnx import TensorProto, helper, numpy_helper
from packs.small_packs import AGE_GENDER, RECOGNISER, archive, model_bytes, odd_model, tiny_pack

from arcface_api.errors import GraphUnfit, PackError
from arcface_api.packs import PackLocations
from arcface_api.packs import archive as zips
from arcface_api.packs.adapt import adapted
from arcface_api.packs.graph import inspect
from arcface_api.packs.importing import import_pack
from arcface_api.packs.manifest import PACK_TOML, Manifest, read_pack_toml, registry, write_pack_toml
from fuzz.mutate import damaged_bytes
from fuzz.target import Target
from tiny_models import linear_model

_MEMORY = Path("/dev/shm")
_METHODS = zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA
_NAMES = "face.onnx", "a/b.onnx", "../x.onnx", "/x.onnx", "C:\\x.onnx", "a\0.onnx", "é.ONNX", ".x.onnx", "x/", "con.txt"
_NUMBERS = 0, 1, -1, 2, 3, 7, 64, 112, 127, 512, 1023, 1025, 65_537, 10**6, 2**31 - 1, -(2**31), 2**62, -(2**63)
_OPERATORS = (
    *("Add", "BatchNormalization", "Cast", "Clip", "Concat", "Constant", "ConstantOfShape", "Conv", "Div", "Dropout"),
    *("Expand", "Gather", "Identity", "If", "Loop", "MatMul", "Mul", "Pad", "Pow", "Range", "Reshape", "Shape"),
    *("Slice", "Softmax", "Split", "Squeeze", "Sub", "Tile", "Transpose", "Unsqueeze"),
)


@cache
def _folder() -> Path:
    """Where inputs that are files are put, in memory where that can be."""
    folder = Path(tempfile.mkdtemp(prefix="fuzz-packs-", dir=_MEMORY if _MEMORY.is_dir() else None))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def _is_chosen(content: bytes) -> bool:
    """One of ten: an import takes many times as long as reading what is imported."""
    return zlib.crc32(content) % 10 == 0


def _import(path: Path) -> str:
    places = _folder() / "places"
    try:
        pack = import_pack([path], PackLocations(None, places / "cache", places / "insightface"))
    except PackError as error:
        assert str(error)
        return type(error).__name__
    finally:
        left = [each.name for each in (places / "cache").glob(".*.tmp")]
        shutil.rmtree(places, ignore_errors=True)
    assert not left, left
    return f"{len(pack.paths)} models"


# ── archives ───────────────────────────────────────────────────────────────────────────────────────────────────────


def import_archive(content: bytes) -> str:
    """Unpack the models of a zip, and `import_pack` some of those from which they can be.

    Raises:
        AssertionError: It leaves an unfinished folder, or an error says nothing.
    """
    path = _folder() / "pack.zip"
    path.write_bytes(content)
    try:
        with zips.opened(path, "pack.zip") as opened:
            for member in zips.models(opened, "pack.zip"):
                zips.unpack(opened, member, _folder() / "model.onnx", "pack.zip")
    except PackError as error:
        assert str(error)
        return type(error).__name__
    return _import(path) if _is_chosen(content) else "unpacked"


def archive_seeds() -> Iterator[bytes]:
    """A pack in folders or none, by every method, beside files that are no models."""
    face = model_bytes(16, 64)
    for method in _METHODS:
        yield archive({"face.onnx": face}, method=method)
    yield archive({"pack/face.onnx": face, "pack/genderage.onnx": model_bytes(96, 3, inside=True), "LICENSE": b"text"})
    yield archive({"__MACOSX/._face.onnx": b"x", "a.ONNX": b"version https://git-lfs"})
    yield archive({"det.onnx": odd_model(("n", 3, "h", "w"), ("m", 1)), "pack.toml": b""})
    yield archive({})
    yield b"PK\x05\x06" + bytes(18)


def damage_archive(content: bytes, max_bytes: int, seed: int) -> bytes:
    """Other members, names, methods and contents in a whole archive, then at times its headers' bytes."""
    chance = random.Random(seed)
    members: list[tuple[str, bytes, int]] = []
    with suppress(Exception), zipfile.ZipFile(io.BytesIO(content)) as given:  # what cannot be read is left out
        members = [
            (each.filename, given.open(each).read(max_bytes), each.compress_type) for each in given.infolist()[:20]
        ]
    members = members or [("face.onnx", model_bytes(16, 64), zipfile.ZIP_STORED)]
    for _ in range(chance.choice((0, 1, 1, 2))):
        at = chance.randrange(len(members))
        name, data, method = members[at]
        how = chance.randrange(5)
        if how == 0:
            name = chance.choice(_NAMES)
        elif how == 1:
            method = chance.choice(_METHODS)
        elif how == 2:
            data = damage_graph(data, max_bytes, seed)
        elif how == 3:
            data = bytes(chance.choice((0, 1000, 10**6, 5 * 10**6)))
            method = chance.choice(_METHODS)
        else:
            members.append(members[at])
        members[at] = name, data, method
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as file:
        for name, data, method in members:
            info = zipfile.ZipInfo(name)
            info.compress_type = method
            with suppress(ValueError):  # a name that zipfile cannot write
                file.writestr(info, data)
    whole = made.getvalue()
    if chance.random() < 0.5:
        tail = min(len(whole), chance.choice((22, 100, 400)))  # the directory stands at the end
        whole = whole[:-tail] + damaged_bytes(chance, whole[-tail:], content)
    return whole[:max_bytes]


# ── graphs ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def inspect_graph(content: bytes) -> str:
    """`graph.inspect` of an ONNX file, and `adapted` where it fits.

    Raises:
        AssertionError: An error or an assumption says nothing.
    """
    try:
        file, assumptions = inspect(content, "face.onnx")
        adapted(content)
    except GraphUnfit as error:
        assert str(error)
        return "GraphUnfit"
    assert all(assumptions)
    return file.role


def graph_seeds() -> Iterator[bytes]:
    """Models of each role and shape, and with every kind of first node."""
    yield model_bytes(16, 64)
    yield model_bytes(16, 64, inside=True)
    yield model_bytes(96, 3, inside=True)
    yield odd_model((1, 112, 112, 3), (1, 512, 1, 1), kind=TensorProto.UINT8)
    yield odd_model(("n", 3, "h", "w"), ("n", "d"))
    yield odd_model(("n", 3, 112, 112), ("n", 64), ("n", 2))
    yield odd_model(("n", 3, 192, 192), ("n", 3309))
    shape = numpy_helper.from_array(np.array([1, 3, 16, 16]), "shape")
    mean = numpy_helper.from_array(np.array([[[[1.0]]]], "float32"), "mean")
    swap = numpy_helper.from_array(np.array([2, 1, 0]), "swap")
    for nodes in (
        [helper.make_node("Expand", ["mean", "shape"], ["m"]), helper.make_node("Sub", ["input", "m"], ["first"])],
        [helper.make_node("Gather", ["input", "swap"], ["g"], axis=1), helper.make_node("Neg", ["g"], ["first"])],
        [helper.make_node("Transpose", ["input"], ["first"], perm=[0, 2, 3, 1])],
        [helper.make_node("Concat", ["input", "input"], ["first"], axis=0)],
        [helper.make_node("ConstantOfShape", ["shape"], ["c"]), helper.make_node("Add", ["input", "c"], ["first"])],
    ):
        model = linear_model(16, 64, pool=8)
        model.graph.node[0].input[0] = "first"
        for number, node in enumerate(nodes):
            model.graph.node.insert(number, node)
        model.graph.initializer.extend([shape, mean, swap])
        yield model.SerializeToString()


def damage_graph(content: bytes, max_bytes: int, seed: int) -> bytes:
    """One to three other values, messages or names anywhere in a graph."""
    chance = random.Random(seed)
    model = onnx.ModelProto()
    try:
        model.ParseFromString(content)
    except DecodeError:
        model.ParseFromString(model_bytes(16, 64))
    names = [name for node in model.graph.node for name in (*node.input, *node.output)] + [*_OPERATORS]
    for _ in range(chance.choice((1, 1, 2, 3))):
        with suppress(ValueError, TypeError):  # a value that the field does not take
            _damage_message(chance, model, names)
    whole: bytes = model.SerializeToString()
    return whole[:max_bytes]


def _damage_message(chance: random.Random, message: Message, names: list[str]) -> None:
    fields = message.ListFields()
    if not fields or chance.random() < 0.05:
        fields = [(field, None) for field in message.DESCRIPTOR.fields]
    field, _ = chance.choice(fields)
    value = getattr(message, field.name)
    is_message, repeats = (
        field.message_type is not None,
        hasattr(value, "__len__") and not isinstance(value, str | bytes),
    )
    if is_message and repeats and len(value):
        at, how = chance.randrange(len(value)), chance.random()
        if how < 0.08:
            del value[at]
        elif how < 0.2:
            value.add().CopyFrom(value[at])
        else:
            _damage_message(chance, value[at], names)
    elif is_message and repeats:
        value.add()
    elif is_message:
        value.SetInParent()
        _damage_message(chance, value, names)
    elif repeats:
        if len(value) and chance.random() < 0.7:
            value[chance.randrange(len(value))] = _scalar(chance, field, value[0], names)
        else:
            value.extend([_scalar(chance, field, None, names)] * chance.choice((1, 1, 5)))
    else:
        setattr(message, field.name, _scalar(chance, field, value, names))


def _scalar(chance: random.Random, field: Any, value: Any, names: list[str]) -> Any:
    if field.cpp_type in (field.CPPTYPE_FLOAT, field.CPPTYPE_DOUBLE):
        return chance.choice((0.0, 1.0, -1.0, 1e30, 1e-30, float("nan"), float("inf")))
    if field.cpp_type == field.CPPTYPE_STRING:
        is_bytes = field.type == field.TYPE_BYTES
        return damaged_bytes(chance, value or b"", b"\xff" * 8) if is_bytes else chance.choice(names)
    if field.cpp_type == field.CPPTYPE_ENUM:
        return chance.choice(list(field.enum_type.values_by_number))
    if field.cpp_type == field.CPPTYPE_BOOL:
        return chance.random() < 0.5
    return chance.choice(_NUMBERS) if chance.random() < 0.7 else (value or 0) + chance.randint(-3, 3)


# ── manifests ──────────────────────────────────────────────────────────────────────────────────────────────────────


def read_manifest(content: bytes) -> str:
    """`read_pack_toml`; what it understands is written, read again and imported as a folder.

    Raises:
        AssertionError: A manifest is not what it was when it is read again, or an error says nothing.
    """
    folder = _folder() / "pack"
    if not folder.is_dir():
        folder.mkdir()
        (folder / RECOGNISER).write_bytes(model_bytes(16, 64))
        (folder / AGE_GENDER).write_bytes(model_bytes(96, 3, inside=True))
    path = folder / PACK_TOML
    path.write_bytes(content)
    try:
        manifest = read_pack_toml(path)
    except PackError as error:
        assert str(error)
        return "PackError"
    again = folder.with_name("again.toml")
    write_pack_toml(manifest, again)
    assert read_pack_toml(again) == manifest
    return _import(folder) if _is_chosen(content) else "understood"


def manifest_seeds() -> Iterator[bytes]:
    """Registered packs' manifests, and those of packs that are there."""
    for manifest in (*registry().values(), _present()):
        yield _written(manifest)
    yield b"a = " + b"[" * 3000
    yield b"a = " + b"9" * 5000
    yield b"[" + b"a." * 2000 + b"b]"


@cache
def _present() -> Manifest:
    return tiny_pack(pinned=False)


def _written(manifest: Manifest) -> bytes:
    path = _folder() / "written.toml"
    write_pack_toml(manifest, path)
    return path.read_bytes()


def damage_manifest(content: bytes, max_bytes: int, seed: int) -> bytes:
    """Other keys, values and tables in a document that is still TOML."""
    chance = random.Random(seed)
    try:
        document = tomllib.loads(content.decode())
    except (ValueError, RecursionError):
        document = tomllib.loads(_written(_present()).decode())
    for _ in range(chance.choice((1, 1, 2))):
        _damage_table(chance, document)
    with suppress(Exception):  # a value that TOML does not have
        return tomli_w.dumps(document).encode()[:max_bytes]
    return content


def _damage_table(chance: random.Random, table: Any) -> None:
    keys = list(table) if isinstance(table, dict) else list(range(len(table)))
    if not keys:
        return
    key = chance.choice(keys)
    if isinstance(table[key], dict | list) and chance.random() < 0.7:
        _damage_table(chance, table[key])
        return
    how = chance.randrange(4)
    if how == 0:
        del table[key]
    elif how == 1 and isinstance(table, dict):
        table[chance.choice((*keys, "x", "", "name", "é.", "files"))] = table[key]
    elif how == 1:
        table.append(table[key])
    else:
        table[key] = chance.choice(
            (True, 0, -1, 2**63, 0.5, float("nan"), "", "x", "../x", "a\0b", "é" * 99, [], {}, [[]], [1])
        )


TARGETS = {
    "archive": Target(import_archive, archive_seeds, damage_archive),
    "graph": Target(inspect_graph, graph_seeds, damage_graph, growth_mib=300),
    "manifest": Target(read_manifest, manifest_seeds, damage_manifest, max_bytes=8_000),
}
