"""What an autoencoder is shown of a batch, and what it is to make of it; by draws of a generator alone.

Each function here makes a `pipeline.Vary` whose inputs are a dictionary: `item` is what the network sees, `target` what
it should give back, and what else the loss needs. Items are (batch, height, width, channels) uint8 images, or
(batch, features) float32 rows. The second part of the result means nothing: the loss is an output of what is fitted.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from kerastk.datasets.pipeline import Vary

Inputs = dict[str, np.ndarray]
Damage = Callable[[np.ndarray, np.random.Generator], Inputs]


def reconstructing(damage: Damage | None = None, draws: Callable | None = None) -> Vary:
    """Items damaged by `damage` and whole ones as their targets, with the random numbers that `draws` gives.

    `draws` takes the number of items and a generator, and gives an array whose first axis is the items'.
    """

    def vary(items: np.ndarray, labels: np.ndarray, random: np.random.Generator) -> tuple[Inputs, np.ndarray]:
        inputs = {"item": items, "target": items} if damage is None else damage(items, random)
        if draws is not None:
            inputs["draws"] = draws(len(items), random)
        return inputs, np.zeros(len(items), np.float32)

    return vary


def noisy(kind: str, amount: float, spread: np.ndarray | None = None) -> Damage:
    """Gaussian noise, values masked to nothing, or values set to one extreme or the other (salt and pepper).

    Of Gaussian noise `amount` is the standard deviation, of pixels as if they lay between 0 and 1 (what leaves that
    range is clipped), of rows in the units of `spread` (features,), their standard deviations. Of the others it is the
    share of the values that are hit; extremes of rows lie three deviations from their mean, which `spread` has as its
    second row. Vincent et al. 2010, JMLR 11.

    >>> noisy("gaussian", 0.5)(images, np.random.default_rng(0))["item"].dtype
    dtype('uint8')
    """

    def damage(items: np.ndarray, random: np.random.Generator) -> Inputs:
        is_image = items.dtype == np.uint8
        if kind == "gaussian":
            noise = random.standard_normal(items.shape, np.float32) * np.float32(amount)
            if is_image:
                item = np.clip(np.rint(items + 255 * noise), 0, 255).astype(np.uint8)
            else:
                item = (items + noise * spread[0]).astype(np.float32)
            return {"item": item, "target": items}
        hit = random.random(items.shape, np.float32) < amount
        low, high = (np.uint8(0), np.uint8(255)) if is_image else (spread[1] - 3 * spread[0], spread[1] + 3 * spread[0])
        if kind == "masking":
            value: Any = low if is_image else spread[1]
        else:
            value = np.where(random.random(items.shape, np.float32) < 0.5, low, high)
        return {"item": np.where(hit, value, items).astype(items.dtype), "target": items}

    return damage


def patched(share: float, patch: int) -> Damage:
    """Images of which `share` of the square patches of `patch` pixels are grey; `weight` (batch, height, width, 1)
    float32 is 1 / share in what is hidden and 0 elsewhere, for a loss of what has to be filled in.

    Xie et al. 2021, arXiv:2111.09886.
    """

    def damage(items: np.ndarray, random: np.random.Generator) -> Inputs:
        count, height, width = items.shape[:3]
        rows, columns = -(-height // patch), -(-width // patch)
        # So many in each image, not so many on average.
        hidden = max(1, round(share * rows * columns))
        order = np.argsort(random.random((count, rows * columns)), axis=1)
        mask = (order < hidden).reshape(count, rows, columns)
        mask = mask.repeat(patch, axis=1).repeat(patch, axis=2)[:, :height, :width, None]
        weight = mask.astype(np.float32) / mask.mean(axis=(1, 2, 3), keepdims=True)
        return {"item": np.where(mask, np.uint8(128), items), "target": items, "weight": weight.astype(np.float32)}

    return damage


def binarised(items: np.ndarray, random: np.random.Generator) -> Inputs:
    """Images of 0 and 255, each pixel drawn with its grey as the chance: what is seen and what is to be given back.

    Dynamic binarisation: Burda et al. 2015, arXiv:1509.00519.
    """
    drawn = (random.random(items.shape, np.float32) * 255 < items).astype(np.uint8) * np.uint8(255)
    return {"item": drawn, "target": drawn}


def normal_draws(*size: int) -> Callable[[int, np.random.Generator], np.ndarray]:
    """Standard normal numbers, (items, *size) float32."""
    return lambda items, random: random.standard_normal((items, *size), np.float32)


def uniform_draws(*size: int) -> Callable[[int, np.random.Generator], np.ndarray]:
    """Numbers from 0 to 1, (items, *size) float32."""
    return lambda items, random: random.random((items, *size), np.float32)
