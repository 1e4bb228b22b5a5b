"""Files that come with the package: recipes, and small data sets of its own."""

from pathlib import Path

from kerastk.errors import DataError

# What data that ships is called by: `kerastk:names`.
PREFIX = "kerastk:"


def folder(name: str) -> Path:
    """Where `recipes` or `data` lies: inside an installed package, or beside it in a checkout."""
    installed = Path(__file__).parent / "shipped" / name
    return installed if installed.is_dir() else Path(__file__).parent.parent / name


def data(text: str) -> str:
    """A path as it is; of `kerastk:NAME` that of the file in the package.

    Raises:
        DataError: no such data ships.
    """
    if not text.startswith(PREFIX):
        return text
    files = {path.stem: path for path in folder("data").iterdir() if path.suffix != ".md"}
    name = text.removeprefix(PREFIX)
    if name not in files:
        raise DataError(f"no data {name!r} ships with kerastk; {', '.join(sorted(files))} does.")
    return str(files[name])
