import itertools
import math

import numpy as np
import pytest
from PIL import Image

from kerastk.datasets import augment, operations
from kerastk.datasets.augment import (
    POLICIES,
    AugMix,
    Blur,
    Crop,
    Erase,
    Flip,
    FlipDown,
    Grey,
    Jitter,
    Policy,
    RandAugment,
    Rotate,
    ShiftPad,
    TrivialAugment,
    generator,
    policy,
)
from kerastk.errors import RecipeError
from kerastk.notation import AUGMENT_POLICIES, AUGMENT_STEPS
from kerastk.recipe import Finetune


class Drawn:
    """A generator whose draws are given: shares in their order, the last one over and over, and whole numbers."""

    def __init__(self, *shares, numbers=()):
        self.shares, self.numbers = list(shares), list(numbers)

    def random(self):
        return self.shares.pop(0) if len(self.shares) > 1 else self.shares[0]

    def integers(self, low, high=None, size=None, **options):
        return np.array([self.numbers.pop(0) for _ in range(size)])


def done(step, pixels, random):
    """What a step or a policy makes of pixels, as an array of its own; the image itself stays as it was."""
    image = Image.fromarray(pixels)
    made = np.array(step(image, random))
    assert np.array_equal(image, pixels)
    return made


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
        got = done(Flip(), pixels, np.random.default_rng(number))
        mirrored = np.array_equal(got, pixels[:, ::-1])
        assert mirrored or np.array_equal(got, pixels)
        flipped += mirrored
    assert 160 < flipped < 240


def test_rotate(picture):
    pixels = picture(width=64, height=64)
    assert np.array_equal(done(Rotate(90, 1.0), pixels, Drawn(0.0, 1.0)), np.rot90(pixels))
    assert np.array_equal(done(Rotate(90, 1.0), pixels, Drawn(0.0, 0.0)), np.rot90(pixels, -1))
    assert np.array_equal(done(Rotate(30, 0.0), pixels, np.random.default_rng(0)), pixels)
    turned = sum(
        not np.array_equal(done(Rotate(30, 0.25), pixels, np.random.default_rng(n)), pixels) for n in range(200)
    )
    assert 30 < turned < 70


