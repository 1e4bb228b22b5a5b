"""What a run will do, settled before anything is trained or written."""

import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from kerastk import tasks
from kerastk.datasets.photos import PhotoData
from kerastk.datasets.source import Source
from kerastk.errors import RecipeError, RunError
from kerastk.notation import profile_steps, size_bytes
from kerastk.recipe import CACHE_SIZE, Recipe
from kerastk.run import Run, next_name
from kerastk.screen import Screen
from kerastk.training.cache import CacheError, Choice, choose
from kerastk.training.device import choose_device, choose_precision
from kerastk.training.phases import Phase, Probe, prepare
from kerastk.training.profiling import check_backend, check_steps
from kerastk.training.store import folder_of


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
    # For reading every photo once, to check and to split them.
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
    recipe = task.settle_base(recipe)
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
        # Before the photos are looked at: weights that cannot be had should not cost a user that time.
        model = task.build(recipe, source.classes, random=dry)
        begin = time.perf_counter()
        with screen.working(f"looking at {source.name}") as progress:
            opened = task.open_data(recipe, source, progress, _assigned(run))
        looking = time.perf_counter() - begin
        stem = None if recipe.name else stem_of(source, recipe)
        name = recipe.name or next_name(Path(recipe.runs), stem)
        resolved = task.resolve(recipe, model, opened, precision=precision, device=device, name=name)
        phases = task.phases(resolved)
        trainable = {}
        for phase in phases:
            weights = prepare(model, phase).trainable_weights
            trainable[phase.name] = sum(int(np.prod(weight.shape)) for weight in weights)
        choices = {phase.name: _choice(resolved, model, opened, phase) for phase in phases if isinstance(phase, Phase)}
        resolved = _with_cache(resolved, list(choices.values()))
        if resolved.profile is not None:
            steps = sum(phase.epochs for phase in phases) * opened.train.steps
            check_steps(profile_steps(resolved.profile)[0], steps)
        notes = []
        if resolved.probe == "train" and recipe.probe != "train":
            notes.append(f"the head is trained in minibatches, not solved: {task.too_large(model, opened)}")
        if (resolved.accumulate or 1) > 1:
            for phase in phases:
                notes += _left_over(phase, phase.epochs * opened.train.steps, resolved.accumulate)
    return Plan(
        resolved, opened, model, phases, choices, device, reason, trainable, notes, stem, looking, begun
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


def _choice(recipe: Recipe, model: keras.Model, data: PhotoData, phase: Phase) -> Choice:
    """Where a phase's activations are kept.

    Raises:
        CacheError: a folder was named for them, and they cannot be kept there.
    """
    if recipe.cache == "off":
        return Choice(None, reason="as asked")
    if phase.blends:
        return Choice(None, reason="the photos of a batch are mixed anew each time (mixup, cutmix)")
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


def stem_of(source: Source, recipe: Recipe) -> str:
    """What an automatic name begins with."""
    return f"{source.name}-{recipe.base}"


def _assigned(run: Run | None) -> dict[str, str]:
    """The split of each photo that a run knows, by SHA-256."""
    if run is None or not run.begun:
        return {}
    return {photo["sha256"]: photo["split"] for photo in run.data["files"]}
