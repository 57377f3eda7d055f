"""The command line: a module for each command, and `setting_options`.

Commands read settings, call the floors below and print. They decide nothing themselves.
"""

import sys

import click

from arcface_api import __version__
from arcface_api.cli import bench, doctor, embed, evaluate, packs, serve
from arcface_api.cli.calling import COMMAND, as_called, hint_for
from arcface_api.errors import ArcFaceError, SettingInvalid
from arcface_api.serving.process import refusal


def main() -> None:
    """Run the command line. An `ArcFaceError` becomes its text and exit status 1, or 2 for a wrong setting."""
    try:
        cli(prog_name=as_called() or COMMAND)
    except ArcFaceError as error:
        click.echo(f"Error: {error}", err=True)
        if (hint := hint_for(str(error))) is not None:
            click.echo(hint, err=True)
        sys.exit(2 if isinstance(error, SettingInvalid) else 1)
    except (OSError, MemoryError, RuntimeError) as error:
        if refused := refusal(error):
            sentence = str(refused)
        elif isinstance(error, OSError) and error.filename is not None:  # where nothing more is known
            sentence = (
                f"{error.filename} cannot be used: {error.strerror}. The user that runs arcface-api needs permission to"
                " read it and the folders it is in."
            )
        else:
            raise
        click.echo(f"Error: {sentence}", err=True)
        sys.exit(1)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120, "show_default": True})
@click.version_option(__version__, prog_name="arcface-api")
def cli() -> None:
    """Turn pictures of face crops into ArcFace embeddings."""


for command in (serve.serve, embed.embed, bench.bench, doctor.doctor, evaluate.evaluate, packs.packs_group):
    cli.add_command(command)
