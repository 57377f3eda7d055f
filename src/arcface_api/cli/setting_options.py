"""Command line options made from `Settings`, so that each setting is described once."""

from collections.abc import Callable, Mapping
from typing import Any

import click
from pydantic_core import PydanticUndefined

from arcface_api.settings import ENVIRONMENT_PREFIX, Settings


def settings_options(*names: str, described: Mapping[str, str] = {}) -> Callable[[Any], Any]:
    """Give a command the options of the settings with these names, or of all settings.

    `described`: descriptions in place of those that are about a service.
    """

    def decorate(command: Any) -> Any:
        for name in reversed(names or tuple(Settings.model_fields)):
            field, flag = Settings.model_fields[name], name.replace("_", "-")
            shown = shown_default(name)
            variable = f"{ENVIRONMENT_PREFIX}{name.upper()}"
            help_text = f"{described.get(name, field.description)} [{variable}{f'; default: {shown}' if shown else ''}]"
            if field.annotation is bool:
                option = click.option(f"--{flag}/--no-{flag}", name, default=None, help=help_text)
            else:  # its value stays text, which `read_settings` checks
                option = click.option(f"--{flag}", name, metavar=_metavar(name), help=help_text)
            command = option(command)
        return command

    return decorate


def shown_default(name: str) -> str:
    """A setting's default as it is written; empty where its description says what applies."""
    default = Settings.model_fields[name].default
    if default in (None, "", PydanticUndefined) or isinstance(default, frozenset):
        return ""
    return str(default).lower() if isinstance(default, bool) else str(default)


def _metavar(name: str) -> str:
    """What stands for a setting's value in `--help`."""
    described = Settings.model_json_schema()["properties"][name]
    schema = described.get("anyOf", [described])[0]  # behind it: null
    if "enum" in schema:
        return f"[{'|'.join(schema['enum'])}]"
    kinds = {"integer": "NUMBER", "number": "NUMBER", "path": "PATH"}
    return kinds.get(schema.get("format", schema.get("type")), "TEXT")
