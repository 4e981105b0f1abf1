"""Several groups on one device, in all forms of the loop over them."""

import dataclasses
from collections.abc import Callable
from typing import Any

from experiments.benchmarks import measure, programs
from experiments.benchmarks.scaling import common
from sam_jax import data
from sam_jax.train import build as build_lib
from sam_jax.train import groups

ONE_PERTURBATION, ONE_BY_ONE = "m = batch", "one after another"
UNROLLED, TOGETHER = "one after another, unrolled", "all at once (vmap)"


def section(args: Any) -> tuple[measure.Results, measure.Tables]:
    """Several groups on one device, in all forms of the loop over them."""
    model, batch, size = args.groups_model, args.groups_batch, args.groups_size
    chosen = programs.settings("sam", model, batch_size=batch, method_group_size=size)
    made = {
        form: programs.Program(run)
        for form, run in forms(chosen, programs.noise(batch)).items()
    }
    for program in made.values():
        program()  # the first time warms up
    times = measure.in_turns(made, args.rounds)
    results = {
        form: {
            "seconds": times[form],
            "time_ratio": measure.ratio(times[form], times[ONE_PERTURBATION])._asdict(),
            "compile_seconds": program.row["compile_seconds"],
            "temp_bytes": program.row["temporary_bytes"],
        }
        for form, program in made.items()
    }
    rows = [
        [
            form,
            f"{measure.median(found['seconds']):.3f}",
            measure.Ratio(**found["time_ratio"]),
            f"{found['compile_seconds']:.1f}",
            common.mega(found["temp_bytes"]),
        ]
        for form, found in results.items()
    ]
    time = f"time / {ONE_PERTURBATION}"
    table = measure.markdown(
        ["groups", "s / step", time, "compile (s)", "temp (MB)"], rows
    )
    return results, {f"SAM, {model}, m = {size}, batch {batch}": table}


def forms(config: Any, dataset: data.Dataset) -> dict[str, build_lib.Run]:
    """Runs on one device that differ in the loop over groups alone."""
    own, _ = build_lib.layout(config)
    of_forms = {
        ONE_PERTURBATION: groups.WHOLE,
        ONE_BY_ONE: own,
        UNROLLED: Unrolled(**dataclasses.asdict(own)),
        # Without an axis for BatchNorm in the network, each group has its statistics.
        TOGETHER: dataclasses.replace(own, lockstep=True),
    }
    return {
        form: programs.run(config, dataset, groups=of) for form, of in of_forms.items()
    }


class Unrolled(groups.Groups):
    """Groups one after another written out in the program."""

    def network_pass(self, fn: Callable[..., Any], how: Any) -> Callable[..., Any]:
        """As that of all groups."""
        own = groups.Groups(chunks=self.chunks).network_pass(fn, how)
        return groups.one_by_one(own, unroll=True)
