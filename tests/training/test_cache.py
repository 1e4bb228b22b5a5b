import contextlib
import json
import math
import re
import shutil
import signal
import subprocess
import sys
from collections import namedtuple

import keras
import numpy as np
import pytest

import kerastk
from kerastk.datasets.augment import POLICIES, Policy
from kerastk.datasets.check import check
from kerastk.datasets.images import to_png
from kerastk.datasets.photos import open_photos
from kerastk.datasets.pipeline import Split
from kerastk.datasets.source import open_source
from kerastk.errors import KerastkError
from kerastk.networks.classifier import classifier, features, with_new_head
from kerastk.networks.cuts import cache_cut, cut_for, work
from kerastk.screen import Screen
from kerastk.tasks.frozen import identity
from kerastk.training import cache
from kerastk.training.cache import (
    FORWARD_BATCH,
    MIRROR,
    PLAIN,
    Activations,
    CachedSplit,
    CacheError,
    Point,
    View,
    cached_splits,
    choose,
    shown_views,
)  # fmt: skip
from kerastk.training.phases import Phase, prepare
from kerastk.training.plan import plan
from kerastk.training.store import entries
from tests.conftest import woken

IDENTITY = {"base": "tiny", "image_size": 32, "resize": "crop", "precision": "float32"}
LIGHT = POLICIES["light"]


@pytest.fixture(scope="module", autouse=True)
def _own_cache(tmp_path_factory):
    """For the fixtures of the whole module, which come before those of a test."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KERASTK_CACHE", str(tmp_path_factory.mktemp("module")))
        yield


def _awake(model):
    return woken(model, np.random.default_rng(7).integers(0, 256, (8, 32, 32, 3), "uint8"))


def _tiny(seed=5, classes=4, size=32):
    """A network of two stages, with the names that all of kerastk's have."""
    keras.utils.set_random_seed(seed)
    photo = keras.Input((size, size, 3), dtype="uint8", name="photo")
    found = keras.layers.Rescaling(1 / 127.5, offset=-1.0, name="scaling")(photo)
    found = keras.layers.Conv2D(4, 3, strides=2, use_bias=False, name="first")(found)
    found = keras.layers.BatchNormalization(name="first_bn")(found)
    found = keras.layers.ReLU(name="first_relu")(found)
    found = keras.layers.Conv2D(8, 3, strides=2, name="second")(found)
    found = keras.layers.BatchNormalization(name="second_bn")(found)
    found = keras.layers.ReLU(name="second_relu")(found)
    found = keras.layers.GlobalAveragePooling2D(name="pool")(found)
    found = keras.layers.Dropout(0.0, name="head_dropout")(found)
    found = keras.layers.Dense(classes, name="head")(found)
    return _awake(keras.Model(photo, keras.layers.Softmax(name="probabilities")(found)))


@pytest.fixture(scope="module")
def tiny():
    """Shared; no test changes its weights."""
    return _tiny()


def _middle(model, dtype="float32"):
    return Point("middle", model.get_layer("first_relu").output, dtype)


def _features(model, dtype="float32"):
    return Point("features", features(model), dtype)


@pytest.fixture(scope="module")
def look(digits):
    return check(open_source(str(digits)), threads=2)


def _split(look, numbers=None, *, policy=None, seed=0, batch_size=24):
    photos = look.photos if numbers is None else [look.photos[number] for number in numbers]
    return Split(
        photos, look.source.read, classes=look.source.classes, image_size=32, resize="crop", batch_size=batch_size,
        threads=2, policy=policy, seed=seed,
    )  # fmt: skip


@pytest.fixture(scope="module")
def data(digits):
    return _data(digits, "light")


def _data(digits, augment):
    return open_photos(
        str(digits), split=None, fractions=(0.7, 0.15, 0.15), split_seed=0, strict=False, max_bad=0.01, image_size=32,
        resize="crop", augment=augment, batch_size=30, threads=2, seed=3,
    )  # fmt: skip


def _expected(model, point, images):
    return np.asarray(keras.Model(model.input, point.tensor)(np.stack(images)))


def _rows(split, view, point, activations):
    """Its rows, in the order of the split's photos."""
    ((store,),) = activations.fill(split, [view], [point])
    return store.gather(store.places([photo.sha256 for photo in split.photos]))


def _close(found, expected, share=1e-4):
    assert np.std(expected) > 0.01 * np.abs(expected).max() > 0
    np.testing.assert_allclose(found.astype(np.float32), expected, atol=share * np.abs(expected).max())


def _flip_a_byte(path, place):
    content = bytearray(path.read_bytes())
    content[place] ^= 0x40
    path.write_bytes(content)


# The values.


