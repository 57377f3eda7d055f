"""Manifests as TOML: `packs.toml` with the registered packs, and the `pack.toml` inside an imported one."""

import re
import tomllib
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path, PurePosixPath
from typing import Any

import tomli_w
from pydantic import TypeAdapter, ValidationError

from arcface_api.errors import PackManifestInvalid
from arcface_api.packs.manifest import Manifest, ModelFile, Role

PACK_TOML = "pack.toml"
NAME_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")

_HEADER = """\
# Written by `arcface-api packs import`. It states how each file of this pack is fed, and what had to be assumed.
# Correct what is wrong: the values here are used as they stand.

"""
_ADAPTER = TypeAdapter(Manifest)


def read_registry(text: str) -> dict[str, Manifest]:
    """The manifests of a `packs.toml`, by name.

    Raises:
        PackManifestInvalid: A table is malformed.
    """
    document = tomllib.loads(text)
    licences = document["licences"]
    return {
        name: _manifest({"name": name, **table, "licence": licences[table["licence"]]}, f"packs.toml, {name}")
        for name, table in document["packs"].items()
    }


def read_pack_toml(path: Path) -> Manifest:
    """The manifest in a `pack.toml`.

    Raises:
        PackManifestInvalid: It cannot be read or understood.
    """
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise PackManifestInvalid(
            f"{path} cannot be read: {error}. Correct it, or import the pack again with `arcface-api packs import"
            " FILES`."
        ) from error
    return _manifest(document, str(path))


def write_pack_toml(manifest: Manifest, path: Path) -> None:
    """Write a manifest with all it states and assumes; what is unknown is left out."""
    path.write_text(_HEADER + tomli_w.dumps(_without_none(asdict(manifest)), multiline_strings=True), encoding="utf-8")


def _manifest(document: Mapping[str, Any], where: str) -> Manifest:
    try:
        manifest = _ADAPTER.validate_python(_with_input_names(document))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(step) for step in first["loc"])
        raise PackManifestInvalid(f"{where}: {place}: {first['msg']}. Correct that line.") from error
    wrong = _first_wrong(document, manifest)
    if wrong is not None:
        raise PackManifestInvalid(f"{where}: {wrong}. Correct that line.")
    return manifest


def _with_input_names(document: Mapping[str, Any]) -> Mapping[str, Any]:
    """An input without a name is the graph's only one; in `InputSpec` that has to be said."""
    files = document.get("files")
    if not isinstance(files, list) or not all(
        isinstance(file, dict) and isinstance(file.get("input"), dict) for file in files
    ):
        return document
    return {**document, "files": [{**file, "input": {"name": None, **file["input"]}} for file in files]}


def _first_wrong(document: Mapping[str, Any], manifest: Manifest) -> str | None:
    """What types cannot say, as a sentence; None if all is well."""
    unknown = _unknown_key(document, asdict(manifest))
    if unknown is not None:
        return f"{unknown} is not a key of a manifest"
    if not NAME_PATTERN.fullmatch(manifest.name):
        return f"name must be letters, digits, '.', '_' and '-', not {manifest.name!r}"
    roles = [file.role for file in manifest.files]
    if Role.RECOGNISER not in roles:
        return f"no file has the role {Role.RECOGNISER.value!r}, and a pack needs one"
    if len(roles) != len(set(roles)):
        return "two files have the same role"
    for file in manifest.files:
        wrong = _wrong_in_file(file)
        if wrong is not None:
            return f"{file.name!r}: {wrong}"
    names = {file.name for file in manifest.files}
    stray = next((source.file for source in manifest.sources if source.file not in {None, *names}), None)
    return f"a source gives {stray!r}, which is no file of this pack" if stray is not None else None


def _wrong_in_file(file: ModelFile) -> str | None:
    if file.name != PurePosixPath(file.name).name or not NAME_PATTERN.fullmatch(file.name):
        return "a file's name must be a plain name without folders"
    if any(PurePosixPath(alias).is_absolute() or ".." in PurePosixPath(alias).parts for alias in file.aliases):
        return "an alias must stay inside the pack's folder"
    if file.sha256 is not None and not re.fullmatch("[0-9a-f]{64}", file.sha256):
        return "sha256 must be 64 lowercase hexadecimal digits"
    positive = {"size_bytes": file.size_bytes, "output_dim": file.output_dim, "input.std": file.input.std}
    positive |= {"input.height": file.input.height, "input.width": file.input.width}
    wrong = next((key for key, value in positive.items() if value is not None and not value > 0), None)
    return f"{wrong} must be greater than 0" if wrong is not None else None


def _unknown_key(given: Any, understood: Any, place: str = "") -> str | None:
    """The first key that was given and has no field: a misspelt one would otherwise be a silent default."""
    if isinstance(given, Mapping):
        for key, value in given.items():
            if key not in understood:
                return f"{place}{key}"
            if (found := _unknown_key(value, understood[key], f"{place}{key}.")) is not None:
                return found
    elif isinstance(given, list):
        for item, field in zip(given, understood, strict=True):
            if (found := _unknown_key(item, field, place)) is not None:
                return found
    return None


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_none(item) for key, item in value.items() if item is not None}
    if isinstance(value, list | tuple):
        return [_without_none(item) for item in value]
    return value
