"""The runs of a folder with their figures, for `kerastk runs`; a damaged one is listed as that."""

import datetime
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kerastk.errors import KerastkError, RunError
from kerastk.evaluation.reading import believed, epochs, number, text
from kerastk.recipe import Autoencode, Classify, Recipe, Tag
from kerastk.run import Run

# Any of these makes a folder one of a run.
_FILES = ("recipe.toml", "environment.json", "data.json", "labels.json", "log.csv", "metrics.json", "model.keras")


@dataclass(frozen=True, kw_only=True)
class Listed:
    """A run in the list. `state` is complete, running, interrupted or damaged; what is not known is None.

    `score` and its 95 % interval are those of `split`: test, or validation where there is no test split; `measure` says
    what they are: accuracy, the F1 of a tagger's spans, or the mean error of an autoencoder, which is no share and the
    better the lower. `started` is ISO 8601, `error` says what is damaged.
    """

    name: str
    path: str
    state: str
    task: str | None = None
    network: str | None = None
    data: str | None = None
    split: str | None = None
    measure: str | None = None
    score: float | None = None
    score_95: tuple[float, float] | None = None
    seconds: float | None = None
    started: str | None = None
    error: str | None = None


def runs(folder: Path) -> list[Listed]:
    """The runs in a folder, the newest first; other folders are left out.

    Raises:
        RunError: there is no such folder, or it cannot be read.
    """
    try:
        entries = [entry for entry in folder.iterdir() if not entry.name.startswith(".")]
    except FileNotFoundError:
        raise RunError(f"no folder {str(folder)!r}; runs are in `runs` where `kerastk finetune` is called.") from None
    except OSError as error:
        raise RunError(f"cannot list {str(folder)!r}: {error.strerror}.") from None
    found = [(_when(entry), _listed(Run(entry))) for entry in entries if _is_run(entry)]
    # Of two that began in one second, the one with the later name comes first.
    return [listed for _, listed in sorted(found, key=lambda each: (each[0], each[1].name), reverse=True)]


def _is_run(folder: Path) -> bool:
    try:
        return folder.is_dir() and any((folder / name).exists() for name in _FILES)
    except OSError:
        return False


def _when(folder: Path) -> float:
    """When a run began, in seconds; where it does not say, when its folder changed last."""
    try:
        return datetime.datetime.fromisoformat(Run(folder).environment["started"]).timestamp()
    except (KerastkError, OSError, KeyError, TypeError, ValueError, OverflowError):
        return folder.stat().st_mtime if folder.exists() else 0.0


def _listed(run: Run) -> Listed:
    known: dict[str, Any] = {"name": run.path.name, "path": str(run.path)}
    try:
        # It holds the lock before there is anything else.
        busy = run.busy
        if busy and not run.begun:
            return Listed(**known, state="running")
        Run.open(run.path)
        with believed(run.environment_json):
            known["started"] = text(run.environment.get("started", ""), 100) or None
        recipe = run.recipe
        known |= {"task": recipe.task, "network": network(recipe), "data": recipe.data}
        if run.complete:
            return Listed(**known, **_figures(run), state="complete")
        rows = epochs(run) if run.log_csv.exists() else []
        seconds = sum(row.values.get("seconds", 0.0) for row in rows) or None
        return Listed(**known, seconds=seconds, state="running" if busy else "interrupted")
    except (KerastkError, OSError) as error:
        return Listed(**known, state="damaged", error=" ".join(str(error).split()))


def network(recipe: Recipe) -> str | None:
    """What answers, in a word; of an autoencoder with how many numbers its code has."""
    if isinstance(recipe, Autoencode):
        known = ("variational" if recipe.variational else recipe.kind, recipe.latent)
        return "-".join(str(each) for each in known if each is not None) or None
    if isinstance(recipe, Tag):
        return f"{recipe.cell}-{recipe.output}"
    return recipe.net if isinstance(recipe, Classify) else getattr(recipe, "base", None)


# What a run is judged by, by its name among the figures, and how large that can be; the first that there is.
_MEASURES = {"accuracy": ("accuracy", 1), "f1": ("F1", 1), "token_accuracy": ("accuracy", 1), "error": ("error", 1e15)}


def _figures(run: Run) -> dict[str, Any]:
    metrics = run.metrics
    with believed(run.metrics_json):
        split = "test" if "test" in metrics else "validation"
        figures = metrics[split]
        name = next((name for name in _MEASURES if name in figures), "accuracy")
        measure, most = _MEASURES[name]
        low, high = figures[f"{name}_95"]
        seconds = metrics.get("seconds", {}).get("all")
        return {
            "split": split,
            "measure": measure,
            "score": number(figures[name], 0, most),
            "score_95": (number(low, 0, most), number(high, 0, most)),
            "seconds": None if seconds is None else number(seconds, 0, 1e12),
        }