@pytest.mark.parametrize("base", ["tiny", "mobilenet_v2_0.35"])
def test_a_row_is_what_the_network_makes_of_the_photo(base, tiny, look, tmp_path):
    model = tiny
    if base != "tiny":
        keras.utils.set_random_seed(3)
        model = _awake(classifier(base, classes=4, image_size=32, dropout=0.0, weights=None))
    kept = cache_cut(model, cut_for(model, 1))
    split = _split(look)
    points = [Point(kept.layer, kept.tensor, "float32"), _features(model)]
    activations = Activations(model, IDENTITY, tmp_path)
    (stores,) = activations.fill(split, [PLAIN], points)
    assert activations.forwards == 160 / FORWARD_BATCH == 5
    numbers = [77, 3, 150, 3, 41]
    images = [split.example(number)[0] for number in numbers]
    for store, point in zip(stores, points, strict=True):
        found = store.gather(store.places([split.photos[number].sha256 for number in numbers]))
        # A network of random weights makes small differences of rounding larger, layer by layer.
        _close(found, _expected(model, point, images), 1e-3)


def test_a_mirrored_row_is_what_it_makes_of_the_mirrored_photo(tiny, data):
    found = _rows(data.val, MIRROR, _middle(tiny), Activations(tiny, IDENTITY, None))
    images = [data.val.example(number)[0][:, ::-1] for number in range(24)]
    _close(found, _expected(tiny, _middle(tiny), images))


def test_memory_holds_what_the_disk_would(tiny, data, tmp_path):
    for dtype in ("float32", "float16", "bfloat16"):
        point = _middle(tiny, dtype)
        memory, disk = Activations(tiny, IDENTITY, None), Activations(tiny, IDENTITY, tmp_path)
        for _ in range(2):
            found = _rows(data.val, PLAIN, point, memory)
            assert found.dtype == _rows(data.val, PLAIN, point, disk).dtype
            assert np.array_equal(found, _rows(data.val, PLAIN, point, disk))
        assert memory.forwards == disk.forwards == 1


def test_a_row_does_not_depend_on_the_photos_that_are_computed_with_it(look):
    # The sum of so many numbers comes out differently for one photo and for several at once.
    photo = keras.Input((32, 32, 3), dtype="uint8")
    end = keras.layers.Dense(16)(keras.layers.Flatten()(keras.layers.Rescaling(1 / 127.5, offset=-1.0)(photo)))
    model, point = keras.Model(photo, end), Point("end", end, "float32")
    together = _rows(_split(look), PLAIN, point, Activations(model, IDENTITY, None))
    for numbers in ([0], [31], [159], [40, 39, 38], list(range(159, 100, -1))):
        found = _rows(_split(look, numbers), PLAIN, point, Activations(model, IDENTITY, None))
        assert np.array_equal(found, together[numbers])


def test_a_row_does_not_depend_on_the_phases_that_were_prepared_before(data):
    # Else it would on the run that first computed it: a run prepares its phases, `embed` does not.
    model = _tiny()
    before = _rows(data.val, PLAIN, _features(model), Activations(model, IDENTITY, None))
    prepare(model, Phase(name="test", unfreeze=1, epochs=1, learning_rate=0.1, warmup_epochs=0))
    after = _rows(data.val, PLAIN, _features(model), Activations(model, IDENTITY, None))
    assert np.array_equal(after, before)


def test_an_interrupted_run_is_taken_up_where_it_was_and_ends_the_same(tiny, look, tmp_path, monkeypatch):
    point, split = _middle(tiny), _split(look)
    whole = _rows(split, PLAIN, point, Activations(tiny, IDENTITY, tmp_path / "whole"))
    # Each batch goes to the disk at once, as it does when it took long.
    monkeypatch.setattr(cache, "_FLUSH_BYTES", 1)

    def interrupt(done, total):
        assert total == 160
        if done == 64:
            raise KeyboardInterrupt

    first = Activations(tiny, IDENTITY, tmp_path / "parts")
    with pytest.raises(KeyboardInterrupt):
        first.fill(split, [PLAIN], [point], interrupt)
    first.close()
    second = Activations(tiny, IDENTITY, tmp_path / "parts")
    assert np.array_equal(_rows(split, PLAIN, point, second), whole)
    assert second.forwards == 3


def test_a_view_is_the_photo_as_that_epoch_shows_it(tiny, look):
    point = _middle(tiny)
    split = _split(look, range(0, 160, 7), policy=POLICIES["strong"], seed=9)
    activations = Activations(tiny, IDENTITY, None)
    views = shown_views(split.policy, split.seed, 3)
    assert len(views) == 3
    found = [_rows(split, view, point, activations) for view in views]
    for number, rows in enumerate(found):
        images = [split.example(place, epoch=number)[0] for place in range(len(split.photos))]
        _close(rows, _expected(tiny, point, images))
    assert not np.array_equal(found[0], found[1])
    assert shown_views(Policy(), split.seed, 3) == [PLAIN]


def test_features_come_view_after_view(tiny, data):
    activations = Activations(tiny, IDENTITY, None)
    found = activations.features(data.val, [PLAIN, MIRROR], _features(tiny))
    count = len(data.val.photos)
    images = [data.val.example(number)[0] for number in range(count)]
    assert found.shape == (2 * count, 8)
    _close(found, _expected(tiny, _features(tiny), images + [image[:, ::-1] for image in images]))


# What is found again, and what is not.


