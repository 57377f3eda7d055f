"""Promises of `arcface_api.wire`: every form of an embedding reads back to the same float32 numbers."""

import base64
import json
from io import BytesIO

import numpy as np
import pytest
from numpy.typing import NDArray

from arcface_api.wire import embedding_base64, embedding_bytes, embedding_npy, json_bytes

EMBEDDING = np.random.default_rng(0).normal(0, 1, 512).astype(np.float32)


@pytest.mark.parametrize("embedding", [EMBEDDING, EMBEDDING * 1e-38, EMBEDDING * 1e30, EMBEDDING[::-1]])
def test_json_numbers_read_back_exactly(embedding: NDArray[np.float32]) -> None:
    body = json.loads(json_bytes({"embedding": embedding, "model": "m"}))
    assert list(body) == ["embedding", "model"]
    assert np.array_equal(np.array(body["embedding"], np.float32), embedding)


def test_base64_reads_back_exactly() -> None:
    body = json.loads(json_bytes({"embedding": embedding_base64(EMBEDDING)}))
    assert np.array_equal(np.frombuffer(base64.b64decode(body["embedding"]), "<f4"), EMBEDDING)


def test_npy_is_a_numpy_file() -> None:
    loaded = np.load(BytesIO(embedding_npy(EMBEDDING)), allow_pickle=False)
    assert loaded.dtype == np.dtype("<f4")
    assert np.array_equal(loaded, EMBEDDING)


def test_bytes_are_little_endian_numbers_alone() -> None:
    assert embedding_bytes(np.array([1.0, -2.0], np.float32)) == b"\x00\x00\x80\x3f\x00\x00\x00\xc0"
