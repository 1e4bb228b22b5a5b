"""The page that a person reads of a run: one file, made from the run folder alone, that loads nothing."""

from types import ModuleType
from typing import Any

from kerastk.evaluation import autoencoder_report, photo_report, tag_report
from kerastk.evaluation.page import About
from kerastk.run import Run

# What makes the page, by the task of the run's recipe.
PAGES: dict[str, ModuleType] = {
    "finetune": photo_report, "classify": photo_report, "tag": tag_report, "autoencode": autoencoder_report,
}  # fmt: skip


def about(run: Run, metrics: dict[str, Any] | None = None) -> About:
    """What is known of a run; `metrics` stand for metrics.json where that is not written yet.

    Raises:
        RunError: the run is not complete, or a file of it is missing or damaged.
        RecipeError: its recipe is.
    """
    return PAGES[run.recipe.task].about(run, metrics)


def page(run: Run, metrics: dict[str, Any] | None = None) -> str:
    """The HTML of a run's report. Arguments and errors as of `about`."""
    return PAGES[run.recipe.task].html(about(run, metrics))
