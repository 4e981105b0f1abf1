import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import sam_jax
from tests.methods import problems
from tests.methods.traits import Traits

TRAITS = Traits(
    exact=False,
    calls=5 * 3,
    needs=("params", "class_shares", "weighted_value_and_grad_fn"),
)


def direction(tx, params, batch, **changed):
    call = problems.keywords(problems.network_loss, params, batch) | changed
    return tx.update(call["grad_fn"](params), tx.init(params), params, **call)[0]


@pytest.mark.usefixtures("float64")
def test_without_a_focus_it_is_a_part_of_the_way_to_sam():
    params, batch = problems.network(jnp.float64), problems.batch(jnp.float64)
    plain = problems.gradients(problems.network_loss, batch)["grad_fn"](params)
    sam = direction(sam_jax.sam(0.3), params, batch)
    for lam in (1.0, 0.25):
        found = direction(sam_jax.focal_sam(0.3, gamma=0.0, lam=lam), params, batch)
        jax.tree.map(
            lambda d, g, gp, lam=lam: np.testing.assert_allclose(
                d, g + lam * (gp - g), rtol=1e-12
            ),
            *(found, plain, sam),
        )


@pytest.mark.usefixtures("float64")
def test_a_class_that_is_all_there_is_has_no_sharpness():
    params, batch = problems.network(jnp.float64), problems.batch(jnp.float64)
    plain = problems.gradients(problems.network_loss, batch)["grad_fn"](params)
    found = direction(
        sam_jax.focal_sam(0.3), params, batch, class_shares=jnp.ones(len(batch[1]))
    )
    jax.tree.map(
        lambda d, g: np.testing.assert_allclose(d, g, rtol=1e-12), found, plain
    )


@pytest.mark.usefixtures("float64")
def test_the_perturbed_loss_is_the_loss_and_the_rise_of_the_focal_one():
    params, batch = problems.network(jnp.float64), problems.batch(jnp.float64)
    call = problems.keywords(problems.network_loss, params, batch)
    weighted, told = call["weighted_value_and_grad_fn"], []

    def watched(params, factors):
        loss, grads = weighted(params, factors)
        told.append(loss)
        return loss, grads

    call["weighted_value_and_grad_fn"] = watched
    tx = sam_jax.focal_sam(0.3)
    _, state = tx.update(params, tx.init(params), params, **call)
    rise = float(sam_jax.diagnostics(state)["perturbed_loss"]) - float(call["value"])
    assert rise == pytest.approx(float(told[1] - told[0]), rel=1e-5) and rise > 0
    _, state = tx.update(params, tx.init(params), params, **(call | {"value": None}))
    assert "perturbed_loss" not in sam_jax.diagnostics(state)


def test_check_finds_it_behind_the_optimizer():
    params, batch = problems.network(), problems.batch()
    call = problems.keywords(problems.network_loss, params, batch)
    given = {key: call[key] for key in ("class_shares", "weighted_value_and_grad_fn")}
    given["value_and_grad_fn"] = call["value_and_grad_fn"]
    focal, sgd = sam_jax.focal_sam(0.05), optax.sgd(0.1)
    sam_jax.check(optax.chain(focal, sgd), params, **given)
    with pytest.raises(sam_jax.checks.BadValue, match="before the method changes"):
        sam_jax.check(optax.chain(sgd, focal), params, **given)


def test_shares_may_be_a_list():
    params, batch = problems.network(), problems.batch()
    call = problems.keywords(problems.network_loss, params, batch)
    tx = sam_jax.focal_sam(0.05)
    found = [
        tx.update(params, tx.init(params), params, **(call | {"class_shares": shares}))
        for shares in (call["class_shares"], call["class_shares"].tolist())
    ]
    for one, other in zip(*map(jax.tree.leaves, found), strict=True):
        np.testing.assert_array_equal(one, other)
