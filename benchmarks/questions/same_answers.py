"""Do two source trees answer alike? Each serves real faces in every form, and refuses what is to be refused.

    python -m benchmarks.questions.same_answers --before ../before/src --after src --models FOLDER --faces FOLDER \
        --output benchmarks/results/same-answers.json

Bodies are compared byte for byte, and headers but for those in `NOT_COMPARED`. Of refusals the sentence (`detail`), and
with it the length, may differ; the result lists the sentences that do. Of the probes, `/info` and OpenAPI everything
but the sentences is compared. A network runs on ONNX Runtime in float32 (`reference`: OpenVINO is hidden, so no trial
chooses), and again as the service chooses (`default`: both trees share a cache, so the second repeats the first one's
choice). Exit status 1 where anything differs.
"""

import argparse
import http.client
import json
import os
import re
import signal
import socket
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx

from benchmarks.lib import lfw, machine, options
from benchmarks.lib.answer_requests import Face, Sent, bad_requests, form, other_forms, post, raw, single_requests
from benchmarks.lib.networks import linear, write_attribute_networks
from benchmarks.lib.trees import HIDE_OPENVINO, Served, served

NOT_COMPARED = ("date", "server-timing", "x-batch-size")
"""Headers that hold a time, or follow from one: which crops meet in a batch."""
SHOWN = 50
"""Differences of one case that are written out."""
GROW = 1.3
"""Detector boxes are cut so much larger, so that nearly all landmarks lie inside."""
SENTENCES = ("detail", "description", "summary", "notice", "provenance", "reason", "assumptions", "title", "version")
"""Members whose words may change."""
RECOGNISER = "w600k_mbf_from_int8.onnx"

_NOT_SQUARE = """
name = "tall"
title = "Not square"
model = "tall"
[licence]
name = "none"
url = "none"
allows_commercial_use = true
notice = ""
[[files]]
name = "tall.onnx"
role = "recogniser"
output_dim = 512
[files.input]
height = 56
width = 112
mean = 127.5
std = 127.5
"""


@dataclass(frozen=True)
class Answer:
    """One answer, as far as it is compared."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes


@dataclass(frozen=True)
class Case:
    """One service that both trees start, and what it is asked."""

    name: str
    pack: str
    options: tuple[str, ...]
    hook: str
    ask: Callable[[Served], Iterable[tuple[str, Answer]]]
    """The answers by name."""


def main() -> None:
    """Compare the trees."""
    arguments = _parser().parse_args()
    trees = {"before": arguments.before.resolve(), "after": arguments.after.resolve()}
    faces = cut_faces(arguments.faces, arguments.crops)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        cases = [
            case
            for case in make_cases(folder, arguments.models, faces, trees["before"])
            if not arguments.cases or case.name in arguments.cases
        ]
        results = {case.name: compare(case, trees, folder) for case in cases}
    different = sum(found["different"] for found in results.values())
    report = {
        "benchmark": "same_answers",
        "faces": {"source": "LFW", "crops": len(faces)},
        "revisions": {name: machine.revision(tree) for name, tree in trees.items()},
        "headers_not_compared": NOT_COMPARED,
        "members_not_compared_in_refusals_and_facts": SENTENCES,
        "codes_not_met": sorted(_all(results, "documented_codes") - _all(results, "problem_codes")),
        "cases": results,
        "different": different,
        "machine": machine.describe(),
    }
    text = json.dumps(report, indent=2) + "\n"
    sys.stdout.write(text)
    if arguments.output:
        arguments.output.write_text(text, encoding="utf-8")
    if different:
        sys.exit(f"{different} answers differ.")


def make_cases(folder: Path, models: Path, faces: Sequence[Face], tree: Path) -> Iterator[Case]:
    """The services to compare; packs are written to the folder."""
    pack, failing, tall = folder / "attributes", folder / "failing", folder / "tall"
    for made in (pack, failing, tall):
        made.mkdir()
    (pack / RECOGNISER).symlink_to((models / RECOGNISER).resolve())
    shape = np.loadtxt(next(tree.rglob("mean_shape_68.csv")), delimiter=",") * 0.6
    write_attribute_networks(pack, shape)
    onnx.save(linear(112, 112, 512, fails_on_black=True), failing / "recogniser.onnx")
    write_attribute_networks(failing, np.zeros((68, 3)))
    onnx.save(linear(56, 112, 512), tall / "tall.onnx")
    (tall / "pack.toml").write_text(_NOT_SQUARE)

    def everything(service: Served) -> Iterator[tuple[str, Answer]]:
        port = service.port
        yield from asked(port, [*single_requests(faces), *other_forms(faces), *bad_requests(faces[0])])
        yield from facts(port)

    for name, path in (("w600k_mbf", str(pack)), ("open", "auto")):
        yield Case(f"{name}, reference", path, ("--precision", "float32"), HIDE_OPENVINO, everything)
        yield Case(f"{name}, default", path, (), "", everything)
    yield Case("failing model", str(failing), (), HIDE_OPENVINO, lambda service: failing_model(service.port))
    yield Case("not square", str(tall), (), HIDE_OPENVINO, lambda service: not_square(service.port, faces[0]))
    yield Case(
        "no attributes",
        str((models / "edgeface_xs.onnx").resolve()),
        (),
        HIDE_OPENVINO,
        lambda service: no_attributes(service.port, faces),
    )
    little = ("--max-image-bytes", "200000", "--max-batch-bytes", "200000", "--max-upload-bytes-inside", "1")
    yield Case(
        "limits",
        str(tall),
        (*little, "--upload-timeout-seconds", "2", "--max-connections", "3", "--queue-capacity", "1"),
        HIDE_OPENVINO,
        lambda service: limits(service.port, faces[0]),
    )
    yield Case("closing", str(tall), ("--shutdown-grace-seconds", "1"), HIDE_OPENVINO, closing)


# ── what is asked ──────────────────────────────────────────────────────────────────────────────────────────────────


def asked(port: int, requests: Iterable[Sent]) -> Iterator[tuple[str, Answer]]:
    """Send requests one after the other over a connection that is kept."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    for sent in requests:
        connection.request(sent.method, sent.path, sent.body or None, dict(sent.headers))
        yield sent.name, _answer(connection.getresponse())
    connection.close()


