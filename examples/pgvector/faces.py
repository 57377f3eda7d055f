"""Downloads well-known faces (LFW, about 230 MB) and cuts 20 crops of each of 62 people into the folder `faces`."""

import sys
from collections import Counter
from pathlib import Path

from PIL import Image
from sklearn.datasets import fetch_lfw_people

PICTURES = 20

try:
    people = fetch_lfw_people(min_faces_per_person=PICTURES, resize=1.0, color=True)
except OSError as error:
    sys.exit(
        f"The faces cannot be downloaded: {error}. Use a folder with crops of yours in their place, or copy the folder"
        " ~/scikit_learn_data/lfw_home from a machine that has downloaded them."
    )
seen: Counter[str] = Counter()
for pixels, person in zip(people.images, people.target, strict=True):
    name = people.target_names[person].replace(" ", "_")
    seen[name] += 1
    if seen[name] <= PICTURES:
        path = Path("faces", name, f"{seen[name]:02}.jpg")
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((pixels * 255).astype("uint8")).save(path, quality=95)
print(f"{PICTURES} pictures of each of {len(seen)} people are in the folder faces.")
