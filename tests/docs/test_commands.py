"""Promises of every document: its commands run, its answers have the shown form, and what is not run has a reason.

A command is run in a copy of the checkout, beside pictures and a model with the names that documents use, and with a
service for what they send to localhost:5555. docs/commands-not-run.toml lists the commands that are not run.
"""

import base64
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tarfile
import tomllib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click
import httpx
import onnx
import pytest
from evaluate.conftest import write_synthetic_people

from arcface_api.cli import cli
from arcface_api.packs import PackLocations, locate
from documented_commands import (
    DATA,
    PROGRAMS,
    ROOT,
    SHELL,
    Block,
    blocks,
    catalogue,
    commands,
    commands_in_sentences,
    commands_of,
    documents,
    in_one_line,
    reasons,
    run_elsewhere,
)
from pictures import picture_bytes
from serving import path_with_programs
from tiny_models import linear_model

pytestmark = pytest.mark.once  # documents are the same on every Python

RUNS = ("arcface-api", "curl", "echo", "lscpu", "make", "python", "python3")
"""Programs that are run without being listed: they change nothing outside the copy."""
LIST_IT = (
    "List it in docs/commands-not-run.toml: under [not_run.…] with the reason why no test runs it, or under"
    " [run_elsewhere] with the test that does."
)
CATALOGUE, COMMANDS, REASONS, BLOCKS = catalogue(), commands(), reasons(), {block.name: block for block in blocks()}
RUN_ELSEWHERE = run_elsewhere()
RUN_HERE = [name for name in COMMANDS if name not in REASONS and name not in RUN_ELSEWHERE]
PARSED = [name for name, reason in REASONS.items() if reason not in ("crash", "programs")]
BODIES = {name: about["bodies_of"] for name, about in CATALOGUE["answers"].items() if "bodies_of" in about}
ANSWERS = [name for name, block in BLOCKS.items() if block.language == "json" and name not in BODIES]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
IN_SENTENCES = commands_in_sentences()
OWN_MODELS = ("models/onnx/glintr100/glintr100.onnx", "~/.deepface/weights/arcface_weights.onnx")
"""Where other programs keep the models that a reader may have: ours stands there instead."""
DEEPFACE = "arcface-api packs import ~/.deepface/weights/arcface_weights.onnx --name deepface_arcface"
OWN_PACKS = ("mine", "ifr_glintr100")
"""Names by which documents call packs that a reader has imported."""
NOT_COPIED = (".git", ".venv*", ".*_cache", ".hypothesis", "__pycache__", "build", "dist")


def begun(names: Iterable[str]) -> list[str]:
    """Names of tests: pytest numbers long ones, by which nobody finds them."""
    return [name[:90] for name in names]


# ── where commands run ─────────────────────────────────────────────────────────────────────────────────────────────


