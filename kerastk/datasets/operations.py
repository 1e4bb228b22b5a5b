"""What augmentation does to a photo: shifts, turns and colours of square Pillow images in RGB, which stay as they are.

And the 14 operations of which RandAugment, TrivialAugment and AugMix draw, with the strengths that each has for them.
"""

import math
import operator
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageFilter, ImageOps

_GREY = (0.299, 0.587, 0.114)
_IDENTITY = ((1, 0, 0), (0, 1, 0), (0, 0, 1))
# A quarter of a turn about the grey axis in YIQ.
_YIQ = np.array([_GREY, [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])
_QUARTER = (np.linalg.inv(_YIQ) @ [[0, 0, 0], [0, 0, -1], [0, 1, 0]] @ _YIQ).tolist()


def coloured(
    image: Image.Image, *, brightness: float = 1, contrast: float = 1, saturation: float = 1, hue: float = 0
) -> Image.Image:
    """Brightness, contrast, saturation and hue at once, as one matrix: factors, and `hue` as a share of a turn.

    Saturation and hue stretch and turn what sets a colour apart from its grey: a multiple of it is added to the grey,
    and a multiple of what a quarter of a turn makes of it.
    """
    along = saturation * math.cos(2 * math.pi * hue)
    aside = saturation * math.sin(2 * math.pi * hue)
    gain = brightness * contrast
    offset = 0.0
    if contrast != 1:
        offset = sum(map(operator.mul, _GREY, _mean(image))) * brightness * (1 - contrast)
    matrix = []
    for row, quarter in zip(_IDENTITY, _QUARTER, strict=True):
        matrix += [
            gain * (grey + along * (own - grey) + aside * across)
            for grey, own, across in zip(_GREY, row, quarter, strict=True)
        ]
        matrix.append(offset)
    return image.convert("RGB", tuple(matrix))


def _affine(image: Image.Image, across: tuple[float, float, float], down: tuple[float, float, float]) -> Image.Image:
    """Moves in shares of the side: x of the source is across . (x, y, 1), y is down . (x, y, 1), about the corner."""
    size = image.width
    data = (*across[:2], across[2] * size, *down[:2], down[2] * size)
    return image.transform(image.size, Image.Transform.AFFINE, data, Image.Resampling.BILINEAR, fillcolor=_mean(image))


def _moved(image: Image.Image, across: float, down: float) -> Image.Image:
    """Moves left and up by shares of the side, in whole pixels: nothing is interpolated."""
    return pasted(image, -round(across * image.width), -round(down * image.height), _mean(image))


def pasted(image: Image.Image, left: int, top: int, fill: tuple[int, ...]) -> Image.Image:
    """Moved right and down by whole pixels; what comes in is `fill`."""
    moved = Image.new("RGB", image.size, fill)
    moved.paste(image, (left, top))
    return moved


def _mean(image: Image.Image) -> tuple[int, ...]:
    """The mean colour; in one go, Pillow's sum over a large photo would lose a few levels of brightness."""
    column = image.reduce((image.width, 1))
    return column.reduce((1, image.height)).getpixel((0, 0))


def _sharpened(image: Image.Image, factor: float) -> Image.Image:
    """A blend of the photo and the smooth one of Pillow's `ImageFilter.SMOOTH` as one kernel; the border stays."""
    around, middle = (1 - factor) / 13, factor + (1 - factor) * 5 / 13
    return image.filter(ImageFilter.Kernel((3, 3), (*[around] * 4, middle, *[around] * 4), scale=1))


def turned(image: Image.Image, degrees: float) -> Image.Image:
    """Turned about its middle; the corners that come in have the photo's mean."""
    return image.rotate(degrees, Image.Resampling.BILINEAR, fillcolor=_mean(image))


# What an operation does with its strength; the strength at full magnitude is in the tables below.
OPERATIONS: dict[str, Callable[[Image.Image, float], Image.Image]] = {
    "identity": lambda image, strength: image,
    "autocontrast": lambda image, strength: ImageOps.autocontrast(image),
    "equalize": lambda image, strength: ImageOps.equalize(image),
    "rotate": turned,
    "shear-x": lambda image, strength: _affine(image, (1, strength, -strength / 2), (0, 1, 0)),
    "shear-y": lambda image, strength: _affine(image, (1, 0, 0), (strength, 1, -strength / 2)),
    "translate-x": lambda image, strength: _moved(image, strength, 0),
    "translate-y": lambda image, strength: _moved(image, 0, strength),
    "posterize": lambda image, strength: ImageOps.posterize(image, 8 - round(strength)),
    "solarize": lambda image, strength: ImageOps.solarize(image, round(255 * (1 - strength))),
    "brightness": lambda image, strength: coloured(image, brightness=1 + strength),
    "colour": lambda image, strength: coloured(image, saturation=1 + strength),
    "contrast": lambda image, strength: coloured(image, contrast=1 + strength),
    "sharpness": lambda image, strength: _sharpened(image, 1 + strength),
}
_SIGNED = {
    "rotate", "shear-x", "shear-y", "translate-x", "translate-y", "brightness", "colour", "contrast", "sharpness",
}  # fmt: skip
# Degrees, shares of the side, bits taken away, share of the range inverted, change of the factor 1.
RAND_STRENGTHS = {
    "identity": 0, "autocontrast": 0, "equalize": 0, "rotate": 30, "shear-x": 0.3, "shear-y": 0.3,
    "translate-x": 150 / 331, "translate-y": 150 / 331, "posterize": 4, "solarize": 1, "brightness": 0.9,
    "colour": 0.9, "contrast": 0.9, "sharpness": 0.9,
}  # fmt: skip
TRIVIAL_STRENGTHS = {
    **RAND_STRENGTHS, "rotate": 135, "shear-x": 0.99, "shear-y": 0.99, "translate-x": 32 / 224,
    "translate-y": 32 / 224, "posterize": 6, "brightness": 0.99, "colour": 0.99, "contrast": 0.99, "sharpness": 0.99,
}  # fmt: skip
# Without those that its authors keep for testing.
MIX_STRENGTHS = {
    "autocontrast": 0, "equalize": 0, "rotate": 30, "shear-x": 0.3, "shear-y": 0.3, "translate-x": 1 / 3,
    "translate-y": 1 / 3, "posterize": 4, "solarize": 1,
}  # fmt: skip


def operated(
    image: Image.Image, random: np.random.Generator, strengths: dict[str, float], magnitude: float
) -> Image.Image:
    """The image after one of the operations in `strengths`, at `magnitude` (0 to 1) of its strength there."""
    name = list(strengths)[random.integers(len(strengths))]
    strength = strengths[name] * magnitude
    if name in _SIGNED and random.random() < 0.5:
        strength = -strength
    return OPERATIONS[name](image, strength)
