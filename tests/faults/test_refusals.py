"""What a run is not gone on with: other data, another recipe, other versions, another process at it."""

import dataclasses
import json
import os
import shutil
import signal
import time

import pytest

import kerastk
from kerastk.errors import RunError
from tests.faults.child import callbacks
from tests.faults.runs import STEPS, differences, place


@pytest.fixture
def photos(digits, tmp_path):
    """A copy of the photos of one's own."""
    return shutil.copytree(digits, tmp_path / "photos")


def another(photos, path):
    """Another photo in the place of one."""
    (photos / path).write_bytes((photos / path).with_name("39.png").read_bytes() + b"\0")


def removed(photos, path):
    (photos / path).unlink()


def moved(photos, path):
    """A photo in another class."""
    os.rename(photos / path, photos / "3" / "moved.png")


def added(photos, path):
    """A class more."""
    shutil.copytree(photos / "0", photos / "new class")
    for number, each in enumerate((photos / "new class").iterdir()):
        each.write_bytes(each.read_bytes() + bytes([number + 1]))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (another, ["1 photos are new, such as 1/7.png", "1 photos are gone or changed, such as 1/7.png"]),
        (removed, ["1 photos are gone or changed, such as 1/7.png"]),
        (moved, ["1 photos are new, such as 3/moved.png", "1 photos are gone or changed, such as 1/7.png"]),
        (added, ["new class 'new class'", "40 photos are new, such as new class/0.png"]),
    ],
)
def test_a_data_set_that_changed_is_refused_with_what_changed(change, words, copy, photos):
    change(photos, "1/7.png")
    before = copy.run.data_json.read_bytes(), place(copy.run)
    with pytest.raises(RunError) as error:
        kerastk.resume(copy.run.path, data=str(photos), show=False)
    said = str(error.value)
    assert said.startswith(f"the data of {copy.run.path} has changed: ")
    assert all(each in said for each in words)
    assert "\n" not in said
    # The option is named where it would help: a model has as many outputs as there were classes.
    assert ("--allow-data-change" in said) == (change is not added)
    if change is added:
        with pytest.raises(RunError, match="new class 'new class'"):
            kerastk.resume(copy.run.path, data=str(photos), allow_data_change=True, show=False)
    assert (copy.run.data_json.read_bytes(), place(copy.run)) == before


def test_with_leave_a_run_goes_on_with_the_photos_that_are_left_each_in_its_split(copy, photos, capsys):
    removed(photos, "1/7.png")
    another(photos, "2/8.png")
    recorded = copy.run.data["files"]
    run = kerastk.resume(copy.run.path, data=str(photos), allow_data_change=True, callbacks=callbacks(copy.out))
    said = " ".join(capsys.readouterr().out.split())
    assert "the data has changed: 1 photos are new, such as 2/8.png; 2 photos are gone or changed" in said
    before = {file["path"]: file["split"] for file in recorded if file["path"] not in ("1/7.png", "2/8.png")}
    now = {file["path"]: file["split"] for file in run.data["files"] if file["path"] != "2/8.png"}
    assert now == before
    assert len(run.data["files"]) == 159
    # The epoch that it was in begins anew.
    assert (copy.out / "here").read_text() == str(3 * STEPS)
    assert [row["epoch"] for row in run.log] == ["0", "1", "2", "3", "4"]


def test_another_recipe_is_refused_with_the_difference(copy):
    recipe = kerastk.Finetune(**copy.recipe)
    for values, words in (
        ({"learning_rate": 0.5}, "learning_rate was 0.001, now 0.5"),
        ({"dropout": 0.5}, "dropout was automatic, now 0.5"),
        (
            {"deterministic": False, "unfreeze": None},
            "deterministic was True, now False; unfreeze was 1, now automatic",
        ),
    ):
        with pytest.raises(RunError) as error:
            kerastk.train(dataclasses.replace(recipe, **values), resume=True, show=False)
        assert str(error.value).startswith(f"{copy.run.path} is of another recipe: {words}. ")
    assert place(copy.run) == 12


@pytest.mark.slow
def test_other_versions_are_refused_with_both_and_can_be_allowed(copy, monkeypatch, reference):
    environment = copy.run.environment
    for change, words in (
        ({"versions": {**environment["versions"], "keras": "3.0.1"}}, r"keras 3\.0\.1, now 3\.\d+"),
        ({"backend": "jax"}, "backend jax, now tensorflow"),
    ):
        copy.run.environment_json.write_text(json.dumps(environment | change))
        with pytest.raises(RunError, match=rf"was trained with other versions: {words}.*--allow-version-change"):
            kerastk.resume(copy.run.path, show=False)
    # What draws no numbers may be another.
    same = {**environment["versions"], "tensorboard": "1.0", "python": "3.11.0"}
    copy.run.environment_json.write_text(json.dumps(environment | {"versions": same}))
    kerastk.resume(shutil.copytree(copy.run.path, copy.run.path.parent / "minor"), show=False)
    copy.run.environment_json.write_text(
        json.dumps(environment | {"versions": {**environment["versions"], "keras": "3.0.1"}})
    )
    run = kerastk.resume(copy.run.path, allow_version_change=True, callbacks=callbacks(copy.out), show=False)
    assert differences(copy.trace(), reference("cache").trace()) == []
    assert run.environment["resumed"][0]["versions"]["keras"] != "3.0.1"


