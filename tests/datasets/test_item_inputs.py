import csv
import hashlib
import io
import tracemalloc
import zipfile

import numpy as np
import pytest
from PIL import Image

from kerastk.datasets.array_data import look_at_arrays
from kerastk.datasets.arrays import open_arrays
from kerastk.datasets.images import decode, to_png
from kerastk.datasets.item_inputs import ImageReader, RowReader
from kerastk.errors import DataError, PhotoError

RANDOM = np.random.default_rng(0)
GREY = RANDOM.integers(0, 256, (7, 6, 5), np.uint8)
COLOUR = RANDOM.integers(0, 256, (7, 6, 5, 3), np.uint8)
ROWS = RANDOM.normal(size=(7, 3)).astype(np.float32)

grey, colour = ImageReader((6, 5, 1)), ImageReader((6, 5, 3))
square = ImageReader((8, 8, 3), image_size=8, resize="pad")
rows = RowReader(3, columns=["a", "b", "c"], label_column="kind")


def read(reader, given, size=4):
    return np.concatenate(list(reader.batches(given, size)))


def png(pixels):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def table(path, *lines):
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows(lines)
    return path


# Images.


@pytest.mark.parametrize(("reader", "images"), [(grey, GREY), (colour, COLOUR)], ids=["grey", "colour"])
def test_an_image_of_the_arrays_size_is_taken_pixel_by_pixel_in_any_form(reader, images, tmp_path):
    (tmp_path / "a.png").write_bytes(png(images[2]))
    expected = images[2].reshape(reader.shape)
    for form in (
        images[2], expected, tmp_path / "a.png", str(tmp_path / "a.png"), png(images[2]), Image.fromarray(images[2]),
        Image.open(tmp_path / "a.png"),
    ):  # fmt: skip
        assert reader.is_one(form)
        assert np.array_equal(read(reader, form), expected[None])


def test_what_pillow_shows_as_grey_is_grey(tmp_path):
    turned = Image.fromarray(GREY[0].T)
    exif = Image.Exif()
    exif[0x0112] = 5
    turned.save(tmp_path / "turned.png", exif=exif)
    for form in (tmp_path / "turned.png", Image.open(tmp_path / "turned.png"), GREY[0][..., None].repeat(3, axis=2)):
        assert np.array_equal(read(grey, form)[0, ..., 0], GREY[0])
    # A network of colour images sees a grey one as the decoder makes it.
    assert np.array_equal(read(colour, GREY[0]), GREY[:1][..., None].repeat(3, axis=3))


@pytest.mark.parametrize("form", [lambda image: image, png, Image.fromarray], ids=["array", "bytes", "pillow"])
def test_photos_become_what_the_decoder_makes_of_them(form):
    for image in (GREY[0], COLOUR[0]):
        assert np.array_equal(read(square, form(image))[0], decode(png(image), 8, resize="pad"))


def test_an_array_that_has_the_size_already_is_taken_as_it_is():
    image = RANDOM.integers(0, 256, (8, 8, 3), np.uint8)
    assert np.array_equal(read(square, image)[0], image)
    assert np.array_equal(read(square, [image, np.stack([image] * 2)]), np.stack([image] * 3))


@pytest.mark.parametrize(
    ("reader", "given"),
    [
        (grey, GREY), (grey, GREY[..., None]), (grey, list(GREY)), (grey, [GREY[:3], png(GREY[3]), *GREY[4:]]),
        (grey, tuple(GREY)), (colour, COLOUR), (colour, [COLOUR[:2], COLOUR[2:]]),
    ],
)  # fmt: skip
def test_several_come_in_order_in_full_batches(reader, given):
    assert not reader.is_one(given)
    parts = list(reader.batches(given, 3))
    assert [len(part) for part in parts] == [3, 3, 1]
    expected = GREY[..., None] if reader is grey else COLOUR
    assert np.array_equal(np.concatenate(parts), expected)


