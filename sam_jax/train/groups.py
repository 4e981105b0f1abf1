"""Who shares a perturbation: how a batch falls into groups, and groups into chunks.

A batch is cut into groups of ``m`` consecutive examples (``config.method_group_size``).
The method runs once for each group, with that group's gradients, as if there were no
other; the directions are averaged, and what a method keeps is agreed upon by all groups
(`sam_jax.methods.devices.agree`). The result is a function of ``m`` alone: whether
groups lie on one device or on many changes who waits for whom, not what is computed.

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
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from sam_jax import errors
from sam_jax.methods.devices import GROUP_AXIS, agree, vary, vary_as
from sam_jax.train import coefficients, settings, sharding


class Parts(NamedTuple):
    """What is computed from a part of a batch, by how parts make a whole.

    Attributes:
        mean: a tree of arrays that are averaged over the parts.
        rows: a tree of arrays with a row for each example.
        same: a tree of arrays that are the same for all parts.
    """

    mean: Any = ()
    rows: Any = ()
    same: Any = ()


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
    """

    count: int = 1
    per_device: int = 1
    members: int = 1
    chunks: int = 1
    lockstep: bool = False

    def gradient(self, fn: Callable[..., Parts]) -> Callable[..., Parts]:
        """Prepares a pass through the network for chunks, and for groups in turn.

        Args:
            fn: ``(params, *others, examples, key) -> Parts`` with ``mean`` and
                ``rows``; the examples are a tree of arrays with a row for each.

        Returns:
            The same function of a whole group.
        """
        own = accumulate(_of_own(fn), self.chunks)
        in_turn = self.per_device > 1 and not self.lockstep
        return one_by_one(own) if in_turn else own

    def average(
        self, fn: Callable[..., Parts], mesh: jax.sharding.Mesh | None
    ) -> Callable[..., Parts]:
        """Computes something of every group and makes it one of the whole batch.

        Args:
            fn: ``(params, state, examples, key) -> Parts`` of one group; the state is
                any tree, the same for all groups.
            mesh: of the run; None is a single device.

        Returns:
            The same function of the whole batch. Each group has a key of its own, drawn
            from that of the batch by the group's number.
        """
        if self.count == 1:
            return fn

        def averaged(params: Any, state: Any, examples: Any, key: jax.Array) -> Parts:
            keys = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(self.count))
            compute = self._together if self.lockstep else self._apart
            return compute(fn, mesh)(params, state, examples, keys)

        return averaged

    def _apart(
        self, fn: Callable[..., Parts], mesh: jax.sharding.Mesh | None
    ) -> Callable[..., Parts]:
        """Each device its own groups."""
        if mesh is None or mesh.size == 1:
            return functools.partial(_of_each, fn, self.per_device)
        axes, groups = sharding.GROUP_AXES, jax.P(sharding.GROUP_AXES)

        def on_device(params: Any, state: Any, examples: Any, keys: Any) -> Parts:
            result = _of_each(fn, self.per_device, params, state, examples, keys)
            # Some methods agree upon their direction: that is not reduced again.
            return result._replace(mean=agree(result.mean))

        return jax.shard_map(
            on_device,
            mesh=mesh,
            axis_names=set(axes),
            in_specs=(jax.P(), jax.P(), groups, groups),
            out_specs=Parts(mean=jax.P(), rows=groups, same=jax.P()),  # pyright: ignore[reportArgumentType]
        )

    def _together(
        self, fn: Callable[..., Parts], mesh: jax.sharding.Mesh | None
    ) -> Callable[..., Parts]:
        """All groups at once, the axis of groups split over the devices."""
        axes = None if mesh is None else sharding.GROUP_AXES
        return functools.partial(_of_each, fn, self.count, spmd_axis_name=axes)


WHOLE = Groups()  # the batch shares one perturbation and passes the network at once


def _of_each(
    fn: Callable[..., Parts],
    count: int,
    params: Any,
    state: Any,
    examples: Any,
    keys: jax.Array,
    **options: Any,
) -> Parts:
    """The mean over groups, the rows of all, and what they agree upon."""
    if count == 1:
        return fn(params, state, examples, keys[0])
    mapped = jax.vmap(
        fn,
        in_axes=(None, None, 0, 0),
        out_axes=Parts(mean=0, rows=0, same=None),  # pyright: ignore[reportArgumentType]
        axis_name=GROUP_AXIS,
        **options,
    )
    cut = jax.tree.map(lambda x: x.reshape(count, -1, *x.shape[1:]), examples)
    result = mapped(params, state, cut, keys)
    return Parts(
        mean=jax.tree.map(lambda x: x.mean(0), result.mean),
        rows=jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), result.rows),
        same=result.same,
    )


def _of_own(fn: Callable[..., Parts]) -> Callable[..., Parts]:
    """The function of weights that belong to a device's own group.

    In a ``shard_map`` a gradient with respect to weights that are the same on all
    devices would be the sum over them.
    """

    def of_own(params: Any, *others: Any) -> Parts:
        devices = jax.sharding.get_abstract_mesh().manual_axes
        return fn(vary(params, devices), *others)

    return of_own