class Clone:
    """A copy of the checkout whose environments are made, with the files that documents name."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.url = folder / "arcface-api", ""
        shutil.copytree(ROOT, self.folder, ignore=shutil.ignore_patterns(*NOT_COPIED))
        (self.folder / ".git").mkdir()  # so that ruff reads .gitignore
        self._write_programs(folder / "bin")
        self._home = folder / "home"
        self._home.mkdir()
        self._write_files()
        (self._home / ".curlrc").write_text("fail-with-body\nsilent\nshow-error\n")
        self.environment = {
            # Nothing else from outside: the ARGS of the `make test` that runs this would reach each `make` here.
            "PATH": self._path,
            "TEST_RUN": os.environ["TEST_RUN"],  # by which a killed run's processes are found
            "LC_ALL": "C.UTF-8",
            "PYTHONPATH": str(self.folder / "src"),
            "HOME": str(self._home),
            "XDG_CACHE_HOME": str(self._home / ".cache"),
            "HTTPS_PROXY": "http://127.0.0.1:9",  # where nothing listens: no command reaches the internet
            "ARCFACE_PACK": str(self.folder / "my_recogniser.onnx"),
            "ARCFACE_DEVICE": "cpu",
            "ARCFACE_PRECISION": "float32",
            "ARCFACE_LANES": "2",  # finding out how many are fastest takes seconds at each start
            "ARCFACE_PORT": "0",
        }

    def _write_programs(self, folder: Path) -> None:
        self._path = path_with_programs(folder)
        for environment in ("cpu", "dev", "evaluate-cpu"):
            (self.folder / f".venv-{environment}").symlink_to(sys.prefix)
        (self.folder / "requirements" / "make-environment").write_text("#!/bin/sh\n")

    def _write_files(self) -> None:
        (self.folder / "keys").write_text("archive correct-horse-battery-staple\n")
        # One that separates these people better if it is fed BGR: `packs check` certainly corrects it.
        onnx.save(linear_model(112, 512, seed=5), self.folder / "my_recogniser.onnx")
        for name, size in (("face.jpg", (112, 128)), ("a.jpg", (112, 130)), ("b.jpg", (120, 140))):
            (self.folder / name).write_bytes(picture_bytes(size=size))
        (self.folder / "face.gif").write_bytes(picture_bytes("GIF"))
        (self.folder / "damaged.jpg").write_bytes(picture_bytes()[:300])
        (self.folder / "crop.png").write_bytes(picture_bytes("PNG", (112, 112)))
        crops = self.folder / "crops"
        pictures = sorted(write_synthetic_people(crops, self.folder / "pairs.csv").images.rglob("*.png"))
        for name in ("crops.tar", "photos.tar"):
            with tarfile.open(self.folder / name, "w") as tar:
                for picture in pictures:
                    tar.add(picture, picture.relative_to(crops))
        boxes = [f"{picture.relative_to(crops)},2,2,60,76" for picture in pictures]
        (self.folder / "boxes.csv").write_text("\n".join(["image,x,y,width,height", *boxes]))
        for name in ("face.jpg", "damaged.jpg"):
            shutil.copy(self.folder / name, crops)
        for path in OWN_MODELS:
            model = Path(path.replace("~", str(self._home)))
            (self.folder / model).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(self.folder / "my_recogniser.onnx", self.folder / model)

    def here(self, text: str) -> str:
        """A command with this machine's addresses and paths in place of the documented ones."""
        text = text.replace("Client()", 'Client("http://localhost:5555")')  # its default
        text = text.replace("http://localhost:5555", self.url or "http://localhost:5555")
        return text.replace("/path/to/recogniser.onnx", str(self.folder / "my_recogniser.onnx"))

    @contextmanager
    def start(self, text: str) -> Iterator[subprocess.Popen[str]]:
        """A command that runs; what is left of it ends with the context."""
        environment = self.environment
        if "ARCFACE_ACCEPT_LICENSE" in text:  # the pack whose licence is accepted is to be served, not ours
            environment = {name: value for name, value in environment.items() if name != "ARCFACE_PACK"}
        with subprocess.Popen(
            ["bash", "-o", "pipefail", "-c", self.here(text)],
            cwd=self.folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        ) as process:
            try:
                yield process
            finally:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)

    def run(self, text: str, status: int = 0, name: str = "") -> str:
        """Run a command to its end; returns what it prints. `name` is the catalogue's, if it is not the text."""
        with self.start(text) as process:
            printed, log = process.communicate(timeout=300)
        assert process.returncode == status, (
            f"exit status {process.returncode}:\n{printed}{log}\n{advice(name or text)}"
        )
        assert "Traceback" not in log
        return printed

    def imported(self, pack: str) -> Path:
        """A folder of packs with this one, which `packs import` made once."""
        folder = self.folder.parent / f"with-{pack}"
        if not folder.exists():
            self.run(f"ARCFACE_MODELS_DIR={folder} arcface-api packs import my_recogniser.onnx --name {pack}")
        return folder

    @contextmanager
    def serve(self, text: str) -> Iterator[str]:
        """Run a command that serves; gives its URL once it is ready, and stops it as Ctrl-C does."""
        with self.start(text) as process:
            assert process.stderr is not None
            log = ""
            while not (found := re.search(r"Listening on (http://\S+:\d+),", log)):
                line = process.stderr.readline()
                assert line, f"it ended instead of serving:\n{log}\n{advice(text)}"
                log += line
            yield found[1]
            os.killpg(process.pid, signal.SIGINT)
            _, log = process.communicate(timeout=300)
            assert "Traceback" not in log


