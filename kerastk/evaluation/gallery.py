"""What the report of an autoencoder shows: reconstructions in rows, the worst, ways between codes, samples, a map."""

import base64
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from kerastk.datasets.images import to_png, to_webp
from kerastk.evaluation.components import Components
from kerastk.evaluation.reconstruction import Answers, scaled
from kerastk.networks.autoencoder import Standard, decoder

# Items in a row, rows of samples, steps of a way from one code to another, points of the map.
WIDE, DEEP, STEPS, POINTS = 12, 6, 12, 500
# Columns of rows of numbers that are listed, those with the largest errors.
LISTED = 30
# Larger pictures are kept with losses.
_LOSSLESS = 400_000
# White pixels between images.
_GAP = 2


def grid(rows: Sequence[np.ndarray]) -> np.ndarray:
    """Rows of images, each (images, height, width, 1 or 3), uint8 or from 0 to 1, as one picture (.., .., 3) uint8."""
    height, width = rows[0].shape[1:3]
    count = max(len(row) for row in rows)
    picture = np.full((len(rows) * (height + _GAP) - _GAP, count * (width + _GAP) - _GAP, 3), 255, np.uint8)
    for line, row in enumerate(rows):
        images = row if row.dtype == np.uint8 else np.rint(np.clip(row, 0, 1) * 255).astype(np.uint8)
        for place, image in enumerate(images):
            top, left = line * (height + _GAP), place * (width + _GAP)
            picture[top : top + height, left : left + width] = image
    return picture


def record(
    model: keras.Model, items: np.ndarray, seen: np.ndarray | None, found: Answers, *, photos: Sequence[Any],
    numbers: np.ndarray, worst: np.ndarray, worst_items: np.ndarray, rivals: dict[str, Components],
    standard: Standard | None, variational: bool, split: str, seed: int, columns: Sequence[str] | None,
) -> dict[str, Any]:  # fmt: skip
    """The content of gallery.json.

    `items` are those of `numbers` in the split, `seen` what the network was shown of them where that is something else,
    `worst_items` those of the largest errors; `photos` are all of the split, `found` what was made of them.
    """
    labels = sorted({photo.label for photo in photos})
    content: dict[str, Any] = {
        "split": split,
        "labels": labels,
        "points": _points(found.codes, [labels.index(photo.label) for photo in photos], seed),
    }
    if standard is not None:
        return content | {"columns": _columns(model, items, standard, columns)}
    rows, names = [items], ["originals"]
    if seen is not None:
        rows, names = [items, seen], ["originals", "as they are shown"]
    made = _made(model, items if seen is None else seen)
    rows, names = [*rows, made], [*names, "reconstructions"]
    for name, rival in rivals.items():
        rows.append(rival.reconstruct(scaled(items, None)).reshape(items.shape))
        names.append(name)
    pictures = {
        "reconstructions": _written(grid(rows)),
        "worst": _written(grid([worst_items, _made(model, worst_items)])),
    }
    decode = decoder(model)
    pictures["ways"] = _written(grid(_ways(decode, found.codes[numbers])))
    if variational:
        drawn = np.random.default_rng(seed).standard_normal((WIDE * DEEP, found.codes.shape[1]), np.float32)
        samples = np.asarray(decode.predict_on_batch(drawn))
        pictures["samples"] = _written(grid(list(samples.reshape(DEEP, WIDE, *samples.shape[1:]))))
    content["rows"] = names
    content["worst"] = [
        {"path": photos[number].path, "label": photos[number].label, "error": float(found.errors[number])}
        for number in worst
    ]
    return content | {"pictures": pictures}


def worst_of(errors: np.ndarray) -> np.ndarray:
    """The numbers of the items with the largest errors, the worst first."""
    return np.argsort(-errors, kind="stable")[:WIDE]


def _made(model: keras.Model, items: np.ndarray) -> np.ndarray:
    return np.asarray(model.predict_on_batch(items)["reconstruction"])


def _ways(decode: keras.Model, codes: np.ndarray) -> list[np.ndarray]:
    """Rows of images on the straight lines between pairs of codes."""
    shares = np.linspace(0, 1, STEPS, dtype=np.float32)[:, None]
    pairs = list(zip(codes[::2], codes[1::2], strict=False))[:DEEP]
    return [np.asarray(decode.predict_on_batch((1 - shares) * one + shares * other)) for one, other in pairs]


def _points(codes: np.ndarray, labels: Sequence[int], seed: int) -> list[list[float]]:
    """(x, y, number of the label) of some items: codes laid out in the plane, by t-SNE (van der Maaten and Hinton 2008,
    JMLR 9) where they have more than two numbers."""
    chosen = np.unique(np.linspace(0, len(codes) - 1, min(POINTS, len(codes))).astype(int))
    flat = codes[chosen].astype(np.float64)
    if not np.isfinite(flat).all() or len(flat) < 4:
        return []
    if flat.shape[1] > 2:
        from sklearn.manifold import TSNE
        from threadpoolctl import threadpool_limits

        # Of so few points a second thread costs more than it does, where the cores are busy many times more.
        with threadpool_limits(1):
            found = TSNE(perplexity=min(30.0, (len(flat) - 1) / 3), max_iter=500, random_state=seed)
            flat = found.fit_transform(flat)
    flat = flat if flat.shape[1] == 2 else np.column_stack([flat, np.zeros(len(flat))])
    span = np.maximum(flat.max(axis=0) - flat.min(axis=0), 1e-9)
    places = (flat - flat.min(axis=0)) / span
    return [
        [round(float(x), 4), round(float(y), 4), labels[number]] for (x, y), number in zip(places, chosen, strict=True)
    ]


def _columns(model: keras.Model, items: np.ndarray, standard: Standard, names: Sequence[str] | None) -> list[dict]:
    """The columns with the largest errors, as shares of their standard deviations."""
    errors = np.sqrt(np.square((_made(model, items) - items) / standard.deviation).mean(axis=0))
    names = names or [f"column {number}" for number in range(len(errors))]
    return [{"name": names[each], "error": float(errors[each])} for each in np.argsort(-errors, kind="stable")[:LISTED]]


def _written(picture: np.ndarray) -> str:
    """A picture as base64: PNG where it is small, else WebP."""
    data = to_png(picture) if picture.shape[0] * picture.shape[1] <= _LOSSLESS else to_webp(picture)
    return base64.b64encode(data).decode()
