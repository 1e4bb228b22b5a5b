import math

import keras
import numpy as np
import pytest

from kerastk.errors import RecipeError
from kerastk.training.phases import Phase
from kerastk.training.phases import schedule as phase_schedule
from kerastk.training.schedules import SCHEDULES, Warmed, schedule

PEAK, TOTAL, WARMUP = 0.3, 210, 70


def _cycle(t, cycles=3, growth=2.0, shrink=1.0):
    ends = np.cumsum([growth**n for n in range(cycles)]) / sum(growth**n for n in range(cycles))
    number = int(np.searchsorted(ends, t, side="right"))
    begin = 0.0 if number == 0 else ends[number - 1]
    return shrink**number * (1 + math.cos(math.pi * (t - begin) / (ends[number] - begin))) / 2


# Shares of the peak at t, from 0 behind the warm-up to 1 at the end.
FORMULAS = {
    "constant": [({}, lambda t: 1.0)],
    "step": [
        ({}, lambda t: 1.0 if t < 0.5 else 0.1 if t < 0.75 else 0.01),
        ({"factor": 0.5, "at": [0.1, 0.6, 0.9]}, lambda t: 0.5 ** sum(t >= at - 1e-9 for at in (0.1, 0.6, 0.9))),
    ],
    "exponential": [({}, lambda t: 0.01**t), ({"final": 0.2}, lambda t: 0.2**t)],
    "inverse_time": [({}, lambda t: 1 / (1 + 9 * t)), ({"final": 0.5}, lambda t: 1 / (1 + t))],
    "cosine": [
        ({}, lambda t: (1 + math.cos(math.pi * t)) / 2),
        ({"final": 0.2}, lambda t: 0.2 + 0.8 * (1 + math.cos(math.pi * t)) / 2),
    ],
    "restarts": [
        ({}, _cycle),
        ({"cycles": 4, "growth": 1, "shrink": 0.5}, lambda t: _cycle(t, 4, 1.0, 0.5)),
        ({"cycles": 1}, lambda t: (1 + math.cos(math.pi * t)) / 2),
    ],
    "one_cycle": [
        ({}, lambda t: np.interp(t, [0, 0.45, 0.9, 1], [0.1, 1, 0.1, 0.001])),
        ({"start": 0.04, "rise": 0.5, "final": 0}, lambda t: np.interp(t, [0, 0.5, 1], [0.04, 1, 0.04])),
    ],
    "polynomial": [({}, lambda t: 1 - t), ({"power": 2.0, "final": 0.1}, lambda t: 0.1 + 0.9 * (1 - t) ** 2)],
}
CASES = [(name, *case) for name, cases in FORMULAS.items() for case in cases]
IDS = [f"{name} {numbers}" for name, numbers, _ in CASES]


def _expected(share, step, warmup):
    if step < warmup:
        return PEAK * share(0.0) * step / warmup
    return PEAK * share((step - warmup) / (TOTAL - warmup))


def _follow(curve, steps):
    """The rates at these steps as a compiled training sees them: by an integer variable."""
    if keras.backend.backend() == "jax":
        import jax

        followed = jax.jit(curve)
        return [followed(np.int32(step)) for step in steps]
    import tensorflow as tf

    variable = keras.Variable(0, dtype="int64", trainable=False)
    followed = tf.function(lambda: curve(variable))
    found = []
    for step in steps:
        variable.assign(step)
        found.append(followed())
    return found


def test_every_schedule_is_compared_with_its_formula():
    assert list(FORMULAS) == list(SCHEDULES)


@pytest.mark.parametrize("warmup", [0, WARMUP])
@pytest.mark.parametrize(("name", "numbers", "share"), CASES, ids=IDS)
def test_it_is_its_formula_at_each_step(name, numbers, share, warmup):
    curve = schedule(name, peak=PEAK, total_steps=TOTAL, warmup_steps=warmup, **numbers)
    steps = [*range(0, TOTAL, 7), 1, 35, 69, 71, 105, 140, 175, TOTAL - 1]
    found = _follow(curve, steps)
    assert {keras.backend.standardize_dtype(rate.dtype) for rate in found} == {"float32"}
    expected = [_expected(share, step, warmup) for step in steps]
    np.testing.assert_allclose([float(rate) for rate in found], expected, rtol=2e-4, atol=2e-6)


