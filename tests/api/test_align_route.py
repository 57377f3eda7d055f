"""Promises of `align` and `fit`: which crop is embedded, what the answer states, and which landmarks are refused."""

import json
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import httpx
import numpy as np
import onnx
import onnxruntime as ort
import pytest
from insightface.data import get_image

from arcface_api.api.answers import BatchAnswer, EmbedAnswer
from arcface_api.arrays import TEMPLATE, Crop, Features, Image, Points, to_tensor
from arcface_api.embedder import EmbedOptions, Picture, prepare
from arcface_api.embedder.attributes import AttributePredictor
from arcface_api.embedder.models import Models
from arcface_api.embedder.prepare import Prepared, Preparer
from arcface_api.errors import RuntimeUnfit
from arcface_api.face.geometry import align, face_box
from arcface_api.face.landmarks import REGRESSOR_INPUT, Landmarks, find_landmarks, regressor
from arcface_api.image import ImageLimits
from arcface_api.loading import open_embedder
from arcface_api.packs import PackLocations, locate
from arcface_api.session.onnx_cpu import OnnxCpuSession
from arcface_api.settings import Settings
from arcface_api.wire import Align
from conftest import FaceCrop
from pictures import aligned_by_reference, decoded_by_opencv, picture_bytes
from serving import Service

NO_FACE = picture_bytes("PNG", (90, 120))
POINTS = [[30.0, 40.0], [62.0, 42.0], [45.0, 60.0], [32.0, 80.0], [58.0, 82.0]]
"""In a picture of 90 x 120 pixels: of no face, but they could be a face's."""

MANIFEST = """
name = "own"
title = "Own"
model = "own"
{more}
[licence]
name = "none"
url = "none"
allows_commercial_use = true
notice = ""
[[files]]
name = "model.onnx"
role = "recogniser"
output_dim = 512
[files.input]
height = {height}
width = 112
mean = 127.5
std = 127.5
"""


def png(image: Image) -> bytes:
    return cv2.imencode(".png", image[..., ::-1])[1].tobytes()


def portrait() -> Image:
    """A real face that InsightFace's wheel carries, aligned: (112, 112, 3) RGB."""
    return np.ascontiguousarray(get_image("Tom_Hanks_54745")[..., ::-1])


def loose_portrait() -> Image:
    """The same amid some background: (150, 160, 3)."""
    grown = cv2.copyMakeBorder(portrait(), 18, 20, 30, 18, cv2.BORDER_REPLICATE)
    return grown.astype(np.uint8, copy=False)


def found_on(image: Image) -> Points:
    """The landmarks that the regressor finds, run without the service."""
    session = ort.InferenceSession(regressor())

    def run(crop: Crop) -> Features:
        row: Features = session.run(None, {"input": to_tensor([crop], REGRESSOR_INPUT)})[0][0]
        return row

    landmarks = find_landmarks(image, run)
    assert landmarks.are_sure
    return landmarks.points


def embed(service: Service, content: bytes, landmarks: object = None, **query: Any) -> httpx.Response:
    data = {} if landmarks is None else {"landmarks": json.dumps(landmarks)}
    return service.post("/embed", files={"file": content}, data=data, params=query)


def batch(service: Service, contents: list[bytes], landmarks: object = None, **query: Any) -> httpx.Response:
    data = {} if landmarks is None else {"landmarks": json.dumps(landmarks)}
    return service.post("/embed/batch", files=[("files", content) for content in contents], data=data, params=query)


def vector(answer: httpx.Response) -> list[float]:
    assert answer.status_code == 200, answer.text
    embedding: list[float] = answer.json()["embedding"]
    return embedding


def problem(answer: httpx.Response) -> tuple[int, str]:
    body = answer.json()
    return answer.status_code, body["code"]


# ── none, the contract ─────────────────────────────────────────────────────────────────────────────────────────────


def test_nothing_is_aligned_unless_asked_for(service: Service) -> None:
    answer = embed(service, png(loose_portrait()))
    assert answer.headers["x-alignment"] == "none"
    assert "x-warnings" not in answer.headers
    assert vector(answer) == vector(embed(service, png(loose_portrait()), align="none", fit="stretch"))
    assert "warnings" not in answer.json()


