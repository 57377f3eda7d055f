"""Promises of environments that people have: each is a working service, or a sentence that names the cause."""

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

NAMELESS_UID = 54_321
"""OpenShift runs containers as such users: no name, no home."""
FIRST_PORT_FOR_ALL = Path("/proc/sys/net/ipv4/ip_unprivileged_port_start")
CLOSED_PORT = "http://127.0.0.1:9"
SERVES = "Listening on"
PULL = {"ARCFACE_PULL": "true", "ARCFACE_ACCEPT_LICENSE": "antelopev2"}


@dataclass(frozen=True)
class Row:
    """A command in an environment, and what it says. `{}` in a value is the folder with `FOLDERS`."""

    command: str
    says: tuple[str, ...]
    environment: dict[str, str] = field(default_factory=dict)
    status: int = 1
    limits: dict[str, int] = field(default_factory=dict)
    """By their names in `resource`."""
    umask: int = 0o022


def serves(*says: str, pack: str = "open", options: str = "", **environment: str) -> Row:
    return Row(f"serve --pack {pack} {options}", (SERVES, *says), environment, status=0)


def finds(*says: str, pack: str = "open", **environment: str) -> Row:
    """A problem that `doctor` finds, and goes on to its end."""
    command = f"doctor --quick --no-network --port 0 --pack {pack}"
    return Row(command, ("PROBLEM", "1 problem, ", *says), environment, status=1)


def fails(command: str, *says: str, status: int = 1, **environment: str) -> Row:
    return Row(command, ("Error: ", *says), environment, status)


def falls_back(*says: str, **environment: str) -> Row:
    """`auto` was to download antelopev2, and serves the open pack."""
    return serves(
        "Serving the pack open", "antelopev2 could not be installed", *says, pack="auto", **PULL, **environment
    )


def open_folder(folder: Path) -> None:
    folder.mkdir()
    folder.chmod(0o777)
    for picture in ("a.png", "b.png", "c.png"):
        (folder / picture).touch()


def closed_folder(folder: Path) -> None:
    folder.mkdir()
    (folder / "tiny.onnx").touch()
    folder.chmod(0o000)


def models_with_closed_pack(folder: Path) -> None:
    folder.mkdir()
    closed_folder(folder / "antelopev2")


def certificates(content: str, mode: int = 0o644) -> Callable[[Path], None]:
    def make(file: Path) -> None:
        file.write_text(content)
        file.chmod(mode)

    return make


def link_to_itself(path: Path) -> None:
    path.symlink_to(path)


def pack_with_pipe(folder: Path) -> None:
    folder.mkdir()
    os.mkfifo(folder / "tiny.onnx")


UNREADABLE_NAME = "old-\udcff.onnx"
"""As archives of other systems leave it: a byte that is no UTF-8."""
FOLDERS: dict[str, Callable[[Path], None]] = {
    "open": open_folder,
    "closed": closed_folder,
    "models": models_with_closed_pack,
    "file": certificates("x"),
    "empty.pem": certificates(""),
    "text.pem": certificates("no certificate\n"),
    "secret.pem": certificates("", 0o000),
    "loop": link_to_itself,
    "pipe": os.mkfifo,
    "with-pipe": pack_with_pipe,
}

