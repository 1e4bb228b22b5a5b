import functools
import hashlib
import threading

import numpy as np
import pytest
from PIL import Image

from kerastk.datasets.augment import POLICIES
from kerastk.datasets.check import Photo
from kerastk.datasets.images import decode, to_png
from kerastk.datasets.photos import open_photos
from kerastk.datasets.pipeline import Split, Varied, balanced_order, blended, epoch_order, mixing, paired
from kerastk.errors import DataError

SIZE = 16


@pytest.fixture(scope="module")
def photos(picture, encode):
    """Ten photos in order of path, and a store of their bytes."""
    store, made = {}, []
    for number in range(10):
        data = encode(picture(number))
        path, digest = f"{'ab'[number % 2]}/{number}.png", hashlib.sha256(data).hexdigest()
        store[path] = data
        made.append(Photo(path, "ab"[number % 2], None, digest, digest, "PNG", 64, 48, "RGB"))
    return sorted(made, key=lambda photo: photo.path), store


@pytest.fixture
def split(photos):
    """A split of those photos: `split(policy="strong", threads=4, keep=[...])`."""

    def make(*, policy=None, batch_size=4, threads=1, seed=0, keep=range(10), store=None):
        listed, bytes_of = photos
        read = (store or bytes_of).__getitem__
        return Split(
            [listed[number] for number in keep], read, classes=["a", "b"], image_size=SIZE, resize="crop",
            batch_size=batch_size, threads=threads, policy=POLICIES[policy] if policy else None, seed=seed,
        )  # fmt: skip

    return make


def batches(split, first=0, last=1):
    return list(split.batches(first, last))


def assert_equal(one, other):
    assert len(one) == len(other)
    for (images, labels), (other_images, other_labels) in zip(one, other, strict=True):
        assert np.array_equal(images, other_images)
        assert np.array_equal(labels, other_labels)


def which(split, images):
    """The number of the photo that each image (of a split without augmentation) shows."""
    known = {split.example(number)[0].tobytes(): number for number in range(len(split.photos))}
    return [known[image.tobytes()] for image in images]


# Order.


def test_the_order_is_a_permutation_by_seed_and_epoch():
    for count in (1, 2, 50):
        assert sorted(epoch_order(count, 3, 1)) == list(range(count))
    order = functools.partial(epoch_order, 50)
    assert order(3, 1).tolist() == order(3, 1).tolist()
    np.random.default_rng(0).random(9)
    distinct = {tuple(order(seed, epoch)) for seed in range(4) for epoch in range(4)}
    assert len(distinct) == 16


def test_an_epoch_shows_every_photo_in_the_order_of_seed_and_epoch(split):
    training = split(policy="none", batch_size=5)
    for epoch in range(3):
        shown = [number for images, _ in batches(training, epoch, epoch + 1) for number in which(training, images)]
        assert shown == epoch_order(10, 0, epoch).tolist()


def test_batches_of_training_are_full_and_wrap_around(split):
    training = split(policy="none", batch_size=4)
    assert training.steps == len(training) == 3
    shown = [which(training, images) for images, _ in batches(training)]
    order = epoch_order(10, 0, 0).tolist()
    assert shown == [order[:4], order[4:8], order[8:] + order[:2]]


def test_a_batch_is_never_larger_than_the_training_split(split):
    training = split(policy="light", batch_size=64)
    [(images, labels)] = batches(training)
    assert training.batch_size == len(images) == len(labels) == 10
    assert training.steps == 1


def test_batches_have_the_shape_and_type_that_a_model_takes(split):
    for policy in (None, "strong"):
        images, labels = batches(split(policy=policy))[0]
        assert (images.shape, images.dtype) == ((4, SIZE, SIZE, 3), np.uint8)
        assert (labels.shape, labels.dtype) == ((4, 2), np.float32)
        assert set(labels.sum(axis=1)) == {1.0}


def test_labels_go_with_their_photos(split, photos):
    training = split(policy="none", batch_size=3)
    for images, labels in batches(training, 0, 2):
        for number, label in zip(which(training, images), labels, strict=True):
            assert ["a", "b"][label.argmax()] == photos[0][number].label


def test_evaluation_is_in_order_of_path_and_plain(split, photos):
    listed, store = photos
    judged = split(batch_size=4, threads=3)
    assert judged.steps == 3
    for _ in range(2):
        seen = list(judged)
        assert [len(images) for images, _ in seen] == [4, 4, 2]
        expected = np.stack([decode(store[photo.path], SIZE) for photo in listed])
        assert np.array_equal(np.concatenate([images for images, _ in seen]), expected)
        truth = np.concatenate([labels for _, labels in seen]).argmax(axis=1)
        assert truth.tolist() == judged.truth.tolist() == [0] * 5 + [1] * 5
    assert len(batches(judged, 0, 2)) == 5


