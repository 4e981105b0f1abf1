"""Who shares a perturbation: how a batch falls into groups, and groups into chunks.

A batch is cut into groups of ``m`` consecutive examples (``config.method_group_size``).
The method runs once for each group, with that group's gradients, as if there were no
other; the directions are averaged, and what a method keeps is agreed upon by all groups
(`sam_jax.methods.devices.agree`). The result is a function of ``m`` alone: whether
groups are on one device or on many changes who waits for whom, not what is computed.

- One group (m = batch): nothing is done by hand, XLA splits the program over the
  devices. Each of the two gradients is one mean over all of them.
- A group for each device, or for each few neighbours (`sharding.GROUP_AXES`): a
  ``jax.shard_map``, in which only the direction is averaged over the groups. The
  devices that share a group split its work as XLA likes.
- Several groups on one device: a ``jax.vmap`` over the method's own arithmetic, in
  which each gradient runs over the groups one after another: a network with weights of
  its own for each group would have grouped convolutions, which are slow.

``config.accumulation_steps`` bounds the examples of a group that pass through the
network at once, inside of every gradient: a group is cut into chunks, every c-th
example in the same one, so that each device has its share of every chunk wherever the
examples lie. Groups that are no larger than a chunk pass whole, one after another on
each device.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp

from sam_jax.methods.devices import GROUP_AXIS, agree, vary, vary_as
from sam_jax.train import sharding

_T = TypeVar("_T")


# How the results of parts of a batch make that of the whole. A tree of these says it of
# the results of a function, as ``out_axes`` does for ``jax.vmap``.
MEAN = "mean"  # averaged over the parts; of whole numbers, as of a count, the largest
ROWS = "rows"  # a row for each example
SAME = "same"  # alike for all parts
How = Any


@dataclasses.dataclass(frozen=True)
class Groups:
    """A batch in groups, the groups on devices, and a group in chunks.

    Attributes:
        count: groups in a batch.
        per_device: groups that a device computes one after another, at least 1.
        members: neighbouring devices that share a group, at least 1.
        chunks: parts in which a group passes through the network.
        lockstep: all groups pass through the network together, layer by layer, so that
            BatchNorm can normalize by the statistics of the whole batch. The loss of a
            group then depends on the weights of all, and its gradient is that of the
            sum of all losses with respect to its own weights.
        norm_examples: by whose statistics BatchNorm normalizes; a larger number passes
            through the network in multiples of it.
    """

    count: int = 1
    per_device: int = 1
    members: int = 1
    chunks: int = 1
    lockstep: bool = False
    norm_examples: int = 1

    def network_pass(self, fn: Callable[..., _T], how: How) -> Callable[..., _T]:
        """Prepares a pass through the network for chunks, and for groups in turn.

        Args:
            fn: ``(params, *others, rows, key) -> result``; the rows are a tree of
                arrays with a row for each example.
            how: the result is put together; `MEAN` and `ROWS`.

        Returns:
            The same function of a whole group.
        """
        own = accumulate(_of_own(fn), how, self.chunks)
        in_turn = self.per_device > 1 and not self.lockstep
        return one_by_one(own) if in_turn else own

    def average(
        self, fn: Callable[..., _T], how: How, mesh: jax.sharding.Mesh | None
    ) -> Callable[..., _T]:
        """Computes something of every group and makes it one of the whole batch.

        Args:
            fn: ``(params, kept, examples, key) -> result`` of one group; what is kept
                is any tree, the same for all groups.
            how: the result is put together.
            mesh: of the run; None is a single device.

        Returns:
            The same function of the whole batch. Each group has a key of its own, drawn
            from that of the batch by the group's number.
        """
        if self.count == 1:
            return fn

        def averaged(params: Any, kept: Any, examples: Any, key: jax.Array) -> _T:
            keys = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(self.count))
            compute = self._together if self.lockstep else self._apart
            return compute(fn, how, mesh)(params, kept, examples, keys)

        return averaged

    def _apart(
        self, fn: Callable[..., _T], how: How, mesh: jax.sharding.Mesh | None
    ) -> Callable[..., _T]:
        """Each device its own groups."""
        if mesh is None or mesh.size == 1:
            return _of_each(fn, how, self.per_device)
        of_device = _of_each(fn, how, self.per_device)
        groups = jax.P(sharding.GROUP_AXES)
        places = jax.tree.map(lambda kind: groups if kind == ROWS else jax.P(), how)
        on_cpu = mesh.devices.flat[0].platform == "cpu"

        def mean_of(x: jax.Array) -> jax.Array:
            if _is_whole(x):
                return jax.lax.pmax(vary(x, sharding.GROUP_AXES), sharding.GROUP_AXES)
            # XLA for CPUs (jaxlib 0.10.2) aborts at such an all-reduce.
            wide = on_cpu and x.dtype == jnp.bfloat16
            return agree(x.astype(jnp.float32)).astype(x.dtype) if wide else agree(x)

        def on_device(params: Any, kept: Any, examples: Any, keys: jax.Array) -> _T:
            result = of_device(params, kept, examples, keys)
            # Some methods agree upon their direction: that is not reduced again.
            mean = jax.tree.map(mean_of, _take(how, result, MEAN))
            return _put(how, result, MEAN, mean)

        return jax.shard_map(
            on_device,
            mesh=mesh,
            axis_names=set(sharding.GROUP_AXES),
            in_specs=(jax.P(), jax.P(), groups, groups),
            out_specs=places,
        )

    def _together(
        self, fn: Callable[..., _T], how: How, mesh: jax.sharding.Mesh | None
    ) -> Callable[..., _T]:
        """All groups at once, the axis of groups split over the devices."""
        axes = None if mesh is None else sharding.GROUP_AXES
        return _of_each(fn, how, self.count, spmd_axis_name=axes)


def narrowed(direction: Any, dtype: str) -> Any:
    """A direction as groups send it to each other.

    Args:
        direction: arrays.
        dtype: ``float32`` leaves all as they are; in ``bfloat16`` those of two or more
            dimensions take half of the bytes.

    Returns:
        The arrays.

    Example:
        >>> found = narrowed({"w": jnp.ones((2, 2)), "b": jnp.ones(2)}, "bfloat16")
        >>> print(found["w"].dtype, found["b"].dtype)
        bfloat16 float32
    """
    if dtype == "float32":
        return direction
    return jax.tree.map(lambda x: x.astype(dtype) if x.ndim > 1 else x, direction)


def widened(direction: Any, like: Any, dtype: str) -> Any:
    """What `narrowed` has made narrow, in the dtypes of ``like``."""
    if dtype == "float32":
        return direction
    return jax.tree.map(lambda x, y: x.astype(y.dtype), direction, like)


WHOLE = Groups()  # the batch shares one perturbation and passes the network at once


def _of_each(
    fn: Callable[..., _T], how: How, count: int, **options: Any
) -> Callable[..., _T]:
    """Of the groups of a device: the mean, the rows of all, what they agree upon."""

    def of_each(params: Any, kept: Any, examples: Any, keys: jax.Array) -> _T:
        if count == 1:
            return fn(params, kept, examples, keys[0])
        mapped = jax.vmap(
            fn,
            in_axes=(None, None, 0, 0),
            out_axes=jax.tree.map(lambda kind: None if kind == SAME else 0, how),
            axis_name=GROUP_AXIS,
            **options,
        )
        cut = jax.tree.map(lambda x: x.reshape(count, -1, *x.shape[1:]), examples)
        result = mapped(params, kept, cut, keys)
        mean = jax.tree.map(
            lambda x: x.max(0) if _is_whole(x) else x.mean(0),
            _take(how, result, MEAN),
        )
        rows = jax.tree.map(
            lambda x: x.reshape(-1, *x.shape[2:]), _take(how, result, ROWS)
        )
        return _put(how, _put(how, result, MEAN, mean), ROWS, rows)

    return of_each


def _of_own(fn: Callable[..., _T]) -> Callable[..., _T]:
    """The function of weights that belong to a device's own group.

    In a ``shard_map`` a gradient with respect to weights that are the same on all
    devices would be the sum over them.
    """

    def of_own(params: Any, *others: Any) -> _T:
        devices = jax.sharding.get_abstract_mesh().manual_axes
        return fn(vary(params, devices), *others)

    return of_own


def accumulate(fn: Callable[..., _T], how: How, chunks: int) -> Callable[..., _T]:
    """Computes something of many examples in chunks, one after another.

    Args:
        fn: ``(*others, rows, key) -> result``.
        how: the result is put together; `MEAN` and `ROWS`.
        chunks: their number; the rows divide by it. Chunk j has the rows j,
            j + chunks, ...

    Returns:
        The same function of all examples, with the memory of a chunk. Each chunk has a
        key of its own.

    Example:
        >>> fn = lambda w, x, key: (w * x.mean(), w * x)
        >>> whole = accumulate(fn, (MEAN, ROWS), chunks=2)
        >>> mean, rows = whole(2.0, jnp.arange(4.0), jax.random.key(0))
        >>> print(mean, rows)
        3.0 [0. 2. 4. 6.]
    """
    if chunks == 1:
        return fn

    def accumulated(*args: Any) -> _T:
        *others, rows, key = args
        parts = jax.tree.map(
            lambda x: jnp.moveaxis(x.reshape(-1, chunks, *x.shape[1:]), 1, 0), rows
        )
        keys = jax.random.split(key, chunks)

        def add(total: Any, chunk: Any) -> tuple[Any, Any]:
            result = fn(*others, *chunk)
            total = jax.tree.map(
                lambda x, y: jnp.maximum(x, y) if _is_whole(x) else x + y,
                total,
                _take(how, result, MEAN),
            )
            return total, _take(how, result, ROWS)

        first = jax.tree.map(lambda x: x[0], (parts, keys))
        shapes = _take(how, jax.eval_shape(fn, *others, *first), MEAN)
        start = jax.tree.map(_least, shapes)
        total, found = jax.lax.scan(add, vary_as(start, shapes), (parts, keys))
        mean = jax.tree.map(lambda x: x if _is_whole(x) else x / chunks, total)
        found = jax.tree.map(
            lambda x: jnp.moveaxis(x, 0, 1).reshape(-1, *x.shape[2:]), found
        )
        return _put(how, mean, ROWS, found)

    return accumulated


def _is_whole(x: Any) -> bool:
    return not jnp.issubdtype(x.dtype, jnp.inexact)


def _least(x: Any) -> jax.Array:
    """What a sum starts from, or the largest of whole numbers."""
    of_integers = jnp.issubdtype(x.dtype, jnp.integer)
    least = jnp.iinfo(x.dtype).min if of_integers else 0
    return jnp.full(x.shape, least, x.dtype)


def _take(how: How, result: Any, kind: str) -> Any:
    """The parts of a result that are put together in one way; None for the others."""
    return jax.tree.map(lambda of, x: x if of == kind else None, how, result)


def _put(how: How, result: Any, kind: str, parts: Any) -> Any:
    """A result with other such parts."""
    return jax.tree.map(
        lambda of, x, part: part if of == kind else x, how, result, parts
    )


def one_by_one(fn: Callable[..., _T], *, unroll: int | bool = 1) -> Callable[..., _T]:
    """Under ``jax.vmap`` a loop, instead of all at once.

    Args:
        fn: of arrays alone; what differs under the ``vmap`` must be its arguments.
        unroll: as in ``jax.lax.scan``.

    Returns:
        The same function.

    Example:
        >>> square = one_by_one(lambda x: x**2)
        >>> print(jax.vmap(square)(jnp.arange(3)))
        [0 1 4]
    """
    mapped = jax.custom_batching.custom_vmap(fn)

    @mapped.def_vmap
    def in_turn(count: int, batched: Any, *args: Any) -> tuple[Any, Any]:
        del count
        leaves, structure = jax.tree.flatten(args)
        flags = jax.tree.leaves(batched)
        moving = [x for x, flag in zip(leaves, flags, strict=True) if flag]

        if not moving:  # a derivative may be taken before the groups are looked at
            result = fn(*args)
            return result, jax.tree.map(lambda _: False, result)

        def of_one(carry: None, moving: list[jax.Array]) -> tuple[None, Any]:
            own = iter(moving)
            inputs = [
                next(own) if flag else x for x, flag in zip(leaves, flags, strict=True)
            ]
            return carry, fn(*structure.unflatten(inputs))

        _, results = jax.lax.scan(of_one, None, moving, unroll=unroll)
        return results, jax.tree.map(lambda _: True, results)

    return mapped
