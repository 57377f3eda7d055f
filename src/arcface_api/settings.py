"""Every setting of the service. Read once, in `cli/`, and passed down by value.

A setting comes from the command line (`--max-image-bytes`), else from the environment (`ARCFACE_MAX_IMAGE_BYTES`), else
from its default. The command line options and docs/configuration.md are generated from these fields.
"""

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt, ValidationError, field_validator
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
        " antelopev2 if it is installed or may be downloaded, else the open pack that is part of the package.",
    )
    models_dir: Path | None = Field(
        default=None,
        description="Folder of model packs, searched first and written by `packs pull`. Default: in the user's cache.",
    )
    pull: bool = Field(default=False, description="Download the pack at start if it is not installed.")
    accept_license: Annotated[frozenset[str], NoDecode] = Field(
        default=frozenset(),
        description="Comma-separated names of the packs whose licence you accept, which a download needs.",
    )
    host: str = Field(default="127.0.0.1", description="Address to listen on. The container image sets `0.0.0.0`.")
    port: int = Field(default=5555, ge=0, le=65535, description="TCP port to listen on; 0 takes a free one.")
    device: Device = Field(
        default="auto",
        description="What the models run on. `auto`: CUDA where it works, else the CPU; `/health` states the reason."
        " `cpu`, `cuda`, `tensorrt`: startup fails if it is unavailable. `tensorrt` is not verified on hardware; it"
        " needs NVIDIA's TensorRT, which neither the image nor an extra installs.",
    )
    precision: Precision = Field(
        default="auto",
        description="Arithmetic of the recogniser. `auto`: the fastest that passes the self-test at start (a cosine to"
        " float32 of at least 0.999): bfloat16 on CPUs that have it, float16 on GPUs. `float32`, `bfloat16` (CPUs),"
        " `float16` (GPUs): startup fails if it is unavailable.",
    )
    align: Literal["none", "auto"] | None = Field(
        default=None, description="`align` of requests without it: `none` or `auto`. Default: the pack's, else `none`."
    )
    fit: Literal["stretch", "letterbox"] | None = Field(
        default=None,
        description="`fit` of requests without it: `stretch` or `letterbox`. Default: the pack's, else `stretch`.",
    )
    cache_dir: Path | None = Field(
        default=None,
        description="Folder for compiled models, which make the next start faster. Default: in the user's cache.",
    )
    workers: PositiveInt = Field(
        default=1, le=256, description="Processes that serve the port, each with its own models."
    )
    threads: PositiveInt | None = Field(
        default=None,
        le=1024,
        description="Threads of all lanes. Default: the CPUs that affinity and cgroup quota allow, per worker.",
    )
    lanes: PositiveInt | None = Field(
        default=None,
        le=1024,
        description="Inferences that run side by side on the CPU, each on its share of the threads. `auto`: the fastest"
        " number, found out at the first start, and, where memory allows, a second copy of the model on all threads for"
        " a request that is alone. `1`: all requests run on all threads, which is best for a lone one. Higher: more"
        " requests per second, and a lone request takes longer.",
    )
    decode_threads: PositiveInt | None = Field(
        default=None, le=256, description="Threads that decode images, per worker. Default: its share of the CPUs."
    )
    max_image_bytes: PositiveInt = Field(
        default=20 * 1024 * 1024, description="Largest image file in bytes; more get 413 while they arrive."
    )
    max_image_pixels: PositiveInt = Field(
        default=50_000_000,
        le=500_000_000,  # OpenCV's warpAffine crashes the process on 20,000 x 40,000 pixels
        description="Largest image in pixels (width x height), read from the file's header before decoding.",
    )
    decode_isolation: Literal["none", "process"] = Field(
        default="none",
        description="`process`: decode images in separate processes, so that an image that crashes or hangs the decoder"
        " affects no other request. For callers you do not trust; costs about 3 % of throughput and 0.6 ms for a lone"
        " request. Linux only. `none`: decode in the service's process.",
    )
    decode_timeout_seconds: PositiveFloat = Field(
        default=10.0,
        description="Longest time to decode the largest allowed image. Smaller images get their share of it, at least 2"
        " seconds. Limited to two thirds of ARCFACE_HANG_SECONDS. No effect with ARCFACE_DECODE_ISOLATION=`none`.",
    )
    max_batch: PositiveInt | None = Field(
        default=None,
        le=1024,
        description="Maximum number of images in one inference. Default: 8 on the CPU, 64 on a GPU.",
    )
    queue_capacity: PositiveInt = Field(
        default=256,
        description="Maximum number of images inside the service; the next one gets 429 with Retry-After. Workers"
        " share it equally, but each accepts at least one full batch request.",
    )
    max_batch_files: PositiveInt = Field(
        default=64,
        description="Maximum number of images in one `POST /embed/batch`; more get 413. Limited to"
        " ARCFACE_QUEUE_CAPACITY.",
    )
    max_batch_bytes: PositiveInt = Field(
        default=64 * 1024 * 1024, description="Maximum total size of the images in one `POST /embed/batch`, in bytes."
    )
    max_upload_bytes_inside: PositiveInt = Field(
        default=128 * 1024 * 1024,
        description="Maximum total size of the uploads in one worker, in bytes, each counted from its arrival to its"
        " answer; an upload beyond it gets 429 with Retry-After. A quarter is reserved for uploads of up to 64 KiB. At"
        " least one full batch request always fits.",
    )
    upload_timeout_seconds: PositiveFloat = Field(default=60.0, description="Longest time for one upload; then 408.")
    upload_min_bytes_per_second: PositiveInt = Field(
        default=1024,
        description="Minimum mean speed of an upload after its first 5 seconds; a slower one gets 408. An answer that"
        " is read more slowly is cut off after 30 seconds.",
    )
    max_connections: PositiveInt = Field(
        default=1024,
        le=100_000,
        description="Maximum number of connections of one worker; one more gets 503 with Retry-After.",
    )
    request_timeout_seconds: PositiveFloat = Field(
        default=30.0,
        description="Longest time for one request; then 503. A caller may ask for less with X-Request-Timeout.",
    )
    hang_seconds: PositiveFloat = Field(
        default=15.0,
        description="A decode or an inference that takes longer counts as hung: `/livez` and `/readyz` report it, and"
        " the process ends with status 70, so that it can be restarted. A worker that is silent for as long is"
        " replaced.",
    )
    shutdown_grace_seconds: int = Field(
        default=8, ge=0, le=3600, description="Seconds for requests in flight to finish after SIGTERM."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="Lowest level that is logged: `debug`, `info`, `warning` or `error`."
    )
    access_log: bool = Field(
        default=False, description="Log each request: the caller's address, method, path with query, status."
    )

    @field_validator("device", "precision", "align", "fit", "decode_isolation", "log_level", mode="before")
    @classmethod
    def _ignore_case(cls, value: object) -> object:
        return value.lower() if isinstance(value, str) else value

    @field_validator("lanes", mode="before")
    @classmethod
    def _read_auto(cls, value: object) -> object:
        return None if isinstance(value, str) and value.lower() == "auto" else value

    @field_validator("accept_license", mode="before")
    @classmethod
    def _split_at_commas(cls, value: object) -> object:
        return frozenset(filter(None, map(str.strip, value.split(",")))) if isinstance(value, str) else value


