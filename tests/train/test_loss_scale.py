"""Steps in float16: the update of float32, and a scale that follows overflow."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sam_jax import loss_scale
from tests.train.steps import Trainer, assert_same, batches, plain

GAIN = 1e-5  # of the logits: gradients of 1e-9, which vanish in float16


@pytest.fixture
def trainer(tiny, net):
    """``trainer("sam", "float16")``: the network computes in that dtype."""

    def make(method, dtype, gain=1.0, **settings):
        inner = net()

        def apply(params, model_state, images, **options):
            params, images = jax.tree.map(lambda x: x.astype(dtype), (params, images))
            logits, new = inner.apply(params, model_state, images, **options)
            new = jax.tree.map(lambda x: x.astype(jnp.float32), new)
            return gain * logits.astype(jnp.float32), new

        config = tiny(method, **{"model.dtype": dtype, **settings})
        return Trainer(config, inner._replace(apply=apply), plain)

    return make


@pytest.mark.parametrize("method", ["none", "sam", "functional_sam", "esam"])
def test_float16_finds_the_update_of_float32(trainer, method):
    exact, scaled = (trainer(method, d, GAIN) for d in ("float32", "float16"))
    [(_, of_exact)], [(state, of_scaled)] = (
        steps.run(batches(1)) for steps in (exact, scaled)
    )
    # Weight decay aside: what is left are the gradients.
    for name in {"grad_norm", "update_norm", "loss"} & of_exact.keys():
        assert of_exact[name] > 0
        np.testing.assert_allclose(of_scaled[name], of_exact[name], rtol=0.03)
    assert (float(state.loss_scale.scale), int(state.loss_scale.good)) == (2.0**16, 1)


@pytest.mark.parametrize("method", ["none", "vasso"])
def test_an_overflow_halves_the_scale_and_leaves_the_update_out(trainer, method):
    # Lion's updates are signs, finite whatever the gradient is.
    steps = trainer(method, "float16", **{"optimizer.name": "lion"})
    before = steps.state._replace(
        loss_scale=loss_scale.LossScale(jnp.float32(2.0**24), jnp.int32(7))
    )
    steps.state = before
    finite = []
    for number, (state, metrics) in enumerate(steps.run(batches(12)), 1):
        finite.append(int(metrics["finite"]))
        if metrics["finite"]:
            break
        assert float(state.loss_scale.scale) == 2.0 ** (24 - number)
        kept = state._replace(step=before.step, loss_scale=before.loss_scale)
        assert_same(kept, before)
    assert finite[0] == 0 and finite[-1] == 1
