"""Files of arrays that were made to do harm, and their readers on spoiled and on made-up ones."""

import functools
import gzip
import io
import struct
import zipfile

import numpy as np
import pytest
from hypothesis import strategies as st

from kerastk.datasets import stored
from kerastk.datasets.array_data import look_at_arrays, open_array_data
from kerastk.datasets.arrays import is_arrays, open_arrays
from kerastk.errors import DataError, KerastkError
from tests.hostile.test_fuzz import COUNTS, TEXTS, fuzz, spoiled


@pytest.fixture
def file_refused(refused, tmp_path):
    def call(content, name, **bounds):
        (tmp_path / name).write_bytes(content)
        return refused(open_arrays, tmp_path / name, kind=DataError, **bounds).replace(f"{tmp_path}/", "")

    return call


def npy(values):
    file = io.BytesIO()
    np.save(file, values)
    return file.getvalue()


def announced(shape, descr="'|u1'", *, version=1, fortran=False, length=None):
    """The header of a .npy file, which says what it is told to."""
    text = f"{{'descr': {descr}, 'fortran_order': {fortran}, 'shape': {shape}}}\n".encode()
    code = "<H" if version == 1 else "<I"
    return b"\x93NUMPY" + bytes([version, 0]) + struct.pack(code, len(text) if length is None else length) + text


def npz(*members, method=zipfile.ZIP_DEFLATED):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method, compresslevel=1) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return file.getvalue()


def idx(values):
    return struct.pack(f">2BBB{values.ndim}I", 0, 0, 8, values.ndim, *values.shape) + values.tobytes()


# Bombs.


@pytest.mark.parametrize(
    "header",
    [
        announced("(4000000000, 28, 28)"),
        announced("(2, 1000000000, 1000000000)"),
        announced(f"({'9' * 4000}, 2)"),
        announced("(1000000000000, 0)"),
        announced(f"({'1, ' * 3000})"),
        announced("(3, 3)", "'<U2147483647'"),
        announced("(3, 3)", "('<f4', (1000000000,))"),
        announced("(3, 3)", version=2, length=2**32 - 1),
        announced("(3, 3)", version=2, length=2**20) + b" " * 2**20,
        announced("(" * 5000),
        announced("(3, 3)", "'|O'"),
    ],
    ids=range(11),
)
def test_headers_that_announce_the_world_are_refused_soon(header, file_refused):
    assert file_refused(header + bytes(100), "x.npy", megabytes=4).count("x.npy") == 1
    assert "array 'x'" in file_refused(npz(("x.npy", header + bytes(100))), "x.npz", megabytes=4)


def test_a_npz_that_swells_is_refused_before_it_is_unpacked(file_refused, monkeypatch):
    monkeypatch.setattr(stored, "MAX_BYTES", 2**20)
    zeros = announced(f"({2**20}, 64)") + bytes(2**26)
    told = "unpacks to more than 0.03 GiB, too much for its size; if you trust it, save it again by numpy.savez"
    assert told in file_refused(npz(("x.npy", zeros)), "x.npz", megabytes=4)
    # In many members as well, of which each is small.
    small = announced("(1024, 64)") + bytes(2**16)
    assert "too much for its size" in file_refused(npz(*((f"{n}.npy", small) for n in range(900))), "x.npz")
    assert "1,001 members; the limit is 1,000" in file_refused(npz(*((f"{n}", b"") for n in range(1001))), "x.npz")


def test_of_a_member_no_more_is_unpacked_than_it_announced(file_refused):
    # Its headers are those of a small array, its bytes swell: the central directory lies about the size.
    small, large = announced("(8, 8)") + bytes(64), announced("(8, 8)") + bytes(2**26)
    data = npz(("x.npy", large)).replace(struct.pack("<I", len(large)), struct.pack("<I", len(small)))
    assert len(data) < 2**19
    assert "Bad CRC-32" in file_refused(data, "x.npz", megabytes=4)


