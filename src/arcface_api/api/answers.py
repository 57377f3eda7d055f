"""The JSON bodies of every answer, as OpenAPI describes them.

`/embed` writes its body itself, straight from the float32 array (`arcface_api.wire`); `EmbedAnswer` describes it, and a
test holds the two equal.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, Field

from arcface_api.face.quality import QualityWarning

_WARNINGS = (
    "What may be wrong with the picture. Only with `include_quality=true` or `align=auto` in the query;"
    " the latter alone tells of `landmarks_unsure` only."
)


class Pose(BaseModel):
    """Head pose in degrees; docs/http-api.md draws the signs."""

    yaw: float = Field(description="Left-right, in degrees.", examples=[-5.2])
    pitch: float = Field(description="Up-down, in degrees.", examples=[2.1])
    roll: float = Field(description="Tilt, in degrees.", examples=[0.8])


class AttributesAnswer(BaseModel):
    """What the attribute models say of the face."""

    age: int = Field(description="In years, as the model says.", examples=[28])
    gender: Literal["female", "male"] = Field(examples=["male"])
    pose: Pose


class QualityAnswer(BaseModel):
    """How good the picture is for recognition; docs/quality.md says what the numbers mean."""

    landmark_confidence: float = Field(description="0 to 1: how sure it is where the face is.", examples=[0.81])
    face_size_px: float = Field(
        description="Side of the square that an aligned crop covers, in the file's pixels: below 112 it is upscaled.",
        examples=[143.5],
    )
    sharpness: float
    brightness: float = Field(description="Of the face, 0 to 1.", examples=[0.47])
    contrast: float = Field(description="Of the face, 0 to 1.", examples=[0.21])
    norm: float = Field(description="Length of the raw embedding; with `flip`, of the sum of two.", examples=[22.4])


class EmbedAnswer(BaseModel):
    """One face's embedding; `attributes` is there only where it was asked for."""

    embedding: (
        Annotated[list[float], Field(description="The embedding, `embedding_dim` numbers.")]
        | Annotated[str, Field(description="With `encoding=base64`: little-endian float32.")]
    ) = Field(examples=[[0.123, -0.456]])
    embedding_shape: list[int] = Field(examples=[[512]])
    embedding_dim: int = Field(examples=[512])
    model: str = Field(description="The loaded recogniser.", examples=["antelopev2_glint360k"])
    input_size: str = Field(description="Width x height of the recogniser's input, in pixels.", examples=["112x112"])
    attributes: AttributesAnswer | None = Field(None, description="Only with `include_attributes=true`.")
    quality: QualityAnswer | None = Field(None, description="Only with `include_quality=true`.")
    warnings: list[QualityWarning] | None = Field(None, description=_WARNINGS)


class ProblemAnswer(BaseModel):
    """An error as RFC 9457 tells it."""

    type: Literal["about:blank"]
    title: str = Field(examples=["Unsupported Media Type"])
    status: int = Field(examples=[415])
    detail: str = Field(description="What was wrong, what is allowed, what to do.")
    code: str = Field(description="Stable; one of those that /embed can answer with.", examples=["image_damaged"])


class ResultAnswer(BaseModel):
    """One picture's result: `embedding` and `norm`, or `problem`."""

    embedding: list[float] | str | None = None
    norm: float | None = Field(None, description="Length of the raw embedding; with `flip`, of the sum of two.")
    attributes: AttributesAnswer | None = Field(None, description="Only with `include_attributes=true`.")
    quality: QualityAnswer | None = Field(None, description="Only with `include_quality=true`.")
    warnings: list[QualityWarning] | None = Field(None, description=_WARNINGS)
    problem: ProblemAnswer | None = Field(None, description="Why there is no embedding.")


class BatchAnswer(BaseModel):
    """The results of many pictures, in the order in which they were sent."""

    results: list[ResultAnswer]
    embedding_dim: int = Field(examples=[512])
    model: str = Field(description="The loaded recogniser.", examples=["antelopev2_glint360k"])
    input_size: str = Field(description="Width x height of the recogniser's input, in pixels.", examples=["112x112"])


class HealthAnswer(BaseModel):
    """Whether the service can embed, and on what."""

    status: Literal["ok", "failing"]
    pack: str = Field(examples=["antelopev2"])
    model: str = Field(examples=["antelopev2_glint360k"])
    provider: str = Field(description="The execution provider in use.", examples=["CPUExecutionProvider"])
    precision: str = Field(description="Arithmetic the provider uses.", examples=["float32"])
    threads: int = Field(description="Threads of one inference on the CPU.")
    batch_sizes: list[int] = Field(description="Sizes of a batch.", examples=[[1, 2, 4, 8]])
    self_test_cosine: float = Field(
        description="Lowest cosine to float32 on the CPU, of drawn faces at start.", examples=[0.9997]
    )
    reason: str | None = Field(
        None,
        description="Why it is failing, or why a faster choice was not taken; null: nothing to explain.",
    )


class StatusAnswer(BaseModel):
    """The answer of a probe."""

    status: str = Field(examples=["ready"])
    reason: str | None = Field(None, description="Why not, where it is not.")


class FileInfo(BaseModel):
    """One loaded model file, of the pack or of the service's own."""

    name: str
    role: str
    sha256: str
    size_bytes: int
    licence: str = Field(description="Of the weights.", examples=["CC0-1.0"])
    provenance: str = Field(description="What is known of the pictures that it was trained on; empty: nothing.")


class LicenceInfo(BaseModel):
    """Under what terms the weights are given."""

    name: str
    url: str
    allows_commercial_use: bool
    notice: str


class InputInfo(BaseModel):
    """What the recogniser takes."""

    width: int = Field(description="Pixels.")
    height: int = Field(description="Pixels.")
    mean: float
    std: float
    channel_order: str


class CropInfo(BaseModel):
    """What requests get that do not say how their picture becomes a crop."""

    align: str
    fit: str
    regressor_sha256: str = Field(description="Of the landmark regressor behind `align=auto`.")


class ThresholdInfo(BaseModel):
    """From which cosine similarity on two pictures may be taken for the same person, as measured on LFW."""

    far: float = Field(description="Part of pairs of different people that are then taken for the same.")
    similarity: float


class LimitsInfo(BaseModel):
    """What a request may measure."""

    max_image_bytes: int
    max_image_pixels: int
    max_batch_files: int
    max_batch_bytes: int
    max_upload_bytes_inside: int = Field(description="Of each worker.")
    upload_timeout_seconds: float
    upload_min_bytes_per_second: int
    max_connections: int = Field(description="Of each worker.")
    queue_capacity: int = Field(description="Of the whole service, all workers together.")
    request_timeout_seconds: float


class InfoAnswer(BaseModel):
    """Everything a caller may want to write down beside its vectors."""

    version: str = Field(description="Of the service.")
    pack: str
    model: str
    fingerprint: str = Field(description="Embeddings may be compared only if it is equal.")
    embedding_dim: int
    roles: list[str] = Field(description="What the pack's models can do.")
    assumptions: list[str] = Field(description="What had to be assumed about an imported pack.")
    files: list[FileInfo]
    licence: LicenceInfo
    input: InputInfo
    crop: CropInfo
    thresholds: list[ThresholdInfo] = Field(
        description="For aligned pictures; empty where none were measured. Those of another model say nothing here."
    )
    provider: str
    precision: str
    workers: int = Field(description="Processes that serve the port. The other figures hold for each of them.")
    threads: int = Field(description="Of one inference.")
    batch_sizes: list[int]
    self_test_cosine: float
    reason: str | None = Field(description="Why a faster choice was not taken.")
    limits: LimitsInfo
