"""Photos as vectors: the pooled features of a pretrained base, without training."""

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
from kerastk.networks.classifier import features
from kerastk.notation import size_bytes
from kerastk.recipe import CACHE_SIZE, Finetune
from kerastk.screen import Screen
from kerastk.storage import atomic_path, atomic_writer, check_ending
from kerastk.training.cache import PLAIN, Activations, CacheError, Point
from kerastk.training.device import choose_device, choose_precision, set_precision
from kerastk.training.store import folder_of

ENDINGS = (".parquet", ".npz")


@dataclass(frozen=True)
class Embedding:
    """Vectors of photos: `paths` and `labels` (empty where a photo has none), and `vectors` (photos, features) float32.

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
            look = check(source, threads=recipe.threads or task.threads(), progress=progress)
        if not look.photos:
            raise DataError(f"no readable photos in {source.name}; {len(look.bad)} cannot be read.")
        split = Split(
            look.photos, source.read, classes=source.classes, image_size=recipe.image_size, resize=recipe.resize,
            batch_size=recipe.batch_size, threads=recipe.threads or task.threads(),
        )  # fmt: skip
        set_precision(model, precision)
        point = Point("features", features(model), "float32")
        identity = task.identity(dataclasses.replace(recipe, precision=precision))
        activations = Activations(
            model, identity, folder_of(recipe.cache), limit=size_bytes(recipe.cache_size or CACHE_SIZE)
        )
        with screen.working("features") as progress:
            try:
                vectors = activations.features(split, [PLAIN], point, progress)
            except CacheError as error:
                if recipe.cache != "auto":
                    raise
                screen.warn(f"{error}; going on without it.")
                activations.discard()
                vectors = activations.in_memory().features(split, [PLAIN], point, progress)
        activations.close()
    photos = split.photos
    return Embedding([p.path for p in photos], [p.label for p in photos], vectors, len(look.bad))
