import contextlib
import gzip
import io
import os
import tarfile
import tracemalloc
import zipfile

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kerastk.datasets import archive, cifar, stored
from kerastk.datasets.array_data import open_array_data
from kerastk.datasets.arrays import is_arrays, open_arrays
from kerastk.datasets.source import open_source
from kerastk.errors import DataError
from kerastk.storage import cache_folder

RANDOM = np.random.default_rng(0)
TEN = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
HUNDRED = [f"fine_{number}" for number in range(100)]
NAMES = "\n".join(TEN).encode() + b"\n\n"


def records(count, *kinds):
    """The bytes of so many records: random labels, one of each kind, and random pixels."""
    labels = np.stack([RANDOM.integers(0, kind, count, np.uint8) for kind in kinds], axis=1)
    return np.concatenate([labels, RANDOM.integers(0, 256, (count, 3072), np.uint8)], axis=1).tobytes()


def decoded(data, labels):
    """The images and labels of records, as the page of CIFAR describes them."""
    images, found = [], []
    for start in range(0, len(data), labels + 3072):
        record = data[start : start + labels + 3072]
        red, green, blue = (record[labels + first : labels + first + 1024] for first in (0, 1024, 2048))
        images.append([[[red[32 * y + x], green[32 * y + x], blue[32 * y + x]] for x in range(32)] for y in range(32)])
        found.append(record[labels - 1])
    return np.array(images, np.uint8), found


TRAINING = [f"data_batch_{number}.bin" for number in range(1, 6)]
CIFAR10 = {name: records(2 + number, 10) for number, name in enumerate([*TRAINING, "test_batch.bin"])} | {
    "batches.meta.txt": NAMES, "readme.html": b"<html>"
}  # fmt: skip
CIFAR100 = {
    "train.bin": records(9, 20, 100), "test.bin": records(4, 20, 100),
    "fine_label_names.txt": "\n".join(HUNDRED).encode(), "coarse_label_names.txt": b"fish\n",
}  # fmt: skip


def packed(files, kind, inside="cifar-10-batches-bin/"):
    """The bytes of an archive of the files, as the makers of CIFAR pack them: in a folder."""
    out = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as whole:
            for name, data in files.items():
                whole.writestr(inside + name, data)
        return out.getvalue()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as whole:
        if inside:
            folder = tarfile.TarInfo(inside)
            folder.type = tarfile.DIRTYPE
            whole.addfile(folder)
        for name, data in files.items():
            member = tarfile.TarInfo(inside + name)
            member.size = len(data)
            whole.addfile(member, io.BytesIO(data))
    return gzip.compress(out.getvalue(), 1, mtime=0) if kind.endswith("gz") else out.getvalue()


@pytest.fixture
def placed(tmp_path, tree):
    """Writes the files as a folder, or packed as `kind`, and returns its path."""

    def call(files, kind=None, **options):
        if kind is None:
            return tree(files, "cifar")
        path = tmp_path / f"cifar.{kind}"
        path.write_bytes(packed(files, kind, **options))
        return path

    return call


@pytest.fixture
def opened(placed):
    return lambda *args, **options: open_arrays(placed(*args, **options))


KINDS = [None, "tar.gz", "tgz", "tar", "zip"]


@pytest.mark.parametrize("piece", [1, 2**22])
@pytest.mark.parametrize("kind", KINDS)
def test_cifar_10_is_what_its_page_says(kind, piece, placed, monkeypatch):
    monkeypatch.setattr(stored, "_PIECE", piece)
    path = placed(CIFAR10, kind)
    assert is_arrays(path)
    found = open_arrays(str(path))
    # In the order of the batches' numbers, whatever that of the archive.
    images, labels = zip(*(decoded(CIFAR10[name], 1) for name in [*TRAINING, "test_batch.bin"]), strict=True)
    assert np.array_equal(found.values, np.concatenate(images))
    assert (found.values.dtype, found.values.shape) == (np.uint8, (2 + 3 + 4 + 5 + 6 + 7, 32, 32, 3))
    assert found.labels == [TEN[label] for some in labels for label in some]
    assert found.splits == ["train"] * 20 + ["test"] * 7
    assert (found.name, found.what, found.findings, found.notes) == ("cifar", "images", [], [])
    assert (found.place(0), found.place(3), found.place(26)) == (
        "data_batch_1.bin#0", "data_batch_2.bin#1", "test_batch.bin#6",
    )  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_of_cifar_100_the_fine_label_is_the_class(kind, opened):
    found = opened(CIFAR100, kind, **({} if kind is None else {"inside": "cifar-100-binary/"}))
    images, labels = zip(*(decoded(CIFAR100[name], 2) for name in ("train.bin", "test.bin")), strict=True)
    assert np.array_equal(found.values, np.concatenate(images))
    assert found.labels == [HUNDRED[label] for some in labels for label in some]
    assert found.splits == ["train"] * 9 + ["test"] * 4
    assert found.findings == []


