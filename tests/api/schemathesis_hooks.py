"""What Schemathesis cannot read in the OpenAPI: what pictures are, and which of the options belong together."""

import base64
import json
from typing import Any

import schemathesis
from hypothesis import strategies as st

from pictures import picture_bytes

PICTURES = [
    picture_bytes("JPEG", (112, 112)),
    picture_bytes("PNG", (9, 30), "RGBA"),
    picture_bytes("WEBP", (60, 40)),
    picture_bytes("JPEG", (8, 8), "CMYK"),
]
POINTS = [[3, 3], [6, 3], [4.5, 4], [3.4, 6], [5.6, 6]]
"""Inside each of the pictures."""

schemathesis.openapi.format("binary", st.sampled_from(PICTURES))
schemathesis.openapi.format("byte", st.sampled_from([base64.b64encode(each).decode() for each in PICTURES]))


@schemathesis.hook
def filter_case(context: Any, case: Any) -> bool:
    """Leave out what is called wrong and is not, and what is called right and is not."""
    # HTTP asks servers to ignore headers that they do not know (RFC 9110 section 5.1): no error is to be expected.
    has_unknown_header = any(name.lower() == "x-schemathesis-unknown-property" for name in case.headers or ())
    # A picture as the body has no room for landmarks.
    lacks_landmarks = _is_positive(case) and not isinstance(case.body, dict) and _align(case) == "landmarks"
    return not (has_unknown_header or lacks_landmarks)


@schemathesis.hook
def map_case(context: Any, case: Any) -> Any:
    """Landmarks and `align=landmarks` need each other, which OpenAPI cannot say."""
    if not _is_positive(case) or not isinstance(case.body, dict):
        return case
    case.body.pop("landmarks", None)
    if _align(case) == "landmarks":
        many = case.body.get("files", case.body.get("images"))
        points: Any = POINTS if many is None else [POINTS] * len(many)
        case.body["landmarks"] = points if case.media_type == "application/json" else json.dumps(points)
    return case


def _is_positive(case: Any) -> bool:
    return case.meta is not None and case.meta.generation.mode.value == "positive"


def _align(case: Any) -> Any:
    return (case.query or {}).get("align")
