"""Which methods the theorems cover, and the errors of their directions."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sam_jax import methods
from sam_jax.theory import conditions, finite_sums
from sam_jax.theory.conditions import method_classes
from sam_jax.theory.families import Power
from sam_jax.train import config as config_lib
from tests import tiers
from tests.theory.test_conditions import DIMINISH_1, corollary_3_5, nonconvex


def test_coefficients_that_are_not_given_have_their_defaults():
    good = {"step_size": DIMINISH_1, "radius": Power(0.1, 1)}
    for method in ("vasso", "gsam", "wsam", "cr_sam", "eigen_sam"):
        given = config_lib.default_coefficients(method)
        verdicts = [
            corollary_3_5(nonconvex(method=method, coefficients=some, **good)).applies
            for some in ({}, given)
        ]
        assert verdicts == [True, True], method


def usual(name):
    """A setting with the method's own coefficients."""
    given = config_lib.default_coefficients(name) if name in methods.names() else {}
    return nonconvex(method=name, coefficients=given, step_size=DIMINISH_1)


@pytest.mark.parametrize("name", [*methods.names(), "sgd", "igd", "igdr", "unheard_of"])
def test_every_method_has_an_answer(name):
    applies = [v.applies for v in conditions.assess(usual(name))]
    if name not in conditions.methods():
        assert not any(applies)
        assert name in {*method_classes.NO_THEOREM, "unheard_of"}, "state its class"
    assert name not in conditions.methods() & method_classes.NO_THEOREM


def covered_by_3_3():
    for name in sorted(conditions.methods() & set(methods.names())):
        # sparse_sam needs what only the trainer gives.
        if conditions.error_factor(usual(name)) is not None and name != "sparse_sam":
            yield name


# The gradient's direction, an average's, that of a part, a step of its own.
QUICK = {"sam", "vasso", "ae_sam", "decoupled_wsam"}


@pytest.mark.parametrize(
    "name", tiers.cases(QUICK, covered_by_3_3(), "compiles each method")
)
def test_the_error_of_a_direction_is_as_claimed(name):
    generator = np.random.default_rng(0)
    matrix = generator.normal(size=(6, 4))
    problem = finite_sums.bounded_residuals(matrix, generator.normal(size=6))
    rho, rate = 0.3, 0.01
    factor, factory = conditions.error_factor(usual(name)), methods.factory(name)
    if name == "decoupled_wsam":
        tx = factory(learning_rate=rate, rho=rho, base=optax.sgd)
    else:
        tx = optax.chain(factory(rho=rho), optax.sgd(rate))
    grad_fn = jax.grad(problem.value)

    given = {"grad_fn": grad_fn, "value_and_grad_fn": jax.value_and_grad(problem.value)}

    @jax.jit
    def update(x, state, key):
        value = problem.value(x)
        return tx.update(grad_fn(x), state, x, value=value, key=key, **given)

    errors = []
    x = jnp.asarray(generator.normal(size=4))
    state = tx.init(x)
    for key in jax.random.split(jax.random.key(0), 60):
        updates, state = update(x, state, key)
        errors.append(float(jnp.linalg.norm(-updates / rate - grad_fn(x))))
        x = x + updates + 0.3 * jax.random.normal(key, 4)
    assert 0 < max(errors) <= factor * problem.smoothness * rho
