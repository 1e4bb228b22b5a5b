import dataclasses
import hashlib
import itertools
from collections import Counter

import numpy as np
import pytest

from kerastk.datasets.array_data import ArrayRows, look_at_arrays, open_array_data
from kerastk.datasets.arrays import open_arrays
from kerastk.datasets.photos import open_photos
from kerastk.datasets.pipeline import balanced_order, epoch_order
from kerastk.errors import DataError, PhotoError

USUAL = {
    "split": None, "fractions": (0.7, 0.15, 0.15), "split_seed": None, "strict": False, "batch_size": 8, "seed": 0,
}  # fmt: skip


def opened(data, **options):
    return open_array_data(data, **(USUAL | options))


def images(count, seed=0, channels=1):
    """Different images: (count, 6, 5, channels) uint8."""
    return np.random.default_rng(seed).integers(0, 256, (count, 6, 5, channels), np.uint8)


def labels(**counts):
    return [name for name, count in counts.items() for _ in range(count)]


TEN = images(10), list("ababababab")


@pytest.fixture
def rows():
    """The rows of ten images: `rows(training=True, batch_size=4)`."""

    def make(*, training=False, batch_size=4, seed=0, balanced=False, data=TEN, keep=None):
        arrays = open_arrays(data)
        keep = np.arange(len(arrays.values)) if keep is None else np.array(keep)
        look = look_at_arrays(arrays)
        return ArrayRows(
            [look.photos[number] for number in keep], arrays.values, keep, classes=look.source.classes,
            batch_size=batch_size, training=training, seed=seed, balanced=balanced,
        )  # fmt: skip

    return make


def batches(split, first=0, last=1, skip=0):
    return list(split.batches(first, last, skip))


def assert_equal(one, other):
    assert len(one) == len(other)
    for (values, marks), (other_values, other_marks) in zip(one, other, strict=True):
        assert np.array_equal(values, other_values)
        assert np.array_equal(marks, other_marks)


def which(split, values):
    """The number of the item that each row of a batch is."""
    known = {split.example(number)[0].tobytes(): number for number in range(len(split.photos))}
    assert len(known) == len(split.photos)
    return [known[each.tobytes()] for each in values]


def sides(data):
    """The rows of each split, by their places."""
    return {name: [photo.path for photo in photos] for name, photos in data.manifest.splits.items()}


# Batches.


def test_an_epoch_shows_every_row_in_the_order_of_seed_and_epoch(rows):
    for seed in (0, 5):
        training = rows(training=True, batch_size=5, seed=seed)
        for epoch in range(3):
            shown = [number for values, _ in batches(training, epoch, epoch + 1) for number in which(training, values)]
            assert shown == epoch_order(10, seed, epoch).tolist() == training.numbers(epoch).tolist()


def test_batches_of_training_are_full_and_wrap_around(rows):
    training = rows(training=True)
    assert training.steps == len(training) == 3
    shown = [which(training, values) for values, _ in batches(training)]
    order = epoch_order(10, 0, 0).tolist()
    assert shown == [order[:4], order[4:8], order[8:] + order[:2]]


def test_a_batch_is_never_larger_than_the_split(rows):
    training = rows(training=True, batch_size=64)
    [(values, marks)] = batches(training)
    assert training.batch_size == len(values) == len(marks) == 10


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize(
    ("data", "shape", "dtype"),
    [
        (TEN, (6, 5, 1), "u1"),
        ((images(10, channels=3), TEN[1]), (6, 5, 3), "u1"),
        ((images(10)[..., 0, 0], TEN[1]), (6,), "f4"),
    ],
)
def test_batches_have_the_shape_and_type_that_a_model_takes(data, shape, dtype, training, rows):
    split = rows(data=data, training=training)
    values, marks = batches(split)[0]
    assert (values.shape, values.dtype) == ((4, *shape), np.dtype(dtype))
    assert (marks.shape, marks.dtype) == ((4, 2), np.float32)
    assert set(marks.sum(axis=1)) == {1.0}
    assert set(marks.ravel()) == {0.0, 1.0}
    assert split.noun == ("photos" if len(shape) == 3 else "rows")
    value, mark = split.example(3, 7)
    assert (value.shape, mark.shape, mark.dtype) == (shape, (2,), np.float32)
    assert np.array_equal(value.reshape(shape), np.asarray(data[0][3], dtype).reshape(shape))


def test_labels_go_with_their_rows(rows):
    training = rows(training=True, batch_size=3, keep=[9, 2, 5, 0, 3])
    assert training.truth.tolist() == [1, 0, 1, 0, 1]
    for values, marks in batches(training, 0, 3):
        for number, mark in zip(which(training, values), marks, strict=True):
            assert mark.argmax() == training.truth_of(number) == training.truth[number]


def test_evaluation_is_in_order_and_its_last_batch_is_short(rows):
    judged = rows(keep=[9, 2, 5, 0, 3, 7, 1, 8, 4, 6])
    for _ in range(2):
        seen = list(judged)
        assert [len(values) for values, _ in seen] == [4, 4, 2]
        assert [number for values, _ in seen for number in which(judged, values)] == list(range(10))
        assert np.array_equal(np.concatenate([values for values, _ in seen]), TEN[0][judged.rows])
        assert np.concatenate([marks for _, marks in seen]).argmax(axis=1).tolist() == judged.truth.tolist()
    # Passes one after another are one row of batches, as those of photos are.
    together = batches(judged, 0, 2)
    assert [len(values) for values, _ in together] == [4] * 5
    assert [number for values, _ in together for number in which(judged, values)] == [*range(10), *range(10)]


def test_each_pass_over_the_training_split_is_the_next_epoch(rows):
    training = rows(training=True)
    for epoch in range(3):
        assert_equal(list(training), batches(rows(training=True), epoch, epoch + 1))


def test_epochs_one_after_another_are_those_one_by_one(rows):
    together = batches(rows(training=True), 1, 4)
    apart = [batch for epoch in (1, 2, 3) for batch in batches(rows(training=True), epoch, epoch + 1)]
    assert_equal(together, apart)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("skip", range(9))
def test_without_its_first_batches_a_pass_is_as_with_them(skip, training, rows):
    split = rows(training=training, batch_size=4)
    assert_equal(batches(split, 1, 4, skip), batches(split, 1, 4)[skip:])


@pytest.mark.parametrize("training", [False, True])
def test_a_state_of_the_iteration_goes_on_where_it_was(training, rows):
    split = rows(training=training)
    iterator = iter(split.batches(0, 3))
    before = [next(iterator) for _ in range(3)]
    state = iterator.get_state()
    after = list(iterator)
    again = iter(split.batches(0, 3))
    again.set_state(state)
    assert_equal(list(again), after)
    assert_equal(before + after, batches(split, 0, 3))
    assert len(after) > 3


def test_the_seed_changes_the_order(rows):
    one, other = rows(training=True, seed=1), rows(training=True, seed=2)
    assert not np.array_equal(batches(one)[0][0], batches(other)[0][0])
    assert_equal(batches(one), batches(rows(training=True, seed=1)))


def test_a_balanced_epoch_shows_each_class_as_often(rows):
    data = images(40), labels(a=30, b=7, c=3)
    training = rows(training=True, balanced=True, data=data, batch_size=10)
    marks = np.concatenate([marks for _, marks in batches(training, 2, 3)])
    assert sorted(marks.sum(axis=0).tolist()) == [13, 13, 14]
    assert training.numbers(2).tolist() == balanced_order(training.truth, 0, 2).tolist()


def test_waiting_and_gathering_are_counted(rows):
    training = rows(training=True)
    batches(training)
    assert training.waited > 0
    assert training.decoding > 0
    assert training.failure is None


def test_what_is_done_to_a_batch_does_not_reach_the_array(rows):
    training = rows(training=True)
    whole = TEN[0].copy()
    for values, _ in training.batches(0, 1):
        values[:] = 0
    training.example(0)[0][:] = 0
    assert np.array_equal(training.values, whole)


def test_a_model_is_trained_on_them(rows):
    import keras

    training, judged = rows(training=True), rows()
    model = keras.Sequential([keras.Input((6, 5, 1)), keras.layers.Flatten(), keras.layers.Dense(2, "softmax")])
    model.compile("sgd", "categorical_crossentropy")
    model.fit(training.batches(0, 2), steps_per_epoch=training.steps, epochs=2, verbose=0, shuffle=False)
    assert int(model.optimizer.iterations) == 2 * training.steps
    answers = model.predict(judged.batches(0, 1), steps=judged.steps, verbose=0)
    assert np.allclose(answers, model.predict(TEN[0], verbose=0), atol=1e-6)


