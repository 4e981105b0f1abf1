"""The contract on methods of others: two keep it, and each promise is broken by one."""

import itertools
import os
import pathlib
import shutil
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import sam_jax
from sam_jax import testing
from tests.methods import their_methods

ROOT = pathlib.Path(__file__).parents[1]
SAMPA = {"base": None, "perturbed_call": 0, "diagnostics": False}


def raw(update, init=lambda params: ()):
    return optax.GradientTransformationExtraArgs(init, update)


def mine(rho: optax.ScalarOrSchedule = 0.05, beta: float = 0.9, mask=None):
    """Refuses no coefficient, reads no schedule but its start, has no mask."""
    rho = rho(0) if callable(rho) else 2 * rho
    return sam_jax.sharpness_aware(
        optax.chain(sam_jax.normalize(), sam_jax.scale(jnp.abs(rho) + 0.01))
    )


def climbs(updates, state, params, *, grad_fn, **others):
    """A direction along the gradient at perturbed weights, divided by its square."""
    square = optax.tree.norm(updates, squared=True)
    there = jax.tree.map(lambda w, g: w + 0.05 * g / square, params, updates)
    return jax.tree.map(jnp.negative, grad_fn(there)), state


def keeps(updates, state, params, *, value_and_grad_fn, **others):
    """A state of the gradient itself, wherever it is."""
    _, grads = value_and_grad_fn(params)
    return grads, {"kept": updates, "count": state["count"] + 0.5}


def start(params):
    one = jax.tree.leaves(params)[0]
    traced = isinstance(one, jax.core.Tracer | jax.ShapeDtypeStruct)
    count = jnp.zeros([], jnp.float32 if traced else jnp.int32)
    return {"kept": jax.tree.map(jnp.zeros_like, params), "count": count}


CALLS = itertools.count()


def forgets(updates, state, params, *, grad_fn, **others):
    """Counts on the host, so that a restart goes on elsewhere."""
    number = jax.ShapeDtypeStruct((), np.float32)
    count = jax.pure_callback(lambda: np.float32(next(CALLS)), number)
    return jax.tree.map(lambda g: g * (1 + count), updates), state


def picky(updates, state, params, **keywords):
    if "anything" in keywords:
        updates = jax.tree.map(jnp.zeros_like, updates)
    return updates, state


BROKEN = {
    "unknown_keywords_change_nothing": [raw(picky), raw(keeps, start)],
    "missing_arguments_are_named": [raw(keeps, start)],
    "init_is_abstract": [raw(keeps, start)],
    "types_stay": [raw(keeps, start)],
    "low_precision_weights_stay": [raw(keeps, start)],
    "continues_from_saved_arrays": [raw(forgets)],
    "descends": [raw(climbs)],
    "extreme_gradients_give_finite_updates": [raw(climbs), raw(picky)],
    "rate_zero_leaves_the_weights": [
        lambda learning_rate: optax.add_decayed_weights(0.1)
    ],
    "bad_coefficients_are_refused": [mine],
    "schedules_are_read_at_every_count": [mine],
    "numbers_are_constant_schedules": [mine],
    "radius_zero_is_the_base": [mine],
    "radius_is_felt": [lambda rho=0.05: raw(lambda u, s, p, **others: (u, s))],
    "mask_keeps_the_others": [mine, raw(picky)],
    "diagnostics_are_of_the_update": [raw(picky)],
}
# What JAX says of these is an error of its own.
REFUSED_BY_JAX = {
    "donation_works": [raw(picky, lambda params: params)],
    "nothing_to_train": [raw(lambda u, s, p, **others: (u, max(jax.tree.leaves(p))))],
    "own_gradients_keep_the_state": [raw(keeps, start)],
    "groups_keep_the_state": [raw(keeps, start)],
    "global_gradients_keep_the_state": [raw(keeps, start)],
    "explicit_axes_stay": [
        raw(lambda u, s, p, **others: (jax.tree.map(lambda x: x.ravel(), u), s))
    ],
}
CHECKS = {check.__name__: check for check in testing.CHECKS}