def test_the_same_again_takes_no_forward_pass(tiny, look, tmp_path):
    split = _split(look, policy=LIGHT)
    views, points = shown_views(LIGHT, 0, 2), [_middle(tiny), _features(tiny)]
    first = Activations(tiny, IDENTITY, tmp_path)
    first.fill(split, views, points)
    assert first.forwards == 10
    first.fill(split, views, points)
    assert first.forwards == 10
    # An equal network, not the same one.
    equal = _tiny()
    again = Activations(equal, dict(reversed(IDENTITY.items())), tmp_path)
    again.fill(split, views, [_features(equal), _middle(equal)])
    assert again.forwards == 0


def test_a_photo_whose_bytes_change_is_computed_again_and_no_other(tiny, digits, tmp_path):
    photos = tmp_path / "photos"
    shutil.copytree(digits, photos)
    point = _middle(tiny)
    before = Activations(tiny, IDENTITY, tmp_path / "cache")
    ((store,),) = before.fill(_split(check(open_source(str(photos)), threads=2)), [PLAIN], [point])
    size = store.size
    before.close()

    pixels = np.random.default_rng(1).integers(0, 256, (8, 8), np.uint8)
    (photos / "2" / "7.png").write_bytes(to_png(pixels))
    split = _split(check(open_source(str(photos)), threads=2))
    after = Activations(tiny, IDENTITY, tmp_path / "cache")
    ((store,),) = after.fill(split, [PLAIN], [point])
    assert after.forwards == 1
    assert store.size == size + point.row_bytes
    found = store.gather(store.places([photo.sha256 for photo in split.photos]))
    _close(found, _expected(tiny, point, [split.example(number)[0] for number in range(160)]))


@pytest.fixture(scope="module")
def base_folder(data, tmp_path_factory):
    """The rows of `_tiny(size=None)` at its features, for the tests of what finds them."""
    folder = tmp_path_factory.mktemp("activations")
    model = _tiny(size=None)
    recipe = kerastk.Finetune(base="mobilenet_0.25", image_size=32, precision="float32")
    activations = Activations(model, identity(recipe), folder)
    activations.fill(data.val, [PLAIN, View(LIGHT, 0, 0)], [_features(model)])
    activations.close()
    return folder


def _forwards(folder, data, *, change=None, view=PLAIN, dtype="float32", **values):
    """The forward passes that the validation photos take, with the rows of `base_folder` at hand."""
    model = _tiny(size=None)
    if change is not None:
        model = change(model) or model
    settings = {"base": "mobilenet_0.25", "image_size": 32, "precision": "float32", **values}
    activations = Activations(model, identity(kerastk.Finetune(**settings)), folder)
    activations.fill(data.val, [view], [_features(model, dtype)])
    activations.close()
    return activations.forwards


def _scaled(name, place):
    """A change of one weight: the first of its values is doubled."""

    def change(model):
        weights = model.get_layer(name).get_weights()
        weights[place].flat[0] = 2 * weights[place].flat[0] + 1
        model.get_layer(name).set_weights(weights)

    return change


NOT_FOUND = {
    "another kernel": {"change": _scaled("first", 0)},
    "another bias": {"change": _scaled("second", 1)},
    "other moving statistics": {"change": _scaled("first_bn", 2)},
    "another base": {"base": "mobilenet_0.5"},
    "another image size": {"image_size": 40},
    "another resize": {"resize": "pad"},
    "another precision": {"precision": "bfloat16"},
    "another type": {"dtype": "float16"},
    "another view": {"view": View(LIGHT, 0, 1)},
    "another seed": {"view": View(LIGHT, 1, 0)},
    "another policy": {"view": View(POLICIES["strong"], 0, 0)},
    "mirrored": {"view": MIRROR},
}


@pytest.mark.parametrize("what", NOT_FOUND)
def test_a_change_of_what_the_values_depend_on_never_finds_old_rows(what, base_folder, data):
    assert _forwards(base_folder, data, **NOT_FOUND[what]) == 1
    assert _forwards(base_folder, data, **NOT_FOUND[what]) == 0


FOUND = {
    "nothing": {},
    "the same view": {"view": View(LIGHT, 0, 0)},
    "another learning rate": {"learning_rate": 0.1, "epochs": 7, "batch_size": 5},
    "another seed and augmentation": {"seed": 4, "augment": "strong"},
    "another head": {"change": _scaled("head", 0)},
    "more classes": {"change": lambda model: with_new_head(model, classes=9, dropout=0.4, keep_head=False)},
}


@pytest.mark.parametrize("what", FOUND)
def test_a_change_of_anything_else_finds_them(what, base_folder, data):
    assert _forwards(base_folder, data, **FOUND[what]) == 0


def test_weights_above_the_point_do_not_matter(tiny, data, tmp_path):
    Activations(tiny, IDENTITY, tmp_path).fill(data.val, [PLAIN], [_middle(tiny)])
    other = _tiny()
    _scaled("second", 0)(other)
    again = Activations(other, IDENTITY, tmp_path)
    again.fill(data.val, [PLAIN], [_middle(other)])
    assert again.forwards == 0
    again.fill(data.val, [PLAIN], [_features(other)])
    assert again.forwards == 1


