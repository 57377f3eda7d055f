"""Every setting of the service. Read once, in `cli/`, and passed down by value.

A setting comes from the command line (`--max-image-bytes`), else from the environment (`ARCFACE_MAX_IMAGE_BYTES`), else
from its default. The command line options and docs/configuration.md are generated from these fields.

One module, because a setting stands beside the check of its value.
"""

import difflib
import ipaddress
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

import platformdirs
from pydantic import Field, PositiveFloat, PositiveInt, ValidationError, ValidationInfo, field_validator
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from arcface_api.errors import SettingInvalid

ENVIRONMENT_PREFIX = "ARCFACE_"
PREFIX = r"(?:/(?!\.{1,2}(?:/|$))[A-Za-z0-9._~-]+)+"
"""A path prefix, as a regular expression. No segment is `.` or `..`, which browsers take away."""

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
    pack_mirror: str | None = Field(
        default=None,
        description="Where packs are downloaded from instead of their registered sources: an https:// address under"
        " which a pack is an archive (`antelopev2.zip`) or a folder with its files (`antelopev2/glintr100.onnx`), under"
        " their registered names.",
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
        default=6.0,
        le=86_400,
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
    tls_certificate_file: Path | None = Field(
        default=None,
        description="PEM file with the certificate of the port, followed by those of the authorities between it and the"
        " root. Set, the port speaks HTTPS alone. Changes are used within seconds, without a restart.",
    )
    tls_key_file: Path | None = Field(
        default=None,
        description="PEM file with the private key of that certificate, without a passphrase. Default: the"
        " certificate's file, if it holds the key as well.",
    )
    tls_client_ca_file: Path | None = Field(
        default=None,
        description="PEM file with the authorities that sign callers' certificates. Set, callers without such a"
        " certificate get 403, except at `/health`, `/livez` and `/readyz`.",
    )
    upload_timeout_seconds: PositiveFloat = Field(
        default=60.0, le=86_400, description="Longest time for one upload; then 408."
    )
    upload_silence_seconds: PositiveFloat = Field(
        default=30.0, le=86_400, description="Longest silence in the middle of an upload; then 408."
    )
    upload_min_bytes_per_second: PositiveInt = Field(
        default=1024,
        description="Minimum mean speed of an upload after its first 5 seconds; a slower one gets 408. An answer that"
        " is read more slowly is cut off after 30 seconds.",
    )
    max_connections: PositiveInt = Field(
        default=1024,
        le=100_000,
        description="Maximum number of connections of one worker. One more closes the one that has been idle longest;"
        " if none has been idle for a second, it gets 503 with Retry-After.",
    )
    max_connections_per_address: PositiveInt | None = Field(
        default=None,
        le=100_000,
        description="Maximum number of connections of one worker from one address (of IPv6, a network of 64 bits). One"
        " more closes the address's own that has been idle longest; if none has been idle for a second, it gets 429"
        " with Retry-After. ARCFACE_TRUSTED_PROXIES have no such limit. Default: ARCFACE_MAX_CONNECTIONS alone.",
    )
    max_unread_answer_bytes: PositiveInt = Field(
        default=64 * 1024 * 1024,
        description="Maximum total size of the answers of one worker that wait for callers to read them; beyond it, the"
        " connection that is read most slowly is cut off. Up to 64 KiB of each connection do not count.",
    )
    max_head_bytes: int = Field(
        default=64 * 1024,
        ge=1024,
        le=1024 * 1024,
        description="Maximum size of a request line and headers together, in bytes; more get 431.",
    )
    max_header_bytes: int = Field(
        default=16 * 1024,
        ge=256,
        le=1024 * 1024,
        description="Maximum size of a request line, and of each header, in bytes; more get 431.",
    )
    max_headers: int = Field(default=100, ge=8, le=10_000, description="Maximum number of headers; more get 431.")
    head_timeout_seconds: PositiveFloat = Field(
        default=30.0,
        le=86_400,
        description="Longest time for a request line and headers to arrive; then the connection is closed.",
    )
    keep_alive_seconds: PositiveInt = Field(
        default=75,
        le=86_400,
        description="Seconds for which a connection stays open between two requests. Set more than your clients and"
        " proxies keep it (most: 60 or less): a request that is sent while the service closes is lost.",
    )
    request_timeout_seconds: PositiveFloat = Field(
        default=30.0,
        le=86_400,
        description="Longest time for one request; then 503. A caller may ask for less with X-Request-Timeout.",
    )
    hang_seconds: PositiveFloat = Field(
        default=10.0,
        le=86_400,
        description="A decode or an inference that takes longer counts as hung, and so does a model that only fails for"
        " as long: `/livez` and `/readyz` report it, and the process ends with status 70, so that it can be restarted."
        " A worker that is silent for as long is replaced.",
    )
    self_check_seconds: float = Field(
        default=60.0,
        ge=0,
        le=86_400,
        description="Seconds between two self-checks: synthetic faces are embedded and compared with float32 and with"
        " the first answers. If they differ, no caller gets a vector; if that lasts for ARCFACE_HANG_SECONDS, the"
        " process ends with status 70. A check waits for a moment without callers. `0`: none.",
    )
    self_check_busy_seconds: PositiveFloat = Field(
        default=300.0,
        le=86_400,
        description="Longest time between two self-checks while callers leave no such moment: then one runs beside"
        " them.",
    )
    shutdown_grace_seconds: int = Field(
        default=8, ge=0, le=3600, description="Seconds for requests in flight to finish after SIGTERM."
    )
    root_path: str = Field(
        default="",
        description="Path prefix under which a proxy publishes the service, for example `/face`, whether or not it"
        " takes it away. Default: the X-Forwarded-Prefix of ARCFACE_TRUSTED_PROXIES, else none.",
    )
    trusted_proxies: Annotated[frozenset[str], NoDecode] = Field(
        default=frozenset(),
        description="Comma-separated addresses and networks of the proxies whose X-Forwarded-For, X-Forwarded-Host and"
        " X-Forwarded-Prefix are believed; `*` for all. Default: none.",
    )
    cors_origins: Annotated[frozenset[str], NoDecode] = Field(
        default=frozenset(),
        description="Comma-separated origins of web pages that may use the service from a browser, for example"
        " `https://app.example`; `*` for all. Default: none.",
    )
    api_keys_file: Path | None = Field(
        default=None,
        description="File with the API keys that callers need, a line for each: `name key` or `name sha256:HEX`"
        " ([who may call it](security.md)). It is read again when it changes. Default: everybody may call.",
    )
    rate_limit: str | None = Field(
        default=None,
        description="Most pictures of one caller in a time, for example `600/minute`, or several such limits separated"
        " by `;`; more get 429 `rate_limited` with Retry-After. A caller is the name of an API key or, without keys, an"
        " address (with IPv6 a /64 network). Workers share it equally. Default: no limit.",
    )
    rate_limit_exempt: Annotated[frozenset[str], NoDecode] = Field(
        default=frozenset(),
        description="Comma-separated addresses and networks of callers to whom ARCFACE_RATE_LIMIT does not apply."
        " Default: none.",
    )
    allowed_hosts: Annotated[frozenset[str], NoDecode] = Field(
        default=frozenset(),
        description="Comma-separated names under which the service may be called, as the Host header has them without"
        " the port; `*.example.com` allows all below it, `*` all. Addresses such as 192.0.2.7 are always allowed."
        " Default: `localhost` and other names without a dot if ARCFACE_HOST is an address of this machine alone, else"
        " all.",
    )
    page: bool = Field(
        default=True,
        description="Serve the page to try the service in a browser, at `/`. `false`: `/` leads to `/docs`.",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="Lowest level that is logged: `debug`, `info`, `warning` or `error`."
    )
    log_format: Literal["auto", "text", "json"] = Field(
        default="auto",
        description="`text`: lines for people. `json`: an object a line, for programs. `auto`: text on a terminal, else"
        " JSON.",
    )
    log_lines_per_minute: PositiveInt = Field(
        default=60,
        description="Most lines of one kind a minute in the log of each process; the next ones are counted, in one line"
        " at the end of the minute and in `arcface_log_lines_dropped_total`. The access log has no limit.",
    )
    core_files: bool = Field(
        default=False,
        description="Let the system write a core file when the service crashes. It holds the service's memory, with"
        " pictures and vectors.",
    )
    slow_request_seconds: PositiveFloat = Field(
        default=5.0,
        le=86_400,
        description="A request to embed that takes longer is logged with the time of its stages; one line a second at"
        " most.",
    )
    trace_share: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="Share of the requests to embed of which OpenTelemetry spans are sent by OTLP over HTTP, to where"
        " `OTEL_EXPORTER_OTLP_ENDPOINT` says; callers' `traceparent` decides first. Needs the extra `otel`. `0`: none.",
    )
    access_log: bool = Field(
        default=False, description="Log each request: the caller's address, method, path without query, status."
    )

    @field_validator(
        "device", "precision", "align", "fit", "decode_isolation", "log_level", "log_format", mode="before"
    )
    @classmethod
    def _ignore_case(cls, value: object) -> object:
        return value.lower() if isinstance(value, str) else value

    @field_validator("pack_mirror")
    @classmethod
    def _is_safe(cls, value: str | None) -> str | None:
        if value is None:
            return None
        parts = urlsplit(value)
        is_safe = parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in {"127.0.0.1", "localhost"})
        if not is_safe or not parts.hostname or parts.query or parts.fragment:
            raise ValueError("it must begin with https:// and end with a host or a path")
        return value.rstrip("/")

    @field_validator("host")
    @classmethod
    def _without_brackets(cls, value: str) -> str:
        return value[1:-1] if value.startswith("[") and value.endswith("]") else value

    @field_validator(
        "pack",
        "models_dir",
        "cache_dir",
        "api_keys_file",
        "tls_certificate_file",
        "tls_key_file",
        "tls_client_ca_file",
        mode="before",
    )
    @classmethod
    def _find_home(cls, value: object) -> object:
        if not str(value).startswith("~"):
            return value
        try:
            return str(Path(str(value)).expanduser())
        except RuntimeError:
            raise ValueError("~ is a home folder that this system does not know; write the whole path") from None

    @field_validator("lanes", mode="before")
    @classmethod
    def _read_auto(cls, value: object) -> object:
        return None if isinstance(value, str) and value.lower() == "auto" else value

    @field_validator("root_path")
    @classmethod
    def _is_prefix(cls, value: str) -> str:
        if not re.fullmatch(f"(?:{PREFIX})?/?", value):
            raise ValueError("it must be a path such as /face or /apis/face")
        return value.rstrip("/")

    @field_validator("trusted_proxies", "rate_limit_exempt")
    @classmethod
    def _are_networks(cls, value: frozenset[str], about: ValidationInfo) -> frozenset[str]:
        for entry in value - ({"*"} if about.field_name == "trusted_proxies" else set()):
            try:
                ipaddress.ip_network(entry, strict=False)
            except ValueError:
                raise ValueError(f"{entry} is neither an address nor a network such as 10.0.0.0/8") from None
        return value

    @field_validator("cors_origins")
    @classmethod
    def _are_origins(cls, value: frozenset[str]) -> frozenset[str]:
        origins = frozenset(entry.rstrip("/").lower() for entry in value)
        for entry in origins - {"*"}:
            if not re.fullmatch(r"[a-z][a-z0-9+.-]*://[^/?#@\s*]+", entry):
                raise ValueError(f"{entry} is no origin; write https://host or https://host:port, without a path or *")
            if re.fullmatch(r"http://.*:80|https://.*:443", entry):
                raise ValueError(f"{entry} has the usual port, which browsers leave out; write it without")
        return origins

    @field_validator("rate_limit")
    @classmethod
    def _are_limits(cls, value: str | None) -> str | None:
        if value is not None:
            from limits import parse_many  # noqa: PLC0415  # few have such a limit

            try:
                has_none = any(not limit.amount or not limit.get_expiry() for limit in parse_many(value))
            except ValueError:
                has_none = True
            if has_none:
                raise ValueError("it must be pictures in a time, such as 600/minute or 20/second;600/minute")
        return value

    @field_validator("allowed_hosts")
    @classmethod
    def _are_hosts(cls, value: frozenset[str]) -> frozenset[str]:
        hosts = frozenset(entry.lower().rstrip(".") for entry in value)
        for entry in hosts - {"*"}:
            if not re.fullmatch(r"(?:\*\.)?[a-z0-9_-]+(?:\.[a-z0-9_-]+)*", entry):
                raise ValueError(f"{entry} is no name of a host; write face.example.com or *.example.com")
        return hosts

    @field_validator(
        "accept_license", "trusted_proxies", "cors_origins", "rate_limit_exempt", "allowed_hosts", mode="before"
    )
    @classmethod
    def _split_at_commas(cls, value: object) -> object:
        return frozenset(filter(None, map(str.strip, value.split(",")))) if isinstance(value, str) else value

    @field_validator("*", mode="before")  # the last one here is the first to run
    @classmethod
    def _without_quotes(cls, value: object, about: ValidationInfo) -> object:
        """`docker run --env-file` keeps quotes, and the line ends of files from Windows."""
        if not isinstance(value, str) or not value:
            return value
        bare = value.strip()
        if len(bare) > 1 and bare[0] == bare[-1] and bare[0] in "\"'":
            bare = bare[1:-1].strip()
        return bare or cls.model_fields[about.field_name or ""].default  # as an empty variable


