import hashlib
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from kerastk.training.store import DTYPES, MemoryStore, Overflow, Store, entries, remove, trim

SHAPE = (5, 3)
RECORD = 36
DESCRIBED = {"base": "tiny", "image_size": 32}

# What the tests here and the programs that they start agree on.
COMMON = """
import hashlib, os, resource, signal, sys
from pathlib import Path
import numpy as np
from kerastk.training.store import Store, remove

def sha(number):
    return hashlib.sha256(str(number).encode()).hexdigest()

def rows(*numbers, shape=(5, 3)):
    return np.stack([np.random.default_rng(number).normal(size=shape).astype("float32") for number in numbers])

root = Path(sys.argv[1])
described = {"base": "tiny", "image_size": 32}
"""


def sha(number):
    return hashlib.sha256(str(number).encode()).hexdigest()


def rows(*numbers, shape=SHAPE):
    return np.stack([np.random.default_rng(number).normal(size=shape).astype("float32") for number in numbers])


def opened(root, dtype="float32", shape=SHAPE, **described):
    return Store(root, {**DESCRIBED, **described}, shape, dtype)


def filled(root, count, **values):
    """A store with the rows 0 to count - 1, closed."""
    store = opened(root, **values)
    with store.writing():
        store.append([sha(number) for number in range(count)], rows(*range(count)))
    store.close()
    return store


def add(store, *numbers):
    with store.writing():
        lacking = [numbers[place] for place in store.missing([sha(number) for number in numbers])]
        if lacking:
            store.append([sha(number) for number in lacking], rows(*lacking))
    return lacking


def there(store, count):
    """Which of the photos 0 to count - 1 the store has a good row for."""
    lacking = store.missing([sha(number) for number in range(count)])
    return [number for number in range(count) if number not in lacking]


def is_right(store, *numbers):
    hashes = [sha(number) for number in numbers]
    return store.missing(hashes) == [] and np.array_equal(store.gather(store.places(hashes)), rows(*numbers))


