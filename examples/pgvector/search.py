"""Finds the stored pictures most similar to a new one, and draws them: `python search.py new.jpg`."""

import sys
from pathlib import Path

from database import connect
from PIL import Image, ImageDraw, ImageOps

from arcface_api.client import Client

SEARCH = """
SELECT path, 1 - (embedding <=> %(wanted)s::vector) AS similarity FROM faces
WHERE recipe = %(recipe)s AND path <> %(path)s ORDER BY embedding <=> %(wanted)s::vector LIMIT 8
"""
SIDE = 160

if len(sys.argv) != 2:
    sys.exit("Name one picture: python search.py new.jpg")
picture = Path(sys.argv[1])
with Client("http://localhost:5555") as client:
    wanted = client.embed(picture, normalize=True)
values = {"wanted": str(wanted.vector.tolist()), "recipe": wanted.recipe, "path": str(picture)}
with connect() as database:
    found = [(Path(path), similarity) for path, similarity in database.execute(SEARCH, values)]
if not found:
    sys.exit(f"No other picture is stored with the recipe {wanted.recipe}. Has another model made the stored vectors?")
for path, similarity in found:
    print(f"{similarity:.3f}  {path}")

sheet = Image.new("RGB", (SIDE * (len(found) + 1), SIDE + 20), "white")
for place, (path, text) in enumerate(
    [(picture, "wanted"), *((path, f"{similarity:.3f}") for path, similarity in found if path.exists())]
):
    sheet.paste(ImageOps.pad(Image.open(path).convert("RGB"), (SIDE, SIDE), color="white"), (place * SIDE, 20))
    ImageDraw.Draw(sheet).text((place * SIDE + 4, 4), text, "black")
sheet.save("matches.png")
print("matches.png shows them.")