def read_settings(**options: object) -> Settings:
    """The settings from `options` (the command line's; None: not given), the environment and the defaults.

    Raises `SettingInvalid`, which names each wrong setting, its value and the allowed ones.
    """
    given = {name: value for name, value in options.items() if value is not None}
    try:
        return Settings(**given)  # type: ignore[arg-type]  # options come untyped; validating them is what this does
    except ValidationError as error:
        raise SettingInvalid(" ".join(_explain(problem, given) for problem in error.errors())) from None


def read_usable(**options: object) -> tuple[Settings, tuple[str, ...]]:
    """As `read_settings`, but a wrong setting has its default, and a sentence about it is returned."""
    given = {name: value for name, value in options.items() if value is not None}
    try:
        return Settings(**given), ()  # type: ignore[arg-type]  # as in `read_settings`
    except ValidationError as error:
        sentences = tuple(_explain(problem, given) for problem in error.errors())
        wrong = {str(problem["loc"][0]) for problem in error.errors() if problem["loc"]}
    defaults = {name: Settings.model_fields[name].default for name in wrong if name in Settings.model_fields}
    known = {name: value for name, value in given.items() if name in Settings.model_fields}
    return Settings(**(known | defaults)), sentences  # type: ignore[arg-type]  # as above


def user_cache() -> Path:
    """This service's folder in the user's cache. A user without a home, as in OpenShift, has one that is not there."""
    try:
        folder = platformdirs.user_cache_path("arcface-api")
    except RuntimeError:
        folder = Path("~")  # as earlier versions of platformdirs return it
    return folder if folder.is_absolute() else Path("/.cache/arcface-api")


