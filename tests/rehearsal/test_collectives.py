"""What steps send, against the one table of it, on fake devices and by XLA for TPUs.

``python -m tests.rehearsal.test_collectives`` writes the table anew.
"""

import json
import os
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest

from sam_jax import errors
from sam_jax.rehearsal import hlo, processes
from sam_jax.train import environment, sharding
from tests import tiers
from tests.rehearsal import cases
from tests.train import steps

TABLE = pathlib.Path(__file__).with_name("collectives.json")
ROOT = pathlib.Path(__file__).parents[2]
FAST = (
    *("SGD", "SAM", "SAM, BatchNorm of 8", "SAM, m of a device"),
    "VaSSO, m of a device",
)


of_our_jaxlib = pytest.mark.skipif(
    not environment.is_tested(), reason="another jaxlib joins other collectives"
)


def table(compiler):
    return json.loads(TABLE.read_text())[compiler]


def on_tpus():
    """Case -> rows of the table and bytes of the state that are written in place."""
    try:
        processes.check_compiler()
    except errors.UserError as error:
        pytest.skip(str(error))
    done = subprocess.run(
        [sys.executable, "-m", "tests.rehearsal.cases"],
        cwd=ROOT,
        env=processes.environment(),
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


@of_our_jaxlib
@pytest.mark.parametrize("name", tiers.cases(FAST, cases.CASES, "more steps"))
def test_collectives_on_fake_devices(name, monkeypatch):
    monkeypatch.setattr(sharding, "SMALLEST_SHARDED", 64)
    rows = cases.counted(cases.compiled(name, jax.devices()[: cases.DEVICES]))
    assert rows == table("cpu")[name]


def test_an_evaluation_gathers_nothing():
    made = cases.functions("SAM", jax.devices()[: cases.DEVICES])
    state, batch = made.abstract_state(), made.abstract_batch()
    shape, place = (cases.BATCH,), batch["label"].sharding
    batch["mask"] = jax.ShapeDtypeStruct(shape, "bool", sharding=place)
    lowered = made.eval_step.lower(state.params, state.model_state, batch)
    found = hlo.collectives(lowered.compile())
    assert {each.name for each in found} == {"all-reduce"}
    reduced = [n for each in found for n in each.elements]
    assert max(reduced) == 1  # sums over the batch


def test_directions_in_bfloat16_are_those_in_float32_rounded():
    """Of groups on devices of their own and on one device; vectors stay as they are."""
    [batch] = steps.batches(1, cases.BATCH)
    found = {}
    for name in ("SAM, m of a device", "SAM, m of a device, bfloat16"):
        made = cases.functions(name, jax.devices()[: cases.DEVICES])
        state = made.init(made.seed)
        before = jax.device_get(state.params)
        after, _ = made.train_step(state, sharding.put_batch(batch, made.mesh))
        found[name] = jax.tree.map(np.subtract, jax.device_get(after.params), before)
    wide, narrow = (jax.tree.leaves(x) for x in found.values())
    for exact, rounded in zip(wide, narrow, strict=True):
        if exact.ndim > 1:
            scale = np.abs(exact).max()
            assert 0 < np.abs(exact - rounded).max() < 2**-6 * scale
        else:
            np.testing.assert_allclose(exact, rounded, rtol=1e-5, atol=1e-7)


@of_our_jaxlib
@pytest.mark.slow("compiles for TPUs")
def test_collectives_by_the_compiler_for_tpus():
    found = on_tpus()
    assert {name: case["rows"] for name, case in found.items()} == table("tpu")
    # The state is donated: all of its arrays are written in place, padded to tiles.
    assert min(case["reused"] for case in found.values()) > 2 * cases.GRADIENT


@pytest.mark.parametrize("compiler", ["cpu", "tpu"])
@pytest.mark.parametrize("name", cases.CASES)
def test_the_table_is_what_the_semantics_require(compiler, name):
    """Gradients that a step reduces; none of statistics that a device has alone."""
    rows = table(compiler)[name]
    sent = sum(
        bytes_
        for kind, place, _, bytes_ in rows
        if place != "BatchNorm" and kind == "all-reduce"
    )
    gradients = cases.CASES[name][2]
    if name == "SAM, fsdp":
        assert any(kind == "all-gather" for kind, *_ in rows)
        return
    if name.endswith("bfloat16") and compiler == "tpu":
        sent += 2 * (9 * 8 + 80)  # half of the matrices' bytes
    if name == "ESAM":  # and the losses of all examples, by which it chooses
        sent = min(sent, gradients * cases.GRADIENT)
    assert round(sent / cases.GRADIENT) == gradients
    own = "m of a device" in name or "BatchNorm of 8" in name
    assert own == all(place != "BatchNorm" for _, place, *_ in rows)


def markdown():
    """What steps send by the compiler for TPUs, for the document."""
    rows = {
        name: "; ".join(f"{kind}, {at}: {n}, {size}" for kind, at, n, size in sent)
        for name, sent in table("tpu").items()
    }
    lines = ["| step | sent |", "|---|---|"]
    return "\n".join(lines + [f"| {name} | {text} |" for name, text in rows.items()])


def test_the_document_has_the_table():
    assert markdown() in (ROOT / "docs" / "rehearsal.md").read_text()


def main():
    """Writes the table."""
    os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8"
    jax.config.update("jax_disable_most_optimizations", True)
    sharding.SMALLEST_SHARDED = 64
    devices = jax.devices()
    found = {
        "cpu": {n: cases.counted(cases.compiled(n, devices)) for n in cases.CASES},
        "tpu": {name: case["rows"] for name, case in on_tpus().items()},
    }
    lines = [
        f'  "{compiler}": {{\n'
        + ",\n".join(f"    {json.dumps(n)}: {json.dumps(r)}" for n, r in of.items())
        + "\n  }"
        for compiler, of in found.items()
    ]
    TABLE.write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main()