def test_plain_views_are_shared_by_all_seeds(tiny, look, tmp_path):
    Activations(tiny, IDENTITY, tmp_path).fill(_split(look, seed=0), [PLAIN, MIRROR], [_middle(tiny)])
    again = Activations(tiny, IDENTITY, tmp_path)
    again.fill(_split(look, policy=LIGHT, seed=8, batch_size=7), [PLAIN, MIRROR], [_middle(tiny)])
    assert again.forwards == 0


def test_what_another_process_has_added_meanwhile_is_not_computed_again(tiny, data, tmp_path):
    point = _middle(tiny)
    early = Activations(tiny, IDENTITY, tmp_path)
    early.seconds_per_photo(point, PLAIN)  # opens the store
    other = Activations(tiny, IDENTITY, tmp_path)
    expected = _rows(data.val, PLAIN, point, other)
    assert np.array_equal(_rows(data.val, PLAIN, point, early), expected)
    assert (other.forwards, early.forwards) == (1, 0)


def test_discarding_deletes_what_was_added_to_and_nothing_else(tiny, data, tmp_path):
    point = _middle(tiny)
    before = Activations(tiny, IDENTITY, tmp_path)
    before.fill(data.val, [PLAIN], [point])
    before.close()
    kept = [entry.path for entry in entries(tmp_path)]

    activations = Activations(tiny, IDENTITY, tmp_path)
    activations.fill(data.val, [PLAIN, MIRROR], [point])
    assert len(entries(tmp_path)) == 2
    activations.discard()
    assert [entry.path for entry in entries(tmp_path)] == kept


def test_rows_used_long_ago_make_room_for_new_ones_and_own_ones_stay(tiny, data, tmp_path):
    def fill(base, views, limit):
        activations = Activations(tiny, {**IDENTITY, "base": base}, tmp_path, limit=limit)
        activations.fill(data.val, views, [_middle(tiny)])
        activations.close()
        return [entry.described["base"] for entry in entries(tmp_path)], activations.forwards

    size = 24 * _middle(tiny).row_bytes
    assert fill("old", [PLAIN], 10 * size) == (["old"], 1)
    assert fill("new", [PLAIN], int(2.2 * size)) == (["new", "old"], 1)
    # There is room for two and a bit.
    assert fill("third", [PLAIN], int(2.2 * size)) == (["third", "new"], 1)
    assert fill("third", [PLAIN, MIRROR], int(2.2 * size)) == (["third", "third"], 1)
    assert fill("third", [PLAIN, MIRROR], int(2.2 * size)) == (["third", "third"], 0)


# As batches.


@pytest.mark.parametrize("augment", ["none", "light"])
def test_a_cached_split_gives_the_order_batches_and_labels_of_the_split(augment, tiny, digits, data):
    if augment == "none":
        data = _data(digits, "none")
    point = _middle(tiny)
    train, val, used = cached_splits(
        Activations(tiny, IDENTITY, None), data.train, data.val, point=point, views=2, policy=data.train.policy,
        seed=data.train.seed, progress=lambda done, total: None,
    )  # fmt: skip
    assert used == point
    assert (train.steps, train.batch_size, val.steps, val.batch_size) == (4, 30, 1, 24)
    assert train.classes == data.train.classes
    assert np.array_equal(train.truth, data.train.truth)
    seen = []
    for own, split, epochs in ((train, data.train, range(5)), (val, data.val, [0])):
        for epoch in epochs:
            cached, real = list(own.batches(epoch, epoch + 1)), list(split.batches(epoch, epoch + 1))
            assert [len(labels) for _, labels in cached] == [len(labels) for _, labels in real]
            order = np.concatenate([labels for _, labels in real])
            assert np.array_equal(np.concatenate([labels for _, labels in cached]), order)
            values = np.concatenate([rows for rows, _ in cached])
            images = np.concatenate([images for images, _ in real])
            if own is train and augment == "light":
                # Epoch e shows view e mod 2.
                images = np.stack([split.example(number, epoch % 2)[0] for number in split.numbers(epoch)])
            _close(values, _expected(tiny, point, images))
            seen.append(values)
    assert not np.array_equal(seen[0], seen[1])
    # Several epochs in one go, as `fit` takes them.
    together = np.concatenate([rows for rows, _ in train.batches(1, 4)])
    assert np.array_equal(together, np.concatenate(seen[1:4]))


def test_batches_are_cut_as_those_of_the_split(tiny, look):
    split = _split(look, range(23), batch_size=10)
    activations = Activations(tiny, IDENTITY, None)
    ((store,),) = activations.fill(split, [PLAIN], [_middle(tiny)])
    assert [len(labels) for _, labels in CachedSplit(split, [store]).batches(0, 1)] == [10, 10, 3]
    training = _split(look, range(23), policy=LIGHT, batch_size=10)
    cached = CachedSplit(training, [store])
    assert [len(labels) for _, labels in cached.batches(0, 1)] == [10, 10, 10]
    assert len(cached) == len(training) == 3


