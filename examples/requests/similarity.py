"""The similarity of two face crops, with any HTTP library, here httpx: python similarity.py a.jpg b.jpg."""

import sys
import time
from pathlib import Path

import httpx

URL = "http://localhost:5555/embed"


def embed(path: str) -> tuple[list[float], str]:
    """The embedding of a picture, of length 1, and how it was made."""
    for _ in range(10):
        form = {"file": Path(path).read_bytes()}
        answer = httpx.post(URL, params={"normalize": True}, files=form, timeout=30)
        if answer.status_code not in (429, 503):  # full, or restarting
            break
        time.sleep(float(answer.headers.get("Retry-After", 1)))
    if answer.status_code != 200:
        problem = answer.json()
        sys.exit(f"{path}: {problem['code']}: {problem['detail']}")
    return answer.json()["embedding"], answer.headers["X-Embedding-Recipe"]


(one, recipe), (other, other_recipe) = embed(sys.argv[1]), embed(sys.argv[2])
if recipe != other_recipe:
    sys.exit("Made in different ways: do not compare.")
print(f"similarity {sum(a * b for a, b in zip(one, other, strict=True)):.3f}")
