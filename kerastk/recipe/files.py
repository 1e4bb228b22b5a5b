"""Recipes as TOML and as texts of the command line: both end in the constructor, which checks."""

import dataclasses
import difflib
import os
import tomllib
from typing import Any

from kerastk.errors import RecipeError
from kerastk.notation import shown
from kerastk.recipe.autoencode import Autoencode
from kerastk.recipe.base import Recipe, kinds_of
from kerastk.recipe.classify import Classify
from kerastk.recipe.finetune import Finetune
from kerastk.recipe.tag import Tag

# Paths may be long; and to what is nested deep, tomllib gives memory by the square of its length.
_LARGEST = 2**15
TASKS: dict[str, type[Recipe]] = {
    "finetune": Finetune, "classify": Classify, "tag": Tag, "autoencode": Autoencode,
}  # fmt: skip


def parse(path: str | os.PathLike) -> tuple[type[Recipe], dict[str, Any]]:
    """The task's class and the given fields of a TOML file, not yet checked against each other."""
    try:
        with open(path, "rb") as file:
            content = file.read(_LARGEST + 1)
        if len(content) > _LARGEST:
            raise RecipeError(f"{os.fspath(path)} is larger than {_LARGEST >> 10} KiB; a recipe has a few lines.")
        # A folder's name need not be UTF-8, and stands in the recipe as it is.
        text = content.decode("utf-8", "surrogateescape")
        table = tomllib.loads(text)
    except OSError as error:
        raise RecipeError(f"cannot read the recipe {os.fspath(path)!r}: {error.strerror}.") from None
    except (ValueError, RecursionError) as error:
        raise RecipeError(f"{os.fspath(path)} is not TOML: {error}") from None
    task = table.pop("task", None)
    if not isinstance(task, str) or task not in TASKS:
        raise RecipeError(f"{os.fspath(path)}: task must be one of {', '.join(TASKS)}; got {shown(task)}.")
    return TASKS[task], table


def construct(kind: type[Recipe], values: dict[str, Any]) -> Recipe:
    """A recipe from names and values; an unknown name is refused with the nearest right ones."""
    known = [field.name for field in dataclasses.fields(kind)]
    for name in values:
        if name not in known:
            near = difflib.get_close_matches(name[:100].replace("-", "_"), known, n=3, cutoff=0.5)
            hint = f"Did you mean {' or '.join(near)}?" if near else f"Known: {', '.join(sorted(known))}."
            raise RecipeError(f"{kind.task} has no option {shown(name)}. {hint}")
    return kind(**values)


def load(path: str | os.PathLike, **overrides: Any) -> Recipe:
    """The recipe in a TOML file, with some fields replaced.

    Raises:
        RecipeError: the file cannot be read, names an unknown task or key, or holds a value out of range.
    """
    kind, values = parse(path)
    return construct(kind, {**values, **overrides})


def dump(recipe: Recipe) -> str:
    """The recipe as TOML; `load` gives the same object back. Automatic values that are not resolved are left out."""
    import tomli_w

    values = {"task": recipe.task}
    values |= {key: value for key, value in dataclasses.asdict(recipe).items() if value is not None}
    return tomli_w.dumps(values)


def from_text(kind: type[Recipe], name: str, text: str) -> Any:
    """An option's text from the command line as the value of field `name` (checked later, by the constructor)."""
    field = next(field for field in dataclasses.fields(kind) if field.name == name)
    kinds = kinds_of(kind, field)
    try:
        if kinds == (int,):
            return int(text)
        if float in kinds:
            return float(text)
    except ValueError:
        pass
    return text
