"""Train the landmark regressor and export it into the package.

    python -m training.landmarks.train LFW_FOLDER

One run from random weights, or from those of `--begin-with`, seeded: the same batches in the same order, whatever
the number of worker processes; the weights then agree up to the rounding of PyTorch's threads. A run that was stopped
goes on where its last checkpoint was. The log is kept beside this file.
"""

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, TextIO

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader, Dataset

from arcface_api.cpus import cpu_flags
from arcface_api.face.landmarks import face_view, view_template, whole_view
from training.landmarks.augment import cover, cut, degrade, jittered, random_cut, views
from training.landmarks.beginning import begin_with
from training.landmarks.covers import anywhere
from training.landmarks.export import export
from training.landmarks.faces import Face, face_size, read_faces
from training.landmarks.network import COVERED, FACE, POINTS, UNCERTAINTIES, Regressor
from training.landmarks.non_faces import non_face

HERE = Path(__file__).parent
FACES_PER_BATCH = 112
"""Each is seen in two views."""
NON_FACES_PER_BATCH = 40
UNCERTAINTY_OF_NON_FACES = 1.0
"""What landmarks are off by where there are none, in eye distances."""
STEPS_PER_REPORT = 100
STEPS_PER_CHECKPOINT = 250
BATCHES_FOR_NORMALISATION = 60

HAS_BFLOAT16 = bool(cpu_flags() & {"amx_bf16", "avx512_bf16"})
"""Elsewhere PyTorch imitates it, many times slower than float32."""

Batch = tuple[Tensor, Tensor, Tensor, Tensor]
"""(n, 3, 64, 64) uint8; (n, 5, 2) points in sides of the view; (n,) face size in the same unit, 0 for no face; (n, 2)
how much of each of `covers.PARTS` is hidden."""


@dataclass(frozen=True)
class Batches(Dataset[Batch]):
    """Batch number n is made from random numbers of its own: the same whatever process makes it."""

    faces: Sequence[Face]
    count: int
    seed: int

    def __len__(self) -> int:
        """Batches altogether."""
        return self.count

    def __getitem__(self, number: int) -> Batch:
        """Batch `number`."""
        rng = np.random.default_rng((self.seed, number))
        crops, points, sizes, hidden = [], [], [], []
        for face in self._faces_of(number):
            crop, landmarks = cut(face, random_cut(rng))
            crop, share_hidden = cover(crop, landmarks, rng)
            for view, target in views(degrade(crop, rng), landmarks, rng):
                crops.append(view.crop)
                points.append(target)
                sizes.append(face_size(target))
                hidden.append(share_hidden)
        for _ in range(NON_FACES_PER_BATCH):
            picture = non_face(rng, self.faces)
            picture = degrade(cover(picture, anywhere(picture, rng), rng)[0], rng)
            view = whole_view(picture)
            if rng.random() < 0.4:  # what the second pass sees where the first took it for a face
                height, width = picture.shape[:2]
                guess = (view_template() / 64 * (width, height)).astype(np.float32)
                view = face_view(picture, jittered(guess, 3, rng))
            crops.append(view.crop)
            points.append(np.zeros((5, 2), np.float32))
            sizes.append(0.0)
            hidden.append(np.zeros(2))
        images = torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2)
        shares = torch.from_numpy(np.stack(hidden).astype(np.float32))
        return images, torch.from_numpy(np.stack(points)), torch.tensor(sizes, dtype=torch.float32), shares

    def _faces_of(self, number: int) -> list[Face]:
        """Every face once an epoch, in an order of that epoch's own."""
        batches_per_epoch = len(self.faces) // FACES_PER_BATCH
        epoch, place = divmod(number, batches_per_epoch)
        order = np.random.default_rng((self.seed, 2**31, epoch)).permutation(len(self.faces))
        chosen = order[place * FACES_PER_BATCH : (place + 1) * FACES_PER_BATCH]
        return [self.faces[index] for index in chosen]


def loader(batches: Batches, first: int = 0) -> DataLoader[Batch]:
    """Batches from number `first` on, made by two other processes."""
    order = range(first, len(batches))
    return DataLoader(batches, batch_size=None, sampler=order, num_workers=2, prefetch_factor=4, worker_init_fn=_alone)


def _alone(_: int) -> None:
    cv2.setNumThreads(1)


def tensor_of(crops: Tensor) -> Tensor:
    """What the network takes: -1 to 1."""
    return (crops.float() - 127.5).mul_(1 / 127.5).contiguous(memory_format=torch.channels_last)


def loss_of(rows: Tensor, points: Tensor, sizes: Tensor, hidden: Tensor) -> tuple[Tensor, dict[str, float]]:
    """The four losses: each point's error in eye distances and its prediction, hidden parts, face against no face."""
    is_face = sizes > 0
    log_uncertainty = rows[:, UNCERTAINTIES]
    distances = (rows[is_face, POINTS].reshape(-1, 5, 2) - points[is_face]).square().sum(2).add(1e-9).sqrt()
    errors = distances / sizes[is_face, None]
    # Weighed by the square root of what is expected: hard points count less, but do not vanish.
    location = (errors / log_uncertainty[is_face].detach().exp().clamp(0.02, 1).sqrt()).mean()
    # An exponential distribution's negative log-likelihood: least where the uncertainty is the expected error.
    to_predict = torch.full_like(log_uncertainty, UNCERTAINTY_OF_NON_FACES)
    to_predict = to_predict.masked_scatter(is_face[:, None], errors.detach())
    predicted = (to_predict / log_uncertainty.exp() + log_uncertainty).mean()
    covered = nn.functional.binary_cross_entropy_with_logits(rows[is_face, COVERED], hidden[is_face])
    face = nn.functional.binary_cross_entropy_with_logits(rows[:, FACE], is_face.float())
    figures = {"error": errors.mean().item(), "predicted": predicted.item()}
    figures |= {"covered": covered.item(), "face": face.item()}
    return 4 * location + 0.6 * predicted + 0.8 * covered + face, figures


