"""The shipped recipes as values: `from kerastk.recipes import flowers`.

They are the TOML files of the folder `recipes/`, which a wheel carries inside the package.
"""

from pathlib import Path

from kerastk import shipped
from kerastk.recipe import Recipe, load


def folder() -> Path:
    """Where the shipped recipes lie."""
    return shipped.folder("recipes")


def shipped_names() -> list[str]:
    """The names of all shipped recipes."""
    return sorted(path.stem for path in folder().glob("*.toml"))


def __getattr__(name: str) -> Recipe:
    if name in shipped_names():
        return load(folder() / f"{name}.toml")
    raise AttributeError(f"kerastk ships no recipe {name!r}; it ships {', '.join(shipped_names())}")


def __dir__() -> list[str]:
    return ["folder", "shipped_names", *shipped_names()]
