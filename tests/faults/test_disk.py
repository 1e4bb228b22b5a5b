"""A disk that is full: one line, what was there before is as it was, nothing half-written is left, and it goes on."""

import dataclasses
import shutil
import subprocess

import pytest

from tests.faults.runs import STEPS, broken, differences, hidden, place
from tests.faults.test_stops import arguments, no_result_yet


@pytest.fixture
def disk(tmp_path):
    """A small disk of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=48m", "tmpfs", folder], capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"no disk can be mounted: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", folder], check=True)


def told(death, kind, words):
    """Whether a process ended by saying so in one line."""
    assert death.code == 2, death.said
    assert "Traceback" not in death.said
    assert death.line.startswith(f"{kind}: "), death.said
    assert words in death.line
    return True


# In the middle of an epoch, where the checkpoint comes first; before its last batch, where it is the log; at the end.
@pytest.mark.parametrize(
    "batch",
    [
        pytest.param(8, marks=pytest.mark.slow),
        pytest.param(13, marks=pytest.mark.slow),
        pytest.param("end", marks=pytest.mark.slow),
    ],
)
def test_a_full_disk_ends_in_one_line_and_with_room_the_run_goes_on(
    batch, disk, tmp_path, case_in, first, second, reference
):
    hit = case_in(disk / "case", "cache")
    # The cache and what the test itself notes lie elsewhere.
    hit = dataclasses.replace(hit, env={"KERASTK_CACHE": str(tmp_path / "cache")}, out=tmp_path / "out")
    death = first.run(hit.out, **hit.job, at=[batch, "fill", str(disk)])
    assert told(death, "RunError", "No space left on device")
    assert f"when that is mended, `kerastk resume {hit.run.path}` goes on" in death.line
    done = {8: 7, 13: 10, "end": 4 * STEPS}[batch]
    assert place(hit.run) == done
    assert hidden(hit.run.path) == []
    assert broken(hit.run) == []
    assert no_result_yet(hit.run)
    # Full as it is, a resume says the same.
    death = second.run(hit.out, **hit.job)
    assert told(death, "RunError", "No space left on device")
    assert place(hit.run) == done
    assert hidden(hit.run.path) == []
    (disk / "filler").unlink()
    death = second.run(hit.out, **hit.job)
    assert death.code == 0, death.said
    assert differences(hit.trace(), reference("cache").trace()) == []


# Room for all but the arrays of a checkpoint, and for all but the model; then for half of one file.
@pytest.mark.parametrize(
    ("fault", "done"),
    [
        pytest.param({"at": [8, "limit", 300_000]}, 7, marks=pytest.mark.slow),
        pytest.param({"at": ["end", "limit", 300_000]}, 4 * STEPS, marks=pytest.mark.slow),
        pytest.param({"name": "*/state.json", "call": 5}, 3, marks=pytest.mark.slow),
        pytest.param({"name": "*.csv", "call": 4}, 3, marks=pytest.mark.slow),
        pytest.param({"name": "*.keras", "call": 3}, 4 * STEPS, marks=pytest.mark.slow),
    ],
    ids=["checkpoint", "model", "half of a checkpoint", "half of the log", "half of the model"],
)
def test_a_file_that_cannot_be_written_leaves_what_was_there(fault, done, case, first, second, reference):
    hit = case("cache")
    if "at" not in fault:
        fault = {"watch": {"under": str(hit.run.path), "send": "ENOSPC", **fault}}
    death = first.run(hit.out, **hit.job, **fault)
    assert told(death, "RunError", "File too large" if "at" in fault else "No space left on device")
    assert f"{str(hit.run.path)!r}; when that is mended, `kerastk resume {hit.run.path}` goes on" in death.line
    assert place(hit.run) == done
    assert no_result_yet(hit.run)
    assert hidden(hit.run.path) == []
    assert broken(hit.run) == []
    death = second.run(hit.out, **hit.job)
    assert death.code == 0, death.said
    assert differences(hit.trace(), reference("cache").trace()) == []


@pytest.mark.slow
def test_a_report_that_cannot_be_written_leaves_a_run_that_is_not_complete(case, first, second, reference):
    hit = case("cache")
    watch = {"under": str(hit.run.path), "send": "ENOSPC", "name": "*.html", "call": 1}
    death = first.run(hit.out, **hit.job, watch=watch)
    assert told(death, "RunError", "No space left on device")
    assert f"`kerastk resume {hit.run.path}` goes on" in death.line
    assert not hit.run.complete
    assert not hit.run.report_html.exists()
    assert hidden(hit.run.path) == []
    assert broken(hit.run) == []
    death = second.run(hit.out, **hit.job)
    assert death.code == 0, death.said
    assert hit.run.report_html.exists()
    assert differences(hit.trace(), reference("cache").trace()) == []


@pytest.mark.parametrize("out", [None, "page.html"])
def test_a_report_that_cannot_be_made_again_leaves_the_one_that_was_there(out, small_run, tmp_path, first):
    copy = shutil.copytree(small_run.path, tmp_path / "run")
    for name in ("report.html", "page.html"):
        (copy / name).write_text("the one before")
    before = sorted(copy.iterdir())
    options = [] if out is None else ["--out", str(copy / out)]
    for fault in ({"limit": 4_000}, {"watch": {"under": str(copy), "name": "*.html", "send": "ENOSPC", "call": 1}}):
        death = first.run(tmp_path / "out", cli=["report", str(copy), *options], **fault)
        assert death.code == 2, death.said
        assert death.line.startswith(
            "kerastk: File too large" if "limit" in fault else "kerastk: No space left on device"
        )
        assert "Traceback" not in death.said
        assert (copy / (out or "report.html")).read_text() == "the one before"
        assert sorted(copy.iterdir()) == before


@pytest.mark.slow
def test_a_named_cache_that_cannot_be_written_ends_the_run_resumably(case, tmp_path, first, second, reference):
    hit = case("cache", cache=str(tmp_path / "named"))
    # Room for all but the features of the training photos.
    death = first.run(hit.out, **hit.job, limit=100_000)
    assert told(death, "CacheError", "cannot be written: File too large")
    assert hidden(hit.run.path) == []
    assert no_result_yet(hit.run)
    death = second.run(hit.out, **hit.job)
    assert death.code == 0, death.said
    assert differences(hit.trace(), reference("cache").trace()) == []


@pytest.mark.slow
def test_a_disk_that_is_full_from_the_start_is_one_line_and_the_same_command_starts_it_later(
    case, first, second, reference
):
    hit = case("cache")
    # recipe.toml has more than 64 bytes; data.json more than 4,000.
    for size in (64, 4_000):
        death = first.run(hit.out, cli=[*arguments(hit), "--resume"], env=hit.env, limit=size)
        assert death.code == 2, death.said
        assert death.line.startswith("kerastk: File too large")
        assert "Traceback" not in death.said
        assert hidden(hit.run.path) == []
        assert not hit.run.begun
    death = second.run(hit.out, cli=[*arguments(hit), "--resume"], env=hit.env)
    assert death.code == 0, death.said
    assert differences(hit.trace(), reference("cache").trace()) == []
