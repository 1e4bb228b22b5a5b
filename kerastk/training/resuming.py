"""Whether a run folder can be gone on with, and from where."""

import contextlib
import dataclasses
import os
import platform
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras

import kerastk
from kerastk import tasks
from kerastk.errors import RunError
from kerastk.recipe import Recipe
from kerastk.run import Run, next_name
from kerastk.training.checkpoint import Checkpoints
from kerastk.training.keeper import check_state
from kerastk.training.plan import Plan

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


def refuse_versions(run: Run) -> None:
    """Refuse to go on with other versions than those at the start of the run."""
    changed = changed_versions(run.environment)
    if changed:
        raise RunError(f"{run.path} was trained with other versions: {'; '.join(changed)}. Install those again, or "
                       "allow it with --allow-version-change.")  # fmt: skip


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


def recipe_of(run: Run, data: Any) -> Recipe:
    """The recipe of a run where it is now; `data` is what the user gives in place of its data.

    Raises:
        RunError: the data was given in Python, and is not now.
    """
    recipe = dataclasses.replace(run.recipe, name=run.path.name, runs=str(run.path.parent))
    if data is not None:
        return dataclasses.replace(recipe, data=os.fspath(data) if isinstance(data, str | os.PathLike) else None)
    if recipe.data is None:
        raise RunError(f"the data of {run.path} was given in Python; resume it with kerastk.resume(path, data=...).")
    return recipe


def changes(run: Run, plan: Plan, *, allowed: bool) -> list[str]:
    """What the data has other than at the start of the run, in words.

    Raises:
        RunError: there is something, and it is not `allowed`; or the classes are others.
    """
    found = plan.data.manifest.changes(run.data)
    same_classes = plan.data.classes == run.data["classes"]
    if found and not (same_classes and allowed):
        hint = " `kerastk resume --allow-data-change` goes on with what is there now." if same_classes else ""
        raise RunError(f"the data of {run.path} has changed: {'; '.join(found)}.{hint}")
    return found


def last_state(run: Run, plan: Plan, warn: Callable[[str], None]) -> dict[str, Any] | None:
    """What the last whole checkpoint holds, None without one; `warn` hears of a damaged one."""
    state, damaged = Checkpoints(run.checkpoint).load()
    for line in damaged:
        warn(f"{line}; going on from the one before.")
    if state is not None:
        check_state(state)
        if state["data"] != plan.data.manifest.sha256:
            # Batches are others now: the epoch begins anew.
            state["step"] = 0
    return state


@contextlib.contextmanager
def mendable(run: Run) -> Iterator[None]:
    """What the disk or the rights do not allow is said in one line, and how to go on."""
    try:
        yield
    except OSError as error:
        where = str(error.filename or run.path)
        raise RunError(f"{error.strerror}: {where!r}; when that is mended, {command(run)} goes on.") from None


def command(run: Run) -> str:
    """What goes on with a run."""
    return f"`kerastk resume {shlex.quote(str(run.path))}`"


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
