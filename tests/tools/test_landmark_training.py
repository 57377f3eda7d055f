"""Promises of `training/landmarks` that a trained regressor's figures rest on; training itself is not run."""

from dataclasses import replace

import cv2
import numpy as np
import pytest

from arcface_api.arrays import TEMPLATE
from arcface_api.face.geometry import moved, similarity
from arcface_api.face.landmarks import REGRESSOR_DIM, regressor
from training.landmarks.augment import Cut, cover, cut, degrade, random_cut, views
from training.landmarks.covers import KINDS, anywhere, covered
from training.landmarks.faces import PARTS, Face, bucket_of, face_size, part_of
from training.landmarks.finding import find, find_with_rows, load
from training.landmarks.verification import balanced_accuracy, make_pairs, tar_at_far

POINTS = np.array([[105, 110], [147, 112], [128, 135], [109, 158], [145, 160]], np.float32)


def face_with_light_at(point: int) -> Face:
    """A black picture with a soft spot at one landmark."""
    image = np.zeros((250, 250, 3), np.uint8)
    cv2.circle(image, (int(POINTS[point, 0]), int(POINTS[point, 1])), 5, (255, 255, 255), -1)
    return Face("A/A_0001.jpg", image, np.array([80.0, 62.0, 92.0, 124.0]), POINTS + 1, POINTS, 0.005)


def place_of_light(crop: np.ndarray) -> tuple[float, float]:
    weight = crop[..., 0].astype(np.float64)
    y, x = np.mgrid[0 : weight.shape[0], 0 : weight.shape[1]]
    return float((x * weight).sum() / weight.sum()), float((y * weight).sum() / weight.sum())


# ── the split ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_every_bucket_belongs_to_one_part() -> None:
    assert sorted(bucket for buckets in PARTS.values() for bucket in buckets) == list(range(100))


def test_pictures_of_one_person_are_in_one_part() -> None:
    assert len({bucket_of(f"George_W_Bush/George_W_Bush_{n:04}.jpg") for n in range(1, 500)}) == 1


def test_split_stays_as_it_was_trained_with() -> None:
    names = ("Aaron_Eckhart", "Abel_Pacheco", "AJ_Cook", "Zhang_Ziyi")
    assert [bucket_of(f"{name}/{name}_0001.jpg") for name in names] == [38, 22, 42, 23]
    assert {part_of(f"Person_{n}/1.jpg") for n in range(100)} == set(PARTS)


# ── sizes ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_face_size_is_the_eye_distance_of_a_face_that_looks_straight() -> None:
    turned = cv2.getRotationMatrix2D((0, 0), 70, 3).astype(np.float64, copy=False)
    expected = 3 * np.hypot(*(TEMPLATE[1] - TEMPLATE[0]))
    assert face_size(moved(TEMPLATE, turned)) == pytest.approx(expected, rel=1e-5)


# ── augmentation ───────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("point", range(5))
@pytest.mark.parametrize(
    "how",
    [
        Cut(),
        Cut(grow=1.5, angle=30),
        Cut(grow=1.9, angle=-170, squareness=1),
        Cut(grow=1.3, side=48),
        Cut(grow=1.3, side=200, interpolation=cv2.INTER_CUBIC),
        Cut(grow=1.4, shift=(0.1, -0.08), stretch=1.2),
        Cut(grow=1.4, squeeze=1.3),
        Cut(grow=1.4, angle=20, is_mirrored=True),
    ],
)
def test_landmarks_stay_on_their_pixels(how: Cut, point: int) -> None:
    crop, points = cut(face_with_light_at(point), how)
    seen = [1, 0, 2, 4, 3].index(point) if how.is_mirrored else point
    assert place_of_light(crop) == pytest.approx(tuple(points[seen]), abs=0.5)


def test_mirrored_face_has_its_left_eye_on_the_left() -> None:
    _, points = cut(face_with_light_at(0), Cut(is_mirrored=True))
    assert points[0, 0] < points[1, 0]
    assert points[3, 0] < points[4, 0]


def test_tight_cut_is_the_box_as_it_is() -> None:
    face = face_with_light_at(2)
    noise = np.random.default_rng(0).integers(0, 256, face.image.shape, dtype=np.uint8)
    crop, points = cut(replace(face, image=noise), Cut())
    assert np.array_equal(crop, noise[62:186, 80:172])
    np.testing.assert_allclose(points, POINTS - (80, 62), atol=1e-4)


def test_views_show_the_landmarks_where_they_say() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        crop, points = cut(face_with_light_at(2), replace(random_cut(rng), border=cv2.BORDER_CONSTANT, side=None))
        (whole, in_whole), (close, in_close) = views(crop, points, rng)
        for view, target in ((whole, in_whole), (close, in_close)):
            if target[2].min() > 0.15 and target[2].max() < 0.85:
                light = np.where(view.crop > 140, view.crop - 127, 0).astype(np.uint8)
                assert place_of_light(light) == pytest.approx(tuple(64 * target[2]), abs=1.0)


# ── covers and light ───────────────────────────────────────────────────────────────────────────────────────────────

KIND_NAMES = [kind.__name__ for kind in KINDS]


def skin(height: int = 160, width: int = 120) -> np.ndarray:
    return np.full((height, width, 3), (178, 131, 101), np.uint8)


def on_crop(height: int = 160, width: int = 120) -> np.ndarray:
    return np.asarray(TEMPLATE * (width / 112) + (0, (height - width) / 2), np.float32)