def test_files_of_arrays_are_all_their_rows(tmp_path):
    np.save(tmp_path / "grey.npy", GREY)
    np.savez(tmp_path / "grey.npz", x=GREY, y=np.arange(7))
    for name in ("grey.npy", "grey.npz"):
        assert not grey.is_one(tmp_path / name)
        assert np.array_equal(read(grey, tmp_path / name), GREY[..., None])
    found = read(square, tmp_path / "grey.npy")
    assert np.array_equal(found, np.stack([decode(png(image), 8, resize="pad") for image in GREY]))


@pytest.mark.parametrize(
    ("reader", "given", "said"),
    [
        (grey, COLOUR[0], "it is in colour, and the network learned grey images"),
        (grey, np.zeros((5, 6), np.uint8), "6 x 5 pixels; the network learned arrays of 5 x 6, which are not resized"),
        (colour, png(np.zeros((5, 6), np.uint8)), "6 x 5 pixels"),
        (grey, GREY.astype(np.float32), "an array must be uint8"),
        (grey, GREY[0] / 255, "an array must be uint8"),
        (square, np.zeros((7, 6, 5), np.uint8), "an array must be uint8 and (height, width, 3)"),
        (square, np.zeros((0, 5), np.uint8), "has no pixels"),
        (square, Image.new("F", (5, 5)), "32-bit float pixels"),
        (grey, Image.new("F", (5, 6)), "the pixels cannot be had"),
        (grey, b"", "the file is empty"),
        (grey, 7, "got int"),
        (grey, None, "got NoneType"),
        (grey, [[GREY[0]]], "got list"),
        (square, "none.jpg", "none.jpg: No such file"),
    ],
)
def test_what_is_no_such_image_is_refused(reader, given, said):
    with pytest.raises(PhotoError, match=r"^[^\n]*$") as caught:
        read(reader, given)
    assert said in str(caught.value)


def test_arrays_of_another_size_are_refused_with_their_file(tmp_path):
    np.save(tmp_path / "x.npy", GREY[:, :4])
    np.save(tmp_path / "rows.npy", ROWS)
    with pytest.raises(DataError, match=r"x.npy' holds images of 4 x 5 x 1, and the network takes those of 6 x 5 x 1"):
        read(grey, tmp_path / "x.npy")
    for reader in (grey, square):
        with pytest.raises(DataError, match=r"rows.npy' holds rows of 3 numbers, and the network takes images"):
            read(reader, tmp_path / "rows.npy")


def test_files_folders_archives_and_arrays_stream_in_order(tmp_path):
    folder = tmp_path / "new"
    folder.mkdir()
    for name, image in (("10.png", GREY[1]), ("9.png", GREY[0]), ("wide.png", GREY[2].T)):
        (folder / name).write_bytes(to_png(image))
    (folder / "broken.png").write_bytes(to_png(GREY[2])[:50])
    with zipfile.ZipFile(tmp_path / "more.zip", "w") as archive:
        archive.writestr("a/1.png", to_png(GREY[2]))
    np.save(tmp_path / "x.npy", GREY[3:])
    inputs = [folder, tmp_path / "x.npy", tmp_path / "more.zip", str(folder / "9.png")]
    found = [pair for names, items in grey.stream(inputs, size=2) for pair in zip(names, items, strict=True)]
    assert [name for name, _ in found] == [
        *(f"{folder}/{name}" for name in ("9.png", "10.png", "broken.png", "wide.png")),
        *(f"{tmp_path}/x.npy#{row}" for row in range(4)), f"{tmp_path}/more.zip/a/1.png", f"{folder}/9.png",
    ]  # fmt: skip
    expected = [GREY[0], GREY[1], None, None, *GREY[3:], GREY[2], GREY[0]]
    for (_, item), image in zip(found, expected, strict=True):
        assert isinstance(item, PhotoError) if image is None else np.array_equal(item[..., 0], image)
    with pytest.raises(DataError, match="no file or folder"):
        next(grey.stream([folder, tmp_path / "none"], size=2))


