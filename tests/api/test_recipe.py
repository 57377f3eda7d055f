"""Promises of the recipe: equal where vectors compare well, another where they do not, and required by callers."""

import hashlib
import json
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from test_align_route import NO_FACE, POINTS, batch, embed, found_on, loose_portrait, png, portrait, problem, vector

from arcface_api.api.answers import BatchAnswer
from arcface_api.embedder import EmbedOptions
from arcface_api.embedder.recipe import Recipes
from arcface_api.wire import Alignment
from pictures import aligned_by_reference, picture_bytes
from raw_http import Caller, picture
from serving import Service

ACCEPT_NPY = {"Accept": "application/x-npy"}


def recipe(answer: httpx.Response) -> str:
    assert answer.status_code == 200, answer.text
    return answer.headers["x-embedding-recipe"]


def requiring(service: Service, required: str, content: bytes, **query: Any) -> httpx.Response:
    headers = {"X-Require-Recipe": required}
    return service.post("/embed", files={"file": content}, params=query, headers=headers)


# ── equal or not ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_recipe_says_what_was_done_to_the_picture_and_not_what_was_asked_for(service: Service) -> None:
    none = recipe(embed(service, NO_FACE))
    auto = recipe(embed(service, png(loose_portrait()), align="auto"))
    unsure = recipe(embed(service, NO_FACE, align="auto"))
    landmarks = recipe(embed(service, NO_FACE, POINTS, align="landmarks"))
    assert len({none, auto, unsure, landmarks}) == 4
    assert recipe(embed(service, png(loose_portrait()))) == none
    parts = service.get("/info").json()["recipes"]
    assert [parts[each]["align"] for each in (none, auto, unsure, landmarks)] == ["none", "auto", "unsure", "landmarks"]


def test_face_that_is_aligned_already_has_the_recipe_of_one_that_was_aligned(service: Service) -> None:
    """Its pixels stay, but its face lies where the others' lie: filtering by recipe must not lose it."""
    aligned = png(aligned_by_reference(loose_portrait(), found_on(loose_portrait())))
    kept = embed(service, aligned, align="auto")
    assert vector(kept) == vector(embed(service, aligned))
    assert recipe(kept) == recipe(embed(service, png(loose_portrait()), align="auto"))


def test_face_that_is_aligned_already_is_stretched_whatever_fit_says(service: Service) -> None:
    """`fit` is no part of the recipe of an aligned face, so it must not change its vector."""
    narrow = png(aligned_by_reference(loose_portrait(), found_on(loose_portrait()))[:, 1:-1])
    answers = [embed(service, narrow, align="auto", fit=fit) for fit in ("stretch", "letterbox")]
    assert [answer.headers["x-alignment"] for answer in answers] == ["auto"] * 2
    assert len(set(map(recipe, answers))) == 1
    assert vector(answers[0]) == vector(answers[1]) == vector(embed(service, narrow))


@pytest.mark.parametrize("option", [{"fit": "letterbox"}, {"resize": "exact"}, {"flip": True}])
def test_options_that_change_vectors_change_the_recipe(service: Service, option: dict[str, Any]) -> None:
    assert recipe(embed(service, NO_FACE, **option)) != recipe(embed(service, NO_FACE))


def test_options_without_influence_do_not(service: Service) -> None:
    for content, asked in ((NO_FACE, {}), (png(loose_portrait()), {"align": "auto"}), (NO_FACE, {"align": "auto"})):
        same = {"normalize": True, "include_quality": True, "encoding": "base64"}
        expected = recipe(embed(service, content, **asked))
        assert recipe(embed(service, content, **asked, **same)) == expected
    aligned = {recipe(embed(service, png(loose_portrait()), align="auto", fit=fit)) for fit in ("stretch", "letterbox")}
    reduced = {recipe(embed(service, NO_FACE, align="auto", resize=resize)) for resize in ("auto", "exact")}
    unsure = {recipe(embed(service, NO_FACE, align="auto", fit=fit)) for fit in ("stretch", "letterbox")}
    assert (len(aligned), len(reduced), len(unsure)) == (1, 1, 2)


def test_large_jpeg_has_the_recipe_of_small_pictures(service: Service) -> None:
    """Their vectors compare well (docs/http-api.md): another recipe would hide one from the other."""
    assert recipe(embed(service, picture_bytes("JPEG", (1350, 1800)))) == recipe(embed(service, NO_FACE))


# ── what it is made of ─────────────────────────────────────────────────────────────────────────────────────────────


def test_info_spells_out_the_parts_of_which_each_recipe_is_the_hash(service: Service) -> None:
    info = service.get("/info").json()
    for digits, parts in info["recipes"].items():
        text = json.dumps(parts, sort_keys=True, separators=(",", ":"))
        assert hashlib.sha256(text.encode()).hexdigest()[:16] == digits
        assert parts["fingerprint"] == info["fingerprint"]
        has_regressor = parts["align"] in {"auto", "unsure"}
        assert parts["regressor_sha256"] == (info["crop"]["regressor_sha256"] if has_regressor else None)
    assert info["recipe"] == recipe(embed(service, NO_FACE))
    assert info["recipes"][info["recipe"]] == {
        "fingerprint": info["fingerprint"],
        "preprocessing_version": 2,
        "align": "none",
        "alignment_version": None,
        "regressor_sha256": None,
        "fit": "stretch",
        "resize": "auto",
        "flip": False,
    }


