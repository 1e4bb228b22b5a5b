"""The recipe of an autoencoder."""

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, ClassVar

from kerastk.errors import RecipeError
from kerastk.notation import (
    AUGMENT_POLICIES,
    AUGMENT_STEPS,
    NOISES,
    OPTIMIZERS,
    check_augmentation,
    layer_widths,
    noise_numbers,
    shown,
    sparsity_numbers,
)
from kerastk.recipe.base import Recipe, given_or, option

# What None stands for where it is needed before the rest can be resolved.
AUTOENCODE_SPLIT = "80/10/10"
IMAGE_SIZE = 64
# Of few items more epochs are needed: as many as make so many steps, but no more than MOST_EPOCHS.
AUTOENCODE_EPOCHS, ENOUGH_STEPS, MOST_EPOCHS = 50, 5000, 200
OF_RBM = ("rbm_epochs", "rbm_steps", "rbm_learning_rate", "rbm_momentum", "rbm_weight_decay")


@dataclass(frozen=True, kw_only=True)
class Autoencode(Recipe):
    """Train an autoencoder on images or rows of numbers, labelled or not.

    >>> Autoencode(data="photos/", resize="crop", latent=64).loss
    """

    task: ClassVar[str] = "autoencode"

    data: str | None = option(
        None, "What to learn from: photos in a folder or archive (class folders are not needed), a table of them, "
        "tfds:NAME; arrays in .npy, .npz or IDX files; a CSV file of numbers.", group="data", common=True,
    )  # fmt: skip
    split: str | None = option(
        None, "Percent of the items for training, validation and, if wanted, test.", group="data",
        auto=AUTOENCODE_SPLIT, common=True,
    )  # fmt: skip
    normal: str | None = option(
        None, "The class or classes that are normal, with commas between: these alone are learned, and the others of "
        "the test split are anomalies to be found.", group="data", auto="all", several=True,
    )  # fmt: skip
    false_alarms: float = option(
        0.01, "Share of normal items that may be called anomalies; sets the threshold, on the validation split.",
        group="data", low=1e-6, high=0.5,
    )  # fmt: skip
    features: str | None = option(
        None, "A pretrained network (`kerastk bases`) whose features give a second anomaly score: the distance to the "
        "nearest training images.", group="data", auto="none",
    )  # fmt: skip
    label_column: str | None = option(
        None, "The column of a CSV file that is a label and no number to learn.", group="data",
        auto="label, class or target",
    )  # fmt: skip
    image_size: int | None = option(
        None, "Side of the square that the network sees.", group="data",
        auto=f"the photos' own where all are equal squares of at most {IMAGE_SIZE}, else {IMAGE_SIZE}", unit="pixels",
        low=8, high=512, common=True,
    )  # fmt: skip
    resize: str | None = option(
        None, "How a photo becomes a square: its centre, the whole with borders, or distorted. Photos of different "
        "sizes need it.", group="data", choices=("crop", "pad", "stretch"), auto="none", common=True,
    )  # fmt: skip
    threads: int | None = option(
        None, "Threads that read and decode.", group="data", auto="one a core, at most 16", low=1, high=256
    )
    augment: str | None = option(
        None, "How training images are varied, photos or square arrays: " + ", ".join(AUGMENT_POLICIES) + ", or steps "
        "like crop:0.3,flip of " + ", ".join(AUGMENT_STEPS) + ".", group="data", auto="none", several=True,
    )  # fmt: skip
    max_bad: float | None = option(
        None, "Share of unreadable photos that is set aside before the run stops, like 0.01 or 1%.",
        group="data", auto="0.01", low=0, high=1,
    )  # fmt: skip
    strict: bool = option(False, "Refuse the data at any finding of `kerastk check`.", group="data")
    kind: str | None = option(
        None, "The layers: dense, or convolutions (of images).", group="network", choices=("dense", "conv"),
        auto="conv for images, dense for rows of numbers", common=True,
    )  # fmt: skip
    latent: int | None = option(
        None, "Numbers of the code.", group="network", auto="64; a quarter of the columns, at least 2, of rows",
        low=1, high=65_536, common=True,
    )  # fmt: skip
    widths: str | None = option(
        None, "Units of the encoder's dense layers, or filters of its convolutional stages, each of which halves the "
        "image, with commas between; the decoder mirrors them.", group="network", several=True,
        auto="512,256; of convolutions 32,64,128,256 down to 4 pixels",
    )  # fmt: skip
    activation: str | None = option(
        None, "Of the layers in between; the code is linear.", group="network",
        choices=("relu", "leaky_relu", "elu", "selu", "swish", "gelu", "sigmoid"), auto="swish; sigmoid with rbm",
    )  # fmt: skip
    upsample: str | None = option(
        None, "How the decoder enlarges: transposed convolutions, sub-pixel convolutions, or nearest neighbours and a "
        "convolution.", group="network", choices=("transpose", "subpixel", "resize"), auto="resize",
    )  # fmt: skip
    loss: str | None = option(
        None, "What a reconstruction is trained to make small, a mean over its values: squared error, binary "
        "cross-entropy, absolute error, 1 - SSIM, or Huber's.", group="training",
        choices=("mse", "bce", "mae", "ssim", "huber"), auto="mse; bce with variational or rbm", common=True,
    )  # fmt: skip
    noise: str | None = option(
        None, "Damage each item and learn to undo it (denoising): " + ", ".join(NOISES) + " and how much, like "
        "gaussian:0.5.", group="training", auto="none", common=True,
    )  # fmt: skip
    masked: float | None = option(
        None, "Hide this share of each image's patches and learn to fill them in.", group="training", auto="none",
        low=0.01, high=0.99, common=True,
    )  # fmt: skip
    patch: int | None = option(
        None, "Side of a patch that is hidden.", group="training", auto="an eighth of the image", unit="pixels", low=1,
        high=256,
    )  # fmt: skip
    sparsity: str | None = option(
        None, "Keep codes near zero: l1:WEIGHT on their values, or kl:SHARE[:WEIGHT], by which each unit of a sigmoid "
        "code is to be on for such a share of the items.", group="training", auto="none", common=True,
    )  # fmt: skip
    contraction: float | None = option(
        None, "Weight of the penalty on how much a code changes with its item (contractive).", group="training",
        auto="none", low=1e-9, high=1e6, common=True,
    )  # fmt: skip
    variational: bool = option(
        False, "Learn a distribution of codes, near the standard normal one, to sample from.", group="training",
        common=True,
    )  # fmt: skip
    beta: float | None = option(
        None, "Weight of the distance between the distribution of codes and the normal one.", group="training",
        auto="1", low=0, high=1e6,
    )  # fmt: skip
    free_bits: float | None = option(
        None, "Distance that each number of a variational code is given free.", group="training", auto="0",
        unit="nats", low=0, high=100,
    )  # fmt: skip
    binarise: bool = option(
        False, "Show each pixel as 1 or 0, by a new draw each time with its grey as the chance (dynamic binarisation).",
        group="training",
    )  # fmt: skip
    pretrain: str | None = option(
        None, "Train the layers one by one first, as restricted Boltzmann machines.", group="training",
        choices=("rbm",), auto="none", common=True,
    )  # fmt: skip
    rbm_epochs: int | None = option(
        None, "Epochs of each restricted Boltzmann machine.", group="training", auto="20", unit="epochs", low=1,
        high=10_000,
    )  # fmt: skip
    rbm_steps: int | None = option(
        None, "Steps of contrastive divergence.", group="training", auto="1", low=1, high=100
    )
    rbm_learning_rate: float | None = option(
        None, "Learning rate of the machines; where real numbers are modelled, a hundredth of it.", group="training",
        auto="0.1", low=1e-9, high=10,
    )  # fmt: skip
    rbm_momentum: float | None = option(None, "Momentum of the machines.", group="training", auto="0.9", low=0, below=1)
    rbm_weight_decay: float | None = option(
        None, "Weight decay of the machines.", group="training", auto="0.0002", low=0, high=10
    )
    epochs: int | None = option(
        None, "Passes over the training items.", group="training",
        auto="50; of few items as many as make 5,000 steps, at most 200", unit="epochs", low=1, high=100_000,
        common=True,
    )  # fmt: skip
    batch_size: int = option(128, "Items a step.", group="training", low=1, high=65_536, common=True)
    learning_rate: float | str | None = option(
        None, "Peak learning rate; auto finds one (`kerastk lr-find`).", group="training",
        auto="0.001, in proportion to the optimizer's usual one", low=1e-9, high=10, common=True,
    )  # fmt: skip
    warmup_epochs: float | None = option(
        None, "Linear rise of the learning rate at the start.", group="training",
        auto="1, or a tenth of a shorter training", unit="epochs", low=0, high=1000,
    )  # fmt: skip
    weight_decay: float | None = option(
        None, "Decoupled weight decay of all optimizers but adam; it spares biases.", group="training", auto="0",
        low=0, high=10,
    )  # fmt: skip
    patience: int | None = option(
        None, "Stop after so many epochs without a lower validation loss.", group="training", auto="20",
        unit="epochs", low=1, high=100_000,
    )  # fmt: skip

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.warmup_epochs is not None and self.epochs is not None and self.warmup_epochs >= self.epochs:
            raise RecipeError(f"warmup_epochs must be below epochs, {self.epochs}; got {self.warmup_epochs:g}.")
        if self.augment is not None:
            check_augmentation(self.augment)
        if self.widths is not None:
            layer_widths(self.widths)
        if self.normal is not None and not all(self.normal_classes):
            raise RecipeError(f"normal must be names of classes with commas between; got {shown(self.normal)}.")
        if self.kind == "dense":
            self.refuse(("upsample",), "with kind dense, which has no images inside")
        if self.masked is None:
            self.refuse(("patch",), "without masked")
        if not self.variational:
            self.refuse(("beta", "free_bits"), "without variational")
        if self.pretrain is None:
            self.refuse(OF_RBM, "without pretrain rbm")
        if self.strict:
            self.refuse(("max_bad",), "with strict, which refuses any finding")
        self._check_objective()

    def _check_objective(self) -> None:
        """Refuse what cannot be trained together."""
        if self.noise is not None:
            noise_numbers(self.noise)
        if self.sparsity is not None:
            sparsity_numbers(self.sparsity)
        damage = [name for name, given in (("noise", self.noise), ("masked", self.masked), ("binarise", self.binarise))
                  if given]  # fmt: skip
        if len(damage) > 1:
            raise RecipeError(f"{' and '.join(damage)} each show other pixels than the image's; choose one.")
        if self.masked is not None and self.loss == "ssim":
            raise RecipeError("loss ssim compares whole windows, of which masked hides parts; use mse.")
        if self.variational:
            self.refuse(("sparsity", "contraction"), "with variational, which has a penalty on the codes of its own")
            if self.loss not in (None, "mse", "bce"):
                raise RecipeError(f"variational needs a likelihood: loss mse or bce; got {self.loss}.")
        if self.pretrain == "rbm":
            if self.kind not in (None, "dense"):
                raise RecipeError(f"pretrain rbm trains dense layers; with kind {self.kind} leave it out.")
            if self.activation not in (None, "sigmoid"):
                raise RecipeError(f"the units of an rbm are logistic: activation sigmoid; got {self.activation}.")
            if self.variational or (self.sparsity or "").startswith("kl"):
                raise RecipeError("pretrain rbm needs a linear code; leave variational and sparsity kl out.")

    @property
    def normal_classes(self) -> tuple[str, ...]:
        """The classes of `normal`; none where all are."""
        return () if self.normal is None else tuple(name.strip() for name in self.normal.split(","))

    def resolve(
        self, *, steps: int, shape: tuple[int, ...], decoded: bool, precision: str, device: str, threads: int,
        split: str | None, split_seed: int | None, name: str,
    ) -> "Autoencode":  # fmt: skip
        """A copy with every automatic value filled in from what the run found.

        `steps` are those of an epoch, `shape` is that of an item; `decoded` says that items are photos, not arrays.
        """
        scale, numbers = OPTIMIZERS[self.optimizer or "adamw"]
        kind = self.resolved_kind(shape)
        epochs = given_or(self.epochs, max(AUTOENCODE_EPOCHS, min(MOST_EPOCHS, math.ceil(ENOUGH_STEPS / steps))))
        rbm = self.pretrain == "rbm"
        values: dict[str, Any] = {
            "precision": precision,
            "device": device,
            "split": split,
            "split_seed": split_seed,
            "name": name,
            "kind": kind,
            "latent": self.resolved_latent(shape),
            "widths": self.resolved_widths(shape),
            "activation": self.resolved_activation,
            "upsample": given_or(self.upsample, "resize") if kind == "conv" else None,
            "loss": self.resolved_loss(shape),
            "epochs": epochs,
            "learning_rate": given_or(self.learning_rate, scale * 1e-3),
            "warmup_epochs": given_or(self.warmup_epochs, float(min(1.0, epochs / 10))),
            **self.optimisation(patience=20),
        }
        if "weight_decay" in numbers:
            values["weight_decay"] = given_or(self.weight_decay, 0.0)
        if decoded:
            values |= {"image_size": shape[0], "threads": threads, "augment": given_or(self.augment, "none")}
            if not self.strict:
                values["max_bad"] = given_or(self.max_bad, 0.01)
        if self.masked is not None:
            values["patch"] = given_or(self.patch, max(1, shape[0] // 8))
        if self.variational:
            values |= {"beta": given_or(self.beta, 1.0), "free_bits": given_or(self.free_bits, 0.0)}
        if rbm:
            values |= {
                "rbm_epochs": given_or(self.rbm_epochs, 20),
                "rbm_steps": given_or(self.rbm_steps, 1),
                "rbm_learning_rate": given_or(self.rbm_learning_rate, 0.1),
                "rbm_momentum": given_or(self.rbm_momentum, 0.9),
                "rbm_weight_decay": given_or(self.rbm_weight_decay, 2e-4),
            }
        return dataclasses.replace(self, **values)

    def resolved_kind(self, shape: tuple[int, ...]) -> str:
        """The kind for items of this shape."""
        automatic = "conv" if len(shape) == 3 and self.pretrain is None else "dense"
        return given_or(self.kind, automatic)

    def resolved_latent(self, shape: tuple[int, ...]) -> int:
        """The size of the code for items of this shape."""
        return given_or(self.latent, 64 if len(shape) == 3 else max(2, shape[0] // 4))

    def resolved_widths(self, shape: tuple[int, ...]) -> str:
        """The encoder's layers for items of this shape."""
        if self.widths is not None:
            return self.widths
        if self.resolved_kind(shape) == "dense":
            return "512,256" if len(shape) == 3 else f"{max(16, 2 * shape[0])},{max(8, shape[0])}"
        halvings, side = 0, min(shape[:2])
        while side >= 8 and halvings < 4:
            halvings, side = halvings + 1, -(-side // 2)
        return ",".join(str(32 * 2**number) for number in range(max(1, halvings)))

    @property
    def resolved_activation(self) -> str:
        """What the layers in between end in."""
        return given_or(self.activation, "sigmoid" if self.pretrain == "rbm" else "swish")

    def resolved_loss(self, shape: tuple[int, ...]) -> str:
        """The loss for items of this shape."""
        likely = len(shape) == 3 and (self.variational or self.pretrain == "rbm")
        return given_or(self.loss, "bce" if likely else "mse")
