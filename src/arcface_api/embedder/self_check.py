"""The self-check: while the service runs, it embeds synthetic faces as callers' pictures are, and compares the answers.

    probe pictures ──Embedder.check──▶ answers ─┬─ cosine ──▶ the reference's features, as at start
                                                └─ bits ────▶ the first answer from a batch of that size

Memory that flips a bit, a card that overheats, a library that is replaced below: afterwards vectors differ, and nothing
fails. A difference is a drift: from then on no caller gets a vector, until several checks in a row find none.

Checks wait for a moment in which nobody is inside, and are small; only a check that is overdue runs beside callers, and
after them. docs/adr/0027 says what that leaves open.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import cv2
import numpy as np

from arcface_api.embedder.embedder import Embedder
from arcface_api.embedder.request import Embedded, EmbedOptions, Picture
from arcface_api.errors import ServiceClosing
from arcface_api.session import GPU_PROVIDERS, MIN_COSINE, probe_crops
from arcface_api.wire import Align

Result = Literal["passed", "failed", "drifted"]

FIRST_SECONDS = 10.0
"""How long the first check, whose answers the others are compared with, waits for a moment without callers."""
QUIET_SECONDS = 0.1
"""Between two looks whether callers are inside."""
AGAIN_SECONDS = 1.0
"""After a check that did not pass, until the next one."""
CLEAN_CHECKS = 3
"""Checks of everything that must pass in a row after a drift, before callers get vectors again."""
LANDMARK_PIXELS, ATTRIBUTE_UNITS = 0.01, 1.0
"""What landmarks may differ from those of the first answer; and attributes, in years and degrees, as their models may
compute other bits in a batch with callers' faces."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Probe:
    """One picture of the check."""

    name: str
    picture: Picture
    options: EmbedOptions
    expected: Any = None
    """The reference's features, (dim,) float32. None: its crop is not the probe crop that the reference has seen."""


@dataclass(frozen=True)
class _Drift:
    what: str
    until: float
    """By `time.monotonic`: then the process has to be replaced."""


