"""Promises of `ARCFACE_TRACE_SHARE`: a collector gets each request with its stages, and the batch that it shared."""

import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import onnx
import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from arcface_api.api.traces import Traces
from arcface_api.errors import RuntimeUnfit
from collectors import Collector, collecting
from pictures import picture_bytes
from serving import PATIENT_END, Command, Run
from tiny_models import slow_model

PICTURE = picture_bytes()
TRACE, PARENT = "ab" * 16, "cd" * 8
STAGES = ["receive", "decode", "crop", "queue", "inference", "respond"]


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    with collecting(monkeypatch) as collector:
        yield collector


@pytest.fixture
def patient(tmp_path: Path) -> Path:
    """Lets a service send what is left for as long as a busy machine needs."""
    (tmp_path / "patient").mkdir()
    (tmp_path / "patient" / "sitecustomize.py").write_text(
        "from arcface_api.api import traces\ntraces.CLOSE_SECONDS = 60\n"
    )
    return tmp_path / "patient"


def embed(command: Command, picture: bytes = PICTURE, *, traced: bool = False) -> httpx.Response:
    headers = {"traceparent": f"00-{TRACE}-{PARENT}-01"} if traced else {}
    url = f"http://127.0.0.1:{command.port}/embed"
    return httpx.post(url, files={"file": picture}, headers=headers, timeout=100)


def attributes(span: Span) -> dict[str, str | int]:
    return {each.key: each.value.string_value or each.value.int_value for each in span.attributes}


def test_collector_gets_each_request_with_its_stages(
    run: Run, tiny_recogniser: Path, collector: Collector, patient: Path
) -> None:
    command = run("--pack", tiny_recogniser, "--trace-share", "1", "--access-log", faults=patient)
    answer = embed(command, traced=True)
    _, trace, span, flags = answer.headers["traceresponse"].split("-")
    assert (trace, flags) == (TRACE, "01")
    assert embed(command, b"no picture").status_code == 415
    command.stop()

    done, refused = collector.named("POST /embed")
    assert (done.trace_id.hex(), done.parent_span_id.hex(), done.span_id.hex()) == (TRACE, PARENT, span)
    assert attributes(done) == {
        "http.request.method": "POST",
        "http.route": "/embed",
        "http.response.status_code": 200,
    }
    assert attributes(refused)["error.type"] == "image_format_unsupported"
    assert refused.trace_id != done.trace_id
    stages = [each for each in collector.spans if each.parent_span_id == done.span_id and each.name != "batch"]
    stages.sort(key=lambda stage: stage.start_time_unix_nano)
    assert [stage.name for stage in stages] == STAGES
    ends = [stage.end_time_unix_nano for stage in stages]
    begins = [stage.start_time_unix_nano for stage in stages]
    assert begins[1:] == ends[:-1], "one stage begins where another ends"
    assert abs(ends[-1] - done.end_time_unix_nano) < 1e5, "and they fill the time until the answer"  # rounded
    assert -1e6 < done.start_time_unix_nano - begins[0] < 60e9, "from its beginning"  # two clocks
    assert ("service.name", "arcface-api") in collector.resources
    assert not [span for span in collector.spans if span.parent_span_id == refused.span_id]


def test_requests_of_one_batch_link_to_its_span(run: Run, tmp_path: Path, collector: Collector, patient: Path) -> None:
    onnx.save(slow_model(), tmp_path / "slow.onnx")  # while it runs, others queue up
    # the callers decide that they are traced, not the share
    command = run("--pack", tmp_path / "slow.onnx", "--trace-share", "0.000001", "--lanes", "1", faults=patient)
    with ThreadPoolExecutor(16) as callers:
        sizes = [int(a.headers["x-batch-size"]) for a in callers.map(lambda _: embed(command, traced=True), range(64))]
    for headers in (
        {},
        {"traceparent": "garbage"},
        {"traceparent": f"00-{'0' * 32}-{PARENT}-01"},
        {"tracestate": "a=b"},
    ):
        url = f"http://127.0.0.1:{command.port}/embed"
        answer = httpx.post(url, files={"file": PICTURE}, headers=headers, timeout=100)
        assert "traceresponse" not in answer.headers  # nobody asked for it, and it is not in the share
    command.stop()
    batches = {span.span_id for span in collector.named("batch")}
    links = [span.links[0].span_id for span in collector.named("inference")]
    assert len(links) == 64
    assert set(links) == batches
    assert max(sizes) > 1
    assert sorted(links.count(batch) for batch in batches) == sorted(
        size for size in set(sizes) for _ in range(sizes.count(size) // size)
    )


def test_missing_extra_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    with pytest.raises(RuntimeUnfit, match=r"pip install 'arcface-api\[cpu,otel\]'"):
        Traces.to_collector(1.0)


def test_without_a_collector_the_service_serves_and_ends(
    run: Run, tiny_recogniser: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    (tmp_path / "sitecustomize.py").write_text(PATIENT_END)
    options = ("--trace-share", "1", "--shutdown-grace-seconds", "1")
    command = run("--pack", tiny_recogniser, *options, faults=tmp_path)
    assert embed(command).status_code == 200
    command.process.terminate()
    command.end()
    assert command.process.returncode == 0
