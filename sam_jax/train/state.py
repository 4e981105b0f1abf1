"""The state of a run: everything that a step changes."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from sam_jax import loss_scale as loss_scale_lib
from sam_jax.train import frozen as frozen_lib
from sam_jax.train import optimizer as optimizer_lib


class TrainState(NamedTuple):
    """Everything that a step changes and a checkpoint keeps.

    Attributes:
        step: updates done. Scalar, int32.
        seed: of all randomness of the run. Scalar, uint32; part of the state, so that
            one compiled program serves all seeds.
        params: the weights that the gradient is taken at, never perturbed by a method
            of two gradients; `evaluated` has those to evaluate. None for those frozen.
        model_state: running statistics, ``{"batch_stats": ...}`` or empty.
        opt_state: state of the method and of the optimizer.
        average: averages of ``(params, model_state)`` for evaluation, or None.
        loss_scale: of a network that computes in float16, or None.
        frozen: the weights that are not trained, see `frozen.cut`, or None.
    """

    step: jax.Array
    seed: jax.Array
    params: optax.Params
    model_state: Any
    opt_state: optimizer_lib.OptState
    average: tuple[optax.Params, Any] | None
    loss_scale: loss_scale_lib.LossScale | None = None
    frozen: Any = None


def is_finite(state: TrainState) -> jax.Array:
    """Whether the run could continue from this state.

    Returns:
        Scalar, boolean: no weight, statistic or average is NaN or infinite, nor any
        array that method and optimizer keep. Their scalars may be: the best loss so far
        of ``reduce_on_plateau`` starts at infinity.
    """
    arrays = [x for x in jax.tree.leaves(state.opt_state) if x.ndim]
    leaves = [
        *jax.tree.leaves((state.params, state.model_state, state.average)),
        *arrays,
    ]
    checks = [
        jnp.isfinite(x).all() for x in leaves if jnp.issubdtype(x.dtype, jnp.inexact)
    ]
    return jnp.stack([jnp.bool_(True), *checks]).all()


def evaluated(
    state: TrainState, optimizer: optimizer_lib.Optimizer
) -> tuple[optax.Params, Any]:
    """The weights and statistics to evaluate: the averages where they are kept."""
    trained, model_state = state.average or (
        optimizer.eval_params(state.opt_state, state.params),
        state.model_state,
    )
    return frozen_lib.whole(trained, state.frozen), model_state
