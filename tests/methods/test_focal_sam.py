import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sam_jax
from tests.methods import problems
from tests.methods.traits import Traits

# Its perturbation and its diagnostics are of the focal gradient.
TRAITS = Traits(
    exact=False,
    calls=5 * 3,
    needs=("params", "class_shares", "weighted_value_and_grad_fn"),
    unused_gradient=True,
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