def misspelt_variables(environment: Mapping[str, str]) -> dict[str, str]:
    """Variables that look like misspelt settings, each with the setting that was probably meant.

    Other unknown `ARCFACE_…` variables are no mistake: for a service called `arcface-api`, Kubernetes sets
    `ARCFACE_API_SERVICE_HOST` and similar ones in every container.
    """
    known = [f"{ENVIRONMENT_PREFIX}{name.upper()}" for name in Settings.model_fields]
    unknown = [name for name in environment if name.startswith(ENVIRONMENT_PREFIX) and name not in known]
    matches = {name: difflib.get_close_matches(name, known, n=1, cutoff=0.85) for name in unknown}
    return {name: match[0] for name, match in matches.items() if match}


def _allowed_numbers(name: str) -> str:
    """The numbers that a setting may be, with both ends where there are two; empty: it is no number."""
    described = Settings.model_json_schema()["properties"][name]
    schema = described.get("anyOf", [described])[0]  # behind it: null
    if (kind := schema.get("type")) not in ("integer", "number"):
        return ""
    least, most, above = (schema.get(limit) for limit in ("minimum", "maximum", "exclusiveMinimum"))
    if kind == "integer" and above is not None:
        least, above = above + 1, None
    number = "a whole number" if kind == "integer" else "a number"
    if above is not None:
        return f"{number} above {above}" + (f" and at most {most}" if most is not None else "")
    return f"{number} from {least} to {most}" if most is not None else f"{number} of at least {least}"


