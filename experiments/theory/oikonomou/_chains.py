"""Unified SAM in many chains, settings by seeds, as one compiled call."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import sam_jax
from sam_jax.theory import descent, finite_sums, problems, sampling
from sam_jax.theory.step_sizes import unified

# The parts of a setting, traced -> the chain and the losses that it sees.
Program = Callable[..., tuple[optax.GradientTransformation, descent.Oracle]]


def chain(lam: Any, rule: unified.Rule) -> optax.GradientTransformation:
    """Unified SAM and SGD, constant radius and step size."""
    return optax.chain(sam_jax.unified_sam(rule.rho, lam=lam), optax.sgd(rule.gamma))


def constant(oracle: descent.Oracle) -> Program:
    """Settings ``(lam, rule)``: constant radius and step size."""
    return lambda lam, rule: (chain(lam, rule), oracle)


def decreasing_chain(mu: float) -> Callable[..., optax.GradientTransformation]:
    """Unified SAM and SGD by the rule of Theorem 3.5, on a clock.

    A clock of 1 is the theorem's. A clock of 0 stands still: the constant caps.
    """

    def make(
        lam: Any, rule: unified.Rule, clock: Any = 1.0
    ) -> optax.GradientTransformation:
        rho, gamma = unified.decreasing(mu, rule)
        return optax.chain(
            sam_jax.unified_sam(lambda count: rho(clock * count), lam=lam),
            optax.sgd(lambda count: gamma(clock * count)),
        )

    return make


def decreasing(mu: float, oracle: descent.Oracle) -> Program:
    """Settings ``(lam, rule)`` or ``(lam, rule, clock)`` of `decreasing_chain`."""
    make = decreasing_chain(mu)
    return lambda *setting: (make(*setting), oracle)


class Table(NamedTuple):
    """All samples of a sampling, so the sampling can be part of a setting.

    Attributes:
        probabilities: [o].
        rows: [o, k].
        weights: [o, k]; 0 where a sample has fewer rows than the widest.
    """

    probabilities: np.ndarray
    rows: np.ndarray
    weights: np.ndarray


def tables(schemes: Sequence[sampling.Sampling]) -> list[Table]:
    """The tables of samplings, padded to one shape with samples of probability 0."""
    enumerated = [list(scheme.outcomes()) for scheme in schemes]
    length = max(map(len, enumerated))
    width = max(len(sample.rows) for samples in enumerated for _, sample in samples)
    made = []
    for samples in enumerated:
        table = Table(
            np.zeros(length), np.zeros((length, width), int), np.zeros((length, width))
        )
        for i, (probability, sample) in enumerate(samples):
            table.probabilities[i] = probability
            table.rows[i, : len(sample.rows)] = sample.rows
            table.weights[i, : len(sample.rows)] = sample.weights
        made.append(table)
    return made


def sampled(
    problem: finite_sums.FiniteSum,
    make: Callable[..., optax.GradientTransformation] = chain,
) -> Program:
    """Settings ``(lam, rule, table)``: the same sample for both gradients."""

    def program(lam: Any, rule: unified.Rule, table: Table):
        borders = jnp.cumsum(table.probabilities)[:-1]

        def oracle(key: jax.Array, count: jax.Array):
            drawn = jax.random.uniform(jax.random.fold_in(key, count), dtype=float)
            i = jnp.searchsorted(borders, drawn, side="right", method="compare_all")

            def loss(x: jax.Array) -> jax.Array:
                values = problem.component_values(x, table.rows[i])
                return jnp.sum(table.weights[i] * values)

            return loss, loss

        return make(lam, rule), oracle

    return program


def descend(
    program: Program,
    settings: Sequence[tuple[Any, ...]],
    problem: problems.Problem,
    checkpoints: np.ndarray,
    record: descent.Measure | None = None,
    *,
    chains: int = 1,
) -> Any:
    """Runs each setting from the same start with the same random numbers.

    Args:
        program: the chain of a setting and the losses it sees.
        settings: tuples of numbers and arrays, such as ``(lam, rule)``, [s].
        problem: with its start.
        checkpoints: numbers of updates.
        record: measured at each checkpoint; by default the gap.
        chains: number of independent chains of a setting.

    Returns:
        The recorded values, leading axes [s, chains, checkpoints].
    """

    def one(setting: tuple[Any, ...], key: jax.Array) -> Any:
        tx, oracle = program(*setting)
        measure = problem.gap if record is None else record
        return descent.descend(
            tx, oracle, problem.start, checkpoints, record=measure, key=key
        ).recorded

    stacked = jax.tree.map(lambda *leaves: jnp.asarray(np.stack(leaves)), *settings)
    keys = jax.random.split(jax.random.key(0), chains)
    over_settings = jax.vmap(jax.vmap(one, (None, 0)), (0, None))
    return jax.tree.map(np.asarray, jax.jit(over_settings)(stacked, keys))
