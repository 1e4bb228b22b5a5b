"""What the tasks on labelled photos share: how a run of them is shown, judged and written."""

from typing import Any

import numpy as np

from kerastk import tasks
from kerastk.datasets.images import photo_grid
from kerastk.evaluation import mistakes, scores
from kerastk.evaluation.metrics import before_calibration
from kerastk.networks.classifier import features_model
from kerastk.recipe import Recipe
from kerastk.run import Run
from kerastk.screen import Screen
from kerastk.training.fitting import Fitting
from kerastk.training.plan import Plan
from kerastk.training.projector import POINTS, Observer
from kerastk.training.results import Judged, projector_of, write_results
from kerastk.training.signals import dispensable
from kerastk.training.tensorboard import Events, Writer


def epoch_columns(recipe: Recipe) -> tuple[tuple[str, str], ...]:
    """What an epoch's line shows of its row: names and heads."""
    return (
        ("loss", "loss"), ("accuracy", "acc"), ("val_cross_entropy", "val loss"), ("val_accuracy", "val acc"),
    )  # fmt: skip


def open_board(plan: Plan, writer: Writer) -> None:
    """What TensorBoard shows of the photos before the first step."""
    train = plan.data.train
    examples = [train.example(int(number), 0)[0] for number in _spread(len(train.photos), 32)]
    writer.image("augmented training photos", photo_grid(examples), 0)


def conclude(plan: Plan, fitting: Fitting, run: Run, events: Events, screen: Screen) -> dict[str, Any]:
    """Write the model and all that it answers; what metrics.json holds of it."""
    model = plan.model
    if fitting.neighbours is not None:
        model = features_model(model)
        run.write_neighbours(fitting.neighbours)
    run.write_model(model)
    shown = _spread(len(plan.data.val.photos), POINTS)
    observer = Observer(model, shown)
    judged = _judge(plan, observer, fitting)
    with dispensable(screen.warn, "the mistakes are not kept for the report"):
        explained = None if fitting.neighbours is not None else model
        answers = {name: (each.split, each.scores) for name, each in judged.items()}
        run.write_mistakes(mistakes.record(explained, answers, probabilities=plan.recipe.head != "svm"))
    if "test" in judged:
        _write_predictions(judged["test"], run)
    run.write_projector(projector_of(judged["validation"], observer, shown))
    write_results(events.writer, judged, seconds=fitting.seconds, step=events.step)
    return {name: each.figures for name, each in judged.items()}


def _judge(plan: Plan, observer: Observer, fitting: Fitting) -> dict[str, Judged]:
    """The best model's answers for validation and test and their figures; the only reading of the test split."""
    data, task, judged = plan.data, tasks.of(plan.recipe), {}
    for name, split in (("validation", data.val), ("test", data.test)):
        if split is not None:
            found = scores.of_rows(observer, split, fitting.neighbours)
            figures = task.measure(split.truth, found, data.classes)
            if plan.recipe.head == "dense":
                figures["uncalibrated"] = before_calibration(split.truth, found, fitting.best.temperature)
            judged[name] = Judged(split, found, figures)
    return judged


def _write_predictions(judged: Judged, run: Run) -> None:
    classes = judged.split.classes
    run.write_predictions(
        [
            {
                "path": photo.path,
                "truth": photo.label,
                "prediction": classes[int(row.argmax())],
                "probability": f"{row.max():.6f}",
            }
            for photo, row in zip(judged.split.photos, judged.scores, strict=True)
        ]
    )


def _spread(count: int, wanted: int) -> np.ndarray:
    """At most `wanted` numbers below `count`, evenly spread (the photos lie in order of class)."""
    return np.unique(np.linspace(0, count - 1, wanted).astype(int))
