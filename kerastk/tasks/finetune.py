"""Fine-tuning: how a `Finetune` recipe becomes data, network, phases, objective and figures."""

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np

from kerastk.datasets.photos import PhotoData, open_photos
from kerastk.datasets.source import Source, open_source
from kerastk.errors import RecipeError, WeightsError
from kerastk.evaluation.metrics import classification
from kerastk.networks.bases import BASES, find
from kerastk.networks.classifier import classifier, with_new_head
from kerastk.networks.cuts import cut_for, features, stages
from kerastk.recipe import DROPOUT, MAX_BAD, SPLIT, Finetune, split_fractions
from kerastk.run import Run
from kerastk.training import probe
from kerastk.training.phases import Phase, Probe

DEFAULT_BASE = "mobilenet_v2"
# What the numbers beside the labels are.
SCORES = {
    "dense": "probabilities",
    "svm": "softmax of decision values: their order means something, they are no probabilities",
    "knn": "shares of the nearest neighbours' votes",
}


def settle_base(recipe: Finetune) -> Finetune:
    """The recipe with its base and image size filled in; refuses a base that does not fit the weights.

    Raises:
        RecipeError: no such base, or another than that of the run whose weights are taken.
    """
    base = find(recipe.base) if recipe.base is not None else None
    image_size = recipe.image_size
    earlier = _earlier_run(recipe)
    if earlier is not None:
        labels = earlier.labels
        theirs = labels.get("base")
        if base not in (None, theirs):
            raise RecipeError(f"base {base} does not fit the weights of {earlier.path}, which is a {theirs}.")
        if image_size not in (None, labels.get("image_size")):
            raise RecipeError(
                f"image_size must be that of {earlier.path}, {labels.get('image_size')}; got {image_size}."
            )
        base, image_size = theirs, labels.get("image_size")
        if base not in BASES:
            raise RecipeError(f"{earlier.path} is no run of finetune.")
    base = base or DEFAULT_BASE
    image_size = image_size or BASES[base].image_size
    if image_size < BASES[base].smallest:
        raise RecipeError(f"image_size must be at least {BASES[base].smallest} with {base}; got {image_size}.")
    return dataclasses.replace(recipe, base=base, image_size=image_size)


def open_data(
    recipe: Finetune, source: Source | Any, progress: Callable[[int, int], None] = lambda done, total: None
) -> PhotoData:
    """The splits of a recipe whose base is settled; `source` stands for `recipe.data`."""
    return open_photos(
        source,
        split=recipe.split,
        fractions=split_fractions(recipe.split or SPLIT),
        split_seed=recipe.split_seed,
        strict=recipe.strict,
        max_bad=MAX_BAD if recipe.max_bad is None else recipe.max_bad,
        image_size=recipe.image_size,
        resize=recipe.resize,
        augment=recipe.augment,
        batch_size=recipe.batch_size,
        threads=recipe.threads or threads(),
        seed=recipe.seed,
        progress=progress,
    )


def source_of(recipe: Finetune, data: Any = None) -> Source:
    """The source of the recipe's data, or of `data` (a list or a data frame) in its stead."""
    if data is None and recipe.data is None:
        raise RecipeError("no data given; name a folder of class folders, an archive, a table or tfds:NAME.")
    if data is not None and recipe.data is not None:
        raise RecipeError("data is given twice: in the recipe and beside it; leave one out.")
    return open_source(recipe.data if data is None else data)


def threads() -> int:
    """Threads that read and decode, where the recipe does not say."""
    return min(16, os.cpu_count() or 1)


def build(recipe: Finetune, classes: list[str], *, random: bool = False) -> keras.Model:
    """The uncompiled classifier; `random` leaves pretrained weights out (to count and name without a download)."""
    earlier = _earlier_run(recipe)
    dropout = DROPOUT if recipe.dropout is None else recipe.dropout
    if earlier is not None:
        same = earlier.labels["classes"] == classes
        model = with_new_head(load_model(earlier), classes=len(classes), dropout=dropout, keep_head=same)
    else:
        weights = None if random or recipe.weights == "none" else recipe.weights
        model = classifier(
            recipe.base, classes=len(classes), image_size=recipe.image_size, dropout=dropout, weights=weights
        )
    # Refuse stages that the base does not have before anybody looks at photos.
    cut_for(model, recipe.unfreeze or "all")
    return model


