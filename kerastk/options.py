"""A recipe's fields as command-line options: one description for the command line, TOML and Python."""

import dataclasses
from collections.abc import Collection
from typing import Any

import click

from kerastk.recipe import GROUPS, Recipe, from_text


class RecipeCommand(click.Command):
    """A command whose options come from a recipe's fields; its help is grouped, the common options first."""

    def __init__(self, *args: Any, recipe: type[Recipe], only: Collection[str] | None = None, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.recipe = recipe
        # The data of a command that takes it as an argument is no option.
        taken = {parameter.name for parameter in self.params}
        self.params.extend(option for option in recipe_options(recipe, only) if option.name not in taken)

    def format_options(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        """Groups of the recipe's options, then those of the command itself."""
        groups: dict[str, list[tuple[str, str]]] = {"Common options": []}
        groups |= {f"{name.capitalize()} options": [] for name in GROUPS}
        metadata = {field.name: field.metadata for field in dataclasses.fields(self.recipe)}
        other = []
        for parameter in self.get_params(context):
            record = parameter.get_help_record(context) if isinstance(parameter, click.Option) else None
            if record is None:
                continue
            if parameter.name not in metadata:
                other.append(record)
            elif metadata[parameter.name]["common"]:
                groups["Common options"].append(record)
            else:
                groups[f"{metadata[parameter.name]['group'].capitalize()} options"].append(record)
        for title, records in {**groups, "Other options": other}.items():
            if records:
                with formatter.section(title):
                    formatter.write_dl(records)


def recipe_options(kind: type[Recipe], only: Collection[str] | None = None) -> list[click.Option]:
    """An option a field, in groups; with `only` those of some fields.

    No option has a default of its own: what is not given stays out of the recipe, so that a file's value counts.
    """
    fields = [field for field in dataclasses.fields(kind) if only is None or field.name in only]
    fields.sort(key=lambda field: (not field.metadata["common"], GROUPS.index(field.metadata["group"])))
    return [_option(field) for field in fields]


def given(kind: type[Recipe], values: dict[str, Any]) -> dict[str, Any]:
    """The recipe's fields among a command's parameters that were given explicitly, in the fields' types."""
    names = {field.name for field in dataclasses.fields(kind)}
    return {
        name: from_text(kind, name, value) if isinstance(value, str) else value
        for name, value in values.items()
        if name in names and value is not None
    }


_METAVARS = {int: "N", int | None: "N", float: "X", float | None: "X"}


def _option(field: dataclasses.Field) -> click.Option:
    flag = "--" + field.name.replace("_", "-")
    meta = field.metadata
    default = meta["auto"] if field.default is None else str(field.default)
    if field.type in (bool, bool | None):
        default = default if field.default is None else "on" if field.default else "off"
        help = f"{meta['help']}  [default: {default}]"
        return click.Option([f"{flag}/--no-{flag[2:]}"], default=None, help=help)
    unit = f" {meta['unit']}" if meta["unit"] else ""
    help = f"{meta['help']}  [default: {default}{unit if field.default is not None else ''}]"
    metavar = "|".join(meta["choices"]) or _METAVARS.get(field.type, meta["unit"].upper() or field.name.upper())
    # The constructor checks every value, so that all doors give the same errors.
    return click.Option([flag], default=None, metavar=metavar, help=help)
