"""Whether a run folder can be gone on with, and by what."""

import dataclasses
import platform
from pathlib import Path
from typing import Any

import keras

import kerastk
from kerastk import tasks
from kerastk.errors import RunError
from kerastk.recipe import Recipe
from kerastk.run import Run, next_name

# Beside the backend: packages whose version decides what a run computes.
DECIDING = ("kerastk", "keras", "numpy", "pillow")
# What a recipe says that decides nothing of what is computed; the data is compared by its content.
FREE = ("data", "name", "runs", "threads")


def earlier(recipe: Recipe, data: Any) -> Run | None:
    """The run that the recipe would be resumed in, if it is there."""
    runs, name = Path(recipe.runs), recipe.name
    if name is None:
        task = tasks.of(recipe)
        stem = task.stem(task.settle(recipe), task.source_of(recipe, data))
        number = int(next_name(runs, stem).removeprefix(f"{stem}-")) - 1
        name = f"{stem}-{number}"
    return Run(runs / name) if (runs / name).is_dir() else None


def given(recipe: Recipe) -> dict[str, Any]:
    """What the user said of a run, as far as it decides what is computed."""
    return {key: value for key, value in dataclasses.asdict(recipe).items() if value is not None and key not in FREE}


def refuse_another(recipe: Recipe, run: Run) -> None:
    """Refuse, with the difference, to resume a run by another recipe than its own."""
    before, now = run.environment.get("given", {}), given(recipe)
    different = [
        f"{name} was {before.get(name, 'automatic')}, now {now.get(name, 'automatic')}"
        for name in sorted({*before, *now})
        if before.get(name) != now.get(name)
    ]
    if different:
        raise RunError(f"{run.path} is of another recipe: {'; '.join(different)}. Use the same, or another --name.")


def changed_versions(environment: dict[str, Any]) -> list[str]:
    """What has another version, or another backend, than at the start of the run."""
    before, backend = environment.get("versions", {}), environment.get("backend")
    if backend != keras.backend.backend():
        return [f"backend {backend}, now {keras.backend.backend()}"]
    now = versions()
    return [
        f"{name} {before.get(name)}, now {now.get(name)}"
        for name in (*DECIDING, keras.backend.backend())
        if before.get(name) != now.get(name)
    ]


def versions() -> dict[str, str]:
    """The versions of what a run is computed with; what is not installed is left out."""
    from importlib.metadata import PackageNotFoundError, version

    found = {"python": platform.python_version(), "kerastk": kerastk.__version__}
    for package in ("keras", "tensorflow", "jax", "torch", "grain", "numpy", "pillow", "scikit-learn", "tensorboard"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
