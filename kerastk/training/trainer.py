"""The one trainer: a recipe in, a run folder out; or a run folder in, gone on with."""

import dataclasses
import os
import platform
import shlex
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras

from kerastk import tasks
from kerastk.errors import DataError, KerastkError, RecipeError, RunError, Stopped
from kerastk.notation import PLATEAU_PATIENCE, profile_steps, schedule_numbers, seconds
from kerastk.recipe import Recipe, dump
from kerastk.run import Run
from kerastk.screen import Screen
from kerastk.training import resuming
from kerastk.training.callbacks import Averaged, Best, Deadline, EpochRows, Guard, Last, Plateau
from kerastk.training.checkpoint import Checkpoints
from kerastk.training.device import set_precision
from kerastk.training.finishing import finish, report
from kerastk.training.fitting import Fitting
from kerastk.training.gradients import GradientNorms
from kerastk.training.graph import graph_of
from kerastk.training.keeper import Keeper
from kerastk.training.lr_find import RangeTest
from kerastk.training.plan import Plan, plan
from kerastk.training.profiling import Profile
from kerastk.training.signals import Ended, Signals
from kerastk.training.tensorboard import Events, Writer, cut

OPTIMISATION = (
    "momentum", "nesterov", "weight_decay", "clipnorm", "accumulate", "ema", "precision", "layer_decay",
)  # fmt: skip


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
    return _begin(recipe, data, callbacks, Screen(show), run=run)


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


def find_learning_rate(recipe: Recipe, *, data: Any = None, show: bool = True) -> RangeTest:
    """The learning-rate range test (arXiv:1506.01186) of a recipe's main phase; no run is made, and no model changed.

    It trains for at most 100 batches while the rate grows from 1e-7 to 10; where the smoothed loss falls steepest is
    the suggestion. `recipe` and `data` are as in `train`; what frozen work it does is in the cache afterwards.

    Raises:
        KerastkError: as `train`; or the loss falls at no rate.

    >>> kerastk.find_learning_rate(kerastk.Finetune(data="photos/")).suggestion
    """
    if not isinstance(recipe, Recipe):
        raise RecipeError(
            f"find_learning_rate takes a recipe, such as kerastk.Finetune(data='photos/'); got {recipe!r}."
        )
    with tempfile.TemporaryDirectory() as folder:
        trial = dataclasses.replace(recipe, learning_rate="auto", runs=folder, name="trial")
        try:
            _begin(trial, data, (), Screen(show), found=_Found.say)
        except _Found as found:
            return found.result
    raise RecipeError("the recipe trains nothing by a learning rate.")


class _Found(Exception):
    """The end of a run that was for its range test alone."""

    def __init__(self, result: RangeTest):
        super().__init__("a range test is done")
        self.result = result

    @classmethod
    def say(cls, run: Run, result: RangeTest) -> None:
        """Raise it."""
        raise cls(result)


def _write_rate(run: Run, result: RangeTest) -> None:
    """The run's recipe with the learning rate that was found."""
    run.write_recipe(dataclasses.replace(run.recipe, learning_rate=result.suggestion))


def _begin(
    recipe: Recipe, data: Any, callbacks: Sequence[keras.callbacks.Callback], screen: Screen, *, run: Run | None = None,
    found: Callable[[Run, RangeTest], None] | None = None,
) -> Run:  # fmt: skip
    """A run from its start, in the folder of `run` or in a new one; `found` hears of a range test."""
    task, settled = tasks.of(recipe), plan(recipe, data=data, screen=screen, run=run)
    screen.plan(settled)
    _warn_of_stateless(callbacks, screen)
    if run is None:
        runs = Path(recipe.runs)
        run = Run.create(runs, recipe.name) if settled.stem is None else Run.create_next(runs, settled.stem)
    with run.lock(), keras.device(settled.device):
        resolved = dataclasses.replace(settled.recipe, name=run.path.name)
        run.write_recipe(resolved)
        run.write_data(settled.data.manifest.to_json())
        run.write_labels(settled.data.classes, task.contract(resolved, settled.data))
        task.keep(run, settled.data)
        run.write_environment({**_environment(settled), "given": resuming.given(recipe)})
        with resuming.mendable(run):
            return _execute(dataclasses.replace(settled, recipe=resolved), run, callbacks, screen, found=found)


def _go_on(
    run: Run, screen: Screen, data: Any, callbacks: Sequence[keras.callbacks.Callback], *,
    data_may_change: bool = False, versions_may_change: bool = False,
) -> Run:  # fmt: skip
    """See `resume`."""
    with run.lock(), resuming.mendable(run):
        if run.complete:
            if not run.report_html.exists():
                report(run, None, screen)
            screen.complete(run)
            shutil.rmtree(run.checkpoint)
            return run
        if not versions_may_change:
            resuming.refuse_versions(run)
        recipe = resuming.recipe_of(run, data)
        settled = plan(recipe, data=data if recipe.data is None else None, screen=screen, run=run)
        changes = resuming.changes(run, settled, allowed=data_may_change)
        if changes:
            screen.warn(f"the data has changed: {'; '.join(changes)}.")
            run.write_data(settled.data.manifest.to_json())
        state = resuming.last_state(run, settled, screen.warn)
        _warn_of_stateless(callbacks, screen)
        begun, now = run.environment, _environment(settled)
        resumed = {key: now[key] for key in ("versions", "command", "started")}
        run.write_environment({**begun, "resumed": [*begun.get("resumed", []), resumed]})
        screen.plan(settled)
        with keras.device(settled.device):
            return _execute(settled, run, callbacks, screen, state)