CLOSED = "{}/closed"
DENIED = "Permission denied"
PULLED = "packs pull antelopev2 --accept-license"
ROWS: dict[str, Row] = {
    # ── folders that may not be searched
    "models, missing pack": fails(
        "serve", f"{CLOSED}/antelopev2 cannot be searched", DENIED, ARCFACE_MODELS_DIR=CLOSED
    ),
    "models, open pack": fails("serve --pack open", f"{CLOSED}/open cannot be searched", ARCFACE_MODELS_DIR=CLOSED),
    "models, auto": fails("serve --pack auto", "ARCFACE_MODELS_DIR", ARCFACE_MODELS_DIR=CLOSED),
    "models, list": Row("packs list", ("antelopev2",), {"ARCFACE_MODELS_DIR": CLOSED}, status=0),
    "models, where": fails("packs where antelopev2", DENIED, ARCFACE_MODELS_DIR=CLOSED),
    "models, verify": fails("packs verify antelopev2", DENIED, ARCFACE_MODELS_DIR=CLOSED),
    "models, pull": fails(PULLED, DENIED, "ARCFACE_MODELS_DIR", ARCFACE_MODELS_DIR=CLOSED),
    "models, import": fails("packs import {}/tiny.onnx", DENIED, "ARCFACE_MODELS_DIR", ARCFACE_MODELS_DIR=CLOSED),
    "a pack of them": fails("serve", "{}/models/antelopev2 cannot be searched", ARCFACE_MODELS_DIR="{}/models"),
    "a pack of them, list": Row("packs list", ("not installed",), {"ARCFACE_MODELS_DIR": "{}/models"}, status=0),
    "models is a file": fails(PULLED, "is a file, or lies in one", ARCFACE_MODELS_DIR="{}/file"),
    "pack": fails(f"serve --pack {CLOSED}", f"{CLOSED} cannot be read", DENIED),
    "pack's file": fails(f"serve --pack {CLOSED}/tiny.onnx", f"{CLOSED}/tiny.onnx cannot be read", DENIED),
    "imported folder": fails(
        f"packs import {CLOSED}", f"{CLOSED} cannot be read", DENIED, ARCFACE_MODELS_DIR="{}/open"
    ),
    "imported file": fails(f"packs import {CLOSED}/tiny.onnx", "cannot be read", DENIED, ARCFACE_MODELS_DIR="{}/open"),
    "evaluated folder": fails(f"evaluate {{}}/pairs.csv {CLOSED}", CLOSED, status=2),
    "cache": serves(ARCFACE_CACHE_DIR=CLOSED),
    "home": serves(HOME=CLOSED),
    "home, model of one's own": serves("which could not be recorded", pack="{}/tiny.onnx", HOME=CLOSED),
    "home, missing pack": fails("serve", "is not on this machine", "cannot be searched", HOME=CLOSED),
    "home, auto": serves("Serving the pack open", pack="auto", HOME=CLOSED),
    "home, list": Row("packs list", ("antelopev2",), {"HOME": CLOSED}, status=0),
    "home, pull": fails(PULLED, DENIED, "ARCFACE_MODELS_DIR", HOME=CLOSED, HTTPS_PROXY=CLOSED_PORT),
    "doctor, closed models": finds("PROBLEM  pack", "cannot be searched", pack="antelopev2", ARCFACE_MODELS_DIR=CLOSED),
    "doctor, closed pack": finds("PROBLEM  pack", f"{CLOSED} cannot be read", pack=CLOSED),
    "doctor, closed cache": finds("PROBLEM  cache", DENIED, ARCFACE_CACHE_DIR=f"{CLOSED}/compiled"),
    "doctor, closed home": finds("PROBLEM  cache", DENIED, HOME=CLOSED),
    "no home, doctor": finds("PROBLEM  cache", "/.cache"),
    # ── no home
    "no home": serves(),
    "empty home": serves(HOME=""),
    "home that is not there": serves(HOME="{}/nowhere"),
    "no home, list": Row("packs list", ("antelopev2",), status=0),
    "no home, pull": fails(PULLED, "/.cache/arcface-api/packs cannot be written", HTTPS_PROXY=CLOSED_PORT),
    "no home, models in it": fails("serve", "ARCFACE_MODELS_DIR='~/models'", status=2, ARCFACE_MODELS_DIR="~/models"),
    "no home, cache in it": fails("serve", "write the whole path", status=2, ARCFACE_CACHE_DIR="~/cache"),
    "no home, pack in it": fails("serve --pack ~/face.onnx", "write the whole path", status=2),
    "home of nobody": fails("serve --pack ~nobody-here/face.onnx", "write the whole path", status=2, HOME="{}/open"),
    # ── proxies
    "direct networks": falls_back(
        "cannot be reached",
        HTTPS_PROXY=CLOSED_PORT,
        NO_PROXY="::1,[::1],[::1]:80,fd00::/8,10.0.0.0/8,.example.com,https://x,[,*x,a:b:c",
        ARCFACE_MODELS_DIR="{}/open",
    ),
    "direct networks, pull": fails(
        PULLED, "cannot be reached", HTTPS_PROXY=CLOSED_PORT, NO_PROXY="fd00::/8,::1", ARCFACE_MODELS_DIR="{}/open"
    ),
    "SOCKS": falls_back("ALL_PROXY names a SOCKS proxy", ALL_PROXY="socks5://x:1", ARCFACE_MODELS_DIR="{}/open"),
    "SOCKS, pull": fails(PULLED, "pip install socksio", ALL_PROXY="socks5h://x:1", ARCFACE_MODELS_DIR="{}/open"),
    "SOCKS, evaluate": fails(
        f"evaluate {{}}/pairs.csv {{}}/open --url {CLOSED_PORT}", "Nothing answers", ALL_PROXY="socks5://x"
    ),
    "proxy without a port number": falls_back(
        "HTTPS_PROXY is not", HTTPS_PROXY="http://h:p", ARCFACE_MODELS_DIR="{}/open"
    ),
    "proxy with a large port": fails(
        PULLED, "https_proxy is not", https_proxy="http://h:99999", ARCFACE_MODELS_DIR="{}/open"
    ),
    "proxy without a host": fails(PULLED, "HTTPS_PROXY is not", HTTPS_PROXY="http://", ARCFACE_MODELS_DIR="{}/open"),
    "proxy of another kind": fails(PULLED, "ALL_PROXY is not", ALL_PROXY="ftp://h", ARCFACE_MODELS_DIR="{}/open"),
    "proxy with half an address": fails(
        PULLED, "HTTPS_PROXY is not", HTTPS_PROXY="http://[::1", ARCFACE_MODELS_DIR="{}/open"
    ),
    "proxy, evaluate": fails(
        f"evaluate {{}}/pairs.csv {{}}/open --url {CLOSED_PORT}",
        "Nothing answers",
        HTTP_PROXY="http://h:p",
        NO_PROXY="::1",
    ),
    "proxy, evaluate elsewhere": fails(
        "evaluate {}/pairs.csv {}/open --url http://192.0.2.1", "HTTP_PROXY is not", status=2, HTTP_PROXY="http://h:p"
    ),
    # ── certificates
    "certificates that are not there": falls_back(
        "SSL_CERT_FILE={}/missing.pem", SSL_CERT_FILE="{}/missing.pem", ARCFACE_MODELS_DIR="{}/open"
    ),
    "no certificates": fails(
        PULLED, "SSL_CERT_FILE={}/empty.pem", SSL_CERT_FILE="{}/empty.pem", ARCFACE_MODELS_DIR="{}/open"
    ),
    "other text": fails(PULLED, "SSL_CERT_FILE={}/text.pem", SSL_CERT_FILE="{}/text.pem", ARCFACE_MODELS_DIR="{}/open"),
    "secret certificates": fails(PULLED, DENIED, SSL_CERT_FILE="{}/secret.pem", ARCFACE_MODELS_DIR="{}/open"),
    "folder for certificates": fails(
        PULLED, "SSL_CERT_FILE={}/open", SSL_CERT_FILE="{}/open", ARCFACE_MODELS_DIR="{}/open"
    ),
    "certificates' folder, empty": fails(
        PULLED, "SSL_CERT_DIR={}/bare", SSL_CERT_DIR="{}/bare", ARCFACE_MODELS_DIR="{}/open"
    ),
    "certificates' folder, closed": fails(
        PULLED, "SSL_CERT_DIR={}/closed", SSL_CERT_DIR=CLOSED, ARCFACE_MODELS_DIR="{}/open"
    ),
    "certificates, evaluate": fails(
        f"evaluate {{}}/pairs.csv {{}}/open --url {CLOSED_PORT}", "Nothing answers", SSL_CERT_FILE="{}/missing.pem"
    ),
    # ── addresses
    "every address": serves("http://[::]:", options="--host [::]"),
    "every address, without brackets": serves("http://[::]:", options="--host ::"),
    "this machine": serves("http://[::1]:", ARCFACE_HOST="[::1]"),
    "half an address": fails("serve --pack open --host [::", "Cannot listen on [::", status=2),
    "no name": fails("serve --pack open --host a..b", "Cannot listen on a..b", status=2),
    "unknown name": fails("serve --pack open --host nobody.invalid", "has no such address", status=2),
    "another machine's": fails("serve --pack open --host 192.0.2.1", "has no such address", status=2),
    "port of root": fails("serve --pack open", "only root a port below 1024", status=2, ARCFACE_PORT="80"),
    # ── what is no folder, and what is no file
    "home is a device": serves("which could not be recorded", pack="{}/tiny.onnx", HOME="/dev/null"),
    "home is a device, pull": fails(PULLED, "is a file, or lies in one", HOME="/dev/null", HTTPS_PROXY=CLOSED_PORT),
    "home is a loop": serves("which could not be recorded", pack="{}/tiny.onnx", HOME="{}/loop"),
    "models are a loop": fails("serve", "is not on this machine", ARCFACE_MODELS_DIR="{}/loop"),
    "cache is a loop": serves("Nothing can be kept", ARCFACE_CACHE_DIR="{}/loop"),
    "pack is a loop": fails("serve --pack {}/loop", "There is nothing at {}/loop"),
    "pack is a pipe": fails("serve --pack {}/pipe", "{}/pipe is not a regular file"),
    "pack is endless": fails("serve --pack /dev/zero", "/dev/zero is not a regular file"),
    "pack with a pipe": fails("serve --pack {}/with-pipe", "{}/with-pipe/tiny.onnx is not a regular file"),
    "pipe is imported": fails("packs import {}/pipe", "is not a regular file", ARCFACE_MODELS_DIR="{}/open"),
    "unreadable name": fails(f"serve --pack {{}}/{UNREADABLE_NAME}", "is not UTF-8. Rename that file."),
    "unreadable name, import": fails(
        f"packs import {{}}/{UNREADABLE_NAME}", "is not UTF-8. Rename that file.", ARCFACE_MODELS_DIR="{}/open"
    ),
    "no temporary folder": serves(TMPDIR="{}/nowhere"),
    "no temporary folder, decoders": serves(TMPDIR="{}/nowhere", ARCFACE_DECODE_ISOLATION="process"),
    "no programs": serves(PATH=""),
    # ── what the system refuses
    "few open files": replace(serves("too few for ARCFACE_MAX_CONNECTIONS"), limits={"RLIMIT_NOFILE": 64}),
    "hardly an open file": replace(fails("serve --pack open", "allows 12 open files"), limits={"RLIMIT_NOFILE": 12}),
    "nobody may read what is written": replace(serves("Nothing can be kept", HOME="{}/sealed"), umask=0o777),
    # ── values as files of variables bring them
    "quotes": serves("http://127.0.0.1:", pack='"open"', ARCFACE_PORT=" 0\r", ARCFACE_HOST="'127.0.0.1' "),
    "unit": fails("serve --pack open", "without a unit", status=2, ARCFACE_MAX_IMAGE_BYTES="10MB"),
    "endless time": fails("serve --pack open", "at most 86400", status=2, ARCFACE_HANG_SECONDS="inf"),
}


