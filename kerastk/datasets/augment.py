"""Augmentation: how a training photo is varied. A policy is a row of a table; its draws come from the photo alone.

A policy has two parts. `crop` says which part of the photo is decoded (a random resized crop costs less than a plain
decode: only the part is resized). The steps that follow take and return a square Pillow image in RGB, which they leave
as it is: on the way to an array and back a photo would lose more time than in most steps. Every draw comes from the
generator handed in, which `generator` makes from (seed, epoch, photo): neither threads nor other photos matter.
"""

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.random.bit_generator import ISeedSequence
from PIL import Image, ImageFilter

from kerastk.datasets.images import Box
from kerastk.datasets.operations import (
    MIX_STRENGTHS,
    RAND_STRENGTHS,
    TRIVIAL_STRENGTHS,
    coloured,
    operated,
    pasted,
    turned,
)

# A change of what a policy makes of the same draws changes this number; cached activations carry it.
AUGMENT_VERSION = 3

Step = Callable[[Image.Image, np.random.Generator], Image.Image]


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
            area = _log_between(*self.scale, random) * width * height
            ratio = _log_between(*self.ratio, random)
            across, down = math.sqrt(area * ratio) / width, math.sqrt(area / ratio) / height
            if across <= 1 and down <= 1:
                left, top = _between(0, 1 - across, random), _between(0, 1 - down, random)
                return left, top, left + across, top + down
        side = min(width, height)
        left, top = (1 - side / width) / 2, (1 - side / height) / 2
        return left, top, 1 - left, 1 - top


@dataclass(frozen=True, slots=True)
class Flip:
    """Mirrors left and right with probability `probability`."""

    probability: float = 0.5

    def __call__(self, image: Image.Image, random: np.random.Generator) -> Image.Image:
        """A square image in RGB in, one out."""
        if random.random() >= self.probability:
            return image
        return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)


@dataclass(frozen=True, slots=True)
class FlipDown:
    """Mirrors top and bottom with probability `probability`: for photos from above, where there is no down."""

    probability: float = 0.5

    def __call__(self, image: Image.Image, random: np.random.Generator) -> Image.Image:
        """A square image in RGB in, one out."""
        if random.random() >= self.probability:
            return image
        return image.transpose(Image.Transpose.FLIP_TOP_BOTTOM)


@dataclass(frozen=True, slots=True)
class ShiftPad:
    """Shifts by up to `share` of the side either way, down and across; what comes in is black.

    With 4/32 that of CIFAR's classic recipe: four pixels of padding and a random crop (He et al. 2015,
    arXiv:1512.03385).
    """

    share: float = 0.125

    def __call__(self, image: Image.Image, random: np.random.Generator) -> Image.Image:
        """A square image in RGB in, one out."""
        most = round(self.share * image.width)
        down, across = random.integers(-most, most, 2, endpoint=True).tolist()
        return pasted(image, across, down, (0, 0, 0))


@dataclass(frozen=True, slots=True)
class Rotate:
    """Turns by up to `degrees` either way with probability `probability`; the corners repeat the photo's mean."""

    degrees: float
    probability: float = 0.5

    def __call__(self, image: Image.Image, random: np.random.Generator) -> Image.Image:
        """A square image in RGB in, one out."""
        if random.random() >= self.probability:
            return image
        return turned(image, _between(-self.degrees, self.degrees, random))


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

    def __call__(self, image: Image.Image, random: np.random.Generator) -> Image.Image:
        """A square image in RGB in, one out."""
        return coloured(
            image,
            brightness=_between(1 - self.brightness, 1 + self.brightness, random),
            contrast=_between(1 - self.contrast, 1 + self.contrast, random),
            saturation=_between(1 - self.saturation, 1 + self.saturation, random),
            hue=_between(-self.hue, self.hue, random),
        )


