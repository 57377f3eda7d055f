"""The reference of the command line: a section for each command, from click's own objects."""

import inspect
from collections.abc import Iterator

import click

from arcface_api.cli import cli
from arcface_api.settings import Settings

NAME = "arcface-api"


def sections() -> str:
    """All commands: what each does, its arguments and options, exit statuses, examples."""
    return "\n\n".join(_section(context) for context in contexts(click.Context(cli, info_name=NAME, show_default=True)))


def contexts(parent: click.Context) -> Iterator[click.Context]:
    """Each command below a group, a group before its own, as it is when it is called."""
    assert isinstance(parent.command, click.Group)
    for name, command in sorted(parent.command.commands.items()):
        context = click.Context(command, info_name=name, parent=parent)
        yield context
        if isinstance(command, click.Group):
            yield from contexts(context)


def epilog(command: click.Command) -> dict[str, list[str]]:
    """The lines of each part of a command's epilog, by the part's title."""
    parts = inspect.cleandoc(command.epilog or "").replace("\b\n", "").split("\n\n")
    return {
        title.rstrip(":"): [line.strip() for line in lines] for title, *lines in map(str.splitlines, parts) if lines
    }


def _section(context: click.Context) -> str:
    command, is_below_a_group = context.command, context.parent is not None and context.parent.parent is not None
    paragraphs = [" ".join(each.split()) for each in inspect.cleandoc(command.help or "").split("\n\n")]
    blocks = [f"{'###' if is_below_a_group else '##'} `{context.command_path}`", *paragraphs]
    if isinstance(command, click.Group):
        return "\n\n".join(blocks)
    about = epilog(command)
    usage = " ".join([context.command_path, *command.collect_usage_pieces(context)])
    blocks += [f"```text\n{usage}\n```", "\n".join(["```sh", *about["Examples"], "```"])]
    blocks += _table(("argument", "needed"), [_argument(each) for each in command.params if _is_argument(each)])
    settings = [each for each in command.params if each.name in Settings.model_fields and "[ARCFACE_" in _help(each)]
    own = [each for each in command.params if not _is_argument(each) and each not in settings]
    blocks += _table(("option", "meaning"), [_option(each, context) for each in own])
    if len(settings) == len(Settings.model_fields):
        blocks.append("Every [setting](configuration.md) is an option.")
    elif settings:
        names = ", ".join(f"`{each.opts[0]}`" for each in settings)
        blocks.append(f"These [settings](configuration.md) are options, too: {names}.")
    statuses = [line.split(maxsplit=1) for line in about["Exit status"]]
    blocks += _table(("exit status", "meaning"), [(status, meaning) for status, meaning in statuses])
    return "\n\n".join(blocks)


def _is_argument(parameter: click.Parameter) -> bool:
    return isinstance(parameter, click.Argument)


def _help(parameter: click.Parameter) -> str:
    return getattr(parameter, "help", None) or ""


def _argument(argument: click.Parameter) -> tuple[str, str]:
    needed = "one or more" if argument.nargs == -1 else "yes" if argument.required else "no"
    default = f"; default: `{argument.default}`" if isinstance(argument.default, str) else ""
    return f"`{argument.human_readable_name}`", needed + default


def _option(option: click.Parameter, context: click.Context) -> tuple[str, str]:
    record = option.get_help_record(context)
    assert record is not None, option.name  # none is hidden
    return f"`{record[0]}`", record[1]


def _table(head: tuple[str, str], rows: list[tuple[str, str]]) -> list[str]:
    """A table, or none where there are no rows."""
    lines = [" | ".join(" ".join(cell.split()).replace("|", "\\|") for cell in row) for row in (head, *rows)]
    lines.insert(1, "--- | ---")
    return ["\n".join(f"| {line} |" for line in lines)] if rows else []
