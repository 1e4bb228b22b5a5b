"""Odd folders, folders that cannot be written, and a clock that was set back."""

import hashlib
import json
import os
import re
import shlex
import shutil
import signal

import keras
import pytest

import kerastk
from kerastk.errors import RunError, Stopped
from tests.faults.child import callbacks
from tests.faults.runs import STEPS, differences, events

ODD = {
    "spaces": " two  words ",
    "newline": "two\nlines",
    "200 characters": "x" * 200,
    "no ASCII": "naïve 写真 🐈",
    "no UTF-8": os.fsdecode(b"caf\xe9"),
    "signs": "$HOME `id` 'a' [b] *",
}


class Terminate(keras.callbacks.Callback):
    """SIGTERM in the third batch."""

    def on_train_batch_end(self, batch, logs=None):
        if batch == 2:
            os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.slow
@pytest.mark.parametrize("name", ODD.values(), ids=list(ODD))
def test_a_run_in_an_odd_folder_is_interrupted_and_gone_on_with(name, digits, small_run, tmp_path):
    recipe = kerastk.Finetune(
        data=str(digits), weights=str(small_run.path), unfreeze=1, probe="none", epochs=1, batch_size=16, threads=2,
        views=1, cache=str(tmp_path / "cache"), runs=str(tmp_path / f"runs of {name}"), name=name,
    )  # fmt: skip
    with pytest.raises(Stopped) as error:
        kerastk.train(recipe, callbacks=[Terminate()], show=False)
    command = shlex.split(re.search("`(.*)` goes on", str(error.value), re.DOTALL)[1])
    assert command == ["kerastk", "resume", str(tmp_path / f"runs of {name}" / name)]
    run = kerastk.resume(command[2])
    assert run.complete
    assert run.path.name == name
    assert run.recipe.name == name
    assert [row["epoch"] for row in run.log] == ["1"]
    # TensorBoard itself does not read what lies in a folder that is no UTF-8.
    plain = kerastk.Run(shutil.copytree(run.path, tmp_path / "plain"))
    assert [step for step, _ in events(plain, "validation")["cross_entropy"]] == [STEPS]
    photo = digits / "1" / "5.png"
    assert kerastk.load(run.path)(photo).label in run.labels["classes"]


@pytest.mark.slow
@pytest.mark.parametrize("folder", ["run", "run/checkpoint", "run/events/train"])
def test_a_folder_that_cannot_be_written_is_one_line_and_with_leave_it_goes_on(folder, copy, first, second, reference):
    place = copy.run.path.parent / folder
    place.chmod(0o500)
    death = first.run(copy.out, **copy.job, unprivileged=True)
    place.chmod(0o700)
    if death.code == 0:
        pytest.skip("permissions do not hold for this user")
    assert death.code == 2, death.said
    assert "Traceback" not in death.said
    assert death.line.startswith("RunError: ")
    assert "Permission denied" in death.line
    assert str(copy.run.path) in death.line
    death = second.run(copy.out, **copy.job)
    assert death.code == 0, death.said
    assert differences(copy.trace(), reference("cache").trace()) == []


def test_a_folder_of_runs_that_cannot_be_written_is_one_line(case, first):
    hit = case("cache")
    hit.run.path.parent.chmod(0o500)
    death = first.run(hit.out, **hit.job, unprivileged=True)
    hit.run.path.parent.chmod(0o700)
    if death.code == 0:
        pytest.skip("permissions do not hold for this user")
    assert death.code == 2, death.said
    assert death.line == f"RunError: cannot make the run folder {str(hit.run.path)!r}: Permission denied."


@pytest.mark.slow
def test_a_clock_that_was_set_back_changes_nothing(copy, reference):
    # As if the first process had had a clock three years ahead: so are the names and the times of its files.
    def ahead(name):
        return re.sub(r"(?<=tfevents\.)\d+", lambda seconds: str(int(seconds[0]) + 10**8), name)

    for file in copy.run.events.rglob("*.tfevents.*"):
        file.rename(file.with_name(ahead(file.name)))
    for folder in copy.run.checkpoint.glob("0*"):
        text = (folder / "state.json").read_text()
        assert "tfevents" in text
        (folder / "state.json").write_text(ahead(text))
        sums = json.loads((folder / "sha256.json").read_text())
        sums["state.json"] = hashlib.sha256((folder / "state.json").read_bytes()).hexdigest()
        (folder / "sha256.json").write_text(json.dumps(sums))
    for path in copy.run.path.rglob("*"):
        status = path.stat()
        os.utime(path, (status.st_atime + 10**8, status.st_mtime + 10**8))
    kerastk.resume(copy.run.path, callbacks=callbacks(copy.out), show=False)
    assert (copy.out / "here").read_text() == str(4 * STEPS - 12)
    assert differences(copy.trace(), reference("cache").trace()) == []


def test_what_is_no_folder_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="no run folder at"):
        kerastk.resume(tmp_path / "file")