def facts(port: int) -> Iterator[tuple[str, Answer]]:
    """What the service states about itself."""
    for path in ("/health", "/readyz", "/livez", "/info", "/openapi.json"):
        for name, answer in asked(port, [Sent(f"GET {path}", "GET", path), Sent(f"HEAD {path}", "HEAD", path)]):
            result = json.loads(answer.body) if answer.body else None
            if path == "/openapi.json" and result and "paths" in result:
                result = _operations(result)
            yield name, _without_length(replace(answer, body=json.dumps(_without_sentences(result)).encode()))
    for path in ("/", "/docs"):
        for name, answer in asked(port, [Sent(f"GET {path}", "GET", path)]):
            yield name, replace(_without_length(answer), body=b"")


def failing_model(port: int) -> Iterator[tuple[str, Answer]]:
    """A network that returns NaN for black, and one from whose landmarks no pose can be computed."""
    black, gray = (_encoded(".png", np.full((112, 112, 3), value, np.uint8)) for value in (0, 90))
    yield from asked(
        port,
        [
            raw("NaN", "/embed", black),
            raw("no head pose", "/embed?include_attributes=true", gray),
            raw("attributes of black", "/embed?include_attributes=true", black),
            post("batch with one NaN", "/embed/batch", ("files", "a", black), ("files", "b", gray)),
            post("batch of bytes with one NaN", "/embed/batch", ("files", "a", black), ("files", "b", gray),
                 Accept="application/octet-stream"),
        ],
    )  # fmt: skip


def not_square(port: int, face: Face) -> Iterator[tuple[str, Answer]]:
    """A recogniser for whose input no face can be aligned."""
    paths = ("/embed", "/embed?fit=letterbox", "/embed?align=auto", "/embed?include_quality=true", "/embed?flip=true")
    yield from asked(port, [raw(path, path, face.content) for path in paths])
    points: tuple[str, None, bytes] = ("landmarks", None, json.dumps(face.landmarks).encode())
    yield from asked(port, [post("landmarks", "/embed?align=landmarks", ("file", "a", face.content), points)])


def no_attributes(port: int, faces: Sequence[Face]) -> Iterator[tuple[str, Answer]]:
    """A pack that is one recogniser."""
    some = list(single_requests(faces[:5]))
    yield from asked(port, [sent for sent in some if "landmarks" not in sent.name])
    yield from facts(port)


