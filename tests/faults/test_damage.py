"""A checkpoint that is not what was written."""

import shutil
import sys

import pytest

import kerastk
from kerastk import cli
from tests.faults.child import callbacks
from tests.faults.runs import STEPS, differences


def flip(path):
    """Turn a bit in the middle of a file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def cut(path):
    """Half of it is lost."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def newest(run, place=-1):
    return sorted(each for each in run.checkpoint.iterdir() if each.is_dir())[place]


# The rest of what can happen to the files is tried in training/test_checkpoint.py.
@pytest.mark.parametrize(
    ("damage", "name"), [(flip, "arrays.npz"), pytest.param(cut, "state.json", marks=pytest.mark.slow)]
)
def test_a_damaged_checkpoint_is_told_and_the_one_before_is_gone_on_with(damage, name, copy, capsys, reference):
    path = newest(copy.run)
    damage(path / name)
    run = kerastk.resume(copy.run.path, callbacks=callbacks(copy.out))
    said = " ".join(capsys.readouterr().out.split())
    assert f"warning the checkpoint {path} is damaged ({name} is not what was written); going on from the one" in said
    assert "resumed after epoch 1 and 3 batches" in said
    assert (copy.out / "here").read_text() == str(4 * STEPS - 10)
    assert run.path == copy.run.path
    assert differences(copy.trace(), reference("cache").trace()) == []


def test_where_both_are_damaged_there_is_one_line_and_no_fresh_start(copy, capsys, monkeypatch):
    paths = newest(copy.run), newest(copy.run, -2)
    for path, damage in zip(paths, (flip, cut), strict=True):
        damage(path / "arrays.npz")
    before = contents(copy.run)
    monkeypatch.setattr(sys, "argv", ["kerastk", "resume", str(copy.run.path)])
    with pytest.raises(SystemExit) as error:
        cli.main()
    assert error.value.code == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert all(str(path) in said for path in paths)
    assert "there is no other. Start a new run." in said
    recipe = kerastk.Finetune(**copy.recipe)
    with pytest.raises(kerastk.KerastkError, match="there is no other"):
        kerastk.train(recipe, resume=True, show=False)
    assert contents(copy.run) == before
    assert sorted(each.name for each in copy.run.path.parent.iterdir()) == ["cache", "out", "run"]


def contents(run):
    """Every file of a run but the note of who holds its lock."""
    files = [path for path in run.path.rglob("*") if path.is_file() and path.name != "lock"]
    return {str(path.relative_to(run.path)): path.read_bytes() for path in files}


@pytest.mark.slow
def test_without_its_checkpoints_a_run_that_has_begun_starts_over_to_the_same_end(copy, reference):
    # The state of a run that was killed before its first checkpoint.
    shutil.rmtree(copy.run.checkpoint)
    kerastk.resume(copy.run.path, callbacks=callbacks(copy.out), show=False)
    assert (copy.out / "here").read_text() == str(4 * STEPS)
    assert differences(copy.trace(), reference("cache").trace()) == []
