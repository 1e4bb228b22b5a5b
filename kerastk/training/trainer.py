"""The one trainer: a recipe in, a run folder out; or a run folder in, gone on with."""

import contextlib
import dataclasses
import os
import platform
import shlex
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from kerastk import tasks
from kerastk.errors import DataError, KerastkError, RecipeError, RunError, Stopped
from kerastk.evaluation import mistakes, report, scores
from kerastk.evaluation.metrics import before_calibration
from kerastk.networks.classifier import features_model
from kerastk.recipe import CACHE_SIZE, Recipe, size_bytes
from kerastk.run import Run
from kerastk.screen import Screen
from kerastk.training import resuming
from kerastk.training.cache import Activations
from kerastk.training.callbacks import MONITOR, Best, EpochRows, Guard, Validation
from kerastk.training.checkpoint import Checkpoints
from kerastk.training.device import set_precision
from kerastk.training.fitting import Fitting
from kerastk.training.keeper import Keeper, check_state
from kerastk.training.phases import release
from kerastk.training.plan import Plan, plan
from kerastk.training.signals import Ended, Signals
from kerastk.training.store import folder_of
from kerastk.training.tensorboard import Events, Writer, confusion_picture, cut, photo_grid

OPTIMISATION = ("weight_decay", "clipnorm", "precision", "layer_decay")


def train(
    recipe: Recipe,
    *,
    data: Any = None,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    show: bool = True,
    resume: bool = False,
) -> Run:
    """Train what the recipe says and return the run folder.

    Args:
        recipe: what to do, such as `Finetune(data="photos/")`.
        data: a list of (path, label[, split]) or a data frame with such columns, in place of `recipe.data`.
        callbacks: further Keras callbacks, handed to each phase's `fit`. One with `get_state` (a tree of plain values
            and arrays) and `set_state` goes on after a resume where it was.
        show: print data, progress and results.
        resume: go on with the run of this recipe (`recipe.name`; without a name the last automatic one of this data and
            base) where it was interrupted; start it where there is none yet.

    Raises:
        Stopped: SIGTERM came; `kerastk.resume` goes on.
        KerastkError: whatever the user can mend; one line that says how.
    """
    if not isinstance(recipe, Recipe):
        raise RecipeError(f"train takes a recipe, such as kerastk.Finetune(data='photos/'); got {recipe!r}.")
    run = resuming.earlier(recipe, data) if resume else None
    if run is not None and run.begun:
        resuming.refuse_another(recipe, run)
        return _go_on(run, Screen(show), recipe.data if data is None else data, callbacks)
    screen = Screen(show)
    settled = plan(recipe, data=data, screen=screen, run=run)
    screen.plan(settled)
    _warn_of_stateless(callbacks, screen)
    if run is None:
        runs = Path(recipe.runs)
        run = Run.create(runs, recipe.name) if settled.stem is None else Run.create_next(runs, settled.stem)
    with run.lock(), keras.device(settled.device):
        resolved = dataclasses.replace(settled.recipe, name=run.path.name)
        run.write_recipe(resolved)
        run.write_data(settled.data.manifest.to_json())
        run.write_labels(settled.data.classes, tasks.of(recipe).contract(resolved))
        run.write_environment({**_environment(settled), "given": resuming.given(recipe)})
        with _mendable(run):
            return _execute(dataclasses.replace(settled, recipe=resolved), run, callbacks, screen)


def resume(
    path: str | os.PathLike,
    *,
    data: Any = None,
    allow_data_change: bool = False,
    allow_version_change: bool = False,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    show: bool = True,
) -> Run:
    """Go on with a run that was interrupted, from its last checkpoint; a complete one is returned as it is.

    The model comes out as it would have without the interruption (on a CPU with `deterministic`: bit for bit).

    >>> run = kerastk.resume("runs/photos-resnet50-1")

    Args:
        path: the run folder.
        data: where the data is now, or what was given to `train` as `data`.
        allow_data_change: go on though photos were added or removed. Those that are known stay in their splits.
        allow_version_change: go on with other versions of what computes.
        callbacks: those that were given to `train`.
        show: print data, progress and results.

    Raises:
        RunError: there is nothing to go on with, another process is at it, or the data, the classes or the versions are
            others than at its start.
    """
    return _go_on(
        Run.open(path), Screen(show), data, callbacks, data_may_change=allow_data_change,
        versions_may_change=allow_version_change,
    )  # fmt: skip


