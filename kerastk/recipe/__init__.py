"""A recipe: everything that decides a run, in one frozen value.

There is one flat dataclass a task. The command line's options are made from its fields, a TOML file holds the same
fields, and Python constructs it; all three end in the same constructor, which checks types, ranges, choices and
contradictions. `None` means automatic: `train` resolves it, and the run folder's `recipe.toml` holds what was used.

    recipe = Finetune(data="photos/", base="resnet50")
    load("flowers.toml", epochs=5)
"""

from kerastk.recipe.autoencode import AUTOENCODE_SPLIT, IMAGE_SIZE, Autoencode
from kerastk.recipe.base import GROUPS, SPLIT, Recipe
from kerastk.recipe.classify import OF_CONVNETS, SMALL, Classify
from kerastk.recipe.files import TASKS, construct, dump, from_text, load, parse
from kerastk.recipe.finetune import CACHE_SIZE, DROPOUT, ENCODER, Finetune
from kerastk.recipe.images import MAX_BAD, Images
from kerastk.recipe.tag import TAG_SPLIT, Tag

__all__ = [
    "AUTOENCODE_SPLIT", "CACHE_SIZE", "DROPOUT", "ENCODER", "GROUPS", "IMAGE_SIZE", "MAX_BAD", "OF_CONVNETS", "SMALL",
    "SPLIT", "TAG_SPLIT", "TASKS", "Autoencode", "Classify", "Finetune", "Images", "Recipe", "Tag", "construct", "dump",
    "from_text", "load", "parse",
]  # fmt: skip