@dataclass(frozen=True, slots=True)
class Grey:
    """Takes the colour away with probability `probability`."""

    probability: float = 0.1

    def __call__(self, image: Image.Image, random: np.random.Generator) -> Image.Image:
        """A square image in RGB in, one out."""
        if random.random() >= self.probability:
            return image
        return image.convert("L").convert("RGB")


@dataclass(frozen=True, slots=True)
class Blur:
    """A Gaussian blur with probability `probability`; `sigma`, uniform in a range, is in pixels of a 224 px square."""

    probability: float = 0.1
    sigma: tuple[float, float] = (0.1, 2.0)

    def __call__(self, image: Image.Image, random: np.random.Generator) -> Image.Image:
        """A square image in RGB in, one out."""
        if random.random() >= self.probability:
            return image
        return image.filter(ImageFilter.GaussianBlur(_between(*self.sigma, random) * image.width / 224))


@dataclass(frozen=True, slots=True)
class Erase:
    """Random erasing: a box of noise with probability `probability` (Zhong et al. 2017, arXiv:1708.04896).

    Its share of the area is uniform in `scale`, its height-to-width ratio log-uniform in `ratio`.
    """

    probability: float = 0.25
    scale: tuple[float, float] = (0.02, 0.33)
    ratio: tuple[float, float] = (0.3, 3.3)

    def __call__(self, image: Image.Image, random: np.random.Generator) -> Image.Image:
        """A square image in RGB in, one out."""
        if random.random() >= self.probability:
            return image
        size = image.width
        for _ in range(10):
            area, ratio = _between(*self.scale, random), _log_between(*self.ratio, random)
            high, wide = round(size * math.sqrt(area * ratio)), round(size * math.sqrt(area / ratio))
            if 0 < high < size and 0 < wide < size:
                top, left = int(random.integers(0, size - high)), int(random.integers(0, size - wide))
                erased = image.copy()
                erased.paste(Image.fromarray(random.integers(0, 256, (high, wide, 3), np.uint8)), (left, top))
                return erased
        return image


@dataclass(frozen=True, slots=True)
class RandAugment:
    """`count` of 14 operations, each of strength `magnitude` of 30 (Cubuk et al. 2019, arXiv:1909.13719)."""

    count: int = 2
    magnitude: float = 9

    def __call__(self, image: Image.Image, random: np.random.Generator) -> Image.Image:
        """A square image in RGB in, one out."""
        for _ in range(self.count):
            image = operated(image, random, RAND_STRENGTHS, self.magnitude / 30)
        return image


@dataclass(frozen=True, slots=True)
class TrivialAugment:
    """One of 14 operations, of any strength (Müller and Hutter 2021, arXiv:2103.10158, its wide space)."""

    def __call__(self, image: Image.Image, random: np.random.Generator) -> Image.Image:
        """A square image in RGB in, one out."""
        return operated(image, random, TRIVIAL_STRENGTHS, random.random())


@dataclass(frozen=True, slots=True)
class AugMix:
    """A mixture of three chains of one to three operations with the photo (Hendrycks et al. 2019, arXiv:1912.02781).

    `severity` is of 10. Its consistency loss is not part of it.
    """

    severity: float = 3

    def __call__(self, image: Image.Image, random: np.random.Generator) -> Image.Image:
        """A square image in RGB in, one out."""
        shares, whole = random.dirichlet((1.0, 1.0, 1.0)), random.beta(1.0, 1.0)
        mixed = np.multiply(image, np.float32(1 - whole), dtype=np.float32)
        for share in shares.tolist():
            chain = image
            for _ in range(random.integers(1, 4)):
                chain = operated(chain, random, MIX_STRENGTHS, _between(0.1, self.severity, random) / 10)
            mixed += np.multiply(chain, np.float32(whole * share), dtype=np.float32)
        return Image.fromarray(np.rint(mixed, out=mixed).astype(np.uint8))


