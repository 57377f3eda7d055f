"""Takes out of a report what nobody else should read: passwords, tokens, home folders and names of users."""

import getpass
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HIDDEN = "***"
_SECRET_NAME = re.compile(
    r"TOKEN|PASSW|SECRET|CREDENTIAL|API_?KEY|ACCESS_?KEY|PRIVATE_?KEY|AUTHORIZATION", re.IGNORECASE
)
"""Names of environment variables whose values are secrets."""
_SHORTEST_SECRET = 6
"""A shorter value, such as `true`, would hide half of the report."""
_USER_INFO = re.compile(r"(\b[a-z][a-z0-9+.-]*://)\S*@", re.IGNORECASE)
"""Up to the last `@`: people forget to write a `/` or `@` in a password as %XX."""
_PASSWORD = re.compile(r"[^\s/'\"=@:]+:(?!//)\S+@")
"""A name and a password, where the scheme is missing."""
_QUERY = re.compile(r"(\b[a-z][a-z0-9+.-]*://[^\s?'\"]*)\?[^\s'\")]*", re.IGNORECASE)
_OTHER_HOME = re.compile(r"(/home|/Users)/[^/\s'\":,;)]+")
_EVERYBODY = {"root", "nobody", "app", "user", "arcface", "www-data"}
"""Names of users that say nothing about a person."""


def _is_path(name: str, value: str) -> bool:
    """Whether a variable names the file of a secret, and does not hold it."""
    return value.startswith("/") or name.upper().endswith("_FILE")


@dataclass(frozen=True)
class Mask:
    """Hides secrets in any text."""

    home: str
    user: str
    secrets: tuple[str, ...]

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> "Mask":
        """The mask for this user, and for the secrets in these variables."""
        try:
            home = str(Path.home())
        except RuntimeError:
            home = "/"
        try:
            user = getpass.getuser()
        except (OSError, KeyError, ImportError):  # a user without a name, as in OpenShift
            user = ""
        values = {
            value
            for name, value in environment.items()
            if _SECRET_NAME.search(name) and len(value) >= _SHORTEST_SECRET and not _is_path(name, value)
        }
        return cls(home.rstrip("/"), user, tuple(sorted(values, key=len, reverse=True)))

    def text(self, text: str) -> str:
        """The text without secrets."""
        for secret in self.secrets:
            text = text.replace(secret, HIDDEN)
        text = _PASSWORD.sub(f"{HIDDEN}@", _USER_INFO.sub(rf"\1{HIDDEN}@", text))
        text = _QUERY.sub(rf"\1?{HIDDEN}", text)
        if self.home:
            text = re.sub(rf"{re.escape(self.home)}(?![^/\s'\":,;.)])", "~", text)
        text = _OTHER_HOME.sub(rf"\1/{HIDDEN}", text)
        if len(self.user) > 2 and self.user not in _EVERYBODY:
            text = re.sub(rf"(?<=[/\\]){re.escape(self.user)}(?=[/\\\s'\":,;.)]|$)", HIDDEN, text)
        return text

    def value(self, value: Any) -> Any:
        """The same for every text in lists and dictionaries."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, Mapping):
            return {name: self.value(each) for name, each in value.items()}
        if isinstance(value, list | tuple):
            return [self.value(each) for each in value]
        return value
