"""The body of every answer: its schema, which OpenAPI publishes, and how it is made.

`EmbedAnswer` and `BatchAnswer` only describe: the embedding is written straight from its float32 array (`wire`). Tests
compare description and body. One long module, because a key that changes here changes in both.
"""

import base64
import re
from collections.abc import Sequence
from typing import Annotated, Any, Literal, Self

import numpy as np
from pydantic import BaseModel, Field

from arcface_api import __version__, wire
from arcface_api.api.options import RequestOptions
from arcface_api.api.problems import ProblemAnswer
from arcface_api.arrays import Embedding
from arcface_api.cpus import usable_cpus
from arcface_api.embedder import Embedded, Embedder
from arcface_api.face.landmarks import REGRESSOR_PROVENANCE
from arcface_api.face.quality import QualityWarning
from arcface_api.loading import default_options, max_batch_files, regressor_content
from arcface_api.packs import InstalledPack, Role, VerifiedModel
from arcface_api.settings import Settings

_FOLDERS = re.compile(r"(?<![\w./:])/(?:[^\s/:;,'\"()]+/)+")
"""Of an absolute path."""


class Pose(BaseModel):
    """Head pose in degrees. docs/http-api.md explains the signs."""

    yaw: float = Field(description="Left-right, in degrees.", examples=[-5.2])
    pitch: float = Field(description="Up-down, in degrees.", examples=[2.1])
    roll: float = Field(description="Tilt, in degrees.", examples=[0.8])


class AttributesAnswer(BaseModel):
    """What the attribute models estimate from the face."""

    age: int = Field(description="In years, as the model estimates it.", examples=[28])
    gender: Literal["female", "male"] = Field(examples=["male"])
    pose: Pose


class QualityAnswer(BaseModel):
    """How good the picture is for recognition. docs/quality.md explains the numbers."""

    landmark_confidence: float = Field(description="0 to 1: how sure it is where the face is.", examples=[0.81])
    face_size_px: float = Field(
        description="Side of the square that an aligned crop covers, in the file's pixels.", examples=[143.5]
    )
    sharpness: float
    brightness: float = Field(description="Of the face, 0 to 1.", examples=[0.47])
    contrast: float = Field(description="Of the face, 0 to 1.", examples=[0.21])
    norm: float = Field(description="Length of the raw embedding; with `flip`, of the sum of two.", examples=[22.4])


_Dim = Annotated[int, Field(examples=[512])]
_Model = Annotated[str, Field(description="The loaded recogniser.", examples=["antelopev2_glint360k"])]
_InputSize = Annotated[str, Field(description="The recogniser's input, width x height.", examples=["112x112"])]
_Attributes = Annotated[AttributesAnswer | None, Field(description="Only with `include_attributes=true`.")]
_Quality = Annotated[QualityAnswer | None, Field(description="Only with `include_quality=true`.")]
_Landmarks = Annotated[
    list[list[float]] | None,
    Field(
        description="Left eye, right eye, nose tip, left and right mouth corner, each x, y in pixels of the upright"
        " picture; left is the left side of the picture. Only with `include_landmarks=true`.",
        examples=[[[38.29, 51.7], [73.53, 51.5], [56.03, 71.74], [41.55, 92.37], [70.73, 92.2]]],
    ),
]
_CropPng = Annotated[
    str | None,
    Field(
        description="Base64 of a PNG: the recogniser's very pixels, before `flip`. Only with `include_crop=true`.",
        examples=["iVBORw0KGgo…"],
    ),
]
_Warnings = Annotated[
    list[str] | None,
    Field(
        description="Codes of what may be wrong with the picture; later versions may have more. Only with"
        " `include_quality=true`, `include_landmarks=true` or `align=auto` in the query; without the first, only"
        " `landmarks_unsure` and `truncated`.",
        examples=[list(QualityWarning)],
    ),
]


class EmbedAnswer(BaseModel):
    """One face's embedding, and what else was asked for."""

    embedding: (
        Annotated[list[float], Field(description="The embedding, `embedding_dim` numbers.")]
        | Annotated[str, Field(description="With `encoding=base64`: little-endian float32.")]
    ) = Field(examples=[[0.123, -0.456]])
    embedding_shape: list[int] = Field(examples=[[512]])
    embedding_dim: _Dim
    model: _Model
    input_size: _InputSize
    attributes: _Attributes = None
    quality: _Quality = None
    landmarks: _Landmarks = None
    crop: _CropPng = None
    warnings: _Warnings = None


