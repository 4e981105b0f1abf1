import collections

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import sam_jax
from tests.methods import problems
from tests.methods.traits import Traits

# The caller's gradient is the only one. The parameters stay at the distance rho from a
# minimum; at rho = 0 that distance is still computed.
TRAITS = Traits(
    exact=False, calls=5, needs=("params",), pair=False, settings={"rho": 0.05}
)

CURVATURE = np.array([1.0, 3.0])


def quadratic(w):
    return jnp.sum(jnp.asarray(CURVATURE) * jnp.square(w)) / 2


def run(tx, loss, params, steps):
    """The weights to evaluate and the parameters held, after each update."""
    step = jax.jit(problems.make_step(tx, loss))
    state, weights, held = tx.init(params), [], []
    for _ in range(steps):
        params, state = step(params, state)
        held.append(params)
        weights.append(sam_jax.momentum_sam_eval_params(state, params))
    return weights, held


@pytest.mark.usefixtures("float64")
def test_recursion_on_a_quadratic():
    # v <- 0.9 v + A (w - rho v / |v|) + 0.5 w, w <- w - lr v, with A = diag(1, 3): the
    # base decays the weights, not the perturbed ones.
    rho, w, v = 0.3, np.array([1.0, -1.0]), np.zeros(2)
    decayed = lambda rate: optax.chain(  # noqa: E731
        optax.add_decayed_weights(0.5), optax.sgd(rate, momentum=0.9)
    )
    weights, held = run(
        sam_jax.momentum_sam(0.1, rho, base=decayed),
        quadratic,
        jnp.asarray(w),
        steps=10,
    )
    e = np.zeros(2)
    for seen, seen_held in zip(weights, held, strict=True):
        v = 0.9 * v + CURVATURE * (w + e) + 0.5 * w
        w, e = w - 0.1 * v, -rho * v / np.linalg.norm(v)
        np.testing.assert_allclose(seen, w, rtol=1e-12)
        np.testing.assert_allclose(seen_held, w + e, rtol=1e-12)


def test_diagnostics_tell_the_displacement_that_is_left():
    tx, params = sam_jax.momentum_sam(0.1, 0.7), jnp.array([3.0, 4.0])
    _, state = tx.update(params, tx.init(params), params)
    assert sam_jax.diagnostics(state) == pytest.approx(
        {"grad_norm": 5.0, "perturbation_norm": 0.7}
    )
    # Where no gradient has come yet there is no momentum.
    zero = jnp.zeros(2)
    _, state = tx.update(zero, tx.init(params), params)
    assert sam_jax.diagnostics(state)["perturbation_norm"] == 0


@pytest.mark.parametrize("form", ["tree", "function"])
def test_mask_displaces_some_parameters_only(form):
    params = {"kernel": jnp.array([[3.0, 4.0]]), "bias": jnp.array([2.0])}
    tree = {"kernel": True, "bias": False}
    mask = tree if form == "tree" else lambda _: tree
    tx = sam_jax.momentum_sam(0.1, 0.5, mask=mask)
    updates, state = tx.update(params, tx.init(params), params)
    held = optax.apply_updates(params, updates)
    weights = sam_jax.momentum_sam_eval_params(state, held)
    np.testing.assert_allclose(weights["kernel"], [[2.7, 3.6]], rtol=1e-6)
    np.testing.assert_allclose(held["kernel"], [[2.4, 3.2]], rtol=1e-6)
    assert held["bias"] == weights["bias"] == pytest.approx(1.8)


def test_what_is_not_finite_outside_of_the_mask_stays_there():
    params = {"a": jnp.ones(2), "b": jnp.ones(2)}
    tx = sam_jax.momentum_sam(0.1, 0.5, mask={"a": True, "b": False})
    grads = {"a": jnp.array([3.0, 4.0]), "b": jnp.array([1.0, jnp.inf])}
    updates, _ = tx.update(grads, tx.init(params), params)
    np.testing.assert_allclose(updates["a"], [-0.6, -0.8], rtol=1e-6)


def test_eval_params_finds_the_state_in_any_chain():
    params = problems.network()
    inner = optax.inject_hyperparams(sam_jax.momentum_sam, static_args=("base",))
    tx = optax.chain(optax.clip_by_global_norm(1.0), inner(0.1, rho=0.5))
    updates, state = tx.update(params, tx.init(params), params)
    held = optax.apply_updates(params, updates)
    weights = jax.jit(sam_jax.momentum_sam_eval_params)(state, held)
    assert float(optax.tree.norm(optax.tree.sub(held, weights))) == pytest.approx(0.5)


def test_eval_params_refuses_other_states():
    params = problems.network()
    with pytest.raises(ValueError, match="needs the state of one momentum_sam, got 0"):
        sam_jax.momentum_sam_eval_params(optax.sgd(0.1).init(params), params)
    state = sam_jax.momentum_sam(0.1).init(params)
    with pytest.raises(ValueError, match="got 2"):
        sam_jax.momentum_sam_eval_params((state, state), params)


def test_parameters_may_be_called_like_the_momentum():
    fields = collections.namedtuple("fields", ["mu", "trace"])
    of_dict = {"mu": jnp.array([3.0]), "trace": {"mu": jnp.array([4.0])}}
    of_fields = fields(jnp.array([3.0]), fields(jnp.array([4.0]), jnp.zeros(1)))
    for params in (of_dict, of_fields):
        for base in (sam_jax.methods.optimizers.momentum_sgd, optax.adam):
            tx = sam_jax.momentum_sam(0.0, 0.5, base=base)
            with jax.numpy_dtype_promotion("standard"):  # Adam of Optax promotes
                updates, _ = tx.update(params, tx.init(params), params)
            np.testing.assert_allclose(
                jax.tree.leaves(updates)[:2], [[-0.3], [-0.4]], rtol=1e-5
            )
