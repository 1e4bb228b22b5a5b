"""The one trainer: a recipe in, a run folder out."""

import dataclasses
import platform
import shlex
import sys
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import grain
import keras
import numpy as np

import kerastk
from kerastk import tasks
from kerastk.datasets.photos import PhotoData
from kerastk.errors import KerastkError, RecipeError, RunError
from kerastk.evaluation import scores
from kerastk.recipe import Recipe
from kerastk.run import Run, next_name
from kerastk.screen import Screen
from kerastk.training.callbacks import MONITOR, Best, EpochRows
from kerastk.training.device import choose_device, choose_precision, set_precision
from kerastk.training.phases import Phase, optimizer, prepare, quicken_statistics, release
from kerastk.training.tensorboard import Events, Writer, confusion_picture, photo_grid


@dataclasses.dataclass(frozen=True)
class Plan:
    """All that is settled before anything is trained or written."""

    recipe: Recipe
    data: PhotoData
    model: keras.Model
    phases: list[Phase]
    device: str
    precision_reason: str
    trainable: dict[str, int]

    @property
    def folder(self) -> Path:
        """Where the run will be."""
        return Path(self.recipe.runs) / self.recipe.name


def plan(recipe: Recipe, *, data: Any = None, screen: Screen, dry: bool = False) -> Plan:
    """Settle everything: device, data, split, network, phases. Cheap refusals come before costly looks.

    With `dry` pretrained weights are not fetched.
    """
    task = tasks.of(recipe)
    recipe = task.settle_base(recipe)
    if recipe.name is not None and (Path(recipe.runs) / recipe.name).exists():
        raise RunError(f"the run {str(Path(recipe.runs) / recipe.name)!r} exists already; choose another --name.")
    device = choose_device(recipe.device)
    precision, reason = choose_precision(recipe.precision, device)
    source = task.source_of(recipe, data)
    keras.utils.set_random_seed(recipe.seed)
    if recipe.deterministic and keras.backend.backend() == "tensorflow":
        import tensorflow

        tensorflow.config.experimental.enable_op_determinism()
    with keras.device(device):
        # Before the photos are looked at: weights that cannot be had should not cost a user that time.
        model = task.build(recipe, source.classes, random=dry)
        with screen.checking(source.name) as progress:
            opened = task.open_data(recipe, source, progress)
        name = recipe.name or next_name(Path(recipe.runs), f"{source.name}-{recipe.base}")
        resolved = task.resolve(recipe, model, opened, precision=precision, device=device, name=name)
        phases = task.phases(resolved)
        trainable = {}
        for phase in phases:
            weights = prepare(model, phase).trainable_weights
            trainable[phase.name] = sum(int(np.prod(weight.shape)) for weight in weights)
    return Plan(resolved, opened, model, phases, device, reason, trainable)


def train(
    recipe: Recipe,
    *,
    data: Any = None,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    show: bool = True,
) -> Run:
    """Train what the recipe says and return the run folder.

    Args:
        recipe: what to do, such as `Finetune(data="photos/")`.
        data: a list of (path, label[, split]) or a data frame with such columns, in place of `recipe.data`.
        callbacks: further Keras callbacks, handed to each phase's `fit`.
        show: print data, progress and results.

    Raises:
        KerastkError: whatever the user can mend; one line that says how.
    """
    if not isinstance(recipe, Recipe):
        raise RecipeError(f"train takes a recipe, such as kerastk.Finetune(data='photos/'); got {recipe!r}.")
    screen = Screen(show)
    settled = plan(recipe, data=data, screen=screen)
    screen.plan(settled)
    _warn_of_stateless(callbacks, screen)
    with keras.device(settled.device):
        return _execute(settled, callbacks, screen)


def _execute(plan: Plan, callbacks: Sequence[keras.callbacks.Callback], screen: Screen) -> Run:
    recipe, data, model = plan.recipe, plan.data, plan.model
    task = tasks.of(recipe)
    run = Run.create(Path(recipe.runs), recipe.name)
    run.write_recipe(recipe)
    run.write_environment(_environment(plan))
    run.write_data(data.manifest.to_json())
    run.write_labels(data.classes, task.contract(recipe))
    screen.started(run)

    writer = Writer(run.events)
    writer.hyperparameters(dataclasses.asdict(recipe))
    examples = [data.train.example(int(number), 0)[0] for number in _spread(len(data.train.photos), 32)]
    writer.image("augmented training photos", photo_grid(examples), 0)
    events = Events(writer, data.train.steps)
    best = Best(model, recipe.patience)
    rows = EpochRows(data.train, [events.row, screen.epoch])
    rows.sinks.append(lambda row: run.write_log(rows.rows))
    try:
        begin = time.perf_counter()
        _train_phases(plan, task.objective(recipe), best, rows, [best, events, rows, screen.batches(), *callbacks])
        trained_seconds = time.perf_counter() - begin
        set_precision(model, "float32")
        release(model)
        run.write_model(model)
        metrics = _measure(plan, run, best, rows, screen)
        metrics["seconds"] = {"training": trained_seconds, "all": time.perf_counter() - begin}
        run.write_metrics(metrics)
        judged = metrics.get("test", metrics["validation"])
        split = "test" if "test" in metrics else "validation"
        writer.image(f"confusion matrix ({split})", confusion_picture(judged["confusion"], data.classes), events.step)
        writer.scalars({f"{split}_accuracy": judged["accuracy"]}, events.step)
        screen.finished(run, metrics)
    finally:
        screen.close()
        writer.close()
    return run


