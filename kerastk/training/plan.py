"""What a run will do, settled before anything is trained or written."""

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np

from kerastk import tasks
from kerastk.errors import RecipeError, RunError
from kerastk.notation import profile_steps
from kerastk.recipe import Recipe
from kerastk.run import Run, next_name
from kerastk.screen import Screen
from kerastk.training.cache import Choice
from kerastk.training.device import choose_device, choose_precision
from kerastk.training.phases import Phase, Probe
from kerastk.training.profiling import check_backend, check_steps


@dataclasses.dataclass(frozen=True)
class Plan:
    """All that is settled before anything is trained or written.

    `data` is what the task makes of the recipe's data: `train`, `val` and `test` (or None), each `pipeline.Rows`;
    `classes`, what an answer is one of, in output order; `manifest`, which says what is in which split.
    """

    recipe: Recipe
    data: Any
    model: keras.Model
    phases: list[Phase | Probe]
    choices: dict[str, Choice]
    device: str
    precision_reason: str
    trainable: dict[str, int]
    notes: list[str]
    # The network in a few words, and the columns of an epoch's line: the figure's name in the log, and the head.
    network: str
    columns: tuple[tuple[str, str], ...]
    # What an automatic name begins with; None where the user gave one.
    stem: str | None
    # For reading all data once, to check and to split it.
    looking_seconds: float
    # By `time.perf_counter`.
    begun: float

    @property
    def folder(self) -> Path:
        """Where the run will be."""
        return Path(self.recipe.runs) / self.recipe.name


def plan(recipe: Recipe, *, data: Any = None, screen: Screen, dry: bool = False, run: Run | None = None) -> Plan:
    """Settle everything: device, data, split, network, phases. Cheap refusals come before costly looks.

    With `dry` pretrained weights are not fetched. With a `run` the recipe is that run's, and photos that it knows stay
    in their splits.
    """
    begun, task = time.perf_counter(), tasks.of(recipe)
    recipe = task.settle(recipe)
    if run is None and recipe.name is not None and (Path(recipe.runs) / recipe.name).exists():
        raise RunError(f"the run {str(Path(recipe.runs) / recipe.name)!r} exists already; choose another --name.")
    if recipe.profile is not None:
        check_backend()
    device = choose_device(recipe.device)
    precision, reason = choose_precision(recipe.precision, device)
    source = task.source_of(recipe, data)
    keras.utils.set_random_seed(recipe.seed)
    if recipe.deterministic and keras.backend.backend() == "tensorflow":
        import tensorflow

        tensorflow.config.experimental.enable_op_determinism()
    with keras.device(device):
        looking = 0.0

        @contextlib.contextmanager
        def look(what: str) -> Iterator[Callable[[int, int], None]]:
            nonlocal looking
            begin = time.perf_counter()
            with screen.working(what) as progress:
                yield progress
            looking += time.perf_counter() - begin

        opened, model = task.gather(
            recipe, source, look=look, known=run if run is not None and run.begun else None, dry=dry
        )
        stem = None if recipe.name else task.stem(recipe, source)
        name = recipe.name or next_name(Path(recipe.runs), stem)
        resolved = task.resolve(recipe, model, opened, precision=precision, device=device, name=name)
        phases = task.phases(resolved, model, opened)
        trainable = {}
        for phase in phases:
            weights = task.trained(model, phase).trainable_weights
            trainable[phase.name] = sum(int(np.prod(weight.shape)) for weight in weights)
        resolved, choices = task.cached(resolved, model, opened, phases)
        if resolved.profile is not None:
            steps = sum(phase.epochs for phase in phases) * opened.train.steps
            check_steps(profile_steps(resolved.profile)[0], steps)
        notes = task.notes(recipe, resolved, model, opened)
        if (resolved.accumulate or 1) > 1:
            for phase in phases:
                notes += _left_over(phase, phase.epochs * opened.train.steps, resolved.accumulate)
    return Plan(
        resolved, opened, model, phases, choices, device, reason, trainable, notes, task.described(resolved),
        task.epoch_columns(resolved), stem, looking, begun,
    )  # fmt: skip


def _left_over(phase: Phase | Probe, batches: int, accumulate: int) -> list[str]:
    """What to say of the batches at a phase's end that are too few for a step.

    Raises:
        RecipeError: they are all that there are.
    """
    if 0 < batches < accumulate:
        raise RecipeError(
            f"accumulate {accumulate} would make no step in phase {phase.name}, which has {batches} batches; use at "
            f"most {batches}."
        )
    left = batches % accumulate
    if not left:
        return []
    return [f"the last {left} of the {batches} batches of phase {phase.name} make no step (accumulate {accumulate})"]