def read_settings(**options: object) -> Settings:
    """The settings from `options` (the command line's; None: not given), the environment and the defaults.

    Raises `SettingInvalid`, which names each wrong setting, its value and the allowed ones.
    """
    given = {name: value for name, value in options.items() if value is not None}
    try:
        return Settings(**given)  # type: ignore[arg-type]  # options come untyped; validating them is what this does
    except ValidationError as error:
        raise SettingInvalid(" ".join(_explain(problem, given) for problem in error.errors())) from None


def misspelt_variables(environment: Mapping[str, str]) -> dict[str, str]:
    """Variables that look like misspelt settings, each with the setting that was probably meant.

    Other unknown `ARCFACE_…` variables are no mistake: for a service called `arcface-api`, Kubernetes sets
    `ARCFACE_API_SERVICE_HOST` and similar ones in every container.
    """
    known = [f"{ENVIRONMENT_PREFIX}{name.upper()}" for name in Settings.model_fields]
    unknown = [name for name in environment if name.startswith(ENVIRONMENT_PREFIX) and name not in known]
    matches = {name: difflib.get_close_matches(name, known, n=1, cutoff=0.85) for name in unknown}
    return {name: match[0] for name, match in matches.items() if match}


def _explain(problem: ErrorDetails, given: Mapping[str, object]) -> str:
    name = str(problem["loc"][0]) if problem["loc"] else "settings"
    if name not in Settings.model_fields:
        return f"There is no setting called {name}."
    where = f"--{name.replace('_', '-')}" if name in given else f"{ENVIRONMENT_PREFIX}{name.upper()}"
    allowed = problem["msg"].lower().replace("input should be", "it must be").partition(", unable to")[0]
    if name == "lanes":
        allowed = "it must be auto, or a whole number from 1 to 1024"
    if problem["type"] == "bool_parsing":
        allowed = "it must be true or false"
    if name == "port" and str(problem["input"]).startswith("tcp://"):
        allowed += (
            ". Kubernetes sets this variable for a service called `arcface`: set `enableServiceLinks: false` in the"
            " pod, or rename the service"
        )
    return f"{where}={problem['input']!r} is not allowed: {allowed}. See docs/configuration.md."
