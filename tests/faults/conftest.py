import dataclasses
import shutil
import sys

import pytest

from kerastk.run import Run
from tests.conftest import SMALL, SMALL_TAGGER
from tests.faults.runs import EPOCHS, Server, trace

COMMON = {"epochs": EPOCHS, "batch_size": 16, "epoch_parts": 2, "deterministic": True, "threads": 2}
TUNED = {**COMMON, "unfreeze": 1}
CONFIGURATIONS = {
    "cache": {**TUNED, "learning_rate": 1e-3},
    "off": {**TUNED, "cache": "off", "augment": "light", "learning_rate": 1e-3},
    # Batch statistics that are live, and dropout.
    "fresh": {**COMMON, **SMALL, "learning_rate": 3e-3},
    # Two phases that are trained, and all that TensorBoard can be shown of it.
    "phases": {
        **TUNED, "probe": "train", "head_epochs": 2, "epochs": 2, "learning_rate": 1e-3, "histograms": True,
        "gradient_norms": True,
    },
    # An optimizer for each block.
    "all": {**COMMON, "cache": "off", "unfreeze": "all", "layer_decay": 0.75, "learning_rate": 1e-3},
    # What callbacks and optimizers of the training kit have to remember.
    "kit": {
        **COMMON, **SMALL, "learning_rate": 3e-3, "optimizer": "rmsprop", "momentum": 0.5, "ema": 0.9, "accumulate": 2,
        "schedule": "plateau:patience=1", "warmup_epochs": 0.5, "balance": "sample", "mixup": 0.2, "cutmix": 1.0,
        "augment": "crop:0.5,randaugment", "l2": 1e-4, "gradient_norms": True, "histograms": True, "time": "2h",
        "on_nan": "rollback", "keep_last": True, "min_delta": 0.01, "patience": 4,
    },
    # A tagger, with a dropout of its own and words that are shown as unknown.
    "tag": {
        "task": "tag", **SMALL_TAGGER, "epochs": EPOCHS, "epoch_parts": 2, "learning_rate": 0.02, "ema": 0.9,
        "schedule": "plateau:patience=1", "keep_last": True, "gradient_norms": True,
    },
    # An autoencoder whose layers are trained as Boltzmann machines first: phases whose figures choose no model.
    "codes": {
        "task": "autoencode", **COMMON, "split": "70/15/15", "pretrain": "rbm", "rbm_epochs": 1, "widths": "24",
        "latent": 6, "epochs": 2, "noise": "gaussian:0.2", "ema": 0.9, "keep_last": True, "histograms": True,
    },
    # Draws of codes and pixels, and photos that are varied.
    "variational": {
        "task": "autoencode", **COMMON, "split": "70/15/15", "variational": True, "binarise": True, "widths": "4,6",
        "latent": 6, "augment": "light", "learning_rate": 3e-3, "schedule": "plateau:patience=1",
    },
    # A network of two members, with dropout, and photos that are varied and mixed.
    "classes": {
        "task": "classify", **COMMON, "net": "fast-4", "members": 2, "image_size": 12, "dropout": 0.2, "mixup": 0.2,
        "cutmix": 1.0, "augment": "shift-pad,rotate", "learning_rate": 3e-3, "ema": 0.9, "schedule": "one_cycle",
    },
    # So fast that the first epoch is better than any after it.
    "best": {**TUNED, "probe": "none", "learning_rate": 1e-3, "warmup_epochs": 1.0},
    "stops": {**TUNED, "probe": "none", "learning_rate": 1e-3, "epochs": 12, "patience": 2},
}  # fmt: skip


@pytest.fixture(autouse=True, scope="session")
def _linux():
    if sys.platform != "linux":
        pytest.skip("the faults are made with what Linux has: /proc, capabilities, RLIMIT_FSIZE")


@dataclasses.dataclass(frozen=True)
class Case:
    """A run to be hit: its recipe's fields, its folder, its own cache, and a folder for its processes' notes."""

    recipe: dict
    run: Run
    env: dict
    out: object

    @property
    def job(self):
        """To start it, or to go on with it."""
        return {"recipe": self.recipe, "env": self.env}

    def trace(self):
        """What it is compared by."""
        return trace(self.run, self.out)


@pytest.fixture(scope="session")
def first():
    """Starts the processes that are hit."""
    server = Server(1)
    yield server
    server.close()


@pytest.fixture(scope="session")
def second():
    """Starts the processes that go on: in these, sets have another order."""
    server = Server(2)
    yield server
    server.close()


@pytest.fixture(scope="session")
def case_in(digits, small_run, names):
    """A function that makes a case in a folder, from a configuration's name and further fields."""

    def made(folder, configuration, **fields):
        recipe = {"runs": str(folder), "name": "run", **CONFIGURATIONS[configuration], **fields}
        task = recipe.get("task", "finetune")
        own = {"finetune": {"weights": str(small_run.path)}}.get(task, {})
        recipe = {"data": names if task == "tag" else str(digits), **own, **recipe}
        (folder / "out").mkdir(parents=True)
        env = {"KERASTK_CACHE": str(folder / "cache")}
        return Case(recipe, Run(folder / recipe["name"]), env, folder / "out")

    return made


@pytest.fixture
def case(case_in, tmp_path):
    return lambda configuration, **fields: case_in(tmp_path / "case", configuration, **fields)


@pytest.fixture(scope="session")
def reference(case_in, second, tmp_path_factory):
    """A function that gives the case of a configuration that nothing has hit."""
    done = {}

    def of(configuration):
        if configuration not in done:
            case = case_in(tmp_path_factory.mktemp(configuration), configuration)
            death = second.run(case.out, **case.job, counted=True)
            assert death.code == 0, death.said
            done[configuration] = case
        return done[configuration]

    return of


@pytest.fixture(scope="session")
def stopped(case_in, first, tmp_path_factory):
    """A case of `cache` that was told to stop in its second epoch; with its two checkpoints."""
    case = case_in(tmp_path_factory.mktemp("stopped"), "cache")
    death = first.run(case.out, **case.job, at=[12, "send", "SIGTERM"])
    assert death.code == 75, death.said
    return case


@pytest.fixture
def copy(stopped, tmp_path):
    """A copy of `stopped` of one's own."""
    folder = tmp_path / "copy"
    shutil.copytree(stopped.run.path.parent, folder)
    recipe = {**stopped.recipe, "runs": str(folder)}
    return Case(recipe, Run(folder / "run"), {"KERASTK_CACHE": str(folder / "cache")}, folder / "out")
