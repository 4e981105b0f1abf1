import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import AxisType

import sam_jax
from tests.methods import problems
from tests.methods.traits import Traits

# At rho = 0 two compiled programs of the same gradient differ by rounding.
TRAITS = Traits(exact=False)


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
