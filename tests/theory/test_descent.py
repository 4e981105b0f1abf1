"""The loop over updates: what it runs, what it sees, how often it compiles."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import sam_jax
from sam_jax.theory import descent, finite_sums, problems, sampling
from tests.theory import runs


def gaps_of(tx, problem, checkpoints, **others):
    return runs.recorded(problem, tx, checkpoints, problem.gap, **others)


@pytest.mark.usefixtures("optimized")  # as the loop is rounded
def test_the_same_as_a_loop_by_hand():
    problem = problems.quadratic([1.0, 3.0], [1.0, -0.5])
    trace = descent.descend(
        runs.sam(0.1, 0.2),
        descent.exact(problem),
        problem.start,
        [0, 1, 4],
        record=lambda x: x,
        mean_of=problem.gap,
    )
    x, iterates = np.array(problem.start), []
    for _ in range(5):
        iterates.append(x)
        gradient = np.array([1.0, 3.0]) * x
        perturbed = x + 0.1 * gradient / np.linalg.norm(gradient)
        x = x - 0.2 * np.array([1.0, 3.0]) * perturbed
    np.testing.assert_allclose(
        trace.recorded, [iterates[i] for i in (0, 1, 4)], rtol=1e-14
    )
    np.testing.assert_allclose(trace.x, iterates[4], rtol=1e-14)
    gaps = [float(problem.gap(jnp.asarray(z))) for z in iterates]
    expected = [gaps[0], gaps[0], np.mean(gaps[:4])]
    np.testing.assert_allclose(trace.means, expected, rtol=1e-13)


def test_what_is_measured_may_be_other_weights_than_the_parameters():
    problem = problems.quadratic([1.0], [2.0])
    trace = descent.descend(
        sam_jax.sampa(0.5, 0.25, lam=0.0, base=optax.sgd),
        descent.exact(problem),
        problem.start,
        [0, 1, 2],
        record=lambda x: x[0],
        mean_of=lambda x: x[0],
        weights=sam_jax.sampa_eval_params,
    )
    np.testing.assert_allclose(trace.recorded, [2.0, 1.0, 0.375], rtol=1e-14)
    np.testing.assert_allclose(trace.means, [2.0, 2.0, 1.5], rtol=1e-14)
    np.testing.assert_allclose(trace.x, [0.375], rtol=1e-14)


def test_a_sweep_is_one_compilation():
    problem, compilations = problems.quadratic([1.0, 3.0], [1.0, 1.0]), []

    @jax.jit
    def sweep(radii, keys):
        compilations.append(None)

        def one(rho, key):
            return gaps_of(runs.sam(rho, 0.1), problem, descent.geometric(50), key=key)

        return jax.vmap(jax.vmap(one, (None, 0)), (0, None))(radii, keys)

    radii = jnp.array([0.0, 0.1, 0.3])
    for seed in (0, 1):
        swept = sweep(radii + seed, jax.random.split(jax.random.key(seed), 4))
    assert len(compilations) == 1
    alone = gaps_of(runs.sam(1.1, 0.1), problem, descent.geometric(50))
    np.testing.assert_allclose(swept[1, 0], alone, rtol=1e-12)


class Seen(list):
    """A transformation that tells what it was given, and descends."""

    def chain(self, step_size):
        def update(updates, state, params, *, grad_fn, **_):
            del state
            jax.debug.callback(
                lambda *seen: self.append(seen), updates, grad_fn(params), ordered=True
            )
            return updates, optax.EmptyState()

        tx = optax.GradientTransformationExtraArgs(lambda _: optax.EmptyState(), update)
        return optax.chain(tx, optax.sgd(step_size))


def gradients_seen(oracle, start, steps, seed=0):
    seen = Seen()
    trace = descent.descend(
        seen.chain(0.0),
        oracle,
        start,
        [steps],
        record=lambda x: x,
        key=jax.random.key(seed),
    )
    jax.block_until_ready(trace)
    jax.effects_barrier()
    return np.array(seen)[..., 0]


def test_which_losses_each_gradient_sees():
    centers = [-1.0, 0.0, 4.0]
    problem = finite_sums.parabolas(centers, start=0.0)
    scheme = sampling.uniform(3)
    oracle = descent.same_sample(problem, scheme)
    same = gradients_seen(oracle, problem.start, 40)
    assert (same[:, 0] == same[:, 1]).all()
    assert set(same[:, 0].round(9)) == {1.0, 0.0, -4.0}

    n_sam = gradients_seen(descent.full_ascent(problem, scheme), problem.start, 40)
    np.testing.assert_allclose(n_sam[:, 0], -1.0)
    np.testing.assert_array_equal(n_sam[:, 1], same[:, 1])

    full = gradients_seen(descent.exact(problem), problem.start, 3)
    np.testing.assert_allclose(full, -1.0)

    assert (gradients_seen(oracle, problem.start, 40, seed=1) != same).any()


def test_reshuffling_sees_each_component_once_per_epoch():
    problem = finite_sums.parabolas([-1.0, 0.0, 4.0, 7.0], start=0.0)
    seen = gradients_seen(descent.reshuffled(problem), problem.start, 40)
    assert (seen[:, 0] == seen[:, 1]).all()
    epochs = seen[:, 0].reshape(10, 4)
    np.testing.assert_allclose(np.sort(epochs, 1), [[-7.0, -4.0, 0.0, 1.0]] * 10)
    assert len({tuple(epoch) for epoch in epochs}) > 3


def test_methods_get_what_the_trainer_offers():
    # The Polyak step needs the loss at the perturbed weights, random SAM a key.
    problem = problems.quadratic([1.0, 3.0], [1.0, 1.0])
    for tx in (
        sam_jax.sam_sps(1.0, 0.01),
        optax.chain(sam_jax.random_sam(0.01), optax.sgd(0.1)),
    ):
        gaps = gaps_of(tx, problem, [0, 30])
        assert gaps[1] < 0.05 * gaps[0]


def test_what_a_method_draws_has_nothing_to_do_with_the_sample():
    def oracle(key, count):
        drawn = jax.random.normal(jax.random.fold_in(key, count))
        return (lambda x: drawn * x[0],) * 2

    def update(updates, state, params, *, key, **_):
        # Moves on where the method's number has the sign of the sample's.
        same = jnp.sign(updates) == jnp.sign(jax.random.normal(key))
        return same.astype(float), state

    tx = optax.GradientTransformationExtraArgs(lambda _: optax.EmptyState(), update)
    trace = descent.descend(tx, oracle, np.zeros(1), [400], record=lambda x: x)
    assert abs(float(trace.x[0]) - 200) < 4 * np.sqrt(100)


def test_divergence_is_a_result():
    problem = problems.quadratic([1.0], [1.0])
    gaps = gaps_of(optax.sgd(3.0), problem, [10, 5000])
    assert gaps[0] > 100
    assert not np.isfinite(gaps[1])


@pytest.mark.parametrize(
    "checkpoints", [[], [-1, 2], [0, 2, 2], [3, 1], [[0, 1]], [0.5, 1.5], 3]
)
def test_bad_checkpoints(checkpoints):
    problem = problems.quadratic([1.0], [1.0])
    with pytest.raises(ValueError, match="increasing integers from 0 on"):
        gaps_of(optax.sgd(0.1), problem, checkpoints)


def test_geometric_checkpoints():
    points = descent.geometric(10**6, 30)
    assert points[0] == 0 and points[-1] == 10**6
    assert (np.diff(points) > 0).all()
    assert len(points) <= 31