def test_a_damaged_row_is_computed_again_and_training_sees_the_right_values(tiny, data, tmp_path):
    def batches(activations):
        train, val, _ = cached_splits(
            activations, data.train, data.val, point=_middle(tiny), views=2, policy=LIGHT, seed=3,
            progress=lambda done, total: None,
        )  # fmt: skip
        found = [rows for split in (train, val) for rows, _ in split.batches(0, 2 if split is train else 1)]
        activations.close()
        return np.concatenate(found)

    right = batches(Activations(tiny, IDENTITY, tmp_path))
    damaged = entries(tmp_path)
    assert len(damaged) == 3
    for entry in damaged:
        # In the middle of some row.
        _flip_a_byte(entry.path / "rows.bin", 5 * _middle(tiny).row_bytes + 1803)
    activations = Activations(tiny, IDENTITY, tmp_path)
    assert np.array_equal(batches(activations), right)
    assert activations.forwards == 3
    again = Activations(tiny, IDENTITY, tmp_path)
    assert np.array_equal(batches(again), right)
    assert again.forwards == 0


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_the_rest_of_the_network_trains_on_what_is_kept_in_half_the_bits(dtype, data):
    model = _tiny()
    phase = Phase(name="test", unfreeze=1, epochs=1, learning_rate=0.1, warmup_epochs=0)
    train, val, used = cached_splits(
        Activations(model, IDENTITY, None), data.train, data.val, point=_middle(model, dtype), views=1, policy=LIGHT,
        seed=3, progress=lambda done, total: None,
    )  # fmt: skip
    fitted = prepare(model, phase, used.tensor)
    rows, _ = next(iter(val.batches(0, 1)))
    images = np.stack([data.val.example(number)[0] for number in range(24)])
    _close(np.asarray(keras.ops.softmax(fitted(rows))), np.asarray(model(images)), 1e-2)

    fitted.compile("adam", loss=keras.losses.CategoricalCrossentropy(from_logits=True), run_eagerly=True)
    before = {weight.path: np.array(weight) for weight in model.weights}
    fitted.fit(train.batches(0, 1), steps_per_epoch=train.steps, verbose=0, shuffle=False)
    changed = {weight.path for weight in model.weights if not np.array_equal(weight, before[weight.path])}
    assert changed == {"second/kernel", "second/bias", "head/kernel", "head/bias"}


def _loud():
    """A network whose values at `middle` are beyond float16's 65504."""
    model = _tiny()
    bn = model.get_layer("first_bn")
    bn.set_weights([1e6 * bn.get_weights()[0], *bn.get_weights()[1:]])
    return model


def _loud_splits(data, folder):
    model = _loud()
    activations = Activations(model, IDENTITY, folder)
    found = cached_splits(
        activations, data.train, data.val, point=_middle(model, "float16"), views=2, policy=LIGHT, seed=3,
        progress=lambda done, total: None,
    )  # fmt: skip
    activations.close()
    return model, activations, found


def test_where_float16_overflows_bfloat16_is_taken(data, tmp_path):
    model, _, (train, val, point) = _loud_splits(data, tmp_path)
    assert (point.name, point.dtype) == ("middle", "bfloat16")
    assert point.tensor is model.get_layer("first_relu").output
    values = np.concatenate([rows for rows, _ in val.batches(0, 1)])
    images = [data.val.example(number)[0] for number in range(24)]
    expected = _expected(model, point, images)
    assert expected.max() > 65504
    _close(values, expected, 2**-8)
    for rows, _ in train.batches(0, 2):
        assert np.isfinite(rows.astype(np.float32)).all()


def test_after_an_overflow_too_the_second_run_finds_all(data, tmp_path):
    _loud_splits(data, tmp_path)
    _, again, (_, _, point) = _loud_splits(data, tmp_path)
    assert point.dtype == "bfloat16"
    assert again.forwards == 0


# Whether it is worth it, and whether there is room.


@pytest.fixture(scope="module")
def network():
    """As quick as its layers are many: its weights have no values."""
    with keras.StatelessScope(initialize_variables=False):
        return classifier("mobilenet_v2_0.35", classes=3, image_size=96, dropout=0.1, weights=None)


GB = 10**9
PHOTOS = (1000, 200)
Usage = namedtuple("Usage", "total used free")


def _chosen(network, folder, *, unfreeze=2, **values):
    settings = {
        "photos": PHOTOS, "views": None, "epochs": 12, "policy": LIGHT, "dtype": "float16", "limit": 20 * GB,
        "folder": folder, **values,
    }  # fmt: skip
    return choose(network, unfreeze, **settings)


def _row(network, unfreeze, width=2):
    return width * math.prod(cache_cut(network, cut_for(network, unfreeze)).tensor.shape[1:])


def test_it_is_kept_below_the_cut_in_six_views(network, tmp_path):
    for unfreeze in (1, 2, 3):
        choice = _chosen(network, tmp_path, unfreeze=unfreeze)
        kept = cache_cut(network, cut_for(network, unfreeze))
        assert choice.point.tensor is kept.tensor
        assert choice.point.name == kept.layer
        assert choice.point.dtype == "float16"
        assert choice.views == 6
        assert choice.size == (6 * 1000 + 200) * _row(network, unfreeze)
        assert 0.1 < choice.frozen_share < 1
    assert _chosen(network, tmp_path, dtype="float32").size == (6 * 1000 + 200) * _row(network, 2, width=4)
    head = _chosen(network, tmp_path, unfreeze="head")
    assert (head.point.name, head.frozen_share) == ("features", 1.0)
    assert head.point.tensor is features(network)


