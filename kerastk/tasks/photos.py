"""What the tasks on labelled images share: how a run of them is trained, shown, judged and written."""

import os
from typing import Any

import keras
import numpy as np

from kerastk import tasks
from kerastk.datasets.array_data import ArrayData
from kerastk.datasets.images import photo_grid
from kerastk.datasets.photos import PhotoData
from kerastk.datasets.source import Source, chosen, only
from kerastk.evaluation import mistakes, scores
from kerastk.evaluation.metrics import before_calibration, classification
from kerastk.networks.classifier import features_model
from kerastk.notation import schedule_numbers
from kerastk.recipe import Images, Recipe
from kerastk.run import Run
from kerastk.screen import Screen
from kerastk.training.callbacks import ClassValidation
from kerastk.training.fitting import Fitting
from kerastk.training.losses import class_weights, loss
from kerastk.training.plan import Plan
from kerastk.training.projector import POINTS, Observer
from kerastk.training.results import Judged, projector_of, write_results
from kerastk.training.signals import dispensable
from kerastk.training.tensorboard import Events, Writer

# Each split gives images and one-hot labels.
ImageData = PhotoData | ArrayData


def threads() -> int:
    """Threads that read and decode, where the recipe does not say."""
    return min(16, os.cpu_count() or 1)


def narrowed(recipe: Images, source: Source) -> Source:
    """The source with the classes of the recipe alone. Raises DataError."""
    return source if recipe.classes is None else only(source, chosen(recipe.classes))


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


def curve(recipe: Images) -> dict[str, Any]:
    """The learning rate's course of a resolved recipe, as a `Phase` takes it."""
    if recipe.schedule is None:
        return {}
    name, numbers = schedule_numbers(recipe.schedule)
    return {"schedule": name, "numbers": numbers}


def course(recipe: Images) -> dict[str, Any]:
    """What a `Phase` takes of the main phase of a resolved recipe."""
    rate = None if recipe.learning_rate == "auto" else recipe.learning_rate
    return {
        **curve(recipe), "epochs": recipe.epochs, "learning_rate": rate, "warmup_epochs": recipe.warmup_epochs,
        "mixup": recipe.mixup or 0.0, "cutmix": recipe.cutmix or 0.0,
    }  # fmt: skip


def validation(recipe: Images, model: keras.Model, data: ImageData) -> ClassValidation:
    """What judges the model after each epoch."""
    return ClassValidation(balanced=recipe.balance != "none")


def watching(plan: Plan, events: Events) -> list[keras.callbacks.Callback]:
    """What looks on beside what every run has: nothing."""
    return []


def nothing(data: ImageData) -> tuple[np.ndarray, np.ndarray]:
    """A label and an answer of no meaning, for a batch of one photo."""
    return (np.zeros((1, len(data.classes)), np.float32),) * 2


def objective(recipe: Images, data: ImageData, model: keras.Model) -> dict[str, Any]:
    """What `compile` gets: the smoothed loss, and the unsmoothed cross-entropy that chooses the model."""
    if recipe.label_smoothing is None:
        return {}
    counts = np.bincount(data.train.truth, minlength=len(data.classes))
    return {
        "loss": loss(
            "focal" if recipe.balance == "focal" else "cross_entropy",
            label_smoothing=recipe.label_smoothing,
            class_weights=class_weights(counts) if recipe.balance == "weights" else None,
            gamma=recipe.focal_gamma,
        ),
        "metrics": [
            keras.metrics.CategoricalAccuracy(name="accuracy"),
            keras.metrics.CategoricalCrossentropy(name="cross_entropy", from_logits=True),
        ],
    }


def measure(truth: np.ndarray, scores: np.ndarray, classes: list[str]) -> dict[str, Any]:
    """The figures of a split from its true classes and the model's probabilities."""
    return classification(truth, scores, classes)


def keep(run: Run, data: ImageData) -> None:
    """Write what only this task's runs have: nothing."""


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
