"""What authors' code does otherwise, from the parts of the library: trajectories."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import sam_jax
from sam_jax.methods import noise
from tests.methods import plain, problems, transcriptions
from tests.methods.test_transcriptions import flat, network

STEPS, EXAMPLES, RATE = 8, 16, 0.05

pytestmark = pytest.mark.usefixtures("float64")


def batch(number):
    return problems.batch(jnp.float64, number + 1, EXAMPLES)


def trajectory(tx, ascents=range(STEPS), changed=lambda call: call):
    """Weights after each update; ``ascents`` are the batches of the first gradients."""
    params = problems.network(jnp.float64)

    @jax.jit
    def step(params, state, batch, other):
        call = changed(problems.keywords(problems.network_loss, params, batch))
        call |= {"key": None}
        grads = jax.grad(problems.network_loss)(params, other)
        updates, state = tx.update(grads, state, params, **call)
        return optax.apply_updates(params, updates), state

    state, seen = tx.init(params), []
    with jax.numpy_dtype_promotion("standard"):  # Adam of Optax promotes
        for t, first in enumerate(ascents):
            params, state = step(params, state, batch(t), batch(first))
            seen.append(flat(params))
    return seen


def assert_same(found, expected, rtol=1e-9):
    expected = list(expected)
    assert np.abs(expected[-1] - expected[0]).max() > 0.01
    np.testing.assert_allclose(found, expected, rtol=rtol, atol=rtol)


def start():
    return map(network, range(STEPS)), flat(problems.network(jnp.float64))


def sgd(method):
    return optax.chain(method, optax.sgd(RATE, momentum=0.9))


def test_eigen_sam_without_an_eigenvector_in_the_first_updates():
    @transcriptions.descend
    def theirs():
        v = None

        def direction(f, w, t):
            nonlocal v
            g = f.grad(w)
            if t < 3:
                return f.grad(w + 0.3 * g)
            if t % 3 == 0:
                values, vectors = np.linalg.eigh(f.hessian(w))
                v = vectors[:, np.argmax(np.abs(values))]
            unit = plain.unit(g)
            lean = 0.7 * np.sign(g @ v) * (v - (v @ unit) * unit)
            return f.grad(w + 0.3 * (unit + lean))

        return direction

    eigen = sam_jax.eigen_sam(0.3, alpha=0.7, every=3, power_steps=100)
    parts = (
        sam_jax.late_phase(sam_jax.usam(0.3), 0, 3),
        sam_jax.late_phase(eigen, 3),
    )
    assert_same(trajectory(sgd(optax.chain(*parts))), theirs(*start(), RATE), 1e-7)


class DecaysAfterwards(plain.Adam):
    """AdamW of MarlonBecker/MSAM: it decays the weights that the step has reached."""

    def step(self, w, g, lr):
        return super().step(w, g, lr) * (1 - lr * 0.1)


def test_momentum_sam_decays_after_the_step_of_adam():
    def base(rate):
        def decay(u, w):
            return u - rate * 0.1 * (w + u)

        late = optax.stateless(lambda u, w: jax.tree.map(decay, u, w))
        return optax.chain(optax.adam(rate), late)

    found = trajectory(sam_jax.momentum_sam(RATE, 1.0, base=base))
    options = {"base": DecaysAfterwards, "rho": 1.0}
    assert_same(found, transcriptions.momentum_sam(*start(), RATE, **options))


@pytest.mark.parametrize("theirs, ours", [(0.3, 4 / 16), (0.995, 1.0)])
def test_esam_keeps_as_many_examples_as_its_authors(theirs, ours):
    keys = [noise.update_key(0, jnp.int32(t), None) for t in range(STEPS)]
    like = problems.network(jnp.float64)
    draws = [flat(noise.uniform_like(key, like)) for key in keys]

    @transcriptions.descend
    def released():
        def direction(f, w, t):
            e = 0.2 / 0.5 * (draws[t] < 0.5) * plain.unit(f.grad(w))
            if theirs >= 0.99:
                return f.grad(w + e)
            rise = f.losses(w + e) - f.losses(w)
            return f.only(np.argsort(-rise)[: int(theirs * EXAMPLES)]).grad(w + e)

        return direction

    found = trajectory(sgd(sam_jax.esam(0.2, beta=0.5, gamma=ours)))
    assert_same(found, released(*start(), RATE))


def test_functional_sam_with_a_preconditioned_perturbation():
    def theirs(objectives, w):
        m, v = np.zeros_like(w), np.zeros_like(w)
        for t, f in enumerate(objectives):
            e = 0.3 * plain.unit(f.grad(w) / (np.sqrt(v) + 1e-8))
            g = f.cotangent(w) @ f.jacobian(w + e)
            m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
            first, second = m / (1 - 0.9 ** (t + 1)), v / (1 - 0.999 ** (t + 1))
            w = w - RATE * first / (np.sqrt(second) + 1e-8)
            yield w

    tx = sam_jax.contrib.functional_adam_sam(RATE, 0.3)
    found = trajectory(tx, changed=lambda call: call | {"value_and_grad_fn": None})
    assert_same(found, theirs(*start()))


def test_async_sam_with_an_ascent_batch_of_its_own():
    ascents = range(100, 100 + STEPS)

    @transcriptions.descend
    def theirs():
        past = []

        def direction(f, w, t):
            past.append(network(ascents[t]).grad(w))
            return f.grad(w + 0.3 * plain.unit(past[max(0, t - 1)]))

        return direction

    found = trajectory(sgd(sam_jax.async_sam(0.3)), ascents)
    assert_same(found, theirs(*start(), RATE))