@pytest.mark.parametrize("size", [10, 64, 110, 1000])
def test_the_corners_of_a_turned_photo_are_its_mean(size):
    pixels = np.zeros((size, size, 3), np.uint8)
    pixels[:, size // 2 :] = (200, 100, 50)
    got = done(Rotate(45, 1.0), pixels, Drawn(0.0, 1.0))
    assert np.abs(got[[0, 0, -1, -1], [0, -1, 0, -1]].astype(int) - [100, 50, 25]).max() <= 1


def test_jitter_of_no_strength_is_the_identity(picture):
    pixels = picture()
    got = done(Jitter(0, 0, 0, 0), pixels, np.random.default_rng(0))
    assert np.abs(got.astype(int) - pixels).max() <= 1
    assert np.abs(got.astype(int) - pixels).mean() < 0.5


@pytest.mark.parametrize(("share", "factor"), [(1.0, 1.4), (0.0, 0.6)])
def test_brightness_multiplies(picture, share, factor):
    pixels = picture(1)
    got = done(Jitter(0.4, 0, 0, 0), pixels, Drawn(share))
    assert np.abs(got - np.clip(pixels * factor, 0, 255)).max() <= 1


@pytest.mark.parametrize(("share", "factor"), [(1.0, 1.4), (0.0, 0.6)])
def test_contrast_is_around_the_mean_grey(picture, share, factor):
    pixels = picture(1)
    grey = pixels.mean(axis=(0, 1)) @ (0.299, 0.587, 0.114)
    got = done(Jitter(0, 0.4, 0, 0), pixels, Drawn(share))
    assert np.abs(got - np.clip((pixels - grey) * factor + grey, 0, 255)).max() <= 1


@pytest.mark.parametrize(("share", "factor"), [(1.0, 1.4), (0.0, 0.6)])
def test_saturation_is_around_each_pixels_grey(picture, share, factor):
    pixels = picture(1)
    grey = (pixels @ (0.299, 0.587, 0.114))[..., None]
    got = done(Jitter(0, 0, 0.4, 0), pixels, Drawn(share))
    assert np.abs(got - np.clip((pixels - grey) * factor + grey, 0, 255)).max() <= 1


def test_hue_turns_colours_and_leaves_grey(picture):
    grey = np.full((8, 8, 3), 120, np.uint8)
    assert np.abs(done(Jitter(0, 0, 0, 0.3), grey, Drawn(1.0)).astype(int) - 120).max() <= 1
    muted = np.full((8, 8, 3), (140, 110, 110), np.uint8)
    third, back = (done(Jitter(0, 0, 0, 1 / 3), muted, Drawn(share))[0, 0].astype(int) for share in (1.0, 0.0))
    assert third.argmax() != 0
    assert back.argmax() != 0
    assert third.argmax() != back.argmax()
    whole = done(Jitter(0, 0, 0, 1.0), muted, Drawn(1.0))
    assert np.abs(whole.astype(int) - muted).max() <= 1


def test_the_order_is_brightness_then_contrast(picture):
    pixels = picture(1) // 2 + 40
    grey = pixels.mean(axis=(0, 1)) @ (0.299, 0.587, 0.114) * 1.2
    got = done(Jitter(0.2, 0.3, 0, 0), pixels, Drawn(1.0))
    assert np.abs(got - np.clip((pixels * 1.2 - grey) * 1.3 + grey, 0, 255)).max() <= 1


def test_jitter_is_brightness_contrast_saturation_and_hue_in_that_order(picture):
    pixels = picture(1) // 4 + 80
    to_yiq = np.array([[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])
    brighter = pixels * 1.1
    mean = brighter.mean(axis=(0, 1)) @ to_yiq[0]
    contrasted = (brighter - mean) * 1.2 + mean
    grey = (contrasted @ to_yiq[0])[..., None]
    yiq = (grey + (contrasted - grey) * 1.3) @ to_yiq.T
    chroma = (yiq[..., 1] + 1j * yiq[..., 2]) * np.exp(2j * np.pi * 0.05)
    expected = np.stack([yiq[..., 0], chroma.real, chroma.imag], axis=-1) @ np.linalg.inv(to_yiq).T
    got = done(Jitter(0.1, 0.2, 0.3, 0.05), pixels, Drawn(1.0))
    assert expected.min() > 0
    assert expected.max() < 255
    assert np.abs(got - expected).max() <= 1.5


@pytest.mark.parametrize("name", POLICIES)
def test_a_policy_keeps_size_and_mode_and_its_input(picture, name):
    for number in range(20):
        image = Image.fromarray(picture(width=40, height=40))
        before = image.copy()
        made = POLICIES[name](image, np.random.default_rng(number))
        assert (made.mode, made.size) == ("RGB", (40, 40))
        assert np.array_equal(image, before)


def test_policies_are_ordered_by_strength(picture):
    pixels = picture(width=40, height=40)

    def change(name):
        total = 0.0
        for number in range(40):
            got = done(POLICIES[name], pixels, np.random.default_rng(number))
            total += np.abs(got.astype(int) - pixels).mean()
        return total

    assert change("none") == 0 < change("light") < change("strong")
    assert POLICIES["none"].crop is None
    for lighter, stronger in itertools.pairwise(("light", "strong")):
        assert math.prod(POLICIES[lighter].crop.scale) > math.prod(POLICIES[stronger].crop.scale)


@pytest.fixture
def square(picture):
    return picture(3, width=64, height=64)


def test_flip_down_turns_top_and_bottom(square):
    assert np.array_equal(done(FlipDown(), square, Drawn(0.1)), square[::-1])
    assert np.array_equal(done(FlipDown(), square, Drawn(0.9)), square)


@pytest.mark.parametrize(("down", "across"), [(4, 0), (-4, 0), (0, 3), (2, -1), (0, 0)])
def test_shift_pad_moves_the_photo_and_is_black_where_it_was_not(square, down, across):
    moved = done(ShiftPad(0.125), square, Drawn(0.0, numbers=(down, across)))
    size = len(square)
    expected = np.zeros_like(square)
    for row in range(size):
        for column in range(size):
            if 0 <= row - down < size and 0 <= column - across < size:
                expected[row, column] = square[row - down, column - across]
    assert np.array_equal(moved, expected)


def test_grey_takes_the_colour_and_keeps_the_brightness(square):
    grey = done(Grey(1.0), square, np.random.default_rng(0))
    assert np.array_equal(grey[..., 0], grey[..., 1])
    assert np.array_equal(grey[..., 0], grey[..., 2])
    assert np.abs(grey[..., 0] - square @ [0.299, 0.587, 0.114]).max() <= 1
    assert np.array_equal(done(Grey(0.0), square, np.random.default_rng(0)), square)


def test_blur_keeps_the_mean_and_takes_the_contrast():
    picture = (np.indices((64, 64)).sum(axis=0) % 2 * 255).astype(np.uint8)[..., None].repeat(3, axis=2)
    blurred = done(Blur(1.0, (7.0, 7.0)), picture, np.random.default_rng(0))
    assert abs(blurred.mean() - picture.mean()) < 2
    assert blurred.std() < 0.2 * picture.std()


def test_erase_puts_noise_into_one_box_of_the_size_and_shape_asked_for():
    black = np.zeros((100, 100, 3), np.uint8)
    shares, ratios = [], []
    for number in range(200):
        erased = done(Erase(1.0), black, np.random.default_rng(number)).any(axis=2)
        rows, columns = np.flatnonzero(erased.any(axis=1)), np.flatnonzero(erased.any(axis=0))
        high, wide = rows[-1] - rows[0] + 1, columns[-1] - columns[0] + 1
        # Of the noise hardly a pixel is black.
        assert erased.sum() > 0.99 * high * wide
        shares.append(high * wide / 10_000)
        ratios.append(high / wide)
    assert 0.015 < min(shares) < 0.04
    assert 0.28 < max(shares) < 0.36
    assert 0.25 < min(ratios) < 0.5
    assert 2 < max(ratios) < 3.8


def _sums(step, square, count=400):
    return {int(done(step, square, np.random.default_rng(number)).astype(np.int64).sum()) for number in range(count)}


def test_randaugment_grows_with_its_magnitude_and_uses_all_operations(square):
    def change(magnitude):
        made = [done(RandAugment(2, magnitude), square, np.random.default_rng(number)) for number in range(150)]
        return np.mean([np.abs(each.astype(int) - square).mean() for each in made])

    assert change(3) < change(9) < change(25)
    # With one operation: that without effect, those without a strength, and two signs of the others but two.
    found = {done(RandAugment(1, 9), square, np.random.default_rng(number)).tobytes() for number in range(600)}
    assert len(found) >= 14 + 9 - 2


@pytest.mark.parametrize("name", sorted(operations.RAND_STRENGTHS))
def test_each_operation_of_randaugment_does_what_its_name_says(square, name):
    strength = operations.RAND_STRENGTHS[name] / 2
    image = Image.fromarray(square)
    found = np.asarray(operations.OPERATIONS[name](image, strength)).astype(int)
    before = square.astype(int)
    size = len(square)
    if name == "identity":
        assert np.array_equal(found, before)
    elif name == "autocontrast":
        assert (found.min(), found.max()) == (0, 255)
    elif name == "equalize":
        assert len(np.unique(found[..., 0])) <= 256
        assert abs(np.median(found[..., 0]) - 128) < 20
    elif name == "posterize":
        assert set(np.unique(found % 2 ** round(strength))) == {0}
        assert np.abs(found - before).max() < 2 ** round(strength)
    elif name == "solarize":
        bright = before >= 128
        assert np.array_equal(found[bright], 255 - before[bright])
        assert np.array_equal(found[~bright], before[~bright])
    elif name == "brightness":
        assert np.abs(found - np.clip(before * (1 + strength), 0, 255)).max() <= 1
    elif name in ("colour", "contrast", "sharpness"):
        assert np.abs(found - before).mean() > 0.2
        assert found.std() >= before.std() - 1
    elif name == "translate-x":
        moved = round(strength * size)
        assert np.array_equal(found[:, : size - moved], before[:, moved:])
    elif name == "translate-y":
        moved = round(strength * size)
        assert np.array_equal(found[: size - moved], before[moved:])
    else:
        # The middle of a photo that is turned or sheared stays, its corners do not.
        middle = slice(size // 2 - 1, size // 2 + 1)
        assert np.abs(found[middle, middle] - before[middle, middle]).mean() < 40
        assert np.abs(found - before)[:4, :4].mean() > 0


def test_trivialaugment_does_one_operation_of_any_strength(square):
    assert len(_sums(TrivialAugment(), square)) > 150


def test_augmix_stays_between_the_photo_and_its_chains():
    flat = np.full((32, 32, 3), 100, np.uint8)

    class Whole(np.random.Generator):
        def beta(self, *given):
            return self.share

    for share in (0.0, 1.0):
        random = Whole(np.random.PCG64(3))
        random.share = share
        plain = np.arange(32 * 32 * 3, dtype=np.uint32).reshape(32, 32, 3).astype(np.uint8)
        assert np.array_equal(done(AugMix(), plain, random), plain) == (share == 0.0)
    assert done(AugMix(), flat, np.random.default_rng(0)).shape == (32, 32, 3)


def test_a_policy_by_hand_is_the_steps_in_their_order():
    made = policy("crop:0.3,flip,jitter:0.2:0.1,erase:0.5")
    assert made == Policy(Crop((0.3, 1.0)), (Flip(), Jitter(0.2, 0.2, 0.2, 0.1), Erase(0.5)))
    assert made.flips
    assert not policy("rotate,flip-down").flips


def test_the_recipe_knows_the_same_policies_and_steps_with_the_same_numbers():
    assert tuple(POLICIES) == AUGMENT_POLICIES
    assert set(augment.STEPS) == set(AUGMENT_STEPS)
    for name, ranges in AUGMENT_STEPS.items():
        for end in (0, -1):
            policy(":".join([name, *(str(limits[end]) for limits in ranges)]))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("crop,flp", r"no step 'flp' .* Did you mean flip\?"),
        ("light,flip", r"no step 'light' \(a policy stands alone"),
        ("flip,flip", "flip stands there twice"),
        ("crop:2", r"crop takes a number from 0\.01 to 1; got '2'"),
        ("rotate:nan", "rotate takes a number from 0 to 180; got 'nan'"),
        ("trivialaugment:3", "trivialaugment takes at most 0 numbers"),
        ("randaugment:1.5", r"randaugment takes a whole number from 1 to 14; got '1\.5'"),
        ("", "no step ''"),
    ],
)
def test_what_is_no_augmentation_is_refused(text, said):
    with pytest.raises(RecipeError, match=said):
        Finetune(augment=text)


def test_a_list_of_steps_is_the_same_as_a_text():
    assert Finetune(augment=["crop", "flip", "jitter:0.3"]).augment == "crop,flip,jitter:0.3"


def test_digits_and_text_are_not_mirrored():
    assert not POLICIES["upright"].flips
