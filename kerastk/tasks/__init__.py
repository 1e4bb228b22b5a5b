"""What the trainer asks of a task: a module with the functions that `finetune` has."""

from types import ModuleType

from kerastk.recipe import Recipe


def of(recipe: Recipe) -> ModuleType:
    """The task's module for a recipe."""
    from kerastk.tasks import finetune

    return {"finetune": finetune}[recipe.task]
