"""What a caller may ask of `/embed`: query options and the representation, and how OpenAPI describes them."""

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from fastapi import Request

from arcface_api.embedder import EmbedOptions, Recogniser
from arcface_api.errors import FingerprintDiffers, NotAcceptable, ParameterInvalid, ParametersConflict
from arcface_api.image import EXACT_UP_TO_PIXELS, Resize
from arcface_api.wire import REQUEST_TIMEOUT_HEADER, REQUIRE_FINGERPRINT_HEADER, Align, Encoding, Fit, MediaType

_BOOLEANS = {"true": True, "false": False, "1": True, "0": False, "yes": True, "no": False, "on": True, "off": False}


@dataclass(frozen=True)
class RequestOptions:
    """What one request asks for; the defaults are the contract's."""

    embed: EmbedOptions
    encoding: Encoding = Encoding.FLOAT
    media_type: MediaType = MediaType.JSON
    wants_warnings: bool = False
    """The body may name them, because the request itself asked for something that can give some."""


@dataclass(frozen=True)
class _Option:
    values: Mapping[str, Any]
    schema: Mapping[str, Any]
    description: str


def _boolean(description: str) -> _Option:
    return _Option(_BOOLEANS, {"type": "boolean", "default": False}, description)


def _choice(default: StrEnum, description: str) -> _Option:
    option = _chosen_elsewhere(type(default), description)
    return _Option(option.values, {**option.schema, "default": default.value}, description)


def _chosen_elsewhere(choices: type[StrEnum], description: str) -> _Option:
    """A choice whose default is the service's own."""
    values = {member.value: member for member in choices}
    return _Option(values, {"type": "string", "enum": list(values)}, description)


_OPTIONS: dict[str, _Option] = {
    "include_attributes": _boolean("Also tell age, gender and head pose."),
    "include_quality": _boolean(
        "Also tell the picture's quality and what may be wrong with it. Never changes the embedding."
    ),
    "flip": _boolean(
        "Add the embedding of the picture's mirror image: a little more accurate, at twice the cost. Compare such"
        " embeddings with their like."
    ),
    "normalize": _boolean("Divide the embedding by its norm, so that a dot product is the cosine similarity."),
    "align": _chosen_elsewhere(
        Align,
        "`auto`: turn, scale and shift the face to where the recogniser was trained to see it, by landmarks that are"
        " found on the picture; where they are uncertain, as with `none`. `landmarks`: by those in the form's part"
        " `landmarks`. `none`: the whole picture is the crop. Left out: as `/info` says under `crop`; `none` unless the"
        " operator or the pack chose otherwise.",
    ),
    "fit": _chosen_elsewhere(
        Fit,
        "How a picture that is not aligned becomes a crop: `stretch` each side by itself, or `letterbox`: keep its"
        " shape, black beyond it. Left out: as `/info` says under `crop`; `stretch` unless the operator or the pack"
        " chose otherwise.",
    ),
    "encoding": _choice(
        Encoding.FLOAT,
        "How the embedding stands in a JSON answer: a list of numbers, or Base64 of little-endian float32.",
    ),
    "resize": _choice(
        Resize.AUTO,
        f"Whether a JPEG of more than {EXACT_UP_TO_PIXELS:,} pixels may be decoded at a fraction of its size (`auto`):"
        " faster, with a slightly different vector. `exact` gives the reference's vector for every size. With `align`"
        " other than `none` no picture is reduced.",
    ),
}

OPTION_NAMES = frozenset(_OPTIONS)
"""Of the query's parameters."""

OPENAPI_PARAMETERS: list[dict[str, Any]] = [
    {"name": name, "in": "query", "required": False, "description": option.description, "schema": dict(option.schema)}
    for name, option in _OPTIONS.items()
] + [
    {
        "name": REQUEST_TIMEOUT_HEADER,
        "in": "header",
        "required": False,
        "description": "Seconds within which the answer is of use; less than the service's own limit.",
        "schema": {"type": "number", "exclusiveMinimum": 0},
    },
    {
        "name": REQUIRE_FINGERPRINT_HEADER,
        "in": "header",
        "required": False,
        "description": "The X-Model-Fingerprint of the embeddings that the answer is to be compared with: 409 where the"
        " loaded model has another one.",
        "schema": {"type": "string"},
    },
]


