"""The same with our client, which waits and compares itself: python similarity_with_client.py a.jpg b.jpg."""

import sys

from arcface_api.client import ArcFaceError, Client

try:
    with Client("http://localhost:5555") as client:
        print(f"similarity {client.similarity(sys.argv[1], sys.argv[2]):.3f}")
except ArcFaceError as error:
    sys.exit(f"{error.code}: {error}")
