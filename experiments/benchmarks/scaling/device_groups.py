"""Several groups on one device, in all forms of the loop over them."""

import argparse
import dataclasses
from collections.abc import Callable
from typing import Any

from experiments.benchmarks import measure
from experiments.benchmarks.scaling import common
from sam_jax import data
from sam_jax.train import build as build_lib
from sam_jax.train import groups

ONE_PERTURBATION, ONE_BY_ONE = "m = batch", "one after another"
UNROLLED, TOGETHER = "one after another, unrolled", "all at once (vmap)"


def section(args: argparse.Namespace) -> tuple[common.Results, common.Tables]:
    """Several groups on one device, in all forms of the loop over them."""
    model, batch, size = args.groups_model, args.groups_batch, args.groups_size
    results = compare(model, batch, size, args.rounds)
    table = measure.markdown(
        [
            "groups",
            "s / step",
            f"time / {ONE_PERTURBATION}",
            "compile (s)",
            "temp (MB)",
        ],
        [
            [
                form,
                f"{common.median(result['seconds']):.3f}",
                measure.Ratio(**result["time_ratio"]),
                f"{result['compile_seconds']:.1f}",
                f"{result['temp_bytes'] / 1e6:.1f}",
            ]
            for form, result in results.items()
        ],
    )
    return results, {f"SAM, {model}, m = {size}, batch {batch}": table}


def compare(
    model: str, batch: int, size: int, rounds: int
) -> dict[str, dict[str, Any]]:
    """Times SAM's step with several groups on one device.

    Args:
        model: ``name`` or ``name:width``; images are random, 32x32x3.
        batch: examples in a batch.
        size: m.
        rounds: times taken of each.

    Returns:
        Form of the loop over the groups -> ``seconds`` of a step (all rounds),
        ``time_ratio`` to the step with m = batch, ``compile_seconds`` (Python's part
        included), ``temp_bytes``.

    Raises:
        UserError: if a setting will not do.
    """
    config = common.make_config(model, "sam", batch_size=batch, method_group_size=size)
    programs = {
        form: common.Program(run)
        for form, run in forms(config, common.random_images(batch)).items()
    }
    for program in programs.values():
        program()  # the first time warms up
    times = measure.in_turns(programs, rounds)
    return {
        form: {
            "seconds": times[form],
            "time_ratio": measure.ratio(times[form], times[ONE_PERTURBATION])._asdict(),
            "compile_seconds": program.compile_seconds,
            "temp_bytes": program.compiled.memory_analysis().temp_size_in_bytes,
        }
        for form, program in programs.items()
    }


def forms(config: Any, dataset: data.Dataset) -> dict[str, build_lib.Run]:
    """Runs on one device that differ in the loop over groups alone.

    Args:
        config: of the run.
        dataset: to train on.

    Returns:
        Form of the loop -> run; the first one has a single group.
    """
    own, _ = build_lib.layout(config)
    of_forms = {
        ONE_PERTURBATION: groups.WHOLE,
        ONE_BY_ONE: own,
        UNROLLED: Unrolled(**dataclasses.asdict(own)),
        # Without an axis for BatchNorm in the network, each group has its statistics.
        TOGETHER: dataclasses.replace(own, lockstep=True),
    }
    return {
        form: common.on_one_device(config, dataset, of) for form, of in of_forms.items()
    }


class Unrolled(groups.Groups):
    """Groups one after another written out in the program."""

    def network_pass(self, fn: Callable[..., Any], how: Any) -> Callable[..., Any]:
        """As that of all groups."""
        own = groups.Groups(chunks=self.chunks).network_pass(fn, how)
        return groups.one_by_one(own, unroll=True)
