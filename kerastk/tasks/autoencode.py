"""Autoencoders: how an `Autoencode` recipe becomes data, network, phases, objective and figures."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from kerastk import shipped
from kerastk.datasets import damage
from kerastk.datasets.array_data import Squares, open_array_data
from kerastk.datasets.arrays import Arrays, is_arrays, open_arrays
from kerastk.datasets.check import Look
from kerastk.datasets.photos import PhotoData, open_photos
from kerastk.datasets.pipeline import Vary
from kerastk.datasets.source import Source, open_source
from kerastk.errors import DataError, RecipeError
from kerastk.networks import weights
from kerastk.networks.autoencoder import Standard, autoencoder, dense_pairs, parts
from kerastk.networks.bases import BASES, find
from kerastk.networks.rbm import RBM, unroll
from kerastk.notation import layer_widths, noise_numbers, schedule_numbers, sparsity_numbers, split_fractions
from kerastk.recipe import AUTOENCODE_SPLIT, IMAGE_SIZE, MAX_BAD, Autoencode
from kerastk.run import Run
from kerastk.tasks import autoencoder_model, reconstructions
from kerastk.tasks.items import Data, shape_of, standard_of
from kerastk.tasks.photos import threads
from kerastk.training.cache import Choice
from kerastk.training.callbacks import Validation
from kerastk.training.phases import Phase, release
from kerastk.training.plan import Plan
from kerastk.training.reconstruction import Objective, Reconstructing, ReconstructionValidation, compiled
from kerastk.training.tensorboard import Events

COLUMNS = {
    "final/test_error": "error (test)",
    "final/test_pca": "error of PCA (test)",
    "final/validation_error": "error (validation)",
    "final/seconds": "seconds of training",
}
COMPARED = ("kind", "latent", "batch_size", "epochs", "learning_rate")

contract, conclude, open_board = autoencoder_model.contract, reconstructions.conclude, reconstructions.open_board

# Columns of what a network answers with, at most: see `reconstruction.Objective`.
_MOST_COLUMNS = 8


def settle(recipe: Autoencode) -> Autoencode:
    """The recipe with the pretrained network of its second score by its own name. Raises RecipeError."""
    return recipe if recipe.features is None else dataclasses.replace(recipe, features=find(recipe.features))


def source_of(recipe: Autoencode, data: Any = None) -> Source | Arrays:
    """The source of the recipe's data, or of `data` in its stead: arrays, or files that need no classes.

    Raises:
        RecipeError: there is no data, or twice; or an option that arrays do not use is given.
        DataError: no data of that name ships; or see `open_arrays` and `open_source`.
    """
    if data is None and recipe.data is None:
        raise RecipeError("no data given; name a folder or archive of photos, a table, tfds:NAME, or arrays.")
    if data is not None and recipe.data is not None:
        raise RecipeError("data is given twice: in the recipe and beside it; leave one out.")
    given = shipped.data(recipe.data) if data is None else data
    if is_arrays(given):
        recipe.refuse(
            ("image_size", "resize", "threads", "max_bad", "features"), "on arrays, which are taken as they are"
        )
        arrays = open_arrays(given, label_column=recipe.label_column)
        if arrays.what == "vectors":
            recipe.refuse(("augment",), "on rows of numbers")
        elif recipe.augment is not None and arrays.values.shape[1] != arrays.values.shape[2]:
            raise RecipeError(f"augment takes squares, and the images of {arrays.name} are none; leave it out.")
        return arrays
    recipe.refuse(("label_column",), "on photos")
    return open_source(given, labelled=recipe.normal is not None)


def stem(recipe: Autoencode, source: Source | Arrays) -> str:
    """What the automatic name of a run begins with."""
    return f"{source.name}-{'variational' if recipe.variational else 'autoencoder'}"


def gather(
    recipe: Autoencode, source: Source | Arrays, *, look: Callable, known: Run | None, dry: bool
) -> tuple[Data, keras.Model]:
    """The splits and the network. Weights that cannot be had should not cost a user a training first."""
    if recipe.features is not None and not dry:
        weights.imagenet(BASES[recipe.features])
    with look(f"looking at {source.name}") as progress:
        data = open_data(recipe, source, progress, None if known is None else known.assigned)
    return data, build(recipe, data)


def open_data(
    recipe: Autoencode, source: Source | Arrays, progress: Callable[[int, int], None] = lambda done, total: None,
    assigned: Mapping[str, str] | None = None,
) -> Data:  # fmt: skip
    """The splits of a recipe.

    Raises:
        DataError: see `open_photos` and `open_array_data`; or photos of different sizes come without a rule.
    """
    common = {
        "split": recipe.split,
        "fractions": split_fractions(recipe.split or AUTOENCODE_SPLIT),
        "split_seed": recipe.split_seed,
        "strict": recipe.strict,
        "batch_size": recipe.batch_size,
        "seed": recipe.seed,
        "labelled": False,
        "normal": recipe.normal_classes,
        "assigned": assigned,
    }
    if isinstance(source, Arrays):
        if recipe.augment is None:
            return open_array_data(source, **common)
        squares = Squares(source.values.shape[1], source.values.shape[3])
        return open_array_data(source, squares=squares, augment=recipe.augment, **common)
    return open_photos(
        source,
        max_bad=MAX_BAD if recipe.max_bad is None else recipe.max_bad,
        image_size=lambda look: _image_size(recipe, look),
        resize=recipe.resize or "crop",
        augment=recipe.augment or "none",
        threads=recipe.threads or threads(),
        progress=progress,
        **common,
    )


def _image_size(recipe: Autoencode, look: Look) -> int:
    """The side of the square that photos become.

    Raises:
        DataError: they have different sizes, or are no squares, and the recipe does not say how they become such.
    """
    sizes = sorted({(photo.width, photo.height) for photo in look.photos})
    if recipe.resize is None and (len(sizes) > 1 or sizes[0][0] != sizes[0][1]):
        (low, lower), (high, higher) = sizes[0], sizes[-1]
        what = f"photos of {len(sizes):,} sizes, such as {low} x {lower} and {high} x {higher}" if len(sizes) > 1 else (
            f"photos of {low} x {lower} pixels")  # fmt: skip
        raise DataError(
            f"{what}: an autoencoder compares pixel by pixel, so say how a photo becomes a square: --resize crop, pad "
            f"or stretch (and --image-size, {IMAGE_SIZE} unless you say otherwise)."
        )
    side = sizes[0][0] if len(sizes) == 1 and sizes[0][0] == sizes[0][1] else IMAGE_SIZE
    return recipe.image_size or min(side, IMAGE_SIZE)


def network(recipe: Autoencode, source: Source | Arrays) -> keras.Model:
    """The uncompiled network of a recipe, for the items of its data."""
    return build(recipe, open_data(recipe, source))


def build(recipe: Autoencode, data: Data) -> keras.Model:
    """The uncompiled autoencoder for data.

    Raises:
        RecipeError: convolutions of rows, a code that is no smaller than its items, images that are too small.
        DataError: there are fewer training items than numbers of a code.
    """
    shape = shape_of(data)
    kind, latent = recipe.resolved_kind(shape), recipe.resolved_latent(shape)
    widths, values, items = layer_widths(recipe.resolved_widths(shape)), int(np.prod(shape)), len(data.train.photos)
    if len(shape) == 1:
        for name, given in (("kind", "conv" if kind == "conv" else None), ("upsample", recipe.upsample),
                            ("masked", recipe.masked), ("binarise", recipe.binarise or None),
                            ("loss", recipe.loss if recipe.loss in ("bce", "ssim") else None)):  # fmt: skip
            if given is not None:
                raise RecipeError(f"{name} {given if name != 'binarise' else ''}".strip() + " is for images, and the "
                                  f"data has rows of {values} numbers; leave it out.")  # fmt: skip
        constant = np.flatnonzero(data.values.min(axis=0) == data.values.max(axis=0))
        if len(constant):
            name = data.columns[constant[0]] if data.columns else f"column {constant[0]}"
            raise DataError(f"{name} is the same in all rows: it says nothing. Leave it out.")
    overcomplete = recipe.sparsity or recipe.contraction or recipe.noise or recipe.masked
    if latent >= values and not overcomplete:
        raise RecipeError(
            f"latent {latent} is no smaller than the {values} values of an item, so there would be nothing to learn; "
            f"use at most {values - 1}, or noise, sparsity or contraction."
        )
    if items < latent:
        raise DataError(
            f"{items} training items are fewer than the {latent} numbers of a code; use --latent {max(1, items // 2)} "
            "or less, or more items."
        )
    if kind == "conv" and min(shape[:2]) < 2 ** len(widths):
        raise RecipeError(
            f"widths {recipe.resolved_widths(shape)} halve an image {len(widths)} times; {shape[0]} x {shape[1]} "
            f"pixels bear at most {int(np.log2(min(shape[:2])))}."
        )
    if recipe.patch is not None and recipe.patch > min(shape[:2]) // 2:
        raise RecipeError(f"patch must be at most half of an image, {min(shape[:2]) // 2}; got {recipe.patch}.")
    return autoencoder(
        shape,
        kind=kind,
        widths=widths,
        latent=latent,
        activation=recipe.resolved_activation,
        start="normal" if recipe.pretrain == "rbm" else "he",
        upsample=(recipe.upsample or "resize") if kind == "conv" else None,
        sigmoid_code=recipe.sparsity is not None and recipe.sparsity.startswith("kl"),
        variational=recipe.variational,
        standard=standard_of(data),
    )


def resolve(recipe: Autoencode, model: keras.Model, data: Data, **found: Any) -> Autoencode:
    """The recipe with every automatic value filled in."""
    return recipe.resolve(
        steps=data.train.steps, shape=shape_of(data), decoded=isinstance(data, PhotoData),
        threads=recipe.threads or threads(), split=data.manifest.split, split_seed=data.manifest.split_seed, **found,
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class CodePhase(Phase):
    """A phase of an autoencoder: all of it for an objective, or a `machine`, the pair of layers of this number."""

    objective: Objective
    machine: int | None = None


def objective_of(recipe: Autoencode) -> Objective:
    """What a resolved recipe trains for."""
    return Objective(
        loss=recipe.loss,
        sparsity=None if recipe.sparsity is None else sparsity_numbers(recipe.sparsity),
        contraction=recipe.contraction,
        beta=recipe.beta,
        free_bits=recipe.free_bits or 0.0,
    )


def vary_of(recipe: Autoencode, shape: tuple[int, ...], standard: Standard | None) -> Vary:
    """What is done to each batch of items of a resolved recipe."""
    spread = None if standard is None else np.stack([standard.deviation, standard.mean]).astype(np.float32)
    hurt = draws = None
    if recipe.noise is not None:
        hurt = damage.noisy(*noise_numbers(recipe.noise), spread)
    elif recipe.masked is not None:
        hurt = damage.patched(recipe.masked, recipe.patch)
    elif recipe.binarise:
        hurt = damage.binarised
    if recipe.variational:
        draws = damage.normal_draws(recipe.latent)
    elif recipe.contraction is not None:
        draws = damage.normal_draws(*shape)
    return damage.reconstructing(hurt, draws)


def phases(recipe: Autoencode, model: keras.Model, data: Data) -> list[Phase]:
    """The phases of a resolved recipe: the machines, if there are any, then all of the network."""
    name, numbers = schedule_numbers(recipe.schedule)
    objective = objective_of(recipe)
    rate = None if recipe.learning_rate == "auto" else recipe.learning_rate
    whole = CodePhase(
        name="train", unfreeze="all", epochs=recipe.epochs, learning_rate=rate, warmup_epochs=recipe.warmup_epochs,
        schedule=name, numbers=numbers, objective=objective,
        vary=vary_of(recipe, shape_of(data), standard_of(data)),
    )  # fmt: skip
    if recipe.pretrain is None:
        return [whole]
    pairs = dense_pairs(model)
    return [*(_machine_phase(recipe, model, number, objective) for number in range(len(pairs))), whole]


def _machine_phase(recipe: Autoencode, model: keras.Model, number: int, objective: Objective) -> CodePhase:
    pairs = dense_pairs(model)
    visible, hidden = _units(model, number)
    size = (recipe.rbm_steps, pairs[number][0].units)
    draws = damage.normal_draws(*size) if hidden == "gaussian" else damage.uniform_draws(*size)
    real = "gaussian" in (visible, hidden)
    return CodePhase(
        name=f"rbm-{number + 1}", unfreeze="rbm", epochs=recipe.rbm_epochs,
        warmup_epochs=min(1, recipe.rbm_epochs / 10),
        learning_rate=recipe.rbm_learning_rate * (0.01 if real else 1), schedule="constant", objective=objective,
        machine=number, vary=damage.reconstructing(draws=draws),
        optimisation={
            "name": "sgd", "momentum": recipe.rbm_momentum, "nesterov": None, "weight_decay": recipe.rbm_weight_decay,
            "clipnorm": 0.0,
        },
        closing=lambda trained: unroll(*dense_pairs(trained)[number]),
    )  # fmt: skip


def _units(model: keras.Model, number: int) -> tuple[str, str]:
    """The kinds of the visible and the hidden units of a machine: real numbers at the ends, on or off in between."""
    pairs = dense_pairs(model)
    is_rows = len(model.input.shape) == 2
    return ("gaussian" if number == 0 and is_rows else "binary",
            "gaussian" if number == len(pairs) - 1 else "binary")  # fmt: skip


def trained(model: keras.Model, phase: CodePhase, start: None = None) -> keras.Model:
    """What is fitted: a network that answers with its loss."""
    release(model)
    if phase.machine is None:
        return Reconstructing(model, phase.objective)
    pairs = dense_pairs(model)
    up, down = pairs[phase.machine]
    below = keras.Model(model.input, up.input)
    visible, hidden = _units(model, phase.machine)
    return RBM(below, up, down, visible=visible, hidden=hidden, columns=len(phase.objective.columns))


def cached(
    recipe: Autoencode, model: keras.Model, data: Data, phases: Sequence[Phase]
) -> tuple[Autoencode, dict[str, Choice]]:
    """Nothing is frozen, and nothing kept."""
    return recipe, {}


def activations(recipe: Autoencode, model: keras.Model) -> None:
    """There are none to keep."""


def described(recipe: Autoencode) -> str:
    """The network of a resolved recipe in a few words."""
    sorts = [
        name
        for name, given in (
            ("variational", recipe.variational), (f"denoising ({recipe.noise})", recipe.noise),
            (f"{100 * (recipe.masked or 0):g} % of the patches masked", recipe.masked),
            (f"sparse ({recipe.sparsity})", recipe.sparsity), ("contractive", recipe.contraction),
        )
        if given
    ]  # fmt: skip
    layers = f"{recipe.kind} autoencoder, {recipe.widths.replace(',', '-')}-{recipe.latent}, {recipe.activation}"
    enlarging = f", upsample {recipe.upsample}" if recipe.upsample else ""
    return f"{', '.join([*sorts, ''])}{layers}{enlarging}, {recipe.loss}"


def epoch_columns(recipe: Autoencode) -> tuple[tuple[str, str], ...]:
    """What an epoch's line shows of its row: names and heads."""
    apart = (("val_nats", "val nats"), ("val_kl", "val KL")) if recipe.variational else ()
    return (("loss", "loss"), ("error", "error"), ("val_loss", "val loss"), ("val_error", "val error"), *apart)


