"""What can be demanded of a run on the command line: an exit code of 1 where its figures are worse."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import click

from kerastk.errors import GateError, RecipeError
from kerastk.recipe import Autoencode, Classify, Finetune, Recipe, Tag


@dataclass(frozen=True, kw_only=True)
class Gate:
    """What can be demanded: in words, a word for it in the line that says it is not met, the names that it may have
    among a run's figures, the tasks that have it, and whether what is demanded is the most that it may be."""

    what: str
    word: str
    names: tuple[str, ...]
    tasks: tuple[str, ...]
    is_most: bool = False


# By the option's name.
GATES = {
    "assert_accuracy": Gate(
        what="the accuracy (of a tagger: of tags)", word="accuracy", names=("accuracy", "token_accuracy"),
        tasks=("finetune", "classify", "tag"),
    ),
    "assert_f1": Gate(what="a tagger's F1 of spans", word="F1", names=("f1",), tasks=("tag",)),
    "assert_error": Gate(
        what="an autoencoder's mean error of an item", word="error", names=("error",), tasks=("autoencode",),
        is_most=True,
    ),
}  # fmt: skip

NO_SPANS = "--assert-f1 counts spans, and {}; use --assert-accuracy."


def gate(*names: str) -> Callable[[Callable], Callable]:
    """Adds such options to a command."""

    def add(command: Callable) -> Callable:
        for name in reversed(names):
            is_most = GATES[name].is_most
            command = click.option(
                _flag(name), type=click.FloatRange(0, None if is_most else 1), metavar="MAX" if is_most else "SHARE",
                help=f"Exit with code 1 if {GATES[name].what} on the test split (else validation) is "
                f"{'higher' if is_most else 'lower'}.",
            )(command)  # fmt: skip
        return command

    return add


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


GATES_OF = {
    Finetune: gate("assert_accuracy"),
    Classify: gate("assert_accuracy"),
    Tag: gate("assert_f1", "assert_accuracy"),
    Autoencode: gate("assert_error"),
}


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
    """Refuse, before anything is loaded, to demand of a run a figure that its answers do not have.

    Raises:
        RecipeError: there is none.
    """
    if not wanted:
        return
    from kerastk.datasets.schemes import PLAIN

    labels = run.labels
    task = labels.get("task")
    for name in wanted:
        if task in GATES[name].tasks:
            continue
        if name == "assert_f1" and task != "autoencode":
            raise RecipeError(NO_SPANS.format(f"{run.path} is no tagger"))
        others = [_flag(other) for other, gate in GATES.items() if task in gate.tasks]
        hint = f"; use {' or '.join(others)}" if others else ""
        raise RecipeError(f"{_flag(name)} asks for {GATES[name].what}, which {run.path} does not have{hint}.")
    if "assert_f1" in wanted and labels.get("scheme") == PLAIN:
        raise RecipeError(NO_SPANS.format(f"the tags of {run.path} are plain"))


def demand_of_run(run: Any, wanted: dict[str, float]) -> None:
    """Refuse a complete run whose figures are worse: those of the test split, else of the validation split."""
    if wanted:
        metrics = run.metrics
        demand(metrics.get("test", metrics["validation"]), wanted)


def demand(figures: dict[str, Any], wanted: dict[str, float]) -> None:
    """Refuse figures that are worse than what is demanded.

    Raises:
        GateError: one is, or is not there.
    """
    for option, value in wanted.items():
        gate = GATES[option]
        found = next((figures[name] for name in gate.names if name in figures), None)
        if found is None:
            raise GateError(f"{_flag(option)}: there is no such figure.")
        # Also for a NaN, which compares as false either way.
        if not (found <= value if gate.is_most else found >= value):
            side = "above" if gate.is_most else "below"
            raise GateError(f"{gate.word} {found:.4f} is {side} the demanded {value:g}.")