def _train_phases(
    plan: Plan, objective: dict, best: Best, rows: EpochRows, callbacks: list[keras.callbacks.Callback]
) -> None:
    recipe, data, model = plan.recipe, plan.data, plan.model
    set_precision(model, recipe.precision)
    done = 0
    momenta: dict[str, float] = {}
    for phase in plan.phases:
        rows.phase = phase.name
        if phase.fresh:
            momenta = quicken_statistics(model, data.train.steps)
        fitted = prepare(model, phase)
        fitted.compile(
            optimizer=optimizer(
                phase,
                data.train.steps,
                weight_decay=recipe.weight_decay,
                clipnorm=recipe.clipnorm,
                precision=recipe.precision,
            ),
            **objective,
        )
        try:
            _fit(
                fitted,
                data.train.batches(done, done + phase.epochs),
                initial_epoch=done,
                epochs=done + phase.epochs,
                steps_per_epoch=data.train.steps,
                validation_data=data.val.batches(0, 1),
                callbacks=callbacks,
            )
        except Exception:
            failure = data.train.failure or data.val.failure
            if failure is not None:
                raise failure from None
            raise
        if best.epoch is None:
            raise KerastkError(
                f"the validation cross-entropy was never a number ({rows.rows[-1][MONITOR]}); try --learning-rate "
                f"{phase.learning_rate / 10:g} or --precision float32."
            )
        done += phase.epochs
        best.restore()
    for name, momentum in momenta.items():
        model.get_layer(name).momentum = momentum


def _fit(model: keras.Model, batches: grain.IterDataset, **arguments: Any) -> None:
    with warnings.catch_warnings():
        # Keras cannot know how long a Grain data set is, and warns when validation reaches its end.
        warnings.filterwarnings("ignore", message="Your input ran out of data")
        model.fit(batches, verbose=0, shuffle=False, **arguments)


def _measure(plan: Plan, run: Run, best: Best, rows: EpochRows, screen: Screen) -> dict[str, Any]:
    """The figures of validation and test by the best model; the only reading of the test split."""
    recipe, data = plan.recipe, plan.data
    task = tasks.of(recipe)
    # Not an index: a phase that stopped early leaves a gap in the numbers.
    row = next(row for row in rows.rows if row["epoch"] == best.epoch + 1)
    metrics: dict[str, Any] = {
        "format": 1,
        "best": {"epoch": row["epoch"], "phase": row["phase"], MONITOR: best.value},
        "validation": task.measure(data.val.truth, scores.of_split(plan.model, data.val), data.classes),
    }
    if data.test is not None:
        found = scores.of_split(plan.model, data.test)
        metrics["test"] = task.measure(data.test.truth, found, data.classes)
        run.write_predictions(
            [
                {
                    "path": photo.path,
                    "truth": photo.label,
                    "prediction": data.classes[int(row.argmax())],
                    "probability": f"{row.max():.6f}",
                }
                for photo, row in zip(data.test.photos, found, strict=True)
            ]
        )
    return metrics


def _spread(count: int, wanted: int) -> np.ndarray:
    """At most `wanted` numbers below `count`, evenly spread (the photos lie in order of class)."""
    return np.unique(np.linspace(0, count - 1, wanted).astype(int))


def _warn_of_stateless(callbacks: Sequence[keras.callbacks.Callback], screen: Screen) -> None:
    lacking = [
        type(each).__name__ for each in callbacks if not (hasattr(each, "get_state") and hasattr(each, "set_state"))
    ]
    if lacking:
        screen.warn(f"{', '.join(lacking)}: no get_state and set_state, so a resumed run starts them anew.")


def _environment(plan: Plan) -> dict[str, Any]:
    from importlib.metadata import PackageNotFoundError, version

    versions = {"python": platform.python_version(), "kerastk": kerastk.__version__}
    for package in ("keras", "tensorflow", "jax", "torch", "grain", "numpy", "pillow", "scikit-learn", "tensorboard"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return {
        "versions": versions,
        "backend": keras.backend.backend(),
        "platform": platform.platform(),
        "device": plan.device,
        "precision": plan.recipe.precision,
        "precision_reason": plan.precision_reason,
        "seed": plan.recipe.seed,
        "trainable_parameters": plan.trainable,
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }
