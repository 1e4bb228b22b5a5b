"""Files that come with the package: recipes, and small data sets of its own; and those that are made at first use."""

import importlib
from pathlib import Path

from kerastk.errors import DataError
from kerastk.storage import cache_folder

# What data that ships is called by: `kerastk:names`.
PREFIX = "kerastk:"
# Data sets that are made, and the modules that do it: `write` writes a .npz file, `VERSION` tells which one.
MADE = {"curves": "kerastk.datasets.curves"}


def folder(name: str) -> Path:
    """Where `recipes` or `data` lies: inside an installed package, or beside it in a checkout."""
    installed = Path(__file__).parent / "shipped" / name
    return installed if installed.is_dir() else Path(__file__).parent.parent / name


def data(text: str) -> str:
    """A path as it is; of `kerastk:NAME` that of the file in the package, or in the cache, once it is made.

    Raises:
        DataError: no such data ships.
    """
    if not text.startswith(PREFIX):
        return text
    files = {path.stem: path for path in folder("data").iterdir() if path.suffix != ".md"}
    name = text.removeprefix(PREFIX)
    if name in MADE:
        return str(_made(name))
    if name not in files:
        raise DataError(
            f"no data {name!r} ships with kerastk; {', '.join(sorted(files))} does, and {', '.join(MADE)} is made at "
            "first use."
        )
    return str(files[name])


def _made(name: str) -> Path:
    """The file of a data set that is made; now, unless it is there."""
    module = importlib.import_module(MADE[name])
    path = cache_folder() / "made" / module.VERSION / f"{name}.npz"
    if not path.exists():
        module.write(path)
    return path