@pytest.mark.parametrize(("batch_size", "sizes"), [(16, [16, 16, 16, 16, 11]), (37, [37, 37, 1]), (75, [75])])
def test_photos_of_large_batches_are_all_there_and_in_order(split, batch_size, sizes):
    judged = split(batch_size=batch_size, threads=3, keep=[number % 10 for number in range(75)])
    images, labels = zip(*judged, strict=True)
    assert [len(each) for each in images] == [len(each) for each in labels] == sizes
    wanted_images, wanted_labels = zip(*map(judged.example, range(75)), strict=True)
    assert np.array_equal(np.concatenate(images), wanted_images)
    assert np.array_equal(np.concatenate(labels), wanted_labels)
    training = split(policy="strong", batch_size=batch_size, threads=3, keep=[number % 10 for number in range(75)])
    assert_equal(list(training.batches(0, 2, skip=1)), batches(training, 0, 2)[1:])


def test_each_pass_over_the_training_split_is_the_next_epoch(split):
    training = split(policy="strong")
    for epoch in range(3):
        assert_equal(list(training), batches(split(policy="strong"), epoch, epoch + 1))


def test_epochs_one_after_another_are_those_one_by_one(split):
    together = batches(split(policy="strong"), 1, 4)
    apart = [batch for epoch in (1, 2, 3) for batch in batches(split(policy="strong"), epoch, epoch + 1)]
    assert_equal(together, apart)


# What the draws depend on.


@pytest.mark.parametrize("skip", [1, 4, 7])
def test_without_its_first_batches_a_pass_is_as_with_them(split, skip):
    training = split(policy="strong", batch_size=3)
    assert_equal(list(training.batches(1, 3, skip)), batches(training, 1, 3)[skip:])


def mixed(split, strength=0.4, *, seed=0, skip=0):
    return list(Varied(split.batches(0, 2, skip), mixing(paired(strength)), seed, skip))


def test_mixing_gives_each_row_a_partner_and_mixes_the_labels(split):
    training = split(policy="none", batch_size=5)
    shares = set()
    for (images, labels), ((same, partner, share), soft) in zip(batches(training, 0, 2), mixed(training), strict=True):
        assert np.array_equal(same, images)
        assert sorted(partner) == list(range(5))
        assert (partner.dtype, share.dtype, soft.dtype) == (np.int32, np.float32, np.float32)
        assert len(set(share)) == 1
        assert 0 <= share[0] <= 1
        np.testing.assert_allclose(soft, share[0] * labels + (1 - share[0]) * labels[partner], atol=1e-6)
        shares.add(float(share[0]))
    assert len(shares) == 4


def test_the_draws_of_mixing_go_by_seed_and_step_alone(split):
    training = split(policy="none", batch_size=5)

    def draws(**options):
        return [(partner.tolist(), float(share[0])) for (_, partner, share), _ in mixed(training, **options)]

    assert draws(skip=1) == draws()[1:]
    assert draws(seed=1) != draws()
    assert len({share for _, share in draws()}) == len(draws())


def blends(mixup, cutmix, count=50):
    """Made photos, their partners and shares, of a batch of noise."""
    noise = np.random.default_rng(0).integers(0, 256, (5, 20, 20, 3), np.uint8)
    return noise, [blended(mixup, cutmix)(noise, np.random.default_rng(number)) for number in range(count)]


def test_mixup_lays_a_partner_over_each_photo():
    noise, found = blends(0.4, 0)
    for made, partner, share in found:
        assert made.dtype == np.uint8
        assert sorted(partner) == list(range(5))
        assert np.abs(made - (share * noise + (1 - share) * noise[partner].astype(float))).max() <= 0.501
    # Beta(0.4, 0.4): mostly the one or the other photo.
    shares = np.array([share for _, _, share in found])
    assert 0.3 < shares.mean() < 0.7
    assert ((shares < 0.25) | (shares > 0.75)).mean() > 0.5


def test_cutmix_puts_one_box_of_the_partner_in_and_its_area_is_the_share():
    noise, found = blends(0, 1.0)
    for made, partner, share in found:
        foreign = np.zeros((20, 20), bool)
        moved = [number for number in range(5) if partner[number] != number]
        foreign[(made != noise)[moved].any(axis=(0, 3))] = True
        rows, columns = np.flatnonzero(foreign.any(axis=1)), np.flatnonzero(foreign.any(axis=0))
        assert foreign.sum() == len(rows) * len(columns)
        assert share == pytest.approx(1 - foreign.mean())
        assert np.array_equal(made[:, foreign], noise[partner][:, foreign])
    # Beta(1, 1) is uniform; a box that the border cuts is smaller.
    shares = np.array([share for _, _, share in found])
    assert shares.min() < 0.2
    assert 0.5 < shares.mean() < 0.75


