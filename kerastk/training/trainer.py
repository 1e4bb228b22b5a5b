"""The one trainer: a recipe in, a run folder out."""

import dataclasses
import platform
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

import kerastk
from kerastk import tasks
from kerastk.datasets.photos import PhotoData
from kerastk.errors import RecipeError, RunError
from kerastk.evaluation import scores
from kerastk.networks.classifier import features_model
from kerastk.recipe import CACHE_SIZE, Recipe, size_bytes
from kerastk.run import Run, next_name
from kerastk.screen import Screen
from kerastk.training.cache import Activations, CacheError, Choice, choose
from kerastk.training.callbacks import MONITOR, Best, EpochRows, Validation
from kerastk.training.device import choose_device, choose_precision, set_precision
from kerastk.training.fitting import Fitting
from kerastk.training.phases import Phase, Probe, prepare, release
from kerastk.training.store import folder_of
from kerastk.training.tensorboard import Events, Writer, confusion_picture, photo_grid


@dataclasses.dataclass(frozen=True)
class Plan:
    """All that is settled before anything is trained or written."""

    recipe: Recipe
    data: PhotoData
    model: keras.Model
    phases: list[Phase | Probe]
    choices: dict[str, Choice]
    device: str
    precision_reason: str
    trainable: dict[str, int]
    notes: list[str]
    # What an automatic name begins with; None where the user gave one.
    stem: str | None

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
        with screen.working(f"looking at {source.name}") as progress:
            opened = task.open_data(recipe, source, progress)
        stem = None if recipe.name else f"{source.name}-{recipe.base}"
        name = recipe.name or next_name(Path(recipe.runs), stem)
        resolved = task.resolve(recipe, model, opened, precision=precision, device=device, name=name)
        phases = task.phases(resolved)
        trainable = {}
        for phase in phases:
            weights = prepare(model, phase).trainable_weights
            trainable[phase.name] = sum(int(np.prod(weight.shape)) for weight in weights)
        choices = {phase.name: _choice(resolved, model, opened, phase) for phase in phases if isinstance(phase, Phase)}
        resolved = _with_cache(resolved, list(choices.values()))
        notes = []
        if resolved.probe == "train" and recipe.probe != "train":
            notes.append(f"the head is trained in minibatches, not solved: {task.too_large(model, opened)}")
    return Plan(resolved, opened, model, phases, choices, device, reason, trainable, notes, stem)


def _choice(recipe: Recipe, model: keras.Model, data: PhotoData, phase: Phase) -> Choice:
    """Where a phase's activations are kept.

    Raises:
        CacheError: a folder was named for them, and they cannot be kept there.
    """
    if recipe.cache == "off":
        return Choice(None, reason="as asked")
    dtype = recipe.cache_dtype or ("bfloat16" if recipe.precision == "bfloat16" else "float16")
    choice = choose(
        model, phase.unfreeze, photos=(len(data.train.photos), len(data.val.photos)), views=recipe.views,
        epochs=phase.epochs, policy=data.train.policy, dtype=dtype, limit=size_bytes(recipe.cache_size or CACHE_SIZE),
        folder=folder_of(recipe.cache),
    )  # fmt: skip
    if choice.point is None and recipe.cache != "auto":
        raise CacheError(f"nothing can be kept in --cache {recipe.cache}: {choice.reason}; use --cache auto or off.")
    return choice


def _with_cache(recipe: Recipe, choices: Sequence[Choice]) -> Recipe:
    """The recipe with what is used of the cache filled in, and the rest left out."""
    if recipe.cache == "off" or recipe.weights == "none":
        return recipe
    kept = [choice for choice in choices if choice.point is not None]
    return dataclasses.replace(
        recipe,
        cache_size=recipe.cache_size or CACHE_SIZE,
        cache_dtype=kept[0].point.dtype if kept else None,
        views=max((choice.views for choice in kept), default=None),
    )


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
    runs = Path(recipe.runs)
    run = Run.create(runs, recipe.name) if plan.stem is None else Run.create_next(runs, plan.stem)
    recipe = dataclasses.replace(recipe, name=run.path.name)
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
    validation = Validation()
    best = Best(model, validation, recipe.patience)
    rows = EpochRows([events.row, screen.epoch])
    rows.sinks.append(lambda row: run.write_log(rows.rows))
    fitting = Fitting(
        model=model,
        data=data,
        objective=task.objective(recipe),
        optimisation={name: getattr(recipe, name) for name in ("weight_decay", "clipnorm", "precision", "layer_decay")},
        cache_required=recipe.cache != "auto",
        activations=_activations(plan),
        choices=plan.choices,
        best=best,
        rows=rows,
        validation=validation,
        callbacks=[validation, best, events, rows, screen.batches(), *callbacks],
        screen=screen,
    )
    try:
        begin = time.perf_counter()
        set_precision(model, recipe.precision)
        fitting.run(plan.phases)
        trained_seconds = time.perf_counter() - begin
        set_precision(model, "float32")
        release(model)
        if fitting.neighbours is not None:
            model = features_model(model)
            run.write_neighbours(fitting.neighbours)
        run.write_model(model)
        metrics = _measure(plan, model, fitting, run)
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


def _activations(plan: Plan) -> Activations:
    """What keeps the frozen part's values: in the cache's folder, or in memory for this run."""
    recipe = plan.recipe
    limit = size_bytes(recipe.cache_size or CACHE_SIZE)
    return Activations(plan.model, tasks.of(recipe).identity(recipe), folder_of(recipe.cache), limit=limit)


def _measure(plan: Plan, model: keras.Model, fitting: Fitting, run: Run) -> dict[str, Any]:
    """The figures of validation and test by the best model; the only reading of the test split."""
    recipe, data, best = plan.recipe, plan.data, fitting.best
    task = tasks.of(recipe)
    # Not an index: a phase that stopped early leaves a gap in the numbers.
    row = next(row for row in fitting.rows.rows if row["epoch"] == best.epoch)
    neighbours = fitting.neighbours
    metrics: dict[str, Any] = {
        "format": 1,
        "best": {"epoch": row["epoch"], "phase": row["phase"], MONITOR: best.value, "temperature": best.temperature},
        "validation": task.measure(data.val.truth, scores.of_rows(model, data.val, neighbours), data.classes),
    }
    if data.test is not None:
        found = scores.of_rows(model, data.test, neighbours)
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