class ResultAnswer(BaseModel):
    """One picture's result: `embedding` and `norm`, or `problem`."""

    embedding: list[float] | str | None = None
    norm: float | None = Field(None, description="Length of the raw embedding; with `flip`, of the sum of two.")
    recipe: str | None = Field(None, description="As `X-Embedding-Recipe` of /embed.", examples=["0c3b5f2a9d1e4876"])
    attributes: _Attributes = None
    quality: _Quality = None
    landmarks: _Landmarks = None
    crop: _CropPng = None
    warnings: _Warnings = None
    problem: ProblemAnswer | None = Field(None, description="Why there is no embedding.")


class BatchAnswer(BaseModel):
    """The results of many pictures, in the order in which they were sent."""

    results: list[ResultAnswer]
    embedding_dim: _Dim
    model: _Model
    input_size: _InputSize


class HealthAnswer(BaseModel):
    """Whether the service can embed, and on what."""

    status: Literal["ok", "failing"]
    pack: str = Field(examples=["antelopev2"])
    model: str = Field(examples=["antelopev2_glint360k"])
    provider: str = Field(description="The execution provider in use.", examples=["CPUExecutionProvider"])
    precision: str = Field(description="Arithmetic the provider uses.", examples=["float32"])
    threads: int = Field(description="Threads on the CPU, of all lanes together.")
    lanes: int = Field(description="Inferences that run side by side.", examples=[2])
    has_wide_lane: bool = Field(description="Whether a lone request runs on all threads, although there are lanes.")
    batch_sizes: list[int] = Field(description="Sizes of a batch.", examples=[[1, 2, 4, 8]])
    self_test_cosine: float = Field(
        description="Lowest cosine to float32 on the CPU, of synthetic faces at start.", examples=[0.9997]
    )
    reason: str | None = Field(
        None, description="Why it is failing, or why nothing faster is used; null if there is nothing to explain."
    )
    doubt: str | None = Field(
        description="Why the embeddings of a model that is not registered are probably useless; null if nothing speaks"
        " against them."
    )


class StatusAnswer(BaseModel):
    """The answer of a probe."""

    status: str = Field(examples=["ready"])
    reason: str | None = Field(None, description="Why not, if it is not.")


class FileInfo(BaseModel):
    """One loaded model file, of the pack or of the service itself."""

    name: str
    role: str
    sha256: str
    size_bytes: int
    licence: str = Field(description="Of the weights.", examples=["CC0-1.0"])
    provenance: str = Field(description="What is known of the pictures that it was trained on; empty if nothing is.")


class LicenceInfo(BaseModel, from_attributes=True):
    """The terms of the weights."""

    name: str
    url: str
    allows_commercial_use: bool
    notice: str


class InputInfo(BaseModel, from_attributes=True):
    """The recogniser's input."""

    width: int = Field(description="Pixels.")
    height: int = Field(description="Pixels.")
    mean: float
    std: float
    channel_order: str


class CropInfo(BaseModel):
    """How a picture becomes a crop if the request does not say."""

    align: str
    fit: str
    regressor_sha256: str = Field(description="Of the landmark regressor behind `align=auto`.")


class RecipeInfo(BaseModel, from_attributes=True):
    """What a recipe is the hash of. A part is null where it had no influence."""

    fingerprint: str
    preprocessing_version: int
    align: str = Field(description="As `X-Alignment` states it.", examples=["unsure"])
    alignment_version: int | None = Field(description="Of how faces are found and cut.")
    regressor_sha256: str | None
    fit: str | None = Field(description="Of pictures that are not aligned.")
    resize: str
    flip: bool


class ThresholdInfo(BaseModel, from_attributes=True):
    """The cosine similarity from which on two pictures may count as the same person: a number to start from."""

    far: float = Field(description="False accept rate: the share of pairs of different people that it accepts.")
    similarity: float
    basis: str = Field(
        description="`measured` with this service, or `published` by somebody who measured the same file.",
        examples=["measured"],
    )
    data_set: str | None = Field(description="Whose pairs those were, and how their pictures were made.")
    source: str | None = Field(description="Where that is published.")


class LimitsInfo(BaseModel):
    """The limits of a request."""

    max_image_bytes: int
    max_image_pixels: int
    max_batch_files: int
    max_batch_bytes: int
    max_upload_bytes_inside: int = Field(description="Of each worker.")
    upload_timeout_seconds: float
    upload_silence_seconds: float
    upload_min_bytes_per_second: int
    decode_timeout_seconds: float = Field(description="Of the largest image, if images are decoded in processes.")
    max_head_bytes: int
    max_header_bytes: int
    max_headers: int
    head_timeout_seconds: float
    keep_alive_seconds: int
    max_connections: int = Field(description="Of each worker.")
    max_connections_per_address: int | None = Field(description="Of each worker; null: no limit of its own.")
    max_unread_answer_bytes: int = Field(description="Of each worker.")
    queue_capacity: int = Field(description="Of the whole service, all workers together.")
    request_timeout_seconds: float
    rate_limit: str | None = Field(
        None,
        description="Most pictures of one caller in a time, all workers together; null if there is no such limit.",
        examples=["600/minute"],
    )
    hang_seconds: float


class InfoAnswer(BaseModel):
    """Everything that a caller may want to record beside its vectors."""

    version: str = Field(description="Of the service.")
    pack: str
    model: str
    fingerprint: str = Field(description="Embeddings may be compared only if it is equal.")
    recipe: str = Field(
        description="Of a request that chooses no options; with `crop.align` `auto`, of one whose landmarks are sure."
        " Embeddings compare well only if it is equal."
    )
    recipes: dict[str, RecipeInfo] = Field(description="All that the options can choose, and what they are made of.")
    embedding_dim: int
    roles: list[str] = Field(description="What the pack's models can do.")
    assumptions: list[str] = Field(description="What had to be assumed about an imported pack.")
    files: list[FileInfo]
    licence: LicenceInfo
    input: InputInfo
    crop: CropInfo
    thresholds: list[ThresholdInfo] = Field(
        description="For aligned pictures, by rising similarity; empty if none are known."
    )
    provider: str
    precision: str
    workers: int = Field(description="Processes that serve the port. The other figures hold for each of them.")
    cpus: str = Field(
        description="How many of the machine's CPUs the service may use, and why not all.",
        examples=["1 of 2 (the quota in /sys/fs/cgroup/cpu.max allows 0.5)"],
    )
    threads: int = Field(description="Of all lanes together.")
    lanes: int = Field(description="Inferences that run side by side.")
    has_wide_lane: bool = Field(description="Whether a lone request runs on all threads, although there are lanes.")
    batch_sizes: list[int]
    self_test_cosine: float
    reason: str | None = Field(description="Why nothing faster is used.")
    doubt: str | None = Field(description="Why the embeddings are probably useless.")
    limits: LimitsInfo

    @classmethod
    def of(
        cls, pack: InstalledPack, verified: dict[Role, VerifiedModel], embedder: Embedder, settings: Settings
    ) -> Self:
        """The answer of a service that is ready."""
        manifest, recogniser, regressor = pack.manifest, embedder.recogniser, regressor_content()
        session, defaults = recogniser.session, default_options(pack, settings)
        files = [
            FileInfo(
                name=model.file.name,
                role=role.value,
                sha256=model.sha256,
                size_bytes=len(model.content),
                licence=manifest.licence.name,
                provenance=model.file.provenance or "",
            )
            for role, model in verified.items()
        ]
        regressor_file = FileInfo(
            name="landmarks.onnx",
            role="landmarks",
            sha256=regressor.sha256,
            size_bytes=len(regressor.content),
            licence="Apache-2.0",
            provenance=REGRESSOR_PROVENANCE,
        )
        return cls(
            version=__version__,
            pack=manifest.name,
            model=recogniser.name,
            fingerprint=recogniser.fingerprint,
            recipe=embedder.recipes.of(defaults, wire.Alignment(defaults.align)).digest,
            recipes={
                digest: RecipeInfo.model_validate(recipe) for digest, recipe in embedder.recipes.by_digest.items()
            },
            embedding_dim=recogniser.dim,
            roles=[role.value for role in verified],
            assumptions=list(manifest.assumptions),
            files=[*files, regressor_file],
            licence=LicenceInfo.model_validate(manifest.licence),
            input=InputInfo.model_validate(recogniser.spec),
            crop=CropInfo(align=defaults.align, fit=defaults.fit, regressor_sha256=regressor.sha256),
            thresholds=[ThresholdInfo.model_validate(threshold) for threshold in manifest.thresholds],
            provider=session.provider,
            precision=session.precision,
            workers=settings.workers,
            cpus=str(usable_cpus()),
            threads=session.threads,
            lanes=session.lanes,
            has_wide_lane=recogniser.wide is not None,
            batch_sizes=list(session.batch_sizes),
            self_test_cosine=recogniser.self_test_cosine,
            reason=_without_folders(recogniser.reason),
            doubt=recogniser.doubt,
            limits=LimitsInfo.model_validate(settings.model_dump() | {"max_batch_files": max_batch_files(settings)}),
        )


