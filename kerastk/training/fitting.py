"""How a phase is carried out: solved on features, or trained, on photos or on what is cached of them."""

import contextlib
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import grain
import keras
import numpy as np

from kerastk.datasets.pipeline import Rows, Shown, Varied, Vary, blended, mixing, paired
from kerastk.errors import Diverged, KerastkError, RunError, Stopped
from kerastk.evaluation.metrics import equal_classes, log_loss
from kerastk.evaluation.neighbours import Neighbours
from kerastk.networks.cuts import TRAINING_WORK, features, kept_values
from kerastk.networks.fused import fuse
from kerastk.notation import MOST_ROLLBACKS
from kerastk.screen import Screen
from kerastk.training import probe
from kerastk.training.cache import (
    MIRROR,
    PLAIN,
    Activations,
    CacheError,
    Choice,
    Point,
    View,
    cached_splits,
    shown_views,
)
from kerastk.training.callbacks import Best, Deadline, EpochRows, Guard, Last, Plateau, Validation
from kerastk.training.device import batch_that_fits, out_of_memory
from kerastk.training.gradients import watch_gradients
from kerastk.training.keeper import Keeper
from kerastk.training.lr_find import RangeTest, range_test
from kerastk.training.phases import Phase, Probe, optimizer, prepare, quicken_statistics, regularise, warmup_steps
from kerastk.training.signals import Ended
from kerastk.training.store import Overflow

# Seconds for the model, the figures and the pictures of a run, over and above measuring it.
_WRITING = 5.0