def advice(text: str) -> str:
    """What to do about a command that fails."""
    name = in_one_line(text).replace("make -n", "make")
    places = COMMANDS[name].places if name in COMMANDS else ["docs/commands-not-run.toml"]
    return f"Correct it in {', '.join(places)}. If no test can run it: {LIST_IT[0].lower()}{LIST_IT[1:]}"


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory, tiny_pack: Path) -> Iterator[Clone]:
    """The copy, and a service with a whole pack that plays the documented one."""
    clone = Clone(tmp_path_factory.mktemp("clone"))
    with clone.serve(f"arcface-api serve --pack {tiny_pack}") as clone.url:
        yield clone


@pytest.fixture
def models(clone: Clone, tmp_path: Path, name: str) -> Path:
    """New packs for each command, because some change them: an imported one, where a command is about it."""
    folder = tmp_path / "models"
    clone.environment["ARCFACE_MODELS_DIR"] = str(folder)
    for pack in OWN_PACKS:
        if re.search(rf"\b{pack}\b", name) and "packs import" not in name:
            shutil.copytree(clone.imported(pack), folder, dirs_exist_ok=True)
    return folder


# ── commands that run ──────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.usefixtures("models")
@pytest.mark.parametrize("name", RUN_HERE, ids=begun(RUN_HERE))
def test_documented_command_runs(clone: Clone, name: str, tmp_path: Path) -> None:
    command = COMMANDS[name]
    if command.language == "python":
        (tmp_path / "program.py").write_text(clone.here(command.text))
        assert clone.run(f"python {tmp_path / 'program.py'}", name=name)
        return
    assert command.language in SHELL, f"No test runs {name}. {LIST_IT}"
    words = shlex.split(re.sub(r"^cd \S+ && ", "", command.text))
    program = next(word for word in words if "=" not in word)  # behind the variables that it gets
    assert program in RUNS, f"{name} ({', '.join(command.places)}) is not run. {LIST_IT}"
    if shutil.which(program, path=clone.environment["PATH"]) is None:
        pytest.skip(f"needs {program}")
    if re.search(r"\bserve\b", name):
        with clone.serve(command.text) as url:
            assert httpx.get(f"{url}/health", timeout=100).json()["status"] == "ok"
        return
    clone.run(command.text, CATALOGUE["exits"].get(name, 0))


@pytest.mark.parametrize(
    "name", ["arcface-api packs import ~/.deepface/weights/arcface_weights.onnx --name deepface_arcface"]
)
def test_documented_lines_of_pack_toml_are_read(clone: Clone, models: Path, name: str) -> None:
    clone.run(name)
    file = models / "deepface_arcface" / "pack.toml"
    text = file.read_text()
    for line in BLOCKS["docs/migrating.md: toml 1"].text.splitlines():
        key = line.split()[0]
        text, replaced = re.subn(rf"^{key} = .*$", line, text, count=1, flags=re.MULTILINE)
        if not replaced:
            assert "above [licence]" in line
            text = text.replace("[licence]", f"{line}\n\n[licence]")
    file.write_text(text)
    manifest = locate("deepface_arcface", PackLocations.default(models)).manifest
    fed = manifest.files[0].input
    assert (manifest.fit, fed.mean, fed.std, fed.channel_order) == ("letterbox", 0, 255, "bgr")


