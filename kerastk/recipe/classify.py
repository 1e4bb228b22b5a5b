"""The recipe of a classifier of images that starts from random weights."""

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar

from kerastk.errors import RecipeError
from kerastk.notation import AUGMENT_POLICIES, AUGMENT_STEPS, OPTIMIZERS
from kerastk.recipe.base import fresh_patience, given_or, option
from kerastk.recipe.images import MAX_BAD, Images

# Up to this side, in pixels, an image is small: it is taken as it is, by a network made for such.
SMALL = 64
SMALL_NET, LARGE_NET = "fast-16", "mobilenet_v2"
# What shift-pad changes is of no class.
SMALL_AUGMENT, LARGE_AUGMENT = "shift-pad", "light"
OF_CONVNETS = ("activation", "normalisation", "pooling", "initialiser")


@dataclass(frozen=True, kw_only=True)
class Classify(Images):
    """Train a network from random weights on images with one label each: photos, or arrays.

    >>> Classify(data="kerastk:mnist", net="lenet5").members
    1
    """

    task: ClassVar[str] = "classify"
    # What answers on top of the network; `Finetune` has a choice.
    head: ClassVar[str] = "dense"

    data: str | None = option(
        None, "What to learn from: photos in class folders, in an archive, in a table with path,label[,split] or as "
        "tfds:NAME; arrays in .npz files (x_train, y_train, ...), IDX files or CIFAR's binary files; kerastk:NAME "
        "(`kerastk data list`).", group="data", common=True,
    )  # fmt: skip
    split: str | None = option(
        None, "Percent of the images for training, validation and, if wanted, test.", group="data", auto="70/15/15",
        common=True,
    )  # fmt: skip
    augment: str | None = option(
        None, "How training images are varied; never those of validation and test: " + ", ".join(AUGMENT_POLICIES)
        + ", or steps like shift-pad,flip,erase of " + ", ".join(AUGMENT_STEPS) + ".", group="data",
        auto=f"{SMALL_AUGMENT} up to {SMALL} pixels, else {LARGE_AUGMENT}", common=True, several=True,
    )  # fmt: skip
    image_size: int | None = option(
        None, "Side of the square that the network sees.", group="network",
        auto=f"the images' own where all are squares of one size of at most {SMALL}, else the network's",
        unit="pixels", low=8, high=4096, common=True,
    )  # fmt: skip
    net: str | None = option(
        None, "The network: lenet5, alexnet, alexnet-small, allconv, vgg-small, resnet20 to resnet110, wrn-16-N, "
        "wrn-28-N, fast-N; or one of `kerastk bases`, from random weights.", group="network",
        auto=f"{SMALL_NET} up to {SMALL} pixels, else {LARGE_NET}", common=True,
    )  # fmt: skip
    members: int = option(
        1, "So many networks of this kind learn side by side, each from first weights of its own; the answer is their "
        "mean.", group="network", low=1, high=32,
    )  # fmt: skip
    activation: str | None = option(
        None, "What layers end in.", group="network",
        choices=("relu", "leaky_relu", "elu", "selu", "swish", "gelu", "sigmoid", "tanh"), auto="the network's own",
    )  # fmt: skip
    normalisation: str | None = option(
        None, "What follows a convolution.", group="network", choices=("batch", "layer", "group", "none"),
        auto="the network's own",
    )  # fmt: skip
    pooling: str | None = option(
        None, "How maps are halved: by the largest or the mean of four, or by convolutions with a step of two.",
        group="network", choices=("max", "average", "stride"), auto="the network's own",
    )  # fmt: skip
    initialiser: str | None = option(
        None, "What first weights are drawn from.", group="network", choices=("he", "glorot", "normal", "uniform"),
        auto="the network's own",
    )  # fmt: skip
    dropout: float | None = option(
        None, "Share of the features dropped before the head.", group="network",
        auto="0; 0.2 with one of `kerastk bases`", low=0, below=1,
    )  # fmt: skip
    epochs: int | None = option(
        None, "Passes over the training images.", group="training", auto="30", unit="epochs", low=1, high=100_000,
        common=True,
    )  # fmt: skip
    batch_size: int = option(128, "Images a step.", group="training", low=1, high=65_536, common=True)
    learning_rate: float | str | None = option(
        None, "Peak learning rate; auto finds one (`kerastk lr-find`).", group="training",
        auto="0.001, in proportion to the optimizer's usual one", low=1e-9, high=10, common=True,
    )  # fmt: skip
    warmup_epochs: float | None = option(
        None, "Linear rise of the learning rate at the start.", group="training",
        auto="1, or a tenth of a shorter training", unit="epochs", low=0, high=1000,
    )  # fmt: skip
    patience: int | None = option(
        None, "Stop after so many epochs without a better validation cross-entropy.", group="training",
        auto="15, or half of the epochs where that is more", unit="epochs", low=1, high=100_000,
    )  # fmt: skip
    name: str | None = option(
        None, "The run's name; must be new.", group="output", auto="<data>-<net>-<n>", common=True
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.members > 1 and self.balance in ("weights", "focal"):
            raise RecipeError(f"members each learn from a plain cross-entropy; use balance sample, not {self.balance}.")

    def resolve(
        self, *, net: str, image_size: int, decoded: bool, threads: int, dropout: float,
        precision: str, device: str, split: str | None, split_seed: int | None, name: str,
    ) -> "Classify":  # fmt: skip
        """A copy with every automatic value filled in from what the run found.

        `decoded` says that images are photos, not arrays; `dropout` is the network's own.
        """
        scale = OPTIMIZERS[self.optimizer or "adamw"][0]
        epochs = given_or(self.epochs, 30)
        values: dict[str, Any] = {
            "net": net,
            "image_size": image_size,
            "augment": self.resolved_augment(image_size),
            "precision": precision,
            "device": device,
            "split": split,
            "split_seed": split_seed,
            "name": name,
            "dropout": given_or(self.dropout, dropout),
            "epochs": epochs,
            "learning_rate": given_or(self.learning_rate, scale * 1e-3),
            "warmup_epochs": given_or(self.warmup_epochs, float(min(1.0, epochs / 10))),
            "mixup": given_or(self.mixup, 0.0),
            "cutmix": given_or(self.cutmix, 0.0),
            "label_smoothing": given_or(self.label_smoothing, 0.1),
            "focal_gamma": given_or(self.focal_gamma, 2.0) if self.balance == "focal" else None,
            **self.optimisation(patience=fresh_patience(epochs)),
        }
        if decoded:
            values["threads"] = threads
            if not self.strict:
                values["max_bad"] = given_or(self.max_bad, MAX_BAD)
        return dataclasses.replace(self, **values)

    def resolved_augment(self, image_size: int) -> str:
        """How images of this size are varied."""
        return given_or(self.augment, SMALL_AUGMENT if image_size <= SMALL else LARGE_AUGMENT)

    def resolved_net(self, image_size: int | None) -> str:
        """The network for images of this size; None where they have none of their own."""
        return given_or(self.net, SMALL_NET if image_size is not None and image_size <= SMALL else LARGE_NET)
