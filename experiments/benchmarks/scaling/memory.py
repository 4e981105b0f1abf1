"""What a device keeps between steps, the state cut over 1, 2, 4, ... devices."""

import argparse
from typing import Any

import jax

from experiments.benchmarks import measure
from experiments.benchmarks.scaling import common
from sam_jax.train import build as build_lib

METHODS = ("sam", "vasso")


def section(args: argparse.Namespace) -> tuple[common.Results, common.Tables]:
    """Memory of the state, cut over 1, 2, 4, ... devices."""
    records = [
        record
        for model in args.memory_models.split(",")
        for method in METHODS
        for record in kept(model, method)
    ]
    table = measure.markdown(
        ["model", "method", "fsdp", "MB on a device", "/ fsdp = 1", "not cut (MB)"],
        [
            [
                *(r["model"], r["method"], r["fsdp"], common.mega(r["bytes"])),
                *(f"{r['ratio']:.4f}", common.mega(r["whole_bytes"])),
            ]
            for r in records
        ],
    )
    return records, {"Parameters, optimizer and method, on one device": table}


def kept(model: str, method: str) -> list[dict[str, Any]]:
    """What one device keeps of parameters, optimizer and method.

    Args:
        model: ``name`` or ``name:width``.
        method: its name.

    Returns:
        A record for each number of devices: ``bytes``, the ``ratio`` to one device, and
        ``whole_bytes``, those of arrays too small to be cut.

    Raises:
        UserError: if a setting will not do.
    """
    records = []
    for fsdp in common.device_counts():
        settings = {"mesh.data": 1, "mesh.fsdp": fsdp}
        run = build_lib.build(common.make_config(model, method, **settings))
        abstract = run.abstract_state()
        arrays = jax.tree.leaves(common.zeros((abstract.params, abstract.opt_state)))
        local = [x.addressable_shards[0].data for x in arrays]
        whole = sum(
            part.nbytes
            for x, part in zip(arrays, local, strict=True)
            if part.shape == x.shape
        )
        size = sum(part.nbytes for part in local)
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
