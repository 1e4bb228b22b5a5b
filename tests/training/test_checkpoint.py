import errno
import hashlib
import json
import math
import os
import shutil
import zipfile

import keras
import numpy as np
import pytest

from kerastk.errors import RunError
from kerastk.training import checkpoint
from kerastk.training.checkpoint import Checkpoints
from kerastk.training.keeper import assign, check_state

PARTS = ("arrays.npz", "state.json", "sha256.json")


@pytest.fixture
def checkpoints(tmp_path):
    return Checkpoints(tmp_path / "checkpoint")


def state(number):
    return {"number": number, "weights": [np.full((3, 4), number, np.float32), np.arange(7)]}


def again(checkpoints, tree):
    """The tree, saved and read."""
    checkpoints.save(tree)
    found, damaged = checkpoints.load()
    assert damaged == []
    assert found.pop("format") == checkpoint.FORMAT
    return found


def sealed(path, **contents):
    """Write parts of a checkpoint with their checksums, as somebody would who means harm."""
    for name, content in contents.items():
        (path / name.replace("_", ".")).write_bytes(content)
    sums = {name: hashlib.sha256((path / name).read_bytes()).hexdigest() for name in ("arrays.npz", "state.json")}
    (path / "sha256.json").write_text(json.dumps(sums))


def test_plain_values_come_back_as_they_were(checkpoints):
    tree = {
        "nothing": None, "yes": True, "no": False, "zero": 0, "large": 2**70, "float": 0.1, "tiny": 5e-324,
        "infinite": -math.inf, "text": 'é 写 "\n\\', "": "no name", "list": [1, [2, [], {}], {"a": {"b": [None]}}],
    }  # fmt: skip
    found = again(checkpoints, tree)
    assert found == tree
    assert [type(found[name]) for name in tree] == [type(value) for value in tree.values()]
    assert math.isnan(again(checkpoints, {"nan": math.nan})["nan"])


@pytest.mark.parametrize("name", ["array", "arrays", "\0", "\0array", "format ", "state"])
def test_a_callback_may_call_its_values_what_it_likes(name, checkpoints):
    tree = {"callbacks": {"one": {name: np.arange(3)}, "other": {name: "text"}, "third": {name: {name: 1}}}}
    found = again(checkpoints, tree)["callbacks"]
    assert np.array_equal(found["one"][name], np.arange(3))
    assert found["other"] == {name: "text"}
    assert found["third"] == {name: {name: 1}}


def test_tuples_become_lists_and_numbers_of_numpy_plain_ones(checkpoints):
    found = again(
        checkpoints, {"tuple": (1, (2,)), "one": np.float32(0.1), "two": np.int64(3), "three": np.bool_(True)}
    )
    assert found == {"tuple": [1, [2]], "one": float(np.float32(0.1)), "two": 3, "three": True}


@pytest.mark.parametrize(
    "dtype", ["float16", "float32", "float64", "int8", "uint8", "int32", "int64", "uint32", "bool", ">f4"]
)
def test_arrays_come_back_bit_for_bit(dtype, checkpoints):
    values = np.random.default_rng(0).integers(0, 2**16, (4, 6)).astype(dtype)
    arrays = [values, values.T, values[::2, 1:3], np.array(values[0, 0]), values[:0], np.asfortranarray(values)]
    found = again(checkpoints, {"arrays": arrays})["arrays"]
    for array, wanted in zip(found, arrays, strict=True):
        assert isinstance(array, np.ndarray)
        assert array.dtype == wanted.dtype
        assert array.shape == wanted.shape
        assert array.tobytes() == wanted.tobytes()


def test_nan_and_signed_zeros_keep_their_bits(checkpoints):
    array = np.array([0x7FC00001, 0xFFC00000, 0x80000000, 0], np.uint32).view(np.float32)
    assert again(checkpoints, {"array": array})["array"].tobytes() == array.tobytes()


def test_equal_arrays_are_written_once_and_only_those(checkpoints):
    ones = np.ones(1000, np.float32)
    different = [
        ones.view(np.int32),
        ones.reshape(10, 100),
        np.zeros(4, np.int32),
        np.zeros(4, np.float32),
        np.zeros((2, 2)),
    ]
    tree = {"a": [ones, ones.copy()], "b": {"c": ones}, "different": different}
    found = again(checkpoints, tree)
    assert all(np.array_equal(each, ones) for each in (*found["a"], found["b"]["c"]))
    for array, wanted in zip(found["different"], different, strict=True):
        assert (array.dtype, array.shape) == (wanted.dtype, wanted.shape)
    with zipfile.ZipFile(checkpoints.folder / "000001" / "arrays.npz") as archive:
        assert len(archive.namelist()) == 1 + len(different)


def test_a_tree_without_arrays_is_one_too(checkpoints):
    assert again(checkpoints, {"epoch": 3}) == {"epoch": 3}