class Runner:
    """The process that runs commands, and the folders that they find."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        command = [sys.executable, str(Path(__file__).with_name("in_environment.py"))]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=folder)

    def run(self, row: Row, uid: int | None = None) -> tuple[int, str]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        settings = {"ARCFACE_PORT": "0", "ARCFACE_DEVICE": "cpu", "ARCFACE_PRECISION": "float32", "ARCFACE_LANES": "1"}
        environment = {"PATH": os.environ["PATH"], **settings, **row.environment}
        job = {
            "arguments": [self.filled(argument) for argument in row.command.split()],
            "environment": {name: self.filled(value) for name, value in environment.items()},
            "uid": uid,
            "limits": row.limits,
            "umask": row.umask,
        }
        self._process.stdin.write(json.dumps(job) + "\n")
        self._process.stdin.flush()
        status, output = json.loads(self._process.stdout.readline())
        return status, output

    def filled(self, text: str) -> str:
        return text.replace("{}", str(self._folder))

    def end(self) -> None:
        self._process.communicate()


@pytest.fixture(scope="module")
def runner(tiny_recogniser: Path) -> Iterator[Runner]:
    # not pytest's own folder, which other users may not search
    folder = Path(tempfile.mkdtemp(prefix="environments-"))
    folder.chmod(0o777)
    try:
        for name, make in FOLDERS.items():
            make(folder / name)
        (folder / "bare").mkdir()
        (folder / "pairs.csv").write_text("image_a,image_b,same\na.png,b.png,1\na.png,c.png,0\n")
        for name in ("tiny.onnx", UNREADABLE_NAME):
            shutil.copy(tiny_recogniser, folder / name)
        runner = Runner(folder)
        yield runner
        runner.end()
    finally:
        for closed in (folder / "closed", folder / "models" / "antelopev2"):
            closed.chmod(0o700)
        shutil.rmtree(folder)


@pytest.mark.parametrize("name", ROWS)
def test_environment_is_served_or_explained(runner: Runner, name: str) -> None:
    row, is_nameless = ROWS[name], name.startswith("no home")
    if is_nameless and os.getuid() != 0:
        pytest.skip("only root can become a user without a name and a home")
    if "[::" in str(row) and not has_ipv6():
        pytest.skip("this machine has no IPv6")
    if row.environment.get("ARCFACE_PORT") == "80" and FIRST_PORT_FOR_ALL.read_text().strip() == "0":
        pytest.skip("here, everybody may use every port")
    status, output = runner.run(row, NAMELESS_UID if is_nameless else None)
    assert "Traceback" not in output
    for said in row.says:
        assert runner.filled(said) in output
    assert status == row.status, output


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become a user without a name and a home")
def test_nothing_is_written_to_a_folder_called_home(runner: Runner) -> None:
    """`~` is no folder where there is no home."""
    runner.run(ROWS["no home"], NAMELESS_UID)
    assert not Path(runner.filled("{}/~")).exists()