def test_labels_that_are_long_texts_do_not_fill_the_memory(file_refused):
    labels = announced("(9,)", "'<U10000000'") + bytes(100)
    members = ("x.npy", npy(np.zeros((9, 2), "f4"))), ("y.npy", labels)
    assert "array 'y' is damaged" in file_refused(npz(*members), "x.npz", megabytes=4)


@pytest.mark.parametrize("packed", [False, True])
def test_an_idx_file_that_announces_the_world_is_refused_soon(packed, file_refused):
    header = struct.pack(">4B3I", 0, 0, 8, 3, 60_000, 2800, 2800)
    data = header + bytes(2**20)
    assert "announces uint8 of shape (60000, 2800, 2800)" in file_refused(
        gzip.compress(data) if packed else data, "x-images-idx3-ubyte", megabytes=4
    )


@pytest.mark.parametrize("content", [b"", b"a,b\n1,2\n"])
def test_a_line_without_an_end_is_refused_before_it_is_read(content, file_refused):
    number = content.count(b"\n") + 1
    message = file_refused(content + b"1" * (32 * 2**20), "x.csv", megabytes=16)
    assert f"'x.csv', line {number}: more than 1,048,576 characters; expected UTF-8 text with a row of" in message


@pytest.mark.parametrize(
    ("content", "message", "megabytes"),
    [
        (b"a,b\n1," + b"2" * 200_000 + b"\n", "line 2: field larger than field limit (131072)", 4),
        (b'a,b\n"1,2\n' + 2**20 * b"3,4\n", "field larger than field limit (131072)", 4),
        ("a,b\n1,2\n".encode("utf-16"), "line 1: a NUL character", 4),
        (b"a,b\n1,2\n3,\xff\n", "row 1 (line 3), column 'b': '\\udcff' is no number.", 4),
        (300_000 * b"a," + b"a\n1,2\n", "has the column 'a' 300001 times.", 100),
        (b",".join(b"a%d" % n for n in range(100_000)) + b"\n1,2\n", "2 cells; expected 100000", 100),
        (b",".join(b"%d" % n for n in range(100_000)) + b"\nx" + 99_999 * b",1" + b"\n", "'x' is no number", 100),
        (b"a,b\n" + 2**16 * b"1,2\n", "2 columns are, 'a', 'b', the same in all rows", 8),
        (b"a,b\n1,2\n3," + b"9" * 5000 + b"\n", "row 1, column 'b' is inf, or too large for float32", 4),
    ],
    ids=range(9),
)
def test_tables_that_are_made_to_hurt(content, message, megabytes, file_refused):
    assert message in file_refused(content, "x.csv", megabytes=megabytes)


def test_names_with_ends_of_lines_stay_in_one_line(file_refused):
    assert r"'a\nb'" in file_refused(npz(("a\nb.npy", npy(np.zeros(3))), ("c.npy", npy(VECTORS))), "x.npz")
    assert r"array 'a\nb' is no array" in file_refused(npz(("a\nb.npy", b"")), "x.npz")
    assert r"column 'a\nb': 'x\ny' is no number" in file_refused(b'"a\nb"\n"x\ny"\n', "x.csv")


# Fuzz.

GREY = np.random.default_rng(0).integers(0, 256, (6, 4, 3), np.uint8)
VECTORS = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32)


def read(path, data):
    """What opens is as it is promised to be, and can be split; what does not is refused in one short line."""
    path.write_bytes(data)
    assert is_arrays(path) in (True, False)
    message = None
    try:
        found = open_arrays(path)
    except KerastkError as error:
        message = str(error)
    if message is not None:
        assert "\n" not in message
        assert len(message) < 1000
        return
    assert found.values.ndim == (4 if found.what == "images" else 2)
    assert found.values.dtype == (np.uint8 if found.what == "images" else np.float32)
    assert found.values.size > 0
    assert np.isfinite(found.values).all()
    count = len(found.values)
    for texts in (found.labels, found.splits):
        assert texts is None or (len(texts) == count and all(isinstance(each, str) for each in texts))
    assert len(set(found.places)) == count
    assert len(look_at_arrays(found).photos) == count
    opened = open_array_data(
        found, split=None, fractions=(0.7, 0.15, 0.15), split_seed=None, strict=False, batch_size=4, seed=0,
        labelled=False,
    )  # fmt: skip
    next(iter(opened.train))