def _explain(problem: ErrorDetails, given: Mapping[str, object]) -> str:
    name = str(problem["loc"][0]) if problem["loc"] else "settings"
    if name not in Settings.model_fields:
        return f"There is no setting called {name}."
    where = f"--{name.replace('_', '-')}" if name in given else f"{ENVIRONMENT_PREFIX}{name.upper()}"
    allowed = problem["msg"].lower().removeprefix("value error, ").replace("input should be", "it must be")
    if numbers := _allowed_numbers(name):
        unit = ", without a unit" if problem["type"].endswith("_parsing") else ""
        allowed = f"it must be {'auto, or ' if name == 'lanes' else ''}{numbers}{unit}"
    if problem["type"] == "bool_parsing":
        allowed = "it must be true or false"
    if name == "port" and str(problem["input"]).startswith("tcp://"):
        allowed += (
            ". Kubernetes sets this variable for a service called `arcface`: set `enableServiceLinks: false` in the"
            " pod, or rename the service"
        )
    value = problem["input"]
    shown = repr(",".join(sorted(value)) if isinstance(value, frozenset) else value)
    shown = re.sub(r"(?<=://)[^/@]*@", "***@", shown)  # a password
    return f"{where}={shown} is not allowed: {allowed}. See docs/configuration.md."