def stages_of(model: keras.Model) -> dict[str, list[str]]:
    """The names of the model's operations by part: the encoder's layers, the code, the decoder's."""
    return parts(model)


def notes(recipe: Autoencode, resolved: Autoencode, model: keras.Model, data: Data) -> list[str]:
    """What a user should know of how a recipe was resolved."""
    from kerastk.evaluation.reconstruction import least_false_alarms

    least = least_false_alarms(len(data.val.photos))
    if least <= recipe.false_alarms:
        return []
    return [
        f"{len(data.val.photos)} validation items are too few for a threshold at {100 * recipe.false_alarms:g} % false "
        f"alarms; it will be that of {100 * least:.2g} %"
    ]


def validation(recipe: Autoencode, model: keras.Model, data: Data) -> Validation:
    """What judges the model after each epoch."""
    return ReconstructionValidation(objective_of(recipe).columns, recipe.seed)


def nothing(data: Data) -> tuple[np.ndarray, np.ndarray]:
    """A label and an answer of no meaning, for a batch of one item."""
    return np.zeros(1, np.float32), np.zeros((1, _MOST_COLUMNS), np.float32)


def objective(recipe: Autoencode, data: Data, model: keras.Model) -> dict[str, Any]:
    """What `compile` gets: the network's own loss, and the rest of what it answers with as metrics."""
    return compiled(objective_of(recipe).columns)


def watching(plan: Plan, events: Events) -> list[keras.callbacks.Callback]:
    """What shows TensorBoard reconstructions after each epoch."""
    return reconstructions.watching(plan, events)


def keep(run: Run, data: Data) -> None:
    """Write what only this task's runs have: nothing."""