def test_without_the_file_of_names_labels_are_numbers(opened):
    assert opened({name: CIFAR10[name] for name in CIFAR10 if name.endswith(".bin")}).labels == [
        str(label) for name in [*TRAINING, "test_batch.bin"] for label in decoded(CIFAR10[name], 1)[1]
    ]


def test_one_split_may_be_absent(opened):
    found = opened({"test.bin": CIFAR100["test.bin"]}, "zip", inside="")
    assert (found.splits, len(found.values)) == (["test"] * 4, 4)
    found = opened({name: CIFAR10[name] for name in TRAINING})
    assert (found.splits, len(found.values)) == (["train"] * 20, 20)


def test_other_files_are_told(opened):
    others = {"notes.txt": b"x", ".DS_Store": b"", "data_batch_6.bin": b"y"}
    expected = {("hidden", ".DS_Store"), ("other-file", "data_batch_6.bin"), ("other-file", "notes.txt")}
    assert {(each.kind, *each.paths) for each in opened(CIFAR10 | others).findings} == expected
    found = opened(CIFAR10 | others, "tar.gz")
    assert {(each.kind, each.paths[0].rpartition("/")[2]) for each in found.findings} == expected


def test_names_of_classes_may_come_from_windows(opened):
    text = b"\xef\xbb\xbf" + NAMES.replace(b"\n", b"\r\n")
    assert set(opened(CIFAR10 | {"batches.meta.txt": text}).labels) <= set(TEN)


def test_it_is_split_like_other_arrays(opened):
    data = open_array_data(
        opened({"train.bin": records(300, 20, 100), "test.bin": CIFAR100["test.bin"]}), split=None,
        fractions=(0.7, 0.15, 0.15), split_seed=None, strict=False, batch_size=8, seed=0, labelled=False,
    )  # fmt: skip
    images, _ = next(iter(data.train))
    assert images.shape == (8, 32, 32, 3)
    assert [photo.path for photo in data.test.photos] == [f"test.bin#{row}" for row in range(4)]


# What is taken for CIFAR.

PHOTOS = {f"{label}/{number}.jpg": b"x" for label in ("cat", "dog") for number in range(9)}


@pytest.mark.parametrize("kind", ["tar.gz", "tar", "zip"])
@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (PHOTOS, False),
        (PHOTOS | {"test.bin": b""}, False),
        ({"test.bin": b""} | PHOTOS, False),
        ({"notes.txt": b""}, False),
        ({}, False),
        ({"train.bin": b""}, True),
        ({"test_batch.bin": b""}, True),
        ({"batches.meta.txt": NAMES}, False),
    ],
)
def test_archives_of_photos_stay_such(files, expected, kind, placed):
    path = placed(files, kind, inside="")
    assert is_arrays(path) is expected
    assert is_arrays(placed(files, kind, inside="data/")) is expected
    if files == PHOTOS:
        assert open_source(path).classes == ["cat", "dog"]


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"train.bin": b""}, True), ({"data_batch_3.bin": b""}, True), ({"train.bin": b"", "cat/1.jpg": b""}, False),
        ({"train.bin": b"", "1.jpg": b""}, False), ({"a/train.bin": b""}, False), ({"TRAIN.BIN": b""}, False),
        ({"train.bin": b"", ".git/config": b""}, True), ({"fine_label_names.txt": b""}, False),
    ],
)  # fmt: skip
def test_folders_are_told_by_the_names_in_them(files, expected, tree):
    assert is_arrays(tree(files)) is expected


