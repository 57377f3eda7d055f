"""Promises of the page's files: all in the package, nothing from elsewhere, kept by caches, and off by a setting."""

import re
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hatchling.builders.wheel import WheelBuilder

from arcface_api.api.page import page_routes
from serving import Service

ROOT = Path(__file__).parents[2]
STATIC = ROOT / "src" / "arcface_api" / "api" / "page" / "static"
PATHS = sorted(page_routes())
Run = Callable[..., Service]


def test_every_file_is_served_with_its_type_and_a_strict_policy(service: Service) -> None:
    types = {"": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
    types |= {".jpg": "image/jpeg", ".csv": "text/csv"}
    assert len(PATHS) > 10
    for path in PATHS:
        answer = service.get(path)
        assert answer.status_code == 200, path
        assert answer.headers["content-type"].partition(";")[0] == types[Path(path).suffix]
        policy = dict(part.strip().split(" ", 1) for part in answer.headers["content-security-policy"].split(";"))
        assert policy["default-src"] == policy["form-action"] == policy["frame-ancestors"] == "'none'"
        assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
        assert policy["img-src"] == "'self' blob: data:"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert "camera=(self)" in answer.headers["permissions-policy"]


def test_caches_keep_files_and_ask_whether_they_have_changed(service: Service) -> None:
    for path in PATHS:
        first = service.get(path)
        assert first.headers["cache-control"] == "no-cache"
        tag = first.headers["etag"]
        for known in (tag, f"W/{tag}", f'"other", {tag}'):
            again = service.get(path, headers={"If-None-Match": known})
            assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
        assert service.get(path, headers={"If-None-Match": '"other"'}).content == first.content
        assert service.head(path).status_code == 200


def test_page_under_a_prefix_is_another_one_to_caches(run_service: Run, tiny_recogniser: Path) -> None:
    service = run_service(tiny_recogniser, trusted_proxies={"127.0.0.1"})
    tags = {service.get("/", headers=headers).headers["etag"] for headers in ({}, {"X-Forwarded-Prefix": "/face"})}
    assert len(tags) == 2


@pytest.mark.parametrize("name", ["index.html", "served.py", "..%2fserved.py", "nothing"])
def test_other_files_are_not_there(service: Service, name: str) -> None:
    answer = service.get(f"/page/{name}")
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


def test_page_is_off_by_a_setting(run_service: Run, tiny_recogniser: Path) -> None:
    service = run_service(tiny_recogniser, page=False)
    answer = service.get("/")
    assert (answer.status_code, answer.headers["location"]) == (307, "docs")
    assert service.get("/page/page.js").status_code == 404
    prefixed = run_service(tiny_recogniser, page=False, root_path="/face")
    assert prefixed.get("/face/").headers["location"] == "/face/docs"


def test_page_is_no_part_of_the_contract(service: Service) -> None:
    assert not [path for path in service.get("/openapi.json").json()["paths"] if path in PATHS]


def test_nothing_is_inline_and_nothing_from_elsewhere() -> None:
    page = (STATIC / "index.html").read_text(encoding="utf-8")
    assert re.findall(r"<script[^>]*>", page) == ['<script type="module" src="page/page.js">']
    assert not re.findall(r"<style|\sstyle=|\son\w+=|javascript:", page)
    addresses = {"http://www.w3.org/2000/svg"}  # a namespace, which nobody asks for anything
    for file in STATIC.iterdir():
        if file.suffix != ".jpg":
            assert set(re.findall(r"(?:https?:)?//[\w.-]+\.\w[\w./]*", file.read_text(encoding="utf-8"))) <= addresses


def test_files_are_in_the_wheel(tmp_path: Path) -> None:
    (wheel,) = WheelBuilder(str(ROOT)).build(directory=str(tmp_path), versions=["standard"])
    names = {Path(name).name for name in zipfile.ZipFile(wheel).namelist() if "/api/page/static/" in name}
    assert names == {file.name for file in STATIC.iterdir()}
