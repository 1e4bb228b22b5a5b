"""The shipped recipes as values: `from kerastk.recipes import flowers`.

They are the TOML files of the folder `recipes/`, which a wheel carries inside the package. A name may be written with
hyphens or underscores, whichever its file has: `mnist-vae` is `mnist_vae` in Python.
"""

from pathlib import Path

from kerastk import shipped
from kerastk.recipe import Recipe, load


def folder() -> Path:
    """Where the shipped recipes lie."""
    return shipped.folder("recipes")


def shipped_names() -> list[str]:
    """The names of all shipped recipes, as their files have them."""
    return sorted(path.stem for path in folder().glob("*.toml"))


def file(name: str) -> Path | None:
    """The file of a shipped recipe; None where none is called so."""
    found = [each for each in shipped_names() if _plain(each) == _plain(name)]
    return folder() / f"{found[0]}.toml" if found else None


def _plain(name: str) -> str:
    return name.replace("-", "_")


def __getattr__(name: str) -> Recipe:
    path = file(name)
    if path is not None:
        return load(path)
    raise AttributeError(f"kerastk ships no recipe {name!r}; it ships {', '.join(shipped_names())}")


def __dir__() -> list[str]:
    return ["file", "folder", "shipped_names", *map(_plain, shipped_names())]