# The look.


def test_a_look_has_a_photo_for_each_row():
    look = look_at_arrays(open_arrays((images(12, channels=3), labels(**{"10": 6, "9": 6}))))
    assert [photo.path for photo in look.photos] == [f"array#{row}" for row in range(12)]
    photo = look.photos[11]
    digest = hashlib.sha256(images(12, channels=3)[11].tobytes()).hexdigest()
    assert dataclasses.astuple(photo) == ("array#11", "9", None, digest, digest, "array", 5, 6, "RGB")
    assert look.source.classes == ["9", "10"]
    assert (look.source.name, look.source.files, look.bad) == ("array", [], [])
    with pytest.raises(PhotoError, match="array#3 is a row of an array and no file"):
        look.source.read("array#3")
    assert look_at_arrays(open_arrays(images(2))).photos[0].mode == "L"
    vector = look_at_arrays(open_arrays(images(3)[:, :, 0, 0])).photos[0]
    assert (vector.width, vector.height, vector.mode, vector.label) == (6, 1, "F", "")


def test_copies_leaks_and_labels_that_differ_are_found(tmp_path):
    first = images(30)
    train, test = np.concatenate([first, first[:2]]), np.concatenate([images(9, seed=1), first[:1]])
    np.savez(tmp_path / "x.npz", x_train=train, x_test=test, y_train=labels(a=16, b=16), y_test=labels(a=5, b=5))
    look = look_at_arrays(open_arrays(tmp_path / "x.npz"))
    found = {(each.kind, each.paths): each.text for each in look.findings if each.kind != "tiny-class"}
    three = ("x.npz/x_train#0", "x.npz/x_train#30", "x.npz/x_test#9")
    assert found == {
        ("two-labels", three): "the same bytes: a, b",
        ("two-labels", ("x.npz/x_train#1", "x.npz/x_train#31")): "the same bytes: a, b",
        ("leak", three): "the same bytes: test, train",
    }
    assert len({photo.group for photo in look.photos}) == 39
    without = look_at_arrays(dataclasses.replace(open_arrays(tmp_path / "x.npz"), labels=None))
    assert [(each.kind, len(each.paths)) for each in without.findings] == [("copies", 3), ("copies", 2), ("leak", 3)]
    small = look_at_arrays(open_arrays((images(120), labels(a=115, b=5)))).findings
    assert [(each.kind, each.paths) for each in small] == [("tiny-class", ("b",)), ("imbalance", ("a", "b"))]


# The split.


def test_the_split_is_exactly_stratified():
    data = opened((images(200), labels(a=100, b=60, c=40)))
    counts = {name: dict(data.manifest.counts(name)) for name in ("train", "val", "test")}
    assert counts == {
        "train": {"a": 70, "b": 42, "c": 28}, "val": {"a": 15, "b": 9, "c": 6}, "test": {"a": 15, "b": 9, "c": 6},
    }  # fmt: skip
    together = list(itertools.chain(*sides(data).values()))
    assert sorted(together, key=lambda path: int(path[6:])) == [f"array#{row}" for row in range(200)]
    assert (data.classes, data.labels, data.label, data.what, data.columns) == (["a", "b", "c"],) * 2 + (
        "class", "images", None,
    )  # fmt: skip
    assert (data.train.training, data.val.training, data.test.training) == (True, False, False)


def test_rows_of_a_split_stand_in_the_order_of_the_source():
    data = opened((images(200), labels(a=100, b=100)))
    for split in (data.train, data.val, data.test):
        assert split.rows.tolist() == sorted(split.rows.tolist())
        assert [photo.path for photo in split.photos] == [f"array#{row}" for row in split.rows]
        for number in (0, len(split.photos) - 1):
            assert np.array_equal(split.example(number)[0], data.values[split.rows[number]])
    # Not in the order of their names as texts.
    assert sides(data)["train"] != sorted(sides(data)["train"])


