"""Promises for all of 1.x (docs/compatibility.md): what callers rely on is as it was, and changes are announced."""

import hashlib
import json
import re
from collections.abc import Callable, Iterator
from http import HTTPStatus
from io import BytesIO
from pathlib import Path
from typing import Any

import click
import numpy as np
import onnx
import pytest

from arcface_api import cli, errors
from arcface_api.api.problems import CODES, STATUS_BY_ERROR, ProblemAnswer
from arcface_api.settings import ENVIRONMENT_PREFIX, Settings
from pictures import picture_bytes
from serving import Service
from tiny_models import landmarks_model, linear_model, pixel_model, turned

ROOT = Path(__file__).parents[2]
OPENAPI = ROOT / "docs" / "openapi.json"
SNAPSHOTS = Path(__file__).parent / "snapshots"
PICTURE = picture_bytes("PNG", (112, 112))
HEADERS = {
    "date",
    "server",
    "x-model-fingerprint",
    "server-timing",
    "cache-control",
    "vary",
    "x-embedding-norm",
    "x-batch-size",
    "x-alignment",
    "content-type",
    "content-length",
}
"""Of an answer of /embed before 1.0."""


@pytest.fixture
def exact_service(run_service: Callable[..., Service], tmp_path: Path) -> Service:
    """One whose models give the same bits on every CPU."""
    pack = tmp_path / "exact"
    pack.mkdir()
    onnx.save(pixel_model(112, 512), pack / "exact_recogniser.onnx")
    onnx.save(
        linear_model(96, 3, gain=0, bias=np.array([0, 1, 0.4], np.float32), normalises_inside=True),
        pack / "exact_age_gender.onnx",
    )
    onnx.save(landmarks_model(turned(20, -10, 5), gain=0), pack / "exact_landmarks.onnx")
    return run_service(pack)


# ── bodies and headers ─────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("snapshot", "query"),
    [
        ("embed.json", {}),
        ("embed.json", {"align": "none", "fit": "stretch", "flip": "false", "encoding": "float"}),
        ("embed-attributes.json", {"include_attributes": "true"}),
    ],
)
def test_body_is_to_the_byte_what_it_was_before_the_recipe(
    exact_service: Service, snapshot: str, query: dict[str, str]
) -> None:
    answer = exact_service.post("/embed", files={"file": PICTURE}, params=query)
    assert answer.content == (SNAPSHOTS / snapshot).read_bytes()


def test_other_forms_hold_the_same_numbers(exact_service: Service) -> None:
    expected = np.array(json.loads((SNAPSHOTS / "embed.json").read_bytes())["embedding"], "<f4")
    bytes_, npy = (
        exact_service.post("/embed", files={"file": PICTURE}, headers={"Accept": media_type}).content
        for media_type in ("application/octet-stream", "application/x-npy")
    )
    assert bytes_ == expected.tobytes()
    assert np.load(BytesIO(npy), allow_pickle=False).tobytes() == expected.tobytes()


def test_headers_are_those_from_before_and_the_recipe(exact_service: Service) -> None:
    answer = exact_service.post("/embed", files={"file": PICTURE})
    assert set(answer.headers) == HEADERS | {"x-embedding-recipe", "x-request-id", "connection", "keep-alive"}
    fixed = {"content-type": "application/json", "cache-control": "no-store", "vary": "Accept", "x-alignment": "none"}
    assert fixed.items() <= dict(answer.headers).items()


# ── problems ───────────────────────────────────────────────────────────────────────────────────────────────────────

TITLES = {
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    406: "Not Acceptable",
    408: "Request Timeout",
    409: "Conflict",
    413: "Request Entity Too Large",
    415: "Unsupported Media Type",
    421: "Misdirected Request",
    422: "Unprocessable Entity",
    429: "Too Many Requests",
    431: "Request Header Fields Too Large",
    500: "Internal Server Error",
    503: "Service Unavailable",
}


@pytest.fixture
def other_python(monkeypatch: pytest.MonkeyPatch) -> None:
    """One whose names for statuses are others, as 3.13's are for 413 and 422."""
    for status in HTTPStatus:
        monkeypatch.setattr(status, "phrase", "Another Phrase")


@pytest.mark.usefixtures("other_python")
def test_titles_are_the_same_on_every_python(service: Service) -> None:
    made = {int(status): ProblemAnswer.made(status, "", "").title for status in STATUS_BY_ERROR.values()}
    made |= {answer.json()["status"]: answer.json()["title"] for answer in (service.get("/no"), service.get("/embed"))}
    assert made == TITLES
    assert ProblemAnswer.of(errors.ImageEmpty()).title == "Unprocessable Entity"


