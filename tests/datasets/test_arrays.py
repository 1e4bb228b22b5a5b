import gzip
import io
import os
import struct
import tracemalloc
import zipfile

import numpy as np
import pytest

import kerastk.datasets.array_values as array_values
from kerastk.datasets import number_table, stored
from kerastk.datasets.arrays import is_arrays, open_arrays
from kerastk.errors import DataError

RANDOM = np.random.default_rng(0)
GREY = RANDOM.integers(0, 256, (6, 5, 4), np.uint8)
COLOUR = RANDOM.integers(0, 256, (4, 5, 4, 3), np.uint8)
VECTORS = RANDOM.normal(size=(7, 3)).astype(np.float32)
LABELS = np.array([0, 1, 10, 1, 0, 10])


@pytest.fixture
def opened(tmp_path):
    """Opens a file of this content: bytes, text, an array (.npy), a table of arrays (.npz) or of files (a folder)."""

    def call(content, name=None, **options):
        if isinstance(content, dict) and name is not None:
            (tmp_path / name).mkdir(exist_ok=True)
            for each, data in content.items():
                (tmp_path / name / each).write_bytes(data)
            return open_arrays(tmp_path / name, **options)
        path = tmp_path / (name or {dict: "x.npz", np.ndarray: "x.npy"}.get(type(content), "x.csv"))
        if isinstance(content, dict):
            np.savez(path, **content)
        elif isinstance(content, np.ndarray):
            np.save(path, content)
        else:
            path.write_bytes(content.encode() if isinstance(content, str) else content)
        return open_arrays(path, **options)

    return call


def idx(values):
    code = {"uint8": 8, "float32": 13}[values.dtype.name]
    big = values.astype(values.dtype.newbyteorder(">"))
    return struct.pack(f">2BBB{values.ndim}I", 0, 0, code, values.ndim, *values.shape) + big.tobytes()


def saved(values):
    file = io.BytesIO()
    np.save(file, values)
    return file.getvalue()


# One array.


@pytest.mark.parametrize("piece", [1, 50, 2**22])
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize(
    ("values", "held"),
    [
        (GREY, GREY[..., None]),
        (GREY[..., None], GREY[..., None]),
        (COLOUR, COLOUR),
        (GREY > 99, (GREY > 99)[..., None] * np.uint8(255)),
        (VECTORS, VECTORS),
        (VECTORS.astype(">f4"), VECTORS),
        (VECTORS.astype("f8"), VECTORS),
        (VECTORS.astype("f2"), VECTORS.astype("f2").astype("f4")),
        (GREY[0], GREY[0].astype("f4")),
        (GREY[0].astype("i8") - 200, GREY[0].astype("f4") - 200),
        (GREY[0] > 99, (GREY[0] > 99).astype("f4")),
    ],
)
def test_images_stay_uint8_and_vectors_become_float32(values, held, order, piece, opened, monkeypatch):
    monkeypatch.setattr(stored, "_PIECE", piece)
    for found in (opened(np.asarray(values, order=order)), open_arrays(np.asarray(values, order=order))):
        assert found.values.dtype == held.dtype
        assert np.array_equal(found.values, held)
        assert found.what == ("images" if held.ndim == 4 else "vectors")
        assert (found.labels, found.splits, found.columns, found.notes, found.findings) == (None, None, None, [], [])
    assert open_arrays(values).place(2) == open_arrays(values).places[2] == "array#2"


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", ">f8"])
def test_images_from_0_to_1_are_rounded_and_told(dtype, opened):
    values = (GREY / 255).astype(dtype)
    found = opened(values)
    assert np.array_equal(found.values[..., 0], GREY)
    assert found.values.dtype == np.uint8
    assert found.notes == ["x.npy: values from 0 to 1 became 0 to 255, round(255 x)"]


@pytest.mark.parametrize(("value", "shown"), [(1.5, "1.5"), (-0.25, "-0.25"), (np.nan, "nan"), (np.inf, "inf")])
def test_images_of_floats_beyond_0_to_1_are_refused_with_their_row(value, shown, refused, monkeypatch):
    monkeypatch.setattr(stored, "_PIECE", 100)
    values = (GREY / 255).astype("f4")
    values[4, 2, 1] = values[5, 0, 0] = value
    message = f"'x.npy', row 4 holds {shown}; images of floats have values from 0 to 1, or are uint8 from 0 to 255."
    assert message in refused(values)


