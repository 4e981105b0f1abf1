"""Coefficients at which a method is another one: the ends of its range."""

import functools

import jax
import jax.numpy as jnp
import optax
import pytest

import sam_jax
from tests.methods import problems
from tests.methods.contract.cases import assert_close

EXACT, ROUNDING = 0.0, 1e-11


def sgd(*before):
    return optax.chain(*before, optax.sgd(0.1, momentum=0.9))


def sam():
    return sgd(sam_jax.sam(0.3))


def base():
    return sgd()


def first_update_alone():
    return sgd(sam_jax.late_phase(sam_jax.sam(0.3), start=0, stop=1))


def adamw(*before):
    return optax.chain(*before, optax.adamw(0.1))


# Method and coefficients, what it is with them, and how far the rounding may differ.
CASES = [
    ("vasso", {"theta": 1}, sam, EXACT),
    ("unified_sam", {"lam": 1}, sam, EXACT),
    ("unified_sam", {"lam": 0.0}, lambda: sgd(sam_jax.usam(0.3)), EXACT),
    *(
        ("vasso", {"theta": 1.0, "lam": lam}, other, EXACT)
        for lam in (0.0, 0.4, 1.0)
        for other in [lambda lam=lam: sgd(sam_jax.unified_sam(0.3, lam=lam))]
    ),
    ("friendly_sam", {"sigma": 0.0}, sam, EXACT),
    ("le_sam", {"sigma": 10.0}, sam, ROUNDING),
    ("random_sam", {"sigma": 0.0}, sam, ROUNDING),
    ("random_sam", {"sigma": 0.0, "noise": "tensor"}, sam, ROUNDING),
    ("random_sam", {"sigma": 0.0, "noise": "plain"}, sam, ROUNDING),
    ("fisher_sam", {"eta": 0}, sam, EXACT),
    ("async_sam", {"delay": 0}, sam, EXACT),
    ("multistep_sam", {"steps": 1}, sam, EXACT),
    ("multistep_sam", {"steps": 1, "project": False}, sam, EXACT),
    ("gsam", {"alpha": 0.0}, sam, ROUNDING),
    ("looksam", {"k": 1}, sam, ROUNDING),
    ("eigen_sam", {"alpha": 0.0}, sam, ROUNDING),
    ("gnp", {"alpha": 1.0}, sam, EXACT),
    ("gnp", {"alpha": 1.0, "normalize_clean": True}, sam, EXACT),
    ("wsam", {"gamma": 0.0}, base, ROUNDING),
    ("wsam", {"gamma": 0.5}, sam, ROUNDING),
    ("cr_sam", {"gamma": 0.0, "beta": 0.0}, sam, ROUNDING),
    ("ae_sam", {"threshold": -10.0}, sam, ROUNDING),
    ("ae_sam", {"threshold": 100.0}, first_update_alone, ROUNDING),
    ("sparse_sam", {"sparsity": 0, "every": 2}, sam, ROUNDING),
    ("sparse_sam", {"sparsity": 1.0, "every": 2}, base, ROUNDING),
    ("dynamic_sparse_sam", {"sparsity": 0, "every": 2}, sam, ROUNDING),
    ("dynamic_sparse_sam", {"sparsity": 1.0, "every": 2}, base, ROUNDING),
    ("esam", {"beta": 1.0, "gamma": 1.0}, sam, ROUNDING),
    ("esam", {"beta": 1.0, "gamma": 1.0, "rho": 0.0}, base, ROUNDING),
    # Full optimizers, with all that they replace.
    (
        "decoupled_wsam",
        {"gamma": 0.8, "base": optax.sgd},
        lambda: optax.chain(sam_jax.wsam(0.3, gamma=0.8), optax.sgd(0.1)),
        ROUNDING,
    ),
    ("decoupled_wsam", {"gamma": 0.0, "base": optax.adamw}, adamw, ROUNDING),
    (
        "lookbehind",
        {"k": 1, "alpha": 1.0, "base": optax.adamw},
        lambda: adamw(sam_jax.sam(0.3)),
        ROUNDING,
    ),
]


def trajectory(tx):
    with jax.numpy_dtype_promotion("standard"):  # Adam of Optax promotes
        args = (problems.network(jnp.float64), (problems.batch(jnp.float64),), 5)
        return problems.trajectory(tx, problems.network_loss, *args)


@functools.cache
def expected(make):
    return trajectory(make())


def every_case():
    """All cases; of each method the first one is in the first tier."""
    seen, slow = set(), pytest.mark.slow("a compilation for each end of a range")
    for number, case in enumerate(CASES):
        marks = [slow] if case[0] in seen else []
        seen.add(case[0])
        yield pytest.param(*case, id=f"{case[0]}-{number}", marks=marks)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name, coefficients, other, rtol", [*every_case()])
def test_is_another_method(name, coefficients, other, rtol):
    coefficients = {"rho": 0.3} | coefficients
    factory = getattr(sam_jax, name)
    if "base" in coefficients:
        tx = factory(0.1, **coefficients)
    else:
        tx = sgd(factory(**coefficients))
    assert_close(trajectory(tx), expected(other), rtol=rtol)
