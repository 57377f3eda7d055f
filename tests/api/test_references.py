"""Promises of what callers read when the service fails: a sentence and a reference, never the words of a runtime.

The log has those words, once for each failure, under the same reference.
"""

import asyncio
import json
import logging
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import httpx
import pytest

from arcface_api.api import health
from arcface_api.api.answers import _without_folders
from arcface_api.arrays import Crop, Features
from arcface_api.embedder import Embedder
from arcface_api.errors import RuntimeUnfit
from arcface_api.session.onnx_cpu import OnnxCpuSession
from pictures import picture_bytes
from raw_http import HeldModel, until
from serving import Service

PICTURE = picture_bytes()
SECRET = "/srv/models/secret-7f3a/glintr100.onnx: password=hunter2"
REFERENCE = re.compile(r"reference ([0-9a-f]{8})\b")
PROBES = ("/health", "/readyz")


def parts_of_the_secret(answer: httpx.Response) -> list[str]:
    """What an answer holds of the secret, in its body and its headers."""
    said = answer.text + str(answer.headers)
    return [
        part for part in ("secret-7f3a", "hunter2", "/srv", "glintr100", "Traceback", "RuntimeError") if part in said
    ]


def reference_in(sentence: str) -> str:
    found = REFERENCE.findall(sentence)
    assert len(found) == 1, sentence
    return str(found[0])


@pytest.fixture
def failing(service: Service, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> Service:
    """A service whose model raises from now on, and which has to prove itself at each probe."""

    def run(_: OnnxCpuSession, __: Sequence[Crop]) -> Features:
        raise RuntimeError(SECRET)

    monkeypatch.setattr(OnnxCpuSession, "run", run)
    monkeypatch.setattr(health, "FRESH_SECONDS", 0.0)
    caplog.clear()
    return service


def test_no_answer_holds_what_the_model_raised_and_the_log_has_it(
    failing: Service, caplog: pytest.LogCaptureFixture
) -> None:
    answers = {
        "form": failing.post("/embed", files={"file": PICTURE}),
        "body": failing.post("/embed", content=PICTURE, headers={"Content-Type": "image/jpeg"}),
        "binary": failing.post("/embed", files={"file": PICTURE}, headers={"Accept": "application/octet-stream"}),
        "flip": failing.post("/embed", params={"flip": "true"}, files={"file": PICTURE}),
        "align": failing.post("/embed", params={"align": "auto"}, files={"file": PICTURE}),
        "batch": failing.post("/embed/batch", files=[("files", PICTURE), ("files", PICTURE)]),
        **{path: failing.get(path) for path in (*PROBES, "/livez", "/info", "/metrics", "/openapi.json", "/nothing")},
    }
    assert {name: found for name, answer in answers.items() if (found := parts_of_the_secret(answer))} == {}
    for name in ("form", "body", "binary", "flip", "align"):
        assert answers[name].status_code == 500, name
    said = [answers[name].json()["detail"] for name in ("form", "body", "binary", "flip", "align")]
    said += [result["problem"]["detail"] for result in answers["batch"].json()["results"]]
    for path in PROBES:
        assert answers[path].status_code == 503
        said.append(answers[path].json()["reason"])
    for sentence in said:
        described = [record for record in caplog.records if reference_in(sentence) in record.getMessage()]
        assert len(described) == 1, sentence
        assert described[0].levelno == logging.ERROR
        assert described[0].exc_info is not None
        assert SECRET in str(described[0].exc_info[1])


def test_a_failed_batch_is_logged_once_and_its_callers_share_a_reference(
    run_service: Callable[..., Service],
    tiny_recogniser: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    service = run_service(tiny_recogniser, lanes=1)
    model = HeldModel(monkeypatch)
    held = OnnxCpuSession.run

    def run(session: OnnxCpuSession, crops: Sequence[Crop]) -> Features:
        rows = held(session, crops)
        if len(crops) > 1:
            raise RuntimeError(SECRET)
        return rows

    monkeypatch.setattr(OnnxCpuSession, "run", run)

    async def several() -> list[httpx.Response]:
        async with httpx.AsyncClient(base_url=service.base_url, timeout=100) as client:
            first = asyncio.create_task(client.post("/embed", files={"file": PICTURE}))
            await asyncio.to_thread(model.entered.wait, 100)
            others = [asyncio.create_task(client.post("/embed", files={"file": PICTURE})) for _ in range(8)]
            await asyncio.to_thread(until, lambda: service.app.embedder.recognition.queued == 8)
            model.go_on.set()
            assert (await first).status_code == 200
            return list(await asyncio.gather(*others))

    answers = asyncio.run(several())
    references = {reference_in(answer.json()["detail"]) for answer in answers}
    assert len(references) == 1
    lines = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert [record.exc_info is not None for record in lines] == [True]
    assert references.pop() in lines[0].getMessage()


@pytest.mark.parametrize(
    "raised",
    [RuntimeError(SECRET), OSError(28, "No space left", "/srv/models/secret-7f3a"), RuntimeUnfit(SECRET)],
    ids=lambda raised: type(raised).__name__,
)
@pytest.mark.parametrize("path", ["/embed", "/embed/batch", *PROBES])
def test_a_defect_is_a_reference_too(
    service: Service, path: str, raised: Exception, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def fails(*_: object) -> None:
        raise raised

    vars(raised).pop("reference", None)  # of an earlier case
    monkeypatch.setattr(Embedder, "_embed", fails)
    monkeypatch.setattr(health, "FRESH_SECONDS", 0.0)
    caplog.clear()
    if path in PROBES:
        answer = service.get(path)
        sentence = answer.json()["reason"]
        assert answer.status_code == 503
    else:
        answer = service.post(path, files={"file" if path == "/embed" else "files": PICTURE})
        problem = answer.json() if path == "/embed" else answer.json()["results"][0]["problem"]
        assert (problem["status"], problem["code"]) == (500, "internal_error")
        sentence = problem["detail"]
    assert parts_of_the_secret(answer) == []
    described = [record for record in caplog.records if reference_in(sentence) in record.getMessage()]
    assert len(described) == 1
    assert json.dumps(str(raised)) in json.dumps([str(record.exc_info[1]) for record in described if record.exc_info])


def test_sentences_of_our_own_reach_the_caller(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "FRESH_SECONDS", 0.0)
    service.app.embedder.give_up("The service does not respond and is being started again. Send the request again.")
    assert "is being started again" in service.get("/readyz").json()["reason"]
    assert "is being started again" in service.post("/embed", files={"file": PICTURE}).json()["detail"]


@pytest.mark.parametrize(
    ("reason", "shown"),
    [
        (None, None),
        ("CUDA is not used: it is 50/60 and/or 1/2", "CUDA is not used: it is 50/60 and/or 1/2"),
        (
            "CUDA is not used: Failed to load /opt/venv/lib/a.so with error: /usr/lib/libcudnn.so.9: cannot open",
            "CUDA is not used: Failed to load …/a.so with error: …/libcudnn.so.9: cannot open",
        ),
        ("see https://example.org/a/b", "see https://example.org/a/b"),
    ],
)
def test_why_nothing_faster_is_used_names_no_folder(reason: str | None, shown: str | None) -> None:
    assert _without_folders(reason) == shown
