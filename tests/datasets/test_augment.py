import itertools
import math

import numpy as np
import pytest

from kerastk.datasets.augment import POLICIES, Crop, Flip, Jitter, Rotate, generator


class Fixed:
    """A generator whose uniform draws are the highest or the lowest possible, and whose shares are given."""

    def __init__(self, *, end="high", share=0.0):
        self.end, self.share = end, share

    def uniform(self, low, high):
        return high if self.end == "high" else low

    def random(self):
        return self.share


def draws(seed, epoch, sha256):
    return generator(seed, epoch, sha256).random(8).tolist()


def test_draws_depend_on_seed_epoch_and_photo(sha):
    assert draws(3, 2, sha(0)) == draws(3, 2, sha(0))
    others = [draws(4, 2, sha(0)), draws(3, 3, sha(0)), draws(3, 2, sha(1)), draws(2, 3, sha(0)), draws(3, 2, sha(0))]
    assert len({tuple(each) for each in others}) == 5


def test_draws_do_not_depend_on_other_draws(sha):
    expected = draws(0, 0, sha(5))
    first, second = generator(0, 0, sha(5)), generator(0, 0, sha(6))
    interleaved = []
    for _ in range(8):
        second.random()
        interleaved.append(first.random())
    np.random.default_rng(0).random(100)
    assert interleaved == expected


@pytest.mark.parametrize(("width", "height"), [(640, 480), (480, 640), (300, 300), (1000, 400)])
def test_a_crop_is_inside_the_photo_and_of_the_size_and_shape_asked_for(width, height):
    crop = Crop((0.3, 0.9), (0.5, 2.0))
    areas, ratios = [], []
    for number in range(300):
        left, top, right, bottom = crop.box(width, height, np.random.default_rng(number))
        assert 0 <= left < right <= 1 + 1e-9
        assert 0 <= top < bottom <= 1 + 1e-9
        areas.append((right - left) * (bottom - top))
        ratios.append((right - left) * width / ((bottom - top) * height))
    assert 0.3 - 1e-9 <= min(areas) < 0.35
    assert max(areas) <= 0.9 + 1e-9
    assert max(areas) > 0.6
    assert min(ratios) >= 0.5 - 1e-9
    assert max(ratios) <= 2 + 1e-9
    assert max(ratios) / min(ratios) > 2.5


def test_crops_reach_every_corner():
    boxes = np.array([Crop((0.3, 0.5)).box(100, 100, np.random.default_rng(n)) for n in range(300)])
    assert boxes[:, :2].min() < 0.02
    assert boxes[:, 2:].max() > 0.98


@pytest.mark.parametrize(("width", "height"), [(1000, 10), (10, 1000)])
def test_where_no_crop_fits_it_is_the_centred_square(width, height):
    left, top, right, bottom = Crop((0.9, 1.0), (1.0, 1.0)).box(width, height, np.random.default_rng(0))
    assert (right - left) * width == pytest.approx((bottom - top) * height)
    assert (left + right, top + bottom) == pytest.approx((1, 1))
    assert min(width, height) == pytest.approx((right - left) * width)


def test_flip_mirrors_half_of_the_time(picture):
    pixels = picture()
    flipped = 0
    for number in range(400):
        got = Flip()(pixels, np.random.default_rng(number))
        mirrored = np.array_equal(got, pixels[:, ::-1])
        assert mirrored or np.array_equal(got, pixels)
        flipped += mirrored
    assert 160 < flipped < 240


def test_rotate(picture):
    pixels = picture(width=64, height=64)
    assert Rotate(90, 1.0)(pixels, Fixed(end="high")).tolist() == np.rot90(pixels).tolist()
    assert Rotate(90, 1.0)(pixels, Fixed(end="low")).tolist() == np.rot90(pixels, -1).tolist()
    assert np.array_equal(Rotate(30, 0.0)(pixels, np.random.default_rng(0)), pixels)
    turned = sum(not np.array_equal(Rotate(30, 0.25)(pixels, np.random.default_rng(n)), pixels) for n in range(200))
    assert 30 < turned < 70


