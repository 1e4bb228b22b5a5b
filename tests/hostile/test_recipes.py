"""Recipes that try paths, code and sizes: each ends in one short line, before anything is written."""

import sys

import pytest

import kerastk
from kerastk.errors import KerastkError, RecipeError
from kerastk.recipe import load

HUGE = "9" * 400
HEX = "0x" + "f" * 4000


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    """Writes a recipe of these lines, in a folder of its own that is the current one."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")

    def make(*lines, task='task = "finetune"'):
        path = tmp_path / "x.toml"
        path.write_text("\n".join([task, *lines]), encoding="utf-8")
        return path

    return make


REFUSED = {
    "a name that climbs": 'name = "../x"',
    "a name that is a path": 'name = "/tmp/x"',
    "a name with a backslash and a slash": 'name = "a\\\\..\\\\/x"',
    "a name that is the folder": 'name = ".."',
    "an empty name": 'name = ""',
    "a NUL in a name": 'name = "a\\u0000b"',
    "a NUL in data": 'data = "a\\u0000b"',
    "a NUL in weights": 'weights = "a\\u0000b"',
    "a table for a text": 'data = {path = "/etc/passwd"}',
    "a list for a text": 'data = ["/etc/passwd"]',
    "code for a number": "epochs = \"__import__('os').system('true')\"",
    "an expression for a number": 'learning_rate = "1e-3 * 2"',
    "a date for a number": "epochs = 2020-01-01",
    "a truth value for a number": "epochs = true",
    "infinity": "learning_rate = inf",
    "no number": "learning_rate = nan",
    "minus infinity": "dropout = -inf",
    "a whole number beyond floats": f"learning_rate = {HUGE}",
    "a whole number beyond all": f"epochs = {HUGE}",
    "a negative number beyond all": f"seed = -{HUGE}",
    "a hexadecimal number beyond what Python writes": f"epochs = {HEX}",
    "the same for a float": f"learning_rate = {HEX}",
    "the same for stages": f"unfreeze = {HEX}",
    "the same for a text": f"data = {HEX}",
    "more digits than Python reads": f"epochs = {'9' * 5000}",
    "megabytes for a choice": f'augment = "{"x" * 10_000_000}"',
    "megabytes for a split": f'split = "{"7" * 20_000}"',
    "megabytes for a size": f'cache_size = "{"7" * 20_000}"',
    "megabytes for a device": f'device = "{"x" * 20_000}"',
    "megabytes for a name of a key": f"{'x' * 20_000} = 1",
    "a key of Python": "__class__ = 1",
    "a key of a method": "resolve = 1",
    "a nested key": "a.b.c = 1",
    "deep tables": "x = " + "[" * 50_000,
    "deep keys": ".".join("a" * 5_000) + " = 1",
    "a key twice": "epochs = 1\nepochs = 2",
    "bytes of no text": "\udcff = 1",
    "a control character": 'name = "a\x01"',
}


@pytest.mark.parametrize("line", REFUSED.values(), ids=REFUSED)
def test_it_is_refused_as_it_is_read(line, tmp_path, refused):
    path = tmp_path / "x.toml"
    path.write_text(f'task = "finetune"\n{line}\n', encoding="utf-8", errors="surrogateescape")
    refused(load, path, kind=RecipeError, seconds=20, megabytes=400)


@pytest.mark.parametrize(
    "task", ["", 'task = ""', "task = 7", 'task = ["finetune"]', "task = {}", f"task = {HEX}", "task = 2020-01-01",
             'task = "os.system"', f'task = "{"x" * 20_000}"'],
    ids=range(9),
)  # fmt: skip
def test_a_task_that_is_none_is_refused(task, recipe, refused):
    refused(load, recipe(task=task), kind=RecipeError)


@pytest.mark.parametrize("content", [b"", b"\0" * 100, b"\xff\xfe\0", b"PK\x03\x04", b"\x80\x04\x95"])
def test_a_file_of_another_kind_is_refused(content, tmp_path, refused):
    (tmp_path / "x.toml").write_bytes(content)
    refused(load, tmp_path / "x.toml", kind=RecipeError)


def test_a_recipe_of_a_gigabyte_is_refused_unread(tmp_path, refused):
    with open(tmp_path / "x.toml", "wb") as file:
        file.truncate(2**30)
    refused(load, tmp_path / "x.toml", kind=RecipeError, megabytes=4, seconds=10)


@pytest.mark.parametrize(
    "line",
    [
        'data = "/etc/passwd"',
        'data = "/dev/zero"',
        'data = "http://localhost/x.zip"',
        'data = "tfds:../../etc"',
        'data = "tfds:x\\ny"',
        f'data = "{"x" * 5000}"',
        'data = "photos\\n"',
        'data = "$(touch evil)"',
        'weights = "http://localhost/x.h5"',
        'weights = "/etc/passwd"',
        'weights = "/dev/zero"',
        'weights = ".."',
        f'weights = "{"x" * 5000}"',
        f'weights = "{"x/" * 5000}"',
        'weights = "os.system"',
        'base = "os.system"',
        'base = "__class__"',
        'device = "gpu:99999999999999999999"',
        f'device = "gpu:{"9" * 5000}"',
        f'name = "{"x" * 5000}"',
    ],
    ids=lambda line: line[:40],
)
def test_it_is_refused_before_anything_is_written(line, recipe, digits, tmp_path):
    lines = [f'{key} = "{value}"' for key, value in {"data": digits, "weights": "none"}.items() if key not in line]
    with pytest.raises(KerastkError) as caught:
        kerastk.train(load(recipe(line, *lines)), show=False)
    assert "\n" not in str(caught.value)
    assert list((tmp_path / "work").rglob("*")) in ([], [tmp_path / "work" / "runs"])


@pytest.mark.parametrize("name", ["a\\nb", "a b", "-rf", "=1", "\\u202egnp.exe", "x" * 255])
def test_an_odd_name_is_a_folders_name(name, recipe):
    assert "/" not in load(recipe(f'name = "{name}"')).name


@pytest.mark.skipif(sys.platform == "win32", reason="a shell of POSIX")
def test_a_hostile_recipe_is_one_line_at_the_command_line(recipe, command):
    for line in (f"epochs = {HEX}", 'name = "../x"', 'data = "$(touch evil)"', f"learning_rate = {HUGE}"):
        assert len(command("train", recipe(line))) < 1000
