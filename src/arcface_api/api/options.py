"""The options of a request, from its query and headers, and how OpenAPI describes them.

One module, because an option stands beside its description.
"""

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from fastapi import Request

from arcface_api.embedder import Embedder, EmbedOptions
from arcface_api.errors import FingerprintDiffers, NotAcceptable, ParameterInvalid, ParametersConflict
from arcface_api.image import EXACT_UP_TO_PIXELS, Resize
from arcface_api.wire import (
    MODEL_FINGERPRINT_HEADER,
    RECIPE_HEADER,
    REQUEST_ID_HEADER,
    REQUEST_TIMEOUT_HEADER,
    REQUIRE_FINGERPRINT_HEADER,
    REQUIRE_RECIPE_HEADER,
    Align,
    Encoding,
    Fit,
    MediaType,
)
from arcface_api.wording import did_you_mean


@dataclass(frozen=True)
class RequestOptions:
    """What one request asks for."""

    embed: EmbedOptions
    encoding: Encoding
    media_type: MediaType
    has_warnings: bool
    """The body has `warnings`: the query itself asks for something that can cause some."""


@dataclass(frozen=True)
class Option:
    """An option of the query: its values by how they are written, its schema, and what it does."""

    values: Mapping[str, Any]
    schema: Mapping[str, Any]
    description: str


def _boolean(description: str) -> Option:
    values = {"true": True, "false": False, "1": True, "0": False, "yes": True, "no": False, "on": True, "off": False}
    return Option(values, {"type": "boolean", "default": False}, description)


def _choice(choices: type[StrEnum], description: str, default: StrEnum | None = None) -> Option:
    """One of several values; without a default here, the service's settings have one."""
    values = {member.value: member for member in choices}
    schema = {"type": "string", "enum": list(values)} | ({"default": default.value} if default else {})
    return Option(values, schema, description)


OPTIONS: dict[str, Option] = {
    "include_attributes": _boolean("Add `attributes`: age, gender and head pose."),
    "include_quality": _boolean(
        "Add `quality`, and `warnings` of what may be wrong with the picture. Never changes the embedding."
    ),
    "include_landmarks": _boolean(
        "Add `landmarks`: the five points by which the face is aligned, or would be, as the form's part `landmarks`"
        " takes them; and `warnings`. Never changes the embedding."
    ),
    "include_crop": _boolean(
        "Add `crop`: Base64 of a PNG with exactly the pixels that the recogniser got. Sent with `align=none`, it has"
        " the same embedding."
    ),
    "flip": _boolean(
        "Add the embedding of the mirrored crop, before normalising: a little more accurate, at twice the cost. Compare"
        " such embeddings only with each other."
    ),
    "normalize": _boolean("Divide the embedding by its norm, so that a dot product is the cosine similarity."),
    "align": _choice(
        Align,
        "`none`: the whole picture is the crop. `auto`: turn, scale and shift the face to where the recogniser was"
        " trained to see it, by landmarks that the service finds; if they are uncertain, as `none`. `landmarks`: by"
        " those in the form's part or JSON's key `landmarks`. Default: see `crop` in `/info`.",
    ),
    "fit": _choice(
        Fit,
        "How a picture that is not aligned becomes a crop. `stretch`: scale each side separately. `letterbox`: keep the"
        " picture's shape and fill the rest with black. Default: see `crop` in `/info`.",
    ),
    "encoding": _choice(
        Encoding,
        "The embedding in a JSON answer: a list of numbers, or Base64 of little-endian float32 (2.7 kB instead of 6).",
        Encoding.FLOAT,
    ),
    "resize": _choice(
        Resize,
        f"`auto`: a JPEG of more than {EXACT_UP_TO_PIXELS:,} pixels may be decoded at a fraction of its size, which is"
        " faster and gives a slightly different vector. `exact`: the reference's vector for every size. With `align`"
        " other than `none` no picture is reduced.",
        Resize.AUTO,
    ),
}
"""Of `/embed` and `/embed/batch`; `arcface-api embed` has the same, but `encoding`."""

OPTION_NAMES = frozenset(OPTIONS)
_JSON_ONLY = *(name for name in OPTIONS if name.startswith("include_")), "encoding"
_REQUIRE_FINGERPRINT = REQUIRE_FINGERPRINT_HEADER.lower().encode()
_REQUIRE_RECIPE = REQUIRE_RECIPE_HEADER.lower().encode()
_REQUEST_TIMEOUT = REQUEST_TIMEOUT_HEADER.lower().encode()
_OPTION_HEADERS = {_REQUIRE_FINGERPRINT, _REQUIRE_RECIPE, _REQUEST_TIMEOUT}


