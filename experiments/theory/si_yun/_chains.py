"""Many chains of stochastic SAM in one compiled call."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import sam_jax
from sam_jax.theory import descent, finite_sums, sampling


class Estimate(NamedTuple):
    """A mean over chains and its standard error, [settings, checkpoints, ...]."""

    mean: np.ndarray
    error: np.ndarray


def sam_chains(
    problem: finite_sums.FiniteSum,
    start: np.ndarray,
    full: np.ndarray,
    rho: np.ndarray,
    eta: np.ndarray,
    checkpoints: np.ndarray,
    *,
    chains: int,
    record: descent.Measure,
    mean_of: descent.Measure | None = None,
    seed: int = 0,
) -> tuple[Any, Any]:
    """Runs m-SAM, n-SAM and SGD with uniform single samples.

    Args:
        problem: the finite sum.
        start: x_0.
        full: share of the full gradient in the ascent, the rest is the sample's: 0 for
            m-SAM, 1 for n-SAM, [settings].
        rho: radii, 0 for SGD, [settings].
        eta: step sizes, [settings].
        checkpoints: as in `descent.descend`.
        chains: number of chains of each setting, with different random numbers.
        record: measured at the checkpoints.
        mean_of: averaged over the iterates before them.
        seed: of the random numbers.

    Returns:
        Estimates of ``record`` and of ``mean_of``.
    """
    same = descent.same_sample(problem, sampling.uniform(problem.size))

    def chain(full: jax.Array, rho: jax.Array, eta: jax.Array, key: jax.Array) -> tuple:
        def oracle(key: jax.Array, count: jax.Array):
            sampled, _ = same(key, count)
            return lambda x: full * problem.value(x) + (1 - full) * sampled(x), sampled

        return descent.descend(
            optax.chain(sam_jax.sam(rho), optax.sgd(eta)),
            oracle,
            start,
            checkpoints,
            record=record,
            mean_of=mean_of,
            key=key,
        )[1:]

    over_chains = jax.vmap(chain, in_axes=(None, None, None, 0))
    keys = jax.random.split(jax.random.key(seed), (len(rho), chains))
    settings = (jnp.asarray(a, float) for a in (full, rho, eta))
    found = jax.jit(jax.vmap(over_chains))(*settings, keys)
    return jax.tree.map(_estimate, found)


def _estimate(of_chains: jax.Array) -> Estimate:
    values = np.asarray(of_chains)
    return Estimate(values.mean(1), values.std(1, ddof=1) / np.sqrt(values.shape[1]))
