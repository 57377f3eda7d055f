"""What goes over the wire: names of headers, media types and options, and the embedding in each of its forms.

Server and client share this module, so that neither spells a name the other does not know.
"""

import base64
from collections.abc import Mapping
from enum import StrEnum
from io import BytesIO
from typing import Any

import numpy as np
import orjson

from arcface_api.arrays import Embedding

MODEL_FINGERPRINT_HEADER = "X-Model-Fingerprint"
"""Two embeddings may be compared only if this header was equal."""
EMBEDDING_NORM_HEADER = "X-Embedding-Norm"
"""Length of the raw embedding, also where the body holds the normalised one; with `flip`, of the sum of two."""
REQUIRE_FINGERPRINT_HEADER = "X-Require-Fingerprint"
"""From the caller: the fingerprint that its stored embeddings have. Another one is refused."""
SERVER_TIMING_HEADER = "Server-Timing"
"""Milliseconds per stage (W3C Server Timing)."""
BATCH_SIZE_HEADER = "X-Batch-Size"
"""How many crops, of whichever callers, ran together with this one, itself among them."""
EMBEDDING_VALID_HEADER = "X-Embedding-Valid"
"""Of a batch as npy or bytes: one digit for each picture, 1 where its row is an embedding, 0 where it is all NaN."""
ALIGNMENT_HEADER = "X-Alignment"
"""What became of the alignment, an `Alignment`; of a batch one for each picture, `-` where it has no embedding."""
WARNINGS_HEADER = "X-Warnings"
"""Codes of what may be wrong with the picture, separated by commas; absent where there are none."""
REQUEST_TIMEOUT_HEADER = "X-Request-Timeout"
"""From the caller: seconds within which the answer is of use."""


class MediaType(StrEnum):
    """Representations of an embedding."""

    JSON = "application/json"
    NPY = "application/x-npy"
    """NumPy's file format 1.0: (dim,) little-endian float32."""
    BYTES = "application/octet-stream"
    """The dim little-endian float32 numbers and nothing else."""


class Encoding(StrEnum):
    """How the embedding stands inside the JSON body."""

    FLOAT = "float"
    """A list of numbers; each reads back to exactly the same float32."""
    BASE64 = "base64"
    """Base64 (RFC 4648 section 4) of the little-endian float32 numbers."""


class Align(StrEnum):
    """Whether the face is turned, scaled and shifted to where the recogniser was trained to see faces."""

    NONE = "none"
    """The whole picture is the crop, as `Fit` says."""
    AUTO = "auto"
    """By landmarks that the service finds; where it is unsure of them, as with `none`."""
    LANDMARKS = "landmarks"
    """By landmarks that the caller sends."""


class Fit(StrEnum):
    """How a picture that is not aligned becomes a crop."""

    STRETCH = "stretch"
    """Each side is scaled by itself: the contract's way, and InsightFace's `get_feat`'s."""
    LETTERBOX = "letterbox"
    """Both sides are scaled alike; what is left over is black."""


class Alignment(StrEnum):
    """What became of the alignment of one picture."""

    NONE = "none"
    """None was asked for."""
    AUTO = "auto"
    """Aligned by landmarks that the service found."""
    LANDMARKS = "landmarks"
    """Aligned by the caller's landmarks."""
    UNSURE = "unsure"
    """`auto` was asked for, but the landmarks were too uncertain: not aligned."""


def embedding_value(embedding: Embedding, encoding: Encoding) -> Any:
    """The embedding as it stands in a JSON body that `json_bytes` writes."""
    if encoding is Encoding.BASE64:
        return base64.b64encode(embedding_bytes(embedding)).decode()
    return np.ascontiguousarray(embedding)


def json_bytes(body: Mapping[str, Any]) -> bytes:
    """A JSON object; float32 arrays in it are written straight as lists of numbers.

    orjson writes the shortest decimal that reads back to the same float32: exact, and half the bytes of float64 digits.
    """
    return orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY)


def embedding_npy(embedding: Embedding) -> bytes:
    """One embedding (dim,) or many (n, dim) as an `.npy` file: little-endian float32, readable with `numpy.load`."""
    buffer = BytesIO()
    np.lib.format.write_array(buffer, _little_endian(embedding), version=(1, 0), allow_pickle=False)
    return buffer.getvalue()


def embedding_bytes(embedding: Embedding) -> bytes:
    """The numbers of one embedding (dim,) or many (n, dim) alone: little-endian float32, row after row."""
    return _little_endian(embedding).tobytes()


def _little_endian(embedding: Embedding) -> Embedding:
    return np.ascontiguousarray(embedding, dtype="<f4")
