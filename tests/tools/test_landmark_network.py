"""Promises of the landmark regressor's network and losses; skipped where PyTorch is missing, as in CI."""

from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

from arcface_api.face.landmarks import read_landmarks, regressor, whole_view

torch = pytest.importorskip("torch", reason="PyTorch (dependency group `training`) is not installed.")

from training.landmarks.beginning import _wider, begin_with  # noqa: E402  # needs torch
from training.landmarks.export import export  # noqa: E402
from training.landmarks.network import COVERED, FACE, UNCERTAINTIES, Exported, Regressor  # noqa: E402
from training.landmarks.train import loss_of  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")  # torch.onnx's own


def row(points: np.ndarray, log_uncertainty: list[float], hidden: float, face: float) -> np.ndarray:
    return np.concatenate([points.ravel(), log_uncertainty, [hidden, hidden, face]]).astype(np.float32)


def losses(rows: np.ndarray, points: np.ndarray, hidden: float = 0.0) -> tuple[float, dict[str, float]]:
    tensors = torch.from_numpy(rows[None]), torch.from_numpy(points[None].astype(np.float32))
    loss, figures = loss_of(*tensors, torch.tensor([0.4]), torch.full((1, 2), hidden))
    return float(loss), figures


POINTS = np.array([[0.3, 0.4], [0.7, 0.4], [0.5, 0.6], [0.35, 0.8], [0.65, 0.8]])


def test_each_point_s_uncertainty_is_best_where_it_is_that_point_s_error() -> None:
    off = POINTS.copy()
    off[3, 0] += 0.08  # of a face of 0.4: an error of 0.2
    rows = {
        guess: row(off, [np.log(0.02)] * 3 + [np.log(guess), np.log(0.02)], -4, 4) for guess in (0.02, 0.1, 0.2, 0.4, 1)
    }
    predicted = {guess: losses(each, POINTS)[1]["predicted"] for guess, each in rows.items()}
    assert min(predicted, key=lambda guess: predicted[guess]) == 0.2


def test_wrong_points_parts_and_faces_cost_more() -> None:
    right = row(POINTS, [-3] * 5, -4, 4)
    best = losses(right, POINTS)[0]
    assert losses(row(POINTS + 0.02, [-3] * 5, -4, 4), POINTS)[0] > best
    assert losses(row(POINTS, [-3] * 5, 4, 4), POINTS)[0] > best
    assert losses(row(POINTS, [-3] * 5, -4, 4), POINTS, hidden=1.0)[0] > best
    assert losses(row(POINTS, [-3] * 5, -4, -4), POINTS)[0] > best


def test_exported_row_is_what_the_service_reads(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = Regressor().eval()
    export(network, tmp_path / "next.onnx")
    assert (tmp_path / "next.onnx").stat().st_size < 1_000_000
    view = whole_view(np.random.default_rng(0).integers(0, 256, (80, 70, 3), np.uint8))
    tensor = (view.crop.astype(np.float32).transpose(2, 0, 1)[None] - 127.5) / 127.5
    (rows,) = ort.InferenceSession(tmp_path / "next.onnx").run(None, {"input": tensor})
    with torch.no_grad():
        expected = Exported(network)(torch.from_numpy(tensor)).numpy()
    np.testing.assert_allclose(rows, expected, atol=2e-3)  # weights in float16
    assert rows.shape == (1, 19)
    landmarks = read_landmarks(rows[0], view)
    assert landmarks.weights is not None
    assert landmarks.uncertainty == pytest.approx(
        np.average(rows[0, UNCERTAINTIES].clip(0, 1), weights=landmarks.weights), rel=1e-5
    )
    assert landmarks.face_probability == pytest.approx(rows[0, FACE])
    assert ((rows[0, COVERED] > 0) & (rows[0, COVERED] < 1)).all()


def test_network_that_begins_with_the_shipped_file_returns_what_the_file_does(tmp_path: Path) -> None:
    file = tmp_path / "shipped.onnx"
    file.write_bytes(regressor())
    rng = np.random.default_rng(0)
    views = torch.from_numpy(rng.uniform(-1, 1, (16, 3, 64, 64)).astype(np.float32))
    network = Regressor()
    begin_with(network, file, views[:8])
    with torch.no_grad():
        rows = Exported(network.eval())(views).numpy()
    (expected,) = ort.InferenceSession(file).run(None, {"input": views.numpy()})
    np.testing.assert_allclose(rows[:, :10], expected[:, :10], atol=2e-3)
    np.testing.assert_allclose(rows[:, 10:], expected[:, 10:], rtol=2e-2, atol=1e-4)
    # and still does where it normalises by the batch itself, as in training
    with torch.no_grad():
        trained = Exported(network.train())(views[:8]).numpy()
    np.testing.assert_allclose(trained[:, :10], expected[:8, :10], atol=5e-3)


def test_older_row_s_one_uncertainty_becomes_that_of_each_point() -> None:
    weight, bias = np.random.default_rng(0).normal(0, 1, (12, 128)).astype(np.float32), np.arange(12, dtype=np.float32)
    wider, biases = _wider(weight, bias)
    assert wider.shape == (18, 128)
    assert np.array_equal(wider[:10], weight[:10])
    assert (wider[UNCERTAINTIES] == weight[10]).all()
    assert np.array_equal(wider[FACE], weight[11])
    assert biases[[0, 9, 10, 14, -1]].tolist() == [0, 9, 10, 10, 11]
    assert not wider[COVERED].any()
    assert (biases[COVERED] < 0).all()


def test_file_of_another_network_is_refused(tmp_path: Path) -> None:
    other = Regressor()
    other.body[0][0] = torch.nn.Conv2d(3, 16, 5, 2, 2, bias=False)
    export(other.eval(), tmp_path / "other.onnx")
    with pytest.raises(ValueError, match="another network"):
        begin_with(Regressor(), tmp_path / "other.onnx", torch.zeros(2, 3, 64, 64))
