"""The command line: a module for each command, and what they share.

Commands read settings, call the floors below and print; they decide nothing themselves.

serve · bench · evaluate · packs     options   settings as options     pack   found, or downloaded where that is wanted
"""

import shutil
import sys

import click

from arcface_api import __version__
from arcface_api.cli import bench, evaluate, packs, serve
from arcface_api.errors import ArcFaceError, SettingInvalid


def main() -> None:
    """Run the command line; errors we raise on purpose become one sentence and exit status 1 (2 for wrong settings)."""
    try:
        cli(prog_name="arcface-api")
    except ArcFaceError as error:
        click.echo(f"Error: {error}{_command_here(str(error))}", err=True)
        sys.exit(2 if isinstance(error, SettingInvalid) else 1)


def _command_here(told: str) -> str:
    """What stands for `arcface-api` where a sentence names it and the shell does not know it, as in a clone."""
    if "arcface-api " not in told or shutil.which("arcface-api"):
        return ""
    return (
        f"\n(Here `arcface-api` is `{sys.executable} -m arcface_api`; in a clone of this project `make packs ARGS='…'`"
        " does what `arcface-api packs …` does.)"
    )


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(__version__, prog_name="arcface-api")
def cli() -> None:
    """A picture of a face crop in, its ArcFace embedding out."""


for command in (serve.serve, bench.bench, evaluate.evaluate, packs.packs_group):
    cli.add_command(command)
