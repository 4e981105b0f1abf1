"""Values on several devices, and in groups that perturb separately."""

import functools
from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import AxisType, NamedSharding, PartitionSpec

# Name of the axis of a jax.vmap over groups of examples that share a perturbation each.
GROUP_AXIS = "sam_jax_groups"
# The keywords of an update that are functions of the weights, linear in the loss.
FUNCTIONS = (
    "grad_fn",
    "value_and_grad_fn",
    "subset_grad_fn",
    "functional_value_and_grad_fn",
    "weighted_value_and_grad_fn",
    "example_losses_fn",
)


def agree(tree: Any) -> Any:
    """Makes values the same for all groups that perturb separately.

    What a method keeps of gradients (an average, a mask) must not differ between
    groups; their mean is taken.

    - Groups on devices of a ``jax.shard_map``: with ``check_vma=True`` a value computed
      from a device's own gradient says so by its type; anything else is left as it is.
      With ``check_vma=False`` no type says anything, and the mean is taken over all
      mapped axes; so it is in a ``jax.pmap`` with an ``axis_name``. Without a name its
      members are taken for independent trainings, as those of a ``jax.vmap`` are.
    - Groups along an axis of a ``jax.vmap``, if it has the name `GROUP_AXIS`.

    Args:
        tree: arrays of inexact dtypes.

    Returns:
        The tree, the same for all groups.
    """
    mapped, silent = _is_bound(GROUP_AXIS), _silent_axes()

    def mean(x: jax.Array) -> jax.Array:
        x = _mean_over_mapped(x) if mapped else x
        axes = (*_varying(x), *silent)
        return jax.lax.pmean(x, axes) if axes else x

    return jax.tree.map(mean, tree)


def shared(tree: Any) -> Any:
    """Values that are the same on all devices, although their types say they differ."""
    if not any(map(_varying, jax.tree.leaves(tree))):
        return tree

    def mean(x: jax.Array) -> jax.Array:
        axes = tuple(_varying(x))
        return jax.lax.pmean(x, axes) if axes else x

    return jax.tree.map(mean, tree)