# ── auto ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_auto_embeds_the_crop_that_the_reference_aligns_by_the_same_landmarks(service: Service) -> None:
    image = loose_portrait()
    answer = embed(service, png(image), align="auto")
    assert answer.headers["x-alignment"] == "auto"
    assert answer.json()["warnings"] == []
    EmbedAnswer.model_validate_json(answer.content, strict=True)
    aligned = aligned_by_reference(image, found_on(image))
    assert np.allclose(vector(answer), vector(embed(service, png(aligned))), atol=0.02)


def test_auto_leaves_a_crop_that_is_aligned_as_it_is(service: Service) -> None:
    aligned = aligned_by_reference(loose_portrait(), found_on(loose_portrait()))
    answer = embed(service, png(aligned), align="auto")
    assert answer.headers["x-alignment"] == "auto"
    assert vector(answer) == vector(embed(service, png(aligned)))
    shifted = np.ascontiguousarray(np.roll(aligned, 9, axis=1))
    assert vector(embed(service, png(shifted), align="auto")) != vector(embed(service, png(shifted)))


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_auto_turns_a_face_upright(service: Service, degrees: int) -> None:
    """The crop of a turned picture is that of the upright one, as nearly as landmarks are certain."""
    upright = aligned_by_reference(loose_portrait(), found_on(loose_portrait()))
    image = np.ascontiguousarray(np.rot90(loose_portrait(), degrees // 90))
    assert embed(service, png(image), align="auto").headers["x-alignment"] == "auto"
    again = aligned_by_reference(image, found_on(image))
    assert np.abs(upright.astype(int) - again).mean() < 12


def test_auto_leaves_a_picture_without_a_face_as_it_is_and_says_so(service: Service) -> None:
    answer = embed(service, NO_FACE, align="auto")
    assert answer.headers["x-alignment"] == "unsure"
    assert answer.headers["x-warnings"] == "landmarks_unsure"
    assert answer.json()["warnings"] == ["landmarks_unsure"]
    assert vector(answer) == vector(embed(service, NO_FACE))


def test_auto_gives_the_same_vector_alone_and_in_a_batch(service: Service) -> None:
    contents = [png(loose_portrait()), NO_FACE, png(loose_portrait()[5:, 9:]), png(portrait())]
    alone = [vector(embed(service, content, align="auto")) for content in contents]
    answer = batch(service, contents, align="auto")
    assert [result["embedding"] for result in answer.json()["results"]] == alone
    assert [result["warnings"] for result in answer.json()["results"]] == [[], ["landmarks_unsure"], [], []]
    assert answer.headers["x-alignment"] == "auto, unsure, auto, auto"
    BatchAnswer.model_validate_json(answer.content, strict=True)


def test_auto_is_sure_of_real_crops(
    run_service: Callable[..., Service], tiny_pack: Path, face_crops: list[FaceCrop]
) -> None:
    service = run_service(tiny_pack)
    reported = [embed(service, face.content, align="auto").headers["x-alignment"] for face in face_crops]
    assert reported.count("auto") >= 0.98 * len(reported)


def test_line_of_a_million_pixels_costs_neither_gigabytes_nor_its_neighbours(service: Service) -> None:
    """3 kB as a file; squares as high as the line is long would be 46 GB."""
    line = np.full((1, 1_000_000, 3), 90, np.uint8)
    line[0, ::3] = 200
    for content in (png(line), png(np.ascontiguousarray(line.transpose(1, 0, 2)))):
        answer = embed(service, content, align="auto")
        assert (answer.status_code, answer.headers["x-alignment"]) == (200, "unsure")
        results = batch(service, [content, NO_FACE], align="auto").json()["results"]
        assert all("embedding" in result for result in results)


def test_defect_on_one_picture_costs_only_that_one(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Preparer.prepare

    def defective(self: Preparer, picture: Picture, options: EmbedOptions, limits: ImageLimits) -> Prepared:
        if picture.content == b"defect":
            raise ZeroDivisionError
        return real(self, picture, options, limits)

    monkeypatch.setattr(Preparer, "prepare", defective)
    results = batch(service, [NO_FACE, b"defect", NO_FACE]).json()["results"]
    assert [result.get("problem", {}).get("code") for result in results] == [None, "internal_error", None]


# ── where faces are found ──────────────────────────────────────────────────────────────────────────────────────────


def test_error_of_one_picture_is_its_own(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    real = align

    def defective(image: Image, *rest: Any, **named: Any) -> Crop:
        if image.shape == loose_portrait().shape:
            raise ZeroDivisionError
        return real(image, *rest, **named)

    monkeypatch.setattr(prepare, "align", defective)
    others = [png(loose_portrait()[4:]), png(loose_portrait()[:, 6:])]
    expected = [vector(embed(service, content, align="auto")) for content in others]
    results = batch(service, [others[0], png(loose_portrait()), others[1]], align="auto").json()["results"]
    assert results[1]["problem"]["code"] == "internal_error"
    assert [results[0]["embedding"], results[2]["embedding"]] == expected
    alone = embed(service, png(loose_portrait()), align="auto")
    assert (alone.status_code, alone.json()["code"]) == (500, "internal_error")


def test_stages_include_finding_the_face_in_crop(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """The regressor is held for 50 ms a pass: that is `crop` and nothing else, so a decode thread ran it."""
    threads: set[str] = set()
    real = OnnxCpuSession.run

    def held(self: OnnxCpuSession, crops: Sequence[Crop]) -> Features:
        if crops[0].shape[0] == REGRESSOR_INPUT.height:
            time.sleep(0.05)
            threads.add(threading.current_thread().name.partition(" ")[0])
        return real(self, crops)

    monkeypatch.setattr(OnnxCpuSession, "run", held)
    answer = embed(service, png(loose_portrait()), align="auto")
    timing = dict(stage.split(";dur=") for stage in answer.headers["server-timing"].split(", "))
    stages = {name: float(ms) for name, ms in timing.items()}
    assert stages["crop"] >= 100
    assert stages["total"] >= sum(ms for name, ms in stages.items() if name != "total") - 1
    assert threads == {"decode"}


# ── any picture ────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((1, 1, 3), np.uint8),
        np.full((3, 2000, 3), 200, np.uint8),
        np.full((112, 112, 3), 255, np.uint8),
        np.random.default_rng(0).integers(0, 256, (300, 200, 3), dtype=np.uint8),
    ],
    ids=["one pixel", "a line", "white", "noise"],
)
def test_auto_takes_any_picture(service: Service, image: Image) -> None:
    answer = embed(service, png(image), align="auto", include_quality=True)
    assert answer.headers["x-alignment"] == "unsure"
    assert vector(answer) == vector(embed(service, png(image)))


# ── landmarks ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_landmarks_embed_the_crop_that_the_reference_aligns(service: Service) -> None:
    answer = embed(service, NO_FACE, POINTS, align="landmarks")
    assert answer.headers["x-alignment"] == "landmarks"
    assert "warnings" not in answer.json()
    aligned = aligned_by_reference(decoded_by_opencv(NO_FACE)[..., ::-1], np.array(POINTS, np.float32))
    assert np.allclose(vector(answer), vector(embed(service, png(aligned))), atol=0.02)


def test_landmarks_are_in_pixels_of_the_file_however_large_it_is(service: Service) -> None:
    """A JPEG of two million pixels would be decoded at half its size if it were not to be aligned."""
    large = picture_bytes("JPEG", (1350, 1800), quality=95)
    inside = (0.5 * np.array(POINTS) + [22, 30]).astype(np.float32)  # the crop has no edge of the picture in it
    points = inside * 15 + 7  # the middle of the block that becomes a pixel
    small = cv2.resize(decoded_by_opencv(large), (90, 120), interpolation=cv2.INTER_AREA).astype(np.uint8)
    aligned = aligned_by_reference(small, inside)
    answer = embed(service, large, points.tolist(), align="landmarks")
    assert np.allclose(vector(answer), vector(embed(service, png(aligned[..., ::-1]))), atol=0.05)


def test_every_file_of_a_batch_has_landmarks_of_its_own(service: Service) -> None:
    mirrored = [[90 - x, y] for x, y in np.array(POINTS)[[1, 0, 2, 4, 3]].tolist()]
    collinear = [[x, x] for x, _ in POINTS]
    sent = [POINTS, collinear, POINTS, mirrored, None]
    contents = [NO_FACE, NO_FACE, b"no picture", NO_FACE, NO_FACE]
    answer = batch(service, contents, sent, align="landmarks")
    results = answer.json()["results"]
    codes = [result.get("problem", {}).get("code") for result in results]
    assert codes == [None, "landmarks_invalid", "image_format_unsupported", None, "landmarks_invalid"]
    assert results[0]["embedding"] == vector(embed(service, NO_FACE, POINTS, align="landmarks"))
    assert results[3]["embedding"] == vector(embed(service, NO_FACE, mirrored, align="landmarks"))
    assert answer.headers["x-alignment"] == "landmarks, -, -, landmarks, -"


def test_file_that_is_too_large_keeps_its_landmarks_to_itself(
    run_service: Callable[..., Service], tiny_recogniser: Path
) -> None:
    service = run_service(tiny_recogniser, max_image_bytes=len(NO_FACE))
    contents = [NO_FACE + b"\0", NO_FACE]
    results = batch(service, contents, [None, POINTS], align="landmarks").json()["results"]
    assert results[0]["problem"]["code"] == "body_too_large"
    assert results[1]["embedding"] == vector(embed(service, NO_FACE, POINTS, align="landmarks"))


@pytest.mark.parametrize(
    ("landmarks", "sentence"),
    [
        (POINTS[:4], "shape (4, 2)"),
        ([*POINTS, [1, 2]], "shape (6, 2)"),
        ([[1, 2, 3]] * 5, "shape (5, 3)"),
        ([], "shape (0,)"),
        (None, "pairs of numbers"),
        ("here", "pairs of numbers"),
        ({"left_eye": [1, 2]}, "pairs of numbers"),
        ([[1, "a"]] * 5, "pairs of numbers"),
        ([["30", "40"]] * 5, "pairs of numbers"),
        ([[True, False]] * 5, "pairs of numbers"),
        ([[True, False], *POINTS[1:]], "pairs of numbers"),
        ([[10**400, 2]] * 5, "pairs of numbers"),
        ([[1, 2], [3]], "pairs of numbers"),
        ([[1e999, 2]] * 5, "not JSON"),
        ([[x + 60, y] for x, y in POINTS], "outside the picture of 90 x 120 pixels"),
        (
            [[x / 90, y / 120] for x, y in POINTS],
            "look like fractions of the picture. Send pixels: this one has 90 x 120",
        ),
        ([[x, x] for x, _ in POINTS], "on one line"),
        ([[40 + x / 90, 40 + y / 120] for x, y in POINTS], "in one place"),
        ([[90 - x, y] for x, y in POINTS], "mirrored face"),
    ],
)
def test_bad_landmarks_are_refused_in_a_sentence(service: Service, landmarks: object, sentence: str) -> None:
    data = {"landmarks": json.dumps(landmarks)}
    answer = service.post("/embed", files={"file": NO_FACE}, data=data, params={"align": "landmarks"})
    assert problem(answer) == (422, "landmarks_invalid")
    assert sentence in answer.json()["detail"]


@pytest.mark.parametrize("sent", ["NaN", "[[NaN,1],[2,3],[4,5],[6,7],[8,9]]", "[[1,2]", " ", "\0\xff", "[" * 500])
def test_landmarks_that_are_no_json_are_refused(service: Service, sent: str) -> None:
    answer = service.post(
        "/embed", files={"file": NO_FACE}, data={"landmarks": sent.encode("latin-1")}, params={"align": "landmarks"}
    )
    assert problem(answer) == (422, "landmarks_invalid")
    assert "not JSON" in answer.json()["detail"]


def test_landmarks_that_are_missing_are_asked_for(service: Service) -> None:
    for answer in (
        embed(service, NO_FACE, align="landmarks"),
        batch(service, [NO_FACE], align="landmarks"),
        service.post("/embed", files={"file": NO_FACE}, data={"landmarks": ""}, params={"align": "landmarks"}),
        service.post("/embed", content=NO_FACE, headers={"Content-Type": "image/png"}, params={"align": "landmarks"}),
    ):
        assert problem(answer) == (422, "landmarks_invalid")
        assert "-F 'landmarks=[" in answer.json()["detail"]


def test_form_field_that_was_not_filled_in_counts_as_left_out(service: Service) -> None:
    """As a page sends a form that has the field."""
    answer = service.post("/embed", files={"file": NO_FACE}, data={"landmarks": ""})
    assert answer.json() == embed(service, NO_FACE).json()
    assert answer.status_code == 200


@pytest.mark.parametrize("align", ["none", "auto"])
def test_landmarks_that_nobody_asked_for_are_refused_and_not_ignored(service: Service, align: str) -> None:
    for answer in (
        embed(service, NO_FACE, POINTS, align=align),
        batch(service, [NO_FACE], [POINTS], align=align),
        embed(service, NO_FACE, POINTS),
    ):
        assert problem(answer) == (422, "parameters_conflict")
        assert "align=landmarks" in answer.json()["detail"]


def test_example_for_a_batch_is_a_list_of_lists(service: Service) -> None:
    answer = service.post(
        "/embed/batch",
        files=[("files", NO_FACE)],
        data={"landmarks": "[[1,2]"},
        params={"align": "landmarks"},
    )
    assert problem(answer) == (422, "landmarks_invalid")
    assert "for each file: [[[" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("landmarks", "what"), [([POINTS], "a list of 1"), (POINTS, "a list of 5"), ({}, "not a list")]
)
def test_batch_needs_landmarks_for_each_file(service: Service, landmarks: object, what: str) -> None:
    answer = batch(service, [NO_FACE, NO_FACE], landmarks, align="landmarks")
    assert problem(answer) == (422, "landmarks_invalid")
    assert what in answer.json()["detail"]
    assert "2 files" in answer.json()["detail"]


def test_landmarks_come_once_and_short(service: Service) -> None:
    twice = [("file", NO_FACE), ("landmarks", b"[]"), ("landmarks", b"[]")]
    for answer, sentence in (
        (service.post("/embed", files=twice, params={"align": "landmarks"}), "more than one part"),
        (embed(service, NO_FACE, "x" * 2000, align="landmarks"), "more than 1,024 bytes"),
    ):
        assert problem(answer) == (422, "landmarks_invalid")
        assert sentence in answer.json()["detail"]


# ── fit ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("width", "height"), [(112, 56), (224, 112), (50, 112), (30, 20), (1, 300)])
def test_letterbox_keeps_the_shape(service: Service, width: int, height: int) -> None:
    image = np.full((height, width, 3), 255, np.uint8)
    scale = 112 / max(width, height)
    inner = max(1, round(width * scale)), max(1, round(height * scale))
    expected = np.zeros((112, 112, 3), np.uint8)
    left, top = (112 - inner[0]) // 2, (112 - inner[1]) // 2
    expected[top : top + inner[1], left : left + inner[0]] = 255
    assert vector(embed(service, png(image), fit="letterbox")) == vector(embed(service, png(expected)))


def test_letterbox_leaves_a_square_as_it_is(service: Service) -> None:
    content = png(portrait())
    assert vector(embed(service, content, fit="letterbox")) == vector(embed(service, content))


def test_auto_that_is_unsure_fits_as_asked(service: Service) -> None:
    answer = embed(service, NO_FACE, align="auto", fit="letterbox")
    assert answer.headers["x-alignment"] == "unsure"
    assert vector(answer) == vector(embed(service, NO_FACE, fit="letterbox"))


# ── defaults ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_operator_sets_what_requests_get_that_do_not_say(
    run_service: Callable[..., Service], tiny_recogniser: Path
) -> None:
    service = run_service(tiny_recogniser, align="auto", fit="letterbox")
    crop = service.get("/info").json()["crop"]
    assert (crop["align"], crop["fit"]) == ("auto", "letterbox")
    answer = embed(service, NO_FACE)
    assert list(answer.json()) == ["embedding", "embedding_shape", "embedding_dim", "model", "input_size"]
    assert answer.headers["x-alignment"] == "unsure"
    assert answer.headers["x-warnings"] == "landmarks_unsure"
    assert vector(answer) == vector(embed(service, NO_FACE, align="none", fit="letterbox"))
    assert vector(answer) != vector(embed(service, NO_FACE, align="none", fit="stretch"))
    assert embed(service, NO_FACE, align="none").headers["x-alignment"] == "none"


def test_manifest_sets_what_neither_request_nor_operator_say(
    run_service: Callable[..., Service], tiny_recogniser: Path, tmp_path: Path
) -> None:
    (tmp_path / "model.onnx").write_bytes(tiny_recogniser.read_bytes())
    (tmp_path / "pack.toml").write_text(MANIFEST.format(more='align = "auto"\nfit = "letterbox"', height=112))
    crop = run_service(tmp_path).get("/info").json()["crop"]
    assert (crop["align"], crop["fit"]) == ("auto", "letterbox")
    crop = run_service(tmp_path, align="none").get("/info").json()["crop"]
    assert (crop["align"], crop["fit"]) == ("none", "letterbox")


def test_recogniser_that_is_not_square_cannot_be_aligned(run_service: Callable[..., Service], tmp_path: Path) -> None:
    onnx.save(oblong_model(), tmp_path / "model.onnx")
    (tmp_path / "pack.toml").write_text(MANIFEST.format(more="", height=56))
    service = run_service(tmp_path)
    assert embed(service, NO_FACE).status_code == 200
    assert problem(embed(service, NO_FACE, align="auto")) == (422, "alignment_unavailable")
    with pytest.raises(RuntimeUnfit, match="ARCFACE_ALIGN=none"):
        run_service(tmp_path, align="auto")


@pytest.mark.parametrize(
    "points",
    [
        pytest.param([[73.5, 51.5], [38.3, 51.7], [56.0, 71.7], [70.7, 92.2], [41.5, 92.4]], id="mirrored"),
        pytest.param([[0.34, 0.46], [0.66, 0.46], [0.5, 0.64], [0.37, 0.82], [0.63, 0.82]], id="in fractions"),
        pytest.param([[306, 414], [588, 412], [448, 574], [332, 739], [566, 738]], id="of another size"),
        pytest.param([[56, 56]] * 5, id="one point"),
        pytest.param([[38, 52], [74, 52], [56, 72], [42, 92]], id="four points"),
    ],
)
def test_template_that_no_face_can_have_is_refused(
    run_service: Callable[..., Service], tiny_recogniser: Path, tmp_path: Path, points: list[list[float]]
) -> None:
    """Every aligned face would be cut wrongly, without a warning."""
    (tmp_path / "model.onnx").write_bytes(tiny_recogniser.read_bytes())
    stated = f"{MANIFEST.format(more='', height=112)}template = {points}\n"
    (tmp_path / "pack.toml").write_text(stated)
    with pytest.raises(RuntimeUnfit, match=r"The template of model\.onnx cannot be used: .*pack\.toml"):
        run_service(tmp_path)


# ── attributes ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def models(tiny_pack: Path, tmp_path: Path) -> Models:
    """The tiny pack's, loaded."""
    pack = locate(str(tiny_pack), PackLocations(None, tmp_path, tmp_path))
    settings = Settings(pack=str(tiny_pack))
    return open_embedder(pack, {role: pack.read(role) for role in pack.paths}, settings).models


@pytest.fixture
def predictor(models: Models) -> AttributePredictor:
    """Of the tiny pack's models, which see boxes."""
    assert models.attributes is not None
    return AttributePredictor(models.attributes, 1)


def test_attributes_see_the_face_upright_and_as_large_as_a_detector_s_box(predictor: AttributePredictor) -> None:
    """However the picture is cut: turned, or with more background."""
    upright = predictor.prepare(portrait(), Landmarks(found_on(portrait()), 0.0, 1.0)).crops[0]
    for image in (loose_portrait(), np.ascontiguousarray(np.rot90(loose_portrait()))):
        seen = predictor.prepare(image, Landmarks(found_on(image), 0.0, 1.0)).crops[0]
        middle = slice(24, 72)  # the pictures differ in what lies around the face
        assert np.abs(seen[middle, middle].astype(int) - upright[middle, middle]).mean() < 12


def test_attributes_see_the_whole_picture_if_its_landmarks_are_unsure(predictor: AttributePredictor) -> None:
    image = portrait()
    unsure = predictor.prepare(image, Landmarks(found_on(image), 1.0, 1.0)).crops[0]
    assert np.array_equal(unsure, predictor.prepare(image, None).crops[0])
    assert not np.array_equal(unsure, predictor.prepare(image, Landmarks(found_on(image), 0.0, 1.0)).crops[0])


def test_head_pose_of_a_turned_picture_is_in_the_picture_s_frame(
    run_service: Callable[..., Service], tiny_pack: Path
) -> None:
    """The pack's landmark model sees a roll of 5 degrees in every crop: beside the 90 of the picture, where it is
    turned upright first."""
    service = run_service(tiny_pack)
    image = np.ascontiguousarray(np.rot90(portrait(), -1))
    box = face_box(found_on(image))
    pose = embed(service, png(image), align="auto", include_attributes=True).json()["attributes"]["pose"]
    assert pose["roll"] == pytest.approx(5 + np.degrees(box.angle), abs=4)
    assert 80 < np.degrees(box.angle) < 100


def test_box_of_the_template_is_where_detectors_draw_it() -> None:
    box = face_box(TEMPLATE)
    assert (box.x, box.y, box.side, box.angle) == pytest.approx((55.4, 65, 106, 0), abs=1e-3)


# ── quality ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_quality_is_returned_and_changes_no_embedding(service: Service) -> None:
    large = cv2.imencode(".jpg", cv2.resize(loose_portrait(), (1600, 1500))[..., ::-1])[1].tobytes()
    for content in (png(loose_portrait()), NO_FACE, large):
        for mode in ("none", "auto"):
            answer = embed(service, content, align=mode, include_quality=True)
            assert vector(answer) == vector(embed(service, content, align=mode))
            body = answer.json()
            assert list(body) == [*list(embed(service, content).json()), "quality", "warnings"]
            assert body["quality"]["norm"] == pytest.approx(float(answer.headers["x-embedding-norm"]), rel=1e-6)
            assert body["warnings"] == [code for code in answer.headers.get("x-warnings", "").split(", ") if code]
            EmbedAnswer.model_validate_json(answer.content, strict=True)


def test_quality_is_that_of_the_aligned_face_whatever_the_recogniser_takes(models: Models) -> None:
    spec = models.recogniser.spec
    lower = tuple((x, y + 5) for x, y in TEMPLATE.tolist())
    other = replace(models, recogniser=replace(models.recogniser, spec=replace(spec, template=lower)))
    wanted = EmbedOptions(align=Align.AUTO, include_quality=True)
    picture, limits = Picture(png(loose_portrait())), ImageLimits(1_000_000)
    usual, lowered = (Preparer(each, None).prepare(picture, wanted, limits) for each in (models, other))
    unaligned = Preparer(models, None).prepare(picture, replace(wanted, align=Align.NONE), limits)
    assert usual.quality == lowered.quality == unaligned.quality
    assert not np.array_equal(usual.crop, lowered.crop)


def test_quality_changes_no_attribute(run_service: Callable[..., Service], tiny_pack: Path) -> None:
    service, content = run_service(tiny_pack), png(loose_portrait())
    answers = [
        embed(service, content, include_attributes=True, include_quality=asked, align="none").json()["attributes"]
        for asked in (False, True)
    ]
    assert answers[0] == answers[1]
    aligned = embed(service, content, include_attributes=True, align="auto").json()["attributes"]
    assert aligned != answers[0]


def test_quality_of_the_caller_s_landmarks_is_beyond_doubt(service: Service) -> None:
    body = embed(service, NO_FACE, POINTS, align="landmarks", include_quality=True).json()
    assert body["quality"]["landmark_confidence"] == 1
    assert not {"landmarks_unsure", "probably_no_face"} & set(body["warnings"])


def test_face_size_is_in_pixels_of_the_file(service: Service) -> None:
    """Also where a large JPEG is decoded at half its size."""
    small = png(cv2.resize(loose_portrait(), (640, 600)).astype(np.uint8))
    large = cv2.imencode(".jpg", cv2.resize(loose_portrait(), (1600, 1500))[..., ::-1])[1].tobytes()
    sizes = [
        embed(service, content, include_quality=True).json()["quality"]["face_size_px"] for content in (small, large)
    ]
    assert sizes[1] / sizes[0] == pytest.approx(2.5, rel=0.05)


def test_quality_needs_json(service: Service) -> None:
    answer = service.post(
        "/embed",
        files={"file": NO_FACE},
        params={"include_quality": True},
        headers={"Accept": "application/x-npy"},
    )
    assert problem(answer) == (422, "parameters_conflict")


def oblong_model() -> onnx.ModelProto:
    """(n, 3, 56, 112) → (n, 512)."""
    weights = np.random.default_rng(0).normal(0, 0.01, (3 * 7 * 14, 512)).astype(np.float32)
    helper = onnx.helper
    graph = helper.make_graph(
        [
            helper.make_node("AveragePool", ["input"], ["pooled"], kernel_shape=[8, 8], strides=[8, 8]),
            helper.make_node("Flatten", ["pooled"], ["flat"]),
            helper.make_node("MatMul", ["flat", "weights"], ["output"]),
        ],
        "oblong",
        [helper.make_tensor_value_info("input", onnx.TensorProto.FLOAT, ["n", 3, 56, 112])],
        [helper.make_tensor_value_info("output", onnx.TensorProto.FLOAT, ["n", 512])],
        [onnx.numpy_helper.from_array(weights, "weights")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
