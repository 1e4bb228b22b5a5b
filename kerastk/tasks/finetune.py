"""Fine-tuning: how a `Finetune` recipe becomes data, network, phases, objective and figures."""

import dataclasses
import os
from collections.abc import Callable, Mapping
from typing import Any

import keras

from kerastk.datasets.photos import PhotoData, open_photos
from kerastk.datasets.source import Source, open_source
from kerastk.errors import RecipeError, RunError, WeightsError
from kerastk.networks.autoencoder import encoder
from kerastk.networks.bases import BASES, find
from kerastk.networks.classifier import classifier, on_encoder, with_new_head
from kerastk.networks.cuts import cut_for, features, named_stages, stages
from kerastk.notation import split_fractions
from kerastk.recipe import DROPOUT, ENCODER, MAX_BAD, SPLIT, Finetune
from kerastk.run import Run
from kerastk.tasks import autoencoder_model, frozen, photo_model, photos
from kerastk.tasks.photo_model import NAMED, labels_of, load_model, shape_in
from kerastk.training import probe, results
from kerastk.training.phases import Phase, Probe, prepare

# What TensorBoard's table of runs has beside their figures.
COLUMNS, COMPARED = results.COLUMNS, ("base", "batch_size", "epochs", "learning_rate", "unfreeze")
epoch_columns, open_board, conclude = photos.epoch_columns, photos.open_board, photos.conclude
objective, validation, measure, nothing = photos.objective, photos.validation, photos.measure, photos.nothing
keep, watching = photos.keep, photos.watching
cached, activations, identity, contract = frozen.cached, frozen.activations, frozen.identity, photo_model.contract

DEFAULT_BASE = "mobilenet_v2"


def settle(recipe: Finetune) -> Finetune:
    """The recipe with its base and image size filled in; refuses a base that does not fit the weights.

    Raises:
        RecipeError: no such base, or another than that of the run whose weights are taken.
        RunError: the run of `init_from` is no autoencoder of photos.
    """
    if recipe.init_from is not None:
        return dataclasses.replace(recipe, base=ENCODER, image_size=_encoder_size(recipe))
    earlier = _earlier_run(recipe)
    if earlier is not None:
        labels = labels_of(earlier)
        theirs, size = labels[NAMED[labels["task"]]], labels["image_size"]
        if recipe.base not in (None, theirs) and (theirs not in BASES or find(recipe.base) != theirs):
            raise RecipeError(f"base {recipe.base} does not fit the weights of {earlier.path}, which is a {theirs}.")
        if recipe.image_size not in (None, size):
            raise RecipeError(f"image_size must be that of {earlier.path}, {size}; got {recipe.image_size}.")
        if shape_in(labels)[2] == 1:
            raise RecipeError(f"{earlier.path} learned grey images, and finetune shows photos in colour.")
        recipe = dataclasses.replace(recipe, base=theirs, image_size=size)
        if theirs not in BASES:
            return recipe
    base, image_size = recipe.base, recipe.image_size
    if base == ENCODER:
        raise RecipeError("an encoder comes from a run: give its folder as init_from (--init-from RUN).")
    base = find(base or DEFAULT_BASE)
    if recipe.optimizer == "muon" and not base.startswith("convnext"):
        raise RecipeError(
            f"muon turns matrices alone, and {base} has none below its head; of the bases ConvNeXt has. Use adamw."
        )
    image_size = image_size or BASES[base].image_size
    if image_size < BASES[base].smallest:
        raise RecipeError(f"image_size must be at least {BASES[base].smallest} with {base}; got {image_size}.")
    return dataclasses.replace(recipe, base=base, image_size=image_size)


def open_data(
    recipe: Finetune, source: Source | Any, progress: Callable[[int, int], None] = lambda done, total: None,
    assigned: Mapping[str, str] | None = None,
) -> PhotoData:  # fmt: skip
    """The splits of a recipe whose base is settled; `source` stands for `recipe.data`.

    `assigned` names the splits of photos that have one already, by SHA-256.
    """
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
        balanced=recipe.balance == "sample",
        batch_size=recipe.batch_size,
        threads=recipe.threads or photos.threads(),
        seed=recipe.seed,
        assigned=assigned,
        progress=progress,
    )


def _encoder_size(recipe: Finetune) -> int:
    """The image size of the autoencoder that the recipe starts from.

    Raises:
        RecipeError: the recipe says another one.
        RunError: the run is no autoencoder of photos.
    """
    labels = autoencoder_model.labels_of(Run.open(recipe.init_from))
    size = labels.get("image_size")
    if size is None:
        raise RunError(f"{recipe.init_from} has no encoder of photos: it was trained on {labels['items']} of an array.")
    if recipe.image_size not in (None, size):
        raise RecipeError(f"image_size must be that of {recipe.init_from}, {size}; got {recipe.image_size}.")
    return size