def test_the_labels_are_mixed_as_the_photos_are(split):
    training = split(policy="none", batch_size=5)
    for number, ((images, labels), (made, soft)) in enumerate(
        zip(batches(training, 0, 2), Varied(training.batches(0, 2), mixing(blended(0.4, 1.0)), 0, 0), strict=True)
    ):
        random = np.random.default_rng([0, number, 0x6D6978])
        expected, partner, share = blended(0.4, 1.0)(images, random)
        assert np.array_equal(made, expected)
        assert soft.dtype == np.float32
        np.testing.assert_allclose(soft, share * labels + (1 - share) * labels[partner], atol=1e-6)


def test_of_both_each_batch_takes_one_and_photos_of_one_colour_tell_which():
    grey = np.stack([np.full((16, 16, 3), value, np.uint8) for value in (10, 90, 170, 250)])
    kinds = []
    for number in range(200):
        made, partner, share = blended(0.5, 0.5)(grey, np.random.default_rng(number))
        assert sorted(partner) == [0, 1, 2, 3]
        assert 0 <= share <= 1
        own = {10, 90, 170, 250}
        kinds.append(set(np.unique(made).tolist()) <= own)
    # A blend by almost nothing or almost all rounds to one of the colours too.
    assert 0.4 < np.mean(kinds) < 0.75


def test_a_balanced_order_shows_each_class_as_often_as_any_other():
    truth = np.array([0] * 70 + [1] * 20 + [2] * 3)
    seen = set()
    for epoch in range(5):
        order = balanced_order(truth, 3, epoch)
        counts = np.bincount(truth[order])
        assert len(order) == 93
        assert counts.tolist() == [31, 31, 31]
        # The small class comes over and over, of the large one no photo twice.
        assert set(order) >= {90, 91, 92}
        assert len(set(order[truth[order] == 0])) == 31
        # They are mixed, not one class after another.
        assert len(set(truth[order[:12]])) > 1
        assert np.array_equal(order, balanced_order(truth, 3, epoch))
        seen |= set(order.tolist())
    assert len(seen) > 80
    assert not np.array_equal(balanced_order(truth, 3, 0), balanced_order(truth, 4, 0))


@pytest.mark.parametrize("policy", POLICIES)
def test_the_number_of_threads_changes_nothing(split, policy):
    assert_equal(batches(split(policy=policy, threads=1), 0, 3), batches(split(policy=policy, threads=4), 0, 3))


def test_the_seed_changes_order_and_draws(split):
    one, other = split(policy="strong", seed=1), split(policy="strong", seed=2)
    assert not np.array_equal(batches(one)[0][0], batches(other)[0][0])
    assert not np.array_equal(one.example(0, 0)[0], other.example(0, 0)[0])
    assert_equal(batches(one), batches(split(policy="strong", seed=1)))


def test_each_epoch_draws_anew(split):
    for policy, expected in (("none", 1), ("light", 6), ("strong", 6)):
        training = split(policy=policy)
        assert len({training.example(3, epoch)[0].tobytes() for epoch in range(6)}) == expected, policy


def pictures_of(training, epoch):
    """What an epoch shows of each photo, by SHA-256, straight from its batches."""
    order = epoch_order(len(training.photos), 0, epoch)
    shown = np.concatenate([images for images, _ in batches(training, epoch, epoch + 1)])[: len(order)]
    return {training.photos[number].sha256: image for number, image in zip(order, shown, strict=True)}


@pytest.mark.parametrize("removed", [0, 5, 9])
def test_removing_a_photo_changes_no_other_photos_pixels(split, removed):
    whole = pictures_of(split(policy="strong"), 2)
    fewer = pictures_of(split(policy="strong", keep=[n for n in range(10) if n != removed]), 2)
    assert len(fewer) == 9
    assert all(np.array_equal(image, whole[digest]) for digest, image in fewer.items())


def test_each_photo_is_varied_in_its_own_way(split, photos, picture, encode):
    encodings = [encode(picture(0), compress_level=level) for level in range(5)]
    training = split(policy="strong", store=photos[1] | {f"{n}.png": data for n, data in enumerate(encodings)})
    for number, data in enumerate(encodings):
        digest = hashlib.sha256(data).hexdigest()
        training.photos[number] = Photo(f"{number}.png", "a", None, digest, digest, "PNG", 64, 48, "RGB")
    assert len({training.example(number)[0].tobytes() for number in range(5)}) == 5


