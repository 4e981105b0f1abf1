"""Methods before every kind of base optimizer, and around it."""

from itertools import cycle, islice

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
import pytest

import sam_jax
from tests.methods import problems

pytestmark = pytest.mark.usefixtures("promotion_of_optax")


BASES = {
    "adam": lambda: optax.adam(0.02),
    "adamw": lambda: optax.adamw(0.02),
    "lion": lambda: optax.lion(0.005),
    "muon": lambda: optax.contrib.muon(0.02),
    "schedule_free": lambda: optax.contrib.schedule_free_sgd(0.1),
    "nesterov": lambda: optax.sgd(0.05, momentum=0.9, nesterov=True),
    "polyak": lambda: optax.polyak_sgd(0.2),
    "plateau": lambda: optax.chain(
        optax.sgd(0.05), optax.contrib.reduce_on_plateau(patience=3)
    ),
}
# One of each kind: without state, with an average, that mixes both gradients, that
# skips, that selects, and the wrappers.
METHODS = {
    "sam": sam_jax.sam,
    "vasso": sam_jax.vasso,
    "gsam": sam_jax.gsam,
    "looksam": lambda: sam_jax.looksam(k=2),
    "dynamic_sparse_sam": sam_jax.dynamic_sparse_sam,
    "stochastic": lambda: sam_jax.stochastic(sam_jax.asam()),
}
FULL = {
    "momentum_sam": sam_jax.momentum_sam,
    "decoupled_wsam": sam_jax.decoupled_wsam,
    "lookbehind": sam_jax.lookbehind,
}


def losses(tx, steps=30):
    params, seen = problems.network(), []
    state = tx.init(params)
    step = jax.jit(problems.make_step(tx, problems.network_loss))
    for _ in range(steps):
        seen.append(float(problems.network_loss(params, problems.batch())))
        params, state = step(params, state, problems.batch())
    return np.array(seen)


ANOTHER = pytest.mark.slow("a compilation for each pair")


def every_pair(methods, bases=tuple(BASES)):
    """All pairs; enough of them that each side occurs are the first tier."""
    pairs = {(name, base) for name in methods for base in bases}
    longest = max(len(methods), len(bases))
    fast = set(islice(zip(cycle(methods), cycle(bases), strict=False), longest))
    return [
        pytest.param(*pair, marks=[] if pair in fast else ANOTHER)
        for pair in sorted(pairs)
    ]


@pytest.mark.parametrize("method, base", every_pair(METHODS))
def test_trains_before_every_base(method, base):
    # Lion's and Muon's steps are of constant length: they end near the minimum.
    seen = losses(optax.chain(METHODS[method](), BASES[base]()))
    assert np.isfinite(seen).all()
    assert seen[-1] < 0.7 * seen[0]


@pytest.mark.parametrize(
    "base", ["adam", *(pytest.param(base, marks=ANOTHER) for base in ("lion", "muon"))]
)
def test_radius_zero_is_the_base_itself(base):
    with_method = losses(optax.chain(sam_jax.sam(0.0), BASES[base]()))
    np.testing.assert_array_equal(with_method, losses(BASES[base]()))


@pytest.mark.parametrize(
    "method, base", every_pair(FULL, ["adam", "adamw", "lion", "nesterov"])
)
def test_full_optimizers_wrap_every_base(method, base):
    seen = losses(FULL[method](0.02, base=lambda _: BASES[base]()))
    assert np.isfinite(seen).all()
    assert seen[-1] < 0.7 * seen[0]


def test_momentum_sam_refuses_a_base_without_momentum():
    with pytest.raises(ValueError, match="base must keep one momentum"):
        sam_jax.momentum_sam(0.1, base=optax.sgd).init(jnp.ones(2))


def test_before_lookahead():
    # It has parameters of its own kind and passes no keywords on: the method comes
    # first, by itself, on the fast ones.
    method, slow_and_fast = sam_jax.sam(0.05), optax.lookahead(optax.sgd(0.05), 5, 0.5)
    params = optax.LookaheadParams.init_synced(problems.network())
    batch = problems.batch()
    method_state, state = method.init(params.fast), slow_and_fast.init(params)
    start = problems.network_loss(params.fast, batch)
    for _ in range(30):
        call = problems.gradients(problems.network_loss, batch)
        direction, method_state = method.update(
            call["grad_fn"](params.fast), method_state, params.fast, **call
        )
        updates, state = slow_and_fast.update(direction, state, params)
        params = optax.apply_updates(params, updates)
    assert problems.network_loss(params.slow, batch) < 0.7 * start