def _parameter(name: str, place: str, description: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    return {"name": name, "in": place, "required": False, "description": description, "schema": dict(schema)}


OPENAPI_PARAMETERS = [
    *(_parameter(name, "query", option.description, option.schema) for name, option in OPTIONS.items()),
    _parameter(
        REQUEST_TIMEOUT_HEADER,
        "header",
        "Seconds within which the answer is useful, at most `ARCFACE_REQUEST_TIMEOUT_SECONDS`. A request that cannot be"
        " answered in time is dropped before inference: 503 `deadline_exceeded`.",
        {"type": "number", "exclusiveMinimum": 0},
    ),
    _parameter(
        REQUIRE_FINGERPRINT_HEADER,
        "header",
        f"The `{MODEL_FINGERPRINT_HEADER}` of your stored embeddings. If the loaded model has another one: 409"
        " `fingerprint_differs`, and nothing is embedded.",
        {"type": "string"},
    ),
    _parameter(
        REQUIRE_RECIPE_HEADER,
        "header",
        f"The `{RECIPE_HEADER}` of your stored embeddings. A picture that would get another one: 409 `recipe_differs`,"
        " and it is not embedded; in a batch, the problem of that picture, unless all would get another one.",
        {"type": "string"},
    ),
    _parameter(
        REQUEST_ID_HEADER,
        "header",
        "An identity of your own, up to 128 letters, digits and `._:/+=@-`, which the answer and the service's log"
        " name; another one is replaced by a new one. `traceparent` is logged as well.",
        {"type": "string"},
    ),
]


def header(request: Request, name: bytes) -> str | None:
    """The value of the header with this name, in lower case; None without one. As `Request.headers`, but faster."""
    for key, value in request.scope["headers"]:
        if key == name:
            return str(value, "latin-1")
    return None


def read_options(
    request: Request, embedder: Embedder, timeout_seconds: float, defaults: EmbedOptions
) -> RequestOptions:
    """The options in a request's query and headers. Unknown ones are refused, as a misspelt one changes the vector.

    `timeout_seconds` is the most time that a request can have; `defaults` apply to what it does not choose.

    Raises:
        FingerprintDiffers, RecipeDiffers, ParameterInvalid, ParametersConflict, NotAcceptable: An option cannot be met.
    """
    headers = _headers(request)
    recogniser, required = embedder.recogniser, headers.get(_REQUIRE_FINGERPRINT)
    if required is not None and required.lower() != recogniser.fingerprint:
        raise FingerprintDiffers(
            f"{REQUIRE_FINGERPRINT_HEADER} is {required}, but the loaded model ({recogniser.name}) has"
            f" {recogniser.fingerprint}: its embeddings must not be compared with yours. Use a service that has your"
            " model, or embed your pictures again with this one."
        )
    timeout = headers.get(_REQUEST_TIMEOUT)
    seconds = timeout_seconds if timeout is None else min(_seconds(timeout), timeout_seconds)
    deadline = time.monotonic() + seconds
    chosen = _query(request) if request.scope["query_string"] else {}
    accept = ", ".join([value.decode("latin-1") for name, value in request.scope["headers"] if name == b"accept"])
    media_type = MediaType.JSON if accept in {"", "*/*"} else _negotiate(accept)
    if media_type is not MediaType.JSON:
        for name in _JSON_ONLY:
            if chosen.get(name) in (True, Encoding.BASE64):
                raise ParametersConflict(
                    f"{name} needs a JSON answer, but Accept asks for {media_type}. Leave out {name}, or send"
                    f" Accept: {MediaType.JSON}."
                )
    finds_face = chosen.get("include_quality", False) or chosen.get("include_landmarks", False)
    has_warnings = finds_face or chosen.get("align") is Align.AUTO
    encoding = chosen.pop("encoding", Encoding.FLOAT)
    required_recipe = headers.get(_REQUIRE_RECIPE)
    embed = replace(defaults, deadline=deadline, required_recipe=required_recipe and required_recipe.lower(), **chosen)
    if required_recipe is not None:
        embedder.recipes.check(embed)
    return RequestOptions(embed, encoding, media_type, has_warnings)


def _headers(request: Request) -> dict[bytes, str]:
    """The headers that are options. One that is repeated is refused, as nothing says which value holds."""
    found: dict[bytes, str] = {}
    for name, value in request.scope["headers"]:
        if name in _OPTION_HEADERS:
            if name in found:
                raise ParameterInvalid(f"The header {name.decode().title()} is given more than once. Send it once.")
            found[name] = value.decode("latin-1").strip()
    return found


def _query(request: Request) -> dict[str, Any]:
    chosen: dict[str, Any] = {}
    for name, value in request.query_params.multi_items():
        option = OPTIONS.get(name)
        if option is None:
            raise ParameterInvalid(
                f"There is no query parameter {name}.{did_you_mean(name, OPTIONS)} Allowed are {', '.join(OPTIONS)}."
            )
        if name in chosen:
            raise ParameterInvalid(f"The query parameter {name} is given more than once. Give it once.")
        if value.lower() not in option.values:
            allowed = ", ".join(option.values)
            raise ParameterInvalid(f"The query parameter {name}={value} is not allowed. Allowed are {allowed}.")
        chosen[name] = option.values[value.lower()]
    return chosen


def _seconds(timeout: str) -> float:
    try:
        seconds = float(timeout)
    except ValueError:
        seconds = math.nan
    if not seconds > 0:
        raise ParameterInvalid(
            f"{REQUEST_TIMEOUT_HEADER}: {timeout} is not allowed. Send a positive number of seconds, for example 0.5."
        )
    return seconds


def _negotiate(accept: str) -> MediaType:
    """The representation that Accept prefers (RFC 9110 section 12.5.1); JSON wins a tie."""
    weights: dict[str, float] = {}
    for item in accept.split(","):
        name, *parameters = (part.strip().lower() for part in item.split(";"))
        try:
            weight = next((float(parameter[2:]) for parameter in parameters if parameter.startswith("q=")), 1.0)
        except ValueError:
            weight = 0.0
        weights[name] = max(weights.get(name, 0.0), weight)
    best, best_weight = None, 0.0
    for media_type in MediaType:
        ranges = (media_type.value, f"{media_type.split('/')[0]}/*", "*/*")  # the most specific one counts
        weight = next((weights[each] for each in ranges if each in weights), 0.0)
        if weight > best_weight:
            best, best_weight = media_type, weight
    if best is None:
        raise NotAcceptable(f"Accept: {accept} cannot be served. An embedding can be sent as {', '.join(MediaType)}.")
    return best