def test_operator_that_turns_alignment_on_changes_the_recipe_and_not_the_fingerprint(
    run_service: Callable[..., Service], tiny_recogniser: Path
) -> None:
    content = png(loose_portrait())
    before, after = run_service(tiny_recogniser), run_service(tiny_recogniser, align="auto")
    assert recipe(embed(before, content)) != recipe(embed(after, content)) == after.get("/info").json()["recipe"]
    assert before.get("/info").json()["fingerprint"] == after.get("/info").json()["fingerprint"]


def test_model_changes_all_recipes_and_a_regressor_those_that_it_decided() -> None:
    recipes = Recipes("0123456789abcdef", "ab" * 32)
    assert not recipes.by_digest.keys() & Recipes("fedcba9876543210", "ab" * 32).by_digest.keys()
    other = Recipes("0123456789abcdef", "cd" * 32).by_digest.keys()
    changed = {made.align for digest, made in recipes.by_digest.items() if digest not in other}
    kept = {made.align for digest, made in recipes.by_digest.items() if digest in other}
    assert (changed, kept) == ({Alignment.AUTO, Alignment.UNSURE}, {Alignment.NONE, Alignment.LANDMARKS})


def test_stored_recipes_stay_valid() -> None:
    """If one of these changes, all stored vectors of that recipe look as if they did not compare well with new ones."""
    recipes = Recipes("0123456789abcdef", "ab" * 32)
    made = {alignment.value: recipes.of(EmbedOptions(), alignment).digest for alignment in Alignment}
    assert made == {
        "none": "ed6e27996d1b8327",
        "auto": "6ef5a712dd000e98",
        "landmarks": "6d4c98c8c74df71a",
        "unsure": "8b1b526b4f1fdad2",
    }


# ── batches ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_every_result_of_a_batch_has_its_own_recipe(service: Service) -> None:
    contents = [png(loose_portrait()), NO_FACE, b"no picture", png(portrait())]
    answer = batch(service, contents, align="auto")
    results = answer.json()["results"]
    auto, unsure = (recipe(embed(service, content, align="auto")) for content in contents[:2])
    assert [result.get("recipe") for result in results] == [auto, unsure, None, auto]
    assert answer.headers["x-embedding-recipe"] == f"auto={auto}, unsure={unsure}"
    BatchAnswer.model_validate_json(answer.content, strict=True)
    assert "x-embedding-recipe" not in batch(service, [b"no picture"]).headers


# ── required by the caller ─────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("path", ["/embed", "/embed/batch"])
def test_request_that_cannot_give_the_required_recipe_is_refused_before_anything_is_embedded(
    service: Service, path: str
) -> None:
    files = {"file" if path == "/embed" else "files": b"no picture, which nobody reads"}
    auto = recipe(embed(service, png(loose_portrait()), align="auto"))
    refused = service.post(path, files=files, headers={"X-Require-Recipe": auto})
    assert problem(refused) == (409, "recipe_differs")
    for part in (auto, recipe(embed(service, NO_FACE)), "flip=false, align=auto: ask for that"):
        assert part in refused.json()["detail"]
    unknown = service.post(path, files=files, headers={"X-Require-Recipe": "0123456789abcdef"})
    assert problem(unknown) == (409, "recipe_differs")
    assert "none of this service's" in unknown.json()["detail"]


def test_required_recipe_refuses_the_picture_that_would_get_another_one(service: Service) -> None:
    face = png(loose_portrait())
    auto, unsure = (recipe(embed(service, content, align="auto")) for content in (face, NO_FACE))
    assert recipe(requiring(service, auto, face, align="auto")) == auto
    assert recipe(requiring(service, unsure, NO_FACE, align="auto")) == unsure
    for required, content in ((auto, NO_FACE), (unsure, face)):
        refused = requiring(service, required, content, align="auto")
        assert problem(refused) == (409, "recipe_differs")
        assert auto in refused.json()["detail"]
        assert unsure in refused.json()["detail"]


def test_required_recipe_costs_a_batch_only_the_pictures_that_differ(service: Service) -> None:
    face = png(loose_portrait())
    headers = {"X-Require-Recipe": recipe(embed(service, face, align="auto"))}
    files, query = [("files", face), ("files", NO_FACE)], {"align": "auto"}
    answer = service.post("/embed/batch", files=files, params=query, headers=headers)
    codes = [result.get("problem", {}).get("code") for result in answer.json()["results"]]
    assert codes == [None, "recipe_differs"]
    matrix = service.post("/embed/batch", files=files, params=query, headers=headers | ACCEPT_NPY).content
    rows = np.load(BytesIO(matrix), allow_pickle=False)
    assert np.isfinite(rows[0]).all()
    assert np.isnan(rows[1]).all()


# ── how it is required ─────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("write", ["{}  ", " {}\t", "{}"])
def test_spaces_and_capitals_do_not_matter(service: Service, write: str) -> None:
    answer = embed(service, NO_FACE)
    values = {"X-Require-Recipe": recipe(answer), "X-Require-Fingerprint": answer.headers["x-model-fingerprint"]}
    headers = [f"{name}:{write.format(value.upper())}" for name, value in values.items()]
    with Caller(service) as caller:
        caller.send(picture(picture_bytes(), *headers))
        assert caller.answer().status == 200


@pytest.mark.parametrize("name", ["X-Require-Recipe", "X-Require-Fingerprint", "X-Request-Timeout"])
def test_header_that_is_repeated_is_refused(service: Service, name: str) -> None:
    """One of two values would be ignored."""
    right = recipe(embed(service, NO_FACE))
    refused = service.post("/embed", files={"file": NO_FACE}, headers=[(name, right), (name, "0" * 16)])
    assert problem(refused) == (422, "parameter_invalid")
    assert f"The header {name} is given more than once" in refused.json()["detail"]
