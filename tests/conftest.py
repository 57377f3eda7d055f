"""What several tests need: tiny real ONNX models, a running service, real weights and real faces where they are."""

import csv
import os
import tarfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import hypothesis
import onnx
import pytest
from PIL import Image as Pillow

from arcface_api.api.app import DirectApp, create_app
from arcface_api.cpus import cpu_flags
from arcface_api.packs import PackLocations, locate
from arcface_api.session import openvino_cpu
from arcface_api.settings import Settings
from serving import Command, Run, Service, ending_with_this_process
from tiny_models import age_gender_model, landmarks_model, linear_model, turned

SHARED = Path(__file__).parents[2] / "shared"
MODELS = Path(os.environ.get("ARCFACE_TEST_MODELS", SHARED / "models"))
LFW = Path(os.environ.get("ARCFACE_TEST_LFW", SHARED / "lfw"))
# A time limit would be a timed assertion, and examples that differ from run to run would let one run in many fail.
hypothesis.settings.register_profile(
    "tests", deadline=None, derandomize=True, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("tests")

REAL_RECOGNISERS = ("w600k_mbf_from_int8.onnx", "edgeface_xs.onnx")

needs_bfloat16 = pytest.mark.skipif(
    not cpu_flags() & {"amx_bf16", "avx512_bf16"} or not openvino_cpu.is_openvino_installed(),
    reason="needs a CPU with bfloat16, and OpenVINO",
)


@pytest.fixture(scope="session", autouse=True)
def no_process_outlives_the_run() -> Iterator[None]:
    """Services and other programs that tests start end with the run, even if it is killed."""
    with ending_with_this_process():
        yield


@pytest.fixture(autouse=True)
def no_settings_from_outside(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Tests see neither the variables nor the home folder of the person who runs them."""
    for variable in list(os.environ):
        if variable.startswith("ARCFACE_"):
            monkeypatch.delenv(variable)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home" / ".cache"))
    monkeypatch.setenv("ARCFACE_LOG_FORMAT", "text")  # tests read the log as people do; those of JSON ask for it
    monkeypatch.setenv("ARCFACE_SELF_CHECK_SECONDS", "0")  # it embeds while they count batches, or break the model
    monkeypatch.setenv("ARCFACE_LANES", "2")  # finding out how many are fastest takes seconds at each start


@pytest.fixture(autouse=True)
def without_openvino(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests run on the reference provider, where their numbers are the reference's; those of OpenVINO ask for it."""
    monkeypatch.setattr(openvino_cpu, "is_openvino_installed", lambda: False)


# ── tiny models ────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="session")
def tiny_recogniser(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recogniser with random weights, 512-D: real shapes, real inference, no meaning."""
    path = tmp_path_factory.mktemp("tiny") / "tiny_recogniser.onnx"
    onnx.save(linear_model(112, 512), path)
    return path


@pytest.fixture(scope="session")
def tiny_pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pack with all three roles; its landmark model sees about yaw 20, pitch -10, roll 5 on every picture."""
    folder = tmp_path_factory.mktemp("tiny_pack")
    onnx.save(linear_model(112, 512), folder / "tiny_recogniser.onnx")
    onnx.save(age_gender_model(), folder / "tiny_age_gender.onnx")
    onnx.save(landmarks_model(turned(20, -10, 5)), folder / "tiny_landmarks.onnx")
    return folder


# ── real weights and real faces ────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="session", params=REAL_RECOGNISERS)
def real_recogniser(request: pytest.FixtureRequest) -> Path:
    """Each of the stand-in recognisers."""
    path = MODELS / str(request.param)
    if not path.is_file():
        pytest.skip(f"needs {path}: real weights are not part of this project (set ARCFACE_TEST_MODELS)")
    return path


@dataclass(frozen=True)
class FaceCrop:
    """A detector-like crop of a real face, as a file."""

    name: str
    content: bytes


@pytest.fixture(scope="session")
def face_crops() -> list[FaceCrop]:
    """50 crops of 50 people, boxes x1.0, x1.2 and x1.5, as JPEG and PNG, 24 to 900 pixels wide."""
    if not (LFW / "images.tar").is_file():
        pytest.skip(f"needs {LFW}: real faces are not part of this project (set ARCFACE_TEST_LFW)")
    with (LFW / "labels.csv").open() as labels:
        people = {row["image"].split("/")[0]: row for row in csv.DictReader(labels)}
    rows = sorted(people.values(), key=lambda row: row["image"])[:: len(people) // 50][:50]
    crops = []
    with tarfile.open(LFW / "images.tar") as images:
        for number, row in enumerate(rows):
            file = images.extractfile(row["image"])
            assert file is not None
            picture = Pillow.open(BytesIO(file.read()))
            x, y, w, h = (float(row[key]) for key in ("box_x", "box_y", "box_w", "box_h"))
            grow = (1.0, 1.2, 1.5)[number % 3]
            box = (x - w * (grow - 1) / 2, y - h * (grow - 1) / 2, x + w * (grow + 1) / 2, y + h * (grow + 1) / 2)
            crop = picture.crop((round(box[0]), round(box[1]), round(box[2]), round(box[3])))
            width = (24, 61, 112, 250, 900)[number % 5]
            crop = crop.resize((width, round(width * crop.height / crop.width)))
            content = BytesIO()
            crop.save(content, ("JPEG", "PNG")[number % 2], quality=92)
            crops.append(FaceCrop(f"{row['image']} x{grow} {width}px", content.getvalue()))
    return crops


# ── a running service ──────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def make_app(tmp_path: Path) -> Callable[..., DirectApp]:
    """The app for a recogniser file or pack folder, with settings."""

    def make(pack: Path, **settings: object) -> DirectApp:
        locations = PackLocations(None, tmp_path / "cache", tmp_path / "insightface")
        return create_app(locate(str(pack), locations), Settings(pack=str(pack), **settings))  # type: ignore[arg-type]

    return make


@pytest.fixture
def run_service(make_app: Callable[..., DirectApp]) -> Iterator[Callable[..., Service]]:
    """Start the real service with a pack and settings; gives a client of it. Everything stops with the test."""
    with ExitStack() as at_end:

        def run(pack: Path, **settings: object) -> Service:
            service = Service(make_app(pack, **settings), access_log=bool(settings.get("access_log")))
            at_end.callback(service.stop)
            return at_end.enter_context(service)

        yield run


@pytest.fixture
def run_named(run_service: Callable[..., Service]) -> Callable[[str], Service]:
    """Start the real service with a pack that has a name."""
    return lambda name: run_service(Path(name))


@pytest.fixture
def service(run_service: Callable[..., Service], tiny_recogniser: Path) -> Service:
    """A client of the service with the tiny recogniser and default settings."""
    return run_service(tiny_recogniser)


@pytest.fixture
def run() -> Iterator[Run]:
    """Run the command with these arguments; it ends with the test."""
    with ExitStack() as at_end:

        def run(*arguments: str | Path, **options: Any) -> Command:
            command = Command(*arguments, **options)
            at_end.callback(command.stop)
            return command

        yield run