@pytest.mark.parametrize(
    ("dtype", "value", "shown"),
    [
        ("f4", np.nan, "nan"),
        ("f8", -np.inf, "-inf"),
        ("f8", 1e39, "1e+39, too large for float32"),
        ("f2", np.inf, "inf"),
    ],
)
def test_vectors_that_are_no_numbers_are_refused_with_row_and_column(dtype, value, shown, refused, monkeypatch):
    monkeypatch.setattr(stored, "_PIECE", 30)
    values = VECTORS.astype(dtype)
    values[5, 1] = values[6, 0] = value
    assert f"'x.npy', row 5, column 1 is {shown}; fill such values, or leave the row out." in refused(values)
    with pytest.raises(DataError, match="the array, row 5, column 1 is"):
        open_arrays(values)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.zeros((), "f4"), "'x.npy' is float32 of shape (): images are (items, height, width) or"),
        (np.zeros(5, "f4"), "of shape (5,): images are (items, height, width) or (items, height, width, 1 or 3), "
                            "vectors (items, features). For one feature a row, x[:, None] makes vectors of it."),
        (np.zeros((2, 2, 2, 2, 2), "u1"), "is uint8 of shape (2, 2, 2, 2, 2): images are"),
        (np.zeros((0, 8, 8), "u1"), "is uint8 of shape (0, 8, 8): there are no values in it."),
        (np.zeros((9, 0), "f4"), "is float32 of shape (9, 0): there are no values in it."),
        (np.zeros((40, 30, 3), "u1"), "of shape (40, 30, 3), as one picture has it: images are"),
        (np.zeros((9, 8, 8, 2), "u1"), "of shape (9, 8, 8, 2): images are"),
        (np.zeros((9, 8, 8, 4), "u1"), "If the fourth channel is transparency, x[..., :3] leaves it out."),
        (np.zeros((9, 3, 8, 8), "u1"), "If its channels come first, np.moveaxis(x, 1, -1) puts them last."),
        (np.zeros((9, 8, 8), "i8"), "is int64 of shape (9, 8, 8); images are uint8 from 0 to 255, or floats from 0 to 1"
                                    ". If its values are from 0 to 255, x.astype(\"uint8\") makes images of it."),
        (np.zeros((9, 8), "c8"), "is complex64 of shape (9, 8); expected numbers: images are"),
        (np.array([["a", "b"]]), "is str32 of shape (1, 2); expected numbers: images are"),
        (np.zeros((9, 8), "M8[s]"), "is datetime64[s] of shape (9, 8); expected numbers"),
        (np.zeros(9, [("a", "f4"), ("b", "i4")]), "is void64 of shape (9,); expected numbers"),
    ],
)  # fmt: skip
def test_what_is_neither_images_nor_vectors_is_refused_with_its_shape(values, message, refused):
    assert message in refused(values)
    with pytest.raises(DataError) as caught:
        open_arrays(values)
    assert message.removeprefix("'x.npy' ") in str(caught.value)


def test_images_of_different_sizes_are_no_array(refused):
    ragged = np.empty(2, object)
    ragged[:] = [GREY[0], GREY[0, :3]]
    message = "Images of different sizes cannot be one array; give a folder of photos and --image-size and --resize."
    assert message in refused(ragged)
    assert message in refused({"x_train": ragged, "y_train": np.arange(2)})
    with pytest.raises(DataError, match="Images of different sizes cannot be one array"):
        open_arrays(ragged)


