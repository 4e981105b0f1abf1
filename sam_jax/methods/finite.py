"""Leaving out an update that is not finite, judged by what comes out of it."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from sam_jax import checks
from sam_jax.methods import core, devices, observations, trees


def apply_if_finite(
    tx: optax.GradientTransformation, max_consecutive_errors: int
) -> optax.GradientTransformationExtraArgs:
    """Skips an update whose result is not finite, including its state.

    ``optax.apply_if_finite`` checks the gradient that it receives. A method takes its
    second gradient inside, which may overflow where the first does not. This wrapper
    checks the resulting updates and the new state.

    Args:
        tx: the whole chain: method and optimizer.
        max_consecutive_errors: after this many skipped in a row, the next update is
            applied, so that training that cannot continue fails visibly.

    Returns:
        A transformation that is called like ``tx``. Its state is an
        ``optax.ApplyIfFiniteState``: ``notfinite_count`` skipped in a row,
        ``total_notfinite`` in all, ``last_finite`` and ``inner_state``, which does not
        change in a skipped update.

    Raises:
        ValueError: if ``max_consecutive_errors`` is not an integer >= 0.

    Example:
        >>> import jax.numpy as jnp, optax, sam_jax
        >>> tx = optax.chain(sam_jax.sam(0.1), optax.sgd(0.1))
        >>> tx, w = sam_jax.apply_if_finite(tx, 5), jnp.ones(2)
        >>> overflow = lambda w: jnp.full(2, jnp.inf)  # at the perturbed weights only
        >>> updates, state = tx.update(w, tx.init(w), w, grad_fn=overflow)
        >>> print(updates, state.total_notfinite)
        [0. 0.] 1
    """
    checks.integer("max_consecutive_errors", max_consecutive_errors, 0)
    tx = optax.with_extra_args_support(tx)

    def init_fn(params: optax.Params) -> optax.ApplyIfFiniteState:
        return optax.ApplyIfFiniteState(
            notfinite_count=jnp.zeros([], jnp.int32),
            last_finite=jnp.ones([], bool),
            total_notfinite=jnp.zeros([], jnp.int32),
            inner_state=tx.init(params),
        )

    def update_fn(
        updates: optax.Updates,
        state: Any,
        params: optax.Params | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, optax.ApplyIfFiniteState]:
        proposed, inner_state = tx.update(
            updates, state.inner_state, params, **extra_args
        )
        still = optax.tree.zeros_like(proposed)
        # What never was finite may stay so, such as the best loss before the first.
        finite = _stays_finite(still, proposed)
        finite &= _stays_finite(state.inner_state, inner_state)
        # Of devices with gradients of their own all leave it out if one has to.
        finite = devices.agree(finite.astype(jnp.float32)) >= 1
        in_a_row = jnp.where(finite, 0, core.next_count(state.notfinite_count))
        taken = finite | (in_a_row > max_consecutive_errors)

        def choose(new: Any, old: Any) -> Any:
            return jax.tree.map(lambda x, y: jnp.where(taken, x, y), new, old)

        return choose(proposed, still), optax.ApplyIfFiniteState(
            notfinite_count=in_a_row,
            last_finite=finite,
            total_notfinite=jnp.where(
                finite, state.total_notfinite, core.next_count(state.total_notfinite)
            ),
            inner_state=choose(inner_state, state.inner_state),
        )

    return type(tx)(*trees.checked(init_fn, update_fn))  # a full optimizer stays one


def _stays_finite(old: Any, new: Any) -> jax.Array:
    """Whether all numbers that were finite still are, those of diagnostics aside."""
    leaves = zip(
        *(
            jax.tree.leaves(tree, is_leaf=observations.is_diagnostics)
            for tree in (old, new)
        ),
        strict=True,
    )
    judged = [
        jnp.all(jnp.isfinite(after) | ~jnp.isfinite(before))
        for before, after in leaves
        if not observations.is_diagnostics(after)
        and jnp.issubdtype(jnp.result_type(after), jnp.inexact)
    ]
    return jnp.all(jnp.array([True, *judged]))
