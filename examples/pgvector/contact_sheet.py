"""Draws what a search found: the wanted picture left, the most similar ones right, with a border by the threshold."""

from pathlib import Path

import cv2
import numpy as np

TILE, BORDER, GAP, TEXT = 120, 4, 10, 18
"""Pixels: of a picture, of the border around it, between tiles, of the line below."""
GREEN, RED, GREY, BLACK = (80, 160, 40), (50, 50, 215), (170, 170, 170), (40, 40, 40)
"""BGR."""

Found = list[tuple[str, float]]


def draw(target: Path, rows: list[tuple[str, Found]], threshold: float | None) -> None:
    """Write a PNG with a row for each wanted picture: green borders reach the threshold, red ones do not."""
    width = max(len(found) for _, found in rows)
    step = TILE + 2 * BORDER + GAP
    height = len(rows) * (step + TEXT) + 2 * GAP + TEXT
    sheet = np.full((height, (width + 1) * step + 3 * GAP, 3), 255, np.uint8)
    for row, (wanted, found) in enumerate(rows):
        top = GAP + row * (step + TEXT)
        put(sheet, wanted, (GAP, top), BLACK, label(wanted))
        for column, (path, similarity) in enumerate(found, 1):
            colour = GREY if threshold is None else GREEN if similarity >= threshold else RED
            put(sheet, path, (3 * GAP + column * step, top), colour, f"{similarity:.3f}")
    legend = "no threshold" if threshold is None else f"green: a similarity of at least {threshold:g}"
    cv2.putText(sheet, legend, (GAP, height - GAP), cv2.FONT_HERSHEY_SIMPLEX, 0.42, BLACK, 1, cv2.LINE_AA)
    target.write_bytes(cv2.imencode(".png", sheet, [cv2.IMWRITE_PNG_COMPRESSION, 9])[1].tobytes())


def put(sheet: np.ndarray, path: str, corner: tuple[int, int], colour: tuple[int, int, int], text: str) -> None:
    """One picture with its border, and the text below."""
    x, y = corner
    inside, side = (x + BORDER, y + BORDER), TILE + 2 * BORDER
    cv2.rectangle(sheet, corner, (x + side - 1, y + side - 1), colour, -1)
    sheet[inside[1] : inside[1] + TILE, inside[0] : inside[0] + TILE] = tile(path)
    (wide, _), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, 0.42, 1)
    place = (x + max(0, (side - wide) // 2), y + side + TEXT - 5)
    cv2.putText(sheet, text, place, cv2.FONT_HERSHEY_SIMPLEX, 0.42, BLACK, 1, cv2.LINE_AA)


def tile(path: str) -> np.ndarray:
    """The picture, (TILE, TILE, 3) uint8 BGR, its shape kept; grey where it is no file that OpenCV reads."""
    square = np.full((TILE, TILE, 3), 225, np.uint8)
    content = np.fromfile(path, np.uint8) if Path(path).is_file() else np.empty(0, np.uint8)
    picture = cv2.imdecode(content, cv2.IMREAD_COLOR) if content.size else None
    if picture is not None:
        scale = TILE / max(picture.shape[:2])
        height, width = (max(1, round(length * scale)) for length in picture.shape[:2])
        top, left = (TILE - height) // 2, (TILE - width) // 2
        resized = cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)
        square[top : top + height, left : left + width] = resized
    return square


def label(path: str) -> str:
    """The last parts of a path, in the letters that OpenCV has, as far as they fit."""
    *_, folder, name = ("", *Path(path).with_suffix("").parts)
    text = f"{folder}/{name}" if len(folder) + len(name) < 17 else name
    text = text.encode("ascii", "replace").decode()
    return text if len(text) <= 17 else f"{text[:7]}..{text[-8:]}"