def accumulate(fn: Callable[..., Parts], chunks: int) -> Callable[..., Parts]:
    """Computes something of many examples in chunks, one after another.

    Args:
        fn: ``(*others, examples, key) -> Parts`` with ``mean`` and ``rows``.
        chunks: their number; the examples divide by it. Chunk j has the examples
            j, j + chunks, ...

    Returns:
        The same function of all examples, with the memory of a chunk. Each chunk has a
        key of its own.

    Example:
        >>> fn = lambda w, x, key: Parts(mean=w * x.mean(), rows=w * x)
        >>> whole = accumulate(fn, chunks=2)(2.0, jnp.arange(4.0), jax.random.key(0))
        >>> print(whole.mean, whole.rows)
        3.0 [0. 2. 4. 6.]
    """
    if chunks == 1:
        return fn

    def accumulated(*args: Any) -> Parts:
        *others, examples, key = args
        parts = jax.tree.map(
            lambda x: jnp.moveaxis(x.reshape(-1, chunks, *x.shape[1:]), 1, 0), examples
        )
        keys = jax.random.split(key, chunks)

        def of_chunk(chunk: Any) -> Parts:
            return fn(*others, *chunk)

        def add(total: Any, chunk: Any) -> tuple[Any, Any]:
            result = of_chunk(chunk)
            return jax.tree.map(jnp.add, total, result.mean), result.rows

        first = jax.tree.map(lambda x: x[0], (parts, keys))
        shapes = jax.eval_shape(of_chunk, first).mean
        zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
        total, rows = jax.lax.scan(add, vary_as(zeros, shapes), (parts, keys))
        return Parts(
            mean=jax.tree.map(lambda x: x / chunks, total),
            rows=jax.tree.map(
                lambda x: jnp.moveaxis(x, 0, 1).reshape(-1, *x.shape[2:]), rows
            ),
        )

    return accumulated


def one_by_one(fn: Callable[..., Any], *, unroll: int | bool = 1) -> Callable[..., Any]:
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


def layout(
    batch_size: int,
    group_size: int | None,
    accumulation_steps: int,
    batch_norm: str,
    devices: int,
    fsdp: int = 1,
) -> Groups:
    """Lays a batch out on devices.

    Args:
        batch_size: examples in a batch, a multiple of the devices.
        group_size: m, or None for the batch.
        accumulation_steps: at most the ``accumulation_steps``-th part of the batch
            passes through the network at once.
        batch_norm: ``"group"`` or ``"batch"``: statistics of what passes through the
            network together, or of all groups.
        devices: their number.
        fsdp: of them in a row; groups of several devices fit into rows, or are rows.

    Returns:
        Groups and chunks.

    Raises:
        UserError: if something does not divide, with the nearest values that do.

    Example:
        >>> layout(128, 16, 1, "group", devices=4)
        Groups(count=8, per_device=2, members=1, chunks=1, lockstep=False)
    """
    size = batch_size if group_size is None else group_size
    share = batch_size // devices

    def fits(m: int) -> bool:
        if batch_size % m or (m % share and share % m):
            return False
        members = max(1, m // share)
        return not (members % fsdp and fsdp % members)

    if not fits(size):
        allowed = _nearest(size, [m for m in range(1, batch_size + 1) if fits(m)])
        raise errors.UserError(
            f"config.method_group_size={size} does not divide the batch of {batch_size}"
            f" on {devices} devices, {share} examples each, into groups on whole "
            "devices or whole groups on a device"
            + (f", and into rows of {fsdp}" if fsdp > 1 else "")
            + f": take {allowed}, or None for the whole batch"
        )
    members = max(1, size // share)

    def chunks_of(steps: int) -> int | None:
        """Chunks of a group, or None if they come out uneven."""
        if batch_size % steps:
            return None
        chunk = batch_size // steps
        if chunk % size == 0:
            return 1
        chunks, rest = divmod(size, chunk)
        return None if rest or (size // members) % chunks else chunks

    chunks = chunks_of(accumulation_steps)
    if chunks is None:
        steps = [k for k in range(1, batch_size + 1) if chunks_of(k)]
        raise errors.UserError(
            f"config.accumulation_steps={accumulation_steps} does not cut groups of "
            f"{size} in a batch of {batch_size} on {devices} devices into even parts: "
            f"take {_nearest(accumulation_steps, steps)}"
        )
    count = batch_size // size
    lockstep = batch_norm == "batch" and count > 1
    if batch_norm == "batch" and accumulation_steps > 1:
        raise errors.UserError(
            "config.batch_norm=batch needs the whole batch in the network at once: set "
            "config.accumulation_steps=1, or config.batch_norm=group"
        )
    return Groups(count, max(1, share // size), members, chunks, lockstep)


def describe(config: settings.Settings, groups: Groups) -> str:
    """The batch, its groups and chunks in words, for the head of a run's log.

    Args:
        config: of the run.
        groups: its layout.

    Returns:
        Such as ``1024, in groups of 128, each with one perturbation``.
    """
    size = config.method_group_size
    words = str(config.batch_size)
    if size is not None:
        words += f", in groups of {size}"
    if config.method.name != coefficients.BASELINE:
        words += f", {'sharing' if size is None else 'each with'} one perturbation"
    if groups.chunks > 1:
        words += f", in {groups.chunks} chunks"
    elif config.accumulation_steps > 1:
        words += f", whole: accumulation_steps={config.accumulation_steps} cuts none"
    return words


def _nearest(value: int, allowed: list[int]) -> str:
    """The nearest allowed value below, and the one above."""
    below = [x for x in allowed if x < value][-1:]
    above = [x for x in allowed if x > value][:1]
    return " or ".join(map(str, below + above))