def test_memory_holds_a_few_batches_of_what_becomes_larger(tmp_path):
    large = ImageReader((256, 256, 3), image_size=256, resize="stretch")
    np.save(tmp_path / "x.npy", np.zeros((200, 4, 4), np.uint8))
    tracemalloc.start()
    for names, items in large.stream([tmp_path / "x.npy"], size=8):
        assert len(names) == len(items) == 8
    assert sum(map(len, large.batches(tmp_path / "x.npy", 8))) == 200
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 200 * 256 * 256 * 3 / 4


# Rows of numbers.


def test_rows_come_from_arrays_and_files(tmp_path):
    np.save(tmp_path / "x.npy", ROWS.astype(np.float64))
    np.savez(tmp_path / "x.npz", x=ROWS)
    assert rows.is_one(ROWS[0])
    assert np.array_equal(read(rows, ROWS[0]), ROWS[:1])
    for given in (ROWS, list(ROWS), [ROWS[:2], ROWS[2], ROWS[3:]], tmp_path / "x.npy", str(tmp_path / "x.npz")):
        assert not rows.is_one(given)
        assert np.array_equal(read(rows, given), ROWS)
    assert read(rows, np.array([1, 2, 3])).dtype == np.float32


@pytest.mark.parametrize(
    "lines",
    [
        [["a", "b", "c"], *ROWS.tolist()],
        [["c", "a", "b"], *ROWS[:, [2, 0, 1]].tolist()],
        [["b", "kind", "c", "a"], *([b, "x", c, a] for a, b, c in ROWS.tolist())],
        # The label is a number, which would be one too many.
        [["b", "kind", "c", "a"], *([b, 5, c, a] for a, b, c in ROWS.tolist())],
        [["label", "a", "b", "c"], *(["x", *row] for row in ROWS.tolist())],
        ROWS.tolist(),
    ],
    ids=["same", "other order", "label", "number label", "usual label", "no names"],
)
def test_columns_are_found_by_name(lines, tmp_path):
    assert np.array_equal(read(rows, table(tmp_path / "x.csv", *lines)), ROWS)


def test_columns_without_names_are_taken_in_their_order(tmp_path):
    nameless = RowReader(3, columns=["column 0", "column 1", "column 2"])
    path = table(tmp_path / "x.csv", ["z", "y", "x"], *ROWS.tolist())
    assert np.array_equal(read(nameless, path), ROWS)


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["a", "b", "x"], "lacks the column 'c' and has the column 'x', which the network did not learn."),
        (["a", "x", "y"], "lacks the columns 'b', 'c' and has the columns 'x', 'y', which the network did not learn."),
        (["a", "b"], "lacks the column 'c'."),
        (["a", "b", "c", "d"], "has the column 'd', which the network did not learn."),
        (["A", "b", "c"], "lacks the column 'a' and has the column 'A', which the network did not learn."),
    ],
)
def test_missing_and_unknown_columns_are_refused_by_name(names, said, tmp_path):
    path = table(tmp_path / "x.csv", names, *RANDOM.normal(size=(4, len(names))).tolist())
    with pytest.raises(DataError) as caught:
        read(rows, path)
    assert str(caught.value) == f"'{path}' {said}"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (ROWS[:, :2], "the array has rows of 2 numbers, and the network takes those of 3."),
        (ROWS[0, :2], "the array has rows of 2 numbers"),
        (np.full((2, 3), np.nan), "row 0, column 0 is nan"),
        (np.array([1e39, 0, 0]), "too large for float32"),
        (GREY, "the array holds images, and the network takes rows of 3 numbers."),
        (np.array(["1", "2", "3"]), "expected numbers"),
        ([1.0, 2.0, 3.0], "rows must be an array (3,) or (rows, 3)"),
        (None, "got NoneType"),
        ({"a": 1}, "got dict"),
        ("photo.jpg", "No such file"),
    ],
)
def test_what_are_no_such_rows_is_refused(given, said):
    with pytest.raises(DataError, match=r"^[^\n]*$") as caught:
        read(rows, given)
    assert said in str(caught.value)