def start(code, *arguments):
    return subprocess.Popen(
        [sys.executable, "-c", COMMON + code, *map(str, arguments)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def run(code, *arguments):
    process = start(code, *arguments)
    out, errors = process.communicate(timeout=100)
    assert process.returncode in (0, -signal.SIGKILL), errors
    return process.returncode, out


def flip(path, place):
    content = bytearray(path.read_bytes())
    content[place] ^= 0x40
    path.write_bytes(content)


def test_rows_come_back_in_any_order_from_another_object_and_from_another_process(tmp_path):
    numbers = list(range(40))
    order = [*np.random.default_rng(1).permutation(40).tolist(), 7, 7]
    for dtype, kind in DTYPES.items():
        store = opened(tmp_path, dtype)
        with store.writing():
            store.append([sha(number) for number in numbers[:25]], rows(*numbers[:25]))
            store.append([sha(number) for number in numbers[25:]], rows(*numbers[25:]))
        expected = rows(*order).astype(kind)
        for each in (store, opened(tmp_path, dtype)):
            assert each.missing([sha(number) for number in order]) == []
            found = each.gather(each.places([sha(number) for number in order]))
            assert found.dtype == kind
            assert np.array_equal(found.view(np.uint8), expected.view(np.uint8))
        assert store.size == 40 * 15 * kind.itemsize
        (tmp_path / dtype).write_bytes(expected.tobytes())

    run(
        "order = [int(each) for each in sys.argv[2].split(',')]\n"
        "for dtype in ('float32', 'float16', 'bfloat16'):\n"
        "    store = Store(root, described, (5, 3), dtype)\n"
        "    hashes = [sha(number) for number in order]\n"
        "    assert store.missing(hashes) == []\n"
        "    assert store.gather(store.places(hashes)).tobytes() == (root / dtype).read_bytes(), dtype\n",
        tmp_path, ",".join(map(str, order)),
    )  # fmt: skip


def test_bfloat16_keeps_the_upper_half_of_a_float32(tmp_path):
    store = opened(tmp_path, "bfloat16", shape=(3,))
    values = np.array([[1.0, -2.5, 3e38]], np.float32)
    with store.writing():
        store.append([sha(0)], values)
    raw = np.frombuffer((store.path / "rows.bin").read_bytes(), np.uint16)
    assert raw.tolist() == [0x3F80, 0xC020, 0x7F62]
    np.testing.assert_allclose(store.gather(np.array([0])).astype(np.float32), values, rtol=2**-8)


@pytest.mark.parametrize(
    ("dtype", "bad"),
    [("float16", 70_000.0), ("float16", np.nan), ("bfloat16", 3.4e38), ("bfloat16", np.inf), ("float32", np.nan)],
)
def test_a_value_that_is_not_finite_in_the_type_is_refused_and_nothing_is_added(tmp_path, dtype, bad):
    store = opened(tmp_path, dtype)
    hashes = [sha(number) for number in range(3)]
    values = rows(0, 1, 2)
    values[1, 2, 2] = bad
    with store.writing():
        with pytest.raises(Overflow):
            store.append(hashes, values)
        assert store.missing(hashes) == [0, 1, 2]
    assert (store.path / "rows.bin").stat().st_size == (store.path / "index.bin").stat().st_size == 0
    for each in (store, opened(tmp_path, dtype)):
        assert each.missing(hashes) == [0, 1, 2]
        assert each.size == 0
    # The store is none the worse for it.
    with store.writing():
        store.append(hashes, rows(0, 1, 2))
    assert np.array_equal(store.gather(store.places(hashes)), rows(0, 1, 2).astype(DTYPES[dtype]))


def test_memory_gives_rows_back_like_the_disk():
    for dtype, kind in DTYPES.items():
        store = MemoryStore(SHAPE, dtype)
        assert store.missing([sha(1), sha(0), sha(1)]) == [0, 1]
        with store.writing():
            store.append([sha(0), sha(1)], rows(0, 1))
            store.append([sha(2)], rows(2))
        assert store.missing([sha(3), sha(2), sha(0)]) == [0]
        found = store.gather(store.places([sha(2), sha(0), sha(2)]))
        assert found.dtype == kind
        assert np.array_equal(found, rows(2, 0, 2).astype(kind))
        with pytest.raises(KeyError):
            store.places([sha(3)])


def test_memory_refuses_what_the_disk_refuses():
    store = MemoryStore(SHAPE, "float16")
    with pytest.raises(Overflow), store.writing():
        store.append([sha(0)], 1e6 * np.ones((1, *SHAPE), np.float32))
    assert store.missing([sha(0)]) == [0]


def test_rows_of_another_shape_are_refused(tmp_path):
    store = opened(tmp_path)
    with store.writing():
        with pytest.raises(ValueError, match=r"rows of shape \(5, 3\) expected for 2 photos; got \(2, 3, 5\)"):
            store.append([sha(0), sha(1)], np.ones((2, 3, 5), np.float32))
        with pytest.raises(ValueError, match="expected for 2 photos"):
            store.append([sha(0), sha(1)], rows(0))
    assert opened(tmp_path).size == 0


def test_another_description_shape_or_type_has_a_folder_of_its_own(tmp_path):
    store = filled(tmp_path, 3)
    others = [
        opened(tmp_path, image_size=33),
        opened(tmp_path, image_size="32"),
        opened(tmp_path, base="other"),
        opened(tmp_path, seed=0),
        opened(tmp_path, shape=(3, 5)),
        opened(tmp_path, shape=(15,)),
        opened(tmp_path, "float16"),
        opened(tmp_path, "bfloat16"),
        opened(tmp_path / "elsewhere"),
    ]
    assert len({each.path for each in (store, *others)}) == 10
    for each in others:
        assert there(each, 3) == []
    same = Store(tmp_path, dict(reversed(DESCRIBED.items())), list(SHAPE), "float32")
    assert same.path == store.path
    assert is_right(same, 2, 0, 1)


def test_missing_names_each_photo_once_where_it_stands_first(tmp_path):
    store = filled(tmp_path, 2)
    hashes = [sha(number) for number in (0, 5, 1, 4, 5, 4, 0)]
    assert opened(tmp_path).missing(hashes) == [1, 3]
    with pytest.raises(KeyError):
        store.places(hashes)


def test_what_a_row_took_is_kept_beside_the_rows(tmp_path):
    store = opened(tmp_path)
    assert store.seconds_per_row is None
    store.seconds_per_row = 0.0125
    assert opened(tmp_path).seconds_per_row == 0.0125
    (store.path / "speed").write_text("quick")
    assert store.seconds_per_row is None


# What a writer was at when it was killed, after it had added the photos 0, 1, 2 whole.
KILLED = {
    "rows without records": (
        "    os.fsync = lambda number: os.kill(os.getpid(), signal.SIGKILL)\n"
        "    store.append([sha(3), sha(4)], rows(3, 4))\n",
        (5 * 60, 3 * RECORD),
        [0, 1, 2],
    ),
    "half a row": (
        "    file, _ = store._files\n"
        "    file.write(rows(3, 4).tobytes()[:90])\n"
        "    file.flush()\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n",
        (3 * 60 + 90, 3 * RECORD),
        [0, 1, 2],
    ),
    "half a record": (
        "    class Cut:\n"
        "        def __init__(self, file):\n"
        "            self.file = file\n"
        "        def write(self, content):\n"
        "            self.file.write(bytes(content)[:36 + 17])\n"
        "            self.file.flush()\n"
        "            os.kill(os.getpid(), signal.SIGKILL)\n"
        "    store._files = store._files[0], Cut(store._files[1])\n"
        "    store.append([sha(3), sha(4)], rows(3, 4))\n",
        (5 * 60, 4 * RECORD + 17),
        [0, 1, 2, 3],
    ),
}


@pytest.mark.parametrize("moment", KILLED)
def test_after_a_killed_writer_the_whole_rows_are_there_and_the_next_writer_goes_on(tmp_path, moment):
    code, sizes, whole = KILLED[moment]
    status, _ = run(
        "store = Store(root, described, (5, 3), 'float32')\n"
        "with store.writing():\n"
        "    store.append([sha(0), sha(1), sha(2)], rows(0, 1, 2))\n" + code,
        tmp_path,
    )
    assert status == -signal.SIGKILL
    store = opened(tmp_path)
    # Else the program was killed at another moment than meant.
    assert ((store.path / "rows.bin").stat().st_size, (store.path / "index.bin").stat().st_size) == sizes

    assert there(store, 8) == whole
    assert is_right(store, *reversed(whole))
    assert add(store, *range(8)) == [number for number in range(8) if number not in whole]
    for each in (store, opened(tmp_path)):
        assert is_right(each, 5, 3, 4, 0, 7, 1, 2, 6)
    assert (store.path / "rows.bin").stat().st_size == 8 * 60
    assert (store.path / "index.bin").stat().st_size == 8 * RECORD


@pytest.mark.parametrize(
    ("file", "place"),
    [("rows.bin", 0), ("rows.bin", 2 * 60 + 31), ("rows.bin", 5 * 60 - 1), ("index.bin", 5), ("index.bin", 3 * 36 - 1)],
)
def test_a_flipped_byte_makes_one_row_missing_and_a_new_one_takes_its_place(tmp_path, file, place):
    store = filled(tmp_path, 5)
    damaged = place // (60 if file == "rows.bin" else RECORD)
    others = [number for number in range(5) if number != damaged]
    early = opened(tmp_path)
    flip(store.path / file, place)

    found = opened(tmp_path)
    hashes = [sha(number) for number in range(5)]
    assert found.missing(hashes) == [damaged]
    assert is_right(found, *others)
    with pytest.raises(KeyError):
        found.places(hashes)
    assert add(found, *range(5)) == [damaged]
    for each in (found, opened(tmp_path)):
        assert is_right(each, *range(5))
    # One that had it open all along, but has not read it yet, is not given the damaged row either.
    if file == "rows.bin":
        assert early.missing(hashes) == [damaged]
    assert add(early, *range(5)) == []
    assert is_right(early, *range(5))


@pytest.mark.parametrize(
    ("file", "length", "whole"),
    [
        ("rows.bin", 2 * 60 + 30, 2),
        ("rows.bin", 3 * 60, 3),
        ("rows.bin", 0, 0),
        ("index.bin", 2 * RECORD + 20, 2),
        ("index.bin", 3 * RECORD, 3),
        ("index.bin", 0, 0),
    ],
)
def test_a_file_cut_short_costs_the_rows_behind_the_cut_and_no_more(tmp_path, file, length, whole):
    store = filled(tmp_path, 5)
    os.truncate(store.path / file, length)

    found = opened(tmp_path)
    assert there(found, 5) == list(range(whole))
    assert whole == 0 or is_right(found, *range(whole))
    assert add(found, *range(7)) == list(range(whole, 7))
    assert is_right(opened(tmp_path), *range(7))


@pytest.mark.parametrize("file", ["rows.bin", "index.bin", "key.json"])
def test_a_store_that_lost_a_file_is_filled_again(tmp_path, file):
    store = filled(tmp_path, 5)
    (store.path / file).unlink()
    found = opened(tmp_path)
    assert add(found, *range(5)) == ([] if file == "key.json" else [0, 1, 2, 3, 4])
    assert is_right(opened(tmp_path), *range(5))
    assert [entry.path for entry in entries(tmp_path)] == [store.path]


def test_two_processes_write_at_once_and_compute_no_row_twice(tmp_path):
    code = """
first = int(sys.argv[2])
store = Store(root, described, (5, 3), "float32")
print("ready", flush=True)
sys.stdin.readline()
computed = 0
for begin in range(first, first + 60, 5):
    numbers = list(range(begin, begin + 5))
    with store.writing():
        lacking = [numbers[place] for place in store.missing([sha(number) for number in numbers])]
        # One by one, so that the other process would come between them if it could.
        for number in lacking:
            store.append([sha(number)], rows(number))
    hashes = [sha(number) for number in numbers]
    assert np.array_equal(store.gather(store.places(hashes)), rows(*numbers))
    computed += len(lacking)
print(computed)
"""
    processes = [start(code, tmp_path, first) for first in (0, 20)]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    found = [process.communicate(timeout=100) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], found
    assert sum(int(out) for out, _ in found) == 80
    assert is_right(opened(tmp_path), *range(80))
    (entry,) = entries(tmp_path)
    assert (entry.path / "rows.bin").stat().st_size == 80 * 60


def test_a_writer_sees_what_another_has_added_since_it_was_opened(tmp_path):
    early = opened(tmp_path)
    add(opened(tmp_path), 0, 1, 2)
    assert add(early, 1, 2, 3) == [3]
    assert is_right(early, 0, 1, 2, 3)


def _used(store, ago):
    os.utime(store.path / "lock", times=(time.time() - ago,) * 2)


def test_what_is_used_longest_ago_is_thrown_out_first(tmp_path):
    stores = {name: filled(tmp_path, 20, name=name) for name in ("a", "b", "c", "d")}
    for ago, name in enumerate("cabd"):
        _used(stores[name], 100 + ago)
    # d was used longest ago, but now again.
    opened(tmp_path, name="d").close()

    found = entries(tmp_path)
    assert [entry.described["name"] for entry in found] == ["d", "c", "a", "b"]
    size = found[0].size
    assert {entry.size for entry in found} == {size}
    assert size >= 20 * (60 + RECORD)

    def left():
        return [entry.described["name"] for entry in entries(tmp_path)]

    assert trim(tmp_path, 4 * size) == 0
    assert left() == ["d", "c", "a", "b"]
    assert trim(tmp_path, 4 * size - 1) == size
    assert left() == ["d", "c", "a"]
    assert trim(tmp_path, 2 * size - 1) == 2 * size
    assert left() == ["d"]
    assert is_right(opened(tmp_path, name="d"), *range(20))
    assert there(opened(tmp_path, name="a"), 20) == []


def test_an_open_store_is_never_thrown_out(tmp_path):
    stores = {name: filled(tmp_path, 20, name=name) for name in ("here", "there", "free")}
    here = opened(tmp_path, name="here")
    process = start(
        "store = Store(root, {**described, 'name': 'there'}, (5, 3), 'float32')\n"
        "print('ready', flush=True)\n"
        "sys.stdin.readline()\n"
        "hashes = [sha(number) for number in range(20)]\n"
        "assert store.missing(hashes) == []\n"
        "assert np.array_equal(store.gather(store.places(hashes)), rows(*range(20)))\n",
        tmp_path,
    )
    assert process.stdout.readline() == "ready\n"
    # The one that may go is the one used last.
    for ago, name in enumerate(("free", "here", "there")):
        _used(stores[name], 100 + ago)

    assert not remove(stores["here"].path)
    assert not remove(stores["there"].path)
    size = {entry.path: entry.size for entry in entries(tmp_path)}
    assert trim(tmp_path, 0) == size[stores["free"].path]
    assert {entry.described["name"] for entry in entries(tmp_path)} == {"here", "there"}
    assert is_right(here, *range(20))
    _, errors = process.communicate("go\n", timeout=100)
    assert process.returncode == 0, errors

    here.close()
    assert remove(stores["here"].path)
    assert trim(tmp_path, 0) > 0
    assert list(tmp_path.iterdir()) == []
    assert not remove(stores["here"].path)


def test_what_a_killed_remover_left_is_no_store_and_goes_at_the_next_trim(tmp_path):
    store, other = filled(tmp_path, 20), filled(tmp_path, 20, name="other")
    status, _ = run(
        "import shutil\n"
        "shutil.rmtree = lambda path: os.kill(os.getpid(), signal.SIGKILL)\n"
        "remove(Path(sys.argv[2]))\n",
        tmp_path, store.path,
    )  # fmt: skip
    assert status == -signal.SIGKILL
    (leftover,) = tmp_path.glob(".*")
    assert [entry.path for entry in entries(tmp_path)] == [other.path]
    assert there(opened(tmp_path), 20) == []

    trim(tmp_path, 10**12)
    assert not leftover.exists()
    assert len(entries(tmp_path)) == 2
    assert is_right(opened(tmp_path, name="other"), *range(20))


def test_trim_leaves_alone_what_is_no_store_of_its_own(tmp_path):
    # Such as `--cache .` in a project's folder, or `--cache ~`.
    filled(tmp_path, 20)
    for name in (".git", ".ssh", "photos", "notes"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "precious").write_text("not to be made again")
    (tmp_path / ".profile").write_text("precious")
    (tmp_path / "photos" / "key.json").write_text(json.dumps({"base": "tiny"}))

    assert trim(tmp_path, 0) > 0
    assert sorted(path.name for path in tmp_path.iterdir()) == [".git", ".profile", ".ssh", "notes", "photos"]
    for name in (".git", ".ssh", "photos", "notes"):
        assert (tmp_path / name / "precious").exists()


def test_a_folder_that_is_not_there_holds_nothing(tmp_path):
    assert entries(tmp_path / "nowhere") == []
    assert trim(tmp_path / "nowhere", 0) == 0
    assert not remove(tmp_path / "nowhere" / "store")


@pytest.mark.parametrize(
    # A file may be at most 400 bytes: with long rows rows.bin gets there first, with short ones index.bin.
    ("shape", "whole"), [((5, 3), 6), ((1,), 11)]
)  # fmt: skip
def test_a_full_disk_is_an_error_and_leaves_what_was_whole(tmp_path, shape, whole):
    _, out = run(
        f"shape = {shape}\n"
        "store = Store(root, described, shape, 'float32')\n"
        "soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (400, hard))\n"
        "try:\n"
        "    with store.writing():\n"
        "        for number in range(20):\n"
        "            store.append([sha(number)], rows(number, shape=shape))\n"
        "except OSError as error:\n"
        "    print(number, error.strerror)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))\n"
        "print(store.missing([sha(number) for number in range(20)]))\n",
        tmp_path,
    )
    failed, lacking = out.splitlines()
    assert failed == f"{whole} File too large"
    assert json.loads(lacking) == list(range(whole, 20))

    store = Store(tmp_path, DESCRIBED, shape, "float32")
    hashes = [sha(number) for number in range(20)]
    assert store.missing(hashes) == list(range(whole, 20))
    assert np.array_equal(store.gather(store.places(hashes[:whole])), rows(*range(whole), shape=shape))
    with store.writing():
        store.append(hashes[whole:], rows(*range(whole, 20), shape=shape))
    again = Store(tmp_path, DESCRIBED, shape, "float32")
    assert again.missing(hashes) == []
    assert np.array_equal(again.gather(again.places(hashes)), rows(*range(20), shape=shape))


def test_a_writer_that_met_a_full_disk_goes_on_when_there_is_room(tmp_path):
    _, out = run(
        "store = Store(root, described, (5, 3), 'float32')\n"
        "soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)\n"
        "for limit in (400, soft):\n"
        "    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))\n"
        "    try:\n"
        "        with store.writing():\n"
        "            lacking = store.missing([sha(number) for number in range(20)])\n"
        "            for number in lacking:\n"
        "                store.append([sha(number)], rows(number))\n"
        "    except OSError as error:\n"
        "        print(len(lacking), error.strerror)\n"
        "print(len(lacking))\n",
        tmp_path,
    )
    assert out.splitlines() == ["20 File too large", "14"]
    assert is_right(opened(tmp_path), *range(20))
    assert (opened(tmp_path).path / "rows.bin").stat().st_size == 20 * 60
