"""Every setting of the service: name, unit, default, meaning. Read once, in `cli/`, and passed down by value.

A setting comes from the command line (`--max-image-bytes`), else from the environment (`ARCFACE_MAX_IMAGE_BYTES`), else
from its default here. `docs/configuration.md` and the command line options are generated from these fields.
"""

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError, field_validator
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from arcface_api.errors import SettingInvalid

ENVIRONMENT_PREFIX = "ARCFACE_"

Device = Literal["auto", "cpu", "cuda", "tensorrt"]
Precision = Literal["auto", "float32", "bfloat16", "float16"]


class Settings(BaseSettings):
    """The service's settings; frozen. Built by `read_settings`."""

    model_config = SettingsConfigDict(env_prefix=ENVIRONMENT_PREFIX, frozen=True, extra="forbid", env_ignore_empty=True)

    pack: str = Field(
        default="antelopev2",
        description="Model pack: a name (`arcface-api packs list`), a folder, or one recogniser `.onnx` file. `auto`:"
        " antelopev2 where it is installed or may be downloaded, else the open pack that is part of the package.",
    )
    models_dir: Path | None = Field(
        default=None,
        description="Folder of model packs, searched first and written by `packs pull`. Default: the user's cache.",
    )
    pull: bool = Field(default=False, description="Download the pack at start when it is not installed.")
    accept_license: Annotated[frozenset[str], NoDecode] = Field(
        default=frozenset(),
        description="Comma-separated names of the packs whose licence you accept; needed to download them.",
    )
    host: str = Field(default="127.0.0.1", description="Address to listen on. The container image sets `0.0.0.0`.")
    port: int = Field(default=5555, ge=0, le=65535, description="TCP port to listen on; 0 takes a free one.")
    device: Device = Field(
        default="auto",
        description="What the models run on. `auto`: CUDA where it works, else the CPU; `/health` states the reason."
        " `cpu`, `cuda`, `tensorrt`: the start fails if it is unavailable. `tensorrt` is not verified on hardware; it"
        " needs NVIDIA's TensorRT, which neither the image nor an extra installs.",
    )
    precision: Precision = Field(
        default="auto",
        description="Arithmetic of the recogniser. `auto`: the fastest that passes the self-test at start (a cosine to"
        " float32 of at least 0.999): bfloat16 on CPUs that have it, float16 on GPUs. `float32`, `bfloat16` (CPUs),"
        " `float16` (GPUs): the start fails if it is unavailable.",
    )
    align: Literal["none", "auto"] | None = Field(
        default=None,
        description="What requests get that do not say `align`: `none` or `auto`. Default: what the pack's manifest"
        " says, else `none`.",
    )
    fit: Literal["stretch", "letterbox"] | None = Field(
        default=None,
        description="What requests get that do not say `fit`: `stretch` or `letterbox`. Default: what the pack's"
        " manifest says, else `stretch`.",
    )
    cache_dir: Path | None = Field(
        default=None,
        description="Folder for compiled models, which make the next start faster. Default: in the user's cache.",
    )
    workers: int = Field(
        default=1,
        ge=1,
        le=256,
        description="Processes that serve the port, each with models of its own. See docs/operations.md for when.",
    )
    threads: int | None = Field(
        default=None,
        ge=1,
        le=1024,
        description="Threads of one inference. Default: the CPUs that affinity and cgroup quota leave, per worker.",
    )
    decode_threads: int | None = Field(
        default=None,
        ge=1,
        le=256,
        description="Threads that decode images, in each worker. Default: its CPUs, as for one inference.",
    )
    max_image_bytes: int = Field(
        default=20 * 1024 * 1024,
        ge=1,
        description="Largest image file accepted, in bytes; more is refused with 413 while it arrives.",
    )
    max_image_pixels: int = Field(
        default=50_000_000,
        ge=1,
        le=500_000_000,  # OpenCV's warpAffine crashes the process on 20,000 x 40,000 pixels
        description="Largest image accepted, in pixels (width x height); read from the file's header before decoding.",
    )
    decode_isolation: Literal["none", "process"] = Field(
        default="none",
        description="`process`: pictures are decoded in processes of their own, so that one that crashes or hangs the"
        " decoder costs only itself; for callers who are not your own, at about 3 % of throughput and 0.6 ms a lone"
        " request. Linux only. `none`: in the service's process.",
    )
    decode_timeout_seconds: float = Field(
        default=10.0,
        gt=0,
        description="How long the largest allowed picture may take to decode; smaller ones get their share, and 2"
        " seconds at the least. Never more than two thirds of ARCFACE_HANG_SECONDS. With"
        " ARCFACE_DECODE_ISOLATION=`none` nothing ends a decode.",
    )
    max_batch: int | None = Field(
        default=None, ge=1, le=1024, description="Most pictures in one inference. Default: 8 on the CPU, 64 on a GPU."
    )
    queue_capacity: int = Field(
        default=256,
        ge=1,
        description=(
            "Pictures that may be inside the service at once; the next one gets 429 with Retry-After. Workers share it"
            " equally, but each takes at least one full batch request."
        ),
    )
    max_batch_files: int = Field(
        default=64,
        ge=1,
        description="Most pictures in one `POST /embed/batch`; more get 413. Never more than ARCFACE_QUEUE_CAPACITY.",
    )
    max_batch_bytes: int = Field(
        default=64 * 1024 * 1024, ge=1, description="Largest sum of the pictures of one `POST /embed/batch`, in bytes."
    )
    max_upload_bytes_inside: int = Field(
        default=128 * 1024 * 1024,
        ge=1,
        description="Bytes of all uploads that each worker may hold at once, from their arrival to their answer; the"
        " upload that would exceed it gets 429 with Retry-After. A quarter is kept for uploads of up to 64 KiB. Never"
        " less than one full batch request needs.",
    )
    upload_timeout_seconds: float = Field(
        default=60.0, gt=0, description="Longest time that an upload may take; 408 beyond."
    )
    upload_min_bytes_per_second: int = Field(
        default=1024,
        ge=1,
        description="Least mean speed of an upload after its first 5 seconds; a slower one gets 408. Answers that are"
        " read more slowly are cut off after 30 seconds.",
    )
    max_connections: int = Field(
        default=1024,
        ge=1,
        le=100_000,
        description="Connections that each worker may have at once; one more gets 503 with Retry-After.",
    )
    request_timeout_seconds: float = Field(
        default=30.0,
        gt=0,
        description="What is not served by then is dropped, 503. A caller may ask for less with X-Request-Timeout.",
    )
    hang_seconds: float = Field(
        default=15.0,
        gt=0,
        description="A decode or an inference that takes longer counts as hung: `/livez` and `/readyz` say so and the"
        " process ends with status 70, to be started again. A worker that does not respond for so long is replaced.",
    )
    shutdown_grace_seconds: int = Field(
        default=8, ge=0, le=3600, description="How long requests in flight may still take after SIGTERM, in seconds."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="Least severe log line written: `debug`, `info`, `warning` or `error`."
    )
    access_log: bool = Field(
        default=False,
        description="Write one log line per request: the caller's address, method, path with query, status.",
    )

    @field_validator("device", "precision", "align", "fit", "decode_isolation", "log_level", mode="before")
    @classmethod
    def _ignore_case(cls, value: object) -> object:
        return value.lower() if isinstance(value, str) else value

    @field_validator("accept_license", mode="before")
    @classmethod
    def _split_at_commas(cls, value: object) -> object:
        return frozenset(filter(None, map(str.strip, value.split(",")))) if isinstance(value, str) else value


