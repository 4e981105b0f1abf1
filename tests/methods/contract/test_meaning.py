"""What an update does: the radius, the base, the diagnostics, the mask."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sam_jax
from tests.methods import problems
from tests.methods.contract import cases
from tests.methods.contract.cases import every_method
from tests.methods.traits import sgd, traits


@functools.cache
def base_run(base):
    """The trajectory of a base, shared by the methods over it."""
    args = (problems.network_loss, problems.network(), (problems.batch(),), 5)
    return problems.trajectory(base(0.1), *args)


@every_method()
def test_radius_zero_is_the_base_optimizer(name):
    base, at_base, exact, *_ = traits(name)
    if base is None:
        pytest.skip("recombines gradients so that no base is left at rho = 0")
    if at_base:
        tx = cases.optimizer(name, rho=0.0, **at_base)
        args = (problems.network_loss, problems.network(), (problems.batch(),), 5)
        ours = problems.trajectory(tx, *args)
    else:
        carry, ours = cases.start(name), []
        for _ in range(5):
            carry = cases.run(name, 1, carry, rho=0.0)
            ours.append(jax.tree.map(jnp.copy, carry[0]))  # the carry is donated
    compare = (
        cases.assert_equal
        if exact
        else functools.partial(cases.assert_close, rtol=1e-5)
    )
    compare(ours, base_run(base))


@every_method()
def test_a_larger_radius_is_felt(name):
    near, far = (cases.run(name, 2, rho=rho)[0] for rho in (0.0, 0.5))
    differences = jax.tree.map(lambda x, y: jnp.max(jnp.abs(x - y)), near, far)
    assert max(jax.tree.leaves(differences)) > 1e-3


def objective(w, kind):
    """Small objectives of three weights, by a number that may be traced."""
    inputs, targets = problems.batch()
    return jax.lax.switch(
        kind,
        [
            lambda w: w @ (jnp.array([1.0, 2.0, 5.0]) * w) / 2,
            lambda w: jnp.sum(jnp.log1p(jnp.square(w - 1))),
            lambda w: (
                jnp.mean(jnp.logaddexp(0.0, -jnp.sign(targets) * (inputs @ w)))
                + 0.01 * jnp.sum(w**2)
            ),
        ],
        w,
    )


START = jnp.array([1.0, -1.0, 2.0])


def losses_after(tx, steps):
    """Of every small objective, from one compiled run."""
    step = problems.make_step(tx, objective)

    @jax.jit
    def run(carry, kind):
        (after, _), _ = jax.lax.scan(
            lambda carry, _: (step(*carry, kind), None), carry, length=steps
        )
        return objective(after, kind)

    return [float(run((START, tx.init(START)), kind)) for kind in range(3)]


@functools.cache
def best_losses():
    return losses_after(sgd(0.02), 4000)


# That an update is the formula that it is meant to be, a transcription says of each.
@every_method("sam", "vasso", "looksam", "momentum_sam", "bsam", "sam_sps")
def test_converges_on_small_objectives(name):
    after = losses_after(cases.optimizer(name, traits(name).rate), 400)
    for kind, (loss, best) in enumerate(zip(after, best_losses(), strict=True)):
        # A constant radius ends near the minimum, not in it.
        assert loss - best < 0.02 * (objective(START, kind) - best), kind


@every_method()
def test_diagnostics_tell_what_the_update_saw(name):
    batch, pair = problems.batch(), traits(name).pair
    params, state = cases.start(name)
    for _ in range(2):
        grads = cases.gradient_at(params)
        clean = problems.network_loss(params, batch)
        params, state = cases.run(name, 1, (params, state), rho=0.1)
        seen = sam_jax.diagnostics(state)
        if seen["perturbation_norm"] > 0:
            break  # else it takes one gradient, and perturbs for the next update
    assert tuple(seen) == sam_jax.Diagnostics._fields[: 4 if pair else 2]
    assert all(x.dtype == jnp.float32 and x.shape == () for x in seen.values())
    flat = np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(grads)])
    if traits(name).unused_gradient:
        assert 0 < seen["grad_norm"] != pytest.approx(np.linalg.norm(flat), rel=1e-6)
    else:
        assert seen["grad_norm"] == pytest.approx(np.linalg.norm(flat), rel=1e-6), (
            "not of the caller's gradient; where the method works with one of its own, "
            f"TRAITS in test_{name}.py says Traits(unused_gradient=True)"
        )
    assert seen["perturbation_norm"] > 0
    if pair:
        assert -1 <= seen["gradient_cosine"] < 1
        assert seen["perturbed_loss"] != clean and np.isfinite(seen["perturbed_loss"])


@pytest.mark.parametrize("form", ["tree", "function"])
@every_method()
def test_mask_keeps_the_other_parameters_in_place(name, form):
    if not traits(name).pair:
        pytest.skip("takes no gradient by itself")
    params, grads = problems.network(), problems.network()
    kept = jax.tree.map(lambda leaf: leaf.ndim > 1, params)
    mask = kept if form == "tree" else lambda tree: jax.tree.map(lambda _: _, kept)
    tx = cases.optimizer(name, rho=0.1, mask=mask)
    points = problems.points(tx, grads, tx.init(params), params)
    perturbed = points[traits(name).perturbed_call]
    moved = jax.tree.map(lambda x, y: bool((x != y).any()), perturbed, params)
    assert moved == kept, (
        "of the gradients taken in an update, "
        f"{'the last' if traits(name).perturbed_call == -1 else 'the chosen'} one is "
        "not at weights perturbed as the mask says; where another one is, TRAITS in "
        f"test_{name}.py says Traits(perturbed_call=0)"
    )
