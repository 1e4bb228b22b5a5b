"""kerastk: train Keras networks on your own data, and use what comes out.

`Finetune` makes classifiers of photos from pretrained networks, `Classify` classifiers of images from random weights,
`Tag` taggers of words, `Autoencode` autoencoders of images or rows of numbers.

    import kerastk
    run = kerastk.train(kerastk.Finetune(data="photos/", base="resnet50"))
    label, probability = kerastk.load(run.path)("cat.jpg")

    run = kerastk.train(kerastk.Autoencode(data="screws/", resize="crop"))
    error, anomaly = kerastk.load(run.path)("screw.jpg")

Names are loaded when they are first used, so that `import kerastk` stays quick.
"""

import importlib
from typing import Any

__version__ = "0.1.0"

_HOMES = {
    "Finetune": "kerastk.recipe",
    "Classify": "kerastk.recipe",
    "Tag": "kerastk.recipe",
    "Autoencode": "kerastk.recipe",
    "Run": "kerastk.run",
    "Predictor": "kerastk.predictor",
    "Answer": "kerastk.predictor",
    "Tagger": "kerastk.tagger",
    "Span": "kerastk.tagger",
    "Reconstructor": "kerastk.reconstructor",
    "Score": "kerastk.reconstructor",
    "KerastkError": "kerastk.errors",
    "train": "kerastk.training.trainer",
    "resume": "kerastk.training.trainer",
    "find_learning_rate": "kerastk.training.trainer",
    "load": "kerastk.predictor",
    "build": "kerastk.library",
    "open_data": "kerastk.library",
    "check": "kerastk.library",
    "embed": "kerastk.embedding",
}
__all__ = ["__version__", "recipes", *_HOMES]


def __getattr__(name: str) -> Any:
    if name == "recipes":
        return importlib.import_module("kerastk.recipes")
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'kerastk' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
