"""API keys: who may call.

    file ──read each second──▶ names and hashes ◀──compared, all of them, in constant time── hash of what is presented

Of each key, the service keeps its name and its SHA-256.
"""

import asyncio
import hashlib
import logging
import re
import stat
from collections.abc import Iterable
from dataclasses import dataclass, field
from hmac import compare_digest
from pathlib import Path

from arcface_api.errors import SettingInvalid, Unauthenticated
from arcface_api.wording import counted

KEY_NAME = "arcface_api.key_name"
"""Key in an ASGI scope: the name of the request's API key."""
CHECK_SECONDS = 1.0
"""Between two looks at the file. What is new must be the same twice: it may be half written."""
LEAST_CHARACTERS = 16
"""Of a key that the file has as it is."""
MOST_KEYS = 1000
"""A request is compared with all of them."""
MOST_BYTES = 1024 * 1024

_SENT_AS = "Send one as Authorization: Bearer KEY, or as X-API-Key: KEY; the operator of the service gives it to you."
_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
_HASH, _HEX = "sha256:", re.compile(r"[0-9A-Fa-f]{64}")
_MAKE_ONE = "Make one with: openssl rand -hex 32"
_NAME_A_FILE = "Name a file that this user may read"

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ApiKey:
    """One line of the file."""

    name: str
    digest: bytes = field(repr=False)
    """SHA-256 of the key."""


class Keys:
    """The API keys of one file. `watch` keeps up with it."""

    def __init__(self, file: Path) -> None:
        """Read the file. Raises `SettingInvalid` if it cannot be read, or a line is wrong."""
        self._file = file
        self._keys = self._parsed(self._content())
        self._used = self._seen = self._state()
        self._report()

    def name_of(self, headers: Iterable[tuple[bytes, bytes]]) -> str:
        """The name of the key that a request presents; raises `Unauthenticated`."""
        presented = set()
        for name, value in headers:
            if name == b"x-api-key":
                presented.add(value.strip())
            elif name == b"authorization":
                scheme, _, credentials = value.partition(b" ")
                if scheme.lower() == b"bearer":  # others may be for a proxy
                    presented.add(credentials.strip())
        if len(presented) != 1:
            has = "The request has several API keys, which differ" if presented else "This service needs an API key"
            raise Unauthenticated(f"{has}. {_SENT_AS}")
        found, digest = None, hashlib.sha256(presented.pop()).digest()
        for key in self._keys:
            if compare_digest(key.digest, digest):
                found = key.name
        if found is None:
            raise Unauthenticated(f"The service does not know this API key. {_SENT_AS}")
        return found

    async def watch(self) -> None:
        """Read the file again whenever it changes."""
        while True:
            await asyncio.sleep(CHECK_SECONDS)
            await asyncio.to_thread(self.look)  # a file system of the network may hang

    def look(self) -> None:
        """Use what the file has now, if it had the same at the last look. What is wrong is logged once."""
        state, before = self._state(), self._seen
        self._seen = state
        if state == self._used or state != before:
            return
        self._used = state
        try:
            self._keys = self._parsed(self._content())
        except SettingInvalid as error:
            _log.error("%s The keys that were read before stay valid.", error)
            return
        self._report()

    def _state(self) -> bytes | str:
        """Differs whenever the file does. Times and sizes do not: file systems may count in steps of milliseconds."""
        try:
            return hashlib.sha256(self._content()).digest()
        except SettingInvalid as error:
            return str(error)

    def _content(self) -> bytes:
        try:
            if stat.S_ISFIFO(self._file.stat().st_mode):  # reading would wait for a writer, and what is read is gone
                raise self._wrong(f"it is a named pipe. {_NAME_A_FILE}")
            with self._file.open("rb") as file:
                content = file.read(MOST_BYTES + 1)
        except OSError as error:
            raise self._wrong(f"{error.strerror}. {_NAME_A_FILE}") from None
        if len(content) > MOST_BYTES:
            raise self._wrong(f"it has more than {MOST_BYTES:,} bytes")
        return content

    def _parsed(self, content: bytes) -> tuple[ApiKey, ...]:
        keys, first = list[ApiKey](), dict[bytes, tuple[str, int]]()  # of each key: its first name and line
        for number, line in enumerate(content.decode("utf-8-sig", "replace").splitlines(), start=1):
            words = line.split()
            if not words or words[0].startswith("#"):
                continue
            if len(words) != 2 or not _NAME.fullmatch(words[0]):
                raise self._wrong(
                    f"line {number} is not `name key` or `name {_HASH}HEX`, where the name has up to 64 letters,"
                    " digits, dots, - and _, and the key no spaces"
                )
            key = ApiKey(words[0], self._digest(words[1], number))
            name, line_before = first.setdefault(key.digest, (key.name, number))
            if name != key.name:
                raise self._wrong(f"lines {line_before} and {number} have the same key under two names")
            keys.append(key)
        if len(keys) > MOST_KEYS:
            raise self._wrong(f"it has {len(keys):,} keys, and {MOST_KEYS:,} are allowed")
        return tuple(keys)

    def _digest(self, word: str, number: int) -> bytes:
        if word.lower().startswith(_HASH):
            digits = word[len(_HASH) :]
            if not _HEX.fullmatch(digits):
                raise self._wrong(f"behind {_HASH} line {number} does not have the 64 hexadecimal digits of a SHA-256")
            return bytes.fromhex(digits)
        if not re.fullmatch(r"[!-~]+", word):
            raise self._wrong(f"the key in line {number} has characters other than printable ASCII. {_MAKE_ONE}")
        if len(word) < LEAST_CHARACTERS:
            raise self._wrong(
                f"the key in line {number} has fewer than {LEAST_CHARACTERS} characters, and could be guessed."
                f" {_MAKE_ONE}"
            )
        return hashlib.sha256(word.encode()).digest()

    def _wrong(self, what: str) -> SettingInvalid:
        """The error; it never has the text of a line, which may be a key."""
        return SettingInvalid(
            f"ARCFACE_API_KEYS_FILE={str(self._file)!r} cannot be used: {what}. See docs/security.md."
        )

    def _report(self) -> None:
        names = {key.name for key in self._keys}
        if names:
            _log.info("Callers need an API key: %s, %s.", counted(len(self._keys), "key"), counted(len(names), "name"))
        else:
            _log.warning("%s has no API key: nobody may call.", self._file)