def test_a_radius_need_not_be_a_schedule():
    def plain(rho: float = 0.1):
        return sam_jax.sam(rho)

    checked = testing.Method(plain)
    CHECKS["numbers_are_constant_schedules"](checked)
    CHECKS["radius_is_felt"](checked)


def test_traits_that_the_method_does_not_have_are_refused():
    for traits in (testing.Traits(radius="roh"), testing.Traits(settings={"bta": 1})):
        with pytest.raises(sam_jax.checks.BadValue, match=r"mine has no (roh|bta)"):
            testing.Method(mine, traits)


def test_there_is_a_broken_method_for_each_promise():
    assert CHECKS.keys() == BROKEN.keys() | REFUSED_BY_JAX.keys()


@pytest.mark.parametrize("name", CHECKS)
def test_a_broken_method_is_seen(name):
    errors = AssertionError if name in BROKEN else Exception
    for broken in (BROKEN | REFUSED_BY_JAX)[name]:
        with pytest.raises(errors):
            CHECKS[name](testing.Method(broken))


def test_what_is_broken_is_listed_and_errors_keep_their_traceback(monkeypatch):
    chosen = ("missing_arguments_are_named", "init_is_abstract", "types_stay")
    checks = tuple(CHECKS[name] for name in chosen)
    monkeypatch.setattr("sam_jax.testing.contract.CHECKS", checks)
    with pytest.raises(AssertionError) as raised:
        testing.check_method(raw(keeps, start))
    lines = str(raised.value).splitlines()
    assert "does not keep 3 of 3 promises" in lines[0]
    assert any(line.startswith("init_is_abstract: Init gives the") for line in lines)

    def fails(*args, **keywords):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError) as raised:
        testing.check_method(raw(fails), needs=())
    assert "types_stay" in raised.value.__notes__[-1]


def test_the_methods_are_those_of_their_papers():
    grads, params = jnp.array([0.1, 0.2, -9.0, 0.3]), jnp.zeros(4)
    seen = []
    tx = their_methods.zsharp(0.5, percentile=0.7)
    tx.update(grads, tx.init(params), params, grad_fn=lambda w: seen.append(w) or w)
    np.testing.assert_allclose(seen[-1], [0, 0, -0.5, 0], atol=1e-7)

    tx, w = their_methods.sampa(0.5, lam=0.25, step=0.1), jnp.array(2.0)
    state = tx.init(w)
    for kept in (8.0, None):  # of w^3; the second climbs along what was kept
        climbed = (w + 0.5) ** 3
        ahead = (w - 0.1 * climbed) ** 3
        grads = jnp.float32(kept or -1.0)  # which does not matter then
        found, state = tx.update(grads, state, w, grad_fn=lambda w: w**3)
        np.testing.assert_allclose(found, 0.75 * climbed + 0.25 * ahead, rtol=1e-5)


TEST = """
import sam_jax.testing, their_methods
def test_zsharp(): sam_jax.testing.check_method(their_methods.zsharp)
def test_sampa(): sam_jax.testing.check_method(their_methods.sampa, **SAMPA)
"""


@pytest.mark.slow("a process that compiles both methods")
def test_methods_of_others_keep_the_contract_outside_of_the_clone(tmp_path):
    # One device, and of the repository nothing but what the wheel holds.
    shutil.copytree(ROOT / "sam_jax", tmp_path / "site" / "sam_jax")
    shutil.copy(their_methods.__file__, tmp_path)
    (tmp_path / "test_mine.py").write_text(TEST.replace("SAMPA", repr(SAMPA)))
    environment = os.environ | {"XLA_FLAGS": "", "PYTHONPATH": str(tmp_path / "site")}
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert run.returncode == 0 and "2 passed" in run.stdout, run.stdout + run.stderr


def test_a_coefficient_with_a_schedule_is_tested_at_a_number():
    falling = optax.constant_schedule(0.1)

    def mine(rho: optax.ScalarOrSchedule = falling):
        return sam_jax.sam(rho)

    assert testing.Method(mine).schedulable() == {"rho": 0.5}