def test_the_look_at_an_archive_is_short(tmp_path, monkeypatch):
    # Of the rest of it nothing is unpacked: that is damaged.
    files = {f"{number}.jpg": bytes(1000) for number in range(200)}
    path = tmp_path / "photos.tar.gz"
    path.write_bytes(packed(files, "tar.gz")[:-200])
    assert len(archive.first_names(path)) == 11
    assert is_arrays(path) is False
    path.write_bytes(packed({"train.bin": bytes(2**20)} | files, "tar.gz")[:-200])
    monkeypatch.setattr(archive, "_GUESS_BYTES", 2**19)
    assert archive.first_names(path) == ["cifar-10-batches-bin/train.bin"]
    assert is_arrays(path) is True
    assert list(cache_folder().iterdir()) == []


def test_what_cannot_be_read_is_not_taken_for_arrays(tmp_path, within):
    for name, content in (
        ("x.zip", b""),
        ("x.tar", b"x" * 2000),
        ("x.tgz", gzip.compress(b"x")),
        ("y.tgz", b"\x1f\x8b"),
    ):
        (tmp_path / name).write_bytes(content)
        assert is_arrays(tmp_path / name) is False
    (tmp_path / "folder.zip").mkdir()
    for name in ("nowhere.zip", "folder.zip", "a\0b.tar"):
        assert is_arrays(tmp_path / name) is False
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe.tar.gz")
        assert within(30, is_arrays, tmp_path / "pipe.tar.gz") is False
        with pytest.raises(DataError, match="is no file, but a pipe or device"):
            within(30, open_arrays, tmp_path / "pipe.tar.gz")


def test_photos_of_cifar_stay_photos(shared):
    path = shared / "data" / "cifar10.zip"
    if not path.is_file():
        pytest.skip(f"no {path}")
    assert is_arrays(path) is False


# Damage.

BATCH, TRAIN = CIFAR10["data_batch_2.bin"], CIFAR100["train.bin"]
# A file of CIFAR-10, what is in its place, and what is told of it.
DAMAGE10 = [
    (
        "data_batch_2.bin",
        BATCH[:-1],
        "9,218 bytes; a record of CIFAR-10 has 3,073, so it is cut short or another file.",
    ),
    ("data_batch_2.bin", BATCH + b"\0", "9,220 bytes; a record of CIFAR-10 has 3,073, so it is cut short or another"),
    ("data_batch_2.bin", BATCH[:100], "100 bytes; a record of CIFAR-10 has 3,073, so it is cut short or another file."),
    ("data_batch_2.bin", b"", "is empty; expected records of 3,073 bytes."),
    ("test_batch.bin", TRAIN, "has 27,666 bytes; a record of CIFAR-10 has 3,073"),
    (
        "data_batch_2.bin",
        BATCH[:3073] + b"\x0a" + BATCH[3074:],
        "row 1 has the label 10; those of CIFAR-10 are 0 to 9, so it is damaged or another file.",
    ),
    ("data_batch_3.bin", None, "has data_batch_1.bin, but no data_batch_3.bin; CIFAR-10 has 5 of them. Put back what"),
    ("data_batch_1.bin", None, "has data_batch_2.bin, but no data_batch_1.bin; CIFAR-10 has 5 of them. Put back what"),
    ("train.bin", TRAIN, "holds files of CIFAR-10 and of CIFAR-100; put each into a folder of its own."),
    ("batches.meta.txt", b"cat\ndog\n", "has 2 names; CIFAR-10 has 10 classes, a line each."),
    ("batches.meta.txt", NAMES + b"more", "has 11 names; CIFAR-10 has 10 classes, a line each."),
    ("batches.meta.txt", b"", "has 0 names; CIFAR-10 has 10 classes, a line each."),
    ("batches.meta.txt", NAMES.replace(b"cat", b"dog"), "names 'dog' 2 times; expected each class once."),
    ("batches.meta.txt", NAMES.replace(b"cat", b"c\0t"), "holds a NUL character; expected names of classes, a line"),
    ("batches.meta.txt", b"caf\xe9\n", "is no text in UTF-8 (byte 3); expected names of classes."),
    ("batches.meta.txt", b"x" * 65_537, "has 65,537 bytes; names of classes, a line each, have at most 65,536."),
]
DAMAGE100 = [
    ("train.bin", TRAIN[:1] + b"\x64" + TRAIN[2:], "row 0 has the label 100; those of CIFAR-100 are 0 to 99, so it is"),
    ("train.bin", b"\x14" + TRAIN[1:], "row 0 has the coarse label 20; those of CIFAR-100 are 0 to 19, so it is"),
    ("test.bin", CIFAR10["data_batch_1.bin"], "has 6,146 bytes; a record of CIFAR-100 has 3,074, so it is cut short"),
    ("fine_label_names.txt", NAMES, "has 10 names; CIFAR-100 has 100 classes, a line each."),
]
DAMAGE = [*((CIFAR10, *each) for each in DAMAGE10), *((CIFAR100, *each) for each in DAMAGE100)]