@functools.cache
def idx_files():
    return [idx(GREY), idx(GREY[:, 0]), gzip.compress(idx(GREY), mtime=0), idx(GREY[..., None])]


@COUNTS
def test_idx_files(examples, tmp_path):
    fuzz(examples, spoiled(idx_files()) | st.binary(max_size=60), lambda data: read(tmp_path / "x-idx3-ubyte", data))


SIZES = st.sampled_from([0, 1, 2, 3, 4, 6, 28, 2**8, 2**16, 2**31, 2**32 - 1])
NEAR = st.sampled_from([0, 0, 0, 0, -1, 1])


IDX_BYTES = {8: 1, 9: 1, 11: 2, 12: 4, 13: 4, 14: 8}


@st.composite
def made_idx(draw):
    """A file with as many bytes as its header announces, more or less one, where these are few."""
    shape = draw(st.lists(st.integers(1, 9), min_size=1, max_size=4) | st.lists(SIZES, max_size=5))
    code = draw(st.sampled_from([*IDX_BYTES, 8, 8, 8, 10, 255]))
    size = min(IDX_BYTES.get(code, 1) * int(np.prod(shape, dtype=object)), 10_000) + draw(NEAR)
    body = (draw(st.binary(min_size=1, max_size=9)) * (max(0, size) + 1))[: max(0, size)]
    data = struct.pack(f">4B{len(shape)}I", 0, 0, code, len(shape), *shape) + body
    return gzip.compress(data, mtime=0) if draw(st.booleans()) else data


@COUNTS
def test_idx_files_of_made_up_headers(examples, tmp_path):
    fuzz(examples, made_idx(), lambda data: read(tmp_path / "x-idx3-ubyte", data))


@functools.cache
def npy_files():
    wide = np.asfortranarray(VECTORS.astype("f8"))
    return [npy(GREY), npy(VECTORS), npy(wide), npy(GREY / 255), npy(GREY > 9), npy(GREY[..., :1, None])]


@COUNTS
@pytest.mark.filterwarnings("ignore")
def test_npy_files(examples, tmp_path):
    fuzz(examples, spoiled(npy_files()) | st.binary(max_size=60), lambda data: read(tmp_path / "x.npy", data))


# Types with the bytes that a number of them has.
DESCRS = {
    "'|u1'": 1, "'<f4'": 4, "'>f8'": 8, "'|b1'": 1, "'<i8'": 8, "'<f2'": 2, "'<U3'": 12, "'|S2'": 2, "'|O'": 8,
    "'<M8[s]'": 8, "'|V4'": 4, "[('a', '<f4')]": 4, "('<f4', (2,))": 8, "'<c8'": 8, "'T'": 16, "'<U0'": 0, "None": 8,
    "[]": 0, "{}": 1,
}  # fmt: skip


@st.composite
def made_npy(draw):
    """A file whose header is well written, with as many bytes as it announces, more or less one."""
    shape = draw(st.lists(st.integers(1, 5), min_size=1, max_size=4) | st.lists(SIZES | st.just(-1), max_size=5))
    descr = draw(st.sampled_from(list(DESCRS)))
    size = min(DESCRS[descr] * abs(int(np.prod(shape, dtype=object))), 10_000) + draw(NEAR)
    body = (draw(st.binary(min_size=1, max_size=9)) * (max(0, size) + 1))[: max(0, size)]
    told = draw(st.just(str(tuple(shape))) | TEXTS) if draw(st.integers(0, 9)) == 0 else str(tuple(shape))
    fortran = draw(st.sampled_from([False, False, True, None]))
    return announced(told, descr, version=draw(st.sampled_from([1, 2])), fortran=fortran) + body