def _go_on(
    run: Run, screen: Screen, data: Any, callbacks: Sequence[keras.callbacks.Callback], *,
    data_may_change: bool = False, versions_may_change: bool = False,
) -> Run:  # fmt: skip
    """See `resume`."""
    with run.lock(), _mendable(run):
        if run.complete:
            if not run.report_html.exists():
                _report(run, None, screen)
            screen.complete(run)
            shutil.rmtree(run.checkpoint)
            return run
        changed = resuming.changed_versions(run.environment)
        if changed and not versions_may_change:
            raise RunError(f"{run.path} was trained with other versions: {'; '.join(changed)}. Install those again, or "
                           "allow it with --allow-version-change.")  # fmt: skip
        recipe = dataclasses.replace(run.recipe, name=run.path.name, runs=str(run.path.parent))
        if data is not None:
            recipe = dataclasses.replace(recipe, data=os.fspath(data) if isinstance(data, str | os.PathLike) else None)
        elif recipe.data is None:
            raise RunError(
                f"the data of {run.path} was given in Python; resume it with kerastk.resume(path, data=...)."
            )
        settled = plan(recipe, data=data if recipe.data is None else None, screen=screen, run=run)
        changes = settled.data.manifest.changes(run.data)
        if changes:
            same_classes = settled.data.classes == run.data["classes"]
            if not same_classes or not data_may_change:
                hint = " `kerastk resume --allow-data-change` goes on with what is there now." if same_classes else ""
                raise RunError(f"the data of {run.path} has changed: {'; '.join(changes)}.{hint}")
            screen.warn(f"the data has changed: {'; '.join(changes)}.")
            run.write_data(settled.data.manifest.to_json())
        state, damaged = Checkpoints(run.checkpoint).load()
        for line in damaged:
            screen.warn(f"{line}; going on from the one before.")
        if state is not None:
            check_state(state)
            if state["data"] != settled.data.manifest.sha256:
                # Batches are others now: the epoch begins anew.
                state["step"] = 0
        _warn_of_stateless(callbacks, screen)
        begun, now = run.environment, _environment(settled)
        resumed = {key: now[key] for key in ("versions", "command", "started")}
        run.write_environment({**begun, "resumed": [*begun.get("resumed", []), resumed]})
        screen.plan(settled)
        with keras.device(settled.device):
            return _execute(settled, run, callbacks, screen, state)


@contextlib.contextmanager
def _mendable(run: Run) -> Iterator[None]:
    """What the disk or the rights do not allow is said in one line, and how to go on."""
    try:
        yield
    except OSError as error:
        where = str(error.filename or run.path)
        raise RunError(f"{error.strerror}: {where!r}; when that is mended, {_going_on(run)} goes on.") from None


def _going_on(run: Run) -> str:
    return f"`kerastk resume {shlex.quote(str(run.path))}`"


def _execute(
    plan: Plan, run: Run, callbacks: Sequence[keras.callbacks.Callback], screen: Screen,
    state: dict[str, Any] | None = None,
) -> Run:  # fmt: skip
    """Train, measure, write; from a checkpoint's `state`, if there is one. The run's lock is held."""
    recipe, data, model = plan.recipe, plan.data, plan.model
    go_on = _going_on(run)
    screen.started(run, state)
    _forget(run, state)
    writer = Writer(run.events)
    events = Events(writer, data.train.steps)
    validation = Validation()
    best = Best(model, validation, recipe.patience)
    rows = EpochRows([events.row, screen.epoch])
    rows.sinks.append(lambda row: run.write_log(rows.rows))
    try:
        if state is None:
            writer.hyperparameters(dataclasses.asdict(recipe))
            examples = [data.train.example(int(number), 0)[0] for number in _spread(len(data.train.photos), 32)]
            writer.image("augmented training photos", photo_grid(examples), 0)
        with Signals(screen.warn) as signals:
            fitting = Fitting(
                model=model,
                data=data,
                device=plan.device,
                objective=tasks.of(recipe).objective(recipe),
                optimisation={name: getattr(recipe, name) for name in OPTIMISATION},
                cache_required=recipe.cache != "auto",
                activations=_activations(plan),
                choices=plan.choices,
                best=best,
                rows=rows,
                validation=validation,
                screen=screen,
                keeper=Keeper(
                    Checkpoints(run.checkpoint),
                    signals,
                    model,
                    [validation, Guard(), best, events, rows, screen.batches(), *callbacks],
                    parts=recipe.epoch_parts or 1,
                    data=data.manifest.sha256,
                    classes=len(data.classes),
                    state=state,
                ),
            )
            set_precision(model, recipe.precision)
            fitting.run(plan.phases)
            metrics = _finish(plan, fitting, run, events, screen)
        screen.finished(run, metrics)
    except Ended:
        # It came while the model was being judged and written.
        raise Stopped(f"stopped by Ctrl-C; {go_on} goes on.", 130) from None
    except Stopped as error:
        raise Stopped(f"{error}; {go_on} goes on.", error.exit_code) from None
    except DataError as error:
        raise DataError(f"{error} {go_on} goes on then; with --allow-data-change it goes on without it.") from None
    finally:
        screen.close()
        writer.close()
    if fitting.ended is not None and isinstance(fitting.ended, KerastkError):
        raise type(fitting.ended)(f"{fitting.ended}. The best model before that is in {run.path}.")
    return run


