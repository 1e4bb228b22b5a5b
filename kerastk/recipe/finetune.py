"""The recipe of fine-tuning a pretrained network on photos."""

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar

from kerastk.errors import RecipeError
from kerastk.notation import OPTIMIZERS, shown, size_bytes
from kerastk.recipe.base import fresh_patience, given_or, option
from kerastk.recipe.images import MAX_BAD, Images

# What None stands for where it is needed before the rest can be resolved.
DROPOUT = 0.2
CACHE_SIZE = "20GB"
# What the base of a classifier is called that starts from an autoencoder's run.
ENCODER = "encoder"
# What has no effect where nothing is trained.
OF_TRAINING = (
    "optimizer", "momentum", "nesterov", "accumulate", "ema", "schedule", "weight_decay", "clipnorm", "l1", "l2",
    "patience", "min_delta", "start_from_epoch", "time", "on_nan", "label_smoothing", "focal_gamma", "dropout", "views",
    "cache_dtype", "epoch_parts", "histograms", "gradient_norms", "profile", "keep_last",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Finetune(Images):
    """Fine-tune a pretrained network, of `keras.applications` or `mini`, on photos with one label each.

    >>> Finetune(data="photos/", base="resnet50").batch_size
    32
    """

    task: ClassVar[str] = "finetune"

    base: str | None = option(
        None, "The pretrained network; `kerastk bases` lists them.", group="network",
        auto="mobilenet_v2, or that of --weights RUN", common=True,
    )  # fmt: skip
    weights: str = option(
        "imagenet", "Where the base starts from: imagenet (of mini the weights that ship), none, a weights file, or "
        "the folder of an earlier run.",
        group="network", common=True,
    )  # fmt: skip
    init_from: str | None = option(
        None, "The run of an autoencoder of photos: its encoder takes the place of the pretrained network.",
        group="network", auto="none",
    )  # fmt: skip
    unfreeze: str | int | None = option(
        None, "What is trained after the head: head (nothing more), all, or the number of stages from the top.",
        group="network", auto="1; all where the base has no stages", common=True,
    )  # fmt: skip
    dropout: float | None = option(
        None, "Share of the features dropped before the head.", group="network", auto=str(DROPOUT), low=0, below=1
    )
    head: str = option(
        "dense", "What answers on top of the base: a dense layer, or a linear support vector machine or the nearest "
        "neighbours on the frozen base's features.", group="network", choices=("dense", "svm", "knn"),
    )  # fmt: skip
    image_size: int | None = option(
        None, "Side of the square that the network sees.", group="network",
        auto="the base's own, 64 to 480", unit="pixels", low=8, high=4096, common=True,
    )  # fmt: skip
    probe: str | None = option(
        None, "How the first phase finds the head on the frozen base: solve it (logistic regression), train it in "
        "minibatches, or none.", group="training", choices=("solve", "train", "none"),
        auto="solve; train where there are too many photos or classes",
    )  # fmt: skip
    head_epochs: int | None = option(
        None, "Epochs of the first phase with --probe train.", group="training",
        auto="3; 20 with --unfreeze head", unit="epochs", low=1, high=100_000,
    )  # fmt: skip
    head_learning_rate: float | None = option(
        None, "Peak learning rate of the first phase with --probe train.", group="training", auto="0.002",
        low=1e-9, high=10,
    )  # fmt: skip
    layer_decay: float | None = option(
        None, "Each block's learning rate as a share of that of the block above it, like 0.75.", group="training",
        auto="the same for all", low=0.01, high=1,
    )  # fmt: skip
    manifold_mixup: float | None = option(
        None, "Mix what the frozen part makes of two photos, and their labels, by a share from Beta(X, X); 0 does not.",
        group="training", auto="0.4; 0 with mixup or cutmix", low=0, high=100,
    )  # fmt: skip
    cache: str = option(
        "auto", "Where to keep what the frozen part makes of the photos: auto (kerastk's cache folder, if it pays and "
        "there is room), off, or a folder.", group="training",
    )  # fmt: skip
    cache_size: str | None = option(
        None, "What the cache may take on the disk, over all runs; the least recently used is thrown out.",
        group="training", auto=CACHE_SIZE, unit="bytes",
    )  # fmt: skip
    cache_dtype: str | None = option(
        None, "Type of the stored numbers.", group="training", choices=("float32", "float16", "bfloat16"),
        auto="float16; bfloat16 with --precision bfloat16 or where float16 overflows",
    )  # fmt: skip
    views: int | None = option(
        None, "Augmented views of each training photo in the cache; epoch e shows view e mod views.", group="training",
        auto="6, or as many as there is room for", low=1, high=1000,
    )  # fmt: skip

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.unfreeze, str):
            if self.unfreeze.isdecimal() and len(self.unfreeze) < 4:
                object.__setattr__(self, "unfreeze", int(self.unfreeze))
            elif self.unfreeze not in ("head", "all"):
                raise RecipeError(f"unfreeze must be head, all or a number of stages; got {shown(self.unfreeze)}.")
        if isinstance(self.unfreeze, int) and not 1 <= self.unfreeze <= 999:
            raise RecipeError(f"unfreeze must be at least 1 stage and at most 999; got {shown(self.unfreeze)}.")
        if self.init_from is not None:
            if self.weights != "imagenet":
                raise RecipeError(f"init_from brings its weights along; leave weights out (got {shown(self.weights)}).")
            if self.base not in (None, ENCODER):
                raise RecipeError(f"init_from is a network of its own; leave base out (got {shown(self.base)}).")
        caching = ("views", "cache_size", "cache_dtype")
        if self.cache_size is not None:
            size_bytes(self.cache_size)
        if self.cache == "off":
            self.refuse(caching, "with cache off")
        if self.weights == "none":
            if self.head != "dense":
                raise RecipeError(f"head {self.head} needs pretrained features; with weights none use head dense.")
            if self.cache not in ("auto", "off"):
                raise RecipeError("cache has no effect with weights none (nothing is frozen); leave it out.")
            self.refuse(
                ("probe", "head_epochs", "head_learning_rate", "unfreeze", "layer_decay", "manifold_mixup", *caching),
                "with weights none (one phase trains all)",
            )
        if self.probe != "train":
            self.refuse(("head_epochs", "head_learning_rate"), "without probe train (the head is not trained alone)")
        if self.head != "dense":
            if self.unfreeze not in (None, "head"):
                raise RecipeError(f"head {self.head} is fitted on a frozen base; leave unfreeze out.")
            self.refuse(("probe",), f"with head {self.head}, which is fitted at once")
        if self.head_alone:
            if self.probe == "none":
                raise RecipeError("unfreeze head and probe none leave nothing to train; leave one out.")
            self.refuse(
                ("epochs", "learning_rate", "warmup_epochs", "layer_decay", "manifold_mixup", "mixup", "cutmix"),
                "where the head alone is fitted",
            )
            if self.probe != "train":
                self.refuse(OF_TRAINING, "where the head is solved and nothing is trained")
        elif self.unfreeze == "all":
            self.refuse(("manifold_mixup",), "with unfreeze all (nothing is frozen)")
            if self.probe != "train":
                self.refuse(("views", "cache_dtype"), "with unfreeze all (nothing is frozen)")
        if self.layer_decay is not None and (self.accumulate or 1) > 1:
            raise RecipeError("accumulate does not go with layer_decay: each block would clip gradients of its own.")
        if self.head == "knn" and self.balance != "none":
            raise RecipeError(f"balance {self.balance} has no effect with head knn; leave it out.")
        if self.head_alone and self.probe != "train" and self.balance in ("sample", "focal"):
            raise RecipeError(f"balance {self.balance} has no effect where the head is solved; use balance weights.")
        if self.mixup or self.cutmix:
            if self.manifold_mixup:
                raise RecipeError("manifold_mixup mixes what mixup or cutmix has mixed already; choose one.")
            reason = "with mixup or cutmix (the photos of a batch are mixed anew each time)"
            if self.cache not in ("auto", "off"):
                raise RecipeError(f"cache has no effect {reason}; leave it out.")
            if self.probe != "train":
                self.refuse(("views", "cache_dtype"), reason)

    @property
    def head_alone(self) -> bool:
        """Whether nothing but the head is fitted."""
        return self.unfreeze == "head" or self.head != "dense"

    def resolve(
        self, *, base: str, image_size: int, stages: int, threads: int, precision: str, device: str,
        split: str | None, split_seed: int | None, name: str, solvable: bool,
    ) -> "Finetune":  # fmt: skip
        """A copy with every automatic value filled in from what the run found. The defaults stand here, once.

        `stages` is how many the base can be cut into; `split` and `split_seed` are None where the data came with all
        its splits; `solvable` says whether the head can be solved at once. `views` the trainer fills in.
        """
        fresh = self.weights == "none"
        scale = OPTIMIZERS[self.optimizer or "adamw"][0]
        values: dict[str, Any] = {
            "base": base,
            "image_size": image_size,
            "threads": threads,
            "precision": precision,
            "device": device,
            "split": split,
            "split_seed": split_seed,
            "name": name,
        }
        if not self.strict:
            values["max_bad"] = given_or(self.max_bad, MAX_BAD)
        if not fresh:
            values["unfreeze"] = "head" if self.head_alone else given_or(self.unfreeze, 1 if stages > 1 else "all")
            if self.head == "dense":
                values["probe"] = given_or(self.probe, "solve" if solvable else "train")
        if values.get("probe") == "train":
            values["head_epochs"] = given_or(self.head_epochs, 20 if self.head_alone else 3)
            values["head_learning_rate"] = given_or(self.head_learning_rate, scale * 2e-3)
        if not self.head_alone:
            epochs = given_or(self.epochs, 30 if fresh else 16)
            values["epochs"] = epochs
            gentle = 3e-4 if values.get("unfreeze") == 1 else 1e-4
            values["learning_rate"] = given_or(self.learning_rate, scale * (1e-3 if fresh else gentle))
            values["warmup_epochs"] = given_or(self.warmup_epochs, float(min(1.0, epochs / 10)))
            values["mixup"], values["cutmix"] = given_or(self.mixup, 0.0), given_or(self.cutmix, 0.0)
            if values.get("unfreeze", "all") not in ("all", stages):
                values["manifold_mixup"] = given_or(self.manifold_mixup, 0.0 if self.mixup or self.cutmix else 0.4)
            elif self.manifold_mixup is not None:
                raise RecipeError(f"manifold_mixup has no effect with unfreeze {self.unfreeze}: nothing is frozen.")
        if not self.head_alone or values.get("probe") == "train":
            values |= self.optimisation(patience=fresh_patience(values["epochs"]) if fresh else 5)
            values["focal_gamma"] = given_or(self.focal_gamma, 2.0) if self.balance == "focal" else None
            values["label_smoothing"] = given_or(self.label_smoothing, 0.1)
            values["dropout"] = given_or(self.dropout, DROPOUT)
        return dataclasses.replace(self, **values)
