"""Which of our files and functions does a plain JPEG cross on its way through POST /embed?

    python -m benchmarks.questions.request_path --src src --label after --output benchmarks/results/request-path.json

A service is started from the source tree, with a profiler in each of its threads; it runs a small recogniser on ONNX
Runtime in float32, so that the path is the same on every machine. After some requests to warm up, several equal ones
are recorded, each from its first byte to its answer; a function that is not in all recordings belongs to the service's
own timers and does not count. Comprehensions count as part of their function. A hand-over is a change of the thread in
which our functions run. Files whose functions run before the ASGI app is called (the first `__call__`) are the HTTP
protocol's, and the totals are also given without them. The picture is sent as a form and as the body. The result is
stored under its label, beside those that the file holds already.
"""

import argparse
import http.client
import json
import os
import platform
import socket
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx

from benchmarks.lib import machine, options
from benchmarks.lib.answer_requests import FORM, form
from benchmarks.lib.networks import linear
from benchmarks.lib.trees import served

WARM_UP = 5
RECORDED = 7

_HOOK = """
import json, os, socket, sys, threading
sys.modules["openvino"] = None
if "serve" in sys.orig_argv:
    PART = ("<listcomp>", "<dictcomp>", "<setcomp>", "<genexpr>")
    own, events, recording = os.environ["PATH_OWN"], [], False

    def profile(frame, event, _):
        code = frame.f_code
        if recording and event == "call" and code.co_filename.startswith(own) and code.co_name not in PART:
            events.append((threading.get_ident(), code.co_filename[len(own):], code.co_qualname))

    def obey():
        global recording
        with socket.socket(socket.AF_UNIX) as parent:
            parent.connect(os.environ["PATH_SOCKET"])
            with parent.makefile("rw") as file:
                for line in file:
                    recording = line == "start\\n"
                    if recording:
                        events.clear()
                    names = {thread.ident: thread.name for thread in threading.enumerate()}
                    file.write(json.dumps([(names.get(t, "?"), f, n) for t, f, n in events]) + "\\n")
                    file.flush()

    threading.Thread(target=obey, daemon=True).start()
    threading.setprofile(profile)
    sys.setprofile(profile)
"""


@dataclass(frozen=True)
class Call:
    """One of our functions, called."""

    thread: str
    file: str
    function: str


def main() -> None:
    """Record the path."""
    arguments = _parser().parse_args()
    tree = arguments.src.resolve()
    paths = {name: path_of(recordings) for name, recordings in record(tree).items()}
    for name, path in paths.items():
        sys.stdout.write(f"── as a {name}\n")
        for file in path["path"]:
            sys.stdout.write(f"{file['file']}: {', '.join(file['functions'])}\n")
        whole, app = (f"{path[part]['files']} files, {path[part]['functions']} functions" for part in ("whole", "app"))
        sys.stdout.write(f"{whole}; from the app on {app}; {path['hand_overs']} hand-overs")
        sys.stdout.write(f" ({' > '.join(path['threads'])})\n")
    result = {"revision": machine.revision(tree), "python": platform.python_version(), **paths}
    if arguments.output:
        known = json.loads(arguments.output.read_text()) if arguments.output.is_file() else {}
        report = {"benchmark": "request_path", **known, arguments.label: result}
        arguments.output.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def path_of(recordings: Sequence[Sequence[Call]]) -> dict[str, Any]:
    """What all recordings have in common, in the order of the first."""
    in_all = set.intersection(*({(call.file, call.function) for call in calls} for calls in recordings))
    files: dict[str, list[str]] = {}
    for call in recordings[0]:
        if (call.file, call.function) in in_all:
            functions = files.setdefault(call.file, [])
            if call.function not in functions:
                functions.append(call.function)
    before_app = list(files)[: next(i for i, names in enumerate(files.values()) if names[0].endswith(".__call__"))]
    app = {file: functions for file, functions in files.items() if file not in before_app}
    threads = min((threads_of([c for c in calls if (c.file, c.function) in in_all]) for calls in recordings), key=len)
    return {
        "whole": {"files": len(files), "functions": sum(map(len, files.values()))},
        "app": {"files": len(app), "functions": sum(map(len, app.values()))},
        "hand_overs": len(threads) - 1,
        "threads": threads,
        "path": [{"file": file, "functions": functions} for file, functions in files.items()],
    }


def threads_of(calls: Sequence[Call]) -> list[str]:
    """The threads in which functions run, each time that they change."""
    threads: list[str] = []
    for call in calls:
        if threads[-1:] != [call.thread]:
            threads.append(call.thread)
    return threads


def record(tree: Path) -> dict[str, list[list[Call]]]:
    """Several recordings of one request, by how it carries the picture."""
    picture = np.clip(np.random.default_rng(0).normal(128, 30, (130, 100, 3)), 0, 255).astype(np.uint8)
    jpeg = cv2.imencode(".jpg", picture)[1].tobytes()
    requests = {"form": (form(("file", "face.jpg", jpeg)), FORM), "body": (jpeg, "image/jpeg")}
    with tempfile.TemporaryDirectory() as scratch, socket.socket(socket.AF_UNIX) as listener:
        folder = Path(scratch)
        onnx.save(linear(112, 112, 512), folder / "recogniser.onnx")
        listener.bind(str(folder / "control"))
        listener.listen(1)
        listener.settimeout(60)
        variables = {"PATH_SOCKET": str(folder / "control"), "PATH_OWN": f"{tree / 'arcface_api'}{os.sep}"}
        with served(tree, folder, str(folder / "recogniser.onnx"), hook=_HOOK, variables=variables) as service:
            control, _ = listener.accept()
            connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=60)
            with control, control.makefile("rw") as orders:

                def embed(body: bytes, media_type: str) -> None:
                    connection.request("POST", "/embed", body, {"Content-Type": media_type})
                    answer = connection.getresponse()
                    assert answer.status == http.HTTPStatus.OK, answer.read()
                    answer.read()

                def order(what: str) -> list[Call]:
                    orders.write(f"{what}\n")
                    orders.flush()
                    return [Call(*call) for call in json.loads(orders.readline())]

                recordings: dict[str, list[list[Call]]] = {}
                for name, request in requests.items():
                    for _ in range(WARM_UP):
                        embed(*request)
                    for _ in range(RECORDED):
                        order("start")
                        embed(*request)
                        recordings.setdefault(name, []).append(order("stop"))
            connection.close()
    return recordings


def _parser() -> argparse.ArgumentParser:
    parser = options.parser(__doc__)
    parser.add_argument("--src", type=Path, required=True, help="the source tree")
    parser.add_argument("--label", default="after", help="under which the result is stored (default: after)")
    return parser


if __name__ == "__main__":
    main()
