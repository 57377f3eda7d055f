"""The recipe of an embedding: everything that decides with which others it compares well (docs/adr/0015).

fingerprint ──────────────────────────┐
what was done to the picture ─────────┴─▶ Recipe ──SHA-256──▶ 16 hex digits

No request hashes anything: the few recipes of a loaded model are made at start.
"""

import hashlib
import json
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import product

from arcface_api.embedder.models import PREPROCESSING_VERSION
from arcface_api.embedder.request import EmbedOptions
from arcface_api.errors import RecipeDiffers
from arcface_api.image import Resize
from arcface_api.wire import REQUIRE_RECIPE_HEADER, Align, Alignment, Fit

ALIGNMENT_VERSIONS = {Alignment.AUTO: 2, Alignment.UNSURE: 2, Alignment.LANDMARKS: 1}
"""Raised with every change to finding landmarks, or to cutting a face by them, that can change a vector. 2: landmarks
that the service finds are weighed by their certainty."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What was done to a picture, not what was asked for. A part is None where it had no influence."""

    fingerprint: str
    preprocessing_version: int
    align: Alignment
    """`auto` also for a picture that was aligned already and kept its pixels: its face lies where it has to."""
    alignment_version: int | None
    regressor_sha256: str | None
    """Of the landmark regressor, if it decided about the crop, in hex."""
    fit: Fit | None
    resize: Resize
    """As asked for; `exact` if not `none` was asked for `align`, as nothing is reduced then."""
    flip: bool

    @cached_property
    def digest(self) -> str:
        """The first 16 hex digits of the SHA-256 of the parts as JSON: keys sorted, no spaces."""
        parts = json.dumps(asdict(self), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(parts.encode()).hexdigest()[:16]

    def __str__(self) -> str:
        """The parts that options choose, for a sentence."""
        align = "auto on a picture with unsure landmarks" if self.align is Alignment.UNSURE else self.align
        chosen = {"fit": self.fit, "resize": self.resize, "flip": str(self.flip).lower(), "align": align}
        return ", ".join(f"{name}={value}" for name, value in chosen.items() if value is not None)


class Recipes:
    """The recipes of a loaded recogniser, one for each case that options and pictures can make."""

    def __init__(self, fingerprint: str, regressor_sha256: str) -> None:
        """`regressor_sha256`: of the landmark regressor, in hex."""
        self._by_case = {
            (align, fit, resize, flip): Recipe(
                fingerprint=fingerprint,
                preprocessing_version=PREPROCESSING_VERSION,
                align=align,
                alignment_version=ALIGNMENT_VERSIONS.get(align),
                regressor_sha256=regressor_sha256 if align in (Alignment.AUTO, Alignment.UNSURE) else None,
                fit=fit if align in (Alignment.NONE, Alignment.UNSURE) else None,
                resize=resize if align is Alignment.NONE else Resize.EXACT,
                flip=flip,
            )
            for align, fit, resize, flip in product(Alignment, Fit, Resize, (False, True))
        }
        self.by_digest = {recipe.digest: recipe for recipe in self._by_case.values()}

    def of(self, options: EmbedOptions, alignment: Alignment) -> Recipe:
        """That of a picture which was aligned so; raises `RecipeDiffers` if the options require another one."""
        recipe = self._by_case[alignment, options.fit, options.resize, options.flip]
        if options.required_recipe not in (None, recipe.digest):
            raise _differs(
                options,
                recipe,
                f"Send another picture, or leave out {REQUIRE_RECIPE_HEADER} and compare the embedding only with others"
                " of its recipe.",
            )
        return recipe

    def check(self, options: EmbedOptions) -> None:
        """Raises `RecipeDiffers` if no picture could get the recipe that the options require."""
        required = options.required_recipe
        outcomes = (Alignment.AUTO, Alignment.UNSURE) if options.align is Align.AUTO else (Alignment(options.align),)
        possible = [self._by_case[alignment, options.fit, options.resize, options.flip] for alignment in outcomes]
        if required is None or any(recipe.digest == required for recipe in possible):
            return
        if required in self.by_digest:
            remedy = f"Yours is that of {self.by_digest[required]}: ask for that, or embed your pictures again as here."
        else:
            remedy = (
                "Yours is none of this service's, which /info lists: another model, landmark regressor or version made"
                " your embeddings. Use a service that has yours, or embed your pictures again with this one."
            )
        raise _differs(options, possible[0], remedy)


def _differs(options: EmbedOptions, recipe: Recipe, remedy: str) -> RecipeDiffers:
    required = f"{REQUIRE_RECIPE_HEADER} is {options.required_recipe}"
    return RecipeDiffers(f"{required}, but the embedding would have {recipe.digest} ({recipe}). {remedy}")
