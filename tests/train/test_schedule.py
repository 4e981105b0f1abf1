"""Every schedule has the values that its formula gives by hand."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sam_jax import errors
from sam_jax.train import coefficients, method, schedule, typed

COSINE_21 = 0.2 * (1 + math.cos(math.pi / 80))  # of 80 updates after the warm-up

UNIT = schedule.Unit(steps_per_epoch=10, total_steps=100)


def make(spec, peak=0.4):
    kind = typed.read(coefficients.Schedule, spec, "config.schedule")
    return schedule.make_schedule(kind, peak, UNIT)


def values(spec, counts):
    made = make(spec)
    return [float(made(jnp.int32(count))) for count in counts]


def m_log_m(m):
    return m * math.log(m)


HAND = {
    "constant": ({}, {0: 0.4, 99: 0.4}),
    "cosine": ({}, {0: 0.4, 25: 0.2 * (1 + math.sqrt(0.5)), 50: 0.2, 100: 0.0}),
    "cosine to a floor": ({"final_fraction": 0.1}, {0: 0.4, 50: 0.22, 100: 0.04}),
    "cosine with warm-up": (
        {"warmup_epochs": 2.0},
        # At the peak, and just after it as the cosine alone.
        {0: 0.0, 5: 0.1, 19: 0.38, 20: 0.4, 21: COSINE_21, 60: 0.2, 100: 0.0},
    ),
    "linear": ({}, {0: 0.4, 25: 0.3, 100: 0.0}),
    "linear to a floor": ({"final_fraction": 0.5}, {0: 0.4, 50: 0.3, 100: 0.2}),
    "linear with warm-up": (
        {"warmup_epochs": 2.0},
        {10: 0.2, 20: 0.4, 21: 0.395, 60: 0.2, 100: 0.0},
    ),
    "constant with warm-up": ({"warmup_epochs": 0.5}, {0: 0.0, 4: 0.32, 5: 0.4}),
    # The first update of epoch 3 (count 30) is the first with the new value.
    "step": (
        {"boundaries": (3, 6.5), "factor": 0.5},
        {0: 0.4, 29: 0.4, 30: 0.2, 64: 0.2, 65: 0.1, 99: 0.1},
    ),
    # Boundaries are epochs of the run, the warm-up counted with them.
    "step with warm-up": (
        {"boundaries": (3,), "factor": 0.5, "warmup_epochs": 2.0},
        {10: 0.2, 20: 0.4, 29: 0.4, 30: 0.2},
    ),
    "diminish1": ({}, {0: 0.4, 9: 0.4, 10: 0.2, 19: 0.2, 20: 0.4 / 3, 99: 0.04}),
    "diminish2": ({}, {9: 0.4, 10: 0.4 / 2**0.5001, 99: 0.4 / 10**0.5001}),
    # m = floor(n / 5) + 2, so it moves with the epochs n = 5 and n = 10.
    "diminish3": (
        {},
        {
            0: 0.4 / m_log_m(2),
            39: 0.4 / m_log_m(2),
            40: 0.4 / m_log_m(3),
            90: 0.4 / m_log_m(4),
        },
    ),
    "diminish2_released": ({}, {19: 0.4, 20: 0.4 / 2**0.5001, 99: 0.4 / 9**0.5001}),
    "diminish3_released": (
        {},
        {9: 0.4, 10: 0.4 / m_log_m(3), 59: 0.4 / m_log_m(3), 60: 0.4 / m_log_m(4)},
    ),
    "power": (
        {"exponent": 0.5, "of": "epoch"},
        {0: 0.4, 9: 0.4, 10: 0.4 / 2**0.5, 99: 0.4 / 10**0.5},
    ),
    "power of the update": ({}, {0: 0.4, 1: 0.4 / 2**0.001, 99: 0.4 / 100**0.001}),
}


@pytest.mark.parametrize("case", HAND)
def test_values_by_hand(case):
    spec, points = HAND[case]
    seen = values({"name": case.split()[0], **spec}, points)
    np.testing.assert_allclose(seen, list(points.values()), rtol=1e-5, atol=1e-7)


def test_all_names_are_checked_by_hand():
    with pytest.raises(errors.UserError) as raised:
        values({"name": "?"}, [0])
    names = str(raised.value).partition("There are: ")[2].split(", ")
    assert {*names} - {typed.OWN} == {case.split()[0] for case in HAND}


def test_works_in_a_compiled_step():
    made = make({"name": "cosine", "warmup_epochs": 1.0})
    eager = [float(made(jnp.int32(count))) for count in (0, 3, 10, 77)]
    jitted = [float(jax.jit(made)(jnp.int32(count))) for count in (0, 3, 10, 77)]
    np.testing.assert_allclose(jitted, eager, rtol=1e-6)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"name": "cosin"}, "schedule.name 'cosin': did you mean 'cosine'?"),
        ({"name": "step", "factr": 0.1}, "factr': did you mean '.*factor'?"),
        ({"name": "cosine", "warmup_epochs": 10.0}, r"in \[0, 10\).* got 10.0"),
        ({"name": "cosine", "warmup_epochs": -1.0}, "number >= 0, got -1.0"),
        ({"name": "cosine", "final_fraction": 1.5}, r"in \[0, 1\], got 1.5"),
        ({"name": "linear", "final_fraction": -0.5}, r"in \[0, 1\], got -0.5"),
        ({"name": "step", "boundaries": (6, 3)}, r"increasing .* \(6, 3\)"),
        ({"name": "step", "boundaries": (0, 3)}, r"positive epochs.* \(0, 3\)"),
        ({"name": "step", "boundaries": (3, 3.01)}, "increasing"),
        ({"name": "step", "factor": -0.1}, "factor must be .* got -0.1"),
    ],
)
def test_refuses(spec, message):
    with pytest.raises(errors.UserError, match=message):
        make(spec)


# ── Coefficients as schedules ────────────────────────────────────────────────────────


def perturbation_norms(rho, counts):
    """Norms of the displacement at these update counts, from the diagnostics."""
    sam = coefficients.Method.read({"name": "sam", "rho": rho}, "config.method")
    tx = method.make_method(sam, UNIT, optax.constant_schedule(0.1))()
    params = jnp.ones(3)
    state = tx.init(params)

    @jax.jit
    def update(state):
        return tx.update(params, state, params, grad_fn=lambda w: w)[1]

    norms = []
    for _ in range(max(counts) + 1):
        state = update(state)
        norms.append(float(state.diagnostics.perturbation_norm))
    return [norms[count] for count in counts]


def test_a_coefficient_may_be_a_schedule():
    norms = perturbation_norms({"name": "cosine", "value": 0.1}, [0, 25, 50])
    expected = [0.1, 0.05 * (1 + math.sqrt(0.5)), 0.05]
    np.testing.assert_allclose(norms, expected, rtol=1e-5)


def test_a_coefficient_may_step():
    rho = {"name": "step", "value": 0.1, "boundaries": (2,), "factor": 3.0}
    norms = perturbation_norms(rho, [19, 20])
    np.testing.assert_allclose(norms, [0.1, 0.3], rtol=1e-5)