@COUNTS
@pytest.mark.filterwarnings("ignore")
def test_npy_files_of_made_up_headers(examples, tmp_path):
    fuzz(examples, made_npy(), lambda data: read(tmp_path / "x.npy", data))


@functools.cache
def npz_files():
    found = []
    for arrays in (
        {"x_train": GREY, "y_train": np.arange(6), "x_test": GREY[:2], "y_test": np.arange(2)},
        {"vector": VECTORS, "label": np.array(list("ababab")), "path": np.array(list("uvwxyz"))},
        {"x": VECTORS, "y": np.array([b"a", b"b"] * 3)},
    ):
        for save in (np.savez, np.savez_compressed):
            file = io.BytesIO()
            save(file, **arrays)
            found.append(file.getvalue())
    return found


@COUNTS
@pytest.mark.filterwarnings("ignore")
def test_npz_files(examples, tmp_path):
    fuzz(examples, spoiled(npz_files()), lambda data: read(tmp_path / "x.npz", data))


@COUNTS
@pytest.mark.filterwarnings("ignore")
def test_npz_files_of_made_up_arrays(examples, tmp_path):
    names = st.sampled_from(["x", "y", "x_train", "y_train", "x_test", "y_test", "images", "label", "vector", "path"])
    arrays = st.sampled_from([npy(each) for each in (
        GREY, GREY[:2], VECTORS, VECTORS[:2], np.arange(6), np.arange(2.0), np.array(["", "b"] * 3), np.zeros((6, 0)),
        np.array([np.nan] * 6), np.zeros(()), np.array(list("uvwxyz")), np.array([b"\xff\0"] * 6), GREY[:0],
        np.frombuffer(b"\xff" * 24, "<U1"),
    )])  # fmt: skip
    others = TEXTS.map(lambda text: text.replace("\0", ""))
    members = st.dictionaries(names, arrays) | st.dictionaries(
        names | others, arrays | spoiled(npy_files()), max_size=5
    )

    def pack(found):
        return npz(*((f"{name}.npy", data) for name, data in found.items()))

    fuzz(examples, members.map(pack), lambda data: read(tmp_path / "x.npz", data))


CSV = [
    b"a,b,label,split\n1,2,x,train\n3,4.5,y,val\n-5e3,6,x,test\n",
    b"1,2\n3,4\n5,7\n8,9\n0,1\n",
    '\ufeff"a","b"\r\n1,2\r\n3,"4"\r\n5,6\r\n7,8\r\n9,1\r\n'.encode(),
    b"0,1,2\n1,2,3\n4,5,6\n",
]


@COUNTS
def test_tables_of_numbers(examples, tmp_path):
    cells = TEXTS | st.sampled_from(["a", "label", "split", "1", "2.5", "-3e9", "nan", "inf", "1e39", "", "train", "x"])
    rows = st.lists(st.lists(cells, min_size=1, max_size=4), max_size=6)
    lines = rows.map(lambda some: "\n".join(",".join(row) for row in some).encode())
    fuzz(examples, spoiled(CSV) | lines | st.binary(max_size=60), lambda data: read(tmp_path / "x.csv", data))


@COUNTS
def test_tables_of_made_up_numbers(examples, tmp_path):
    # Of what floats can be written as, all that is finite in float32 is read as it is.
    def read_back(rows):
        path = tmp_path / "x.csv"
        path.write_text("a,b\n" + "".join(f"{one!r},{other!r}\n" for one, other in rows))
        found = open_arrays(path)
        with np.errstate(over="ignore"):
            assert np.array_equal(found.values, np.array(rows, np.float32))

    numbers = st.floats() | st.integers(-(2**70), 2**70)
    fuzz(examples, st.lists(st.tuples(numbers, numbers), max_size=6), read_back)
