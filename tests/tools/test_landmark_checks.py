"""Promises of what checks the landmark regressor: covers in their place, and none that training draws."""

import ast
from pathlib import Path

import cv2
import numpy as np
import pytest

from arcface_api.arrays import Image
from training.landmarks import check_covers, check_light, check_surfaces
from training.landmarks.check_covers import COVERS
from training.landmarks.conditions import HARD
from training.landmarks.faces import Face

POINTS = np.array([[105, 110], [147, 112], [128, 135], [109, 158], [145, 160]], np.float32)
CHECKS = (check_covers, check_light, check_surfaces)


def face(image: Image | None = None) -> Face:
    if image is None:
        image = np.full((250, 250, 3), (178, 131, 101), np.uint8)
    return Face("A/A_0001.jpg", image, np.array([80.0, 62.0, 92.0, 124.0]), POINTS + 1, POINTS, 0.005)


def changed_at(picture: Image, point: int) -> bool:
    """Hidden, not only shaded."""
    x, y = POINTS[point].round().astype(int)
    before, after = (each[y - 1 : y + 2, x - 1 : x + 2].astype(float).mean((0, 1)) for each in (face().image, picture))
    return bool(np.abs(after / after.sum() - before / before.sum()).max() > 0.03)


def share_changed(kind: str, point: int) -> float:
    pictures = [COVERS[kind](face(), np.random.default_rng(seed)) for seed in range(12)]
    return float(np.mean([changed_at(picture, point) for picture in pictures]))


@pytest.mark.parametrize(
    ("kind", "hidden", "visible"),
    [
        ("mask", (3, 4), (0, 1)),
        ("scarf", (3, 4), (0, 1)),
        ("sunglasses", (0, 1), (3, 4)),
        ("brows covered", (), (2, 3, 4)),
    ],
)
def test_cover_hides_its_part_of_the_face_and_leaves_the_other(
    kind: str, hidden: tuple[int, ...], visible: tuple[int, ...]
) -> None:
    assert all(share_changed(kind, point) > 0.8 for point in hidden)
    assert all(share_changed(kind, point) < 0.2 for point in visible)


def test_one_eye_is_covered_now_left_now_right_and_never_both() -> None:
    pictures = [COVERS["eye covered"](face(), np.random.default_rng(seed)) for seed in range(24)]
    eyes = {tuple(changed_at(picture, eye) for eye in (0, 1)) for picture in pictures}
    assert {(True, False), (False, True)} <= eyes
    assert (True, True) not in eyes


def test_cover_turns_with_the_face() -> None:
    """Turned by a quarter with its picture, a face gets the same mask, turned."""
    turned = np.stack([249 - POINTS[:, 1], POINTS[:, 0]], axis=1).astype(np.float32)
    upright = COVERS["mask"](face(), np.random.default_rng(0))
    lying = COVERS["mask"](Face("A", face().image, face().box, turned, turned, 0), np.random.default_rng(0))
    back = cv2.rotate(lying, cv2.ROTATE_90_COUNTERCLOCKWISE).astype(int)
    is_mask, is_turned_mask = (np.abs(each - face().image).max(2) > 60 for each in (upright.astype(int), back))
    assert (is_mask & is_turned_mask).sum() > 0.9 * (is_mask | is_turned_mask).sum() > 0


@pytest.mark.parametrize("condition", list(HARD))
def test_condition_is_the_same_every_time_and_leaves_the_face_s_own_picture_alone(condition: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (250, 250, 3), np.uint8)
    shown = face(noise.copy())
    once, again = (HARD[condition].crop(shown, 7).image for _ in range(2))
    assert np.array_equal(once, again)
    assert np.array_equal(shown.image, noise)


def test_cover_on_a_grey_picture_is_grey() -> None:
    grey = np.full((250, 250, 3), 120, np.uint8)
    for kind, cover in COVERS.items():
        picture = cover(face(grey), np.random.default_rng(3))
        assert np.ptp(picture.astype(int), axis=2).max() <= 1, kind


def test_a_third_cut_off_is_cut_off_at_either_side() -> None:
    kept = [HARD["a third cut off"].crop(face(), seed) for seed in range(12)]
    assert all(sample.image.shape[1] == pytest.approx(92 * 2 / 3, abs=1.5) for sample in kept)
    assert {round(float(sample.points[2, 0])) for sample in kept} == {
        47,
        17,
    }  # of 92 pixels, none or a third are gone before the nose at 48


@pytest.mark.parametrize("module", CHECKS)
def test_checks_take_nothing_from_what_training_draws(module: object) -> None:
    tree = ast.parse(Path(str(getattr(module, "__file__", None))).read_text(encoding="utf-8"))
    imported = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    allowed = {"training.landmarks.check_surfaces", "training.landmarks.faces"}
    assert {name for name in imported if name and name.startswith("training")} <= allowed
