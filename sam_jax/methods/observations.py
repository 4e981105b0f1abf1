"""What a method reports of its last update."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
import optax

from sam_jax.methods import devices, numerics, trees

# The perturbed loss of an update that was not told it: no loss is that small.
NOT_MEASURED = -np.inf


class Diagnostics(NamedTuple):
    """What a method saw in its last update; float32 scalars, zero before the first.

    A method without a second gradient has None where there is nothing to report.

    Attributes:
        grad_norm: 2-norm of the gradient at the weights.
        perturbation_norm: 2-norm of the displacement; in leaves narrower than float32
            of what rounding leaves of it.
        gradient_cosine: cosine of the angle between the gradients at the weights and
            at the perturbed weights.
        perturbed_loss: loss at the perturbed weights; `NOT_MEASURED` without
            ``value_and_grad_fn``, or ``value`` where there was no perturbation.
    """

    grad_norm: jax.Array
    perturbation_norm: jax.Array
    gradient_cosine: jax.Array | None
    perturbed_loss: Any


def no_diagnostics() -> Diagnostics:
    """Those before the first update: zeros."""
    # One array per field: a state that shares buffers could not be donated.
    return Diagnostics(*[jnp.zeros([], jnp.float32) for _ in Diagnostics._fields])


def observe(
    grads: optax.Updates,
    params: optax.Params | None,
    displacement: optax.Updates,
    perturbed_loss: Any,
    perturbed_grads: optax.Updates,
) -> Diagnostics:
    """The diagnostics of an update.

    Args:
        grads: gradient at the weights.
        params: the weights.
        displacement: of the weights.
        perturbed_loss: loss at the perturbed weights; scalar, or None.
        perturbed_grads: gradient at the perturbed weights.

    Returns:
        Float32 scalars, the same on all devices; see `agree`.
    """
    return _diagnostics(
        numerics.norm(grads),
        numerics.norm(numerics.added(params, displacement)),
        numerics.cosine(grads, perturbed_grads),
        perturbed_loss,
    )


def observe_unperturbed(grads: optax.Updates, value: Any) -> Diagnostics:
    """The diagnostics of an update that does without the perturbation.

    Args:
        grads: gradient at the weights.
        value: loss at the weights, or None if the caller did not pass it.

    Returns:
        Displacement 0, cosine 1, and the loss at the weights.
    """
    return _diagnostics(numerics.norm(grads), 0.0, 1.0, value)


def _diagnostics(*scalars: Any) -> Diagnostics:
    *_, loss = scalars
    measured = scalars if loss is not None else scalars[:-1]
    # Stacked, so that several devices need one reduction.
    stacked = jnp.stack([jnp.asarray(x).astype(jnp.float32) for x in measured])
    told = list(devices.agree(stacked))
    return Diagnostics(*told, *[_not_measured() for _ in scalars[len(told) :]])


def _not_measured() -> jax.Array:
    # Known while a program is traced, so that `diagnostics` can leave it out there.
    with jax.ensure_compile_time_eval():
        return jnp.full([], NOT_MEASURED, jnp.float32)


def without_diagnostics(
    method: optax.GradientTransformation,
) -> optax.GradientTransformationExtraArgs:
    """The same method without `diagnostics`: a compiled update computes none.

    They take norms of three trees, and keep the gradient at the weights in memory until
    the second one is there.

    Args:
        method: any of the methods.

    Returns:
        A transformation that is called like the method, and takes the step by itself
        if the method does.

    Example:
        >>> import jax, jax.numpy as jnp, optax, sam_jax
        >>> sam = sam_jax.without_diagnostics(sam_jax.sam(0.1))
        >>> tx = optax.chain(sam, optax.sgd(1.0))
        >>> w, grad_fn = jnp.ones(1), jax.grad(lambda w: jnp.sum(w**2))
        >>> updates, state = tx.update(grad_fn(w), tx.init(w), w, grad_fn=grad_fn)
        >>> print(updates, sam_jax.diagnostics(state))
        [-2.2] {}
    """
    inner = optax.with_extra_args_support(method)

    def init(params: optax.Params) -> optax.OptState:
        return _with_each(inner.init(params), lambda: ())

    def update(
        updates: optax.Updates,
        state: optax.OptState,
        params: optax.Params | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, optax.OptState]:
        # The method finds what it keeps itself, of the structure that it returns.
        state = _with_each(state, lambda: jnp.zeros([], jnp.float32))
        updates, state = inner.update(updates, state, params, **extra_args)
        return updates, _with_each(state, lambda: ())

    return type(inner)(init, update)


def _with_each(state: optax.OptState, value: Callable[[], Any]) -> optax.OptState:
    """A state with other values in its diagnostics; () is a tree without leaves."""

    def of(node: Any) -> Any:
        if not is_diagnostics(node):
            return node
        kept: list[Any] = [None if x is None else value() for x in node]
        return Diagnostics(*kept)

    return jax.tree.map(of, state, is_leaf=is_diagnostics)


def cond(decision: Any, used: Callable[[], Any], skipped: Callable[[], Any]) -> Any:
    """`devices.cond` of branches whose results hold diagnostics.

    Of a perturbed loss that neither of them measures it is known that it is not.
    """
    unmeasured = []

    def noted(branch: Callable[[], Any]) -> Callable[[], Any]:
        def run() -> Any:
            result = branch()
            seen = trees.nodes(result, Diagnostics)
            unmeasured.extend(_is_unmeasured(x.perturbed_loss) for x in seen)
            return result

        return run

    result = devices.cond(decision, noted(used), noted(skipped))
    if not all(unmeasured):
        return result
    return jax.tree.map(
        lambda x: (
            x._replace(perturbed_loss=_not_measured()) if is_diagnostics(x) else x
        ),
        result,
        is_leaf=is_diagnostics,
    )


def is_diagnostics(node: Any) -> bool:
    """Whether a node of a tree is a method's diagnostics."""
    return isinstance(node, Diagnostics)