def test_no_more_views_than_are_shown(network, tmp_path):
    assert _chosen(network, tmp_path, epochs=4).views == 4
    assert _chosen(network, tmp_path, epochs=4, views=9).views == 4
    assert _chosen(network, tmp_path, views=9).views == 9
    assert _chosen(network, tmp_path, views=3).views == 3
    assert _chosen(network, tmp_path, policy=POLICIES["none"]).views == 1
    assert _chosen(network, tmp_path, policy=POLICIES["none"], views=5).views == 1


def test_fewer_views_are_taken_where_there_is_room_for_fewer(network, tmp_path):
    three = (3 * 1000 + 200) * _row(network, 2)
    choice = _chosen(network, tmp_path, limit=three)
    assert (choice.views, choice.size) == (3, three)
    assert _chosen(network, tmp_path, limit=three - 1).views == 2
    one = (1000 + 200) * _row(network, 2)
    assert _chosen(network, tmp_path, limit=one).views == 1
    # Who asks for a number gets it or is told why not.
    assert _chosen(network, tmp_path, limit=three, views=3).views == 3
    refused = _chosen(network, tmp_path, limit=three - 1, views=3)
    assert (refused.point, refused.views, refused.size) == (None, 0, 0)
    assert refused.reason == f"{three / 1e9:.3g} GB would be needed; --cache-size allows {(three - 1) / 1e9:.3g}"


def test_it_says_why_nothing_is_kept(network, tmp_path, monkeypatch):
    def reason(**values):
        choice = _chosen(network, tmp_path, **values)
        assert choice.point is None
        return choice.reason

    assert reason(unfreeze="all") == reason(unfreeze=5) == "nothing is frozen"
    one = (1000 + 200) * _row(network, 2) / 1e9
    assert reason(limit=1000) == f"{one:.3g} GB would be needed; --cache-size allows 1e-06"

    monkeypatch.setattr(shutil, "disk_usage", lambda folder: Usage(100 * GB, 0, int(1.001 * GB)))
    assert reason() == f"{one:.3g} GB would be needed; the disk has 0.001 to spare"
    # A GB stays free whatever happens.
    needed = (1000 + 200) * _row(network, 2)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: Usage(100 * GB, 0, GB + needed - 1))
    assert "the disk has" in reason()
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: Usage(100 * GB, 0, GB + needed))
    assert _chosen(network, tmp_path).views == 1


@pytest.fixture(scope="module")
def resnet():
    with keras.StatelessScope(initialize_variables=False):
        return classifier("resnet50", classes=3, image_size=64, dropout=0.1, weights=None)


def test_a_small_frozen_part_is_not_worth_it(resnet, tmp_path):
    choice = _chosen(resnet, tmp_path, unfreeze=4)
    assert choice.point is None
    assert re.fullmatch(r"the frozen part is only \d % of the network's work", choice.reason)
    assert _chosen(resnet, tmp_path, unfreeze=3).point is not None


def test_the_share_that_is_too_small_is_that_of_the_frozen_part(resnet, tmp_path):
    frozen = work(resnet, cut_for(resnet, 4)) / work(resnet, features(resnet))
    assert f"only {100 * frozen:.0f} %" in _chosen(resnet, tmp_path, unfreeze=4).reason


# Whole runs.


def _recipe(digits, small_run, tmp_path, **values):
    settings = {"unfreeze": 1, "epochs": 2, "views": 2, "batch_size": 40, "split": "85/15", "threads": 2, **values}
    return kerastk.Finetune(data=str(digits), weights=str(small_run.path), runs=str(tmp_path / "runs"), **settings)


def _figures(run):
    timing = ("seconds", "photos_per_second", "wait_share")
    return [{key: value for key, value in row.items() if key not in timing} for row in run.log]


@contextlib.contextmanager
def _counted():
    """Counts the forward passes of the frozen part."""
    counted, forward = [], Activations._forward

    def count(self, *arguments):
        counted.append(1)
        return forward(self, *arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Activations, "_forward", count)
        yield counted


@pytest.fixture(scope="module")
def cold(digits, small_run, tmp_path_factory):
    """A run that found its cache empty: (the run, the cache's folder, its forward passes)."""
    folder = tmp_path_factory.mktemp("cold")
    with _counted() as passes:
        run = kerastk.train(_recipe(digits, small_run, folder, cache=str(folder / "cache")), show=False)
    return run, folder / "cache", len(passes)


def test_a_run_with_a_warm_cache_passes_no_photo_and_logs_the_same(cold, digits, small_run, tmp_path):
    first, folder, cold_passes = cold
    assert [row["phase"] for row in first.log] == ["probe", "finetune", "finetune"]
    # 136 training photos plain, mirrored and in two views; 24 of validation at two points at once.
    assert cold_passes == 4 * 5 + 1
    # Where all of it may just stay.
    allowed = f"{sum(entry.size for entry in entries(folder)) + 1000}B"
    recipe = _recipe(digits, small_run, tmp_path, cache=str(folder), cache_size=allowed)
    with _counted() as passes:
        again = kerastk.train(recipe, show=False)
    assert passes == []
    assert _figures(again) == _figures(first)


