"""A recipe: everything that decides a run, in one frozen value.

There is one flat dataclass a task. The command line's options are made from its fields, a TOML file holds the same
fields, and Python constructs it; all three end in the same constructor, which checks types, ranges, choices and
contradictions. `None` means automatic: `train` resolves it, and the run folder's `recipe.toml` holds what was used.

    recipe = Finetune(data="photos/", base="resnet50")
    load("flowers.toml", epochs=5)
"""

import dataclasses
import difflib
import math
import os
import re
import tomllib
import types
import typing
from dataclasses import dataclass
from typing import Any, ClassVar

from kerastk.errors import RecipeError
from kerastk.notation import (
    AUGMENT_POLICIES,
    AUGMENT_STEPS,
    OPTIMIZERS,
    PLATEAU_PATIENCE,
    SCHEDULES,
    check_augmentation,
    profile_steps,
    schedule_numbers,
    seconds,
    shown,
    size_bytes,
    split_fractions,
)

GROUPS = ("data", "network", "training", "output")
# What None stands for where it is needed before the rest can be resolved.
SPLIT = "70/15/15"
TAG_SPLIT = "80/10/10"
TAG_EPOCHS = 12
MAX_BAD = 0.01
DROPOUT = 0.2
CACHE_SIZE = "20GB"
# What has no effect where nothing is trained.
_OF_TRAINING = (
    "optimizer", "momentum", "nesterov", "accumulate", "ema", "schedule", "weight_decay", "clipnorm", "l1", "l2",
    "patience", "min_delta", "start_from_epoch", "time", "on_nan", "label_smoothing", "focal_gamma", "dropout", "views",
    "cache_dtype", "epoch_parts", "histograms", "gradient_norms", "profile", "keep_last",
)  # fmt: skip
# Paths may be long; and to what is nested deep, tomllib gives memory by the square of its length.
_LARGEST = 2**15


