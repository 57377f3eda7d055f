"""Promise of docs/openapi.json: the client that openapi-python-client makes of it works, also with later versions."""

import base64
import importlib
import subprocess
import sys
from collections.abc import Iterator
from http import HTTPStatus
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pictures import picture_bytes
from serving import Service

OPENAPI = Path(__file__).parents[2] / "docs" / "openapi.json"
NAME = "generated_arcface_client"
PICTURE = picture_bytes("PNG")


@pytest.fixture(scope="module", autouse=True)
def generated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The generated package, which can then be imported."""
    folder = tmp_path_factory.mktemp("client")
    config = folder / "config.yaml"
    config.write_text("post_hooks: []\n")  # they only format the code
    command = [sys.executable, "-m", "openapi_python_client", "generate", "--meta", "none", "--path", str(OPENAPI)]
    command += ["--output-path", str(folder / NAME), "--config", str(config)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    sys.path.insert(0, str(folder))
    yield
    sys.path.remove(str(folder))


def part(name: str) -> Any:
    return importlib.import_module(f"{NAME}.{name}")


@pytest.fixture
def client(service: Service) -> Iterator[Any]:
    with part("client").Client(base_url=str(service.base_url)) as client:
        yield client


def picture() -> Any:
    return part("types").File(payload=BytesIO(PICTURE), file_name="face.png")


def embed(client: Any, **options: Any) -> Any:
    body = part("models").EmbedFilesBody(file=picture())
    return part("api.embedding.embed").sync_detailed(client=client, body=body, **options)


def test_generated_client_embeds(client: Any, service: Service) -> None:
    answer = embed(client, normalize=True)
    assert answer.status_code == HTTPStatus.OK
    assert np.linalg.norm(answer.parsed.embedding) == pytest.approx(1, abs=1e-6)
    plain = service.post("/embed", files={"file": PICTURE}, params={"normalize": "true"})
    assert answer.parsed.to_dict() == plain.json()


def test_generated_client_embeds_many(client: Any) -> None:
    body = part("models").EmbedBatchFilesBody(files=[picture(), picture()])
    answer = part("api.embedding.embed_batch").sync(client=client, body=body)
    alone = embed(client)
    assert [result.embedding for result in answer.results] == [alone.parsed.embedding] * 2
    assert [result.recipe for result in answer.results] == [alone.headers["x-embedding-recipe"]] * 2


def test_generated_client_embeds_json(client: Any) -> None:
    text = base64.b64encode(PICTURE).decode()
    alone, many = part("models").EmbedJsonBody(image=text), part("models").EmbedBatchJsonBody(images=[text, text])
    answer = part("api.embedding.embed").sync(client=client, body=alone)
    assert answer.embedding == embed(client).parsed.embedding
    answers = part("api.embedding.embed_batch").sync(client=client, body=many)
    assert [result.embedding for result in answers.results] == [answer.embedding] * 2


def test_generated_client_reads_what_the_service_reports(client: Any, service: Service) -> None:
    info = part("api.operation.info").sync(client=client)
    assert info.to_dict() == service.get("/info").json()
    assert info.recipes[info.recipe].align == "none"
    assert part("api.operation.health").sync(client=client).status == "ok"
    assert part("api.operation.readyz").sync(client=client).status == "ready"
    assert part("api.operation.livez").sync(client=client).status == "alive"


def test_generated_client_reads_problems_and_those_of_later_versions(client: Any) -> None:
    refused = embed(client, x_require_recipe="0123456789abcdef")
    assert refused.status_code == HTTPStatus.CONFLICT
    assert (refused.parsed.code, refused.parsed.title) == ("recipe_differs", "Conflict")
    later = {"type": "about:blank", "title": "Another", "status": 422, "detail": "…", "code": "not_known_today"}
    assert part("models").ProblemAnswer.from_dict(later).to_dict() == later