def test_as_much_lies_on_the_disk_as_was_planned(cold, digits, small_run, tmp_path):
    _, folder, _ = cold
    choice = plan(_recipe(digits, small_run, tmp_path, cache=str(folder)), screen=Screen(False)).choices["finetune"]
    rows = [entry.path / "rows.bin" for entry in entries(folder) if len(entry.described["shape"]) == 3]
    assert sum(path.stat().st_size for path in rows) == choice.size


def test_training_on_activations_is_training_on_photos(digits, small_run, tmp_path):
    def log(**values):
        recipe = _recipe(digits, small_run, tmp_path, epochs=3, dropout=0.0, augment="none", probe="none", **values)
        return _figures(kerastk.train(recipe, show=False))

    cached = log(cache=str(tmp_path / "cache"), cache_dtype="float32", views=None)
    on_photos = log(cache="off", views=None)
    assert [row["epoch"] for row in cached] == ["1", "2", "3"]
    for row, other in zip(cached, on_photos, strict=True):
        for name in ("loss", "val_loss", "cross_entropy", "val_cross_entropy"):
            assert float(row[name]) == pytest.approx(float(other[name]), rel=1e-3)
    # The network moved; else the two would agree whatever is trained.
    assert float(cached[2]["loss"]) != pytest.approx(float(cached[0]["loss"]), rel=1e-2)


def test_a_cache_that_is_asked_for_but_has_nothing_to_keep_is_refused(digits, small_run, tmp_path):
    recipe = _recipe(digits, small_run, tmp_path, cache=str(tmp_path / "cache"), unfreeze="all", views=None)
    with pytest.raises(
        CacheError, match=r"nothing can be kept in --cache .*/cache: nothing is frozen; use --cache auto or off\."
    ):
        kerastk.train(recipe, show=False)
    assert not (tmp_path / "runs").exists()


