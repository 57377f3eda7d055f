"""`arcface-api doctor`."""

import os
import shutil
import sys

import click

from arcface_api.cli.calling import hint_for
from arcface_api.cli.setting_options import settings_options
from arcface_api.doctor import Subject, as_text, examine
from arcface_api.progress import BarProgress
from arcface_api.serving import port
from arcface_api.settings import read_usable

DEFAULT_COLUMNS = 100
"""Where the output is no terminal."""


@click.command(
    epilog="""\b
    Examples:
      arcface-api doctor
      arcface-api doctor --pack open --no-network
      arcface-api doctor --quick --json

    \b
    Exit status:
      0  there is no problem
      1  there is one or more
      2  an option is wrong; wrong values of settings are problems"""
)
@click.option("--json", "is_json", is_flag=True, help="Print the report as JSON.")
@click.option("--quick", is_flag=True, help="Leave out what takes longest: loading the model.")
@click.option(
    "--network/--no-network", default=True, help="Whether to contact the sources of the pack, for 3 s each at most."
)
@settings_options()
def doctor(*, is_json: bool, quick: bool, network: bool, **options: object) -> None:
    """Find out what is wrong with this machine and installation.

    Examines them with the settings that `serve` would have, and says what to do about each finding. A service that
    runs is asked, not disturbed. The report hides passwords, tokens, home folders and user names, so that it can be
    attached to a bug report.
    """
    settings, wrong = read_usable(**options)
    subject = Subject(given=settings, wrong_settings=wrong, is_quick=quick, uses_network=network, bind=port.bind)
    with BarProgress("Examining") as bar:
        report = examine(subject, bar)
    is_terminal = sys.stdout.isatty()
    if is_json:
        text = report.to_json() + "\n"
    else:
        columns = shutil.get_terminal_size((DEFAULT_COLUMNS, 24)).columns if is_terminal else DEFAULT_COLUMNS
        colours = is_terminal and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
        text = as_text(report, columns, is_coloured=colours)
        if (hint := hint_for(" ".join(finding.remedy for finding in report.findings))) is not None:
            text += f"{hint}\n"
    encoding = sys.stdout.encoding or "utf-8"
    click.echo(text.encode(encoding, "replace").decode(encoding), nl=False, color=True)
    sys.exit(report.exit_status)