@dataclass
class Fitting:
    """What the phases of a run share; `choices` says where the activations of each trained phase are kept, by name.

    `ended` is why the training ended before its time, with the best model so far.
    """

    model: keras.Model
    # With `train` and `val`, each `Rows`, and `test`, the same or None.
    data: Any
    device: str
    # What a phase fits: a model that shares the layers of the first one, from inputs (or from a tensor in between, the
    # third argument) to what the objective takes.
    prepare: Callable[..., keras.Model]
    objective: dict[str, Any]
    # Of `phases.optimizer`: weight_decay, clipnorm, precision, layer_decay.
    optimisation: dict[str, Any]
    # Of `phases.regularise`: l1 and l2.
    penalty: tuple[float, float]
    # A cache that was asked for by name is not done without.
    cache_required: bool
    # None where nothing is ever kept.
    activations: Activations | None
    choices: dict[str, Choice]
    validation: Validation
    best: Best
    rows: EpochRows
    screen: Screen
    keeper: Keeper
    guard: Guard
    # Hears of the learning rate that a range test has found.
    found: Callable[[RangeTest], None] = lambda result: None
    # Drops what TensorBoard and the log hold beyond a checkpoint's state; None where a run does not go back.
    rewind: Callable[[dict[str, Any]], None] | None = None
    # Where the last model is kept beside the best.
    last: Last | None = None
    deadline: Deadline | None = None
    plateau: Plateau | None = None
    # The parts of the model of which the optimizers note the norms of the gradients, if they do.
    watched: dict[str, list[str]] | None = None
    neighbours: Neighbours | None = None
    ended: Ended | Diverged | None = None
    # Since the run began, at the end of the last phase.
    seconds: float = 0.0
    # What a range test has found.
    _rate: float | None = None
    _momenta: dict[str, float] = field(default_factory=dict)
    # The epochs of the phases before.
    _done: int = 0

    def run(self, phases: Sequence[Phase | Probe]) -> None:
        """All phases, one after another, each from the best weights so far; those that a checkpoint is beyond are not.

        Raises:
            Stopped: SIGTERM came, or Ctrl-C before there was a best model.
            KerastkError: a photo is gone, the figures are no numbers, the cache or a checkpoint cannot be written.
        """
        if self.device == "cpu" and any(isinstance(phase, Phase) and phase.fresh for phase in phases):
            # Also where all is trained, since what is judged is to be the same to the last bit.
            fuse(self.model)
        try:
            for number, phase in enumerate(phases):
                if self.keeper.reaches(number):
                    if self._no_time(phase):
                        raise Ended("--time is up")
                    self.rows.phase = phase.name
                    self._one(phase)
                    if isinstance(phase, Phase) and phase.closing is not None:
                        phase.closing(self.model)
                    elif self.neighbours is None:
                        self.best.restore()
                    if self.deadline is not None and self.deadline.up:
                        raise Ended("--time is up")
                self._done += phase.epochs
        except (Ended, Diverged) as reason:
            if self.best.epoch is None:
                raise _early(reason) from None
            self.best.restore()
            self.ended = reason
        except Exception as error:
            failure = self.data.train.failure or self.data.val.failure
            if failure is not None:
                raise failure from None
            if out_of_memory(error):
                raise self._too_large() from None
            raise
        finally:
            if self.activations is not None:
                self.activations.close()
            self.seconds = self.rows.spent
        for name, momentum in self._momenta.items():
            self.model.get_layer(name).momentum = momentum

    def _one(self, phase: Phase | Probe) -> None:
        """Carry out a phase, or what is left of it."""
        if self.keeper.state is not None and self.keeper.state["ended"]:
            self.keeper.put_back()
            return
        carry_out = self._solve if isinstance(phase, Probe) else self._train
        try:
            carry_out(phase)
        except CacheError as error:
            if self.cache_required or self.keeper.state is not None:
                raise
            self.screen.warn(f"{error}; going on without it.")
            self._without_cache(str(error))
            carry_out(phase)

    def _no_time(self, phase: Phase | Probe) -> bool:
        """Whether the time is up before a phase; it is not while there is no model to keep."""
        if self.deadline is None or isinstance(phase, Probe):
            return False
        batches = self.data.val.steps + (0 if self.data.test is None else self.data.test.steps)
        inputs = next(iter(self.data.val.batches(0, 1)))[0]
        # The first call compiles.
        for _ in range(2):
            begin = time.perf_counter()
            self.model.predict_on_batch(inputs)
            seconds = time.perf_counter() - begin
        self.deadline.reserve = 1.25 * seconds * batches + _WRITING
        return self.best.epoch is not None and self.keeper.state is None and self.deadline.near

    def _too_large(self) -> KerastkError:
        """The error where the device's memory is full."""
        batch, trained = self.data.train.batch_size, self.model.trainable_weights
        counted = (sum(math.prod(weight.shape) for weight in weights) for weights in (self.model.weights, trained))
        fitting = batch_that_fits(batch, kept_values(self.model), *counted, self.device)
        return KerastkError(
            f"out of memory on {self.device} with --batch-size {batch}; by estimate --batch-size {fitting} fits"
        )

    def _without_cache(self, reason: str) -> None:
        self.activations.discard()
        self.activations = self.activations.in_memory()
        self.choices = {name: Choice(None, reason=reason) for name in self.choices}

    def _solve(self, phase: Probe) -> None:
        """Fit the head on the frozen base's features at once."""
        begin = time.perf_counter()
        prepare(self.model, phase)
        data, knn = self.data, phase.kind == "knn"
        point = Point("features", features(self.model), "float32")
        views = [PLAIN, MIRROR] if data.train.policy.flips and not knn else [PLAIN]
        data.train.waited = 0.0
        with self.screen.working("features") as progress:
            # The validation photos pass once for the probe and for the phase after it.
            later = [choice.point for choice in self.choices.values() if choice.point is not None]
            with contextlib.suppress(Overflow):
                self.activations.fill(data.val, [PLAIN], [point, *later])
            train = self.activations.features(data.train, views, point, progress)
            val = self.activations.features(data.val, [PLAIN], point)
        passed, waited = time.perf_counter() - begin, data.train.waited
        truth = np.tile(data.train.truth, len(views))
        figures: dict[str, float] = {}
        if knn:
            self.neighbours = probe.neighbours(train, truth, val, data.val.truth)
            judged = {"val_": (self.neighbours.probabilities(val), data.val.truth)}
            note = f"{self.neighbours.count} nearest neighbours"
        else:
            head = probe.SOLVERS[phase.kind](train, truth, val, data.val.truth, self.validation.balanced)
            self.model.get_layer("head").set_weights([head.kernel, head.bias])
            judged = {"": (head.probabilities(train), truth), "val_": (head.probabilities(val), data.val.truth)}
            note = f"C {head.strength:.1g}"
        for prefix, (scores, labels) in judged.items():
            weights = equal_classes(labels) if self.validation.balanced else None
            figures[f"{prefix}accuracy"] = float(np.average(scores.argmax(axis=1) == labels, weights=weights))
            figures[f"{prefix}cross_entropy"] = figures[f"{prefix}loss"] = log_loss(scores, labels, weights)
        seconds = time.perf_counter() - begin
        self.best.consider(figures[self.validation.monitor], 0)
        if self.last is not None:
            self.last.keep(0)
        self.rows.add(
            {
                "phase": phase.name,
                "epoch": 0,
                "seconds": seconds,
                "learning_rate": 0.0,
                "photos_per_second": (len(train) + len(val)) / passed,
                "wait_share": min(1.0, waited / passed),
                **figures,
            }
        )
        self.screen.solved(phase.kind, note, rows=len(train), passed=passed, solved=seconds - passed)
        if not knn:
            # The neighbours are found again as quickly as they would be read.
            self.keeper.keep(epoch=0, ended=True)

    def _train(self, phase: Phase) -> None:
        """Fit, and once more from the last checkpoint where the loss was no number and the run may go back."""
        while True:
            try:
                self._fit(phase)
                return
            except Diverged as reason:
                state = None if self.rewind is None or self.guard.rollbacks == MOST_ROLLBACKS else self.keeper.last()
                if state is None:
                    raise
                state["callbacks"]["Guard"]["rollbacks"] = self.guard.rollbacks + 1
                # The time was spent all the same.
                state["callbacks"]["EpochRows"]["spent"] = self.rows.before
                self.rewind(state)
                self.keeper.state = state
                self.screen.warn(f"{reason}; going back to epoch {state['epoch']} at half the learning rate.")

    def _fit(self, phase: Phase) -> None:
        """Compile afresh and fit, from its first epoch or from where a checkpoint is."""
        epoch, step = self._done, 0
        choice = self.choices.get(phase.name, Choice(None))
        state = self.keeper.state
        if state is not None:
            self.keeper.put_weights_back()
            self.guard.set_state(self.keeper.note_of("Guard"))
            epoch, step = state["epoch"], state["step"]
            choice = _as_before(choice, state["cached"])
        train: Rows = self.data.train
        val: Rows = self.data.val
        start = None
        if choice.point is not None:
            train, val, choice = self._cached(phase, choice)
            start = choice.point.tensor
        self.rows.split, self.validation.rows = train, val
        self.best.judging = phase.closing is None
        if phase.fresh and not self._momenta:
            self._momenta = quicken_statistics(self.model, train.steps)
        fitted = self.prepare(self.model, phase, start)
        if any(self.penalty):
            regularise(fitted, *self.penalty)
        self.validation.vary = vary = _varied(phase)
        if phase.learning_rate is None:
            if self._rate is None:
                self._rate = self._range_test(phase, fitted, train, vary)
            phase = replace(phase, learning_rate=self._rate)
        phase = replace(phase, learning_rate=phase.learning_rate * 0.5**self.guard.rollbacks)
        made = self._optimizer(phase, train.steps)
        if self.watched is not None:
            watch_gradients(made, self.model, fitted.trainable_variables, self.watched)
        made.build(fitted.trainable_variables)
        if self.plateau is not None:
            self.plateau.warmup_steps = warmup_steps(phase, train.steps)
        # New ones: Keras would take what a metric has counted in the phase before into the first epoch of this one.
        metrics = [type(each).from_config(each.get_config()) for each in self.objective.get("metrics", ())]
        fitted.compile(optimizer=made, **{**self.objective, "metrics": metrics or None})
        last = self._done + phase.epochs
        callbacks = self.keeper.callbacks_of(fitted, steps=train.steps, last=last, cached=_described(choice))
        if self.rewind is not None and state is None:
            self.keeper.keep(epoch=epoch, ended=False, fitted=fitted, cached=_described(choice))
        with self.keeper.signals.deferred():
            # What is left of an epoch is a fit of its own: Keras's epochs are all of one length.
            for first, until, skip in ((epoch, epoch + 1, step), (epoch + 1, last, 0)) if step else ((epoch, last, 0),):
                if first == until or fitted.stop_training:
                    break
                fitted.fit(
                    _batches(train, vary, first, until, skip),
                    initial_epoch=first,
                    epochs=until,
                    steps_per_epoch=train.steps - skip,
                    callbacks=callbacks,
                    verbose=0,
                    shuffle=False,
                )
            callbacks.end()
        if self.best.epoch is None and self.best.judging:
            monitor = self.validation.monitor
            raise KerastkError(
                f"{monitor} was never a number ({self.rows.rows[-1][monitor]}); try "
                f"--learning-rate {phase.learning_rate / 10:g} or --precision float32."
            )

    def _optimizer(self, phase: Phase, steps: int, curve: Callable | None = None) -> keras.optimizers.Optimizer:
        """The optimizer of a phase; `curve` as in `phases.optimizer`."""
        numbers = {**self.optimisation, **phase.optimisation}
        return optimizer(phase, steps, model=self.model, curve=curve, **numbers)

    def _range_test(self, phase: Phase, fitted: keras.Model, train: Rows, vary: Vary | None) -> float:
        """The learning rate that a range test finds for a phase; `found` hears of it."""

        def batches(steps: int) -> Any:
            return _batches(train, vary, 0, -(-steps // train.steps))

        def made(curve: Callable) -> keras.optimizers.Optimizer:
            return self._optimizer(phase, train.steps, curve)

        result = range_test(fitted, batches, made, self.objective["loss"])
        self.screen.ranged(result)
        self.found(result)
        return result.suggestion

    def _cached(self, phase: Phase, choice: Choice) -> tuple[Rows, Rows, Choice]:
        """The training and validation photos as activations, computed where they are not there yet."""
        prepare(self.model, phase)
        begin, before = time.perf_counter(), self.activations.forwards
        policy, seed = self.data.train.policy, self.data.train.seed
        with self.screen.working("activations") as progress:
            train, val, point = cached_splits(
                self.activations, self.data.train, self.data.val, point=choice.point, views=choice.views,
                policy=policy, seed=seed, progress=progress,
            )  # fmt: skip
        shown: list[View] = shown_views(policy, seed, choice.views)
        forward = self.activations.seconds_per_photo(point, shown[0])
        photos = len(train.photos)
        with_cache = without = None
        if forward is not None:
            with_cache = photos * forward * TRAINING_WORK * (1 - choice.frozen_share) / choice.frozen_share
            without = with_cache + photos * forward
        self.screen.cached(
            computed=self.activations.forwards > before, seconds=time.perf_counter() - begin, with_cache=with_cache,
            without=without,
        )  # fmt: skip
        return train, val, Choice(point, choice.views, choice.size, choice.frozen_share)


def _batches(train: Rows, vary: Vary | None, first: int, last: int, skip: int = 0) -> grain.IterDataset:
    """What `fit` gets for the epochs from `first` to before `last`, less `skip` steps."""
    batches = train.batches(first, last, skip)
    if vary is not None:
        batches = Varied(batches, vary, train.seed, first * train.steps + skip)
    shown = train.shown
    return Shown(batches, shown) if shown else batches


def _varied(phase: Phase) -> Vary | None:
    """What is done to each batch of a phase."""
    if phase.manifold_mixup:
        return mixing(paired(phase.manifold_mixup))
    return mixing(blended(phase.mixup, phase.cutmix)) if phase.blends else phase.vary


def _described(choice: Choice) -> dict[str, Any] | None:
    """The cache of a phase as a checkpoint tells it."""
    return None if choice.point is None else {"dtype": choice.point.dtype, "views": choice.views}


def _as_before(choice: Choice, described: dict[str, Any] | None) -> Choice:
    """The cache that the phase had before it was interrupted. Raises RunError where it cannot be had."""
    if described is None:
        return Choice(None, reason="there was none before")
    if choice.point is None:
        raise RunError(f"the activations that the run is trained on cannot be kept any more: {choice.reason}")
    return replace(choice, point=replace(choice.point, dtype=described["dtype"]), views=described["views"])


def _early(reason: Ended | Diverged) -> KerastkError:
    """The error where a run ends before there is a best model."""
    if isinstance(reason, Diverged):
        return reason
    return Stopped("stopped by Ctrl-C before there was a model to keep", 130)
