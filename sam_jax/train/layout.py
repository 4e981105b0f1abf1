"""How a batch is split over the devices: arithmetic before anything is compiled."""

from sam_jax import errors
from sam_jax.train import coefficients, settings
from sam_jax.train.groups import Groups


def lay_out(
    batch_size: int,
    group_size: int | None,
    accumulation_steps: int,
    batch_norm: str | int,
    devices: int,
    fsdp: int = 1,
) -> Groups:
    """Lays a batch out on devices.

    Args:
        batch_size: examples in a batch, a multiple of the devices.
        group_size: m, or None for the batch.
        accumulation_steps: at most the ``accumulation_steps``-th part of the batch
            passes through the network at once.
        batch_norm: ``"group"``, ``"batch"`` or a number: statistics of what passes
            through the network together, of all groups, or of that many examples.
        devices: their number.
        fsdp: of them in a row; groups of several devices fit into rows, or are rows.

    Raises:
        UserError: if something does not divide, with the nearest values that do.

    Example:
        >>> lay_out(128, 16, 1, "group", devices=4)  # doctest: +ELLIPSIS
        Groups(count=8, per_device=2, members=1, chunks=1, ...)
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
    _check_batch_norm(batch_norm, accumulation_steps, size // chunks)
    together = batch_norm if isinstance(batch_norm, int) else 1
    per_device = max(1, share // size)
    return Groups(count, per_device, members, chunks, lockstep, together)


def _check_batch_norm(
    batch_norm: str | int, accumulation_steps: int, together: int
) -> None:
    """Refuses statistics of what does not pass through the network together."""
    if batch_norm == "batch" and accumulation_steps > 1:
        raise errors.UserError(
            "config.batch_norm=batch needs the whole batch in the network at once: set "
            "config.accumulation_steps=1, or config.batch_norm=group"
        )
    if isinstance(batch_norm, int) and together % batch_norm:
        allowed = [m for m in range(1, together + 1) if together % m == 0]
        raise errors.UserError(
            f"config.batch_norm={batch_norm} does not divide the {together} examples "
            f"that pass through the network together: take "
            f"{_nearest(batch_norm, allowed)}"
        )


def describe(config: settings.Settings, groups: Groups) -> str:
    """The batch, its groups and chunks in words, for the head of a run's log."""
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
