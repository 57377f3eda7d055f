"""What server and clients share: names of headers, media types and options, and the embedding in each of its forms."""

import base64
from enum import StrEnum
from functools import partial
from io import BytesIO

import numpy as np
import orjson

from arcface_api.arrays import Embedding

MODEL_FINGERPRINT_HEADER = "X-Model-Fingerprint"
"""Two embeddings may be compared only if it is equal."""
RECIPE_HEADER = "X-Embedding-Recipe"
"""Two embeddings compare well only if it is equal; for a batch, the recipe of each `Alignment` that occurs."""
EMBEDDING_NORM_HEADER = "X-Embedding-Norm"
"""Length of the raw embedding (with `flip`, of the sum of two), also if the body holds the normalised one."""
REQUIRE_FINGERPRINT_HEADER = "X-Require-Fingerprint"
"""From the caller: the fingerprint of its stored embeddings. A service with another one refuses the request."""
REQUIRE_RECIPE_HEADER = "X-Require-Recipe"
"""From the caller: the recipe of its stored embeddings. A picture that would get another one is refused."""
SERVER_TIMING_HEADER = "Server-Timing"
"""Milliseconds per stage (W3C Server Timing)."""
BATCH_SIZE_HEADER = "X-Batch-Size"
"""The number of crops, of any callers, in the batch that this one ran in."""
EMBEDDING_VALID_HEADER = "X-Embedding-Valid"
"""For a batch as npy or bytes: one digit per picture, 1 if its row is an embedding, 0 if it is all NaN."""
ALIGNMENT_HEADER = "X-Alignment"
"""An `Alignment`; for a batch one per picture, `-` for a picture without an embedding."""
WARNINGS_HEADER = "X-Warnings"
"""Codes of what may be wrong with the picture, separated by commas; absent if there are none. For a batch, with
the places of the pictures from 0: `truncated=2 5`."""
REQUEST_ID_HEADER = "X-Request-ID"
"""Identity of the request: the caller's, or a new one. It is in every answer and in the log."""
REQUEST_TIMEOUT_HEADER = "X-Request-Timeout"
"""From the caller: seconds after which it no longer needs the answer."""


class MediaType(StrEnum):
    """Representations of an embedding."""

    JSON = "application/json"
    NPY = "application/x-npy"
    """NumPy's file format 1.0: (dim,) little-endian float32."""
    BYTES = "application/octet-stream"
    """The dim little-endian float32 numbers and nothing else."""


class Encoding(StrEnum):
    """Form of the embedding in a JSON body."""

    FLOAT = "float"
    """A list of numbers; each reads back to exactly the same float32."""
    BASE64 = "base64"
    """Base64 (RFC 4648 section 4) of the little-endian float32 numbers."""


class Align(StrEnum):
    """How to turn, scale and shift the face to where the recogniser was trained to see faces."""

    NONE = "none"
    """The whole picture is the crop, as `Fit` says."""
    AUTO = "auto"
    """By landmarks that the service finds; if it is unsure of them, as `none`."""
    LANDMARKS = "landmarks"
    """By landmarks that the caller sends."""


class Fit(StrEnum):
    """How a picture that is not aligned becomes a crop."""

    STRETCH = "stretch"
    """Each side is scaled separately, as in InsightFace's `get_feat`; the contract's default."""
    LETTERBOX = "letterbox"
    """Both sides are scaled alike; the rest is black."""


class Alignment(StrEnum):
    """How a picture was aligned: as asked for with `Align`, or not at all because landmarks were too uncertain."""

    NONE = "none"
    AUTO = "auto"
    LANDMARKS = "landmarks"
    UNSURE = "unsure"


json_bytes = partial(orjson.dumps, default=np.ascontiguousarray, option=orjson.OPT_SERIALIZE_NUMPY)
"""A JSON object; float32 arrays become lists of the shortest decimals that read back to the same float32."""


def embedding_base64(embedding: Embedding) -> str:
    """The embedding in a JSON body with `Encoding.BASE64`."""
    return base64.b64encode(embedding_bytes(embedding)).decode()


def embedding_npy(embedding: Embedding) -> bytes:
    """One embedding (dim,) or many (n, dim) as an `.npy` file: little-endian float32, readable with `numpy.load`."""
    buffer = BytesIO()
    np.lib.format.write_array(buffer, np.ascontiguousarray(embedding, "<f4"), version=(1, 0), allow_pickle=False)
    return buffer.getvalue()


def embedding_bytes(embedding: Embedding) -> bytes:
    """The numbers of one embedding (dim,) or many (n, dim) alone: little-endian float32, row after row."""
    return np.ascontiguousarray(embedding, dtype="<f4").tobytes()
