import jax.numpy as jnp
import numpy as np
import optax
import pytest

import sam_jax
from tests.methods import problems
from tests.methods.traits import Traits

# At rho = 0 it is -8 g + 9 g; nine times the sharpness is too much for the steep
# objectives of the suite.
TRAITS = Traits(exact=False)

MATRIX = np.array([[3.0, 1.0, 0.0], [1.0, 2.0, -0.5], [0.0, -0.5, 1.0]])
START = np.array([1.0, -2.0, 0.5])


@pytest.mark.usefixtures("float64")
def test_closed_form_on_a_quadratic():
    # g_p - g = rho A g / |g|, so d = g + a rho A g / |g| with a = 0.8 / 0.2.
    w, rho, t, a = START, 0.3, 0.1, 4.0
    tx = optax.chain(sam_jax.wsam(rho, gamma=0.8), optax.sgd(t))
    loss = problems.quadratic(MATRIX)
    for seen in problems.trajectory(tx, loss, jnp.asarray(START), steps=10):
        g = MATRIX @ w
        w = w - t * (g + a * rho * MATRIX @ g / np.linalg.norm(g))
        np.testing.assert_allclose(seen, w, rtol=1e-11)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(
    "gamma, other", [(0.0, optax.identity()), (0.5, sam_jax.sam(0.3))]
)
def test_the_base_and_sam_are_special_cases(gamma, other):
    args = (problems.network(jnp.float64), (problems.batch(jnp.float64),), 5)
    ours, theirs = (
        problems.trajectory(
            optax.chain(method, optax.sgd(0.1, momentum=0.9)),
            problems.network_loss,
            *args,
        )
        for method in (sam_jax.wsam(0.3, gamma=gamma), other)
    )
    for x, y in zip(ours, theirs, strict=True):
        for key in x:
            np.testing.assert_allclose(x[key], y[key], rtol=1e-13)


@pytest.mark.parametrize("gamma", [1, 1.5, -0.1])
def test_a_share_of_one_would_be_an_infinite_weight(gamma):
    with pytest.raises(ValueError, match=r"gamma must be a number in \[0, 1\) or"):
        sam_jax.wsam(gamma=gamma)