class Planted:
    """What a pickle in an array may hold: any call."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_nothing_is_unpickled(refused, tmp_path):
    planted = np.array([Planted(str(tmp_path / "made"))], object)
    assert "holds Python objects, which are never unpickled" in refused(planted)
    assert "holds Python objects, which are never unpickled" in refused({"x": GREY, "y": planted})
    assert not (tmp_path / "made").exists()
    # It would have been made by who unpickles it.
    np.load(tmp_path / "x.npy", allow_pickle=True)
    assert (tmp_path / "made").exists()


def test_an_array_from_python_is_not_copied_where_it_need_not_be():
    assert np.shares_memory(open_arrays(GREY).values, GREY)
    assert np.shares_memory(open_arrays(VECTORS).values, VECTORS)
    turned = GREY.transpose(1, 0, 2)
    assert np.array_equal(open_arrays(turned).values[..., 0], turned)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is no array as numpy.save writes it"),
        (b"PK\x03\x04" + bytes(50), "is no array as numpy.save writes it: the magic string is not correct"),
        (saved(GREY)[:50], "is no array as numpy.save writes it"),
        (saved(GREY)[:-1], "'x.npy' is cut short: its header announces uint8 of shape (6, 5, 4), 120 bytes, and 119"),
        (saved(GREY) + saved(GREY), "'x.npy' is too long: its header announces uint8 of shape (6, 5, 4), 120 bytes"),
        (saved(GREY).replace(b"(6, 5, 4)", b"(6, 5, 9)"), "'x.npy' is cut short"),
        (saved(GREY).replace(b"(6, 5, 4)", b"(6,-5, 4)"), "'x.npy' is damaged: its header announces uint8 of shape"),
        (saved(GREY).replace(b"\x93NUMPY\x01", b"\x93NUMPY\x07"), "version 7.0; expected 1.0 or 2.0."),
        (saved(GREY).replace(b"'|u1'", b"'|U0'"), "'x.npy' is damaged: its header announces"),
    ],
)
def test_damage_in_a_file_of_numpy_is_one_line(content, message, refused):
    assert message in refused(content, "x.npy")


# Several arrays.


def test_the_layout_of_keras_has_splits(opened):
    halves = {"x_train": GREY, "y_train": LABELS, "x_test": GREY[:2], "y_test": LABELS[:2, None]}
    found = opened(halves | {"x_val": GREY[3:], "y_val": LABELS[3:]})
    assert np.array_equal(found.values[..., 0], np.concatenate([GREY, GREY[3:], GREY[:2]]))
    assert found.labels == ["0", "1", "10", "1", "0", "10", "1", "0", "10", "0", "1"]
    assert found.splits == ["train"] * 6 + ["val"] * 3 + ["test"] * 2
    assert found.places[5:7] == ["x.npz/x_train#5", "x.npz/x_val#0"]
    assert [found.place(row) for row in range(11)] == found.places
    assert found.name == "x"
    found = opened({"x_train": GREY, "x_test": GREY[:2]})
    assert (found.labels, found.splits) == (None, ["train"] * 6 + ["test"] * 2)


@pytest.mark.parametrize(
    ("arrays", "labels", "paths"),
    [
        ({"x": GREY, "y": LABELS}, True, False),
        ({"x": GREY}, False, False),
        ({"images": GREY, "labels": LABELS.astype("i1")}, True, False),
        ({"images": GREY}, False, False),
        ({"vector": GREY[:, 0], "label": LABELS.astype(str), "path": np.array(list("abcdef"))}, True, True),
        ({"vector": GREY[:, 0], "label": np.array([""] * 6), "path": np.array(list("abcdef"))}, False, True),
        ({"whatever": GREY}, False, False),
        ({"x_test": GREY}, False, False),
    ],
)
def test_the_other_layouts(arrays, labels, paths, opened):
    found = opened(arrays)
    held = found.values[..., 0] if found.what == "images" else found.values
    assert np.array_equal(held, next(iter(arrays.values())))
    assert found.labels == (LABELS.astype(str).tolist() if labels else None)
    assert found.splits is None
    assert found.place(2) == ("c" if paths else f"x.npz/{next(iter(arrays))}#2")


def test_what_embed_writes_is_read(opened, tmp_path):
    from kerastk.embedding import Embedding

    Embedding(["a/1.jpg", "b/2.jpg"], ["a", "b"], VECTORS[:2], 0).write(tmp_path / "e.npz")
    found = open_arrays(tmp_path / "e.npz")
    assert np.array_equal(found.values, VECTORS[:2])
    assert (found.labels, found.places) == (["a", "b"], ["a/1.jpg", "b/2.jpg"])


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"a": GREY, "b": LABELS}, "holds 'a' (6, 5, 4), 'b' (6,); expected x_train[,y_train,x_val,"),
        ({"x": GREY, "y": LABELS, "z": LABELS}, "holds 'x' (6, 5, 4), 'y' (6,), 'z' (6,); expected x_train"),
        ({"x_train": GREY, "y_train": LABELS, "x_test": GREY}, "holds 'x_train' (6, 5, 4), 'y_train' (6,), 'x_test'"),
        ({"x_train": GREY, "y_test": LABELS}, "holds 'x_train' (6, 5, 4), 'y_test' (6,); expected"),
        ({f"a{number}": GREY for number in range(11)}, "'a7' (6, 5, 4) and 3 more; expected x_train"),
        ({"x": GREY, "y": LABELS[:5]}, "array 'y' is int64 of shape (5,); expected one label for each of the 6 rows"),
        ({"x": GREY, "y": np.eye(6)}, "each of the 6 rows of 'x.npz', array 'x'. y.argmax(axis=1)"),
        ({"x": GREY, "y": LABELS / 4}, "array 'y' is float64 of shape (6,); labels are whole numbers or texts"),
        ({"x": GREY, "y": np.full(6, np.nan)}, "labels are whole numbers or texts"),
        ({"x": GREY, "y": LABELS.astype("M8[s]")}, "is datetime64[s] of shape (6,); labels are whole numbers or"),
        ({"x_train": GREY, "x_test": GREY[:, 1:]}, "array 'x_test' has rows of 4 x 4 x 1, 'x.npz', array 'x_train' of "
                                                   "5 x 4 x 1; all splits need one size."),
        ({"x_train": GREY, "x_test": GREY[:, 0]}, "has rows of 4, 'x.npz', array 'x_train' of 5 x 4 x 1"),
        ({"x_train": GREY, "x_test": GREY[:0]}, "'x_test' is uint8 of shape (0, 5, 4): there are no values in it."),
        ({"vector": VECTORS[:3], "label": np.array(["a", "", "b"])}, "row 1 has an empty label, others have one;"),
        ({"vector": VECTORS[:3], "path": np.array(["a", "b", "a"])}, "array 'path': 'a' stands at the rows 0 and 2;"),
        ({"vector": VECTORS[:3], "path": np.array(["a", "b"])}, "expected one label for each of the 3 rows"),
    ],
)  # fmt: skip
def test_arrays_that_do_not_fit_are_refused_and_listed(arrays, message, refused):
    assert message in refused(arrays)


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (["cat", "dog", "cat"], ["cat", "dog", "cat"]),
        (np.array([b"cat", b"caf\xe9", b"cat"]), ["cat", "caf\udce9", "cat"]),
        (np.array([2.0, -1.0, 2.0], "f4"), ["2", "-1", "2"]),
        (np.array([True, False, True]), ["True", "False", "True"]),
        (np.array(["cat", "dog", "cat"], object), ["cat", "dog", "cat"]),
        (np.array([[3], [2], [3]], "u1"), ["3", "2", "3"]),
        ((2**40, 1, 2), [str(2**40), "1", "2"]),
    ],
)
def test_labels_of_all_sorts_are_texts(labels, expected):
    found = open_arrays((VECTORS[:3], labels))
    assert found.labels == expected


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (
            (VECTORS, ["a"]),
            r"the labels is str32 of shape \(1,\); expected one label for each of the 7 rows of the array",
        ),
        ((VECTORS[:2], [[1], [2, 3]]), "the labels are lists of different lengths"),
        ((VECTORS[:2], np.array([1, "a"], object)), "labels are whole numbers or texts, one a row"),
        (([[1, 2]], [1]), "data must be a path, a NumPy array, or a tuple of one and its labels; got list"),
        ([[1, 2]], "got list"),
        (None, "got NoneType"),
    ],
)
def test_what_python_gives_is_checked(data, message):
    with pytest.raises(DataError, match=message):
        open_arrays(data)


def zipped(members, method=zipfile.ZIP_DEFLATED):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return file.getvalue()


def damaged(members):
    """A zip with a byte changed in the middle of its stored numbers."""
    whole = bytearray(zipped(members, zipfile.ZIP_STORED))
    whole[whole.find(GREY.tobytes()) + 9] ^= 0xFF
    return bytes(whole)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "cannot read 'x.npz': File is not a zip file."),
        (zipped([("x.npy", saved(GREY))])[:-30], "cannot read 'x.npz'"),
        (zipped([]), "'x.npz' holds no arrays."),
        (zipped([("x.npy", saved(GREY)), ("x.txt", b"")]), "'x.npz' holds 'x.txt', which is no array;"),
        (zipped([("x.npy", saved(GREY))], zipfile.ZIP_LZMA), "'x.npz' holds 'x', which is no array;"),
        (zipped([("x.npy", saved(GREY)[:-1])]), "'x.npz', array 'x' is damaged: its header announces uint8 of shape "
                                               "(6, 5, 4), 120 bytes, and 119 are there."),
        (zipped([("x.npy", saved(GREY) + b"\0")]), "120 bytes, and 121 are there."),
        (zipped([("x.npy", b"\0" * 99)]), "'x.npz', array 'x' is no array as numpy.save writes it"),
        (damaged([("x.npy", saved(GREY))]), "cannot read 'x.npz', array 'x': Bad CRC-32 for file 'x.npy'."),
    ],
)  # fmt: skip
def test_damage_in_a_npz_is_one_line(content, message, refused):
    assert message in refused(content, "x.npz")


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_an_array_that_is_there_twice_is_refused(refused):
    assert "holds the array 'x' twice" in refused(zipped([("x.npy", saved(GREY)), ("x.npy", saved(GREY))]), "x.npz")


# CSV.


TABLE = "a,b,c\n1,2.5,-3\n4,5e3, 6\n"


def test_a_table_of_numbers(opened):
    for content in (
        TABLE,
        TABLE.replace("\n", "\r\n"),
        "\ufeff" + TABLE,
        TABLE.rstrip("\n"),
        TABLE.replace("\n", "\n\n"),
    ):
        found = opened(content)
        assert found.values.tolist() == [[1, 2.5, -3], [4, 5000, 6]]
        assert found.values.dtype == np.float32
        assert (found.what, found.columns, found.labels, found.splits) == ("vectors", ["a", "b", "c"], None, None)
        assert (found.name, found.places, found.notes) == ("x", ["x.csv#0", "x.csv#1"], [])
    assert found.values.flags.writeable


def test_a_table_without_names(opened):
    found = opened("1,2\n3,4\n")
    assert found.values.tolist() == [[1, 2], [3, 4]]
    assert found.columns == ["column 0", "column 1"]
    # Two numbers 0 and 1 may be a row, a whole count of columns is none.
    assert opened("0,1\n2,3\n").values.tolist() == [[0, 1], [2, 3]]
    found = opened("0,1,2\n3,4,5\n6,7,8\n")
    assert found.values.tolist() == [[3, 4, 5], [6, 7, 8]]
    assert found.columns == ["0", "1", "2"]
    assert found.notes == ["the first line, 0,1,2,..., was taken for the names of the columns"]


@pytest.mark.parametrize("name", ["label", "class", "target", "Class", "LABEL"])
def test_labels_and_splits_are_no_inputs(name, opened):
    found = opened(f"a,{name},split,b\n1,cat,train,2\n3,7,Valid,4\n5,cat,testing,7\n")
    assert found.values.tolist() == [[1, 2], [3, 4], [5, 7]]
    assert found.columns == ["a", "b"]
    assert found.labels == ["cat", "7", "cat"]
    assert found.splits == ["train", "val", "test"]
    found = opened(f"{name},0,1\ncat,1,2\ndog,2,3\n")
    assert (found.labels, found.columns) == (["cat", "dog"], ["0", "1"])


def test_the_label_column_can_be_named(opened, refused):
    content = "a,kind,class\n1,x,5\n2,y,6\n"
    found = opened(content, label_column="kind")
    assert (found.labels, found.columns) == (["x", "y"], ["a", "class"])
    message = "'x.csv' has no label column 'kint'. Did you mean 'kind'?"
    assert message in refused(content, label_column="kint")
    assert "has no label column 'zzzz'. It has 'a', 'kind', 'class'." in refused(content, label_column="zzzz")
    assert "has no names of columns, and so no label column 'a'" in refused("1,2\n3,4\n", label_column="a")
    both = "a,label,class\n1,x,5\n2,y,6\n"
    assert "has the columns label and class; say which one holds labels by --label-column" in refused(both)
    for content in (GREY, {"x": GREY}):
        assert "is no CSV file; label column 'a' would not be used" in refused(content, label_column="a")
    with pytest.raises(DataError, match="an array is no CSV file; label column 'a' would not be used"):
        open_arrays(GREY, label_column="a")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "'x.csv' has no rows; expected a row of numbers a line."),
        ("a,b\n", "'x.csv' has no rows, only names of columns."),
        ("a,b\n1,2\n3,x\n", "'x.csv', row 1 (line 3), column 'b': 'x' is no number."),
        ("1,2\n3,x\n", "'x.csv', row 1 (line 2), column 1: 'x' is no number."),
        ("a,b\n1,2\n,4\n", "'x.csv', row 1 (line 3), column 'a' is empty; fill missing values, or leave the row out."),
        ("1,2\n3, \n", "'x.csv', row 1 (line 2), column 1 is empty;"),
        ("1,\n3,4\n", "'x.csv', row 0 (line 1), column 1 is empty;"),
        ("a,b\n1,2\n3,1_000\n", "'x.csv', row 1 (line 3), column 'b': '1_000' is no number."),
        ("a,b\n1,2\n3,nan\n4,5\n", "'x.csv', row 1, column 'b' is nan, or too large for float32; fill such values"),
        ("a,b\n1,2\n-inf,4\n", "'x.csv', row 1, column 'a' is -inf, or too large for float32;"),
        ("a,b\n1,2\n3,1e39\n", "'x.csv', row 1, column 'b' is inf, or too large for float32;"),
        (
            "a,b,c\n1,2,3\n4,2,5\n",
            "'x.csv': column 'b' is the same in all rows (as float32); drop it: it says nothing.",
        ),
        ("a,b,c\n1,2,3\n1,2,5\n", "'x.csv': 2 columns are, 'a', 'b', the same in all rows (as float32); drop them"),
        ("a,b\n1,16777216\n2,16777217\n", "column 'b' is the same in all rows (as float32)"),
        ("a,b\n1,2\n3\n", "'x.csv', row 1 (line 3): 1 cells; expected 2, as in the first line."),
        ("a,b\n1,2\n3,4,5\n", "'x.csv', row 1 (line 3): 3 cells; expected 2"),
        ("a,b,a\n1,2,3\n", "'x.csv' has the column 'a' 2 times."),
        (
            ",a,b\n0,1,2\n1,2,3\n",
            "column 0 has no name. If it is the index of pandas, write the table with index=False.",
        ),
        ("5.1,3.5,iris\n4.9,3.0,iris\n", "the first line holds names and numbers, '5.1', '3.5', 'iris'; give each"),
        ("a;b\n1;2\n", "'1;2' is no number. Columns have commas between them."),
        ("label\nx\ny\n", "has no column of numbers beside label."),
        ("a,label\n1,x\n2,\n", "'x.csv', row 1 (line 3): the label is empty; give all rows one."),
        ("a,split\n1,train\n2,tset\n", "'x.csv', row 1 (line 3): split must be train, val or test; got 'tset'."),
        ("a,split\n1,train\n2,\n", "'x.csv': some rows have a split and some have none; give all or none."),
        ("a,split,Split\n1,train,train\n", "has the column split 2 times."),
        ("a,b\n1,2\n3,\0\n", "line 3: a NUL character"),
        ('a,b\n"1,2\n', "line 2: unexpected end of data; expected UTF-8 text with a row of numbers a line"),
    ],
)
def test_what_is_wrong_in_a_table_is_told_with_its_place(content, message, refused):
    assert message in refused(content)


def test_lines_are_counted_as_an_editor_does(refused):
    assert "row 1 (line 5), column 'b': 'x' is no number" in refused('a,b,"la\nbel"\n\n1,2,3\n3,x,4\n')


def test_a_split_that_is_empty_in_all_rows_is_none(opened):
    assert opened("a,split\n1,\n2,\n").splits is None


def test_too_many_rows_are_refused(refused, monkeypatch):
    monkeypatch.setattr(number_table, "MAX_ROWS", 3)
    assert "has more than 3 rows" in refused("a\n1\n2\n3\n4\n")
    monkeypatch.setattr("kerastk.datasets.arrays.MAX_ROWS", 5)
    assert "'x.npy' has 6 rows; the limit is 5." in refused(GREY)


# IDX.


def mnist(*, packed=False, split="-idx", labels=True):
    """The files of a small MNIST."""
    ending = ".gz" if packed else ""
    files = {}
    for name, rows in (("train", slice(None)), ("t10k", slice(0, 2))):
        files[f"{name}-images{split}3-ubyte{ending}"] = idx(GREY[rows])
        if labels:
            files[f"{name}-labels{split}1-ubyte{ending}"] = idx(LABELS[rows].astype("u1"))
    return {name: gzip.compress(data) if packed else data for name, data in files.items()}


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("separator", ["-idx", ".idx"])
def test_a_folder_of_idx_files(packed, separator, opened):
    found = opened(mnist(packed=packed, split=separator), "small-mnist")
    assert np.array_equal(found.values[..., 0], np.concatenate([GREY, GREY[:2]]))
    assert found.labels == ["0", "1", "10", "1", "0", "10", "0", "1"]
    assert found.splits == ["train"] * 6 + ["test"] * 2
    assert found.name == "small-mnist"
    assert found.places[6] == f"t10k-images{separator}3-ubyte{'.gz' if packed else ''}#0"
    assert found.findings == []


def test_a_folder_of_idx_files_without_labels_or_with_one_split(opened):
    found = opened(mnist(labels=False), "bare")
    assert (found.labels, len(found.values)) == (None, 8)
    found = opened({name: data for name, data in mnist().items() if name.startswith("train")}, "one")
    assert (found.splits, len(found.labels)) == (["train"] * 6, 6)


def test_other_files_beside_idx_files_are_told(opened):
    found = opened(mnist() | {"README": b"x", ".DS_Store": b"", "train-images-idx3-ubyte.gz": b"not read"}, "more")
    assert [(each.kind, each.paths) for each in found.findings] == [
        ("hidden", (".DS_Store",)), ("other-file", ("README",))
    ]  # fmt: skip
    assert len(found.values) == 8


@pytest.mark.parametrize(
    ("without", "more", "message"),
    [
        (["t10k-labels-idx1-ubyte"], {}, "has t10k-images-idx3-ubyte, but no labels beside it; give all splits"),
        (["t10k-images-idx3-ubyte"], {}, "has t10k-labels-idx1-ubyte, but no images beside it; give all splits"),
        (["train-images-idx3-ubyte", "t10k-images-idx3-ubyte"], {}, "holds no IDX files of images, as"),
        ([], {"test-images-idx3-ubyte": b""}, "holds t10k-images-idx3-ubyte and test-images-idx3-ubyte, both for"),
        ([], {"a-train-images-idx3-ubyte": b""}, "holds several sets of IDX files: one without a name, a; put"),
        ([], {"t10k-images-idx3-ubyte": idx(GREY[:2, 1:])}, "has rows of 4 x 4 x 1,"),
        ([], {"t10k-labels-idx1-ubyte": idx(np.zeros(3, "u1"))}, "uint8 of shape (3,); expected one label for each"),
        ([], {"train-images-idx3-ubyte": idx(GREY)[:-5]}, "is cut short: 115 are there."),
    ],
)  # fmt: skip
def test_a_folder_of_idx_files_that_do_not_fit_is_refused(without, more, message, refused):
    files = {name: data for name, data in mnist().items() if name not in without}
    assert message in refused(files | more, "idx")


FEW = LABELS.astype("u1")


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("train-images", idx(FEW), "is uint8 of shape (6,): images are (items, height, width) or"),
        ("train-labels", idx(GREY), "is uint8 of shape (6, 5, 4); expected one label for each of the 6 rows of "),
        ("train-labels", idx(np.eye(6, dtype="u1")), "of shape (6, 6); expected one label for each of the 6 rows of "),
        ("train-labels", idx(FEW[:5]), "is uint8 of shape (5,); expected one label for each of the 6 rows of "),
        ("train-labels", idx(np.append(FEW, FEW)), "of shape (12,); expected one label for each of the 6 rows of "),
        ("train-labels", idx(FEW / np.float32(4)), "is float32 of shape (6,); labels are whole numbers or texts"),
        ("t10k-images", idx(GREY[:2, 1:]), "has rows of 4 x 4 x 1, "),
        ("train-images", idx(GREY)[:-5], "is cut short"),
        ("train-images", idx(GREY) + bytes(3), "is too long"),
        ("train-images", idx(GREY)[:9], "is cut short: 9 bytes; its header alone has 16."),
        ("train-images", b"", "is cut short: 0 bytes; an IDX file begins with a header of 8 or more."),
        ("train-images", b"<!DOCTYPE html>", "is no IDX file: it begins with 3c 21 44 4f; expected 00 00, type"),
        ("train-images", gzip.compress(gzip.compress(idx(GREY))), "is no IDX file: it begins with 1f 8b 08 00"),
        ("train-labels", b"\0\0\x07\1" + idx(FEW)[4:], "has the unknown type code 7; IDX files have one of 8 (uint8)"),
        ("train-labels", b"\0\0\x08\0" + idx(FEW)[4:], "has 0 dimensions; expected 1 to 4."),
        ("train-images", struct.pack("<4B3I", 0, 0, 8, 3, 6, 5, 4) + bytes(120), "of shape (100663296, 83886080, 6710"),
        ("train-images", struct.pack(">4B3I", 0, 0, 8, 3, 0, 5, 4), "holds nothing: its shape is (0, 5, 4); expected"),
        ("train-labels", struct.pack(">4BI", 0, 0, 8, 1, 0), "holds nothing: its shape is (0,); expected sizes of 1"),
        ("train-images", idx(GREY) + bytes(2**24), "is too long"),
    ],
    ids=range(19),
)
def test_a_damaged_file_of_a_folder_is_named_in_one_line(name, content, message, packed, refused):
    whole = f"{name}-idx{3 if 'images' in name else 1}-ubyte"
    double = content[:2] == b"\x1f\x8b"
    line = refused(mnist() | {whole: gzip.compress(content) if packed and not double else content}, "idx")
    assert message in line
    assert line.startswith(f"'idx/{whole}' ")


def test_names_of_classes_beside_idx_files_are_those_of_the_labels(opened, refused, tmp_path):
    names = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
    found = opened(mnist() | {"classes.txt": "\n".join(names).encode()}, "idx")
    assert found.labels == [names[label] for label in (0, 1, 10, 1, 0, 10, 0, 1)]
    assert found.findings == []
    assert open_arrays(tmp_path / "idx" / "train-images-idx3-ubyte").labels == found.labels[:6]
    assert opened(mnist(labels=False) | {"classes.txt": b"a"}, "bare").labels is None
    line = refused(mnist() | {"classes.txt": "\n".join(names[:10]).encode()}, "idx")
    assert line.startswith(
        "'idx/classes.txt' names 10 classes, the first for label 0, and there is a label 10; give each"
    )
    assert "'idx/classes.txt' names 'a' 2 times" in refused(mnist() | {"classes.txt": b"a\nb\na\n"}, "idx")
    assert "'idx/classes.txt' is no text in UTF-8 (byte 0)" in refused(mnist() | {"classes.txt": b"\xff"}, "idx")


def test_one_idx_file_and_the_labels_beside_it(opened, tmp_path):
    opened(mnist(), "idx")
    found = open_arrays(tmp_path / "idx" / "train-images-idx3-ubyte")
    assert found.labels == LABELS.astype(str).tolist()
    assert (found.splits, found.name, found.place(3)) == (None, "train-images", "train-images-idx3-ubyte#3")
    opened(mnist(packed=True), "packed")
    (tmp_path / "packed" / "t10k-labels-idx1-ubyte.gz").unlink()
    assert open_arrays(tmp_path / "packed" / "t10k-images-idx3-ubyte.gz").labels is None
    assert open_arrays(tmp_path / "packed" / "train-images-idx3-ubyte.gz").labels == found.labels
    assert open_arrays(opened_path(tmp_path / "x.idx", VECTORS)).values.tolist() == VECTORS.tolist()
    with pytest.raises(DataError, match=r"t10k-labels-idx1-ubyte' is uint8 of shape \(2,\): images are"):
        open_arrays(tmp_path / "idx" / "t10k-labels-idx1-ubyte")


def opened_path(path, values):
    path.write_bytes(idx(values))
    return path


# What is taken for arrays.


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("x.npy", b"", True), ("x.NPZ", b"", True), ("x.csv", b"a,b\n1,2\n", True), ("x.csv", b"1,2\n", True),
        ("x.csv", b"path,label\na.jpg,x\n", False), ("x.csv", b'label,"path"\nx,a.jpg\n', False), ("x.csv", b"", False),
        ("x.csv", bytes(99), False), ("x.csv", b"a" * 2**21, False), ("x.csv", b'"a', False),
        ("train-images-idx3-ubyte.gz", b"", True), ("x.conll", b"a,b\n", False), ("x.zip", b"", False),
        ("x.parquet", b"", False),
    ],
)  # fmt: skip
def test_what_is_taken_for_arrays(name, content, expected, tmp_path):
    (tmp_path / name).write_bytes(content)
    assert is_arrays(tmp_path / name) is expected
    assert is_arrays(str(tmp_path / name)) is expected


def test_folders_python_and_what_is_not_there(tmp_path, digits, names):
    assert is_arrays("nowhere/x.npy")
    assert is_arrays("nowhere/x-idx3-ubyte")
    for data in (
        "nowhere/x.csv",
        "nowhere",
        "",
        "a\0b",
        "a\0b.csv",
        "tfds:mnist",
        digits,
        names,
        tmp_path,
        tmp_path / "x",
    ):
        assert is_arrays(data) is False
    (tmp_path / "t10k-labels-idx1-ubyte").write_bytes(b"")
    assert is_arrays(tmp_path)
    assert is_arrays(GREY)
    assert is_arrays((GREY, LABELS))
    for data in ([("a.jpg", "x")], ("a.jpg", "x"), [GREY, LABELS], None, {"x": GREY}, (GREY,)):
        assert is_arrays(data) is False


@pytest.mark.parametrize("name", ["x.npy", "x.npz", "x.csv", "x-idx3-ubyte", "x"])
def test_what_is_not_there_is_told(name, tmp_path):
    with pytest.raises(DataError, match=rf"cannot read '.*{name}': No such file or directory\."):
        open_arrays(tmp_path / name)
    (tmp_path / "x.txt").write_bytes(b"1 2 3")
    with pytest.raises(
        DataError, match=r"x\.txt' is no array that kerastk reads; give a \.npy, \.npz, \.csv or IDX file"
    ):
        open_arrays(tmp_path / "x.txt")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
@pytest.mark.parametrize("name", ["x.npy", "x.npz", "x.csv", "x-idx3-ubyte"])
def test_a_named_pipe_holds_nobody_up(name, tmp_path, within):
    os.mkfifo(tmp_path / name)
    with pytest.raises(DataError, match="is no file, but a pipe or device"):
        within(30, open_arrays, tmp_path / name)
    assert within(30, is_arrays, tmp_path / name) is not name.endswith(".csv")


# Memory.


def peak(function):
    tracemalloc.start()
    try:
        function()
        return tracemalloc.get_traced_memory()[1] / 2**20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("dtype", ["u1", "f4", "f8", ">f4"])
def test_what_is_read_is_held_once(dtype, opened, monkeypatch):
    # Of a size at which the pieces that are read do not count.
    monkeypatch.setattr(stored, "_PIECE", 2**16)
    megabytes = 16
    shape = (megabytes * 2**12, 16, 16) if dtype == "u1" else (megabytes * 2**12, 64)
    values = np.zeros(shape, dtype)
    halves = {"x_train": values[: len(values) // 2], "x_test": values[len(values) // 2 :]}
    opened(values)
    opened(halves)
    for content in (values, halves):
        assert megabytes <= peak(lambda content=content: opened(content).values) < 1.6 * megabytes


def test_mnist_is_held_once(shared):
    folder = shared / "data" / "mnist"
    if not folder.is_dir():
        pytest.skip(f"no {folder}")
    found = []
    size = 70_000 * 784 / 2**20
    # The labels and splits are lists of 70,000 names that are shared.
    assert peak(lambda: found.append(open_arrays(folder))) < size + 8
    assert found[0].values.shape == (70_000, 28, 28, 1)
    assert (found[0].splits.count("train"), found[0].splits.count("test")) == (60_000, 10_000)
    assert found[0].labels[59_998:60_003] == ["6", "8", "7", "2", "1"]
    assert found[0].place(60_017) == "t10k-images-idx3-ubyte.gz#17"


def test_what_is_told_of_arrays_is_short():
    with pytest.raises(DataError) as caught:
        open_arrays(np.zeros((1,) * 64, "u1"))
    assert len(str(caught.value)) < 400
    assert array_values.row_shape(stored.InMemory("x", "x", np.zeros((2, 3, 4), "u1"))) == (3, 4, 1)
