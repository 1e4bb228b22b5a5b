"""From DATA to batches in one call: source, check, split, pipeline."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from kerastk.datasets.augment import Policy, policy
from kerastk.datasets.check import Look, check
from kerastk.datasets.images import photo_grid, to_png
from kerastk.datasets.manifest import Manifest, settle
from kerastk.datasets.pipeline import Split
from kerastk.datasets.source import Source, open_source
from kerastk.errors import DataError


@dataclass(frozen=True)
class PhotoData:
    """A photo data set, split and ready to be iterated; `test` is None where there is no test split.

    Each split gives ((batch, size, size, 3) uint8, (batch, classes) float32 one-hot).
    """

    look: Look
    manifest: Manifest
    train: Split
    val: Split
    test: Split | None

    # What `manifest.counts` counts, one of `labels`.
    label: ClassVar[str] = "class"

    @property
    def classes(self) -> list[str]:
        """Class names in output order."""
        return self.manifest.classes

    labels = classes


def open_photos(
    source: Source | Any,
    *,
    split: str | None,
    fractions: tuple[float, float, float],
    split_seed: int | None,
    strict: bool,
    max_bad: float,
    image_size: int | Callable[[Look], int],
    resize: str,
    augment: str | Callable[[int], str],
    batch_size: int,
    threads: int,
    seed: int,
    balanced: bool = False,
    labelled: bool = True,
    normal: Sequence[str] = (),
    assigned: Mapping[str, str] | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> PhotoData:
    """Look at the photos, split them, and prepare their batches.

    `source` is what `open_source` returns or takes. `split` is the user's own specification or None; `assigned` names
    the splits of photos that have one already, by SHA-256. With `balanced` an epoch of the training split shows each
    class as often as any other. Without `labelled` photos need no class; `normal` classes are as in `settle`. Where
    `image_size` is a function, it decides by the look at the photos, and `augment` by the size.

    Raises:
        DataError: see `open_source` and `settle`.
    """
    if not isinstance(source, Source):
        source = open_source(source, labelled=labelled)
    look = check(source, threads=threads, progress=progress)
    manifest = settle(
        look, split=split, fractions=fractions, split_seed=split_seed, strict=strict, max_bad=max_bad,
        assigned=assigned, labelled=labelled, normal=normal,
    )  # fmt: skip
    size = image_size if isinstance(image_size, int) else image_size(look)
    varied = policy(augment if isinstance(augment, str) else augment(size))

    def made(name: str) -> Split | None:
        photos = manifest.splits[name]
        if not photos:
            return None
        return Split(
            photos, source.read, classes=manifest.classes, image_size=size, resize=resize,
            batch_size=batch_size, threads=threads, policy=varied if name == "train" else None, seed=seed,
            balanced=balanced,
        )  # fmt: skip

    return PhotoData(look, manifest, made("train"), made("val"), made("test"))


def picture(source: Any, augment: str, *, photos: int, views: int, image_size: int, seed: int = 0) -> bytes:
    """A PNG file: a row for each of some photos, as it is and as `views` epochs of an augmentation show it."""
    look = check(source if isinstance(source, Source) else open_source(source))
    if not look.photos:
        raise DataError(f"there is no readable photo in {look.source.name!r}.")
    chosen = np.unique(np.linspace(0, len(look.photos) - 1, photos).astype(int))

    def split(policy: Policy | None) -> Split:
        return Split(
            [look.photos[number] for number in chosen], look.source.read, classes=look.source.classes,
            image_size=image_size, resize="crop", batch_size=1, threads=1, policy=policy, seed=seed,
        )  # fmt: skip

    plain, varied = split(None), split(policy(augment))
    shown = [
        part.example(number, epoch)[0]
        for number in range(len(chosen))
        for part, epoch in ((plain, 0), *((varied, epoch) for epoch in range(views)))
    ]
    return to_png(photo_grid(shown, columns=views + 1))
