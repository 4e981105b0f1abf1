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
    """What a method saw in its last update; float32, zero before the first.

    A method without a second gradient has None where there is nothing to report.

    Attributes:
        grad_norm: 2-norm of the gradient at the weights.
        perturbation_norm: 2-norm of the displacement; in leaves narrower than float32
            of what rounding leaves of it.
        gradient_cosine: cosine of the angle between the gradients at the weights and
            at the perturbed weights.
        perturbed_loss: loss at the perturbed weights; `NOT_MEASURED` without
            ``value_and_grad_fn``, or ``value`` where there was no perturbation.
        layer_shares: of the squared perturbation norm, [layers]; read them with
            `perturbation_shares`.
    """

    grad_norm: jax.Array
    perturbation_norm: jax.Array
    gradient_cosine: jax.Array | None
    perturbed_loss: Any
    layer_shares: Any


def no_diagnostics(params: optax.Params) -> Diagnostics:
    """Those before the first update: zeros."""
    # One array per field: a state that shares buffers could not be donated.
    scalars = [jnp.zeros([], jnp.float32) for _ in Diagnostics._fields[:-1]]
    return Diagnostics(*[*scalars, _no_shares(params)])


def length_and_shares(displacement: optax.Updates) -> tuple[jax.Array, jax.Array]:
    """The norm, and the share of its square in each of the `layers`."""
    norm, of_leaves = numerics.norm_and_shares(displacement)
    numbers = range(len(of_leaves))
    groups = layers(jax.tree.unflatten(jax.tree.structure(displacement), numbers))
    # One masked sum: a sum for each layer would take longer to compile.
    belongs = np.zeros([len(groups), len(numbers)], bool)
    for row, group in zip(belongs, groups.values(), strict=True):
        row[group] = True
    shares = jnp.where(belongs, of_leaves, 0).sum(1)
    return norm, shares.astype(jnp.float32)


def _no_shares(params: optax.Params) -> jax.Array:
    return jnp.zeros([len(layers(params))], jnp.float32)


def layers(tree: Any) -> dict[str, list[Any]]:
    """The leaves of a tree by its branches, at the first level that has several.

    Example:
        >>> layers({"params": {"Block_0": {"kernel": 1, "bias": 2}, "Dense_0": [3]}})
        {'Block_0': [2, 1], 'Dense_0': [3]}
        >>> layers(1.0)
        {'params': [1.0]}
    """
    paths = jax.tree_util.tree_leaves_with_path(tree)
    depth, deepest = 0, min((len(path) for path, _ in paths), default=0)
    while depth < deepest and len({path[: depth + 1] for path, _ in paths}) == 1:
        depth += 1
    found: dict[str, list[Any]] = {}
    for path, leaf in paths:
        name = jax.tree_util.keystr(path[depth : depth + 1], simple=True)
        found.setdefault(name or "params", []).append(leaf)
    return found


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
        Float32 numbers, the same on all devices; see `agree`.
    """
    length, shares = length_and_shares(numerics.added(params, displacement))
    return _diagnostics(
        shares,
        numerics.norm(grads),
        length,
        numerics.cosine(grads, perturbed_grads),
        perturbed_loss,
    )


def observe_unperturbed(grads: optax.Updates, value: Any) -> Diagnostics:
    """The diagnostics of an update without the perturbation.

    Args:
        grads: gradient at the weights.
        value: loss at the weights, or None if the caller did not pass it.

    Returns:
        Displacement 0, cosine 1, and the loss at the weights.
    """
    return _diagnostics(_no_shares(grads), numerics.norm(grads), 0.0, 1.0, value)


def _diagnostics(layer_shares: jax.Array, *scalars: Any) -> Diagnostics:
    *_, loss = scalars
    measured = scalars if loss is not None else scalars[:-1]
    # Stacked, so that several devices need one reduction.
    stacked = jnp.stack([jnp.asarray(x).astype(jnp.float32) for x in measured])
    agreed = devices.agree(jnp.concatenate([stacked, layer_shares]))
    told = list(agreed[: len(measured)])
    others = [_not_measured() for _ in scalars[len(told) :]]
    return Diagnostics(*[*told, *others, agreed[len(measured) :]])


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
        A transformation that is called like the method, and takes the step itself
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
    if loss is None or isinstance(loss, (tuple, jax.core.Tracer)):
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
    told.pop("layer_shares", None)
    loss = told.get("perturbed_loss")
    if loss is None:
        return told
    if _is_unmeasured(loss):
        del told["perturbed_loss"]
    elif isinstance(loss, jax.core.Tracer) or np.ndim(loss):
        told["perturbed_loss"] = jnp.where(loss == NOT_MEASURED, jnp.nan, loss)
    return told


def perturbation_shares(
    state: optax.OptState, params: optax.Params
) -> dict[str, jax.Array]:
    """Shares of the layers in the squared norm of the last update's perturbation.

    Args:
        state: state of an Optax transformation.
        params: the weights, whose branches are the layers.

    Returns:
        Name -> share in [0, 1], float32 scalars; zero where nothing was perturbed, and
        empty if the state has no diagnostics.

    Example:
        >>> import jax, jax.numpy as jnp, optax, sam_jax
        >>> w = {"inner": jnp.array([3.0]), "head": jnp.array([4.0])}
        >>> tx = sam_jax.sam(0.1)
        >>> _, state = tx.update(w, tx.init(w), w, grad_fn=lambda w: w)
        >>> for name, share in sam_jax.perturbation_shares(state, w).items():
        ...     print(f"{name} {share:.2f}")
        head 0.64
        inner 0.36
    """
    found = [x.layer_shares for x in trees.nodes(state, Diagnostics)]
    if not found or isinstance(found[0], tuple):
        return {}
    names = layers(params)
    return dict(zip(names, jnp.moveaxis(found[0], -1, 0), strict=True))
