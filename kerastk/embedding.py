"""Items as vectors: the pooled features that a pretrained base finds in photos, or the codes of an autoencoder."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from kerastk import tasks
from kerastk.datasets.check import check
from kerastk.datasets.pipeline import Split
from kerastk.datasets.source import open_source
from kerastk.errors import DataError, RecipeError
from kerastk.recipe import Finetune
from kerastk.reconstructor import Reconstructor
from kerastk.screen import Screen
from kerastk.storage import atomic_path, atomic_writer, check_ending
from kerastk.tasks import frozen
from kerastk.tasks.photos import threads as default_threads
from kerastk.training.device import choose_device, choose_precision, set_precision

ENDINGS = (".parquet", ".npz")


@dataclass(frozen=True)
class Embedding:
    """Vectors of items: `paths` and `labels` (empty where an item has none), and `vectors` (items, features) float32.

    `unreadable` counts the files that could not be read and are left out.
    """

    paths: list[str]
    labels: list[str]
    vectors: np.ndarray
    unreadable: int

    def write(self, path: Path) -> None:
        """As .parquet (columns path, label, vector) or .npz (arrays path, label, vector). Raises RecipeError."""
        check_ending(path, ENDINGS)
        if path.suffix == ".npz":
            with atomic_writer(path, binary=True) as file:
                np.savez(file, path=np.array(self.paths), label=np.array(self.labels), vector=self.vectors)
            return
        import pyarrow
        import pyarrow.parquet

        vectors = pyarrow.FixedSizeListArray.from_arrays(self.vectors.ravel(), self.vectors.shape[1])
        # The name of a file or class need not be UTF-8; Arrow's strings must be.
        paths, labels = (
            [text.encode("utf-8", "surrogateescape").decode("utf-8", "replace") or None for text in texts]
            for texts in (self.paths, self.labels)
        )
        table = pyarrow.table({"path": paths, "label": pyarrow.array(labels, pyarrow.string()), "vector": vectors})
        with atomic_path(path) as temporary:
            pyarrow.parquet.write_table(table, temporary)


def embed(recipe: Finetune, *, data: Any = None, show: bool = False) -> Embedding:
    """The features that the recipe's base finds in its photos, from the activation cache where they are there.

    Only what says how photos become vectors is looked at: data, base, weights, image_size, resize, cache. The photos
    need no class folders.

    >>> kerastk.embed(kerastk.Finetune(data="photos/", base="resnet50")).vectors.shape
    (1840, 2048)

    Raises:
        DataError: there is no readable photo.
    """
    task, screen = tasks.of(recipe), Screen(show)
    recipe = task.settle(recipe)
    if data is None and recipe.data is None:
        raise RecipeError("no data given; name a folder, an archive, a table or tfds:NAME.")
    if data is not None and recipe.data is not None:
        raise RecipeError("data is given twice: in the recipe and beside it; leave one out.")
    source = open_source(recipe.data if data is None else data, labelled=False)
    device = choose_device(recipe.device)
    precision, _ = choose_precision(recipe.precision, device)
    keras.utils.set_random_seed(recipe.seed)
    with keras.device(device):
        model = task.build(recipe, source.classes)
        with screen.working(f"looking at {source.name}") as progress:
            look = check(source, threads=recipe.threads or default_threads(), progress=progress)
        if not look.photos:
            raise DataError(f"no readable photos in {source.name}; {len(look.bad)} cannot be read.")
        split = Split(
            look.photos, source.read, classes=source.classes, image_size=recipe.image_size, resize=recipe.resize,
            batch_size=recipe.batch_size, threads=recipe.threads or default_threads(),
        )  # fmt: skip
        set_precision(model, precision)
        settled = dataclasses.replace(recipe, precision=precision)
        with screen.working("features") as progress:
            vectors = frozen.vectors(settled, model, split, progress=progress, warn=screen.warn)
    photos = split.photos
    return Embedding([p.path for p in photos], [p.label for p in photos], vectors, len(look.bad))


def encode(reconstructor: Reconstructor, data: Any) -> Embedding:
    """The codes of all readable items of `data`, which is what such a run can learn from.

    Raises:
        DataError: no item can be read, or they are not what the network takes.
    """
    found = reconstructor.collected(data)
    codes = [reconstructor.encode(items) for items, _ in found.batches(reconstructor.batch_size)]
    return Embedding(found.paths, found.labels, np.concatenate(codes), found.unreadable)