@dataclass(frozen=True)
class OptionReader:
    """Reads what requests ask of one service."""

    recogniser: Recogniser
    timeout_seconds: float
    """What a caller has who asks for nothing, and the most it can have."""
    defaults: EmbedOptions
    """How pictures are embedded for a caller who asks for nothing."""

    def read(self, request: Request) -> RequestOptions:
        """The options of one request, from its query and its headers; nothing else of it is read.

        An option that is unknown is refused, not ignored: `normalise=true` would otherwise return raw vectors in
        silence.

        Raises:
            FingerprintDiffers: X-Require-Fingerprint is not the loaded recogniser's fingerprint.
            ParameterInvalid: An unknown option, one given twice, or a value that is not allowed.
            ParametersConflict: An option that only JSON can carry, with another representation.
            NotAcceptable: Nothing that can be sent is accepted.
        """
        self._check_fingerprint(request.headers.get(REQUIRE_FINGERPRINT_HEADER))
        deadline = time.monotonic() + _timeout(request.headers.get(REQUEST_TIMEOUT_HEADER), self.timeout_seconds)
        chosen = _query(request)
        media_type = _negotiate(", ".join(request.headers.getlist("accept")))
        if media_type is not MediaType.JSON:
            for name in ("include_attributes", "include_quality", "encoding"):
                if chosen.get(name) in (True, Encoding.BASE64):
                    raise ParametersConflict(
                        f"{name} needs a JSON answer, but Accept asks for {media_type}. Leave out {name}, or send"
                        f" Accept: {MediaType.JSON}."
                    )
        encoding = chosen.pop("encoding", Encoding.FLOAT)
        embed = replace(self.defaults, deadline=deadline, **chosen)
        wants_warnings = embed.include_quality or chosen.get("align") is Align.AUTO
        return RequestOptions(embed, encoding, media_type, wants_warnings)

    def _check_fingerprint(self, required: str | None) -> None:
        if required is not None and required != self.recogniser.fingerprint:
            raise FingerprintDiffers(
                f"{REQUIRE_FINGERPRINT_HEADER} is {required}, but the loaded model ({self.recogniser.name}) has"
                f" {self.recogniser.fingerprint}: its embeddings must not be compared with yours. Ask a service that"
                " has your model, or embed your pictures anew with this one."
            )


def _query(request: Request) -> dict[str, Any]:
    """The options in the query, by name."""
    chosen: dict[str, Any] = {}
    for name, value in request.query_params.multi_items():
        option = _OPTIONS.get(name)
        if option is None:
            raise ParameterInvalid(f"There is no query parameter {name}. Allowed are {', '.join(_OPTIONS)}.")
        if name in chosen:
            raise ParameterInvalid(f"The query parameter {name} is given more than once. Give it once.")
        if value.lower() not in option.values:
            allowed = ", ".join(option.values)
            raise ParameterInvalid(f"The query parameter {name}={value} is not allowed. Allowed are {allowed}.")
        chosen[name] = option.values[value.lower()]
    return chosen


def _timeout(asked: str | None, most_seconds: float) -> float:
    if asked is None:
        return most_seconds
    try:
        seconds = float(asked)
    except ValueError:
        seconds = math.nan
    if not seconds > 0:
        raise ParameterInvalid(
            f"{REQUEST_TIMEOUT_HEADER}: {asked} is not allowed. Send a positive number of seconds, for example 0.5."
        )
    return min(seconds, most_seconds)


def _negotiate(accept: str) -> MediaType:
    """The representation that Accept prefers (RFC 9110 section 12.5.1); JSON wins a tie."""
    if not accept or accept == "*/*":
        return MediaType.JSON
    best, best_weight = None, 0.0
    ranges = [_media_range(item) for item in accept.split(",")]
    for media_type in MediaType:
        weight = _weight(media_type, ranges)
        if weight > best_weight:
            best, best_weight = media_type, weight
    if best is None:
        raise NotAcceptable(f"Accept: {accept} cannot be served. An embedding can be sent as {', '.join(MediaType)}.")
    return best


def _media_range(item: str) -> tuple[str, float]:
    name, *parameters = (part.strip().lower() for part in item.split(";"))
    for parameter in parameters:
        if parameter.startswith("q="):
            try:
                return name, float(parameter[2:])
            except ValueError:
                return name, 0.0
    return name, 1.0


def _weight(media_type: MediaType, ranges: list[tuple[str, float]]) -> float:
    """The weight of the most specific range that covers a media type; 0 where none does."""
    kind = media_type.split("/", maxsplit=1)[0]
    for pattern in (media_type.value, f"{kind}/*", "*/*"):
        weights = [weight for name, weight in ranges if name == pattern]
        if weights:
            return max(weights)
    return 0.0
