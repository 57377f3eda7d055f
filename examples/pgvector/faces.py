"""Puts 20 pictures of each of 62 well-known people into the folder `faces`: `python faces.py` downloads LFW (230 MB).

`python faces.py --synthetic` makes 8 pictures of each of 24 synthetic faces instead, in the folder `synthetic-faces`.
"""

import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

PICTURES = 20
SYNTHETIC_PEOPLE, SYNTHETIC_PICTURES = 24, 8


def downloaded() -> Iterator[tuple[str, np.ndarray]]:
    """Names of people, and pictures of them, (h, w, 3) uint8 RGB."""
    from sklearn.datasets import fetch_lfw_people  # noqa: PLC0415  # the other faces do without

    try:
        people = fetch_lfw_people(min_faces_per_person=PICTURES, resize=1.0, color=True)
    except OSError as error:
        sys.exit(
            f"The faces cannot be downloaded: {error}. Use a folder with crops of yours (--faces FOLDER), or synthetic"
            " faces (--synthetic), or copy ~/scikit_learn_data/lfw_home from a machine that has downloaded them."
        )
    for pixels, person in zip(people.images, people.target, strict=True):
        yield people.target_names[person].replace(" ", "_"), (pixels * 255).astype("uint8")


def synthetic() -> Iterator[tuple[str, np.ndarray]]:
    """The same of nobody: each face turned, moved, blurred, lit and noisy in several ways."""
    sys.path.insert(0, str(Path(__file__).parents[2]))
    from training.probe_faces import draw_face  # noqa: PLC0415  # from the clone, not from a package

    for person in range(SYNTHETIC_PEOPLE):
        face, random = draw_face(person, margin=24), np.random.default_rng(person)
        middle, side = len(face) / 2, 250
        for _ in range(SYNTHETIC_PICTURES):
            zoom = side / len(face) * random.uniform(0.95, 1.2)
            turn = cv2.getRotationMatrix2D((middle, middle), random.uniform(-18, 18), zoom)
            turn[:, 2] += side / 2 - middle + random.uniform(-10, 10, 2)
            picture = cv2.warpAffine(face, turn, (side, side), borderMode=cv2.BORDER_REFLECT)
            picture = cv2.GaussianBlur(picture, (0, 0), random.uniform(0.3, 1.5)) * random.uniform(0.6, 1.15)
            picture += random.normal(0, random.uniform(1, 8), picture.shape)
            yield f"Synthetic_{person + 1:02}", np.clip(picture, 0, 255).astype(np.uint8)


folder = Path("synthetic-faces" if sys.argv[1:] == ["--synthetic"] else "faces")
seen: Counter[str] = Counter()
for name, picture in synthetic() if folder.name == "synthetic-faces" else downloaded():
    seen[name] += 1
    if seen[name] <= PICTURES:
        path = folder / name / f"{seen[name]:02}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        content = cv2.imencode(".jpg", picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95])[1]
        path.write_bytes(content.tobytes())
print(f"{min(PICTURES, max(seen.values()))} pictures of each of {len(seen)} people are in the folder {folder}.")
