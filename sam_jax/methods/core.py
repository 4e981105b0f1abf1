"""The core of every method: one place that takes the second gradient."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from sam_jax import checks
from sam_jax.methods import calls, masks, numerics, observations, trees

# combine(grads, perturbed_grads, count) -> direction to descend: the gradients at the
# weights and at the perturbed weights, and the number of updates done so far (scalar,
# int32) for coefficients that follow a schedule.
Combine = Callable[[optax.Updates, optax.Updates, jax.Array], optax.Updates]


# Updates done so far, the field of a state: a scalar, int32. Any to type checkers, for
# which a field of that name gets in the way of a method of tuples.
Count = Any


class SharpnessAwareState(NamedTuple):
    """State of `sharpness_aware`.

    Attributes:
        count: updates done so far. Scalar, int32.
        ascent: state of the ascent.
        diagnostics: what the last update saw; read it with `diagnostics`.
    """

    count: Count
    ascent: optax.OptState
    diagnostics: observations.Diagnostics


def sharpness_aware(
    ascent: optax.GradientTransformation,
    combine: Combine | None = None,
    *,
    mask: masks.Mask | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Turns the gradient at the weights into a sharpness-aware direction.

    .. math::

        \varepsilon = \mathrm{ascent}(g), \qquad
        g_p = \nabla L(w + \varepsilon), \qquad
        d = \mathrm{combine}(g, g_p)

    The learning rate, momentum, weight decay and clipping are other elements of the
    chain, after this one. Two gradients per update, one of them by the caller.

    Args:
        ascent: gradient -> displacement of the weights, as an Optax transformation
            (blocks: `normalize`, `partially_normalize`, `scale`). It is called with
            the parameters and with all keywords of the update.
        combine: ``(grads, perturbed_grads, count) -> direction``; ``None`` descends
            along the perturbed gradient.
        mask: perturb only these parameters: a tree of booleans, or a function from
            parameters to it, as in ``optax.masked``. Norms are taken over those kept;
            where none is, nothing is perturbed.

    Returns:
        A transformation whose update needs ``params`` and one of the keywords
        ``grad_fn(params) -> grads`` and ``value_and_grad_fn(params) -> (loss, grads)``
        (preferred if both are given: it also returns the perturbed loss). Both are
        the loss on the batch and with the randomness that gave ``updates``. Other
        keywords are accepted and passed to the ascent.

    Raises:
        ValueError: if ``mask`` is one value for all; by the update, if ``params`` or
            both functions are missing, or the function returns a tree of another
            structure than ``params``.

    Example:
        >>> import jax, jax.numpy as jnp, optax, sam_jax
        >>> loss = lambda w: jnp.sum(w**4)
        >>> ascent = optax.chain(sam_jax.normalize(), sam_jax.scale(0.1))  # SAM
        >>> tx = optax.chain(sam_jax.sharpness_aware(ascent), optax.sgd(0.01))
        >>> w = jnp.array([1.0, 0.0])
        >>> updates, state = tx.update(
        ...     jax.grad(loss)(w), tx.init(w), w, grad_fn=jax.grad(loss)
        ... )
        >>> print(optax.apply_updates(w, updates))  # 1 - 0.01 * 4 * 1.1**3
        [0.94676 0.     ]
    """
    ascent = masks.kept_only(ascent, mask)

    def update_fn(
        updates: optax.Updates,
        state: SharpnessAwareState,
        params: optax.Params | None = None,
        *,
        grad_fn: calls.GradFn | None = None,
        value_and_grad_fn: calls.ValueAndGradFn | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, SharpnessAwareState]:
        # Before the ascent, which may need the parameters or a gradient itself.
        gradient_at = second_gradient(params, grad_fn, value_and_grad_fn)
        grads = updates
        displacement, ascent_state = ascent.update(
            grads,
            state.ascent,
            params,
            grad_fn=grad_fn,
            value_and_grad_fn=value_and_grad_fn,
            **extra_args,
        )
        perturbed_loss, perturbed_grads = gradient_at(displacement)
        direction = (
            perturbed_grads
            if combine is None
            else combine(grads, perturbed_grads, state.count)
        )
        return direction, SharpnessAwareState(
            count=next_count(state.count),
            ascent=ascent_state,
            diagnostics=observations.observe(
                grads, params, displacement, perturbed_loss, perturbed_grads
            ),
        )

    return transformation(init_with(ascent), update_fn)


