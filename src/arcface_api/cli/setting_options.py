"""Settings as options of a command: made from `Settings`, so that a setting is described once."""

from collections.abc import Callable
from typing import Any

import click
from pydantic.fields import FieldInfo

from arcface_api.settings import ENVIRONMENT_PREFIX, Settings


def settings_options(*names: str) -> Callable[[Any], Any]:
    """Give a command the options of these settings; of all settings without names."""

    def decorate(command: Any) -> Any:
        for name in reversed(names or tuple(Settings.model_fields)):
            command = _option(name, Settings.model_fields[name])(command)
        return command

    return decorate


def _option(name: str, field: FieldInfo) -> Callable[[Any], Any]:
    """The command line option of one setting. Its value stays text, which `read_settings` checks and explains."""
    flag = "--" + name.replace("_", "-")
    help_text = f"{field.description} [{ENVIRONMENT_PREFIX}{name.upper()}]"
    if field.annotation is bool:
        return click.option(f"{flag}/--no-{flag[2:]}", name, default=None, help=help_text)
    return click.option(flag, name, metavar="TEXT", help=help_text)