def test_the_corners_of_a_turned_photo_are_its_mean():
    pixels = np.zeros((64, 64, 3), np.uint8)
    pixels[:, 32:] = (200, 100, 50)
    got = Rotate(45, 1.0)(pixels, Fixed())
    assert np.abs(got[[0, 0, -1, -1], [0, -1, 0, -1]].astype(int) - [100, 50, 25]).max() <= 1


def test_jitter_of_no_strength_is_the_identity(picture):
    pixels = picture()
    got = Jitter(0, 0, 0, 0)(pixels, np.random.default_rng(0))
    assert np.abs(got.astype(int) - pixels).max() <= 1
    assert np.abs(got.astype(int) - pixels).mean() < 0.5


@pytest.mark.parametrize(("end", "factor"), [("high", 1.4), ("low", 0.6)])
def test_brightness_multiplies(picture, end, factor):
    pixels = picture(1)
    got = Jitter(0.4, 0, 0, 0)(pixels, Fixed(end=end))
    assert np.abs(got - np.clip(pixels * factor, 0, 255)).max() <= 1


@pytest.mark.parametrize(("end", "factor"), [("high", 1.4), ("low", 0.6)])
def test_contrast_is_around_the_mean_grey(picture, end, factor):
    pixels = picture(1)
    grey = pixels[::4, ::4].reshape(-1, 3).mean(axis=0) @ (0.299, 0.587, 0.114)
    got = Jitter(0, 0.4, 0, 0)(pixels, Fixed(end=end))
    assert np.abs(got - np.clip((pixels - grey) * factor + grey, 0, 255)).max() <= 1


@pytest.mark.parametrize(("end", "factor"), [("high", 1.4), ("low", 0.6)])
def test_saturation_is_around_each_pixels_grey(picture, end, factor):
    pixels = picture(1)
    grey = (pixels @ (0.299, 0.587, 0.114))[..., None]
    got = Jitter(0, 0, 0.4, 0)(pixels, Fixed(end=end))
    assert np.abs(got - np.clip((pixels - grey) * factor + grey, 0, 255)).max() <= 1


def test_hue_turns_colours_and_leaves_grey(picture):
    grey = np.full((8, 8, 3), 120, np.uint8)
    assert np.abs(Jitter(0, 0, 0, 0.3)(grey, Fixed()).astype(int) - 120).max() <= 1
    muted = np.full((8, 8, 3), (140, 110, 110), np.uint8)
    third, back = (Jitter(0, 0, 0, 1 / 3)(muted, Fixed(end=end))[0, 0].astype(int) for end in ("high", "low"))
    assert third.argmax() != 0
    assert back.argmax() != 0
    assert third.argmax() != back.argmax()
    whole = Jitter(0, 0, 0, 1.0)(muted, Fixed())
    assert np.abs(whole.astype(int) - muted).max() <= 1


def test_the_order_is_brightness_then_contrast(picture):
    pixels = picture(1) // 2 + 40
    grey = pixels[::4, ::4].reshape(-1, 3).mean(axis=0) @ (0.299, 0.587, 0.114) * 1.2
    got = Jitter(0.2, 0.3, 0, 0)(pixels, Fixed())
    assert np.abs(got - np.clip((pixels * 1.2 - grey) * 1.3 + grey, 0, 255)).max() <= 1


@pytest.mark.parametrize("name", POLICIES)
def test_a_policy_keeps_shape_and_type_and_its_input(picture, name):
    pixels = picture(width=40, height=40)
    before = pixels.copy()
    for number in range(20):
        random = np.random.default_rng(number)
        got = pixels
        for step in POLICIES[name].steps:
            got = step(got, random)
        assert got.shape == (40, 40, 3)
        assert got.dtype == np.uint8
    assert np.array_equal(pixels, before)


def test_policies_are_ordered_by_strength(picture):
    pixels = picture(width=40, height=40)

    def change(name):
        total = 0.0
        for number in range(40):
            random = np.random.default_rng(number)
            got = pixels
            for step in POLICIES[name].steps:
                got = step(got, random)
            total += np.abs(got.astype(int) - pixels).mean()
        return total

    assert change("none") == 0 < change("light") < change("strong")
    assert POLICIES["none"].crop is None
    for lighter, stronger in itertools.pairwise(("light", "strong")):
        assert math.prod(POLICIES[lighter].crop.scale) > math.prod(POLICIES[stronger].crop.scale)