class SelfCheck:
    """Checks one embedder from a task of its event loop."""

    def __init__(
        self,
        embedder: Embedder,
        *,
        seconds: float,
        busy_seconds: float,
        hang_seconds: float,
        on_checked: Callable[[Result, float], None] = lambda *_: None,
    ) -> None:
        """Nothing runs before `watch`.

        Args:
            embedder: Its recogniser has `probe_features`.
            seconds: Between two checks.
            busy_seconds: A check that found callers inside for so long runs nevertheless.
            hang_seconds: A drift that lasts so long is a reason to replace the process. So is a second one.
            on_checked: Gets the result of each check, and its lowest cosine to the reference.
        """
        self._embedder, self._on_checked = embedder, on_checked
        self._seconds, self._busy_seconds, self._hang_seconds = seconds, busy_seconds, hang_seconds
        self._plain, self._aligned = _probes(embedder)
        self._first: dict[str, Embedded] = {}
        self._first_of_size: dict[tuple[str, int], Embedded] = {}
        """By probe and batch size: beside callers, first answers may come from batches of any size."""
        self._is_exact: dict[int, bool] = {}
        """Whether batches of this size give the bits of the first answers. Not all models do so in all sizes."""
        self._may_be_exact = embedder.recogniser.session.provider not in GPU_PROVIDERS
        if seconds and self._may_be_exact and embedder.recogniser.wide is not None:
            # Other threads may add up in another order, and a first check beside callers does not meet the wide lane.
            crop = probe_crops(embedder.recogniser.spec.height, embedder.recogniser.spec.width)[0]
            lane, wide = embedder.recogniser.session.run([crop]), embedder.recogniser.wide.run([crop])
            self._is_exact[1] = lane.tobytes() == wide.tobytes()
        self._has_all = False
        """Whether a check of everything has passed, so that there are first answers and the sizes are known."""
        self._drift: _Drift | None = None
        self._has_drifted_before = False
        self._passed_since = 0
        self._lowest = 1.0

    @property
    def drift(self) -> str | None:
        """What has drifted, as long as callers get no vectors for it; else None."""
        return None if self._drift is None else self._drift.what

    def why_replace(self) -> str | None:
        """Why the process has to be replaced; None if it has not."""
        return self._drift.what if self._drift and time.monotonic() >= self._drift.until else None

    async def watch(self) -> None:
        """Check again and again, until cancelled or until the embedder takes no more work."""
        latest, number, has_failed = time.monotonic() + FIRST_SECONDS, 0, False
        while True:
            checks_all = not self._has_all or self._drift is not None
            try:
                result = await self._check(self._everything() if checks_all else self._some(number), latest)
            except ServiceClosing:
                return
            except Exception as error:  # noqa: BLE001  # callers meet it as well, and no wrong vector
                result = "failed"
                if not has_failed:
                    _log.warning("A self-check could not be carried out: %s", error, exc_info=error)
            has_failed = result == "failed"
            self._on_checked(result, self._lowest)
            if result == "passed":
                number += 1
                self._has_all |= checks_all
                self._has_passed()
            latest = time.monotonic() + self._busy_seconds
            await asyncio.sleep(self._seconds if result == "passed" and self._drift is None else AGAIN_SECONDS)

    async def _check(self, groups: Iterator[Sequence[_Probe]], latest: float) -> Result:
        """Embed probes, each group at once, and compare; ends with the first difference."""
        self._lowest = 1.0
        for group in groups:
            while self._embedder.inside and self._drift is None and time.monotonic() < latest:  # noqa: ASYNC110  # an event would have to be set for each caller
                await asyncio.sleep(QUIET_SECONDS)
            embedding = (self._embedder.check(probe.picture, probe.options) for probe in group)
            answers = await asyncio.gather(*embedding, return_exceptions=True)
            for answer in answers:
                if isinstance(answer, BaseException):
                    raise answer
            for probe, answer in zip(group, answers, strict=True):
                assert isinstance(answer, Embedded)  # noqa: S101  # others were raised above
                if what := self._difference(probe, answer):
                    self._has_found(f"probe picture {probe.name} {what}")
                    return "drifted"
        return "passed"

    def _everything(self) -> Iterator[Sequence[_Probe]]:
        """Each probe alone, on the wide lane if there is one; each in company, on the lanes; each aligned."""
        yield from ([probe] for probe in self._plain)
        for start in range(0, len(self._plain), self._embedder.checks_at_once):
            yield self._company(start)
        yield from ([probe] for probe in self._aligned)

    def _some(self, number: int) -> Iterator[Sequence[_Probe]]:
        """Of each kind one: other probes each time."""
        yield [self._plain[number % len(self._plain)]]
        yield self._company(number + 1)
        yield [self._aligned[number % len(self._aligned)]]

    def _company(self, start: int) -> Sequence[_Probe]:
        """One for each lane, at least two."""
        return [self._plain[(start + n) % len(self._plain)] for n in range(self._embedder.checks_at_once)]

    def _difference(self, probe: _Probe, answer: Embedded) -> str | None:
        """How an answer differs from what it has to be; None if it does not. The first one is remembered."""
        cosine = 1.0
        if probe.expected is not None:
            cosine = _cosine(answer.embedding, probe.expected)
            self._lowest = min(self._lowest, cosine)
        first = self._first.setdefault(probe.name, answer)
        alike = self._first_of_size.setdefault((probe.name, answer.batch_size), answer)
        other_bits = int(np.count_nonzero(answer.embedding.view(np.uint32) != alike.embedding.view(np.uint32)))
        to_first = _cosine(answer.embedding, first.embedding)
        differs = cosine < MIN_COSINE or to_first < MIN_COSINE
        if not differs and self._may_be_exact:
            size = answer.batch_size
            is_exact = self._is_exact.setdefault(size, not other_bits)
            if other_bits and is_exact and not self._has_all:
                self._is_exact[size] = False  # the lanes and the wide one, or two runs, have never been equal
            differs = bool(other_bits and self._is_exact[size])
        if differs:
            to_float32 = "" if probe.expected is None else f"{cosine:.6f} to float32 on the CPU and "
            return (
                f"has a cosine of {to_float32}{to_first:.6f} to its first answer, from which {other_bits} of"
                f" {answer.embedding.size} numbers differ"
            )
        if first.alignment != answer.alignment or not _is_near(first.landmarks, answer.landmarks, LANDMARK_PIXELS):
            return "has other landmarks than at first"
        if not _is_near(_attributes(first), _attributes(answer), ATTRIBUTE_UNITS):
            return "has other attributes than at first"
        return None

    def _has_found(self, what: str) -> None:
        """A drift, which may be known already."""
        self._passed_since = 0
        self._embedder.has_drifted = True
        if self._drift is not None:
            return
        patience = 0.0 if self._has_drifted_before else self._hang_seconds
        self._drift = _Drift(f"the vectors have drifted: {what}", time.monotonic() + patience)
        _log.critical(
            "The vectors have drifted, and no caller gets one: %s. If this lasts for %g s, the process ends.",
            *(what, patience),
        )

    def _has_passed(self) -> None:
        """A check has passed; after a drift, one of everything."""
        self._passed_since += 1
        if self._drift is None or self._passed_since < CLEAN_CHECKS:
            return
        self._drift, self._has_drifted_before, self._embedder.has_drifted = None, True, False
        _log.warning(
            "Callers get vectors again: the last %d self-checks have passed. If the vectors drift once more, the"
            " process ends. Look for the cause: memory, the temperature of CPU and card, replaced libraries.",
            CLEAN_CHECKS,
        )


def _probes(embedder: Embedder) -> tuple[list[_Probe], list[_Probe]]:
    """The synthetic faces as callers would send them: lossless and as they are, and as JPEG on all the other ways."""
    spec, features = embedder.recogniser.spec, embedder.recogniser.probe_features
    assert features is not None  # noqa: S101  # of a recogniser that serves
    align = Align.AUTO if spec.height == spec.width else Align.NONE
    all_ways = EmbedOptions(
        align=align, include_landmarks=True, include_attributes=embedder.models.attributes is not None
    )
    plain, aligned = [], []
    for number, crop in enumerate(probe_crops(spec.height, spec.width)):
        png, jpeg = (cv2.imencode(suffix, crop[..., ::-1])[1].tobytes() for suffix in (".png", ".jpg"))
        plain.append(_Probe(f"{number} (PNG)", Picture(png), EmbedOptions(), features[number]))
        aligned.append(_Probe(f"{number} (JPEG, align={align.value})", Picture(jpeg), all_ways))
    return plain, aligned


def _cosine(a: Any, b: Any) -> float:
    one, other = a.astype(np.float64), b.astype(np.float64)
    return float(one @ other / (np.linalg.norm(one) * np.linalg.norm(other)))


def _is_near(one: Any, other: Any, most: float) -> bool:
    return one is other or bool(np.allclose(one, other, rtol=0, atol=most))


def _attributes(embedded: Embedded) -> list[float] | None:
    """Years, degrees, and a gender that is never near the other one."""
    if (found := embedded.attributes) is None:
        return None
    gender = {"female": 0.0, "male": 1000.0}[found.age_gender.gender]
    return [found.age_gender.age, gender, found.head_pose.yaw, found.head_pose.pitch, found.head_pose.roll]