def load_model(run: Run) -> keras.Model:
    """The model of a run folder, in Keras's safe mode.

    Raises:
        WeightsError: the file is missing or damaged, or holds what safe mode refuses.
    """
    try:
        return keras.saving.load_model(run.model_keras, safe_mode=True, compile=False)
    except Exception as error:
        # Keras raises ValueError, TypeError, zipfile and h5py errors for files that are not whole models.
        reason = " ".join(str(error).split())[:200]
        raise WeightsError(f"cannot load {run.model_keras}: {reason}") from None


def resolve(recipe: Finetune, model: keras.Model, data: PhotoData, **found: Any) -> Finetune:
    """The recipe with every automatic value filled in; checks that the base has the stages that are asked for.

    Raises:
        RecipeError: the base has fewer stages, or a support vector machine would not fit into memory.
    """
    reason = too_large(model, data)
    if reason is not None and recipe.head == "svm":
        raise RecipeError(f"head svm: {reason}; use head dense, which is then trained in minibatches.")
    resolved = recipe.resolve(
        base=recipe.base, image_size=recipe.image_size, stages=len(stages(model)) + 1, split=data.manifest.split,
        split_seed=data.manifest.split_seed, threads=recipe.threads or threads(), solvable=reason is None, **found,
    )  # fmt: skip
    cut_for(model, resolved.unfreeze or "all")
    return resolved


def too_large(model: keras.Model, data: PhotoData) -> str | None:
    """Why the head cannot be solved at once; None where it can."""
    rows = len(data.train.photos) * (2 if data.train.policy.flips else 1)
    return probe.fits(rows, features(model).shape[-1], len(data.classes))


def phases(recipe: Finetune) -> list[Phase | Probe]:
    """The phases of a resolved recipe."""
    main = {"epochs": recipe.epochs, "learning_rate": recipe.learning_rate, "warmup_epochs": recipe.warmup_epochs}
    if recipe.weights == "none":
        return [Phase(name="all", unfreeze="all", fresh=True, **main)]
    found: list[Phase | Probe] = []
    if recipe.head != "dense":
        return [Probe(kind=recipe.head)]
    if recipe.probe == "solve":
        found.append(Probe(kind="logistic"))
    elif recipe.probe == "train":
        found.append(
            Phase(
                name="head",
                unfreeze="head",
                epochs=recipe.head_epochs,
                learning_rate=recipe.head_learning_rate,
                warmup_epochs=0,
            )
        )
    if recipe.unfreeze != "head":
        found.append(Phase(name="finetune", unfreeze=recipe.unfreeze, **main))
    return found


def identity(recipe: Finetune) -> dict[str, Any]:
    """What the activations of a resolved recipe depend on, beside photos, views and weights."""
    return {
        "base": recipe.base,
        "image_size": recipe.image_size,
        "resize": recipe.resize,
        "precision": recipe.precision,
    }


def objective(recipe: Finetune) -> dict[str, Any]:
    """What `compile` gets: the smoothed loss, and the unsmoothed cross-entropy that chooses the model."""
    if recipe.label_smoothing is None:
        return {}
    return {
        "loss": keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=recipe.label_smoothing),
        "metrics": [
            keras.metrics.CategoricalAccuracy(name="accuracy"),
            keras.metrics.CategoricalCrossentropy(name="cross_entropy", from_logits=True),
        ],
    }


def measure(truth: np.ndarray, scores: np.ndarray, classes: list[str]) -> dict[str, Any]:
    """The figures of a split from its true classes and the model's probabilities."""
    return classification(truth, scores, classes)


def contract(recipe: Finetune) -> dict[str, Any]:
    """What a predictor must know to feed the model and to read its answers; goes into labels.json."""
    return {
        "task": recipe.task,
        "base": recipe.base,
        "head": recipe.head,
        "scores": SCORES[recipe.head],
        "image_size": recipe.image_size,
        "resize": recipe.resize,
        "colour": "RGB",
        "dtype": "uint8",
    }


def _earlier_run(recipe: Finetune) -> Run | None:
    """The run that `weights` names, if it is a folder."""
    if recipe.weights in ("imagenet", "none"):
        return None
    path = Path(recipe.weights)
    if path.is_dir():
        return Run.open(path)
    if not path.exists():
        raise WeightsError(f"no weights at {recipe.weights!r}; give imagenet, none, a weights file or a run's folder.")
    return None
