"""Classification from random weights: how a `Classify` recipe becomes data, network and phases."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras

from kerastk import shipped
from kerastk.datasets.array_data import Squares, only, open_array_data
from kerastk.datasets.arrays import Arrays, is_arrays, open_arrays
from kerastk.datasets.check import Look
from kerastk.datasets.photos import PhotoData, open_photos
from kerastk.datasets.source import Source, chosen, open_source
from kerastk.errors import DataError, RecipeError
from kerastk.networks import convnets
from kerastk.networks.bases import BASES
from kerastk.networks.classifier import classifier
from kerastk.networks.convnets import convnet, find_net, whiten
from kerastk.networks.cuts import named_stages
from kerastk.networks.members import Members
from kerastk.notation import split_fractions
from kerastk.recipe import DROPOUT, MAX_BAD, OF_CONVNETS, SMALL, SPLIT, Classify
from kerastk.run import Run
from kerastk.tasks import photo_model, photos
from kerastk.tasks.items import learned, shape_of
from kerastk.tasks.photos import ImageData
from kerastk.training import results
from kerastk.training.cache import Choice
from kerastk.training.phases import Phase, prepare

# What TensorBoard's table of runs has beside their figures.
COLUMNS, COMPARED = results.COLUMNS, ("net", "batch_size", "epochs", "learning_rate", "augment")
epoch_columns, open_board, conclude = photos.epoch_columns, photos.open_board, photos.conclude
objective, validation, measure, nothing = photos.objective, photos.validation, photos.measure, photos.nothing
keep, watching, contract, stages_of = photos.keep, photos.watching, photo_model.contract, named_stages

# Networks of `convnets` with dense layers below their head.
OF_MATRICES = ("lenet5", "alexnet", "alexnet-small", "vgg-small")
# Images that a whitening is computed from.
_WHITENED_ON = 5000


def settle(recipe: Classify) -> Classify:
    """The recipe with its network by its own name, where it has one. Raises RecipeError."""
    net = None if recipe.net is None else convnets.find_any(recipe.net)
    if recipe.optimizer == "muon" and not (net in OF_MATRICES or (net or "").startswith("convnext")):
        raise RecipeError(
            f"muon turns matrices alone, and of the networks {', '.join(OF_MATRICES)} and ConvNeXt have some below "
            f"their head; got net {net or 'automatic'}. Use adamw."
        )
    if net is None:
        return recipe
    if net in BASES:
        recipe.refuse(OF_CONVNETS, f"with {net}, which is as `kerastk bases` has it")
        if recipe.members > 1:
            raise RecipeError(f"members are of one of {', '.join(convnets.NAMES)}; got {net}.")
    return dataclasses.replace(recipe, net=net)


def source_of(recipe: Classify, data: Any = None) -> Source | Arrays:
    """The source of the recipe's data, or of `data` in its stead: arrays, or labelled files.

    Raises:
        RecipeError: there is no data, or twice; or an option that arrays do not use is given.
        DataError: there is no such data; or see `open_arrays` and `open_source`.
    """
    if data is None and recipe.data is None:
        raise RecipeError("no data given; name a folder of class folders, an archive, a table, arrays or tfds:NAME.")
    if data is not None and recipe.data is not None:
        raise RecipeError("data is given twice: in the recipe and beside it; leave one out.")
    given = shipped.data(recipe.data) if data is None else data
    if not is_arrays(given):
        return photos.narrowed(recipe, open_source(given))
    recipe.refuse(("threads", "max_bad"), "on arrays")
    arrays = open_arrays(given)
    if arrays.what != "images":
        raise DataError(
            f"{arrays.name} holds rows of {arrays.values.shape[1]:,} numbers, and classify takes images: (rows, "
            "height, width) or (rows, height, width, 1 or 3), uint8."
        )
    return arrays if recipe.classes is None else only(arrays, chosen(recipe.classes))


def stem(recipe: Classify, source: Source | Arrays) -> str:
    """What the automatic name of a run begins with."""
    return f"{source.name}-{recipe.net or 'classifier'}"


def gather(
    recipe: Classify, source: Source | Arrays, *, look: Callable, known: Run | None, dry: bool
) -> tuple[ImageData, keras.Model]:
    """The splits and the network."""
    with look(f"looking at {source.name}") as progress:
        data = open_data(recipe, source, progress, None if known is None else known.assigned)
    model = build(recipe, data)
    if not dry:
        whiten(model, learned(data, _WHITENED_ON))
    return data, model


def open_data(
    recipe: Classify, source: Source | Arrays, progress: Callable[[int, int], None] = lambda done, total: None,
    assigned: Mapping[str, str] | None = None,
) -> ImageData:  # fmt: skip
    """The splits of a recipe."""
    common = {
        "split": recipe.split,
        "fractions": split_fractions(recipe.split or SPLIT),
        "split_seed": recipe.split_seed,
        "strict": recipe.strict,
        "balanced": recipe.balance == "sample",
        "batch_size": recipe.batch_size,
        "seed": recipe.seed,
        "assigned": assigned,
    }
    if isinstance(source, Arrays):
        height, width, channels = source.values.shape[1:]
        size = _image_size(recipe, {(width, height)})
        # The networks of keras.applications take colours alone.
        channels = 3 if recipe.resolved_net(size) in BASES else channels
        return open_array_data(
            source, squares=Squares(size, channels, recipe.resize), augment=recipe.resolved_augment(size), **common
        )

    def image_size(look: Look) -> int:
        return _image_size(recipe, {(photo.width, photo.height) for photo in look.photos})

    return open_photos(
        source,
        max_bad=MAX_BAD if recipe.max_bad is None else recipe.max_bad,
        image_size=image_size,
        augment=recipe.resolved_augment,
        resize=recipe.resize,
        threads=recipe.threads or photos.threads(),
        progress=progress,
        **common,
    )


def _image_size(recipe: Classify, sizes: set[tuple[int, int]]) -> int:
    """The side of the square that images of these widths and heights become.

    Raises:
        RecipeError: it is too small for the network.
    """
    if recipe.image_size is not None:
        size = recipe.image_size
    elif len(sizes) == 1 and len(side := set(next(iter(sizes)))) == 1 and min(side) <= SMALL:
        (size,) = side
    else:
        net = recipe.resolved_net(None)
        size = BASES[net].image_size if net in BASES else find_net(net)[0].image_size
    net = recipe.resolved_net(size)
    smallest = BASES[net].smallest if net in BASES else find_net(net)[0].smallest
    if size < smallest:
        raise RecipeError(f"image_size must be at least {smallest} with {net}; got {size}. --image-size enlarges.")
    return size


def network(recipe: Classify, source: Source | Arrays) -> keras.Model:
    """The uncompiled network of a recipe, for the images of its data."""
    return build(recipe, open_data(recipe, source))


def build(recipe: Classify, data: ImageData) -> keras.Model:
    """The uncompiled classifier for data."""
    shape, classes = shape_of(data), len(data.classes)
    net = recipe.resolved_net(shape[0])
    dropout = _dropout(net) if recipe.dropout is None else recipe.dropout
    if net in BASES:
        return classifier(net, classes=classes, image_size=shape[0], dropout=dropout, weights=None)
    return convnet(
        net, shape, classes=classes, dropout=dropout, members=recipe.members,
        **{name: getattr(recipe, name) for name in OF_CONVNETS},
    )  # fmt: skip


def _dropout(net: str) -> float:
    return DROPOUT if net in BASES else 0.0


def resolve(recipe: Classify, model: keras.Model, data: ImageData, **found: Any) -> Classify:
    """The recipe with every automatic value filled in."""
    size = model.input.shape[1]
    net = recipe.resolved_net(size)
    return recipe.resolve(
        net=net, image_size=size, decoded=isinstance(data, PhotoData), threads=recipe.threads or photos.threads(),
        dropout=_dropout(net), split=data.manifest.split, split_seed=data.manifest.split_seed, **found,
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class MemberPhase(Phase):
    """A phase of a network of so many members."""

    members: int


def phases(recipe: Classify, model: keras.Model, data: ImageData) -> list[MemberPhase]:
    """The one phase of a resolved recipe."""
    return [MemberPhase(name="all", unfreeze="all", fresh=True, members=recipe.members, **photos.course(recipe))]


def trained(model: keras.Model, phase: MemberPhase, start: None = None) -> keras.Model:
    """What is fitted; see `phases.prepare`."""
    fitted = prepare(model, phase)
    return fitted if phase.members == 1 else Members(model, phase.members)


def cached(
    recipe: Classify, model: keras.Model, data: ImageData, phases: Sequence[Phase]
) -> tuple[Classify, dict[str, Choice]]:
    """Nothing is frozen, and nothing kept."""
    return recipe, {}


def activations(recipe: Classify, model: keras.Model) -> None:
    """There are none to keep."""


def described(recipe: Classify) -> str:
    """The network of a resolved recipe in a few words."""
    members = f"{recipe.members} members of " if recipe.members > 1 else ""
    return f"{members}{recipe.net}, {recipe.image_size} px, from random weights"


def notes(recipe: Classify, resolved: Classify, model: keras.Model, data: ImageData) -> list[str]:
    """What a user should know of how a recipe was resolved: nothing."""
    return []
