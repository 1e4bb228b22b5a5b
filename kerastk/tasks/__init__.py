"""What the trainer asks of a task: a module with the functions that `finetune` and `tag` have."""

import importlib
from types import ModuleType

from kerastk.recipe import Recipe


def of(recipe: Recipe) -> ModuleType:
    """The task's module for a recipe."""
    return importlib.import_module(f"kerastk.tasks.{recipe.task}")
