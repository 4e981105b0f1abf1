"""Where training with a method ends."""

import functools

import jax
import jax.numpy as jnp

from tests.methods import problems
from tests.methods.contract import cases
from tests.methods.contract.cases import every_method
from tests.methods.traits import sgd, traits


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