def test_the_split_goes_by_content_and_seed_alone():
    def digests(data, **options):
        return {photo.sha256: name for name, each in opened(data, **options).manifest.splits.items() for photo in each}

    values, marks = images(90), np.array(labels(a=45, b=45))
    turned = np.random.default_rng(1).permutation(90)
    assert digests((values, marks)) == digests((values[turned], marks[turned]))
    assert digests((values, marks)) != digests((values, marks), split_seed=1)


@pytest.mark.parametrize("labelled", [True, False])
def test_copies_stay_on_one_side(labelled):
    values = np.repeat(images(60), 3, axis=0)
    data = opened((values, np.repeat(labels(a=30, b=30), 3)), labelled=labelled)
    sets = [{photo.sha256 for photo in photos} for photos in data.manifest.splits.values()]
    assert all(one.isdisjoint(other) for one, other in itertools.combinations(sets, 2))
    assert [len(photos) for photos in data.manifest.splits.values()] == [120, 30, 30]


def test_splits_that_come_with_the_data_are_kept_and_leaks_leave_train(tmp_path):
    values = images(60)
    np.savez(tmp_path / "x.npz", x_train=values[:50], x_test=values[45:], y_train=labels(a=25, b=25),
             y_test=labels(b=5, a=5, c=5)[:15])  # fmt: skip
    with pytest.raises(DataError, match="class 'c' has no training photos"):
        opened(tmp_path / "x.npz")
    data = opened(tmp_path / "x.npz", labelled=False)
    assert {name: len(paths) for name, paths in sides(data).items()} == {"train": 37, "val": 8, "test": 15}
    assert [each.kind for each in data.manifest.set_aside] == ["leak"] * 5
    assert data.manifest.notes == ["val cut from train"]
    with pytest.raises(DataError, match="--split-seed would not be used"):
        open_with_all(tmp_path, values, split_seed=3)


def open_with_all(folder, values, **options):
    np.savez(folder / "y.npz", x_train=values[:50], x_val=values[50:55], x_test=values[55:])
    return opened(folder / "y.npz", labelled=False, **options)


def test_what_stood_in_a_split_stays_there():
    values = images(60)
    first = opened(values, labelled=False)
    assigned = {photo.sha256: name for name, photos in first.manifest.splits.items() for photo in photos}
    more = opened(np.concatenate([values, images(60, seed=1)]), labelled=False, split_seed=4, assigned=assigned)
    for name, photos in first.manifest.splits.items():
        assert {photo.sha256 for photo in photos} <= {photo.sha256 for photo in more.manifest.splits[name]}


# Without labels.


def test_rows_without_labels_are_split_as_one_stock():
    data = opened(images(200), labelled=False)
    assert {name: len(paths) for name, paths in sides(data).items()} == {"train": 140, "val": 30, "test": 30}
    assert data.classes == [""]
    values, marks = next(iter(data.train))
    assert (values.shape, marks.shape) == ((8, 6, 5, 1), (8, 1))
    assert (marks == 1).all()
    assert data.look.findings == []
    without = opened(images(200), labelled=False, split="85/15", fractions=(0.85, 0.15, 0.0))
    assert without.test is None
    assert without.manifest.notes == [
        "no test split: the figures below are of the validation split, which chose the model"
    ]