def transformation(
    init: Callable[..., Any], update: Callable[..., tuple[optax.Updates, Any]]
) -> optax.GradientTransformationExtraArgs:
    """A method from its two functions; `trees.checked` says what they are given.

    The direction is of the dtypes of the updates, whatever those of the gradients.
    """

    def update_fn(
        updates: optax.Updates, state: Any, params: Any = None, **extra_args: Any
    ) -> tuple[optax.Updates, Any]:
        direction, state = update(updates, state, params, **extra_args)
        return optax.tree.cast_like(direction, updates), state

    return optax.GradientTransformationExtraArgs(*trees.checked(init, update_fn))


def init_with(
    ascent: optax.GradientTransformation,
) -> Callable[[optax.Params], SharpnessAwareState]:
    """Makes the init of a method whose state is that of its ascent, and counters."""

    def init_fn(params: optax.Params) -> SharpnessAwareState:
        return SharpnessAwareState(
            count=jnp.zeros([], jnp.int32),
            ascent=ascent.init(params),
            diagnostics=observations.no_diagnostics(params),
        )

    return init_fn


def second_gradient(
    params: optax.Params | None,
    grad_fn: calls.GradFn | None,
    value_and_grad_fn: calls.ValueAndGradFn | None,
) -> Callable[[optax.Updates], tuple[Any, optax.Updates]]:
    """Makes the function that gives loss and gradient at displaced weights.

    Args:
        params: the weights; their dtypes are kept.
        grad_fn: ``params -> grads``, or None.
        value_and_grad_fn: ``params -> (loss, grads)``, or None; preferred.

    Returns:
        ``displacement -> (loss, grads)`` at ``params + displacement``. The loss is None
        if there is only ``grad_fn``. It refuses a gradient that is not like ``params``.

    Raises:
        ValueError: if ``params`` or both functions are None.
    """
    calls.require_gradient(params, grad_fn, value_and_grad_fn)
    assert params is not None

    def gradient_at(displacement: optax.Updates) -> tuple[Any, optax.Updates]:
        weights = numerics.moved(params, displacement)
        if value_and_grad_fn is not None:
            return calls.value_and_gradient(value_and_grad_fn, weights)
        assert grad_fn is not None
        return None, calls.gradient(grad_fn, weights)

    return gradient_at


def value_at(coefficient: optax.ScalarOrSchedule, count: jax.Array) -> jax.Array:
    """The value of a coefficient, a number or a schedule, after ``count`` updates.

    Raises:
        ValueError: if a schedule returns an array with dimensions.
    """
    value = jnp.asarray(coefficient(count) if callable(coefficient) else coefficient)
    if value.ndim:
        raise checks.BadValue(
            f"a schedule must return one number, got an array of shape {value.shape}"
        )
    return value


MOST_GRADIENTS = 1000  # of one kind in an update; a programme cannot hold any number


def unroll(length: int) -> bool:
    """Whether a loop over that many gradients is better written out, for ``unroll=``.

    XLA's CPU backend runs a convolution inside of a loop many times slower than
    outside; elsewhere, and for many of them, the loop saves compilation.
    """
    return jax.default_backend() == "cpu" and length <= 32


def next_count(count: jax.Array) -> jax.Array:
    """One more update; stays at the largest integer instead of overflowing."""
    return jnp.asarray(optax.safe_increment(count))


def is_count(path: tuple[Any, ...], leaf: Any) -> bool:
    """Whether a leaf of a state counts updates, by its place.

    Not a parameter's field of that name, in an average of gradients.
    """
    named = bool(path) and getattr(path[-1], "name", None) == "count"
    return named and jnp.issubdtype(jnp.result_type(leaf), jnp.integer)


def next_due(count: jax.Array, every: int) -> jax.Array:
    """The next multiple of ``every`` after ``count``.

    Kept in a state, it also renews what is due where updates are skipped.
    """
    return (count // every + 1) * every
