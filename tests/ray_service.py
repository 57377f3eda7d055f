"""The service on Ray Serve, for tests: `python ray_service.py ADDRESS PORT`, of a cluster that runs.

A line on stdin is the JSON of the application's arguments; when it serves, at http://127.0.0.1:PORT, or could not be
deployed, a line is printed that says so.
"""

import json
import sys

import ray
from ray import serve

from arcface_api.errors import ArcFaceError
from arcface_api.ray import build_app


def main() -> None:
    """Serve one application after the other."""
    address, port = sys.argv[1:]
    ray.init(address, log_to_driver=False)
    # Nodes of the test's cluster share one address, on which one proxy can listen.
    serve.start(proxy_location="HeadOnly", http_options={"host": "127.0.0.1", "port": int(port)})
    for line in sys.stdin:
        try:
            serve.run(build_app(json.loads(line)), route_prefix="/")
        except ArcFaceError as error:
            print(error, flush=True)  # noqa: T201  # read by a test
        else:
            print("serving", flush=True)  # noqa: T201  # as above
    serve.shutdown()


if __name__ == "__main__":
    main()