def test_a_folder_and_another_file_are_no_rows(tmp_path):
    (tmp_path / "x.txt").write_text("1,2,3\n")
    with pytest.raises(DataError, match=r"is a folder, and the network takes rows of numbers"):
        read(rows, tmp_path)
    with pytest.raises(DataError, match=r"x.txt' is no array that kerastk reads"):
        next(rows.stream([tmp_path / "x.txt"], size=2))


def test_rows_stream_with_their_places(tmp_path):
    np.save(tmp_path / "x.npy", ROWS)
    np.savez(tmp_path / "named.npz", vector=ROWS[:2], path=np.array(["one", "two"]))
    path = table(tmp_path / "x.csv", ["c", "b", "a"], *ROWS[:3, ::-1].tolist())
    names, items = zip(*rows.stream([tmp_path / "x.npy", path, tmp_path / "named.npz"], size=4), strict=True)
    assert [name for part in names for name in part] == [
        *(f"{tmp_path}/x.npy#{row}" for row in range(7)), *(f"{tmp_path}/x.csv#{row}" for row in range(3)), "one", "two"
    ]  # fmt: skip
    assert np.array_equal(
        np.stack([item for part in items for item in part]), np.concatenate([ROWS, ROWS[:3], ROWS[:2]])
    )


# Collections: all items of a source, with the hashes by which a run knows them.


def test_rows_in_another_order_have_the_hashes_of_those_that_were_learned(tmp_path):
    learned = table(tmp_path / "x.csv", ["a", "b", "c", "kind"], *([*row, "x"] for row in ROWS.tolist()))
    turned = table(tmp_path / "y.csv", ["c", "b", "a"], *ROWS[:, ::-1].tolist())
    known = [photo.sha256 for photo in look_at_arrays(open_arrays(learned, label_column="kind")).photos]
    for path, labels in ((learned, ["x"] * 7), (turned, [""] * 7)):
        found = rows.collected(path)
        assert (found.labels, found.unreadable) == (labels, 0)
        assert found.paths == [f"{path.name}#{row}" for row in range(7)]
        values, digests = zip(*found.batches(3), strict=True)
        assert [len(part) for part in values] == [3, 3, 1]
        assert np.array_equal(np.concatenate(values), ROWS)
        assert [digest for part in digests for digest in part] == known


def test_photos_have_the_hashes_of_their_files_or_of_their_pixels(tmp_path):
    for name, image in (("a/1.png", GREY[0]), ("b/2.png", GREY[1]), ("3.png", GREY[2])):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(to_png(image))
    (tmp_path / "broken.png").write_bytes(to_png(GREY[2])[:50])
    for reader in (grey, square):
        found = reader.collected(str(tmp_path))
        assert dict(zip(found.paths, found.labels, strict=True)) == {"a/1.png": "a", "b/2.png": "b", "3.png": ""}
        assert found.unreadable == 1
        (values, digests), *rest = found.batches(8)
        assert not rest
        for path, item, digest in zip(found.paths, values, digests, strict=True):
            data = (tmp_path / path).read_bytes() if reader is square else item.tobytes()
            assert digest == hashlib.sha256(data).hexdigest()
    # As the run of arrays knows them.
    pixels = [photo.sha256 for photo in look_at_arrays(open_arrays(GREY[:3])).photos]
    assert {digest for _, part in grey.collected(str(tmp_path)).batches(8) for digest in part} == set(pixels)


def test_a_photo_of_another_size_is_named_where_all_are_needed(tmp_path):
    (tmp_path / "1.png").write_bytes(to_png(GREY[0]))
    (tmp_path / "2.png").write_bytes(to_png(GREY[1].T))
    with pytest.raises(DataError, match=r"^2.png: 6 x 5 pixels; the network learned arrays of 5 x 6"):
        list(grey.collected(str(tmp_path)).batches(8))
    (tmp_path / "none").mkdir()
    (tmp_path / "none" / "x.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"no readable photos in"):
        grey.collected(str(tmp_path / "none"))
