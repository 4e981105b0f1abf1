"""SAM with SGD and full gradients on a problem, as several tests run it."""

import optax

import sam_jax
from sam_jax.theory import descent


def recorded(problem, tx, checkpoints, record, **others):
    """What a chain of transformations leaves at the checkpoints."""
    oracle = descent.exact(problem)
    return descent.descend(
        tx, oracle, problem.start, checkpoints, record=record, **others
    ).recorded


def sam(rho, step_size):
    return optax.chain(sam_jax.sam(rho), optax.sgd(step_size))
