"""Files of sentences that were made to do harm."""

import gzip
import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kerastk.datasets import columns, sequences, spanned
from kerastk.datasets import sentence as limits
from kerastk.datasets.sequence_check import check_sentences
from kerastk.datasets.sequences import open_sentences
from kerastk.datasets.vocabulary import PADDING, UNKNOWN, Vocabulary
from kerastk.errors import DataError, KerastkError


@pytest.fixture
def file_refused(refused, tmp_path):
    def call(content, name="x.conll", **bounds):
        (tmp_path / name).write_bytes(content)
        return refused(open_sentences, tmp_path / name, kind=DataError, **bounds).replace(f"{tmp_path}/", "")

    return call


@pytest.mark.parametrize("name", ["x.conll", "x.conllu", "x.jsonl"])
@pytest.mark.parametrize("content", [b"", b"# a comment\n"])
def test_a_line_without_an_end_is_refused_before_it_is_read(content, name, file_refused):
    number = content.count(b"\n") + 1
    message = file_refused(content + b"a" * (64 * 2**20), name, megabytes=16)
    assert message == f"{name}, line {number}: more than 4 MiB without an end of line."


@pytest.mark.parametrize(
    ("piece", "message"),
    [
        (b"a", "x.conll, line 1: more than 4 MiB without"),
        (b"\n", "'x.conll' holds no sentences in its first 2,000 lines;"),
        (b"#\n", "x.conll, line 5001: a file of more than 5,000 lines or 4 GiB; split it."),
        (b"a O\n\n", "x.conll, line 5001: a file of more than 5,000 lines or 4 GiB; split it."),
    ],
)
def test_what_unpacks_to_a_thousand_times_its_size_is_bounded(piece, message, file_refused, monkeypatch):
    monkeypatch.setattr(limits, "MAX_LINES", 5000)
    packed = gzip.compress(piece * (2**24 // len(piece)))
    assert len(packed) < 100_000
    assert file_refused(packed).startswith(message)


def test_many_short_lines_are_bounded_by_their_bytes(file_refused, monkeypatch):
    monkeypatch.setattr(limits, "MAX_BYTES", 5000)
    assert "x.conll, line 2001: a file of more than" in file_refused(b"a O\n\n" * 2000)


def test_a_sentence_that_never_ends_is_refused(file_refused, monkeypatch):
    for module in (limits, columns, spanned):
        monkeypatch.setattr(module, "MAX_SENTENCE", 1000)
    endless = "line 1: the sentence that begins here has more than 1,000 words; an empty line ends a sentence."
    assert file_refused(b"word\tO\n" * 100_000, megabytes=4) == f"x.conll, {endless}"
    lines = b"".join(b"%d\tw\tw\tX\tX\t_\t0\tx\t_\t_\n" % number for number in range(1, 3000))
    assert file_refused(lines, "x.conllu", megabytes=4) == f"x.conllu, {endless}"
    line = json.dumps({"text": "a " * 1500, "spans": []}).encode()
    assert file_refused(line, "x.jsonl") == "x.jsonl, line 1: a sentence of 1,500 words; the limit is 1,000."


def test_too_many_words_are_refused(file_refused, monkeypatch):
    monkeypatch.setattr(sequences, "MAX_TOKENS", 1000)
    assert "more than 1,000 words in the file" in file_refused(b"word\tO\n\n" * 2000)


def test_hundreds_of_thousands_of_columns_are_one_short_line(file_refused):
    assert file_refused(b"a\t" * 300_000 + b"O\n", megabytes=120) == "x.conll has 300,001 columns; the limit is 100."


@pytest.mark.parametrize(
    "content", [b"PK\x03\x04\0\0\0", bytes(1000), "a\tO\n".encode("utf-16"), b"\x89PNG\r\n\x1a\n\0"]
)
def test_what_is_no_text_is_refused_with_its_line(content, file_refused):
    assert file_refused(content).startswith("x.conll, line ")


@pytest.mark.parametrize(
    "line",
    [
        b"1-999999999\tx\t_\t_\t_\t_\t_\t_\t_\t_\n1\tx\tx\tX\tX\t_\t0\tx\t_\t_\n\n",
        b"9" * 5000 + b"\tx\tx\tX\tX\t_\t0\tx\t_\t_\n",
        b"1." + b"9" * 5000 + b"\tx\tx\tX\tX\t_\t0\tx\t_\t_\n",
    ],
)
def test_numbers_of_conllu_that_are_too_large(line, file_refused):
    assert "x.conllu, line " in file_refused(line, "x.conllu")


@pytest.mark.parametrize(
    "line",
    [
        b'{"text": ' * 50_000,
        b'{"text": "a", "spans": ' + b"[" * 50_000,
        b'{"text": "a", "spans": [[0, ' + b"9" * 10_000 + b', "x"]]}',
        b'{"text": "a", "spans": [[0, 1e999, "x"]]}',
        b'{"text": "a", "spans": [[0, NaN, "x"]]}',
        b'{"text": "a", "spans": [[0, 1, "' + b"x" * 100_000 + b'"], [0, 1, "y"]]}',
        b'{"text": "a", "spans": [' + b'[0, 1, "x"],' * 20_000 + b'[0, 1, "x"]]}',
    ],
)
def test_json_that_is_made_to_hurt(line, file_refused):
    assert "x.jsonl, line 1: " in file_refused(line + b"\n", "x.jsonl", megabytes=120)


WORDS = st.sampled_from(["a", "B-x", "I-x", "O", "#", "-DOCSTART-", "1", "1-2", "1.1", "_", "\xa0", "\t", " ", "\n",
                         "\r", "\n\n", "{", '{"text": "a b", "spans": [[0, 1, "x"]]}', "# text = a", "SpaceAfter=No",
                         "\ufeff", "é", "\u2028", "1\ta\ta\tX\tX\t_\t0\tx\t_\t_\n"])  # fmt: skip


@given(st.lists(WORDS | st.text(max_size=2), max_size=30).map("".join), st.sampled_from(["conll", "conllu", "jsonl"]))
@settings(deadline=None, max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_text_is_read_or_refused_in_one_line(tmp_path, content, suffix):
    path = tmp_path / f"x.{suffix}"
    path.write_bytes(content.encode("utf-8", "surrogatepass"))
    found = look = message = None
    try:
        found = open_sentences(path)
        look = check_sentences({"train": found}) if found.scheme is not None else None
    except KerastkError as error:
        message = str(error)
    if message is not None:
        assert "\n" not in message
        return
    for each in found.sentences:
        assert each.tokens
        assert all(each.tokens)
        assert each.tags is None or len(each.tags) == len(each.tokens)
        if each.offsets is not None and found.kind == "jsonl":
            assert tuple(each.text[start:end] for start, end in each.offsets) == each.tokens
    if look is not None:
        words = [each.tokens for each in found.sentences]
        made = Vocabulary.of(words, look.tags, max_words=10, min_count=1, fold_digits=True, lower=True, word_length=3)
        numbers = made.encode([word for tokens in words for word in tokens])["words"]
        # Nothing is taken for padding, and the most frequent word is known.
        assert numbers.min() > PADDING
        assert numbers.max() > UNKNOWN
