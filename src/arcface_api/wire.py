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
"""Length of the raw embedding, also where the body holds the normalised one."""
SERVER_TIMING_HEADER = "Server-Timing"
"""Milliseconds per stage (W3C Server Timing)."""


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


def embedding_json(body: Mapping[str, Any], embedding: Embedding, encoding: Encoding) -> bytes:
    """The JSON object `body` with the embedding as its first key, written straight from the float32 array.

    orjson writes the shortest decimal that reads back to the same float32: exact, and half the bytes of float64 digits.
    """
    value: Any = np.ascontiguousarray(embedding)
    if encoding is Encoding.BASE64:
        value = base64.b64encode(embedding_bytes(embedding)).decode()
    return orjson.dumps({"embedding": value, **body}, option=orjson.OPT_SERIALIZE_NUMPY)


def embedding_npy(embedding: Embedding) -> bytes:
    """The embedding as an `.npy` file: (dim,) little-endian float32, readable with `numpy.load`."""
    buffer = BytesIO()
    np.lib.format.write_array(buffer, _little_endian(embedding), version=(1, 0), allow_pickle=False)
    return buffer.getvalue()


def embedding_bytes(embedding: Embedding) -> bytes:
    """The embedding's numbers alone: 4 x dim bytes, little-endian float32."""
    return _little_endian(embedding).tobytes()


def _little_endian(embedding: Embedding) -> Embedding:
    return np.ascontiguousarray(embedding, dtype="<f4")