@pytest.mark.parametrize(
    ("language", "text", "expected"),
    [
        ("sh", "curl a   # b\n\n# c\nmake d\n", [(3, "curl a"), (6, "make d")]),
        ("sh", "curl 'a # b' \\\n  -F 'c\n d'\nmake e # 'f\n", [(3, "curl 'a # b' \\\n  -F 'c\n d'"), (6, "make e")]),
        ("sh", "echo a |\n  curl b\nmake c\n", [(3, "echo a |\n  curl b"), (5, "make c")]),
        ("text", "$ make a\nDone.\n", [(3, "make a")]),
        ("text", "make a\n", []),
    ],
)
def test_commands_of_a_block(language: str, text: str, expected: list[tuple[int, str]]) -> None:
    assert list(commands_of(Block("a.md", 3, language, 1, text, None))) == expected


# ── commands that do not ───────────────────────────────────────────────────────────────────────────────────────────


def test_catalogue_lists_what_documents_show() -> None:
    for reason, about in CATALOGUE["not_run"].items():
        for name in about["commands"]:
            assert name in COMMANDS, f"No document shows {name} any more: take it out of [not_run.{reason}]."
    listed = [name for about in CATALOGUE["run_elsewhere"] for name in about["commands"]]
    for kind, names, known in (
        ("run_elsewhere", listed, COMMANDS),
        ("exits", CATALOGUE["exits"], COMMANDS),
        ("answers", CATALOGUE["answers"], BLOCKS),
    ):
        for name in names:
            assert name in known, (
                f"No document shows {name} any more: take it out of [{kind}] in docs/commands-not-run.toml."
            )
    listed += [name for about in CATALOGUE["not_run"].values() for name in about["commands"]]
    assert len(listed) == len(set(listed)), "a command is listed twice in docs/commands-not-run.toml"


def test_every_block_is_found() -> None:
    """Other fences than plain ones hide their commands from these tests."""
    for path in documents():
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            is_fence = re.match(r"[\s>]*(`{3,}|~{3,})", line)
            assert not is_fence or re.fullmatch(r" *```\w*", line), (
                f"{path.relative_to(ROOT)}:{number}: begin a block with three backticks and one word, such as ```sh,"
                " and nothing else."
            )


@pytest.mark.parametrize("name", RUN_HERE, ids=begun(RUN_HERE))
def test_failure_of_a_command_is_not_hidden(name: str) -> None:
    assert COMMANDS[name].language not in SHELL or "||" not in name, f"{name} would hide that it fails."


@pytest.mark.parametrize("block", BLOCKS.values(), ids=BLOCKS)
def test_language_of_a_block_is_known(block: Block) -> None:
    known = (*SHELL, *PROGRAMS, *DATA)
    assert block.language in known, (
        f"{block.document}:{block.line - 1} opens a block in {block.language!r}, of which nobody knows whether it is a"
        f" command. Use one of {', '.join(known)}, or add the language to docs/documented_commands.py."
    )


@pytest.mark.parametrize("name", RUN_ELSEWHERE, ids=begun(RUN_ELSEWHERE))
def test_other_test_that_runs_a_command_exists(name: str) -> None:
    about = RUN_ELSEWHERE[name]
    file, _, test = about["test"].partition("::")
    text = (ROOT / file).read_text()
    assert f"def {test}(" in text, f"{file} has no {test}, which runs {name}."
    assert about["has"] in text, f"{file} has {about['has']!r} no more: does it still run {name}?"


