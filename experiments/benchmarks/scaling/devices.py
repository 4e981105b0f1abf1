"""Strong and weak scaling over the devices of one process."""

import collections
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax

from experiments.benchmarks import measure, programs
from experiments.benchmarks.scaling import common
from sam_jax.rehearsal import hlo
from sam_jax.train import build as build_lib


class Case(NamedTuple):
    """A step whose cost is counted and timed.

    Attributes:
        method: its name.
        group_size: m.
        batch: examples in a batch.
        devices: over which it is split.
    """

    method: str
    group_size: int
    batch: int
    devices: int


def section(args: Any) -> tuple[measure.Results, measure.Tables]:
    """Strong and weak scaling over the devices of this process."""
    counts = common.device_counts()
    found = records(
        args.model, counts, args.batch, args.per_device, args.rounds, args.steps
    )
    note = (
        f"{jax.device_count()} x {jax.devices()[0].device_kind} on "
        f"{measure.machine()['cores']} cores; bytes are those of one device and step"
    )
    return found, {
        f"{kind.capitalize()} scaling, {args.model} ({note})": table(
            [record for record in found if record["scaling"] == kind]
        )
        for kind in ("strong", "weak")
    }


def records(
    model: str,
    counts: Sequence[int],
    batch: int,
    per_device: int,
    rounds: int,
    steps: int,
) -> list[dict[str, Any]]:
    """Counts and times all ways to train on several numbers of devices.

    Returns:
        A record for each kind of scaling, way and number of devices: what `counted`
        says, ``seconds`` of a step (all rounds) and ``time_ratio`` to one device.
    """
    batches = {
        "strong": dict.fromkeys(counts, batch),
        "weak": {n: n * per_device for n in counts},
    }
    # Both kinds end in the same case, and on one device some ways are the same.
    cases = {
        (kind, label, n): Case(way.method, way.group(size, n), size, n)
        for kind, sizes in batches.items()
        for label, way in common.WAYS.items()
        for n, size in sizes.items()
    }
    made = {
        case: programs.Program(_of_case(model, case), steps)
        for case in dict.fromkeys(cases.values())
    }
    for program in made.values():
        program()  # the first time warms up
    names = {str(case): program for case, program in made.items()}
    times = measure.in_turns(names, rounds)
    return [
        {
            "scaling": kind,
            "step": label,
            **case._asdict(),
            **counted(made[case].compiled),
            "seconds": [t / steps for t in times[str(case)]],
            "time_ratio": measure.ratio(
                times[str(case)], times[str(cases[kind, label, 1])]
            )._asdict(),
        }
        for (kind, label, _), case in cases.items()
    ]


def _of_case(model: str, case: Case) -> build_lib.Run:
    chosen = programs.settings(
        case.method,
        model,
        batch_size=case.batch,
        method_group_size=case.group_size,
        mesh={"data": case.devices},
    )
    return programs.run(chosen, common.digits(case.batch))


def counted(compiled: Any) -> dict[str, Any]:
    """What the compiler says about a step.

    Returns:
        ``collectives`` over several devices (name -> number), ``carried_bytes`` (the
        arrays that they result in), ``sent_bytes`` (what a device sends in rings),
        ``temp_bytes`` and ``argument_bytes``; all of one device.
    """
    found = [each for each in hlo.collectives(compiled) if each.devices > 1]
    memory = programs.memory(compiled)
    return {
        "collectives": dict(collections.Counter(each.name for each in found)),
        "carried_bytes": sum(each.bytes for each in found),
        "sent_bytes": sum(each.sent for each in found),
        "temp_bytes": memory["temporary_bytes"],
        "argument_bytes": memory["argument_bytes"],
    }


COLUMNS = (
    *("step", "devices", "batch", "m", "ms / step", "time / 1 device", "collectives"),
    *("carried (MB)", "sent (MB)", "temp (MB)", "arguments (MB)"),
)


def table(records: Sequence[Mapping[str, Any]]) -> str:
    """Records of one kind of scaling as Markdown."""
    return measure.markdown(
        COLUMNS,
        [
            [
                *(r[key] for key in ("step", "devices", "batch", "group_size")),
                f"{1e3 * measure.median(r['seconds']):.1f}",
                measure.Ratio(**r["time_ratio"]),
                ", ".join(f"{n} {name}" for name, n in r["collectives"].items()) or "0",
                *(
                    common.mega(r[f"{what}_bytes"])
                    for what in ("carried", "sent", "temp", "argument")
                ),
            ]
            for r in records
        ],
    )