def _without_folders(reason: str | None) -> str | None:
    """What an operator may show to callers: a runtime's words name files. The log has them as they are."""
    return reason and _FOLDERS.sub("…/", reason)


def model_keys(info: InfoAnswer) -> dict[str, Any]:
    """The keys that are the same in all bodies."""
    input_size = f"{info.input.width}x{info.input.height}"
    return {"embedding_dim": info.embedding_dim, "model": info.model, "input_size": input_size}


def embed_body(embedded: Embedded, options: RequestOptions, about_model: dict[str, Any]) -> bytes:
    """The body of `/embed`, in the representation that was asked for."""
    if options.media_type is not wire.MediaType.JSON:
        return _binary_body(embedded.embedding, options.media_type)
    embedding = embedded.embedding
    vector = wire.embedding_base64(embedding) if options.encoding is wire.Encoding.BASE64 else embedding
    body = {"embedding": vector, "embedding_shape": [about_model["embedding_dim"]], **about_model}
    return wire.json_bytes(_with_optional(body, embedded, options))


def batch_body(results: Sequence[Embedded | Exception], options: RequestOptions, about_model: dict[str, Any]) -> bytes:
    """The body of `/embed/batch`: each picture's result, in order."""
    if options.media_type is wire.MediaType.JSON:
        return wire.json_bytes({"results": [_result(result, options) for result in results], **about_model})
    # NaN and not zero: a database that is given the row by mistake refuses it
    rows = np.full((len(results), about_model["embedding_dim"]), np.nan, np.float32)
    for row, result in zip(rows, results, strict=True):
        if isinstance(result, Embedded):
            row[:] = result.embedding
    return _binary_body(rows, options.media_type)


def _result(result: Embedded | Exception, options: RequestOptions) -> dict[str, Any]:
    if not isinstance(result, Embedded):
        return {"problem": ProblemAnswer.of(result).model_dump()}
    embedding = result.embedding
    vector = wire.embedding_base64(embedding) if options.encoding is wire.Encoding.BASE64 else embedding
    body = {"embedding": vector, "norm": result.norm, "recipe": result.recipe}
    return _with_optional(body, result, options)


def _with_optional(body: dict[str, Any], embedded: Embedded, options: RequestOptions) -> dict[str, Any]:
    """The body with the keys that the request asked for."""
    if embedded.attributes is not None:
        person, head = embedded.attributes.age_gender, embedded.attributes.head_pose
        pose = Pose(yaw=round(head.yaw, 4), pitch=round(head.pitch, 4), roll=round(head.roll, 4))
        body["attributes"] = AttributesAnswer(age=person.age, gender=person.gender, pose=pose).model_dump()
    if embedded.quality is not None:
        body["quality"] = QualityAnswer(
            landmark_confidence=round(embedded.quality.landmark_confidence, 4),
            face_size_px=round(embedded.quality.face_size_px, 1),
            sharpness=round(embedded.quality.sharpness, 4),
            brightness=round(embedded.quality.brightness, 4),
            contrast=round(embedded.quality.contrast, 4),
            norm=embedded.norm,
        ).model_dump()
    if embedded.landmarks is not None:
        body["landmarks"] = [[round(x, 2), round(y, 2)] for x, y in embedded.landmarks.tolist()]
    if embedded.crop_png is not None:
        body["crop"] = base64.b64encode(embedded.crop_png).decode()
    if options.has_warnings:
        body["warnings"] = list(embedded.warnings)
    return body


def _binary_body(embedding: Embedding, media_type: wire.MediaType) -> bytes:
    return wire.embedding_npy(embedding) if media_type is wire.MediaType.NPY else wire.embedding_bytes(embedding)