# NumPy's `uniform` takes three times as long, of which nine draws for a photo are made.
def _between(low: float, high: float, random: np.random.Generator) -> float:
    return low + (high - low) * random.random()


def _log_between(low: float, high: float, random: np.random.Generator) -> float:
    return low * (high / low) ** random.random()


@dataclass(frozen=True, slots=True)
class Policy:
    """Which part of a photo is decoded (None: as `resize` says), and what is done to the square."""

    crop: Crop | None = None
    steps: tuple[Step, ...] = ()

    @property
    def varies(self) -> bool:
        """Whether it does anything."""
        return self.crop is not None or bool(self.steps)

    @property
    def flips(self) -> bool:
        """Whether a mirrored photo is taken for one of the same class."""
        return any(isinstance(step, Flip) for step in self.steps)

    def __call__(self, image: Image.Image, random: np.random.Generator) -> Image.Image:
        """All steps behind the crop, which belongs to the decoding: a square image in RGB in and out."""
        for step in self.steps:
            image = step(image, random)
        return image


MIRRORED = Policy(steps=(Flip(1.0),))

POLICIES: dict[str, Policy] = {
    "none": Policy(),
    "light": Policy(Crop((0.5, 1.0)), (Flip(),)),
    "strong": Policy(Crop((0.3, 1.0)), (Flip(), Rotate(15, 0.3), Jitter(0.3, 0.3, 0.3, 0.05))),
    # For digits, letters and signs, which a mirror makes others.
    "upright": Policy(Crop((0.7, 1.0)), (Rotate(10, 0.5), Jitter(0.2, 0.2, 0.0, 0.0))),
    "randaugment": Policy(Crop((0.3, 1.0)), (Flip(), RandAugment())),
    "trivial": Policy(Crop((0.3, 1.0)), (Flip(), TrivialAugment())),
    "augmix": Policy(Crop((0.3, 1.0)), (Flip(), AugMix())),
}
# What a policy is composed of by hand: a name, and numbers in their order.
STEPS: dict[str, Callable[..., Any]] = {
    "crop": lambda least=0.5: Crop((least, 1.0)),
    "flip": Flip,
    "flip-down": FlipDown,
    "rotate": lambda degrees=15.0: Rotate(degrees),
    "shift-pad": ShiftPad,
    "jitter": lambda share=0.3, hue=0.05: Jitter(share, share, share, hue),
    "grey": Grey,
    "blur": Blur,
    "erase": Erase,
    "randaugment": lambda count=2, magnitude=9.0: RandAugment(int(count), magnitude),
    "trivialaugment": TrivialAugment,
    "augmix": AugMix,
}


def policy(text: str) -> Policy:
    """A policy by its name, or composed of steps: `crop,flip,jitter:0.3`, in the order of their doing.

    >>> policy("crop:0.3,flip,randaugment:2:9").flips
    True
    """
    if text in POLICIES:
        return POLICIES[text]
    made = []
    for part in text.split(","):
        name, *numbers = part.strip().split(":")
        made.append(STEPS[name](*map(float, numbers)))
    crops = [each for each in made if isinstance(each, Crop)]
    return Policy(crops[0] if crops else None, tuple(each for each in made if not isinstance(each, Crop)))


class _Seeds(ISeedSequence):
    """The SHA-256 of a text as what starts a generator; NumPy's own way takes longer than all draws of a photo."""

    def __init__(self, text: str):
        self._digest = hashlib.sha256(text.encode()).digest()

    def generate_state(self, n_words: int, dtype: type = np.uint32) -> np.ndarray:
        return np.frombuffer(self._digest, dtype)[:n_words]


def generator(seed: int, epoch: int, sha256: str) -> np.random.Generator:
    """The draws of one photo in one epoch: a function of (seed, epoch, SHA-256 of its bytes) and nothing else."""
    return np.random.Generator(np.random.PCG64(_Seeds(f"{seed} {epoch} {sha256}")))
