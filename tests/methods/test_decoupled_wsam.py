import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType

import sam_jax
from tests.methods import problems
from tests.methods.traits import Traits

# At rho = 0 two compiled programs of the same gradient differ by rounding.
TRAITS = Traits(exact=False)

MATRIX = np.array([[3.0, 1.0, 0.0], [1.0, 2.0, -0.5], [0.0, -0.5, 1.0]])
START = np.array([1.0, -2.0, 0.5])


@pytest.mark.usefixtures("float64")
def test_closed_form_on_a_quadratic():
    # The momentum averages the gradients at the weights alone; the sharpness
    # g_p - g = rho A g / |g| acts in the update where it is seen, times a = 4.
    w, v, rho, a = START, np.zeros(3), 0.3, 4.0
    rates = [0.1, 0.05, 0.025, 0.0125]
    schedule = lambda count: 0.1 * 0.5 ** count.astype(float)  # noqa: E731
    tx = sam_jax.decoupled_wsam(schedule, rho, gamma=0.8)
    seen = problems.trajectory(
        tx, problems.quadratic(MATRIX), jnp.asarray(START), steps=4
    )
    for rate, actual in zip(rates, seen, strict=True):
        g = MATRIX @ w
        v = 0.9 * v + g
        w = w - rate * v - rate * a * rho * MATRIX @ g / np.linalg.norm(g)
        np.testing.assert_allclose(actual, w, rtol=1e-11)


@pytest.mark.usefixtures("float64")
def test_over_plain_sgd_the_forms_agree():
    args = (problems.network(jnp.float64), (problems.batch(jnp.float64),), 5)
    ours = sam_jax.decoupled_wsam(0.1, 0.3, gamma=0.8, base=optax.sgd)
    theirs = optax.chain(sam_jax.wsam(0.3, gamma=0.8), optax.sgd(0.1))
    for x, y in zip(
        problems.trajectory(ours, problems.network_loss, *args),
        problems.trajectory(theirs, problems.network_loss, *args),
        strict=True,
    ):
        for key in x:
            np.testing.assert_allclose(x[key], y[key], rtol=1e-12)


def test_without_weight_it_is_the_base():
    args = (problems.network_loss, problems.network(), (problems.batch(),), 5)
    ours = sam_jax.decoupled_wsam(0.01, 0.3, gamma=0.0, base=optax.adamw)
    with jax.numpy_dtype_promotion("standard"):  # for Adam
        trajectories = [
            problems.trajectory(tx, *args) for tx in (ours, optax.adamw(0.01))
        ]
    for x, y in zip(*trajectories, strict=True):
        for key in x:
            np.testing.assert_allclose(x[key], y[key], rtol=1e-5)


def test_the_base_gets_the_weights_and_the_keywords():
    # AdamW's decay needs the weights, a line search would need the other keywords.
    seen = {}

    def base(learning_rate):
        def update(updates, state, params=None, **keywords):
            seen.update(keywords, params=params)
            return optax.tree.scale(-learning_rate, updates), state

        return optax.GradientTransformationExtraArgs(
            lambda params: optax.EmptyState(), update
        )

    params = problems.network()
    tx = sam_jax.decoupled_wsam(0.1, base=base)
    call = problems.keywords(problems.network_loss, params, problems.batch())
    tx.update(call["grad_fn"](params), tx.init(params), params, **call)
    assert seen["params"] is params and seen["value"] is call["value"]
    assert callable(seen["value_and_grad_fn"])


def test_a_shard_map_perturbs_per_device_and_steps_together():
    # Two devices at w = 1 with losses w^2 / 2 and 3 w^2 / 2: both gradients point
    # uphill by rho = 0.5, so g_p is 1.5 and 4.5, its mean 3, the mean of g is 2.
    mesh = jax.make_mesh((2,), ("data",), axis_types=(AxisType.Auto,))
    tx = sam_jax.decoupled_wsam(0.1, 0.5, gamma=0.75, base=optax.sgd)
    params = jnp.ones(1)

    def step(params, state, scale):
        own = jax.lax.pcast(params, "data", to="varying")
        grad_fn = lambda w: scale * w  # noqa: E731
        updates, state = tx.update(grad_fn(own), state, own, grad_fn=grad_fn)
        return updates, state

    spec = jax.sharding.PartitionSpec
    mapped = jax.shard_map(
        step, mesh=mesh, in_specs=(spec(), spec(), spec("data")), out_specs=spec()
    )
    updates, _ = jax.jit(mapped)(params, tx.init(params), jnp.array([1.0, 3.0]))
    np.testing.assert_allclose(updates, [-0.1 * (2 + 3 * (3 - 2))], rtol=1e-6)


@pytest.mark.parametrize("rate", [-0.1, float("nan"), None])
def test_other_learning_rates_are_refused(rate):
    with pytest.raises(ValueError, match="learning_rate must be a finite number >= 0"):
        sam_jax.decoupled_wsam(rate)