@pytest.mark.parametrize(("kind", "part"), [("_mask", 1), ("_from_below", 1), ("_glasses", 0), ("_over_one_eye", 0)])
def test_cover_hides_the_part_that_it_says(kind: str, part: int) -> None:
    shares = [
        covered(skin(), on_crop(), np.random.default_rng(seed), [KIND_NAMES.index(kind)])[1] for seed in range(40)
    ]
    assert np.mean(shares, axis=0)[part] > 2 * np.mean(shares, axis=0)[1 - part]


def test_share_is_that_of_the_pixels_that_changed() -> None:
    for seed in range(40):
        crop, (_, lower_face) = covered(skin(), on_crop(), np.random.default_rng(seed), [KIND_NAMES.index("_mask")])
        x, y = on_crop()[3:].mean(0).round().astype(int)  # between the corners of the mouth
        assert (np.abs(crop[y, x].astype(int) - skin()[y, x]).max() > 3) == (lower_face > 0.5)


def test_what_is_cut_off_is_hidden_only_where_a_cover_reaches_the_crop_s_edge() -> None:
    beyond = on_crop() - np.array([70, 0], np.float32)  # the left eye lies outside the crop
    assert not covered(skin(), beyond, np.random.default_rng(0), [])[1].any()
    mask = KIND_NAMES.index("_mask")
    shares = [covered(skin(), beyond, np.random.default_rng(seed), [mask])[1] for seed in range(20)]
    assert np.mean(shares, axis=0)[1] > 0.5


@pytest.mark.parametrize("kind", range(len(KINDS)), ids=KIND_NAMES)
@pytest.mark.parametrize(("height", "width"), [(24, 18), (17, 30), (4, 4), (220, 160)])
def test_covers_stay_inside_crops_of_any_size_and_leave_the_original_alone(kind: int, height: int, width: int) -> None:
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    original = image.copy()
    for seed in range(6):
        crop, shares = covered(image, on_crop(height, width), np.random.default_rng(seed), [kind])
        assert (crop.shape, crop.dtype.name) == (image.shape, "uint8")
        assert ((shares >= 0) & (shares <= 1)).all()
    assert np.array_equal(image, original)


def test_nearly_half_of_all_crops_are_covered_and_the_others_keep_their_pixels() -> None:
    rng = np.random.default_rng(0)
    made = [cover(skin(), on_crop(), rng) for _ in range(400)]
    changed = np.mean([not np.array_equal(crop, skin()) for crop, _ in made])
    assert changed == pytest.approx(0.45, abs=0.08)
    assert all(not share.any() for crop, share in made if np.array_equal(crop, skin()))


@pytest.mark.parametrize(("height", "width"), [(24, 18), (160, 40), (90, 90)])
def test_pictures_without_a_face_are_covered_as_if_one_was_there(height: int, width: int) -> None:
    for seed in range(20):
        points = anywhere(skin(height, width), np.random.default_rng(seed))
        similarity(points, TEMPLATE)
        assert ((points.mean(0) > 0) & (points.mean(0) < (width, height))).all()


@pytest.mark.parametrize(("height", "width"), [(24, 18), (220, 160)])
def test_degraded_crop_keeps_its_shape_and_its_original(height: int, width: int) -> None:
    image, rng = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8), np.random.default_rng(1)
    original = image.copy()
    made = [degrade(image, rng) for _ in range(150)]
    assert {(crop.shape, crop.dtype.name) for crop in made} == {(image.shape, "uint8")}
    assert np.mean([np.array_equal(crop, image) for crop in made]) < 0.4
    assert np.array_equal(image, original)


# ── finding ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_row_is_the_one_that_the_landmarks_were_read_from() -> None:
    run = load(regressor())
    images = [skin(), face_with_light_at(2).image, np.random.default_rng(0).integers(0, 256, (90, 80, 3), np.uint8)]
    for (first, found), (again, same, row) in zip(find(run, images), find_with_rows(run, images), strict=True):
        assert (first.uncertainty, found.uncertainty) == (again.uncertainty, same.uncertainty)
        assert row.shape == (REGRESSOR_DIM,)
        assert row[[15, 16, 18]].tolist() == [same.eyes_hidden, same.lower_face_hidden, same.face_probability]


# ── verification ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_pairs_are_balanced_and_true() -> None:
    names = [f"P{n // 4}/P{n // 4}_{n}.jpg" for n in range(80)]
    pairs = make_pairs(names, seed=1)
    assert sum(same for _, _, same in pairs) * 2 == len(pairs) == 2 * 20 * 6
    assert all((names[a].split("/")[0] == names[b].split("/")[0]) == same for a, b, same in pairs)


def test_balanced_accuracy_of_scores_that_separate_is_one_and_of_noise_a_half() -> None:
    is_same = np.arange(4000) % 4 == 0
    noise = np.random.default_rng(0).normal(0, 1, 4000)
    assert balanced_accuracy(is_same + 0.05 * noise, is_same) == 1
    assert balanced_accuracy(noise, is_same) == pytest.approx(0.5, abs=0.05)


def test_balanced_accuracy_weighs_both_kinds_alike() -> None:
    """Three errors in ten same pairs and none in 990 different ones: 85 %, not 99.7 %."""
    is_same = np.arange(1000) < 10
    scores = is_same.astype(np.float64)
    scores[:3] = -1
    assert balanced_accuracy(scores + np.linspace(0, 0.1, 1000), is_same) == pytest.approx(0.85, abs=0.01)


def test_tar_counts_what_is_above_all_but_one_in_a_hundred() -> None:
    different, same = np.linspace(0, 0.999, 1000), np.array([0.5, 0.98, 0.9895, 0.995])
    scores = np.concatenate([different, same])
    is_same = np.arange(1004) >= 1000
    assert tar_at_far(scores, is_same) == 0.25 + 0.25