def option(
    default: Any,
    help: str,
    *,
    group: str,
    auto: str = "",
    unit: str = "",
    low: float | None = None,
    high: float | None = None,
    below: float | None = None,
    choices: tuple[str, ...] = (),
    common: bool = False,
    several: bool = False,
) -> Any:
    """A recipe's field. `auto` says in words what None becomes; `below` is an exclusive upper bound.

    With `several` a list of texts is taken too, as one text with commas between.
    """
    metadata = {
        "help": help, "group": group, "auto": auto, "unit": unit, "low": low, "high": high, "below": below,
        "choices": choices, "common": common, "several": several,
    }  # fmt: skip
    return dataclasses.field(default=default, metadata=metadata)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """The fields that all tasks share. Use a task's own class, such as `Finetune`."""

    task: ClassVar[str] = ""

    data: str | None = option(
        None,
        "What to learn from: a folder of class folders (or of train/, val/ and test/), a .zip or .tar of one, "
        "a CSV or Parquet file with path,label[,split], or tfds:NAME.",
        group="data", common=True,
    )  # fmt: skip
    split: str | None = option(
        None, "Percent of the photos for training, validation and, if wanted, test.",
        group="data", auto=SPLIT, common=True,
    )  # fmt: skip
    split_seed: int | None = option(
        None, "Another number gives another split.", group="data", auto="0", low=0, high=2**32 - 1
    )
    epochs: int | None = option(
        None, "Passes over the training data in the main phase.", group="training",
        auto="16; 30 with --weights none", unit="epochs", low=1, high=100_000, common=True,
    )  # fmt: skip
    batch_size: int = option(32, "Photos a step.", group="training", low=1, high=65_536, common=True)
    learning_rate: float | str | None = option(
        None, "Peak learning rate of the main phase; auto finds one (`kerastk lr-find`).", group="training",
        auto="0.0003 for one stage, 0.0001 for more; 0.001 with --weights none", low=1e-9, high=10, common=True,
    )  # fmt: skip
    schedule: str | None = option(
        None, "The learning rate's course after the warm-up: " + ", ".join(SCHEDULES) + "; with numbers of its own, "
        "like step:factor=0.2:at=0.6/0.8.", group="training", auto="cosine",
    )  # fmt: skip
    warmup_epochs: float | None = option(
        None, "Linear rise of the learning rate at the start of the main phase.", group="training",
        auto="1, or a tenth of a shorter phase", unit="epochs", low=0, high=1000,
    )  # fmt: skip
    optimizer: str | None = option(
        None, "What turns gradients into steps.", group="training", choices=tuple(OPTIMIZERS), auto="adamw"
    )
    momentum: float | None = option(
        None, "Momentum of sgd, rmsprop and muon.", group="training", auto="0.9; 0 for rmsprop, 0.95 for muon",
        low=0, below=1,
    )  # fmt: skip
    nesterov: bool | None = option(None, "Nesterov's momentum, of sgd and muon.", group="training", auto="on for muon")
    accumulate: int | None = option(
        None, "Batches whose gradients make one step: a batch size that the memory has no room for. It goes over the "
        "ends of epochs; what is left at the end of a phase makes no step.",
        group="training", auto="1", low=1, high=10_000,
    )  # fmt: skip
    ema: float | None = option(
        None, "Judge and keep an average of the weights over the steps, with this momentum, like 0.99.",
        group="training", auto="no average", low=0, below=1,
    )  # fmt: skip
    weight_decay: float | None = option(
        None, "Decoupled weight decay of all optimizers but adam; it spares biases and normalisation.",
        group="training", auto="0.05, in proportion to the optimizer's usual learning rate", low=0, high=10,
    )  # fmt: skip
    clipnorm: float | None = option(
        None, "Largest global norm of the gradients; 0 leaves them as they are.",
        group="training", auto="1", low=0, high=1e6,
    )  # fmt: skip
    l1: float | None = option(
        None, "Penalty on the sum of the trained kernels' absolute values.", group="training", auto="0", low=0, high=10
    )
    l2: float | None = option(
        None, "Penalty on the sum of the trained kernels' squares; with l1, the elastic net.", group="training",
        auto="0", low=0, high=10,
    )  # fmt: skip
    epoch_parts: int | None = option(
        None, "Checkpoints an epoch, evenly spaced; more than one pays where epochs are long.", group="training",
        auto="1", low=1, high=10_000,
    )  # fmt: skip
    patience: int | None = option(
        None, "Stop a phase after so many epochs without a better validation cross-entropy.",
        group="training", auto="5; 15 with --weights none", unit="epochs", low=1, high=100_000,
    )  # fmt: skip
    min_delta: float | None = option(
        None, "What counts as better: a validation cross-entropy lower by more than this.", group="training", auto="0",
        low=0, high=100,
    )  # fmt: skip
    start_from_epoch: int | None = option(
        None, "Epochs of a phase before the patience counts.", group="training", auto="0", unit="epochs",
        low=0, high=100_000,
    )  # fmt: skip
    time: str | None = option(
        None, "Stop training so that the whole run, its test included, takes no longer: 90s, 10m, 1h30m. The time "
        "before an interruption counts.", group="training", auto="no limit",
    )  # fmt: skip
    on_nan: str | None = option(
        None, "What to do when the loss is no longer a number: stop with the best model before that, or roll back to "
        "the last checkpoint at half the learning rate, at most three times.", group="training",
        choices=("stop", "rollback"), auto="stop",
    )  # fmt: skip
    precision: str = option(
        "auto", "Arithmetic of the layers. auto: bfloat16 on a GPU that has it, float16 on an older one, float32 on "
        "a CPU.", group="training", choices=("auto", "float32", "bfloat16", "float16"),
    )  # fmt: skip
    device: str = option("auto", "Where to compute: auto, cpu, gpu or gpu:N.", group="training")
    seed: int = option(
        0, "Order, augmentation, first weights and dropout follow from it.", group="training", low=0, high=2**32 - 1
    )
    deterministic: bool = option(
        False, "Equal seeds give equal weights, bit for bit, on one machine; slower on a GPU.", group="training"
    )
    name: str | None = option(
        None, "The run's name; must be new.", group="output", auto="<data>-<base>-<n>", common=True
    )
    runs: str = option("runs", "The folder of runs.", group="output")
    keep_last: bool = option(
        False, "Keep the model of the last epoch too, as last.keras beside the best one.", group="output"
    )
    histograms: bool = option(
        False, "Show TensorBoard the distribution of each trained weight after each epoch.", group="output"
    )
    gradient_norms: bool = option(
        False, "Show TensorBoard the gradients' norms, of all and of each stage, and say where they vanish or explode.",
        group="output",
    )  # fmt: skip
    profile: str | None = option(
        None, "Trace these of the run's steps, like 10:20, for TensorBoard's profiler.", group="output", auto="none",
        unit="from:to",
    )  # fmt: skip

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            object.__setattr__(self, field.name, _checked(field, _kind(type(self), field), getattr(self, field.name)))
        if self.split is not None:
            split_fractions(self.split)
        if isinstance(self.learning_rate, str) and self.learning_rate != "auto":
            raise RecipeError(f"learning_rate must be a number or auto; got {shown(self.learning_rate)}.")
        if self.time is not None:
            seconds(self.time)
        if self.schedule is not None:
            name, numbers = schedule_numbers(self.schedule)
            patience = numbers.get("patience", PLATEAU_PATIENCE) if name == "plateau" else 0
            if self.patience is not None and patience >= self.patience:
                raise RecipeError(f"schedule {self.schedule} lowers nothing before patience {self.patience} ends it.")
        if self.profile is not None:
            profile_steps(self.profile)
        for name in ("momentum", "nesterov", "weight_decay"):
            if getattr(self, name) is not None and name not in OPTIMIZERS[self.optimizer or "adamw"][1]:
                takers = [each for each, (_, numbers) in OPTIMIZERS.items() if name in numbers]
                raise RecipeError(f"the optimizer {self.optimizer or 'adamw'} takes no {name}; {', '.join(takers)} do.")
        if self.nesterov and self.momentum == 0:
            raise RecipeError("nesterov is a kind of momentum; momentum must be more than 0.")
        kind, _, number = self.device.partition(":")
        if kind not in ("auto", "cpu", "gpu") or (number and not (kind == "gpu" and number.isdecimal())):
            raise RecipeError(f"device must be auto, cpu, gpu or gpu:N; got {shown(self.device)}.")
        if self.device == "cpu" and self.precision == "float16":
            raise RecipeError("precision float16 is 4 times slower than float32 on a CPU; use float32 or bfloat16.")
        if self.name is not None and (self.name in ("", ".", "..") or "/" in self.name or os.sep in self.name):
            raise RecipeError(f"name must be a folder's name without slashes; got {shown(self.name)}.")
        if self.name is not None and len(self.name.encode("utf-8", "surrogatepass")) > 255:
            raise RecipeError(f"name must be at most 255 bytes; got {shown(self.name)}.")

    def _optimisation(self, *, patience: int) -> dict[str, Any]:
        """The automatic values of what is trained by steps; `patience` is the task's."""
        scale, numbers = OPTIMIZERS[self.optimizer or "adamw"]
        values = {
            "epoch_parts": _or(self.epoch_parts, 1),
            "patience": _or(self.patience, patience),
            "min_delta": _or(self.min_delta, 0.0),
            "start_from_epoch": _or(self.start_from_epoch, 0),
            "l1": _or(self.l1, 0.0),
            "l2": _or(self.l2, 0.0),
            "schedule": _or(self.schedule, "cosine"),
            "optimizer": _or(self.optimizer, "adamw"),
            "on_nan": _or(self.on_nan, "stop"),
            "accumulate": _or(self.accumulate, 1),
            "clipnorm": _or(self.clipnorm, 1.0),
        }
        if "weight_decay" in numbers:
            values["weight_decay"] = _or(self.weight_decay, 0.05 / scale)
        return values

    def _refuse(self, names: tuple[str, ...], reason: str) -> None:
        for name in names:
            # Of what is on or off, on is given.
            if getattr(self, name) is not None and getattr(self, name) is not False:
                raise RecipeError(f"{name} has no effect {reason}; leave it out.")


