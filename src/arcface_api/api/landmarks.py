"""The form's part `landmarks`: from JSON to what each picture is aligned by, or a sentence on what is wrong with it."""

from typing import Any

import orjson

from arcface_api.api.upload import LANDMARKS_PART_NAME, Upload
from arcface_api.embedder import Picture
from arcface_api.errors import LandmarksInvalid, ParametersConflict
from arcface_api.wire import Align

EXAMPLE = "[[38,52],[74,52],[56,72],[42,92],[71,92]]"
"""ArcFace's template, rounded."""


def pictures_of(upload: Upload, align: Align, *, is_batch: bool) -> list[Picture]:
    """The pictures of a request that could be read, each with its landmarks.

    Args:
        upload: What came; the landmarks of a batch are a list with those of each picture, also of those that could not
            be read.
        align: What was asked for.
        is_batch: It was sent to `/embed/batch`.

    Raises:
        LandmarksInvalid: They are missing, no JSON, or not as many as pictures.
        ParametersConflict: They came and are not asked for.
    """
    landmarks = _read(upload.landmarks, align, is_batch=is_batch)
    every: list[Any] = [landmarks] if not is_batch else [None] * len(upload.images)
    if is_batch and landmarks is not None:
        if not isinstance(landmarks, list) or len(landmarks) != len(upload.images):
            what = f"a list of {len(landmarks)}" if isinstance(landmarks, list) else "no list"
            raise LandmarksInvalid(
                f"The form's part {LANDMARKS_PART_NAME} is {what}, but {len(upload.images)} files came. Send a JSON"
                f" list with the five points of each file, in order: [{EXAMPLE},…]."
            )
        every = landmarks
    return [
        Picture(content, points)
        for content, points in zip(upload.images, every, strict=True)
        if isinstance(content, bytes)
    ]


def _read(landmarks: bytes | None, align: Align, *, is_batch: bool) -> Any:
    """The part's JSON; None where none is needed."""
    if align is not Align.LANDMARKS:
        if landmarks is not None:
            raise ParametersConflict(
                f"The form has a part {LANDMARKS_PART_NAME}, but align is {align}. Send ?align=landmarks in the"
                " query with it, or leave the part out."
            )
        return None
    files, example = ("files=@a.jpg -F files=@b.jpg", f"[{EXAMPLE},…]") if is_batch else ("file=@face.jpg", EXAMPLE)
    if landmarks is None:
        raise LandmarksInvalid(
            f"align=landmarks needs a form with the part {LANDMARKS_PART_NAME}: left eye, right eye, nose tip, left and"
            f" right mouth corner as JSON (curl -F {files} -F '{LANDMARKS_PART_NAME}={example}')."
        )
    try:
        return orjson.loads(landmarks)
    except orjson.JSONDecodeError:
        raise LandmarksInvalid(
            f"The form's part {LANDMARKS_PART_NAME} is not JSON. Send five pairs of finite numbers x, y"
            f"{' for each file' if is_batch else ''}: {example}."
        ) from None
