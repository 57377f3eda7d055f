"""Searches a Parquet file of `arcface-api embed` with Qdrant: `python search.py faces.parquet PICTURE`.

PICTURE is an `id` of the file. Qdrant runs inside the program and stores in the folder `qdrant`; for a server, write
QdrantClient("http://localhost:6333"). There is a collection for each recipe, so that vectors of two models never meet.
Run again, nothing is stored twice.
"""

import sys
from uuid import NAMESPACE_URL, uuid5

import numpy as np
import pyarrow.parquet as pq
from qdrant_client import QdrantClient
from qdrant_client.models import Distance, PointStruct, VectorParams

COUNT = 8


def point_id(picture: str) -> str:
    """Qdrant's ids are numbers or UUIDs."""
    return str(uuid5(NAMESPACE_URL, picture))


def store(client: QdrantClient, file: str) -> list[str]:
    """Store what has an embedding; returns the recipes."""
    recipes: set[str] = set()
    for rows in pq.ParquetFile(file).iter_batches(batch_size=1000, columns=["id", "model", "recipe", "embedding"]):
        points: dict[str, list[PointStruct]] = {}
        for row in rows.filter(rows["embedding"].is_valid()).to_pylist():  # the others have an error
            vector = np.array(row.pop("embedding"), np.float32)
            unit = (vector / np.linalg.norm(vector)).tolist()  # so that the inner product is the similarity
            point = PointStruct(id=point_id(row["id"]), vector=unit, payload=row)
            points.setdefault(row["recipe"], []).append(point)
        for recipe, some in points.items():
            if not client.collection_exists(recipe):
                size = VectorParams(size=len(some[0].vector), distance=Distance.DOT)
                client.create_collection(recipe, vectors_config=size)
            client.upsert(recipe, some)
        recipes.update(points)
    return sorted(recipes)


file, picture = sys.argv[1:]
client = QdrantClient(path="qdrant")
for recipe in store(client, file):
    if client.retrieve(recipe, [point_id(picture)]):
        for found in client.query_points(recipe, query=point_id(picture), limit=COUNT).points:  # without itself
            print(f"{found.score:.3f}  {(found.payload or {})['id']}")
client.close()
