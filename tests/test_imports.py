import subprocess
import sys

import pytest

from kerastk.cli import commands

HEAVY = ("keras", "tensorflow", "jax", "torch", "sklearn", "matplotlib", "numpy", "PIL", "grain", "rich")


def paths(command, *above):
    """The words of a command and of all below it."""
    yield list(above)
    for name, each in getattr(command, "commands", {}).items():
        yield from paths(each, *above, name)


COMMANDS = [*paths(commands), ["train", "digits"]]


def loaded_by(code):
    script = f"import sys\n{code}\nprint([m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return done.stdout.splitlines()[-1]


def test_importing_kerastk_loads_nothing_heavy():
    light = (
        "kerastk",
        *(f"kerastk.{name}" for name in ("recipe", "notation", "errors", "options", "recipes", "testing")),
    )
    assert loaded_by(f"import {', '.join(light)}") == "[]"


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_help_loads_nothing_heavy(command):
    code = f"from kerastk.cli import commands\ncommands.main({[*command, '--help']!r}, standalone_mode=False)"
    assert loaded_by(code) == "[]"


def test_public_names_are_there_and_listed():
    import kerastk

    assert set(dir(kerastk)) == set(kerastk.__all__)
    for name in kerastk.__all__:
        assert getattr(kerastk, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'fit'"):
        kerastk.fit  # noqa: B018


def test_reading_the_files_needs_no_keras():
    assert "keras" not in loaded_by("import kerastk.datasets.photos, kerastk.run, kerastk.predictor")
    assert "keras" not in loaded_by("import kerastk.reconstructor, kerastk.answers, kerastk.evaluation.evaluate")


def test_the_command_of_every_task_has_light_help():
    from kerastk.recipe import TASKS

    assert set(TASKS) <= {command[-1] for command in COMMANDS if command}