def _is_unmeasured(loss: Any) -> bool:
    """Whether it is known not to be measured; a traced one may be either."""
    if loss is None or isinstance(loss, jax.core.Tracer):
        return False
    return bool(np.all(np.asarray(loss) == NOT_MEASURED))


def diagnostics(state: optax.OptState) -> dict[str, jax.Array]:
    """Finds the diagnostics of a method in the state of any chain that contains it.

    Args:
        state: state of an Optax transformation.

    Returns:
        Name -> float32 scalar, the fields of `Diagnostics` without those that are None
        or not measured; empty if there is no method in the chain. Where some of several
        updates have measured the perturbed loss (states that are stacked, or within a
        compiled program a state that it is given, or a cadence with and without
        ``value``), it is NaN for the others.

    Example:
        >>> import jax.numpy as jnp, optax, sam_jax
        >>> tx = optax.chain(sam_jax.sam(0.1), optax.sgd(0.1))
        >>> list(sam_jax.diagnostics(tx.init(jnp.zeros(2))))
        ['grad_norm', 'perturbation_norm', 'gradient_cosine', 'perturbed_loss']
    """
    found = trees.nodes(state, Diagnostics)
    if not found:
        return {}
    seen = found[0]
    # What stands for an array in a state of Flax NNX is made one.
    told = {
        name: jnp.asarray(value) if hasattr(value, "__jax_array__") else value
        for name, value in seen._asdict().items()
        if value is not None and not isinstance(value, tuple)
    }
    loss = told.get("perturbed_loss")
    if loss is None:
        return told
    if _is_unmeasured(loss):
        del told["perturbed_loss"]
    elif isinstance(loss, jax.core.Tracer) or np.ndim(loss):
        told["perturbed_loss"] = jnp.where(loss == NOT_MEASURED, jnp.nan, loss)
    return told