def renormalise(network: nn.Module, batches: Batches) -> None:
    """Measure the averaged network's own means and variances: those it inherited are of the networks averaged."""
    layers = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # the plain mean over all batches
    network.train()
    with torch.no_grad():
        for crops, *_ in islice(loader(batches), BATCHES_FOR_NORMALISATION):
            network(tensor_of(crops))
    network.eval()


class Training:
    """A network on its way, with all that is needed to go on from a checkpoint."""

    def __init__(self, steps: int, learning_rate: float) -> None:
        """Random weights."""
        self.step = 0
        self.network = Regressor().to(memory_format=torch.channels_last)
        self.averaged = AveragedModel(self.network, multi_avg_fn=get_ema_multi_avg_fn(0.998), use_buffers=True)
        self._optimiser = torch.optim.AdamW(self.network.parameters(), learning_rate, weight_decay=0.01)
        self._schedule = torch.optim.lr_scheduler.OneCycleLR(
            self._optimiser, learning_rate, total_steps=steps, pct_start=0.06, final_div_factor=1000
        )

    def learn(self, batch: Batch) -> dict[str, float]:
        """One step; its figures."""
        crops, points, sizes, hidden = batch
        with torch.autocast("cpu", torch.bfloat16, enabled=HAS_BFLOAT16):
            rows = self.network(tensor_of(crops))
        loss, figures = loss_of(rows, points, sizes, hidden)
        self._optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), 5.0)
        self._optimiser.step()
        self._schedule.step()
        self.averaged.update_parameters(self.network)
        self.step += 1
        return figures

    def save(self, path: Path) -> None:
        """Write a checkpoint, whole or not at all."""
        partial = path.with_suffix(".partial")
        torch.save({"step": self.step, **{name: part.state_dict() for name, part in self._parts().items()}}, partial)
        partial.replace(path)

    def load(self, path: Path) -> None:
        """Go on from a checkpoint."""
        state: dict[str, Any] = torch.load(path, weights_only=True)
        self.step = state["step"]
        for name, part in self._parts().items():
            part.load_state_dict(state[name])

    def _parts(self) -> dict[str, Any]:
        return {
            "network": self.network,
            "averaged": self.averaged,
            "optimiser": self._optimiser,
            "schedule": self._schedule,
        }


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="images.tar and labels.csv")
    parser.add_argument("--steps", type=int, default=20_000)
    parser.add_argument("--learning-rate", type=float, default=3e-3)
    parser.add_argument("--begin-with", type=Path, metavar="FILE.onnx", help="an exported regressor's weights")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--checkpoint", type=Path, default=Path("build/landmarks.pt"))
    parser.add_argument("--output", type=Path, default=HERE.parents[1] / "src/arcface_api/landmarks.onnx")
    parser.add_argument("--log", type=Path, default=HERE / "results/training.jsonl")
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    torch.set_num_threads(options.threads)
    cv2.setNumThreads(1)  # OpenCV's threads would not live on in the forked processes, which wait for them for ever
    faces = read_faces(options.folder, ("train",))
    training = Training(options.steps, options.learning_rate)
    options.checkpoint.parent.mkdir(parents=True, exist_ok=True)
    if options.checkpoint.exists():
        training.load(options.checkpoint)
    batches = Batches(faces, options.steps, options.seed)
    if options.begin_with and training.step == 0:
        begin_with(training.network, options.begin_with, tensor_of(batches[0][0]))
        training.network.train()
    print(f"{len(faces)} faces, step {training.step} of {options.steps}", flush=True)
    kept = lines_until(training.step, options.log)
    with options.log.open("w", encoding="utf-8") as log:
        log.writelines(kept)
        run(training, batches, options.checkpoint, log)
    network = training.averaged.module
    renormalise(network, Batches(faces, BATCHES_FOR_NORMALISATION, options.seed + 1))
    export(network, options.output)
    print(f"{options.output}: {options.output.stat().st_size} bytes")


def lines_until(step: int, log: Path) -> list[str]:
    """What the log of the run that goes on said up to its checkpoint."""
    if step == 0:
        return []
    lines = log.read_text(encoding="utf-8").splitlines(keepends=True)
    return [line for line in lines if json.loads(line)["step"] <= step]


def run(training: Training, batches: Batches, checkpoint: Path, log: TextIO) -> None:
    """All steps that are left, reported and kept."""
    began, first, recent = time.monotonic(), training.step, []
    for batch in loader(batches, first):
        recent.append(training.learn(batch))
        if training.step % STEPS_PER_REPORT == 0:
            means = {key: round(float(np.mean([figures[key] for figures in recent])), 4) for key in recent[0]}
            recent.clear()
            log.write(json.dumps({"step": training.step, **means}) + "\n")
            log.flush()
            left = (time.monotonic() - began) / (training.step - first) * (len(batches) - training.step)
            print(f"step {training.step}  {means}  {left / 60:.0f} min left", flush=True)
        if training.step % STEPS_PER_CHECKPOINT == 0 or training.step == len(batches):
            training.save(checkpoint)


if __name__ == "__main__":
    main()
