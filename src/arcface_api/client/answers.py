"""What the service answers, as typed values: embeddings, `/info`, `/health`.

One module, because each type stands beside what reads it from an answer.
"""

import base64
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from arcface_api.client.problems import AnswerInvalid, ThresholdUnknown, error_of_problem
from arcface_api.errors import ArcFaceError, FingerprintDiffers, RecipeDiffers


@dataclass(frozen=True)
class Pose:
    """Head pose in degrees, as seen in the picture; docs/http-api.md explains the signs."""

    yaw: float
    """Positive: turned towards the picture's right."""
    pitch: float
    """Positive: turned up."""
    roll: float
    """Positive: tilted clockwise."""


@dataclass(frozen=True)
class Attributes:
    """What the attribute models estimate."""

    age: int
    """Years."""
    gender: str
    """`female` or `male`, the classes of the model."""
    pose: Pose


@dataclass(frozen=True)
class Quality:
    """How good the picture is for recognition; docs/quality.md explains the numbers."""

    landmark_confidence: float
    """0 … 1."""
    face_size_px: float
    """Pixels of the picture."""
    sharpness: float
    """0 … 0.6."""
    brightness: float
    """0 … 1."""
    contrast: float
    """0 … 1."""
    norm: float
    """As `Embedding.norm`."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Embedding:
    """The embedding of one picture. What the options can include is None unless it was asked for."""

    vector: NDArray[np.float32]
    """(dim,) float32, to the bit as the model returned it; with `normalize` divided by `norm`."""
    model: str
    fingerprint: str
    """16 hex digits: two embeddings may be compared only if it is equal."""
    recipe: str
    """16 hex digits: two embeddings compare well only if it is equal. Store it beside the vector."""
    norm: float
    """Length of the raw embedding; with `flip`, of the sum of two."""
    alignment: str
    """What was done: `none`, `auto`, `landmarks`, or `unsure` (auto was asked for, and no face was found)."""
    warnings: tuple[str, ...]
    """Codes of what may be wrong with the picture; docs/quality.md lists them."""
    attributes: Attributes | None = None
    quality: Quality | None = None
    landmarks: NDArray[np.float32] | None = None
    """(5, 2) float32: left eye, right eye, nose tip, left and right mouth corner; x, y in the picture's pixels."""
    crop: bytes | None = None
    """A PNG with the pixels that the recogniser got."""


def similarity(one: Embedding, other: Embedding) -> float:
    """Cosine similarity of two embeddings, -1 … 1.

    Raises:
        FingerprintDiffers: They are of different models.
        RecipeDiffers: They were made in different ways. `auto` and `unsure`, the outcomes of `align="auto"`, may be
            compared, with care.
        ValueError: One has a length of zero, or numbers that are not finite.
    """
    if one.fingerprint != other.fingerprint:
        raise FingerprintDiffers(
            f"The embeddings are of different models ({one.model} {one.fingerprint}, {other.model}"
            f" {other.fingerprint}) and cannot be compared. Embed both pictures with one model."
        )
    if one.recipe != other.recipe and {one.alignment, other.alignment} != {"auto", "unsure"}:
        raise RecipeDiffers(
            f"The embeddings were made in different ways (recipe {one.recipe} with alignment {one.alignment},"
            f" {other.recipe} with {other.alignment}) and do not compare well. Embed both with the same options."
        )
    vectors = [each.vector.astype(np.float64) for each in (one, other)]  # whose squares never overflow
    lengths = float(np.linalg.norm(vectors[0]) * np.linalg.norm(vectors[1]))
    if not 0 < lengths < math.inf:
        raise ValueError("An embedding has a length of zero, or numbers that are not finite: it has no direction.")
    return float(np.clip(np.dot(*vectors) / lengths, -1, 1))


@dataclass(frozen=True)
class Threshold:
    """The similarity from which on two aligned pictures may count as one person: a number to start from."""

    far: float
    """False accept rate: the share of pairs of different people that it accepts."""
    similarity: float
    basis: str
    """`measured` with this service, or `published`."""


@dataclass(frozen=True)
class Limits:
    """The limits of requests that the client keeps."""

    max_batch_files: int
    max_batch_bytes: int
    queue_capacity: int
    """Pictures that the service holds at once, of all callers."""


@dataclass(frozen=True, kw_only=True)
class Info:
    """What `/info` reports."""

    version: str
    """Of the service."""
    pack: str
    model: str
    fingerprint: str
    recipe: str
    """Of a request that chooses no options."""
    embedding_dim: int
    thresholds: tuple[Threshold, ...]
    """By rising similarity; empty if none are known."""
    limits: Limits
    facts: Mapping[str, Any]
    """Everything, as JSON has it."""

    def threshold(self, far: float) -> float:
        """The similarity for this false accept rate, or for the next lower one that is known."""
        strict_enough = [each.similarity for each in self.thresholds if each.far <= far]
        if not strict_enough:
            known = ", ".join(f"{each.far:g}" for each in self.thresholds)
            raise ThresholdUnknown(
                f"No threshold is known for {self.model} at a false accept rate of {far:g} or less"
                f"{f', only at {known}' if known else ''}. Measure one with your own pairs: arcface-api evaluate."
            )
        return min(strict_enough)


