"""Searches a Parquet file of `arcface-api embed` with FAISS: `python search.py faces.parquet PICTURE`.

PICTURE is an `id` of the file. There is an index for each recipe, so that vectors of two models never meet.
"""

import sys

import faiss
import numpy as np
import pyarrow.parquet as pq

COUNT = 8


def read(file: str) -> tuple[dict[str, faiss.Index], dict[str, list[str]]]:
    """By the recipe: an index, and the ids of its rows."""
    parquet = pq.ParquetFile(file)
    indexes: dict[str, faiss.Index] = {}
    ids: dict[str, list[str]] = {}
    for rows in parquet.iter_batches(columns=["id", "recipe", "embedding"]):
        rows = rows.filter(rows["embedding"].is_valid())  # the others have an error  # noqa: PLW2901
        recipes = np.array(rows["recipe"].to_pylist())
        vectors = rows["embedding"].flatten().to_numpy().reshape(len(rows), -1).astype(np.float32)
        faiss.normalize_L2(vectors)  # so that the inner product is the similarity
        for recipe in set(recipes.tolist()):
            # Exact. For millions: faiss.IndexHNSWFlat(dim, 16, faiss.METRIC_INNER_PRODUCT)
            index = indexes.setdefault(recipe, faiss.IndexFlatIP(vectors.shape[1]))
            index.add(vectors[recipes == recipe])
            ids.setdefault(recipe, []).extend(np.array(rows["id"].to_pylist())[recipes == recipe].tolist())
    return indexes, ids


file, picture = sys.argv[1:]
indexes, ids = read(file)
for recipe, index in indexes.items():
    if picture in ids[recipe]:
        wanted = index.reconstruct(ids[recipe].index(picture))[None]
        similarities, places = index.search(wanted, COUNT + 1)
        for similarity, place in zip(similarities[0].tolist(), places[0].tolist(), strict=True):
            if place >= 0 and ids[recipe][place] != picture:  # -1: there are no more
                print(f"{similarity:.3f}  {ids[recipe][place]}")
