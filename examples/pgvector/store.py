"""Embeds the pictures in a folder and stores their vectors: `python store.py faces`."""

import sys
from pathlib import Path

from database import connect

from arcface_api.client import Client, Embedding

STORE = """
INSERT INTO faces (path, recipe, embedding) VALUES (%s, %s, %s::vector)
ON CONFLICT (path) DO UPDATE SET recipe = excluded.recipe, embedding = excluded.embedding
"""
PICTURES = {".jpg", ".jpeg", ".png", ".webp"}

folder = Path(*sys.argv[1:] or ["faces"])
paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in PICTURES and str(path).isprintable())
if not paths:
    sys.exit(f"No pictures in {folder}. Name a folder with files called {', '.join(sorted(PICTURES))}.")
stored = 0
with connect() as database, Client("http://localhost:5555") as client:
    for path, result in zip(paths, client.embed_many(paths, normalize=True), strict=True):
        if isinstance(result, Embedding):
            database.execute(STORE, (str(path), result.recipe, str(result.vector.tolist())))
            stored += 1
        else:
            print(f"{path}: {result}")
print(f"{stored} of {len(paths)} pictures are stored.")