@dataclass(frozen=True, kw_only=True)
class Health:
    """What `/health` reports."""

    is_ok: bool
    """The service can embed: a real inference has succeeded in the last seconds."""
    reason: str | None
    """Why it cannot, or why no faster provider is used."""
    model: str
    provider: str
    precision: str
    facts: Mapping[str, Any]
    """Everything, as JSON has it."""


@dataclass(frozen=True)
class Answer:
    """What arrived for one request."""

    status: int
    headers: Mapping[str, str]
    """Found by names in any case."""
    content: bytes


def read_info(answer: Answer) -> Info:
    """The answer of `/info`; as all functions here, raises `AnswerInvalid` if it is something else."""
    facts = _json(answer)
    try:
        return Info(
            thresholds=tuple(Threshold(each["far"], each["similarity"], each["basis"]) for each in facts["thresholds"]),
            limits=Limits(**{name: facts["limits"][name] for name in Limits.__annotations__}),
            facts=facts,
            **{name: facts[name] for name in ("version", "pack", "model", "fingerprint", "recipe", "embedding_dim")},
        )
    except (KeyError, TypeError) as error:
        raise _invalid("/info", error) from error


def read_health(answer: Answer) -> Health:
    """The answer of `/health`."""
    facts = _json(answer)
    try:
        named = {name: facts[name] for name in ("reason", "model", "provider", "precision")}
        return Health(is_ok=facts["status"] == "ok", facts=facts, **named)
    except (KeyError, TypeError) as error:
        raise _invalid("/health", error) from error


def read_embedding(answer: Answer) -> Embedding:
    """The answer of `/embed` with `encoding=base64`."""
    body, headers = _json(answer), answer.headers
    try:
        recipe, norm = headers["x-embedding-recipe"], float(headers["x-embedding-norm"])
        warnings = tuple(headers["x-warnings"].split(", ")) if "x-warnings" in headers else ()
        shared = body | {"recipe": recipe, "norm": norm}
        return _embedding(shared, body, headers["x-model-fingerprint"], headers["x-alignment"], warnings)
    except (KeyError, TypeError, ValueError) as error:
        raise _invalid("/embed", error) from error


def read_batch(answer: Answer, pictures: int) -> list[Embedding | ArcFaceError]:
    """The answer of `/embed/batch` with `encoding=base64`: an embedding or an error for each picture, in order."""
    body, headers = _json(answer), answer.headers
    try:
        results, alignments = body["results"], headers["x-alignment"].split(", ")
        warnings: list[list[str]] = [[] for _ in range(pictures)]
        for warning in headers.get("x-warnings", "").split(", "):
            code, _, places = warning.partition("=")
            for place in places.split():
                warnings[int(place)].append(code)
        return [
            error_of_problem(result["problem"])
            if "problem" in result
            else _embedding(result, body, headers["x-model-fingerprint"], alignment, tuple(codes))
            for result, alignment, codes in zip(results, alignments, warnings, strict=True)
        ]
    except (AttributeError, KeyError, TypeError, ValueError, IndexError) as error:
        raise _invalid("/embed/batch", error) from error


def _embedding(
    result: dict[str, Any], body: dict[str, Any], fingerprint: str, alignment: str, warnings: tuple[str, ...]
) -> Embedding:
    vector = np.frombuffer(base64.b64decode(result["embedding"], validate=True), "<f4")
    if len(vector) != body["embedding_dim"]:
        raise ValueError(f"{len(vector)} numbers, and embedding_dim {body['embedding_dim']}")
    attributes, quality = result.get("attributes"), result.get("quality")
    landmarks, crop = result.get("landmarks"), result.get("crop")
    return Embedding(
        vector=vector.astype(np.float32),  # a copy that the caller may change
        model=body["model"],
        fingerprint=fingerprint,
        recipe=result["recipe"],
        norm=result["norm"],
        alignment=alignment,
        warnings=warnings,
        attributes=attributes
        and Attributes(attributes["age"], attributes["gender"], Pose(**_known(attributes["pose"], Pose))),
        quality=quality and Quality(**_known(quality, Quality)),
        landmarks=landmarks and np.array(landmarks, np.float32),
        crop=crop and base64.b64decode(crop),
    )


def _known(found: dict[str, Any], kind: type) -> dict[str, Any]:
    """Of an object in an answer, the keys that this version knows: later ones may have more."""
    return {name: found[name] for name in kind.__annotations__}


def _json(answer: Answer) -> dict[str, Any]:
    try:
        body = json.loads(answer.content)
    except ValueError as error:
        raise _invalid("It", error) from error
    if not isinstance(body, dict):
        raise _invalid("It", TypeError("no object"))
    return body


def _invalid(what: str, error: Exception) -> AnswerInvalid:
    return AnswerInvalid(
        f"What answers is not arcface-api, or a version that this client cannot read ({what}: {type(error).__name__}"
        f" {error}). Check the address and the service's version."
    )
