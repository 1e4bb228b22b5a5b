"""What the recipes share that learn from images with one class each."""

from dataclasses import dataclass

from kerastk.errors import RecipeError
from kerastk.notation import AUGMENT_POLICIES, AUGMENT_STEPS, check_augmentation
from kerastk.recipe.base import Recipe, option

# What None stands for where it is needed before the rest can be resolved.
MAX_BAD = 0.01


@dataclass(frozen=True, kw_only=True)
class Images(Recipe):
    """The fields of `Finetune` and `Classify`. Use one of these."""

    resize: str = option(
        "crop", "How a photo becomes a square: its centre, the whole with borders, or distorted.",
        group="data", choices=("crop", "pad", "stretch"),
    )  # fmt: skip
    threads: int | None = option(
        None, "Threads that read and decode.", group="data", auto="one a core, at most 16", low=1, high=256
    )
    augment: str = option(
        "light", "How training photos are varied; never those of validation and test: " + ", ".join(AUGMENT_POLICIES)
        + ", or steps like crop:0.3,flip,jitter:0.3 of " + ", ".join(AUGMENT_STEPS) + ".",
        group="data", common=True, several=True,
    )  # fmt: skip
    max_bad: float | None = option(
        None, "Share of unreadable photos that is set aside before the run stops, like 0.01 or 1%.",
        group="data", auto=str(MAX_BAD), low=0, high=1,
    )  # fmt: skip
    strict: bool = option(False, "Refuse the data at any finding of `kerastk check`.", group="data")
    classes: str | None = option(
        None, "Learn these classes alone: their names with commas between, or a .txt file with one a line.",
        group="data", auto="all", several=True,
    )  # fmt: skip
    balance: str = option(
        "none", "Make every class count as much as any other, however many photos it has: by weights in the loss, by "
        "how often photos are drawn (sample), or by a focal loss. The best model is then chosen by such figures too.",
        group="training", choices=("none", "weights", "sample", "focal"),
    )  # fmt: skip
    focal_gamma: float | None = option(
        None, "How much less the focal loss counts what is known already.", group="training", auto="2", low=0, high=10
    )
    mixup: float | None = option(
        None, "Lay each photo over another one of its batch, by a share from Beta(X, X); 0 does not.",
        group="training", auto="0", low=0, high=100,
    )  # fmt: skip
    cutmix: float | None = option(
        None, "Put a part of another photo of its batch into each photo, by a share from Beta(X, X); 0 does not.",
        group="training", auto="0", low=0, high=100,
    )  # fmt: skip
    label_smoothing: float | None = option(
        None, "Share of the probability given to all classes alike in the training loss.",
        group="training", auto="0.1", low=0, below=1,
    )  # fmt: skip

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.augment is not None:
            check_augmentation(self.augment)
        if self.warmup_epochs is not None and self.epochs is not None and self.warmup_epochs >= self.epochs:
            raise RecipeError(f"warmup_epochs must be below epochs, {self.epochs}; got {self.warmup_epochs:g}.")
        if self.balance != "focal":
            self.refuse(("focal_gamma",), "without balance focal")
        if self.strict:
            self.refuse(("max_bad",), "with strict, which refuses any finding")