@dataclass(frozen=True, kw_only=True)
class Finetune(Recipe):
    """Fine-tune a `keras.applications` network on photos with one label each.

    >>> Finetune(data="photos/", base="resnet50").batch_size
    32
    """

    task: ClassVar[str] = "finetune"

    base: str | None = option(
        None, "The pretrained network; `kerastk bases` lists them.", group="network",
        auto="mobilenet_v2, or that of --weights RUN", common=True,
    )  # fmt: skip
    weights: str = option(
        "imagenet", "Where the base starts from: imagenet, none, a weights file, or the folder of an earlier run.",
        group="network", common=True,
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
    balance: str = option(
        "none", "Make every class count as much as any other, however many photos it has: by weights in the loss, by "
        "how often photos are drawn (sample), or by a focal loss. The best model is then chosen by such figures too.",
        group="training", choices=("none", "weights", "sample", "focal"),
    )  # fmt: skip
    focal_gamma: float | None = option(
        None, "How much less the focal loss counts what is known already.", group="training", auto="2", low=0, high=10
    )
    manifold_mixup: float | None = option(
        None, "Mix what the frozen part makes of two photos, and their labels, by a share from Beta(X, X); 0 does not.",
        group="training", auto="0.4; 0 with mixup or cutmix", low=0, high=100,
    )  # fmt: skip
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
        check_augmentation(self.augment)
        if self.warmup_epochs is not None and self.epochs is not None and self.warmup_epochs >= self.epochs:
            raise RecipeError(f"warmup_epochs must be below epochs, {self.epochs}; got {self.warmup_epochs:g}.")
        caching = ("views", "cache_size", "cache_dtype")
        if self.cache_size is not None:
            size_bytes(self.cache_size)
        if self.cache == "off":
            self._refuse(caching, "with cache off")
        if self.weights == "none":
            if self.head != "dense":
                raise RecipeError(f"head {self.head} needs pretrained features; with weights none use head dense.")
            if self.cache not in ("auto", "off"):
                raise RecipeError("cache has no effect with weights none (nothing is frozen); leave it out.")
            self._refuse(
                ("probe", "head_epochs", "head_learning_rate", "unfreeze", "layer_decay", "manifold_mixup", *caching),
                "with weights none (one phase trains all)",
            )
        if self.probe != "train":
            self._refuse(("head_epochs", "head_learning_rate"), "without probe train (the head is not trained alone)")
        if self.head != "dense":
            if self.unfreeze not in (None, "head"):
                raise RecipeError(f"head {self.head} is fitted on a frozen base; leave unfreeze out.")
            self._refuse(("probe",), f"with head {self.head}, which is fitted at once")
        if self.head_alone:
            if self.probe == "none":
                raise RecipeError("unfreeze head and probe none leave nothing to train; leave one out.")
            self._refuse(
                ("epochs", "learning_rate", "warmup_epochs", "layer_decay", "manifold_mixup", "mixup", "cutmix"),
                "where the head alone is fitted",
            )
            if self.probe != "train":
                self._refuse(_OF_TRAINING, "where the head is solved and nothing is trained")
        elif self.unfreeze == "all":
            self._refuse(("manifold_mixup",), "with unfreeze all (nothing is frozen)")
            if self.probe != "train":
                self._refuse(("views", "cache_dtype"), "with unfreeze all (nothing is frozen)")
        if self.layer_decay is not None and (self.accumulate or 1) > 1:
            raise RecipeError("accumulate does not go with layer_decay: each block would clip gradients of its own.")
        if self.balance != "focal":
            self._refuse(("focal_gamma",), "without balance focal")
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
                self._refuse(("views", "cache_dtype"), reason)
        if self.strict:
            self._refuse(("max_bad",), "with strict, which refuses any finding")

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
            values["max_bad"] = _or(self.max_bad, MAX_BAD)
        if not fresh:
            values["unfreeze"] = "head" if self.head_alone else _or(self.unfreeze, 1 if stages > 1 else "all")
            if self.head == "dense":
                values["probe"] = _or(self.probe, "solve" if solvable else "train")
        if values.get("probe") == "train":
            values["head_epochs"] = _or(self.head_epochs, 20 if self.head_alone else 3)
            values["head_learning_rate"] = _or(self.head_learning_rate, scale * 2e-3)
        if not self.head_alone:
            epochs = _or(self.epochs, 30 if fresh else 16)
            values["epochs"] = epochs
            gentle = 3e-4 if values.get("unfreeze") == 1 else 1e-4
            values["learning_rate"] = _or(self.learning_rate, scale * (1e-3 if fresh else gentle))
            values["warmup_epochs"] = _or(self.warmup_epochs, float(min(1.0, epochs / 10)))
            values["mixup"], values["cutmix"] = _or(self.mixup, 0.0), _or(self.cutmix, 0.0)
            if values.get("unfreeze", "all") not in ("all", stages):
                values["manifold_mixup"] = _or(self.manifold_mixup, 0.0 if self.mixup or self.cutmix else 0.4)
            elif self.manifold_mixup is not None:
                raise RecipeError(f"manifold_mixup has no effect with unfreeze {self.unfreeze}: nothing is frozen.")
        if not self.head_alone or values.get("probe") == "train":
            values |= self._optimisation(patience=15 if fresh else 5)
            values["focal_gamma"] = _or(self.focal_gamma, 2.0) if self.balance == "focal" else None
            values["label_smoothing"] = _or(self.label_smoothing, 0.1)
            values["dropout"] = _or(self.dropout, DROPOUT)
        return dataclasses.replace(self, **values)


@dataclass(frozen=True, kw_only=True)
class Tag(Recipe):
    """Train a tagger of words on sentences: names, parts of speech, slots.

    >>> Tag(data="train.conll", test="test.conll").cell
    'lstm'
    """

    task: ClassVar[str] = "tag"

    data: str | None = option(
        None, "What to learn from: a file of tagged sentences in columns (CoNLL), CoNLL-U, or JSON lines with text and "
        "spans; .gz is read too. kerastk:names is a small one that ships.", group="data", common=True,
    )  # fmt: skip
    dev: str | None = option(
        None, "A file of sentences by which the best model is chosen.", group="data", auto="a part of DATA", common=True
    )
    test: str | None = option(None, "A file of sentences to test on.", group="data", auto="a part of DATA", common=True)
    split: str | None = option(
        None, "Percent of the sentences for training, validation and, if wanted, test; what has a file of its own is "
        "not cut from DATA.", group="data", auto=TAG_SPLIT,
    )  # fmt: skip
    columns: str | None = option(
        None, "What the columns of the files are, like word,-,tag: a minus is left out.", group="data", auto="guessed"
    )
    tag_column: str | None = option(
        None, "The column of the tags, by its name: of CoNLL-U upos, xpos, deprel and so on.", group="data",
        auto="tag; upos of CoNLL-U",
    )  # fmt: skip
    scheme: str | None = option(
        None, "How tags spell spans while it learns; answers come in the spelling of the files.", group="data",
        choices=("iob1", "iob2", "iobes"), auto="iobes; none for plain tags",
    )  # fmt: skip
    strict: bool = option(False, "Refuse the data at any finding of `kerastk check`.", group="data")
    max_length: int = option(
        120, "Words of a sentence that is learned in one piece; a longer one is cut.", group="data", unit="words",
        low=8, high=10_000,
    )  # fmt: skip
    max_words: int = option(
        50_000, "Most words of the vocabulary, the most frequent ones.", group="network", low=1, high=10_000_000
    )
    min_count: int = option(
        1, "How often a word must be in the training sentences to have a vector of its own.", group="network", low=1,
        high=10_000,
    )  # fmt: skip
    lower: bool = option(True, "Look words up in small letters (characters and casing tell of capitals).",
                         group="network")  # fmt: skip
    fold_digits: bool = option(True, "Look all digits up as 0.", group="network")
    vectors: str | None = option(
        None, "A file of word vectors to start from, as text (GloVe, word2vec, fastText).", group="network",
        auto="random vectors", common=True,
    )  # fmt: skip
    train_vectors: bool | None = option(None, "Train the vectors of --vectors, too.", group="network", auto="on")
    word_size: int | None = option(
        None, "Numbers a word vector has.", group="network", auto="100, or that of --vectors", low=1, high=4096
    )
    characters: str = option(
        "cnn", "What reads the spelling of a word: convolutions, an LSTM each way, or nothing.", group="network",
        choices=("cnn", "lstm", "none"),
    )  # fmt: skip
    casing: bool = option(True, "Tell the network how a word is written: small, capital, with digits.", group="network")
    cell: str = option("lstm", "The recurrent layers' kind.", group="network", choices=("lstm", "gru", "rnn"))
    layers: int = option(1, "Bidirectional layers.", group="network", low=1, high=16)
    width: int = option(150, "Units a layer and direction.", group="network", low=1, high=8192, common=True)
    output: str = option(
        "crf", "How tags are chosen: all of a sentence together by a conditional random field, which allows no "
        "transition that the scheme does not, or each by itself.", group="network", choices=("crf", "softmax"),
        common=True,
    )  # fmt: skip
    dropout: float = option(0.4, "Share of the features dropped from a sentence, before and behind each layer.",
                            group="network", low=0, below=1)  # fmt: skip
    word_dropout: float = option(
        0.2, "Share of the words that are shown as unknown in training, so that these teach what is unknown.",
        group="network", low=0, below=1,
    )  # fmt: skip
    epochs: int | None = option(
        None, "Passes over the training sentences.", group="training", auto="12", unit="epochs", low=1, high=100_000,
        common=True,
    )  # fmt: skip
    batch_size: int = option(500, "Words a step, about, with the padding.", group="training", low=1, high=1_000_000,
                             common=True)  # fmt: skip
    learning_rate: float | str | None = option(
        None, "Peak learning rate; auto finds one (`kerastk lr-find`).", group="training",
        auto="0.003, in proportion to the optimizer's usual one", low=1e-9, high=10, common=True,
    )  # fmt: skip
    warmup_epochs: float | None = option(
        None, "Linear rise of the learning rate at the start.", group="training",
        auto="0.5, or a tenth of a shorter training", unit="epochs", low=0, high=1000,
    )  # fmt: skip
    clipnorm: float | None = option(
        None, "Largest global norm of the gradients; 0 leaves them as they are.", group="training", auto="5", low=0,
        high=1e6,
    )  # fmt: skip
    patience: int | None = option(
        None, "Stop after so many epochs without a better validation figure (F1 of spans, accuracy of plain tags).",
        group="training", auto="10", unit="epochs", low=1, high=100_000,
    )  # fmt: skip
    weight_decay: float | None = option(
        None, "Decoupled weight decay of all optimizers but adam; it spares biases and normalisation.",
        group="training", auto="0", low=0, high=10,
    )  # fmt: skip

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.vectors is None:
            self._refuse(("train_vectors",), "without vectors (random ones are always trained)")
        else:
            self._refuse(("word_size",), "with vectors, which have their own")
        if self.dev is not None and self.test is not None:
            self._refuse(("split", "split_seed"), "where dev and test are files of their own")
        if self.warmup_epochs is not None and self.epochs is not None and self.warmup_epochs >= self.epochs:
            raise RecipeError(f"warmup_epochs must be below epochs, {self.epochs}; got {self.warmup_epochs:g}.")

    def resolve(
        self, *, scheme: str | None, word_size: int, precision: str, device: str, split: str | None,
        split_seed: int | None, name: str,
    ) -> "Tag":  # fmt: skip
        """A copy with every automatic value filled in from what the run found; `scheme` is None for plain tags."""
        scale, numbers = OPTIMIZERS[self.optimizer or "adamw"]
        values: dict[str, Any] = {
            "scheme": scheme,
            "word_size": word_size if self.vectors is None else None,
            "train_vectors": None if self.vectors is None else _or(self.train_vectors, True),
            "precision": precision,
            "device": device,
            "split": split,
            "split_seed": split_seed,
            "name": name,
            "epochs": _or(self.epochs, TAG_EPOCHS),
            "learning_rate": _or(self.learning_rate, scale * 3e-3),
            "warmup_epochs": _or(self.warmup_epochs, min(0.5, _or(self.epochs, TAG_EPOCHS) / 10)),
            **self._optimisation(patience=10),
            "clipnorm": _or(self.clipnorm, 5.0),
        }
        if "weight_decay" in numbers:
            values["weight_decay"] = _or(self.weight_decay, 0.0)
        return dataclasses.replace(self, **values)


TASKS: dict[str, type[Recipe]] = {"finetune": Finetune, "tag": Tag}


def parse(path: str | os.PathLike) -> tuple[type[Recipe], dict[str, Any]]:
    """The task's class and the given fields of a TOML file, not yet checked against each other."""
    try:
        with open(path, "rb") as file:
            content = file.read(_LARGEST + 1)
        if len(content) > _LARGEST:
            raise RecipeError(f"{os.fspath(path)} is larger than {_LARGEST >> 10} KiB; a recipe has a few lines.")
        # A folder's name need not be UTF-8, and stands in the recipe as it is.
        text = content.decode("utf-8", "surrogateescape")
        table = tomllib.loads(text)
    except OSError as error:
        raise RecipeError(f"cannot read the recipe {os.fspath(path)!r}: {error.strerror}.") from None
    except (ValueError, RecursionError) as error:
        raise RecipeError(f"{os.fspath(path)} is not TOML: {error}") from None
    task = table.pop("task", None)
    if not isinstance(task, str) or task not in TASKS:
        raise RecipeError(f"{os.fspath(path)}: task must be one of {', '.join(TASKS)}; got {shown(task)}.")
    return TASKS[task], table


def construct(kind: type[Recipe], values: dict[str, Any]) -> Recipe:
    """A recipe from names and values; an unknown name is refused with the nearest right ones."""
    known = [field.name for field in dataclasses.fields(kind)]
    for name in values:
        if name not in known:
            near = difflib.get_close_matches(name[:100].replace("-", "_"), known, n=3, cutoff=0.5)
            hint = f"Did you mean {' or '.join(near)}?" if near else f"Known: {', '.join(sorted(known))}."
            raise RecipeError(f"{kind.task} has no option {shown(name)}. {hint}")
    return kind(**values)


def load(path: str | os.PathLike, **overrides: Any) -> Recipe:
    """The recipe in a TOML file, with some fields replaced.

    Raises:
        RecipeError: the file cannot be read, names an unknown task or key, or holds a value out of range.
    """
    kind, values = parse(path)
    return construct(kind, {**values, **overrides})


def dump(recipe: Recipe) -> str:
    """The recipe as TOML; `load` gives the same object back. Automatic values that are not resolved are left out."""
    import tomli_w

    values = {"task": recipe.task}
    values |= {key: value for key, value in dataclasses.asdict(recipe).items() if value is not None}
    return tomli_w.dumps(values)


def _or(value: Any, default: Any) -> Any:
    return default if value is None else value


def _kind(owner: type[Recipe], field: dataclasses.Field) -> tuple[type, ...]:
    """The types a field takes, without None."""
    hint = typing.get_type_hints(owner)[field.name]
    kinds = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    return tuple(kind for kind in kinds if kind is not type(None))


def _checked(field: dataclasses.Field, kinds: tuple[type, ...], value: Any) -> Any:
    """The value in the field's own type, within its range; anything else is an error that says what would work."""
    if value is None:
        if field.default is None:
            return None
        raise RecipeError(f"{field.name} must be given; leave the key out for its default, {field.default!r}.")
    limits = field.metadata
    if isinstance(value, os.PathLike) and str in kinds:
        value = os.fspath(value)
    if limits["several"] and isinstance(value, list | tuple) and all(isinstance(each, str) for each in value):
        value = ",".join(value)
    if kinds == (float,) and isinstance(value, str) and re.fullmatch(r"\d{1,9}(\.\d{1,9})?%", value):
        value = float(value[:-1]) / 100
    if float in kinds and isinstance(value, int) and not isinstance(value, bool):
        # What is beyond all floats is beyond all ranges, too.
        value = float(value) if abs(value) < 2**1000 else math.inf * (1 if value > 0 else -1)
    if not any(type(value) is kind for kind in kinds):
        wanted = " or ".join({int: "a whole number", float: "a number", str: "text", bool: "true or false"}[kind]
                             for kind in kinds)  # fmt: skip
        raise RecipeError(f"{field.name} must be {wanted}; got {shown(value)}.")
    if limits["choices"] and value not in limits["choices"]:
        raise RecipeError(f"{field.name} must be one of {', '.join(limits['choices'])}; got {shown(value)}.")
    if isinstance(value, int | float) and not isinstance(value, bool):
        low, high, below = limits["low"], limits["high"], limits["below"]
        if (isinstance(value, float) and not math.isfinite(value)) or (low is not None and value < low):
            raise RecipeError(f"{field.name} must be {_range(limits)}; got {shown(value)}.")
        if (high is not None and value > high) or (below is not None and value >= below):
            raise RecipeError(f"{field.name} must be {_range(limits)}; got {shown(value)}.")
    if isinstance(value, str) and "\0" in value:
        raise RecipeError(f"{field.name} must not hold a NUL character.")
    return value


def _range(limits: Any) -> str:
    upper = f"below {limits['below']:g}" if limits["below"] is not None else f"at most {limits['high']:g}"
    return f"at least {limits['low']:g} and {upper}" + (f" {limits['unit']}" if limits["unit"] else "")


def from_text(kind: type[Recipe], name: str, text: str) -> Any:
    """An option's text from the command line as the value of field `name` (checked later, by the constructor)."""
    field = next(field for field in dataclasses.fields(kind) if field.name == name)
    kinds = _kind(kind, field)
    try:
        if kinds == (int,):
            return int(text)
        if float in kinds:
            return float(text)
    except ValueError:
        pass
    return text