def test_there_is_nothing_before_the_first(checkpoints):
    assert checkpoints.load() == (None, [])


def test_the_last_two_are_kept_and_numbers_go_up(checkpoints):
    for number in range(1, 13):
        checkpoints.save(state(number))
        assert checkpoints.load()[0]["number"] == number
        kept = [f"{each:06d}" for each in (number - 1, number) if each]
        assert sorted(os.listdir(checkpoints.folder)) == kept


def test_what_a_killed_writer_left_goes_and_what_is_no_checkpoint_stays(checkpoints):
    checkpoints.save(state(1))
    shutil.copytree(checkpoints.folder / "000001", checkpoints.folder / ".0123456789abcdef")
    (checkpoints.folder / ".fedcba9876543210").mkdir()
    (checkpoints.folder / "lock").write_text("process 1")
    (checkpoints.folder / "notes").mkdir()
    assert checkpoints.load()[0]["number"] == 1
    checkpoints.save(state(2))
    assert sorted(os.listdir(checkpoints.folder)) == ["000001", "000002", "lock", "notes"]


def test_a_write_that_fails_anywhere_leaves_what_was_there_and_nothing_else(checkpoints, monkeypatch):
    for number in (1, 2):
        checkpoints.save(state(number))
    before = {path: path.read_bytes() for path in checkpoints.folder.rglob("*") if path.is_file()}
    full = OSError(errno.ENOSPC, "No space left on device")

    def failing(module, name, call):
        function, calls = getattr(module, name), 0

        def wrapped(*arguments, **options):
            nonlocal calls
            calls += 1
            if calls == call:
                raise full
            return function(*arguments, **options)

        return module, name, wrapped

    # Four flushes come before the new name.
    faults = [(os, "fsync", call) for call in (1, 2, 3, 4)] + [(os, "rename", 1), (np, "savez", 1), (json, "dumps", 2)]
    for fault in faults:
        with monkeypatch.context() as patch:
            patch.setattr(*failing(*fault))
            with pytest.raises(OSError, match="No space left"):
                checkpoints.save(state(3))
        assert {path: path.read_bytes() for path in checkpoints.folder.rglob("*") if path.is_file()} == before
        assert sorted(os.listdir(checkpoints.folder)) == ["000001", "000002"]
    checkpoints.save(state(3))
    assert checkpoints.load()[0]["number"] == 3


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "gone", "folder"])
def test_a_damaged_one_falls_back_and_is_told_and_two_are_refused(part, damage, checkpoints):
    for number in (1, 2):
        checkpoints.save(state(number))

    def spoil(number):
        path = checkpoints.folder / f"{number:06d}" / part
        content = path.read_bytes()
        if damage == "flip":
            path.write_bytes(bytes([content[0] ^ 1]) + content[1:])
        elif damage in ("cut", "empty"):
            path.write_bytes(content[: len(content) - 1 if damage == "cut" else 0])
        else:
            path.unlink()
            if damage == "folder":
                path.mkdir()

    spoil(2)
    found, damaged = checkpoints.load()
    assert found["number"] == 1
    assert len(damaged) == 1
    assert damaged[0].startswith(f"the checkpoint {checkpoints.folder / '000002'} is damaged (")
    assert "\n" not in damaged[0]
    spoil(1)
    with pytest.raises(
        RunError, match=r"000002 is damaged .*000001 is damaged .*; there is no other\. Start a new run\.$"
    ):
        checkpoints.load()


def test_every_flipped_bit_is_found(checkpoints):
    checkpoints.save(state(1))
    checkpoints.save(state(2))
    random = np.random.default_rng(0)
    for part in PARTS:
        path = checkpoints.folder / "000002" / part
        content = path.read_bytes()
        for place in random.integers(0, len(content), 40):
            spoiled = bytearray(content)
            spoiled[place] ^= 1 << int(random.integers(8))
            path.write_bytes(spoiled)
            assert checkpoints.load()[0]["number"] == 1
        path.write_bytes(content)
    assert checkpoints.load()[0]["number"] == 2


def test_after_a_damaged_one_the_next_has_a_new_number(checkpoints):
    for number in (1, 2):
        checkpoints.save(state(number))
    (checkpoints.folder / "000002" / "arrays.npz").unlink()
    checkpoints.save(state(3))
    assert checkpoints.load()[0]["number"] == 3
    assert (checkpoints.folder / "000003").is_dir()


class Opened:
    """What a pickle would run."""

    def __reduce__(self):
        return os.mkdir, ("opened",)