def limits(port: int, face: Face) -> Iterator[tuple[str, Answer]]:
    """Refusals for want of time, room and connections, and bytes that are no HTTP."""
    yield "garbage", _said(port, b"\x16\x03\x01\x02\x00\x01\r\n\r\n")
    yield (
        "no length and no chunks",
        _said(port, b"POST /embed HTTP/1.1\r\nHost: localhost\r\nContent-Length: many\r\n\r\n"),
    )
    yield "header too long", _said(port, b"GET /livez HTTP/1.1\r\nHost: localhost\r\nX: " + b"v" * 20_000 + b"\r\n\r\n")
    yield "request line too long", _said(port, b"GET /" + b"v" * 20_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n")
    yield "head too long", _said(port, b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"X: v\r\n" * 200 + b"\r\n")
    head = b"POST /embed HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n"
    yield "upload that stops", _said(port, head % 1000 + face.content[:500])
    yield (
        "upload that outlasts its caller",
        _said(
            port,
            head.replace(b"\r\nHost", b"\r\nX-Request-Timeout: 0.5\r\nHost") % 1000 + face.content[:500],
        ),
    )
    with _connected(port, head % 190_000 + bytes(150_000)):
        time.sleep(0.5)
        yield from asked(port, [raw("no room for an upload", "/embed", bytes(190_000))])
        yield "too large for the limit", _said(port, head % 250_000 + bytes(250_000))
    time.sleep(0.5)
    with _connected(port, b""), _connected(port, b""), _connected(port, b""):
        time.sleep(0.5)
        yield "one connection too many", _said(port, b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
    time.sleep(0.5)
    files = [("files", "a", face.content[:1000])] * 2
    yield from asked(port, [post("two files where one may be inside", "/embed/batch", *files)])
    yield "queue full", queue_full(port, face)


def closing(service: Served) -> Iterator[tuple[str, Answer]]:
    """The answer to an upload that is not complete when the service has to end."""
    head = b"POST /embed HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/jpeg\r\nContent-Length: 1000\r\n\r\n"
    with _connected(service.port, head + b"\xff\xd8\xff") as connection:
        time.sleep(0.5)
        os.kill(service.pid, signal.SIGTERM)
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        yield "upload cut off by the end", _answer(answer)


def queue_full(port: int, face: Face) -> Answer:
    """The refusal that some of many callers at once meet; which one, and its wait, is chance."""
    refused: list[Answer] = []
    body = form(("file", "a", face.content))

    def call() -> None:
        while not refused and time.monotonic() < end:
            with suppress(OSError, http.client.HTTPException):
                for _, answer in asked(port, [Sent("", "POST", "/embed", body, dict(post("", "/embed").headers))]):
                    if b"queue_full" in answer.body:
                        refused.append(answer)

    end = time.monotonic() + 60
    callers = [threading.Thread(target=call) for _ in range(3)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    if not refused:
        sys.exit("No caller was refused in 60 s of three callers at once: queue_full was not compared.")
    return replace(refused[0], headers=tuple(pair for pair in refused[0].headers if pair[0] != "retry-after"))


@contextmanager
def _connected(port: int, first: bytes) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        connection.sendall(first)
        yield connection


def _said(port: int, request: bytes) -> Answer:
    """The answer to bytes that no client would send."""
    with _connected(port, request) as connection:
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        return _answer(answer)


def _answer(response: http.client.HTTPResponse) -> Answer:
    headers = sorted((name.lower(), value) for name, value in response.getheaders() if name.lower() not in NOT_COMPARED)
    return Answer(response.status, tuple(headers), response.read())


# ── comparing ──────────────────────────────────────────────────────────────────────────────────────────────────────


def compare(case: Case, trees: Mapping[str, Path], folder: Path) -> dict[str, Any]:
    """Both trees' answers to one case."""
    answers = {}
    for name, tree in trees.items():
        sys.stderr.write(f"{case.name}: {name}\n")
        with served(tree, folder, case.pack, case.options, hook=case.hook) as service:
            answers[name] = dict(case.ask(service))
    before, after = answers["before"], answers["after"]
    differences, reworded = [], []
    for name in before:
        first, second = before[name], after[name]
        if first != second and "application/problem+json" in dict(first.headers).get("content-type", ""):
            reworded += _reworded(name, first, second)
            first, second = _compared_problem(first), _compared_problem(second)
        elif first != second and b'"problem"' in first.body:
            first, second = _compared_problem(first), _compared_problem(second)
        if first != second:
            differences.append({"request": name, "before": _shown(first), "after": _shown(second)})
    return {
        "requests": len(before),
        "identical": sum(before[name] == after[name] for name in before),
        "statuses": {
            str(status): count for status, count in sorted(Counter(a.status for a in before.values()).items())
        },
        "problem_codes": sorted({code for a in before.values() for code in _codes(a)}),
        "documented_codes": _documented_codes(before),
        "answered_by": _answered_by(before),
        "reworded": reworded,
        "different": len(differences),
        "differences": differences[:SHOWN],
    }


def _compared_problem(answer: Answer) -> Answer:
    return replace(_without_length(answer), body=json.dumps(_without_sentences(json.loads(answer.body))).encode())


def _without_length(answer: Answer) -> Answer:
    return replace(answer, headers=tuple(pair for pair in answer.headers if pair[0] != "content-length"))


def _without_sentences(result: Any) -> Any:
    """Without the members that hold words for people; inside a refusal `title` is HTTP's own and stays."""
    if isinstance(result, dict):
        dropped = set(SENTENCES) - ({"title"} if "code" in result else set())
        return {key: _without_sentences(value) for key, value in result.items() if key not in dropped}
    return [_without_sentences(each) for each in result] if isinstance(result, list) else result


def _operations(openapi: Mapping[str, Any]) -> dict[str, Any]:
    """Paths, methods, parameters, statuses and codes; how schemas are named and split up is not compared."""
    return {
        path: {
            method: {
                "parameters": operation.get("parameters", []),
                "statuses": {
                    status: re.findall(r"^- `(\w+)`", response.get("description", ""), re.MULTILINE)
                    if int(status) >= http.HTTPStatus.BAD_REQUEST and not path.endswith(("z", "health"))
                    else sorted(response.get("content", {}))
                    for status, response in operation["responses"].items()
                },
            }
            for method, operation in operations.items()
        }
        for path, operations in openapi["paths"].items()
    }


def _reworded(name: str, first: Answer, second: Answer) -> list[dict[str, str]]:
    try:
        details = [str(json.loads(answer.body)["detail"]) for answer in (first, second)]
    except (ValueError, KeyError):
        return []
    return [{"request": name, "before": details[0], "after": details[1]}] if details[0] != details[1] else []


def _codes(answer: Answer) -> list[str]:
    """The code of a refusal, and those of a batch's pictures."""
    is_problem = "application/problem+json" in dict(answer.headers).get("content-type", "")
    return re.findall(r'"code":"(\w+)"', answer.body.decode()) if is_problem or b'"problem":' in answer.body else []


def _documented_codes(answers: Mapping[str, Answer]) -> list[str]:
    """The codes of problems that OpenAPI lists."""
    openapi = json.loads(answers["GET /openapi.json"].body) if "GET /openapi.json" in answers else {}
    operations = (operation for path in openapi.values() for operation in path.values())
    listed = (codes for operation in operations for codes in operation["statuses"].values())
    return sorted({code for codes in listed for code in codes if "/" not in code})


def _all(results: Mapping[str, Mapping[str, Any]], key: str) -> set[str]:
    return {each for found in results.values() for each in found[key]}


def _answered_by(answers: Mapping[str, Answer]) -> dict[str, Any] | None:
    health = answers.get("GET /health")
    if health is None:
        return None
    result = json.loads(health.body)
    return {key: result[key] for key in ("model", "provider", "precision", "threads")}


def _shown(answer: Answer) -> dict[str, Any]:
    return {"status": answer.status, "headers": dict(answer.headers), "body": repr(answer.body[:300])}


# ── services and faces ─────────────────────────────────────────────────────────────────────────────────────────────


def cut_faces(folder: Path, count: int) -> list[Face]:
    """Crops of as many people: JPEG, PNG and WebP in turn."""
    labels = lfw.read_labels(folder)
    names = lfw.one_of_each_person(labels, count)
    faces = []
    for number, (name, content) in enumerate(lfw.read_pictures(folder, names).items()):
        crop, corner = lfw.cut_grown(lfw.decoded(content), labels[name].box, GROW)
        suffix = (".jpg", ".jpg", ".png", ".webp")[number % 4]
        faces.append(Face(_encoded(suffix, crop[..., ::-1]), (labels[name].landmarks - corner).round(2).tolist()))
    return faces


def _encoded(suffix: str, picture: np.ndarray) -> bytes:
    is_written, content = cv2.imencode(suffix, picture)
    assert is_written
    return content.tobytes()


def _parser() -> argparse.ArgumentParser:
    parser = options.parser(__doc__)
    parser.add_argument("--before", type=Path, required=True, metavar="SRC", help="source tree that counts as right")
    parser.add_argument("--after", type=Path, required=True, metavar="SRC", help="source tree to be compared")
    parser.add_argument(
        "--models", type=Path, required=True, metavar="FOLDER", help=f"with {RECOGNISER}, edgeface_xs.onnx"
    )
    parser.add_argument("--faces", type=Path, required=True, metavar="FOLDER", help="with LFW's images.tar, labels.csv")
    parser.add_argument("--crops", type=int, default=200, help="how many real crops (default 200)")
    parser.add_argument("--cases", nargs="+", help="only these, by the names in the result")
    return parser


if __name__ == "__main__":
    main()
