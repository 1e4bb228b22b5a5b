import gzip
import tracemalloc

import numpy as np
import pytest

from kerastk.errors import DataError
from kerastk.networks.vectors import read_vectors, vector_words

FILE = """\
the 1 2 3
paris -1 0.5 2e-1
2019 4 4 4
1066 5 5 5
new york 7 8 9
Paris 6 6 6
"""


@pytest.fixture
def written(tmp_path):
    def write(content, name="vectors.txt"):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


def test_each_word_gets_its_best_row_and_is_counted(written):
    words = ["the", "The", "Paris", "PARIS", "0000", "new york", "zzz"]
    found = read_vectors(written(FILE), words, seed=1)
    assert (found.exact, found.folded, found.lower, found.missing) == (3, 1, 2, 1)
    assert found.matrix.shape == (9, 3)
    assert found.matrix.dtype == np.float32
    expected = [[0, 0, 0], [1, 2, 3], [1, 2, 3], [6, 6, 6], [-1, 0.5, 0.2], [4, 4, 4], [7, 8, 9]]
    np.testing.assert_allclose(found.matrix[[0, 2, 3, 4, 5, 6, 7]], expected)


def test_what_is_missing_is_drawn_by_the_seed_with_the_files_deviation(written):
    random = np.random.default_rng(0)
    rows = random.normal(size=(300, 20)) * 0.3
    text = "".join(f"w{number}x {' '.join(map(str, row))}\n" for number, row in enumerate(rows))
    known, unknown = ["w1x", "w2x", "w3x", "w4x"], [f"u{number}" for number in range(200)]
    first, again, other = (read_vectors(written(text), known + unknown, seed=seed) for seed in (1, 1, 2))
    assert first.missing == 200
    assert np.array_equal(first.matrix, again.matrix)
    assert not np.array_equal(first.matrix, other.matrix)
    assert first.matrix[6:].std() == pytest.approx(first.matrix[2:6].std(), rel=0.1)
    assert first.matrix[1].any()
    # Another word in the file leaves the others' rows as they are, but for their scale.
    more = read_vectors(written(text + "u0" + " 0.3" * 20 + "\n"), known + unknown, seed=1).matrix
    assert np.corrcoef(more[7:].ravel(), first.matrix[7:].ravel())[0, 1] > 0.999


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("change", [str, "6 3\n{}".format, lambda text: text.replace("\n", " \r\n")], ids=range(3))
def test_headers_trailing_spaces_and_gzip_are_welcome(written, zipped, change):
    content = change(FILE).encode()
    path = written(gzip.compress(content) if zipped else content)
    assert np.array_equal(read_vectors(path, ["the"], seed=0).matrix[2], [1, 2, 3])
    assert vector_words(path, most=10) == ["the", "paris", "2019", "1066", "new york", "Paris"]
    assert vector_words(path, most=2) == ["the", "paris"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "holds 0 vectors"),
        ("word\n", "line 1: expected a word and its numbers; got 'word'"),
        ("a 1 2\nb 1\n", "line 2: expected a word and 2 numbers; got 'b 1'"),
        ("a 1 2\n\nb 1 2\n", "line 2: expected a word and 2 numbers; got ''"),
        ("a 1 2\nb 1 x\n", "line 2: expected 2 numbers after 'b'; got '1 x'"),
        ("a 1 2\nb 1 nan\n", "line 2: expected 2 numbers after 'b'"),
        (b"a 1 2\n\xff\xfe 1 2\n", "line 2: it is not UTF-8"),
        ("5 2\na 1 2\n", "holds 1 vectors, of which its first line announces 5; it may be cut short"),
        ("a " + "1 " * 2**20, "line 1: longer than 1048576 bytes"),
        (gzip.compress(FILE.encode())[:-12], "damaged gzip file"),
        ("b 1 2\n", "no vector for any of the 1 words"),
    ],
    ids=lambda value: value if isinstance(value, str) and len(value) < 80 else "",
)
def test_damage_is_told_in_a_line_with_its_place(written, content, message):
    with pytest.raises(DataError, match=rf"^[^\n]*vectors.txt[^\n]*{message}[^\n]*$"):
        read_vectors(written(content), ["a"], seed=0)


@pytest.mark.parametrize("name", ["nowhere.txt", ""])
def test_a_file_that_is_not_there_is_told_in_a_line(tmp_path, name):
    with pytest.raises(DataError, match=r"^cannot read the vectors [^\n]+$"):
        read_vectors(tmp_path / name, ["a"], seed=0)


def test_a_large_file_takes_no_memory(written):
    text = "".join(f"w{number}x " + "0.123456 " * 50 + "\n" for number in range(20_000))
    path = written(text)
    assert path.stat().st_size > 8 * 2**20
    tracemalloc.start()
    read_vectors(path, ["w5x"], seed=0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**20


def test_real_vectors(shared):
    path = shared / "data" / "tagging" / "glove.twitter.25d.12k.txt"
    words = vector_words(path, most=50_000)
    assert len(words) == 11_925
    found = read_vectors(path, [*words, "London", "LONDON", "qqqqqqqz"], seed=0)
    assert (found.exact, found.lower, found.missing) == (11_925, 2, 1)
    assert found.matrix.shape == (11_930, 25)
