"""The command line: a module for each command, and `setting_options`.

Commands read settings, call the floors below and print. They decide nothing themselves.
"""

import shutil
import sys

import click

from arcface_api import __version__
from arcface_api.cli import bench, evaluate, packs, serve
from arcface_api.errors import ArcFaceError, SettingInvalid


def main() -> None:
    """Run the command line. An `ArcFaceError` becomes its text and exit status 1, or 2 for a wrong setting."""
    try:
        cli(prog_name="arcface-api")
    except ArcFaceError as error:
        click.echo(f"Error: {error}", err=True)
        if "arcface-api " in str(error) and not shutil.which("arcface-api"):  # as in a clone
            click.echo(
                f"(Here `arcface-api` is `{sys.executable} -m arcface_api`; in a clone of this project"
                " `make packs ARGS='…'` does what `arcface-api packs …` does.)",
                err=True,
            )
        sys.exit(2 if isinstance(error, SettingInvalid) else 1)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(__version__, prog_name="arcface-api")
def cli() -> None:
    """Turn pictures of face crops into ArcFace embeddings."""


for command in (serve.serve, bench.bench, evaluate.evaluate, packs.packs_group):
    cli.add_command(command)