def _execute(
    plan: Plan, run: Run, callbacks: Sequence[keras.callbacks.Callback], screen: Screen,
    state: dict[str, Any] | None = None, found: Callable[[Run, RangeTest], None] | None = None,
) -> Run:  # fmt: skip
    """Train, measure, write; from a checkpoint's `state`, if there is one. The run's lock is held."""
    recipe, data, model = plan.recipe, plan.data, plan.model
    go_on = resuming.command(run)
    screen.started(run, state)
    _forget(run, state)
    writer = Writer(run.events)
    events = Events(writer, data.train.steps, histograms=recipe.histograms)
    task = tasks.of(recipe)
    validation = task.validation(recipe, model, data)
    best = Best(
        model, validation, recipe.patience, min_delta=recipe.min_delta or 0.0,
        start_from_epoch=recipe.start_from_epoch or 0,
    )  # fmt: skip
    rows = EpochRows([events.row, screen.epoch], plan.begun)
    deadline = None if recipe.time is None else Deadline(seconds(recipe.time), rows, validation)
    name, numbers = schedule_numbers(recipe.schedule or "cosine")
    numbers = {"factor": 0.3, "patience": PLATEAU_PATIENCE, **numbers}
    plateau = Plateau(**numbers, monitor=validation.monitor) if name == "plateau" else None
    averaged = None if recipe.ema is None else Averaged()
    guard = Guard(validation.monitor)
    last = Last(model, validation) if recipe.keep_last else None
    judging = [validation, guard, best] if last is None else [validation, guard, best, last]
    if averaged is not None:
        judging = [averaged, *judging, averaged.back]
    steering = [each for each in (deadline, plateau) if each is not None]
    watching = [*_watching(recipe, events, screen), *task.watching(plan, events)]
    rows.sinks.append(lambda row: run.write_log(rows.rows))

    def rewind(state: dict[str, Any]) -> None:
        writer.close()
        _forget(run, state)
        writer.open()

    try:
        if state is None:
            _write_beginning(plan, run, writer)
        with Signals(screen.warn) as signals:
            fitting = Fitting(
                model=model,
                data=data,
                device=plan.device,
                prepare=task.trained,
                objective=task.objective(recipe, data, model),
                optimisation={"name": recipe.optimizer, **{name: getattr(recipe, name, None) for name in OPTIMISATION}},
                penalty=(recipe.l1 or 0.0, recipe.l2 or 0.0),
                cache_required=getattr(recipe, "cache", "auto") != "auto",
                activations=task.activations(recipe, model),
                choices=plan.choices,
                best=best,
                rows=rows,
                validation=validation,
                screen=screen,
                guard=guard,
                found=lambda result: (found or _write_rate)(run, result),
                rewind=rewind if recipe.on_nan == "rollback" else None,
                last=last,
                deadline=deadline,
                plateau=plateau,
                keeper=Keeper(
                    Checkpoints(run.checkpoint),
                    signals,
                    model,
                    [*judging, *steering, events, *watching, rows, screen.batches(), *callbacks],
                    parts=recipe.epoch_parts or 1,
                    data=data.manifest.sha256,
                    nothing=task.nothing(data),
                    state=state,
                ),
                watched=task.stages_of(model) if recipe.gradient_norms else None,
            )
            set_precision(model, recipe.precision)
            fitting.run(plan.phases)
            metrics = finish(plan, fitting, run, events, screen)
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


def _watching(recipe: Recipe, events: Events, screen: Screen) -> list[keras.callbacks.Callback]:
    """The callbacks that a recipe asks for."""
    norms = [GradientNorms(events, screen.warn)] if recipe.gradient_norms else []
    return norms if recipe.profile is None else [*norms, Profile(*profile_steps(recipe.profile), events)]


def _write_beginning(plan: Plan, run: Run, writer: Writer) -> None:
    """What TensorBoard shows of a run before its first step."""
    task = tasks.of(plan.recipe)
    # The tab takes runs of one name for one, and folders may hold a run of the same name each.
    name = f"{run.path.name} {run.environment['started']}"
    writer.hyperparameters(name, dataclasses.asdict(plan.recipe), task.COLUMNS, task.COMPARED)
    # Indented: a block of code, whatever is in it.
    writer.text("recipe", "".join(f"    {line}\n" for line in dump(plan.recipe).splitlines()))
    writer.graph(graph_of(plan.model, task.stages_of(plan.model)))
    task.open_board(plan, writer)


def _forget(run: Run, state: dict[str, Any] | None) -> None:
    """Drop what TensorBoard's files and log.csv hold beyond a checkpoint; without one, all of it."""
    kept = {"Events": {"sizes": {}}, "EpochRows": {"rows": []}} if state is None else state["callbacks"]
    try:
        cut(run.events, kept["Events"]["sizes"])
        if run.log_csv.exists():
            run.write_log(kept["EpochRows"]["rows"])
    except (KeyError, TypeError, AttributeError) as error:
        raise RunError(f"the checkpoint of {run.path} does not fit: {type(error).__name__} {error}.") from None


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
