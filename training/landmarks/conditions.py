"""The conditions under which landmarks are measured: how a detector's crop may look."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import cv2
import numpy as np

from arcface_api.arrays import Image, Points
from training.landmarks.augment import Cut, cover, cut, degrade, random_cut
from training.landmarks.check_covers import COVERS, Cover
from training.landmarks.check_light import LIGHTS, Light
from training.landmarks.faces import Face


def _unchanged(image: Image) -> Image:
    return image


def _jpeg_20(image: Image) -> Image:
    coded = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 20])[1]
    return np.ascontiguousarray(cv2.imdecode(coded, cv2.IMREAD_COLOR)[..., ::-1])


def _grey(image: Image) -> Image:
    return cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)


@dataclass(frozen=True)
class Sample:
    """A crop, and where its landmarks are, in its pixels."""

    image: Image
    points: Points
    """(5, 2), without the labels' shift."""
    labels: Points
    """(5, 2), as in the file."""


@dataclass(frozen=True)
class Condition:
    """A way to cut and to spoil a crop, the same for the same face every time."""

    cut: Cut = field(default_factory=Cut)
    either_sign: bool = False
    """The angle's sign is drawn for each picture."""
    max_shift: float = 0.0
    """The shift is drawn for each picture, up to this part of the box, either way."""
    spoil: Callable[[Image], Image] = _unchanged
    either_side: bool = False
    """The shift's sign is drawn for each picture."""
    cover: Cover | None = None
    """Drawn before the face, on the whole picture."""
    light: Light | None = None
    """Applied to the crop."""
    max_angle: float | None = None
    """Everything that training does, turned by up to this angle."""

    def crop(self, face: Face, seed: int) -> Sample:
        """The crop of one face, and its landmarks in the crop's pixels."""
        rng = np.random.default_rng((seed, *face.name.encode()))
        how = self.cut
        if self.max_angle is not None:
            how = replace(random_cut(rng), angle=rng.uniform(-self.max_angle, self.max_angle))
        if self.either_sign and rng.random() < 0.5:
            how = replace(how, angle=-how.angle)
        if self.max_shift:
            how = replace(how, shift=tuple(rng.uniform(-self.max_shift, self.max_shift, 2)))
        if self.either_side and rng.random() < 0.5:
            how = replace(how, shift=(-how.shift[0], how.shift[1]))
        if self.cover:
            face = replace(face, image=self.cover(face, rng))
        image, points = cut(face, how)
        _, labels = cut(face, how, as_labelled=True)
        if self.light:
            image = self.light(image, rng)
        spoilt = self.spoil(image) if self.max_angle is None else degrade(cover(image, points, rng)[0], rng)
        return Sample(spoilt, points, labels)


_TWO_THIRDS = float(np.sqrt(2 / 3))
CONDITIONS = {
    "tight": Condition(),
    "x1.2": Condition(Cut(grow=1.2)),
    "x1.5": Condition(Cut(grow=1.5)),
    "rotated 15": Condition(Cut(angle=15), either_sign=True),
    "rotated 30": Condition(Cut(angle=30), either_sign=True),
    "rotated 45": Condition(Cut(angle=45), either_sign=True),
    "rotated 60": Condition(Cut(angle=60), either_sign=True),
    "shifted 10 %": Condition(Cut(grow=1.1), max_shift=0.1),
    "48 px": Condition(Cut(side=48)),
    "32 px": Condition(Cut(side=32)),
    "JPEG 20": Condition(spoil=_jpeg_20),
    "grey": Condition(spoil=_grey),
    "mirrored": Condition(Cut(is_mirrored=True)),
    "rotated 90": Condition(Cut(grow=1.2, angle=90), either_sign=True),
    "rotated 135": Condition(Cut(grow=1.2, angle=135), either_sign=True),
    "rotated 180": Condition(Cut(grow=1.2, angle=180)),
}
"""Those with a table of their own: the face box as it is where nothing else is said. Sizes are of the longer side."""

HARD = {
    **{name: Condition(cover=cover) for name, cover in COVERS.items()},
    **{name: Condition(light=light) for name, light in LIGHTS.items()},
    "28 px": Condition(Cut(side=28)),
    # two thirds of the box's width, and all of its height
    "a third cut off": Condition(Cut(grow=_TWO_THIRDS, stretch=_TWO_THIRDS, shift=(1 / 6, 0)), either_side=True),
}
"""Where a part of the face is covered, dark or missing: drawn independently of what training draws."""

EVERY = CONDITIONS | HARD

AUGMENTED = {
    "all at once, to 60 degrees": Condition(max_angle=60),
    "all at once, to 180 degrees": Condition(max_angle=180),
}
"""As in training: landmark errors only."""
