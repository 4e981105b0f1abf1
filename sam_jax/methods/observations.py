"""What a method tells of its last update."""

from typing import Any, NamedTuple

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
import optax

from sam_jax.methods import devices, numerics


class Diagnostics(NamedTuple):
    """What a method saw in its last update; float32 scalars, zero before the first.

    A method without a second gradient has None where there is nothing to tell. Where
    ``unmeasured`` is true, `diagnostics` leaves the perturbed loss out.

    Attributes:
        grad_norm: 2-norm of the gradient at the weights.
        perturbation_norm: 2-norm of the displacement; in leaves narrower than float32
            of what rounding leaves of it.
        gradient_cosine: cosine of the angle between the gradients at the weights and
            at the perturbed weights.
        perturbed_loss: loss at the perturbed weights.
        unmeasured: whether the update was not told that loss, by ``value_and_grad_fn``
            or, where it did without the perturbation, by ``value``; a scalar boolean.
    """

    grad_norm: jax.Array
    perturbation_norm: jax.Array
    gradient_cosine: jax.Array | None
    perturbed_loss: jax.Array | None
    unmeasured: Any


def no_diagnostics() -> Diagnostics:
    """Those before the first update: zeros."""
    # One array per field: a state that shares buffers could not be donated.
    zeros = [jnp.zeros([], jnp.float32) for _ in range(4)]
    return Diagnostics(*zeros, unmeasured=jnp.zeros([], bool))


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
    # Stacked, so that several devices need one reduction.
    stacked = jnp.stack(
        [jnp.asarray(0.0 if x is None else x).astype(jnp.float32) for x in scalars]
    )
    # Of NumPy: known while a program is traced, unless it depends on a branch.
    return Diagnostics(*devices.agree(stacked), unmeasured=np.asarray(loss is None))


def diagnostics(state: optax.OptState) -> dict[str, jax.Array]:
    """Finds the diagnostics of a method in the state of any chain that contains it.

    Args:
        state: state of an Optax transformation.

    Returns:
        Name -> float32 scalar, the fields of `Diagnostics` without those that are None
        or not measured; empty if there is no method in the chain. Within a compiled
        program that cannot know whether an update measures the perturbed loss (one of
        several branches does) it is there, and NaN where it was not measured.

    Example:
        >>> import jax.numpy as jnp, optax, sam_jax
        >>> tx = optax.chain(sam_jax.sam(0.1), optax.sgd(0.1))
        >>> list(sam_jax.diagnostics(tx.init(jnp.zeros(2))))
        ['grad_norm', 'perturbation_norm', 'gradient_cosine', 'perturbed_loss']
    """
    found = [
        leaf
        for leaf in jax.tree.leaves(
            state, is_leaf=lambda node: isinstance(node, Diagnostics)
        )
        if isinstance(leaf, Diagnostics)
    ]
    seen = found[0]._asdict() if found else {}
    # What stands for an array in a state of Flax NNX is made one.
    seen = {
        name: jnp.asarray(value) if hasattr(value, "__jax_array__") else value
        for name, value in seen.items()
        if value is not None
    }
    unmeasured = seen.pop("unmeasured", False)
    loss = seen.pop("perturbed_loss", None)
    if isinstance(unmeasured, jax.core.Tracer):
        loss = None if loss is None else jnp.where(unmeasured, jnp.nan, loss)
    elif np.all(unmeasured):
        loss = None
    return seen if loss is None else seen | {"perturbed_loss": loss}
