"""Files that come with the package: recipes, small data sets of its own, and manifests of public ones.

Beside these `data` gives those that are made, or fetched, at first use.
"""

import importlib
from pathlib import Path

from kerastk.errors import DataError
from kerastk.storage import cache_folder

# What data that ships is called by: `kerastk:names`.
PREFIX = "kerastk:"
# The ending of the files that tell where a public data set is fetched from.
MANIFEST = ".toml"
# Data sets that are made, and the modules that do it: `write` writes a .npz file, `VERSION` tells which one.
MADE = {"curves": "kerastk.datasets.curves"}


def folder(name: str) -> Path:
    """Where `recipes`, `data` or `models` lies: inside an installed package, or beside it in a checkout."""
    installed = Path(__file__).parent / "shipped" / name
    return installed if installed.is_dir() else Path(__file__).parent.parent / name


def data(text: str) -> str:
    """A path as it is; of `kerastk:NAME` that of the file in the package, or of what was made or fetched.

    Raises:
        DataError: there is no such data, or a file of it is damaged or cannot be fetched.
    """
    if not text.startswith(PREFIX):
        return text
    files = {path.stem: path for path in sorted(folder("data").iterdir()) if path.suffix != ".md"}
    name = text.removeprefix(PREFIX)
    if name in MADE:
        return str(_made(name))
    if name not in files:
        fetched = [each for each, path in files.items() if path.suffix == MANIFEST]
        raise DataError(
            f"no data {name[:80]!r} ships with kerastk; {', '.join(sorted(files.keys() - set(fetched)))} does, and "
            f"{', '.join(MADE)} is made at first use, {', '.join(fetched)} are fetched."
        )
    if files[name].suffix == MANIFEST:
        from kerastk.datasets import public

        return str(public.fetch(public.find(name)))
    return str(files[name])


def _made(name: str) -> Path:
    """The file of a data set that is made; now, unless it is there."""
    module = importlib.import_module(MADE[name])
    path = cache_folder() / "made" / module.VERSION / f"{name}.npz"
    if not path.exists():
        module.write(path)
    return path
