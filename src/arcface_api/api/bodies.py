"""The bodies of the answers to `/embed` and `/embed/batch`; `answers` describes them for OpenAPI."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from arcface_api import wire
from arcface_api.api.options import RequestOptions
from arcface_api.api.problems import problem_of
from arcface_api.arrays import Embedding
from arcface_api.embedder import Embedded
from arcface_api.face.quality import Quality


def embed_body(about_model: dict[str, Any], embedded: Embedded, options: RequestOptions) -> bytes:
    """The answer to `/embed`, in the representation that was asked for.

    Args:
        about_model: Keys that are the same for every picture.
        embedded: The picture's embedding, and what else was asked for.
        options: What was asked for.
    """
    if options.media_type is wire.MediaType.JSON:
        return wire.json_bytes({**_vector_body(embedded, options), **about_model, **_opted_body(embedded, options)})
    return _binary_body(embedded.embedding, options.media_type)


def batch_body(
    about_model: dict[str, Any], results: Sequence[Embedded | Exception], options: RequestOptions, dim: int
) -> bytes:
    """The answer to `/embed/batch`.

    Args:
        about_model: Keys that are the same for every picture.
        results: Of each picture, in order.
        options: What was asked for.
        dim: Length of an embedding.
    """
    if options.media_type is wire.MediaType.JSON:
        return wire.json_bytes({"results": [_result_body(result, options) for result in results], **about_model})
    # NaN and not zero: a database that is given the row by mistake refuses it
    rows = np.full((len(results), dim), np.nan, np.float32)
    for row, result in zip(rows, results, strict=True):
        if isinstance(result, Embedded):
            row[:] = result.embedding
    return _binary_body(rows, options.media_type)


def _result_body(result: Embedded | Exception, options: RequestOptions) -> dict[str, Any]:
    if isinstance(result, Embedded):
        return {**_vector_body(result, options), "norm": result.norm, **_opted_body(result, options)}
    return {"problem": problem_of(result).body()}


def _vector_body(embedded: Embedded, options: RequestOptions) -> dict[str, Any]:
    return {"embedding": wire.embedding_value(embedded.embedding, options.encoding)}


def _binary_body(embedding: Embedding, media_type: wire.MediaType) -> bytes:
    if media_type is wire.MediaType.NPY:
        return wire.embedding_npy(embedding)
    return wire.embedding_bytes(embedding)


def _opted_body(embedded: Embedded, options: RequestOptions) -> dict[str, Any]:
    """The keys that are there only where the request itself asked for them."""
    body: dict[str, Any] = {}
    if embedded.attributes is not None:
        told, head = embedded.attributes.age_gender, embedded.attributes.head_pose
        pose = {"yaw": round(head.yaw, 4), "pitch": round(head.pitch, 4), "roll": round(head.roll, 4)}
        body["attributes"] = {"age": told.age, "gender": told.gender, "pose": pose}
    if embedded.quality is not None:
        body["quality"] = _quality_body(embedded.quality, embedded.norm)
    if options.wants_warnings:
        body["warnings"] = list(embedded.warnings)
    return body


def _quality_body(quality: Quality, norm: float) -> dict[str, float]:
    return {
        "landmark_confidence": round(quality.landmark_confidence, 4),
        "face_size_px": round(quality.face_size_px, 1),
        "sharpness": round(quality.sharpness, 4),
        "brightness": round(quality.brightness, 4),
        "contrast": round(quality.contrast, 4),
        "norm": norm,
    }