@pytest.mark.parametrize("kind", [None, "tar.gz", "zip"])
@pytest.mark.parametrize(("files", "name", "content", "message"), DAMAGE, ids=range(len(DAMAGE)))
def test_damage_is_one_line_that_names_the_file(files, name, content, message, kind, refused):
    files = {each: data for each, data in (files | {name: content}).items() if data is not None}
    line = refused(files, kind)
    assert message in line
    assert name in line or name in CIFAR100
    assert line.startswith("'cifar" if kind is None else f"'cifar.{kind}'")


def test_an_empty_folder_and_others_without_images_are_refused(refused):
    wanted = "t10k-images-idx3-ubyte.gz, and no files of CIFAR, as data_batch_1.bin or train.bin."
    assert "'cifar' holds no IDX files of images, as train-images-idx3-ubyte or " + wanted in refused({})
    assert wanted in refused({"batches.meta.txt": NAMES, "notes.txt": b""})
    assert "holds no files of CIFAR, as data_batch_1.bin" in refused({"batches.meta.txt": NAMES}, "zip")
    files = {"a/train.bin": TRAIN, "b/test.bin": CIFAR100["test.bin"]}
    assert "holds files of CIFAR-100 in several folders: a, b; leave those of one." in refused(files, "tar", inside="")
    line = refused(CIFAR100 | {"train-images-idx3-ubyte": b""})
    assert "'cifar' holds IDX files and files of CIFAR; put each into a folder of its own." in line


def test_too_many_images_are_refused_before_memory_is_taken(refused, monkeypatch):
    monkeypatch.setattr(cifar, "MAX_ROWS", 26)
    assert "'cifar' has 27 images; the limit is 26." in refused(CIFAR10)


def test_a_folder_or_a_link_to_nothing_in_the_place_of_a_batch_is_refused(tree, within):
    path = tree({name: data for name, data in CIFAR10.items() if name != "data_batch_4.bin"}, "cifar")
    (path / "data_batch_4.bin").mkdir()
    with pytest.raises(DataError, match=r"cannot read '.*data_batch_4\.bin': Is a directory\."):
        open_arrays(path)
    (path / "data_batch_4.bin").rmdir()
    (path / "data_batch_4.bin").symlink_to("nothing")
    with pytest.raises(DataError, match=r"cannot read '.*data_batch_4\.bin': No such file or directory\."):
        open_arrays(path)
    if hasattr(os, "mkfifo"):
        (path / "data_batch_4.bin").unlink()
        os.mkfifo(path / "data_batch_4.bin")
        with pytest.raises(DataError, match="is no file, but a pipe or device"):
            within(30, open_arrays, path)


