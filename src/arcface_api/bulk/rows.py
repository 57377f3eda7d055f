"""The columns of the output, and how results become Arrow tables; docs/bulk.md's table is generated from `COLUMNS`."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from arcface_api.errors import ArcFaceError, EmbeddingInvalid

SCHEMA_VERSION = 1
"""Raised when a column changes its meaning or goes; new columns may come with the same version."""
METADATA_KEY = b"arcface_api"
"""Of the Parquet file's metadata, which holds a JSON object: `schema_version`, `rows`, `job`."""

DType = Literal["float32", "float16"]
_FLOAT16_END = 65_520
"""From here on, float16 rounds to infinity."""
Row = dict[str, Any]
"""A value for each column that the row has, by its name; `embedding` is (dim,) float32."""


OPTIONS = (
    "align",
    "fit",
    "resize",
    "flip",
    "normalize",
    "include_attributes",
    "include_quality",
    "include_landmarks",
    "include_crop",
)
"""Of the HTTP API, those that decide what is in a row."""
POSE = ("yaw", "pitch", "roll")
QUALITY = {"landmark_confidence": 4, "face_size_px": 1, "sharpness": 4, "brightness": 4, "contrast": 4}
"""Numbers of a picture's quality, and how many digits the HTTP API's answers have of each."""


@dataclass(frozen=True)
class Column:
    """One column of the output."""

    name: str
    type: pa.DataType
    meaning: str
    option: str | None = None
    """The option without which the column is left out."""

    @property
    def is_nullable(self) -> bool:
        """Whether rows with an error, or only they, have no value."""
        return self.name not in ("id", "model", "fingerprint")


_FLOAT, _TEXT = pa.float32(), pa.string()
COLUMNS = (
    Column(
        "id", _TEXT, "The picture: its path as the sources name it, `ARCHIVE/MEMBER`, `TABLE#ROW`, or the id column's"
    ),
    Column("embedding", pa.list_(pa.float32(), 1), "The embedding; null where there is an error"),
    Column("model", _TEXT, "The recogniser, equal in all rows"),
    Column("fingerprint", _TEXT, "Two embeddings may be compared only if it is equal; equal in all rows"),
    Column("recipe", _TEXT, "Two embeddings compare well only if it is equal"),
    Column("norm", _FLOAT, "Length of the raw embedding; with `--flip`, of the sum of two"),
    Column("alignment", _TEXT, "`none`, `auto`, `unsure` or `landmarks`"),
    Column("warnings", pa.list_(_TEXT), "Codes of what may be wrong with the picture; empty if nothing was found"),
    Column("age", pa.int32(), "In years", "include_attributes"),
    Column("gender", _TEXT, "`female` or `male`", "include_attributes"),
    Column("pose_yaw", _FLOAT, "Left-right, in degrees", "include_attributes"),
    Column("pose_pitch", _FLOAT, "Up-down, in degrees", "include_attributes"),
    Column("pose_roll", _FLOAT, "Tilt, in degrees", "include_attributes"),
    Column("landmark_confidence", _FLOAT, "0 to 1", "include_quality"),
    Column("face_size_px", _FLOAT, "In the file's pixels", "include_quality"),
    Column("sharpness", _FLOAT, "0 to 0.6", "include_quality"),
    Column("brightness", _FLOAT, "0 to 1", "include_quality"),
    Column("contrast", _FLOAT, "0 to 1", "include_quality"),
    Column(
        "landmarks", pa.list_(_FLOAT, 10), "Five points x, y, in pixels of the upright picture", "include_landmarks"
    ),
    Column("crop", pa.binary(), "The crop as the recogniser got it, a PNG file", "include_crop"),
    Column("error_code", _TEXT, "Why there is no embedding, for programs; null where there is one"),
    Column("error", _TEXT, "The same for people"),
)


def schema(options: dict[str, Any], dim: int, dtype: DType) -> pa.Schema:
    """The columns of a job with these options, as `--…` names them."""
    number = pa.float16() if dtype == "float16" else pa.float32()
    return pa.schema(
        [
            pa.field(
                column.name,
                pa.list_(number, dim) if column.name == "embedding" else column.type,
                nullable=column.is_nullable,
            )
            for column in COLUMNS
            if column.option is None or options.get(column.option)
        ]
    )


def error_row(error: Exception) -> Row:
    """The values of a picture without an embedding."""
    if isinstance(error, ArcFaceError) and hasattr(error, "code"):
        return {"error_code": error.code, "error": str(error)}
    return {"error_code": "internal_error", "error": f"A defect of arcface-api: {error!r}. Please report it."}


def narrowed(row: Row, columns: pa.Schema) -> Row:
    """The row, or one with an error where its embedding has numbers that float16 cannot hold."""
    kind = columns.field("embedding").type.value_type
    if kind != pa.float16() or row.get("embedding") is None or np.abs(row["embedding"]).max() < _FLOAT16_END:
        return row
    error = EmbeddingInvalid(
        "The embedding has numbers above 65,504, which float16 cannot hold. Use --dtype float32, or --normalize."
    )
    return {name: row[name] for name in ("id", "model", "fingerprint")} | error_row(error)


def table(rows: Sequence[Row], columns: pa.Schema) -> pa.Table:
    """Rows as a table with this schema."""
    arrays = []
    for field in columns:
        values = [row.get(field.name) for row in rows]
        if field.name == "embedding":
            arrays.append(_embeddings(values, field.type))
        else:
            arrays.append(pa.array(values, field.type))
    return pa.Table.from_arrays(arrays, schema=columns)


def _embeddings(values: Sequence[Any], kind: pa.DataType) -> pa.Array:
    """(n, dim) without a copy for each number; a row without an embedding is null."""
    dim, dtype = kind.list_size, kind.value_type.to_pandas_dtype()
    matrix = np.zeros((len(values), dim), dtype)
    with np.errstate(over="raise"):  # `narrowed` has left none that become infinite
        for row, value in zip(matrix, values, strict=True):
            if value is not None:
                row[:] = value
    is_missing = pa.array([value is None for value in values])
    return pa.FixedSizeListArray.from_arrays(pa.array(matrix.ravel()), type=kind, mask=is_missing)
