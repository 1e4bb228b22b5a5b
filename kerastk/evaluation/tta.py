"""Test-time augmentation: a classifier is asked about several views of an image, and its answers are averaged."""

import itertools
from collections.abc import Iterator

import numpy as np

from kerastk.errors import RecipeError

KINDS = ("mirror", "shift")
# Of the side: one pixel of 32.
_SHIFT = 1 / 32


def kinds_of(text: str | None) -> tuple[str, ...]:
    """`mirror`, `shift` or both with a comma between, as a tuple of them; of None, none. Raises RecipeError.

    >>> kinds_of("mirror,shift")
    ('mirror', 'shift')
    """
    found = tuple(each.strip() for each in text.split(",")) if text is not None else ()
    if set(found) - set(KINDS) or len(set(found)) < len(found):
        raise RecipeError(f"tta must be mirror, shift or mirror,shift; got {text!r}.")
    return found


def views(images: np.ndarray, kinds: tuple[str, ...]) -> Iterator[tuple[float, np.ndarray]]:
    """The views of images, (images, height, width, channels) uint8, each with its weight; the weights sum to 1.

    With `mirror` each view is also seen mirrored. With `shift` half of the weight is that of two more views, moved by
    1/32 of the side up and left, and down and right, with the border repeated (Jordan 2024, arXiv:2404.00498). Without
    either there is one view, the images as they are.
    """
    moved = [(1.0, images)]
    if "shift" in kinds:
        most = [max(1, round(side * _SHIFT)) for side in images.shape[1:3]]
        padded = np.pad(images, ((0, 0), *((by, by) for by in most), (0, 0)), mode="edge")
        corners = [
            padded[:, down : down + images.shape[1], across : across + images.shape[2]]
            for down, across in ((0, 0), (2 * most[0], 2 * most[1]))
        ]
        moved = [(0.5, images), *((0.25, each) for each in corners)]
    for (weight, each), mirrored in itertools.product(moved, (False, True) if "mirror" in kinds else (False,)):
        yield weight / (1 + ("mirror" in kinds)), each[:, :, ::-1] if mirrored else each
