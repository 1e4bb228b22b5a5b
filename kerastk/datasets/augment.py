"""Augmentation: how a training photo is varied. A policy is a row of a table; its draws come from the photo alone.

A policy has two parts. `crop` says which part of the photo is decoded (a random resized crop costs less than a plain
decode: only the part is resized). The steps that follow take and return (size, size, 3) uint8. Every draw comes from
the generator handed in, which `generator` makes from (seed, epoch, photo): neither threads nor other photos matter.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image

from kerastk.datasets.images import Box

# A change of what a policy makes of the same draws changes this number; cached activations carry it.
AUGMENT_VERSION = 1

Step = Callable[[np.ndarray, np.random.Generator], np.ndarray]


@dataclass(frozen=True, slots=True)
class Crop:
    """Random resized crop: a part of `scale` of the area and a width-to-height ratio in `ratio`, both log-uniform.

    Szegedy et al. 2014, arXiv:1409.4842. `scale` and `ratio` are (low, high).
    """

    scale: tuple[float, float]
    ratio: tuple[float, float] = (3 / 4, 4 / 3)

    def box(self, width: int, height: int, random: np.random.Generator) -> Box:
        """(left, top, right, bottom) in shares of width and height; the centred square where none fits."""
        for _ in range(10):
            area = math.exp(random.uniform(math.log(self.scale[0]), math.log(self.scale[1]))) * width * height
            ratio = math.exp(random.uniform(math.log(self.ratio[0]), math.log(self.ratio[1])))
            across, down = math.sqrt(area * ratio) / width, math.sqrt(area / ratio) / height
            if across <= 1 and down <= 1:
                left, top = random.uniform(0, 1 - across), random.uniform(0, 1 - down)
                return left, top, left + across, top + down
        side = min(width, height)
        left, top = (1 - side / width) / 2, (1 - side / height) / 2
        return left, top, 1 - left, 1 - top


@dataclass(frozen=True, slots=True)
class Flip:
    """Mirrors left and right with probability `probability`."""

    probability: float = 0.5

    def __call__(self, pixels: np.ndarray, random: np.random.Generator) -> np.ndarray:
        """Pixels in, pixels out: (size, size, 3) uint8."""
        return pixels[:, ::-1] if random.random() < self.probability else pixels


@dataclass(frozen=True, slots=True)
class Rotate:
    """Turns by up to `degrees` either way with probability `probability`; the corners repeat the photo's mean."""

    degrees: float
    probability: float = 0.5

    def __call__(self, pixels: np.ndarray, random: np.random.Generator) -> np.ndarray:
        """Pixels in, pixels out: (size, size, 3) uint8."""
        angle = random.uniform(-self.degrees, self.degrees)
        if random.random() >= self.probability:
            return pixels
        fill = tuple(int(value) for value in pixels.mean(axis=(0, 1)))
        turned = Image.fromarray(np.ascontiguousarray(pixels)).rotate(angle, Image.Resampling.BILINEAR, fillcolor=fill)
        return np.asarray(turned)


@dataclass(frozen=True, slots=True)
class Jitter:
    """Brightness, contrast, saturation and hue at once, as one 3 x 4 colour matrix.

    Factors are uniform in 1 ± the given share; `hue` is a share of a full turn. The order is brightness, contrast
    (around the photo's mean grey), saturation (around each pixel's grey), hue (a turn about the grey axis in YIQ).
    """

    brightness: float
    contrast: float
    saturation: float
    hue: float

    def __call__(self, pixels: np.ndarray, random: np.random.Generator) -> np.ndarray:
        """Pixels in, pixels out: (size, size, 3) uint8."""
        brightness = random.uniform(1 - self.brightness, 1 + self.brightness)
        contrast = random.uniform(1 - self.contrast, 1 + self.contrast)
        saturation = random.uniform(1 - self.saturation, 1 + self.saturation)
        angle = 2 * math.pi * random.uniform(-self.hue, self.hue)
        grey = float(pixels[::4, ::4].reshape(-1, 3).mean(axis=0) @ _GREY) * brightness
        colour = _hue_matrix(angle) @ (saturation * np.eye(3) + (1 - saturation) * np.outer(np.ones(3), _GREY))
        matrix = colour * (brightness * contrast)
        offset = grey * (1 - contrast)
        rows = np.concatenate([matrix, np.full((3, 1), offset)], axis=1)
        image = Image.fromarray(np.ascontiguousarray(pixels)).convert("RGB", tuple(rows.ravel()))
        return np.asarray(image)


_GREY = np.array([0.299, 0.587, 0.114])
_YIQ = np.array([[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])


def _hue_matrix(angle: float) -> np.ndarray:
    cos, sin = math.cos(angle), math.sin(angle)
    return np.linalg.inv(_YIQ) @ np.array([[1, 0, 0], [0, cos, -sin], [0, sin, cos]]) @ _YIQ


@dataclass(frozen=True, slots=True)
class Policy:
    """Which part of a photo is decoded (None: as `resize` says), and what is done to the square."""

    crop: Crop | None = None
    steps: tuple[Step, ...] = ()

    @property
    def flips(self) -> bool:
        """Whether a mirrored photo is taken for one of the same class."""
        return any(isinstance(step, Flip) for step in self.steps)


MIRRORED = Policy(steps=(Flip(1.0),))

POLICIES: dict[str, Policy] = {
    "none": Policy(),
    "light": Policy(Crop((0.5, 1.0)), (Flip(),)),
    "strong": Policy(Crop((0.3, 1.0)), (Flip(), Rotate(15, 0.5), Jitter(0.3, 0.3, 0.3, 0.05))),
}


def generator(seed: int, epoch: int, sha256: str) -> np.random.Generator:
    """The draws of one photo in one epoch: a function of (seed, epoch, SHA-256 of its bytes) and nothing else."""
    return np.random.default_rng([seed, epoch, int(sha256[:16], 16)])