@pytest.mark.parametrize("name", PARSED, ids=begun(PARSED))
def test_command_that_is_not_run_could_be(clone: Clone, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Programs, options, files, services, variables and extras that it names are there."""
    monkeypatch.chdir(clone.folder)
    text = name if COMMANDS[name].language in SHELL else COMMANDS[name].text
    if re.search(r"\bmake\b", text):
        text = clone.run(re.sub(r"\bmake\b", "make -n", text))
    if "docker compose" in text:
        text = check_compose(text)
    for arguments in re.findall(r"(?:-m arcface_api|(?<!\S)arcface-api) (.*)", text):
        check_arguments(shlex.split(arguments))
    for module, arguments in re.findall(r"-m ((?:benchmarks|training)\S+|fuzz\b)(.*)", text):
        check_options(module, arguments)
    if re.search(r"\bpip install\b", text):
        check_extras(text)
    for variable in re.findall(r"--build-arg (\w+)=", text):
        assert re.search(rf"^ARG {variable}\b", (ROOT / "Dockerfile").read_text(), re.MULTILINE), variable
    if text == ".ci/run":
        assert os.access(ROOT / text, os.X_OK)


@pytest.mark.parametrize("text", IN_SENTENCES)
def test_command_in_a_sentence_exists(text: str) -> None:
    """Sentences often leave out what a command needs to run: its target, its name and its options are checked."""
    shown = f"`{text}` ({', '.join(IN_SENTENCES[text])})"
    program, *arguments = text.split()
    if program == "make":
        assert re.search(rf"^{arguments[0]}:", (ROOT / "Makefile").read_text(), re.MULTILINE), f"{shown} is no target"
    elif program == "python":
        check_options(arguments[1], text)
    else:
        command: click.Command = cli
        while isinstance(command, click.Group) and arguments and re.match("[a-z]", arguments[0]):
            found = command.get_command(click.Context(command), arguments.pop(0))
            assert found is not None, f"{shown} is no command"
            command = found
        known = [option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)]
        for option in re.findall(r"--[\w-]+", text):
            assert option in (*known, "--help", "--version"), f"{shown} has no option {option}"


def check_compose(text: str) -> str:
    """Its files, variables and service are there; returns what `arcface-api` gets."""
    files = re.findall(r"-f (\S+)", text) or ["compose.yaml"]
    content = "".join((ROOT / file).read_text() for file in files)
    for variable in re.findall(r"([A-Z_]+)=", text.partition("docker")[0]):
        assert f"${{{variable}" in content, f"{files} do not pass {variable} on"
    before, service, arguments = text.partition(" arcface-api ")
    if service:
        assert "\n  arcface-api:\n" in content
        return f"arcface-api {arguments}" if " run " in before else arguments
    return ""


def check_arguments(arguments: list[str]) -> None:
    """The command line takes them."""
    command: click.Command = cli
    name: str | None = "arcface-api"
    while isinstance(command, click.Group):
        name, found, arguments = command.resolve_command(click.Context(command), arguments)
        assert found is not None
        command = found
    command.make_context(name, arguments)


def check_options(module: str, arguments: str) -> None:
    """A program has them: they stand in it, or in what several programs share. Of Python's own, its name is checked."""
    if module.partition(".")[0] in sys.stdlib_module_names:
        assert find_spec(module), f"Python has no {module}"
        return
    path = ROOT / f"{module.replace('.', '/')}.py" if module != "fuzz" else ROOT / "tests" / "fuzz" / "__main__.py"
    assert path.is_file(), f"there is no program {module}"
    program = path.read_text() + "".join(shared.read_text() for shared in (ROOT / "benchmarks" / "lib").glob("*.py"))
    for option in re.findall(r"(?<=[\s\[])--[\w-]+", arguments):
        assert f'"{option}"' in program, f"{module} has no option {option}"


def check_extras(text: str) -> None:
    """The extras, the groups and the requirements are those of pyproject.toml."""
    extras = PYPROJECT["project"]["optional-dependencies"]
    for extra in re.findall(r"[\w-]+", "".join(re.findall(r"\[(.*?)\]", text))):
        assert extra in extras
    for group in re.findall(r"--group (\S+)", text):
        assert group in PYPROJECT["dependency-groups"]
    for file in re.findall(r"-r (\S+)", text):
        assert (ROOT / file).is_file(), file
    for requirement in re.findall(r"'([\w-]+>=[\d.]+)'", text):
        assert any(requirement in needed for needed in extras.values()), requirement


# ── what answers look like ─────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", ANSWERS)
def test_answer_has_the_shown_form(clone: Clone, name: str) -> None:
    """A shown answer has all keys of the real one, and no others; a part of an answer has some of them."""
    block, about = BLOCKS[name], CATALOGUE["answers"].get(name, {})
    requests = [about["command"]] if about else [text for _, text in commands_of(block.follows or block)]
    assert requests, (
        f"{block.document}:{block.line} shows JSON, and nobody knows whose answer it is: show it directly below its"
        f' command, or write the command into docs/commands-not-run.toml, under [answers."{name}"].'
    )
    is_part = not block.text.startswith("{")
    shown = json.loads(f"{{{block.text}}}" if is_part else re.sub(r",\s*…\s*,", ",", block.text))
    for request in requests:
        expected_status = 22 if about.get("is_exact") else 0  # curl's, for a status that is an error
        real = json.loads(clone.run(request, expected_status))
        if about.get("is_exact"):
            assert real == shown
        found = differences(shown, real, is_part=is_part)
        assert found == [], f"{block.document}:{block.line} is not what `{request}` answers: {'; '.join(found)}."


def differences(shown: Any, real: Any, where: str = "", *, is_part: bool = False) -> list[str]:
    """What a shown value has that the real one lacks, and, unless `…` or a part, the other way round."""
    if isinstance(shown, dict) and isinstance(real, dict):
        found = [f"{where}.{key} is shown, and not there" for key in shown.keys() - real.keys() - {"…"}]
        if not is_part and "…" not in shown:
            found += [f"{where}.{key} is there, and not shown" for key in real.keys() - shown.keys()]
        common = shown.keys() & real.keys()
        return found + [each for key in sorted(common) for each in differences(shown[key], real[key], f"{where}.{key}")]
    if isinstance(shown, list) and isinstance(real, list):
        whole = [one for one in shown if not str(one).startswith("…")]
        if len(whole) > len(real):
            return [f"{where} has {len(real)} items, and {len(whole)} are shown"]
        pairs = zip(whole, real, strict=False)
        return [each for one, other in pairs for each in differences(one, other, f"{where}[]")]
    kinds = [(int, float) if isinstance(shown, int | float) else type(shown)]
    return [] if isinstance(real, *kinds) else [f"{where} is {real!r}, and shown as {shown!r}"]


def test_documented_bodies_are_accepted(clone: Clone) -> None:
    face = base64.b64encode((clone.folder / "face.jpg").read_bytes()).decode()
    for name, paths in BODIES.items():
        for path, line in zip(paths, BLOCKS[name].text.splitlines(), strict=True):
            body = re.sub(r'"[^"]*…"', json.dumps(face), line)
            answer = httpx.post(
                f"{clone.url}{path}", content=body, headers={"Content-Type": "application/json"}, timeout=100
            )
            assert answer.status_code == 200, answer.text


def test_documented_probes_are_answered(clone: Clone) -> None:
    probes = re.findall(r"path: (/\w+), port: 5555", BLOCKS["docs/operations.md: yaml 1"].text)
    assert len(probes) == 3
    assert [httpx.get(f"{clone.url}{path}", timeout=100).status_code for path in probes] == [200] * 3


def test_shown_report_of_doctor_has_its_checks(clone: Clone) -> None:
    """Notes depend on the machine, and problems of the shown one need not be here."""
    found = re.compile(r"^(?:ok|PROBLEM) +(\w+)", re.MULTILINE)
    block = BLOCKS["docs/doctor.md: text 1"]
    ((_, text),) = commands_of(block)
    printed = found.findall(clone.run(text, 1))
    shown = found.findall(block.text)
    assert [check for check in printed if check in shown] == shown
