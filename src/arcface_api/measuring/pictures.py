"""What is sent: drawn faces as files, so that nobody needs pictures of people to measure, and all send the same."""

import cv2

from arcface_api.session.self_test import probe_crops

HEIGHT, WIDTH = 160, 128
"""Pixels; a face as a detector cuts it from a picture of middling size."""
JPEG_QUALITY = 90


def drawn_faces() -> list[bytes]:
    """The faces on which sessions prove themselves, as JPEG."""
    files = []
    for crop in probe_crops(HEIGHT, WIDTH):
        _, content = cv2.imencode(
            ".jpg", cv2.cvtColor(crop, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
        )
        files.append(content.tobytes())
    return files