@pytest.mark.parametrize(
    ("kind", "spoil", "message"),
    [
        ("tar.gz", lambda data: data[: len(data) // 2], "the archive 'cifar.tar.gz': Compressed file ended before"),
        ("tar.gz", lambda data: data[:5000] + bytes(99) + data[5099:], "cannot read the archive 'cifar.tar.gz': "),
        ("tar.gz", lambda data: data[:2] + b"\7" + data[3:], "'cifar.tar.gz': Unknown compression method"),
        ("tar.gz", lambda data: b"", "is neither a zip nor a tar file, or it is damaged."),
        ("tar", lambda data: data[:20_000], "cannot read the archive 'cifar.tar': unexpected end of data"),
        ("tar", lambda data: data[:1000], "'cifar.tar' holds no files of CIFAR"),
        ("zip", lambda data: data[:-30], "is neither a zip nor a tar file, or it is damaged."),
        ("zip", lambda data: data[:1000] + bytes(9) + data[1009:], "'cifar.zip', data_batch_1.bin: cannot be read"),
    ],
    ids=range(8),
)  # fmt: skip
def test_damage_of_an_archive_is_one_line(kind, spoil, message, tmp_path):
    path = tmp_path / f"cifar.{kind}"
    path.write_bytes(spoil(packed(CIFAR10, kind)))
    assert is_arrays(path) in (True, False)
    with pytest.raises(DataError) as caught:
        open_arrays(path)
    assert message in str(caught.value).replace(f"{tmp_path}/", "")
    assert "\n" not in str(caught.value)


def test_a_bomb_is_refused_before_it_fills_the_disk(tmp_path, monkeypatch):
    monkeypatch.setattr(archive, "MAX_BYTES", 2**20)
    path = tmp_path / "cifar.tar.gz"
    path.write_bytes(packed({"train.bin": bytes(2**20), "more": bytes(2**28)}, "tar.gz"))
    assert is_arrays(path)
    with pytest.raises(DataError, match="unpacks to more than"):
        open_arrays(path)


def test_links_and_names_that_lead_out_are_left_out(tmp_path):
    path = tmp_path / "cifar.tar"
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as whole:
        link = tarfile.TarInfo("train.bin")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        whole.addfile(link)
        for name in ("../train.bin", "test.bin"):
            member = tarfile.TarInfo(name)
            member.size = len(CIFAR100["test.bin"])
            whole.addfile(member, io.BytesIO(CIFAR100["test.bin"]))
    path.write_bytes(out.getvalue())
    found = open_arrays(path)
    assert set(found.splits) == {"test"}
    assert {(each.kind, *each.paths) for each in found.findings} == {
        ("not-a-file", "train.bin"), ("unsafe-path", "../train.bin"),
    }  # fmt: skip


# Memory.


def peak(function):
    tracemalloc.start()
    try:
        function()
        return tracemalloc.get_traced_memory()[1] / 2**20
    finally:
        tracemalloc.stop()


def test_what_is_read_is_held_once(placed, monkeypatch):
    monkeypatch.setattr(stored, "_PIECE", 2**16)
    rows = 2000
    files = {"train.bin": bytes(3074 * rows), "test.bin": bytes(3074 * rows)}
    size = 2 * rows * 3072 / 2**20
    path = placed(files)
    assert size <= peak(lambda: open_arrays(path)) < 1.2 * size
    # Of an archive the packed files are there beside it, and no third time.
    path = placed(files, "tar")
    assert peak(lambda: open_arrays(path)) < 2.2 * size


# Whatever the bytes.

FEW = settings(max_examples=60, derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck))
CONTENTS = st.one_of(
    st.binary(max_size=40), st.sampled_from([*CIFAR10.values(), *CIFAR100.values()]),
    st.builds(lambda data, count: (data * 3074)[: count], st.binary(min_size=1, max_size=9), st.integers(0, 9300)),
)  # fmt: skip
ALL_NAMES = st.sampled_from([*CIFAR10, *CIFAR100, "x.txt", ".hidden"])


def only_data_errors(path):
    assert is_arrays(path) in (True, False)
    with contextlib.suppress(DataError):
        found = open_arrays(path)
        assert found.values.shape == (len(found.labels), 32, 32, 3)
        assert len(found.splits) == len(set(found.places)) == len(found.labels)


@FEW
@given(files=st.dictionaries(ALL_NAMES, CONTENTS, max_size=9), whole=st.booleans())
def test_any_bytes_in_a_folder_are_read_or_refused(files, whole, tmp_path_factory):
    path = tmp_path_factory.mktemp("cifar")
    for name, data in ((CIFAR100 if whole else {}) | files).items():
        (path / name).write_bytes(data)
    only_data_errors(path)


SMALL = {
    "train.bin": TRAIN[:3074],
    "test.bin": TRAIN[3074:6148],
    "fine_label_names.txt": CIFAR100["fine_label_names.txt"],
}
WHOLES = {kind: packed(SMALL, kind) for kind in ("tar.gz", "tar", "zip")}


@FEW
@given(
    kind=st.sampled_from(list(WHOLES)),
    changes=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.binary(max_size=8)), max_size=4),
    end=st.floats(0.01, 1) | st.just(1.0),
)
def test_any_archive_is_read_or_refused(kind, changes, end, tmp_path_factory):
    data = bytearray(WHOLES[kind])
    for place, new in changes:
        start = int(place * len(data))
        data[start : start + len(new)] = new
    path = tmp_path_factory.mktemp("cifar") / f"x.{kind}"
    path.write_bytes(data[: int(end * len(data))])
    only_data_errors(path)