def _forget(run: Run, state: dict[str, Any] | None) -> None:
    """Drop what TensorBoard's files and log.csv hold beyond a checkpoint; without one, all of it."""
    kept = {"Events": {"sizes": {}}, "EpochRows": {"rows": []}} if state is None else state["callbacks"]
    try:
        cut(run.events, kept["Events"]["sizes"])
        if run.log_csv.exists():
            run.write_log(kept["EpochRows"]["rows"])
    except (KeyError, TypeError, AttributeError) as error:
        raise RunError(f"the checkpoint of {run.path} does not fit: {type(error).__name__} {error}.") from None


def _finish(plan: Plan, fitting: Fitting, run: Run, events: Events, screen: Screen) -> dict[str, Any]:
    """Write the best model, its mistakes, the report and the figures, these last: with them the run is complete."""
    trained_seconds, model = fitting.rows.spent, plan.model
    set_precision(model, "float32")
    release(model)
    if fitting.neighbours is not None:
        model = features_model(model)
        run.write_neighbours(fitting.neighbours)
    run.write_model(model)
    metrics = _measure(plan, model, fitting, run, screen)
    splits = [split for split in (plan.data.train, plan.data.val, plan.data.test) if split is not None]
    metrics["seconds"] = {
        "looking": plan.looking_seconds,
        "training": trained_seconds,
        "all": fitting.rows.spent,
        "decoding": sum(split.decoding for split in splits),
    }
    split = "test" if "test" in metrics else "validation"
    picture = confusion_picture(metrics[split]["confusion"], plan.data.classes)
    events.writer.image(f"confusion matrix ({split})", picture, events.step)
    events.writer.scalars({f"{split}_accuracy": metrics[split]["accuracy"]}, events.step)
    _report(run, metrics, screen)
    run.write_metrics(metrics)
    shutil.rmtree(run.checkpoint)
    return metrics


def _report(run: Run, metrics: dict[str, Any] | None, screen: Screen) -> None:
    """Write report.html; `metrics` where metrics.json is not written yet.

    It comes before metrics.json, so that no complete run is without one: where the disk is full the run is not
    complete, and a resume does both.
    """
    with _not_at_any_price(screen, f"no report; `kerastk report {shlex.quote(str(run.path))}` tries again"):
        run.write_report(report.page(run, metrics))


@contextlib.contextmanager
def _not_at_any_price(screen: Screen, without: str) -> Iterator[None]:
    """A fault in what only tells about a run becomes a warning: it must not cost the run, now and at each resume."""
    try:
        yield
    except (Ended, Stopped, OSError):
        raise
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        screen.warn(f"{without} ({reason})")


def _activations(plan: Plan) -> Activations:
    """What keeps the frozen part's values: in the cache's folder, or in memory for this run."""
    recipe = plan.recipe
    limit = size_bytes(recipe.cache_size or CACHE_SIZE)
    return Activations(plan.model, tasks.of(recipe).identity(recipe), folder_of(recipe.cache), limit=limit)


def _measure(plan: Plan, model: keras.Model, fitting: Fitting, run: Run, screen: Screen) -> dict[str, Any]:
    """The figures of validation and test by the best model; the only reading of the test split."""
    recipe, data, best = plan.recipe, plan.data, fitting.best
    task = tasks.of(recipe)
    # Not an index: a phase that stopped early leaves a gap in the numbers.
    row = next(row for row in fitting.rows.rows if row["epoch"] == best.epoch)
    ended = {} if fitting.ended is None else {"ended": str(fitting.ended) or "by Ctrl-C"}
    neighbours = fitting.neighbours
    metrics: dict[str, Any] = {
        "format": 1,
        **ended,
        "best": {"epoch": row["epoch"], "phase": row["phase"], MONITOR: best.value, "temperature": best.temperature},
    }
    judged = {}
    for name, split in (("validation", data.val), ("test", data.test)):
        if split is not None:
            found = scores.of_rows(model, split, neighbours)
            judged[name] = split, found
            metrics[name] = task.measure(split.truth, found, data.classes)
            if recipe.head == "dense":
                metrics[name]["uncalibrated"] = before_calibration(split.truth, found, best.temperature)
    with _not_at_any_price(screen, "the mistakes are not kept for the report"):
        explained = None if neighbours is not None else model
        run.write_mistakes(mistakes.record(explained, judged, probabilities=recipe.head != "svm"))
    if data.test is not None:
        run.write_predictions(
            [
                {
                    "path": photo.path,
                    "truth": photo.label,
                    "prediction": data.classes[int(row.argmax())],
                    "probability": f"{row.max():.6f}",
                }
                for photo, row in zip(data.test.photos, judged["test"][1], strict=True)
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
    return {
        "versions": resuming.versions(),
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