def test_a_cache_folder_that_cannot_be_made_is_one_line_or_done_without(digits, small_run, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(KerastkError, match="file"):
        plan(_recipe(digits, small_run, tmp_path, cache=str(tmp_path / "file" / "cache")), screen=Screen(False))
    monkeypatch.setenv("KERASTK_CACHE", str(tmp_path / "file" / "cache"))
    settled = plan(_recipe(digits, small_run, tmp_path, cache="auto"), screen=Screen(False))
    assert settled.choices["finetune"].point is None
    assert settled.choices["finetune"].reason


# What happens to a run whose cache fails it is tried in a process of its own, which ends by being killed.
CHILD = """
import contextlib, ctypes, io, json, os, resource, sys, time
from pathlib import Path

photos, weights, root = sys.argv[1], sys.argv[2], Path(sys.argv[3])
# Root may write where nobody else may; without CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH it may not.
libc, header, sets = ctypes.CDLL(None), (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
libc.capget(header, sets)
sets[0] &= ~0b110
libc.capset(header, sets)

import kerastk
from kerastk.training.store import Store, entries

found = {}

def go(scenario, data=photos, **values):
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        try:
            run = kerastk.train(kerastk.Finetune(
                data=data, weights=weights, runs=str(root / scenario), split="85/15", threads=2, batch_size=40,
                **values))
            ended = [[row["phase"], row["loss"]] for row in run.log]
        except kerastk.KerastkError as error:
            ended = f"{type(error).__name__}: {error}"
        except Exception as error:
            ended = f"not on purpose: {error!r}"
    found[scenario] = {"said": said.getvalue(), "ended": ended}

small = {"unfreeze": "head"}
big = {"unfreeze": 3, "epochs": 1, "views": 1, "cache_dtype": "float32", "probe": "none"}

def folder(name):
    (root / name / "activations").mkdir(parents=True)
    os.environ["KERASTK_CACHE"] = str(root / name)
    return root / name / "activations"

made = folder("read-only")
made.chmod(0o500)
try:
    (made / "try").mkdir()
    found["writable"] = True
except OSError:
    pass
go("read-only, auto", **small)
go("read-only, named", **small, cache=str(made))
found["left in read-only"] = os.listdir(made)

# Room for the model's file and a checkpoint, but not for the activations of all training photos.
soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
made = folder("full")
resource.setrlimit(resource.RLIMIT_FSIZE, (3_400_000, hard))
go("full, auto", data=str(root / "photos"), **big)
found["left in full"] = [str(path) for path in made.rglob("rows.bin")]
go("full, named", data=str(root / "photos"), **big, cache=str(root / "named"))
resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
(root / "found.json").write_text(json.dumps(found))

count, append = 0, Store.append

def killed_at_the_sixteenth(self, hashes, values):
    global count
    count += 1
    if count == 16:
        def hang(number):
            print("writing", file=sys.__stdout__, flush=True)
            time.sleep(600)
        os.fsync = hang
    append(self, hashes, values)

Store.append = killed_at_the_sixteenth
kerastk.training.cache._FLUSH_BYTES = 1
go("killed", unfreeze=1, epochs=2, views=2, cache=str(root / "killed cache"))
print("not killed:", found["killed"], flush=True)
"""


@pytest.fixture(scope="module")
def failing(digits, small_run, tmp_path_factory):
    """What became of the runs of CHILD, and the folder in which they were."""
    root = tmp_path_factory.mktemp("failing")
    shutil.copytree(digits, root / "photos")
    for number in range(480):
        pixels = np.random.default_rng(number).integers(0, 256, (8, 8), np.uint8)
        (root / "photos" / str(number % 4) / f"more{number}.png").write_bytes(to_png(pixels))
    with open(root / "errors", "w") as errors:
        process = subprocess.Popen(
            [sys.executable, "-c", CHILD, str(digits), str(small_run.path), str(root)],
            stdout=subprocess.PIPE, stderr=errors, text=True,
        )  # fmt: skip
        said = process.stdout.readline()
        process.kill()
        process.communicate()
    assert (said, process.returncode) == ("writing\n", -signal.SIGKILL), (root / "errors").read_text()[-2000:]
    return json.loads((root / "found.json").read_text()), root


def test_a_run_that_cannot_write_its_cache_goes_on_without_and_says_so(failing):
    found, _ = failing
    if "writable" in found:
        pytest.skip("permissions do not hold for this user")
    result = found["read-only, auto"]
    assert [phase for phase, _ in result["ended"]] == ["probe"]
    assert all(np.isfinite(float(loss)) for _, loss in result["ended"])
    said = " ".join(result["said"].split())
    assert "cannot be written: Permission denied; going on without it." in said
    assert said.count("going on without it") == 1
    assert found["left in read-only"] == []


def test_a_run_whose_disk_is_full_goes_on_without_a_cache_and_leaves_no_part_of_it(failing):
    found, _ = failing
    result = found["full, auto"]
    assert [phase for phase, _ in result["ended"]] == ["finetune"]
    assert "cannot be written: File too large; going on without it." in " ".join(result["said"].split())
    assert found["left in full"] == []


@pytest.mark.parametrize("scenario", ["read-only, named", "full, named"])
def test_a_cache_folder_that_was_named_and_cannot_be_written_ends_the_run_with_one_line(failing, scenario):
    found, _ = failing
    if "writable" in found and scenario.startswith("read-only"):
        pytest.skip("permissions do not hold for this user")
    ended = found[scenario]["ended"]
    assert isinstance(ended, str)
    assert ended.startswith("CacheError: ")
    assert "cannot be written: " in ended
    assert "\n" not in ended


def test_after_a_kill_while_the_cache_is_written_the_next_run_ends_as_with_a_fresh_one(
    failing, cold, digits, small_run, tmp_path
):
    first, _, cold_passes = cold
    folder = failing[1] / "killed cache"

    def rows_and_records():
        found = []
        for entry in entries(folder):
            described = entry.described
            width = math.prod(described["shape"]) * (4 if described["dtype"] == "float32" else 2)
            files = {file.name: file.stat().st_size for file in entry.path.iterdir()}
            found.append((files.get("rows.bin", 0) / width, files.get("index.bin", 0) / 36))
        return sorted(found)

    # Whole were the features of plain and mirrored photos, validation, and three batches of the first view.
    assert rows_and_records() == [(0, 0), (24, 24), (4 * 32, 3 * 32), (136, 136), (160, 160)]
    with _counted() as passes:
        run = kerastk.train(_recipe(digits, small_run, tmp_path, cache=str(folder)), show=False)
    assert _figures(run) == _figures(first)
    # It went on where the other one was.
    assert len(passes) == 2 + 5 < cold_passes
    assert rows_and_records() == [(24, 24), (136, 136), (136, 136), (136, 136), (160, 160)]


MANY = """
import resource, sys
from pathlib import Path
import kerastk
from kerastk.networks.classifier import classifier

model = classifier("mobilenet_0.25", classes=4, image_size=32, dropout=0.2, weights=None)
status = Path("/proc/self/status").read_text().split()
before = 1024 * int(status[status.index("VmRSS:") + 1])
photos, weights, root = sys.argv[1:]
run = kerastk.train(
    kerastk.Finetune(
        data=photos, base="mobilenet_0.25", image_size=32, weights=weights, unfreeze=1, epochs=1, views=2,
        cache=root + "/cache", runs=root + "/runs",
    ),
    show=False,
)
print(before, 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, len(run.log))
"""


@pytest.mark.slow
def test_20000_photos_take_less_than_2_gb_of_memory(small_run, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (20_000, 8, 8), np.uint8)
    for number, photo in enumerate(pixels):
        folder = tmp_path / "photos" / str(number % 4)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number}.png").write_bytes(to_png(photo))
    done = subprocess.run(
        [sys.executable, "-c", MANY, str(tmp_path / "photos"), str(small_run.path), str(tmp_path)],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    before, peak, rows = map(int, done.stdout.splitlines()[-1].split())
    assert rows == 2
    # All of them went through the cache; one epoch shows one view.
    kept = [entry for entry in entries(tmp_path / "cache") if len(entry.described["shape"]) == 3]
    assert sorted((entry.path / "index.bin").stat().st_size // 36 for entry in kept) == [3_000, 14_000]
    print(f"{(peak - before) / 1e9:.2f} GB above the {before / 1e9:.2f} GB of a process that has built the network")
    assert peak - before < 2e9
