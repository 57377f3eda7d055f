"""The API key that a command sends to the service at --url: an option for its file, or a variable with the key."""

import os
import re
from pathlib import Path

import click

from arcface_api.errors import SettingInvalid

API_KEY = "ARCFACE_API_KEY"
"""The variable. The service itself reads none of this name: it has a file of all keys."""

api_key_option = click.option(
    "--api-key-file",
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="With --url: a file with the key that the service, or a proxy before it, asks for, sent as Authorization:"
    f" Bearer … [{API_KEY}: the key itself]",
)


def read_api_key(file: Path | None, url: object) -> str | None:
    """The key from this file, or from the environment; never part of a message.

    Raises UsageError for a file without an url, and SettingInvalid for what is no key.
    """
    if file is not None and not url:
        raise click.UsageError("--api-key-file is for the service at --url: give both, or leave it out.")
    if not url:
        return None
    if file is not None:
        key, where = file.read_text(encoding="utf-8", errors="replace").strip(), f"The file {file}"
    elif not (key := os.environ.get(API_KEY, "").strip()):
        return None
    else:
        where = f"The variable {API_KEY}"
    if not re.fullmatch(r"[!-~]+", key):
        raise SettingInvalid(f"{where} holds no API key: it must be one word of ASCII characters.")
    return key