def test_code_is_an_open_string_with_documented_values(service: Service) -> None:
    """A generated client must read the problems, and the warnings, of a later version."""
    document = service.get("/openapi.json").json()
    problem = document["components"]["schemas"]["ProblemAnswer"]["properties"]
    assert set(problem["code"]["examples"]) == CODES
    assert all(set(about) <= {"type", "title", "description", "examples"} for about in problem.values())
    assert document["components"]["schemas"]["EmbedAnswer"]["properties"]["warnings"]["anyOf"][0]["items"] == {
        "type": "string"
    }
    for operation in (document["paths"][path]["post"] for path in ("/embed", "/embed/batch")):
        for status, response in operation["responses"].items():
            if status != "200":
                content = response["content"]["application/problem+json"]
                assert content["schema"] == {"$ref": "#/components/schemas/ProblemAnswer"}
                for code, example in content["examples"].items():
                    value = ProblemAnswer.model_validate(example["value"])
                    assert (value.code, value.status, value.title) == (code, int(status), TITLES[int(status)])


# ── OpenAPI ────────────────────────────────────────────────────────────────────────────────────────────────────────


def operations(document: dict[str, Any]) -> list[str]:
    return [about["operationId"] for path in document["paths"].values() for about in path.values()]


def test_operation_ids_name_the_functions_of_generated_clients(service: Service) -> None:
    expected = ["embed", "embed_batch", "health", "livez", "readyz", "info", "metrics"]
    assert operations(service.get("/openapi.json").json()) == expected


def test_description_is_the_one_in_docs(service: Service) -> None:
    assert service.get("/openapi.json").json() == json.loads(OPENAPI.read_bytes()), "run `make fix`"


def test_change_of_the_description_is_in_the_changelog() -> None:
    digits = hashlib.sha256(OPENAPI.read_bytes()).hexdigest()[:12]
    named = re.findall(r"`docs/openapi\.json`[^`]*`([0-9a-f]{12})`", (ROOT / "CHANGELOG.md").read_text("utf-8"))
    assert named[:1] == [digits], (
        "docs/openapi.json has changed. Describe what that means for callers in the newest section of CHANGELOG.md, and"
        f" write there that the SHA-256 of `docs/openapi.json` begins with `{digits}`."
    )


def test_every_header_of_an_answer_is_documented(service: Service) -> None:
    usual = {"server", "cache-control", "connection", "content-length", "content-type", "date", "vary"}
    for path, part in (("/embed", "file"), ("/embed/batch", "files")):
        answer = service.post(path, files={part: picture_bytes()}, params={"include_quality": "true"})
        documented = json.loads(OPENAPI.read_bytes())["paths"][path]["post"]["responses"]["200"]["headers"]
        assert answer.status_code == 200
        assert {*answer.headers} - usual <= {name.lower() for name in documented}


# ── vectors, settings and commands ─────────────────────────────────────────────────────────────────────────────────


def test_open_pack_keeps_its_fingerprint_and_recipes(run_named: Callable[[str], Service]) -> None:
    """Stored vectors name them: another one makes all vectors of all users strangers."""
    info = run_named("open").get("/info").json()
    of_1_0 = json.loads((SNAPSHOTS / "open-pack.json").read_bytes())
    assert info["fingerprint"] == of_1_0["fingerprint"]
    kept = [digest for digest in of_1_0["recipes"] if of_1_0["recipes"][digest]["align"] == "none"]
    assert len(kept) == 8
    assert {digest: info["recipes"].get(digest) for digest in kept} == {d: of_1_0["recipes"][d] for d in kept}


def test_settings_commands_and_options_stay() -> None:
    """A script or a compose file of 1.0 works with all of 1.x. New ones are added to the snapshot."""
    assert interface() == json.loads((SNAPSHOTS / "interface.json").read_bytes())


def interface() -> dict[str, Any]:
    """The names that scripts use: variables, and the options and arguments of each command."""

    def commands(command: click.Command, name: str) -> Iterator[tuple[str, list[str]]]:
        context = click.Context(command)
        if isinstance(command, click.Group):
            for each in command.list_commands(context):
                below = command.get_command(context, each)
                assert below is not None
                yield from commands(below, f"{name} {each}".strip())
        else:
            yield name, sorted(name for each in command.params for name in (*each.opts, *each.secondary_opts))

    variables = sorted(f"{ENVIRONMENT_PREFIX}{name.upper()}" for name in Settings.model_fields)
    return {"variables": variables, "commands": dict(commands(cli.cli, ""))}
