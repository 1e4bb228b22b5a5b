"""Pictures for TensorBoard: the confusion matrix, the photos that are least understood."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from kerastk.datasets.images import thumbnail
from kerastk.screen import printable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Pixels: of a photo with a caption, and of the caption's height.
_CELL, _CAPTION = 128, 36


def captioned(photos: Sequence[np.ndarray], captions: Sequence[tuple[str, str]], columns: int = 6) -> np.ndarray:
    """Squares of any sizes side by side, each over its two lines, (height, width, 3) uint8."""
    from matplotlib.figure import Figure

    cells = [np.full((_CELL + _CAPTION, _CELL, 3), 255, np.uint8) for _ in photos]
    for cell, photo in zip(cells, photos, strict=True):
        cell[2 : _CELL - 2, 2 : _CELL - 2] = thumbnail(photo, _CELL - 4)
    columns = min(columns, len(cells))
    strips = [cells[first : first + columns] for first in range(0, len(cells), columns)]
    blank = np.full_like(cells[0], 255)
    grid = np.vstack([np.hstack([*strip, *[blank] * (columns - len(strip))]) for strip in strips])
    height, width = grid.shape[:2]
    figure = Figure(figsize=(width / 100, height / 100), dpi=100)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.axis("off")
    axes.imshow(grid, extent=(0, width, height, 0), interpolation="none")
    for number, lines in enumerate(captions):
        row, column = divmod(number, columns)
        text = "\n".join(_short(line, 22) for line in lines)
        place = (column * _CELL + 3, (row + 1) * (_CELL + _CAPTION) - _CAPTION)
        axes.text(*place, text, va="top", fontsize=6.5, linespacing=1.3, parse_math=False)
    return _drawn(figure)


def confusion_picture(confusion: Sequence[Sequence[int]], classes: Sequence[str]) -> np.ndarray:
    """The confusion matrix as a picture, (height, width, 3) uint8: rows are the truth, shares by row in colour."""
    from matplotlib.figure import Figure

    counts = np.asarray(confusion)
    shares = counts / np.maximum(1, counts.sum(axis=1, keepdims=True))
    side = min(14.0, 3.0 + 0.45 * len(classes))
    figure = Figure(figsize=(side, side), dpi=100, layout="constrained")
    axes = figure.add_subplot()
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    if len(classes) <= 60:
        names = [_short(name, 24) for name in classes]
        # A class may be called $x$: no mathematics in labels.
        axes.set_xticks(range(len(classes)), names, rotation=90, parse_math=False)
        axes.set_yticks(range(len(classes)), names, parse_math=False)
    if len(classes) <= 30:
        for (row, column), count in np.ndenumerate(counts):
            if count:
                colour = "white" if shares[row, column] > 0.5 else "black"
                axes.text(column, row, str(count), ha="center", va="center", color=colour, fontsize=8)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    return _drawn(figure)


def _short(text: str, most: int) -> str:
    text = printable(text)
    return text if len(text) <= most else text[: most - 1] + "…"


def _drawn(figure: "Figure") -> np.ndarray:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
