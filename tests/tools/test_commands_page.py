"""Promises of docs/commands.md, and of the `--help` texts that it is made of."""

import shlex

import click
import pytest

from arcface_api.cli import cli
from command_sections import NAME, contexts, epilog, sections

COMMANDS = {each.command_path: each.command for each in contexts(click.Context(cli, info_name=NAME))}
LEAVES = {path: command for path, command in COMMANDS.items() if not isinstance(command, click.Group)}


def test_every_command_and_option_has_its_place() -> None:
    page = sections()
    for path, command in COMMANDS.items():
        assert f"# `{path}`\n" in page
        for parameter in command.params:
            if isinstance(parameter, click.Option):
                assert parameter.help, (path, parameter.name)


@pytest.mark.parametrize("path", LEAVES)
def test_examples_are_commands_that_exist(path: str) -> None:
    about = epilog(LEAVES[path])
    assert {line.split()[0] for line in about["Exit status"]} >= {"0", "1", "2"}
    for line in about["Examples"]:
        words = shlex.split(line)
        arguments = words[words.index(NAME) + 1 :]
        assert " ".join([NAME, *arguments]).startswith(path)
        command: click.Command = cli
        while isinstance(command, click.Group):
            command = command.commands[arguments.pop(0)]
        command.make_parser(click.Context(command)).parse_args(arguments)  # raises where an option does not exist
