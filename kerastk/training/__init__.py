"""The one trainer and what it is made of.

The names below serve a `fit` of one's own too; like those of `kerastk` they are loaded when they are first used.

    from kerastk.training import loss, optimizer, schedule
    model.compile(optimizer("sgd", schedule("one_cycle", peak=0.1, total_steps=500)), loss("focal"))
"""

import importlib
from typing import Any

_HOMES = {
    "schedule": "schedules",
    "SCHEDULES": "schedules",
    "optimizer": "optimizers",
    "OPTIMIZERS": "optimizers",
    "loss": "losses",
    "class_weights": "losses",
    "FocalCrossEntropy": "losses",
    "Guard": "callbacks",
    "Plateau": "callbacks",
    "range_test": "lr_find",
    "RangeTest": "lr_find",
    "Writer": "tensorboard",
    "Events": "tensorboard",
    "GradientNorms": "gradients",
    "watch_gradients": "gradients",
}
__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"kerastk.training.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'kerastk.training' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