@pytest.mark.parametrize("name", SCHEDULES)
def test_beyond_the_last_step_nothing_rises_again(name):
    curve = schedule(name, peak=PEAK, total_steps=TOTAL, warmup_steps=WARMUP)
    last, *beyond = (float(rate) for rate in _follow(curve, [TOTAL - 1, TOTAL, TOTAL + 1, 3 * TOTAL]))
    assert 0 <= beyond[0] <= last
    assert beyond[0] == beyond[1] == beyond[2]


@pytest.mark.parametrize(("epochs", "warmup_epochs", "steps"), [(10, 1.0, 20), (4, 0.5, 8), (3, 0.0, 7)])
def test_cosine_is_the_schedule_of_a_phase_bit_for_bit(epochs, warmup_epochs, steps):
    phase = Phase(name="test", epochs=epochs, unfreeze="all", learning_rate=3e-4, warmup_epochs=warmup_epochs)
    total = epochs * steps
    ours = schedule("cosine", peak=3e-4, total_steps=total, warmup_steps=round(warmup_epochs * steps))
    numbers = range(total + 2)
    assert _follow(ours, numbers) == _follow(phase_schedule(phase, steps), numbers)


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_schedule_drives_an_optimizer_and_survives_being_saved(name):
    made = keras.optimizers.SGD(schedule(name, peak=0.5, total_steps=4, warmup_steps=2))
    again = keras.optimizers.deserialize(keras.optimizers.serialize(made))
    weights = [keras.Variable([0.0]), keras.Variable([0.0])]
    rates = []
    for _ in range(4):
        rates.append(float(made.learning_rate))
        for each, weight in zip((made, again), weights, strict=True):
            each.apply([keras.ops.ones(1)], [weight])
    np.testing.assert_allclose([np.array(weight)[0] for weight in weights], [-sum(rates)] * 2, rtol=1e-5)
    assert rates[0] == 0
    assert rates[1] == pytest.approx(rates[2] / 2)


def test_a_single_step_is_no_trouble():
    for name in SCHEDULES:
        assert float(schedule(name, peak=1.0, total_steps=1)(0)) == pytest.approx(0.1 if name == "one_cycle" else 1.0)


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("cosin", {}, "schedule must be one of constant, step, .*; got 'cosin'"),
        ("step", {"factr": 0.5}, r"step has no number factr; did you mean factor\?"),
        ("constant", {"final": 0.5}, "constant has no number final; it has none"),
        ("step", {"at": (0.5, 0.4)}, r"at of the schedule step must be rising numbers, from 0.01 to 0.99; got \(0.5"),
        ("step", {"at": 1.5}, "at of the schedule step must be rising numbers"),
        ("restarts", {"cycles": 2.5}, "cycles of the schedule restarts must be whole, from 1 to 20; got 2.5"),
        ("restarts", {"cycles": "two"}, "cycles of the schedule restarts must be whole"),
        ("exponential", {"final": 0}, "final of the schedule exponential must be from 1e-06 to 1; got 0"),
        ("polynomial", {"power": float("nan")}, "power of the schedule polynomial must be from 0.1 to 10; got nan"),
        ("cosine", {"warmup_steps": 10}, "the warm-up must end before the last of 10 steps; got 10"),
        ("cosine", {"peak": 0.0}, "the learning rate must be more than 0; got 0"),
    ],
)
def test_what_makes_no_schedule_is_refused_in_a_line(name, values, message):
    with pytest.raises(RecipeError, match=rf"^[^\n]*{message}[^\n]*$"):
        schedule(name, **{"peak": 0.1, "total_steps": 10, **values})


def test_one_share_of_a_step_needs_no_list():
    curve = schedule("step", peak=1.0, total_steps=10, at=0.3)
    assert isinstance(curve, Warmed)
    assert [round(float(curve(step)), 3) for step in (0, 2, 3, 9)] == [1, 1, 0.1, 0.1]
