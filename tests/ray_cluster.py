"""A Ray cluster of three nodes on this machine, for tests: `python ray_cluster.py`.

A head without CPUs, and two nodes that have one each. Prints its address, and the process of each node's raylet, as
JSON. A line on stdin kills the second node with all its processes at once, as a power failure does, and prints
`killed`. Where stdin ends, all of it does: also where the test was killed, and processes whose parents are gone.
"""

import ctypes
import json
import os
import sys
import tempfile
import time
from contextlib import suppress

import psutil
from ray.cluster_utils import Cluster

from serving import is_running

STORE_BYTES = 80 * 1024 * 1024
"""Of a node's objects: the least that Ray takes is 75 MiB."""


PR_SET_CHILD_SUBREAPER = 36
"""Of Linux' <sys/prctl.h>: whose parents end become this process's children, not those of the first one."""


def end(processes: list[psutil.Process]) -> None:
    """Kill them at once."""
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()


def main() -> None:
    """Run the cluster."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)
    try:
        run()
    finally:
        while left := [each for each in psutil.Process().children(recursive=True) if is_running(each.pid)]:
            end(left)
            time.sleep(0.05)


def run() -> None:
    """Until stdin ends."""
    # A path of sockets may have 107 bytes: the folder's name is short.
    with tempfile.TemporaryDirectory(prefix="r", ignore_cleanup_errors=True) as folder:
        os.environ["RAY_TMPDIR"] = folder  # or this machine's own programs of Ray would look for this cluster
        common = {"object_store_memory": STORE_BYTES, "include_dashboard": False}
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **common})
        nodes = [cluster.add_node(num_cpus=1, **common) for _ in range(2)]
        raylets = [node.all_processes["raylet"][0].process.pid for node in nodes]
        print(json.dumps({"address": cluster.address, "raylets": raylets}), flush=True)  # noqa: T201  # read by a test
        for _ in sys.stdin:
            raylet = psutil.Process(raylets[1])
            end([raylet, *raylet.children(recursive=True)])
            print("killed", flush=True)  # noqa: T201  # as above


if __name__ == "__main__":
    main()