def test_a_copy_under_another_name_is_varied_alike(split, photos):
    listed, store = photos
    copied = Photo("z/copy.png", "b", None, *[listed[0].sha256] * 2, "PNG", 64, 48, "RGB")
    training = split(policy="strong", store=store | {"z/copy.png": store[listed[0].path]})
    training.photos[7] = copied
    assert np.array_equal(training.example(0, 4)[0], training.example(7, 4)[0])


def test_augmentation_of_a_turned_photo_sees_it_upright(picture, encode):
    exif = Image.Exif()
    exif[0x0112] = 6
    sideways = encode(picture(4), exif=exif)
    upright = encode(Image.fromarray(picture(4)).transpose(Image.Transpose.ROTATE_270))
    shown = []
    for data in (sideways, upright):
        photo = Photo("x", "a", None, hashlib.sha256(data).hexdigest(), "", "PNG", 48, 64, "RGB")
        options = {"classes": ["a"], "image_size": SIZE, "resize": "crop", "batch_size": 1, "threads": 1}
        split = Split([photo], {"x": data}.__getitem__, policy=POLICIES["none"], **options)
        shown.append(split.example(0)[0].astype(int))
    assert np.abs(shown[0] - shown[1]).mean() < 1


# Trouble in mid-run.


@pytest.mark.parametrize("threads", [1, 4])
@pytest.mark.parametrize("policy", [None, "strong"])
@pytest.mark.parametrize(
    ("spoil", "words"), [("removed", "No such file"), ("changed", "content changed"), ("emptied", "content changed")]
)
def test_a_photo_changed_or_removed_is_named(tree, picture, encode, policy, threads, spoil, words, within):
    root = tree({f"{'ab'[n % 2]}/{n}.png": encode(picture(n)) for n in range(40)})
    options = {"split": None, "fractions": (0.7, 0.15, 0.15), "split_seed": 0, "strict": False, "max_bad": 0.0}
    data = open_photos(
        root, **options, image_size=SIZE, resize="crop", augment="strong", batch_size=4, threads=threads, seed=0
    )
    split = data.train if policy else data.val
    victim = split.photos[-1].path
    if spoil == "removed":
        (root / victim).unlink()
    else:
        (root / victim).write_bytes(encode(picture(99)) if spoil == "changed" else b"")
    assert split.failure is None
    with pytest.raises(DataError, match=rf"{victim}: .*{words}"):
        within(60, list, split)
    assert victim in str(split.failure)
    untouched = data.val if policy else data.train
    assert len(within(60, list, untouched)) == untouched.steps
    assert untouched.failure is None


def test_waiting_is_counted(split, photos):
    gate = threading.Event()

    class Slow(dict):
        def __getitem__(self, path):
            gate.wait(0.02)
            return super().__getitem__(path)

    judged = split(store=Slow(photos[1]))
    list(judged)
    assert judged.waited >= 0.15


# All of it at once.


def test_from_a_folder_to_batches(tree, picture, encode):
    root = tree(
        {f"{name}/{n}.png": encode(picture(100 * k + n)) for k, name in enumerate(("10", "9", "b")) for n in range(10)}
    )
    options = {"strict": False, "max_bad": 0.0, "image_size": SIZE, "resize": "pad", "batch_size": 8, "seed": 0}
    seen = []
    data = open_photos(
        root, split="70/15/15", fractions=(0.7, 0.15, 0.15), split_seed=0, augment="light", threads=2,
        progress=lambda done, total: seen.append((done, total)), **options,
    )  # fmt: skip
    assert seen[-1] == (30, 30)
    assert data.classes == ["9", "10", "b"]
    assert data.train.training
    assert not data.val.training
    assert not data.test.training
    counts = [len(split.photos) for split in (data.train, data.val, data.test)]
    assert counts == [18, 6, 6]
    assert sum(len(images) for images, _ in data.test) == 6
    without = open_photos(
        root, split="85/15", fractions=(0.85, 0.15, 0.0), split_seed=0, augment="none", threads=2, **options
    )
    assert without.test is None


@pytest.mark.parametrize("resize", ["pad", "stretch"])
def test_random_crops_are_cut_from_what_resize_makes_of_the_whole(resize):
    # Left half red, right half blue, twice as wide as high.
    wide = np.zeros((100, 200, 3), np.uint8)
    wide[:, :100, 0] = wide[:, 100:, 2] = 255
    data = to_png(wide)
    square = decode(data, 64, resize=resize)
    part = decode(data, 64, resize=resize, box=(0.25, 0.25, 0.75, 0.75))
    expected = np.asarray(Image.fromarray(square).resize((64, 64), Image.Resampling.BILINEAR, box=(16, 16, 48, 48)))
    assert np.abs(part.astype(int) - expected).mean() < 4