def source_of(recipe: Finetune, data: Any = None) -> Source:
    """The source of the recipe's data, or of `data` (a list or a data frame) in its stead."""
    if data is None and recipe.data is None:
        raise RecipeError("no data given; name a folder of class folders, an archive, a table or tfds:NAME.")
    if data is not None and recipe.data is not None:
        raise RecipeError("data is given twice: in the recipe and beside it; leave one out.")
    return photos.narrowed(recipe, open_source(recipe.data if data is None else data))


def stem(recipe: Finetune, source: Source) -> str:
    """What the automatic name of a run begins with."""
    return f"{source.name}-{recipe.base}"


def gather(
    recipe: Finetune, source: Source, *, look: Callable, known: Run | None, dry: bool
) -> tuple[PhotoData, keras.Model]:
    """The splits and the network. Weights that cannot be had should not cost a user a look at all photos first."""
    model = build(recipe, source.classes, random=dry)
    with look(f"looking at {source.name}") as progress:
        return open_data(recipe, source, progress, None if known is None else known.assigned), model


def network(recipe: Finetune, source: Source) -> keras.Model:
    """The uncompiled network of a recipe whose base is settled."""
    return build(recipe, source.classes)


def build(recipe: Finetune, classes: list[str], *, random: bool = False) -> keras.Model:
    """The uncompiled classifier; `random` leaves pretrained weights out (to count and name without a download)."""
    earlier = _earlier_run(recipe)
    dropout = DROPOUT if recipe.dropout is None else recipe.dropout
    if recipe.init_from is not None:
        encoded = encoder(autoencoder_model.load_model(Run.open(recipe.init_from)))
        model = on_encoder(encoded, classes=len(classes), dropout=dropout)
    elif earlier is not None:
        same = labels_of(earlier)["classes"] == classes
        model = with_new_head(load_model(earlier), classes=len(classes), dropout=dropout, keep_head=same)
    else:
        weights = None if random or recipe.weights == "none" else recipe.weights
        model = classifier(
            recipe.base, classes=len(classes), image_size=recipe.image_size, dropout=dropout, weights=weights
        )
    # Refuse stages that the base does not have before anybody looks at photos.
    cut_for(model, recipe.unfreeze or "all")
    return model


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
        split_seed=data.manifest.split_seed, threads=recipe.threads or photos.threads(), solvable=reason is None,
        **found,
    )  # fmt: skip
    cut_for(model, resolved.unfreeze or "all")
    return resolved


def too_large(model: keras.Model, data: PhotoData) -> str | None:
    """Why the head cannot be solved at once; None where it can."""
    rows = len(data.train.photos) * (2 if data.train.policy.flips else 1)
    return probe.fits(rows, features(model).shape[-1], len(data.classes))


def phases(recipe: Finetune, model: keras.Model, data: PhotoData) -> list[Phase | Probe]:
    """The phases of a resolved recipe."""
    curve, main = photos.curve(recipe), photos.course(recipe)
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
                **curve,
            )
        )
    if recipe.unfreeze != "head":
        manifold_mixup = recipe.manifold_mixup or 0.0
        found.append(Phase(name="finetune", unfreeze=recipe.unfreeze, manifold_mixup=manifold_mixup, **main))
    return found


def trained(model: keras.Model, phase: Phase | Probe, start: keras.KerasTensor | None = None) -> keras.Model:
    """What a phase fits; see `phases.prepare`."""
    return prepare(model, phase, start)


def described(recipe: Finetune) -> str:
    """The network of a resolved recipe in a few words."""
    if recipe.init_from is not None:
        return f"the encoder of {recipe.init_from}, {recipe.image_size} px"
    return f"{recipe.base}, {recipe.image_size} px, weights {recipe.weights}"


def stages_of(model: keras.Model) -> dict[str, list[str]]:
    """The names of the model's operations, by the stages that `unfreeze` counts."""
    return named_stages(model)


def notes(recipe: Finetune, resolved: Finetune, model: keras.Model, data: PhotoData) -> list[str]:
    """What a user should know of how a recipe was resolved."""
    if resolved.probe == "train" and recipe.probe != "train":
        return [f"the head is trained in minibatches, not solved: {too_large(model, data)}"]
    return []


def _earlier_run(recipe: Finetune) -> Run | None:
    """The run that `weights` names, if it is a folder."""
    if recipe.weights in ("imagenet", "none"):
        return None
    # Not Path.exists, which raises where the name is too long for any file.
    if os.path.isdir(recipe.weights):
        return Run.open(recipe.weights)
    if not os.path.exists(recipe.weights):
        raise WeightsError(f"no weights at {recipe.weights!r}; give imagenet, none, a weights file or a run's folder.")
    return None