def crafted(kind, path):
    """Parts with the right checksums that are no checkpoint."""
    tree = json.loads((path / "state.json").read_text())
    arrays = dict(np.load(path / "arrays.npz"))
    if kind == "compressed":
        np.savez_compressed(path / "new.npz", **arrays)
        sealed(path, arrays_npz=(path / "new.npz").read_bytes())
    elif kind == "objects":
        np.savez(path / "new.npz", **dict.fromkeys(arrays, np.array([Opened()])))
        sealed(path, arrays_npz=(path / "new.npz").read_bytes())
    elif kind == "lacking arrays":
        np.savez(path / "new.npz", other=np.ones(3))
        sealed(path, arrays_npz=(path / "new.npz").read_bytes())
    elif kind == "no zip":
        sealed(path, arrays_npz=b"\x80\x04}.")
    else:
        text = {
            "list": b"[]", "no format": json.dumps({key: value for key, value in tree.items() if key != "format"}),
            "deep": b'{"format": 1, "a": ' + b"[" * 100_000, "no JSON": b"{", "no text": b"\xff\xfe",
            "odd array": json.dumps({"format": 1, "weights": [{next(iter(tree["weights"][0])): 5}]}),
            "two arrays": json.dumps({"format": 1, "weights": [{next(iter(tree["weights"][0])): [1, 2]}]}),
        }[kind]  # fmt: skip
        sealed(path, state_json=text if isinstance(text, bytes) else text.encode())


@pytest.mark.parametrize(
    "kind",
    [
        "compressed",
        "objects",
        "lacking arrays",
        "no zip",
        "list",
        "no format",
        "deep",
        "no JSON",
        "no text",
        "odd array",
        "two arrays",
    ],
)
def test_what_is_crafted_runs_nothing_and_counts_as_damaged(kind, checkpoints, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    checkpoints.save(state(1))
    checkpoints.save(state(2))
    sealed(checkpoints.folder / "000002")
    assert checkpoints.load()[0]["number"] == 2
    crafted(kind, checkpoints.folder / "000002")
    found, damaged = checkpoints.load()
    assert found["number"] == 1
    assert len(damaged) == 1
    assert not (tmp_path / "opened").exists()


def test_json_beyond_any_size_is_not_read(checkpoints, monkeypatch):
    checkpoints.save(state(1))
    checkpoints.save(state(2) | {"text": "x" * 5_000})
    monkeypatch.setattr(checkpoint, "_LARGEST_JSON", 5_000)
    found, damaged = checkpoints.load()
    assert found["number"] == 1
    assert "state.json is too large" in damaged[0]


def test_another_format_is_named_and_not_taken_for_damage(checkpoints):
    checkpoints.save(state(1))
    checkpoints.save(state(2))
    path = checkpoints.folder / "000002"
    sealed(path, state_json=json.dumps({"format": 9}).encode())
    with pytest.raises(RunError, match=r"000002 has format 9; this version of kerastk reads 1\."):
        checkpoints.load()


@pytest.mark.parametrize("value", [object(), {1, 2}, b"bytes", np.array([None]), {"inner": [object()]}, {1: "number"}])
def test_what_cannot_be_kept_is_refused_and_leaves_what_was_there(value, checkpoints):
    checkpoints.save(state(1))
    with pytest.raises(TypeError):
        checkpoints.save({"value": value})
    assert sorted(os.listdir(checkpoints.folder)) == ["000001"]
    assert checkpoints.load()[0]["number"] == 1


def kept(**values):
    return {
        "data": "0" * 64, "phase": 0, "epoch": 1, "step": 0, "ended": False, "cached": None, "callbacks": {},
        "random": [], "model": [np.ones(2)], "optimizer": [], "metrics": [],
    } | values  # fmt: skip


def test_a_state_that_lacks_something_is_refused_by_name():
    check_state(kept())
    check_state(kept(cached={"dtype": "float16", "views": 2}))
    for name in kept():
        with pytest.raises(RunError, match=name):
            check_state({key: value for key, value in kept().items() if key != name})
        with pytest.raises(RunError, match=name):
            check_state(kept(**{name: 1.5}))
    with pytest.raises(RunError, match="its arrays cannot be used"):
        check_state(kept(optimizer=[1.0]))


def test_values_that_do_not_fit_the_variables_are_refused_and_change_nothing():
    def variables():
        return [keras.Variable(np.zeros((2, 3)), dtype="float32"), keras.Variable(0, dtype="int32")]

    good = [np.ones((2, 3), np.float32), np.array(5, np.int32)]
    for values in (
        good[:1], [*good, good[0]], good[::-1], [good[0].T, good[1]], [good[0].astype(np.float64), good[1]],
        [good[0], good[1].reshape(1)],
    ):  # fmt: skip
        found = variables()
        with pytest.raises(RunError, match="of another network than the recipe's"):
            assign(found, values)
        assert not np.array(found[0]).any()
    found = variables()
    assign(found, good)
    assert np.array_equal(found[0], good[0])
    assert int(found[1]) == 5
