"""What is kept of the frozen work of a `Finetune` recipe, and where."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np

from kerastk.datasets.photos import PhotoData
from kerastk.datasets.pipeline import Split
from kerastk.networks.cuts import features
from kerastk.notation import size_bytes
from kerastk.recipe import CACHE_SIZE, Finetune
from kerastk.training.cache import PLAIN, Activations, CacheError, Choice, Point, choose
from kerastk.training.phases import Phase, Probe
from kerastk.training.store import folder_of


def cached(
    recipe: Finetune, model: keras.Model, data: PhotoData, phases: Sequence[Phase | Probe]
) -> tuple[Finetune, dict[str, Choice]]:
    """Where each trained phase keeps what its frozen part makes of the photos; the recipe with what is used of it.

    Raises:
        CacheError: a folder was named for it, and it cannot be kept there.
    """
    if recipe.weights == "none":
        return recipe, {}
    choices = {phase.name: _choice(recipe, model, data, phase) for phase in phases if isinstance(phase, Phase)}
    return _with_cache(recipe, list(choices.values())), choices


def activations(recipe: Finetune, model: keras.Model) -> Activations:
    """What keeps the frozen part's values: in the cache's folder, or in memory for this run."""
    limit = size_bytes(recipe.cache_size or CACHE_SIZE)
    return Activations(model, identity(recipe), folder_of(recipe.cache), limit=limit)


def vectors(
    recipe: Finetune, model: keras.Model, split: Split, *, progress: Callable[[int, int], None],
    warn: Callable[[str], None],
) -> np.ndarray:  # fmt: skip
    """The pooled features of a split's photos, (photos, features) float32, from the cache where they are there.

    `model` has weights and precision of the recipe, all of whose values are settled.

    Raises:
        CacheError: a folder was named for them, and they cannot be kept there.
    """
    kept, point = activations(recipe, model), Point("features", features(model), "float32")
    try:
        return kept.features(split, [PLAIN], point, progress)
    except CacheError as error:
        if recipe.cache != "auto":
            raise
        warn(f"{error}; going on without it.")
        kept.discard()
        kept = kept.in_memory()
        return kept.features(split, [PLAIN], point, progress)
    finally:
        kept.close()


def identity(recipe: Finetune) -> dict[str, Any]:
    """What the activations of a resolved recipe depend on, beside photos, views and weights."""
    return {
        "base": recipe.base,
        "image_size": recipe.image_size,
        "resize": recipe.resize,
        "precision": recipe.precision,
    }


def _choice(recipe: Finetune, model: keras.Model, data: PhotoData, phase: Phase) -> Choice:
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


def _with_cache(recipe: Finetune, choices: Sequence[Choice]) -> Finetune:
    """The recipe with what is used of the cache filled in, and the rest left out."""
    if recipe.cache == "off":
        return recipe
    kept = [choice for choice in choices if choice.point is not None]
    return dataclasses.replace(
        recipe,
        cache_size=recipe.cache_size or CACHE_SIZE,
        cache_dtype=kept[0].point.dtype if kept else None,
        views=max((choice.views for choice in kept), default=None),
    )
