"""Train the landmark regressor and export it.

    PYTHONPATH=src python training/landmarks/train.py LFW_FOLDER [--minutes-hint …]

Deterministic for one version of PyTorch and one number of threads. Writes the ONNX file into the package, and the
log and figures beside this file.
"""

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from arcface_api.alignment import face_size
from augment import cut, degrade, jittered, random_cut, views
from arcface_api.alignment import face_view, whole_view, VIEW_MARGIN, REGRESSOR_INPUT
from faces import Face, read_faces
from network import Regressor
from non_faces import non_face

HERE = Path(__file__).parent
FACES_PER_BATCH = 112  # each gives two views
NON_FACES_PER_BATCH = 40
UNCERTAINTY_OF_NON_FACES = 1.0


class Batches(Dataset):
    """Batch number n, made from its own random numbers: the same whatever process makes it."""

    def __init__(self, faces: Sequence[Face], count: int, seed: int) -> None:
        self.faces, self.count, self.seed = faces, count, seed

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, number: int) -> tuple[Tensor, Tensor, Tensor]:
        """(n, 3, 64, 64) uint8; (n, 5, 2) points in sides; (n,) face size in sides, 0 for a non-face."""
        rng = np.random.default_rng((self.seed, number))
        crops, points, sizes = [], [], []
        epoch = len(self.faces) // FACES_PER_BATCH
        order = np.random.default_rng((self.seed, 1, number // epoch)).permutation(len(self.faces))
        start = number % epoch * FACES_PER_BATCH
        for index in order[start : start + FACES_PER_BATCH]:
            crop, landmarks = cut(self.faces[index], random_cut(rng))
            for view, target in views(degrade(crop, rng), landmarks, rng):
                crops.append(view.crop)
                points.append(target)
                sizes.append(face_size(target))
        for _ in range(NON_FACES_PER_BATCH):
            picture = degrade(non_face(rng, self.faces), rng)
            view = whole_view(picture)
            if rng.random() < 0.4:  # the second pass sees what the first made of it
                height, width = picture.shape[:2]
                guess = np.array([[0.3, 0.4], [0.7, 0.4], [0.5, 0.6], [0.35, 0.8], [0.65, 0.8]], np.float32)
                view = face_view(picture, jittered((guess * (width, height)).astype(np.float32), 3, rng))
            crops.append(view.crop)
            points.append(np.zeros((5, 2), np.float32))
            sizes.append(0.0)
        return (
            torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2),
            torch.from_numpy(np.stack(points)),
            torch.tensor(sizes, dtype=torch.float32),
        )


def loss_of(rows: Tensor, points: Tensor, sizes: Tensor) -> tuple[Tensor, dict[str, float]]:
    """Distance of the points in face sizes, how well it was foretold, and whether a face was told."""
    is_face = sizes > 0
    log_uncertainty = rows[:, 10]
    distances = (rows[is_face, :10].reshape(-1, 5, 2) - points[is_face]).square().sum(2).add(1e-9).sqrt()
    error = distances.mean(1) / sizes[is_face]
    expected = torch.full_like(sizes, UNCERTAINTY_OF_NON_FACES).masked_scatter(is_face, error.detach())
    # Weighed by the square root of what is expected: hard pictures count less, but do not vanish.
    location = (error / log_uncertainty[is_face].detach().exp().clamp(0.01, 1).sqrt()).mean()
    foretold = (expected / log_uncertainty.exp() + log_uncertainty).mean()
    face = nn.functional.binary_cross_entropy_with_logits(rows[:, 11], is_face.float())
    figures = {"error": error.mean().item(), "foretold": foretold.item(), "face": face.item()}
    return 4 * location + 0.1 * foretold + 0.2 * face, figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--learning-rate", type=float, default=3e-3)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--start-from", type=Path)
    parser.add_argument("--weights", type=Path, default=Path("landmarks.pt"))
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    torch.set_num_threads(options.threads)
    faces = read_faces(options.folder, ("train",))
    print(f"{len(faces)} faces", flush=True)
    network = Regressor().to(memory_format=torch.channels_last)
    if options.start_from:
        network.load_state_dict(torch.load(options.start_from))
    averaged = torch.optim.swa_utils.AveragedModel(
        network, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.998), use_buffers=True
    )
    optimiser = torch.optim.AdamW(network.parameters(), options.learning_rate, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, options.learning_rate, total_steps=options.steps, pct_start=0.08, final_div_factor=100
    )
    batches = DataLoader(
        Batches(faces, options.steps, options.seed), batch_size=None, num_workers=2, prefetch_factor=4,
        worker_init_fn=lambda _: __import__("cv2").setNumThreads(1),
    )
    began = time.monotonic()
    recent: list[dict[str, float]] = []
    for step, (crops, points, sizes) in enumerate(batches, 1):
        tensor = (crops.float() - 127.5).mul_(1 / 127.5).contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16):
            rows = network(tensor)
        loss, figures = loss_of(rows, points, sizes)
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        optimiser.step()
        schedule.step()
        averaged.update_parameters(network)
        recent.append(figures)
        if step % 100 == 0:
            mean = {key: round(float(np.mean([f[key] for f in recent])), 4) for key in figures}
            recent.clear()
            minutes = (time.monotonic() - began) / 60
            print(json.dumps({"step": step, "minutes": round(minutes, 1),
                              "minutes_left": round(minutes / step * (options.steps - step), 1), **mean}), flush=True)
        if step % 1000 == 0 or step == options.steps:
            torch.save(averaged.module.state_dict(), options.weights)


if __name__ == "__main__":
    main()
