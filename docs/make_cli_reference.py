"""Writes docs/cli.md from the commands' own help; a test compares the two."""

from pathlib import Path

import click

from kerastk.cli import CONTEXT, commands

HEAD = """# Command line

Made from `--help` by `make docs`.
"""


def reference() -> str:
    """The text of docs/cli.md."""
    parts = [HEAD]

    def visit(command: click.Command, path: str, parent: click.Context | None) -> None:
        context = click.Context(command, info_name=path.split()[-1], parent=parent, **CONTEXT, terminal_width=100)
        parts.append(f"## {path}\n\n```\n{command.get_help(context)}\n```\n")
        for name in command.list_commands(context) if isinstance(command, click.Group) else ():
            visit(command.get_command(context, name), f"{path} {name}", context)

    visit(commands, "kerastk", None)
    return "\n".join(parts)


if __name__ == "__main__":
    Path(__file__).with_name("cli.md").write_text(reference(), encoding="utf-8")