def called_as(keywords: dict[str, Any], like: Any) -> dict[str, Any]:
    """Keywords of an update, whose functions are called at weights that vary as others.

    Under ``jax.shard_map(..., check_vma=True)`` a gradient at weights that do not vary
    arrives summed over the devices.

    Args:
        keywords: of an update.
        like: a tree like the weights.

    Returns:
        The keywords.
    """
    if not any(map(_varying, jax.tree.leaves(like))):
        return keywords

    def marked(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def call(weights: Any, *args: Any) -> Any:
            return function(vary_as(weights, like), *args)

        return call

    return {
        name: marked(x) if name in FUNCTIONS and callable(x) else x
        for name, x in keywords.items()
    }


def _silent_axes() -> tuple[Any, ...]:
    """The mapped axes whose types do not show whether a value differs along them."""
    axes = jax.sharding.get_abstract_mesh().manual_axes
    spoken = _varying(vary(jnp.zeros([]), axes)) if axes else ()
    # An underscore begins the name that JAX gives to the axis of a pmap without one.
    return tuple(x for x in axes if x not in spoken and not str(x).startswith("_"))


def _is_bound(axis: str) -> bool:
    try:
        jax.lax.axis_size(axis)
    except NameError:
        return False
    return True


@jax.custom_batching.custom_vmap
def _mean_over_mapped(x: jax.Array) -> jax.Array:
    """The mean over the axis of a ``vmap``; a ``pmean`` that a ``shard_map`` allows."""
    return x


@_mean_over_mapped.def_vmap
def _(size: int, batched: list[bool], x: jax.Array) -> tuple[jax.Array, bool]:
    del size
    return (x.mean(0) if batched[0] else x), False


def cond(decision: Any, used: Callable[[], Any], skipped: Callable[[], Any]) -> Any:
    """``jax.lax.cond`` for branches of which one alone differs between devices.

    A shared gradient may be one branch's result, a second gradient of each device's
    own examples the other's: under ``jax.shard_map(..., check_vma=True)`` they have
    different types, and both get the varying one.

    Args:
        decision: scalar boolean.
        used: the branch for true; without arguments.
        skipped: the branch for false; its result is like that of ``used``.

    Returns:
        The result of the branch taken.
    """
    if not jax.sharding.get_abstract_mesh().manual_axes:
        return jax.lax.cond(decision, used, skipped)
    shapes = jax.eval_shape(used), jax.eval_shape(skipped)
    return jax.lax.cond(
        decision,
        lambda: vary_as(used(), *shapes),
        lambda: vary_as(skipped(), *shapes),
    )


def vary_as(tree: Any, *others: Any) -> Any:
    """Marks values as differing between devices wherever those of other trees do.

    Under ``jax.shard_map(..., check_vma=True)`` what a loop carries must have one type
    from its start; elsewhere this does nothing.

    Args:
        tree: arrays.
        others: trees of the same structure, of arrays or their types.

    Returns:
        The tree.
    """

    def as_others(x: jax.Array, *like: Any) -> jax.Array:
        return vary(x, frozenset().union(*map(_varying, like)))

    return jax.tree.map(as_others, tree, *others)


def vary(tree: Any, axes: Iterable[Any]) -> Any:
    """Marks values as differing between the devices of a ``jax.shard_map``.

    Args:
        tree: arrays.
        axes: names of mapped axes; those along which a value differs already count
            as done.

    Returns:
        The tree.
    """

    def mark(x: jax.Array) -> jax.Array:
        missing = tuple(frozenset(axes) - _varying(x))
        return jax.lax.pcast(x, missing, to="varying") if missing else x

    return jax.tree.map(mark, tree)


def _varying(x: Any) -> frozenset[Any]:
    """The axes along which an array, or one of a type, differs between devices."""
    aval = x if hasattr(x, "manual_axis_type") else jax.typeof(x)
    return getattr(aval.manual_axis_type, "varying", frozenset())


def placed_as(x: jax.Array, like: Any) -> jax.Array:
    """Cuts an array over devices as another one of the same shape.

    Only on a mesh with explicit axes, where the two have different types if they are
    cut in different ways; elsewhere the compiler sees to it.

    Args:
        x: an array made of nothing that is cut, such as random numbers or zeros.
        like: an array.

    Returns:
        The array.
    """
    return _placed(x, jax.typeof(like).sharding)


def whole(x: jax.Array) -> jax.Array:
    """Brings together what is cut over devices by explicit axes; see `placed_as`."""
    return _placed(x, NamedSharding(jax.typeof(x).sharding.mesh, PartitionSpec()))


def _placed(x: jax.Array, sharding: Any) -> jax.Array:
    explicit = AxisType.Explicit in sharding.mesh.axis_types
    return jax.reshard(x, sharding) if explicit else x


def pmean(axis_name: str | tuple[str, ...]) -> optax.GradientTransformation:
    """Averages the updates over the devices of a ``jax.shard_map`` or ``pmap`` axis.

    Where it stands in a chain decides who shares a perturbation: in
    ``chain(sam(rho), pmean("data"), sgd)`` each device perturbs with the gradient of
    its own examples (m-sharpness, Foret et al. 2021); with a ``pmean`` before ``sam``
    as well, all share one. With ``check_vma=True`` (JAX's default) mark the parameters
    as varying, ``jax.lax.pcast(params, "data", to="varying")``, before differentiating,
    or the gradients arrive summed over the devices already. Give the update these, too;
    a method that takes the step averages them once more, unless it has the parameters
    themselves and a gradient that no ``pmean`` has seen.

    Args:
        axis_name: name (or names) of the mapped axis.

    Returns:
        A stateless transformation.
    """
    return optax.stateless(lambda updates, _: jax.lax.pmean(updates, axis_name))
