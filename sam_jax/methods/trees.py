"""What a tree of parameters or gradients must be: one check for all methods."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from sam_jax import checks
from sam_jax.methods import devices


def parameters(params: Any) -> Any:
    """The parameters as arrays.

    Args:
        params: a tree of arrays and Python floats.

    Returns:
        The tree itself if it has nothing but arrays of JAX, else arrays in the place
        of NumPy's, of floats and of arrays of a weak type.

    Raises:
        ValueError: if a leaf is of no real floating dtype; it names the leaf.

    Example:
        >>> parameters({"w": 2.0})
        {'w': Array(2., dtype=float32)}
    """
    return _real(
        params,
        "params:",
        "a method trains real floating-point parameters: keep what is not trained out "
        "of params (as a constant of the loss), and a complex parameter as two leaves, "
        "its real and imaginary parts",
    )


def gradients(grads: Any, params: Any, name: str) -> Any:
    """The gradients as arrays, checked to be those of the parameters.

    Args:
        grads: a tree of arrays and Python floats.
        params: what they belong to; None if that is not known.
        name: what the message begins with, such as "updates must be".

    Returns:
        The tree, as from `parameters`.

    Raises:
        ValueError: if a leaf is of no real floating dtype, or the tree is not like
            ``params``; it names the first leaf that differs.
    """
    if params is not None:
        require_like(params, grads, name)
    return _real(grads, f"{name} gradients;", "a gradient is real and floating-point")


def require_like(params: Any, grads: Any, name: str) -> None:
    """Names the first leaf in which a gradient differs from the parameters."""
    expected, got = _shapes(params), _shapes(grads)
    for path in [*expected, *got]:
        if expected.get(path) != got.get(path):
            raise checks.BadValue(
                f"{name} a tree like params; at {path!r} params have "
                f"{expected.get(path, 'nothing')}, the gradient has "
                f"{got.get(path, 'nothing')}{_likely(grads, params)}"
            )
    if jax.tree.structure(params) != jax.tree.structure(grads):
        raise checks.BadValue(
            f"{name} a tree like params, got other containers: "
            f"{jax.tree.structure(grads)} for {jax.tree.structure(params)}"
            f"{_likely(grads, params)}"
        )


def require_scalar(name: str, loss: Any) -> None:
    """Refuses a loss that is a tuple, or an array of more than one number."""
    if isinstance(loss, (tuple, list, dict)) or jnp.shape(loss) != ():
        got = (
            f"a {type(loss).__name__} of {len(loss)}: of a function with has_aux=True "
            "pass on the loss alone"
            if isinstance(loss, (tuple, list, dict))
            else f"shape {jnp.shape(loss)}"
        )
        raise checks.BadValue(f"{name} must be a scalar, got {got}")


def checked(init: Callable[..., Any], update: Callable[..., Any]) -> tuple[Any, Any]:
    """The functions of a method, given arrays only and trees that fit.

    Args:
        init: ``params -> state``.
        update: ``(updates, state, params, **keywords) -> (updates, state)``.

    Returns:
        The same, which refuse other trees; see `parameters` and `gradients`.
    """

    def init_fn(params: Any) -> Any:
        return init(parameters(params))

    def update_fn(
        updates: Any, state: Any, params: Any = None, **extra_args: Any
    ) -> tuple[Any, Any]:
        params = parameters(params)
        if (value := extra_args.get("value")) is not None:
            require_scalar("value, the loss at the weights,", value)
        updates = gradients(updates, params, "updates must be")
        return update(updates, state, params, **devices.called_as(extra_args, updates))

    return init_fn, update_fn


def name_of(path: tuple[Any, ...]) -> str:
    """The names on the way to a leaf, joined by ``/``; NNX wraps it in a ``value``.

    Example:
        >>> [(path, _)] = jax.tree_util.tree_leaves_with_path({"embed": {"value": 1.0}})
        >>> name_of(path)
        'embed'
    """
    name = jax.tree_util.keystr(path, simple=True, separator="/")
    return name.removesuffix("/value")


def nodes(tree: Any, kind: type) -> list[Any]:
    """The nodes of a tree that are of some type, such as a state of a chain's.

    Example:
        >>> import optax
        >>> nodes(optax.sgd(0.1, 0.9).init(1.0), optax.TraceState)
        [TraceState(trace=Array(0., dtype=float32, weak_type=True))]
    """

    def is_one(node: Any) -> bool:
        return isinstance(node, kind)

    return [x for x in jax.tree.leaves(tree, is_leaf=is_one) if is_one(x)]


def only(tree: Any, kind: type, reader: str, method: str) -> Any:
    """The one node of a type, for a function that reads a method's state.

    Raises:
        ValueError: if there is none, or more than one.
    """
    found = nodes(tree, kind)
    if len(found) != 1:
        raise checks.BadValue(
            f"{reader} needs the state of one {method}, got {len(found)} of them"
        )
    return found[0]


def _likely(grads: Any, params: Any) -> str:
    """The mistake behind a tuple, and behind objects that stand for arrays."""
    if isinstance(grads, tuple) and not isinstance(params, tuple):
        return (
            f"; it is a tuple of {len(grads)}: a function that returns (loss, grads) "
            "is value_and_grad_fn, and of one with has_aux=True pass on the gradient"
        )
    return variables_hint(grads)


def variables_hint(tree: Any) -> str:
    """What to do about objects that stand for arrays, as those of Flax NNX do."""

    def is_variable(node: Any) -> bool:
        return hasattr(node, "__jax_array__")

    found = filter(is_variable, jax.tree.leaves(tree, is_leaf=is_variable))
    kinds = ", ".join(sorted({type(node).__name__ for node in found}))
    return f", in a {kinds} of NNX: return nnx.as_pure(grads)" if kinds else ""


def _shapes(tree: Any) -> dict[str, str]:
    return {
        jax.tree_util.keystr(path): f"shape {jnp.shape(leaf)}"
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


def _real(tree: Any, name: str, remedy: str) -> Any:
    """The tree with strong real arrays of JAX as its leaves."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        dtype = getattr(leaf, "dtype", None) or type(leaf)
        if not (dtype is float or jnp.issubdtype(dtype, jnp.floating)):
            kind = "float0" if dtype == jax.dtypes.float0 else dtype
            kind = getattr(kind, "__name__", kind)
            raise checks.BadValue(
                f"{name} the leaf at {jax.tree_util.keystr(path)!r} is of {kind}; "
                f"{remedy}"
            )

    def is_strong(leaf: Any) -> bool:
        return not getattr(leaf, "weak_type", True)

    if all(map(is_strong, jax.tree.leaves(tree))):
        return tree
    return jax.tree.map(lambda x: jnp.asarray(x, jnp.result_type(x)), tree)
