"""What a device keeps between steps, the state cut over 1, 2, 4, ... devices."""

from typing import Any

import jax

from experiments.benchmarks import measure, programs
from experiments.benchmarks.scaling import common

METHODS = ("sam", "vasso")


def section(args: Any) -> tuple[measure.Results, measure.Tables]:
    """Memory of the state, cut over 1, 2, 4, ... devices."""
    records = [
        record
        for model in args.memory_models
        for method in METHODS
        for record in kept(model, method)
    ]
    rows = [
        [
            *(r["model"], r["method"], r["fsdp"], common.mega(r["bytes"])),
            *(f"{r['ratio']:.4f}", common.mega(r["whole_bytes"])),
        ]
        for r in records
    ]
    columns = "model", "method", "fsdp", "MB on a device", "/ fsdp = 1", "not cut (MB)"
    table = measure.markdown(columns, rows)
    return records, {"Parameters, optimizer and method, on one device": table}


def kept(model: str, method: str) -> list[dict[str, Any]]:
    """What one device keeps of parameters, optimizer and method.

    Returns:
        A record for each number of devices: ``bytes``, the ``ratio`` to one device, and
        ``whole_bytes``, those of arrays too small to be cut.
    """
    records = []
    for fsdp in common.device_counts():
        chosen = programs.settings(method, model, mesh={"data": 1, "fsdp": fsdp})
        state = programs.run(chosen, common.digits(chosen.batch_size)).abstract_state()
        arrays = jax.tree.leaves((state.params, state.opt_state))
        local = [
            jax.ShapeDtypeStruct(x.sharding.shard_shape(x.shape), x.dtype)
            for x in arrays
        ]
        whole = sum(
            _bytes(part)
            for x, part in zip(arrays, local, strict=True)
            if part.shape == x.shape
        )
        size = sum(map(_bytes, local))
        records.append(
            {
                "model": model,
                "method": method,
                "fsdp": fsdp,
                "bytes": size,
                "ratio": size / (records[0]["bytes"] if records else size),
                "whole_bytes": whole,
            }
        )
    return records


def _bytes(x: jax.ShapeDtypeStruct) -> int:
    return x.size * x.dtype.itemsize
