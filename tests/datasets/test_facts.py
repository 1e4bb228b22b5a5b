import hashlib
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import PIL
import pytest
from PIL import Image

from kerastk.datasets import facts
from kerastk.datasets.facts import THUMBNAIL, Facts, FactStore, examine, pixel_digest
from kerastk.errors import PhotoError


def test_facts_of_a_photo(picture, encode):
    data = encode(picture(width=90, height=60))
    fact = examine(data)
    assert fact.sha256 == hashlib.sha256(data).hexdigest()
    assert (fact.format, fact.width, fact.height, fact.mode, fact.error) == ("PNG", 90, 60, "RGB", "")
    thumbnail = np.frombuffer(fact.thumbnail, np.uint8).reshape(THUMBNAIL, THUMBNAIL, 3)
    small = Image.fromarray(picture(width=90, height=60)).resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BOX)
    assert np.abs(thumbnail.astype(int) - np.asarray(small)).mean() < 4


@pytest.mark.parametrize(("data", "kind"), [(b"", "empty"), (b"<html>", "not-image"), (b"\xff\xd8\xff\xe0", "damaged")])
def test_facts_of_what_is_no_photo(data, kind):
    fact = examine(data)
    assert (fact.sha256, fact.kind) == (hashlib.sha256(data).hexdigest(), kind)
    assert fact.error
    with pytest.raises(PhotoError):
        pixel_digest(data)


def test_the_hash_changes_little_by_encoding_and_much_by_the_picture(picture, encode):
    def bits(one, other):
        return (examine(one).phash ^ examine(other).phash).bit_count()

    data = encode(picture(0, width=160, height=120))
    small = Image.fromarray(picture(0, width=160, height=120)).resize((128, 96))
    assert bits(data, encode(picture(0, width=160, height=120), "JPEG", quality=60)) <= 4
    assert bits(data, encode(small)) <= 4
    assert bits(data, encode(picture(1, width=160, height=120))) > 12


def test_equal_pixels_have_equal_digests(picture, encode):
    pixels = picture()
    digests = {pixel_digest(encode(pixels, format)) for format in ("PNG", "BMP", "TIFF")}
    assert len(digests) == 1
    changed = pixels.copy()
    changed[20, 30, 1] ^= 1
    assert pixel_digest(encode(changed)) not in digests


def test_equal_bytes_in_another_shape_have_another_digest(encode):
    flat = [pixel_digest(encode(np.zeros(shape, np.uint8))) for shape in ((4, 8, 3), (8, 4, 3), (2, 16, 3))]
    assert len(set(flat)) == 3


@pytest.fixture
def examples(picture, encode):
    return [examine(encode(picture(1))), examine(encode(picture(2))), examine(b"<html>"), Facts("ab", phash=2**64 - 1,
            thumbnail=bytes(THUMBNAIL * THUMBNAIL * 3), pixels="cd")]  # fmt: skip


def test_the_store_gives_back_what_was_put(examples, tmp_path):
    store = FactStore(tmp_path / "new" / "facts.sqlite")
    assert store.get(examples[0].sha256) is None
    store.put(examples)
    store.put([])
    for fact in examples:
        assert store.get(fact.sha256) == fact
    store.put([replace(examples[0], pixels="later")])
    assert store.get(examples[0].sha256).pixels == "later"
    store.close()
    again = FactStore(tmp_path / "new" / "facts.sqlite")
    assert [again.get(fact.sha256) for fact in examples[1:]] == examples[1:]


def test_the_store_lies_in_the_cache(examples, tmp_path, monkeypatch):
    monkeypatch.setenv("KERASTK_CACHE", str(tmp_path / "here"))
    FactStore().put(examples)
    assert FactStore().get(examples[0].sha256) == examples[0]
    assert (tmp_path / "here").is_dir()
    monkeypatch.setenv("KERASTK_CACHE", str(tmp_path / "there"))
    assert FactStore().get(examples[0].sha256) is None


@pytest.mark.parametrize(("module", "name", "value"), [(facts, "DECODER_VERSION", -1), (PIL, "__version__", "1.0")])
def test_facts_of_another_decoder_are_not_used(examples, tmp_path, monkeypatch, module, name, value):
    FactStore(tmp_path / "facts.sqlite").put(examples)
    monkeypatch.setattr(module, name, value)
    assert FactStore(tmp_path / "facts.sqlite").get(examples[0].sha256) is None


def test_the_store_serves_many_threads_and_connections(examples, tmp_path):
    path = tmp_path / "facts.sqlite"
    stores = [FactStore(path) for _ in range(3)]

    def work(number):
        store = stores[number % 3]
        store.put([replace(examples[0], sha256=f"{number:064x}", width=number)])
        return store.get(f"{number:064x}").width

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(work, range(60))) == list(range(60))
    assert all(stores[0].get(f"{number:064x}").width == number for number in range(60))


def spoil_middle(data):
    return data[:4096] + b"\xee" * (len(data) - 4096)


@pytest.mark.parametrize(
    "spoil", [lambda data: b"no database", lambda data: b"", lambda data: data[: len(data) // 2], spoil_middle]
)
def test_damage_of_the_store_costs_time_only(examples, tmp_path, spoil):
    path = tmp_path / "facts.sqlite"
    store = FactStore(path)
    store.put([replace(examples[0], sha256=f"{n:064x}") for n in range(50)])
    store.close()
    path.write_bytes(spoil(path.read_bytes()))
    damaged = FactStore(path)
    for number in range(50):
        assert damaged.get(f"{number:064x}") in (None, replace(examples[0], sha256=f"{number:064x}"))
    damaged.put(examples)
    damaged.close()


def test_a_store_that_cannot_be_made_is_empty(examples, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "folder.sqlite").mkdir()
    for path in (tmp_path / "file" / "facts.sqlite", tmp_path / "folder.sqlite"):
        store = FactStore(path)
        store.put(examples)
        assert store.get(examples[0].sha256) is None
        store.close()


def test_a_row_that_makes_no_sense_is_not_used(examples, tmp_path):
    path = tmp_path / "facts.sqlite"
    store = FactStore(path)
    for column, value in (("phash", "xyz"), ("thumbnail", b"short"), ("thumbnail", None)):
        store.put(examples)
        with sqlite3.connect(path) as database:
            database.execute(f"UPDATE facts SET {column} = ?", (value,))
        assert store.get(examples[0].sha256) is None


def test_a_failed_write_does_not_hinder_the_next(examples, tmp_path):
    store = FactStore(tmp_path / "facts.sqlite")
    store.put([examples[0], replace(examples[1], width=object())])
    store.put(examples)
    assert store.get(examples[1].sha256) == examples[1]
