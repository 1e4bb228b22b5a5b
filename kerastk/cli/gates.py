"""What can be demanded of a run on the command line: an exit code of 1 where its figures are lower."""

from collections.abc import Callable
from typing import Any

import click

from kerastk.errors import GateError, RecipeError
from kerastk.recipe import Finetune, Recipe, Tag

# What can be demanded of a run: the option, what it is in words, and the names that it may have among the figures.
GATES = {
    "assert_accuracy": ("the accuracy (of a tagger: of tags)", ("accuracy", "token_accuracy")),
    "assert_f1": ("a tagger's F1 of spans", ("f1",)),
}

NO_SPANS = "--assert-f1 counts spans, and {}; use --assert-accuracy."


def gate(*names: str) -> Callable[[Callable], Callable]:
    """Adds such options to a command."""

    def add(command: Callable) -> Callable:
        for name in reversed(names):
            command = click.option(
                "--" + name.replace("_", "-"), type=click.FloatRange(0, 1), metavar="SHARE",
                help=f"Exit with code 1 if {GATES[name][0]} on the test split (else validation) is lower.",
            )(command)  # fmt: skip
        return command

    return add


GATES_OF = {Finetune: gate("assert_accuracy"), Tag: gate("assert_f1", "assert_accuracy")}


def demanded(values: dict[str, Any]) -> dict[str, float]:
    """What is demanded, by the option's name."""
    return {name: values[name] for name in GATES if values.get(name) is not None}


def check_recipe(wanted: dict[str, float], recipe: Recipe) -> None:
    """Refuse, before the training, to demand an F1 of a recipe whose data has plain tags; reads the data.

    Raises:
        RecipeError: there are no spans to count.
    """
    if "assert_f1" not in wanted or recipe.data is None or recipe.scheme is not None:
        return
    from kerastk import shipped
    from kerastk.datasets.schemes import PLAIN
    from kerastk.datasets.sequences import open_sentences

    path = shipped.data(recipe.data)
    if open_sentences(path, columns=recipe.columns, tag_column=recipe.tag_column).scheme == PLAIN:
        raise RecipeError(NO_SPANS.format(f"the tags of {path} are plain"))


def check_run(wanted: dict[str, float], run: Any) -> None:
    """Refuse, before anything is loaded, to demand an F1 of a run whose answers have no spans.

    Raises:
        RecipeError: there are none to count.
    """
    if "assert_f1" not in wanted:
        return
    from kerastk.datasets.schemes import PLAIN

    if run.labels.get("task") != "tag":
        raise RecipeError(NO_SPANS.format(f"{run.path} is no tagger"))
    if run.labels.get("scheme") == PLAIN:
        raise RecipeError(NO_SPANS.format(f"the tags of {run.path} are plain"))


def demand_of_run(run: Any, wanted: dict[str, float]) -> None:
    """Refuse a complete run whose figures are lower: those of the test split, else of the validation split."""
    if wanted:
        metrics = run.metrics
        demand(metrics.get("test", metrics["validation"]), wanted)


def demand(figures: dict[str, Any], wanted: dict[str, float]) -> None:
    """Refuse figures that are lower than what is demanded.

    Raises:
        GateError: one is, or is not there.
    """
    for option, value in wanted.items():
        names = [name for name in GATES[option][1] if name in figures]
        if not names:
            raise GateError(f"--{option.replace('_', '-')}: there is no such figure.")
        # Also for a NaN, which compares as false either way.
        if not figures[names[0]] >= value:
            name = option.removeprefix("assert_").replace("f1", "F1")
            raise GateError(f"{name} {figures[names[0]]:.4f} is below the demanded {value:g}.")