def test_callbacks_with_a_state_have_to_be_the_same(copy):
    with pytest.raises(RunError, match=r"the run was trained with the callbacks .*Best.*; got .*Counter"):
        kerastk.resume(copy.run.path, callbacks=callbacks(copy.out, counted=True), show=False)
    assert place(copy.run) == 12


@pytest.mark.slow
def test_a_second_process_is_refused_until_the_first_is_dead(case, first, reference):
    hit = case("cache")
    recipe = kerastk.Finetune(**hit.recipe)
    process = first.start(hit.out, **hit.job, at=[12, "wait"])
    while not (hit.out / "waiting").exists():
        time.sleep(0.05)
    # Twice: the first refusal must not have taken the owner's name away.
    for attempt in (
        lambda: kerastk.resume(hit.run.path, show=False),
        lambda: kerastk.train(recipe, resume=True, show=False),
    ):
        with pytest.raises(
            RunError, match=rf"^process {process} on \S+ is training the run '.*'; wait for it or stop it"
        ):
            attempt()
    with pytest.raises(RunError, match="exists already"):
        kerastk.train(recipe, show=False)
    os.kill(process, signal.SIGKILL)
    assert first.end().code == -9
    assert str(process) in (hit.run.checkpoint / "lock").read_text()
    kerastk.train(recipe, resume=True, callbacks=callbacks(hit.out), show=False)
    assert (hit.out / "here").read_text() == str(4 * STEPS - 10)
    assert differences(hit.trace(), reference("cache").trace()) == []


@pytest.mark.parametrize(
    ("configuration", "split", "fault"),
    [
        pytest.param("off", "train", "remove", marks=pytest.mark.slow),
        pytest.param("off", "train", "overwrite", marks=pytest.mark.slow),
        pytest.param("cache", "test", "remove", marks=pytest.mark.slow),
    ],
)
def test_a_photo_that_goes_or_changes_in_mid_run_stops_it_resumably(
    configuration, split, fault, case, photos, first, second, reference
):
    hit, whole = case(configuration, data=str(photos)), reference(configuration)
    name = next(file["path"] for file in whole.run.data["files"] if file["split"] == split)
    content = (photos / name).read_bytes()
    (hit.out / "other.png").write_bytes(content + b"\0")
    other = [str(hit.out / "other.png")] if fault == "overwrite" else []
    death = first.run(hit.out, **hit.job, at=[9, fault, str(photos / name), *other])
    assert death.code == 2, death.said
    assert death.line.startswith(f"DataError: {name}: ")
    assert "Put the photo back" in death.line
    assert f"`kerastk resume {hit.run.path}` goes on then; with --allow-data-change it goes on without it" in death.line
    assert "Traceback" not in death.said
    done = place(hit.run)
    assert 7 <= done <= (17 if split == "train" else 28)
    # Not put back, it is still refused.
    with pytest.raises(RunError, match=f"has changed: .*such as {name}"):
        kerastk.resume(hit.run.path, show=False)
    (photos / name).write_bytes(content)
    death = second.run(hit.out, **hit.job)
    assert death.code == 0, death.said
    assert differences(hit.trace(), whole.trace()) == []


def test_without_a_name_the_last_run_of_this_data_and_base_is_gone_on_with(copy, digits):
    runs = copy.run.path.parent
    for number in (1, 2):
        shutil.copytree(copy.run.path, runs / f"digits-mobilenet_0.25-{number}")
    recipe = dataclasses.replace(kerastk.Finetune(**copy.recipe), name=None, threads=1)
    run = kerastk.train(recipe, resume=True, show=False)
    assert run.path == runs / "digits-mobilenet_0.25-2"
    assert run.complete
    assert not (runs / "digits-mobilenet_0.25-1" / "metrics.json").exists()
    # It is complete now, which starts no new one.
    assert kerastk.train(recipe, resume=True, show=False).path == run.path
    assert not (runs / "digits-mobilenet_0.25-3").exists()


def test_data_given_in_python_has_to_be_given_again(copy, digits):
    recorded = kerastk.Run.open(copy.run.path)
    text = recorded.recipe_toml.read_text()
    recorded.recipe_toml.write_text(
        "".join(line for line in text.splitlines(keepends=True) if not line.startswith("data = "))
    )
    with pytest.raises(RunError, match=r"was given in Python; resume it with kerastk\.resume\(path, data=\.\.\.\)"):
        kerastk.resume(copy.run.path, show=False)
    rows = [(str(path), path.parent.name) for path in sorted(digits.glob("*/*.png"))]
    assert kerastk.resume(copy.run.path, data=rows, show=False).complete


def test_what_is_no_run_is_one_line(tmp_path):
    with pytest.raises(RunError, match="no run folder at"):
        kerastk.resume(tmp_path / "none")
    with pytest.raises(RunError, match="is no run folder"):
        kerastk.resume(tmp_path)
