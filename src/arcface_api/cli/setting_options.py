"""Command line options made from `Settings`, so that each setting is described once."""

from collections.abc import Callable
from typing import Any

import click

from arcface_api.settings import ENVIRONMENT_PREFIX, Settings


def settings_options(*names: str) -> Callable[[Any], Any]:
    """Give a command the options of the settings with these names, or of all settings."""

    def decorate(command: Any) -> Any:
        for name in reversed(names or tuple(Settings.model_fields)):
            field, flag = Settings.model_fields[name], name.replace("_", "-")
            help_text = f"{field.description} [{ENVIRONMENT_PREFIX}{name.upper()}]"
            if field.annotation is bool:
                option = click.option(f"--{flag}/--no-{flag}", name, default=None, help=help_text)
            else:  # its value stays text, which `read_settings` checks
                option = click.option(f"--{flag}", name, metavar="TEXT", help=help_text)
            command = option(command)
        return command

    return decorate