@pytest.mark.parametrize(
    ("marks", "stratified", "needed"),
    [
        (labels(a=100, b=60, c=40), True, None),
        (labels(a=198, b=2), False, "class 'b' has 2 different photos"),
        (labels(a=200), True, "one class only"),
        (labels(a=199, b=1), False, "class 'b' has 1 different photos"),
    ],
)
def test_labels_that_are_not_needed_still_divide_the_split_where_they_can(marks, stratified, needed):
    data = opened((images(200), marks), labelled=False)
    assert {name: len(paths) for name, paths in sides(data).items()} == {"train": 140, "val": 30, "test": 30}
    counts = Counter({name: count * 15 // 100 for name, count in Counter(marks).items()})
    assert (data.manifest.counts("val") == data.manifest.counts("test") == counts) is stratified
    assert data.classes == sorted(set(marks))
    if needed is not None:
        with pytest.raises(DataError, match=needed):
            opened((images(200), marks))


@pytest.mark.parametrize(
    ("data", "options", "message"),
    [
        (images(200), {}, "array has no labels; give y_train beside x_train in a .npz file, a column called label"),
        (images(2), {"labelled": False}, "there are 2 different photos; a split into train, val, test needs at"),
        (np.repeat(images(2), 20, axis=0), {"labelled": False}, "there are 2 different photos;"),
        (np.repeat(images(20), 2, axis=0), {"labelled": False, "strict": True}, "strict: 20 findings, the first:"),
    ],
)  # fmt: skip
def test_what_cannot_be_split_is_refused(data, options, message):
    with pytest.raises(DataError) as caught:
        opened(data, **options)
    assert message in str(caught.value)


def test_training_rows_that_are_all_in_another_split_are_refused(tmp_path):
    values = images(20)
    np.savez(tmp_path / "x.npz", x_train=values[:10], x_val=values[10:15], x_test=values)
    with pytest.raises(DataError, match="no photos are left for train: all have copies in another split"):
        opened(tmp_path / "x.npz", labelled=False)
    np.savez(tmp_path / "x.npz", x_train=values[:10], x_val=values[10:15], x_test=values[10:])
    with pytest.raises(DataError, match="no photos are left for val: all have copies in another split"):
        opened(tmp_path / "x.npz", labelled=False)


# All of it at once.


def test_from_a_table_to_batches(tmp_path):
    random = np.random.default_rng(0).normal(size=(100, 3))
    lines = [f"{a},{'uv'[row % 2]},{b},{c}" for row, (a, b, c) in enumerate(random)]
    (tmp_path / "t.csv").write_text("a,label,b,c\n" + "\n".join(lines))
    data = opened(tmp_path / "t.csv")
    assert (data.columns, data.what, data.classes) == (["a", "b", "c"], "vectors", ["u", "v"])
    values, marks = next(iter(data.val))
    assert np.array_equal(values, random.astype("f4")[data.val.rows[:8]])
    assert marks.argmax(axis=1).tolist() == [row % 2 for row in data.val.rows[:8]]
    assert data.val.photos[0].path == f"t.csv#{data.val.rows[0]}"


def test_what_became_of_the_values_is_noted():
    data = opened(images(50) / 255, labelled=False)
    assert data.manifest.notes == ["array: values from 0 to 1 became 0 to 255, round(255 x)"]
    assert np.array_equal(data.values, images(50))


def test_mnist_from_its_files_to_batches(shared):
    folder = shared / "data" / "mnist"
    if not folder.is_dir():
        pytest.skip(f"no {folder}")
    data = opened(folder, batch_size=256)
    assert [len(split.photos) for split in (data.train, data.val, data.test)] == [49_411, 10_589, 10_000]
    assert data.classes == [str(digit) for digit in range(10)]
    assert data.look.findings == []
    # Of each digit in train 15 of 85 go to val, to within one.
    digits = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert [data.manifest.counts("val")[str(digit)] for digit in range(10)] == [round(n * 15 / 85) for n in digits]
    seen, ink = np.zeros(10), 0
    for values, marks in data.train:
        seen += marks.sum(axis=0)
        ink += int(values.sum(dtype=np.int64))
    filled = data.train.steps * 256 - 49_411
    assert seen.sum() == 49_411 + filled
    assert ink / (seen.sum() * 784 * 255) == pytest.approx(0.1307, abs=5e-4)
    assert data.test.photos[17].path == "t10k-images-idx3-ubyte.gz#17"
    assert [photo.label for photo in data.test.photos[:5]] == ["7", "2", "1", "0", "4"]


def test_photos_without_classes_are_split_as_one_stock(tree, picture, encode):
    options = USUAL | {"max_bad": 0.0, "image_size": 8, "resize": "crop", "augment": "none", "threads": 1}
    root = tree({f"{number}.png": encode(picture(number)) for number in range(20)})
    with pytest.raises(DataError, match="no photos in class folders"):
        open_photos(root, **options)
    data = open_photos(root, labelled=False, **options)
    assert data.classes == [""]
    assert [len(split.photos) for split in (data.train, data.val, data.test)] == [14, 3, 3]
    values, marks = next(iter(data.val))
    assert (values.shape, marks.tolist()) == ((3, 8, 8, 3), [[1.0]] * 3)