def read_settings(**options: object) -> Settings:
    """The settings from `options` (the command line's; None means not given), the environment and the defaults.

    Raises:
        SettingInvalid: naming each wrong setting, its value and what is allowed.
    """
    given = {name: value for name, value in options.items() if value is not None}
    try:
        return Settings(**given)  # type: ignore[arg-type]  # options come untyped; validating them is what this does
    except ValidationError as error:
        raise SettingInvalid(" ".join(_explain(problem, given) for problem in error.errors())) from None


def misspelt_variables(environment: Mapping[str, str]) -> dict[str, str]:
    """Variables that look like misspelt settings, each with the setting that was probably meant.

    Unknown `ARCFACE_…` variables are no error in themselves: Kubernetes injects `ARCFACE_API_SERVICE_HOST` and its like
    into every container beside a service called `arcface-api`.
    """
    known = [f"{ENVIRONMENT_PREFIX}{name.upper()}" for name in Settings.model_fields]
    found: dict[str, str] = {}
    for variable in environment:
        if variable.startswith(ENVIRONMENT_PREFIX) and variable not in known:
            close = difflib.get_close_matches(variable, known, n=1, cutoff=0.85)
            if close:
                found[variable] = close[0]
    return found


def _explain(problem: ErrorDetails, given: Mapping[str, object]) -> str:
    name = str(problem["loc"][0]) if problem["loc"] else "settings"
    if name not in Settings.model_fields:
        return f"There is no setting called {name}."
    where = f"--{name.replace('_', '-')}" if name in given else f"{ENVIRONMENT_PREFIX}{name.upper()}"
    hint = ""
    if name == "port" and str(problem["input"]).startswith("tcp://"):
        hint = (
            " Kubernetes sets this variable for a service called `arcface`: set `enableServiceLinks: false` in the"
            " pod, or name the service otherwise."
        )
    if problem["type"] == "bool_parsing":
        return f"{where}={problem['input']!r} is not allowed: it is true or false. See docs/configuration.md."
    return f"{where}={problem['input']!r} is not allowed: {problem['msg'].lower()}.{hint} See docs/configuration.md."
