"""The scaling model against closed forms, and the document against the model."""

import itertools
import json
import math
import pathlib
import re

import jax
import jax.numpy as jnp
import pytest

from experiments.benchmarks import scaling_model as scaling
from sam_jax import models

DOCUMENT = pathlib.Path(__file__).parents[2] / "docs" / "cloud_tpu.md"
RESNET, VIT = scaling.MODELS["resnet50"], scaling.MODELS["vit_b16"]
EVERY = list(
    itertools.product(scaling.CHIPS.values(), scaling.MODELS.values(), scaling.COUNTS)
)


# ── Bytes ────────────────────────────────────────────────────────────────────────────


def test_an_all_reduce_sends_nothing_alone_and_twice_the_array_in_the_limit():
    assert scaling.all_reduce_bytes(100, 1) == 0
    assert scaling.all_reduce_bytes(100, 2) == 100
    assert scaling.all_reduce_bytes(100, 10**9) == pytest.approx(200)
    sent = [scaling.all_reduce_bytes(100, chips) for chips in range(1, 50)]
    assert sent == sorted(set(sent)) and sent[-1] < 200


def test_one_all_reduce_for_each_gradient_that_all_chips_share():
    rows = {row.step: row for row in scaling.traffic(chips=256, group=8)}
    sent = {step: row.bytes(RESNET.bytes) for step, row in rows.items()}
    sgd = sent["`sgd`"]
    assert sgd == 2 * 255 / 256 * 4 * 25_557_032
    assert sent["`sam`, m = batch"] == 2 * sgd
    assert sent["`sam`, m of one chip"] == sgd
    assert sent["`sam`, several groups on a chip"] == sgd
    assert sent["`vasso`, `friendly_sam`, m = batch"] == 2 * sgd
    assert sent["`vasso`, `friendly_sam`, m of one chip"] == 2 * sgd


@pytest.mark.parametrize("group", [2, 8, 64])
def test_a_group_of_chips_reduces_both_gradients_then_the_groups_their_directions(
    group,
):
    row = scaling.traffic(chips=256, group=group)[2]
    assert row.step == f"`sam`, m of {group} chips"
    within, between = 2 * (group - 1) / group, 2 * (1 - group / 256)
    assert row.bytes(1.0) == pytest.approx(2 * within + between)


def test_groups_of_several_chips_meet_the_two_extremes():
    assert scaling.traffic(256, 1)[2].bytes(1.0) == scaling.all_reduce_bytes(1.0, 256)
    assert scaling.traffic(256, 256)[2].bytes(1.0) == 2 * scaling.all_reduce_bytes(
        1.0, 256
    )


@pytest.mark.parametrize(("rows", "fsdp"), [(1, 8), (4, 2), (16, 16), (3, 5)])
def test_cut_parameters_gathered_once_send_what_an_all_reduce_sends(rows, fsdp):
    everywhere = scaling.all_reduce_bytes(1.0, rows * fsdp)
    once = scaling.sharded_bytes(1.0, rows, fsdp, gathers=1)
    assert once == pytest.approx(everywhere)
    again = scaling.sharded_bytes(1.0, rows, fsdp, gathers=2)
    assert again - once == pytest.approx((fsdp - 1) / fsdp)


def test_parameters_that_are_not_cut_are_not_gathered():
    for gathers in (1, 2):
        sent = scaling.sharded_bytes(1.0, rows=8, fsdp=1, gathers=gathers)
        assert sent == scaling.all_reduce_bytes(1.0, 8)


def test_the_state_falls_with_the_chips_that_share_it():
    whole = scaling.state_bytes(VIT, copies=3, fsdp=1)
    assert whole == 3 * 4 * 86_567_656
    assert scaling.state_bytes(VIT, copies=3, fsdp=64) == whole / 64


# ── Seconds ──────────────────────────────────────────────────────────────────────────


def test_slices_have_the_chips_that_they_are_listed_by():
    for chip in scaling.CHIPS.values():
        for chips, axes in chip.slices.items():
            assert math.prod(axis.size for axis in axes) == chips
        assert all(
            count % min(count, max(chip.slices)) == 0 for count in scaling.COUNTS
        )


def test_rings_have_twice_the_bandwidth_of_lines_and_half_the_hops():
    v5e, size = scaling.CHIPS["v5e"], 1e9
    line = scaling.all_reduce(v5e, 16, size)  # 4 x 4
    assert line.transfer == pytest.approx(2 * 15 / 16 * 1e9 / (2 * 5e10))
    assert line.latency == pytest.approx(2 * (3 + 3) * 1e-6)
    ring = scaling.all_reduce(v5e, 256, size)  # 16 x 16
    assert ring.transfer == pytest.approx(2 * 255 / 256 * 1e9 / (4 * 5e10))
    assert ring.latency == pytest.approx(2 * (8 + 8) * 1e-6)
    cube = scaling.all_reduce(scaling.CHIPS["v5p"], 64, size)  # 4 x 4 x 4
    assert cube.transfer == pytest.approx(2 * 63 / 64 * 1e9 / (6 * 1e11))
    assert cube.latency == pytest.approx(2 * (2 + 2 + 2) * 1e-6)


def test_slices_beyond_a_pod_add_the_shares_that_cross_the_data_centre():
    v6e, size = scaling.CHIPS["v6e"], 1e9
    pod, four = (scaling.all_reduce(v6e, chips, size) for chips in (256, 1024))
    shares = 2 * 3 / 4 * (1e9 / 256) / 12.5e9
    assert four.transfer - pod.transfer == pytest.approx(shares)
    assert four.latency - pod.latency == pytest.approx(2 * 3 * 5e-5)


def test_efficiency_is_a_share_and_overlap_helps():
    for (chip, model, count), method in itertools.product(EVERY, scaling.METHODS):
        step = scaling.step(chip, model, method, count, model.batch)
        low, high = step.efficiency
        assert 0 < low <= high <= 1
        assert (high == 1) == (low == 1) == (count == 1)
        assert 0 <= step.exposed <= step.network


def test_sam_doubles_both_times_and_m_of_one_chip_only_the_compute():
    for chip, model, count in EVERY:
        sgd, sam, per_chip = (
            scaling.step(chip, model, method, count, 8) for method in scaling.METHODS
        )
        assert sam == pytest.approx([2 * seconds for seconds in sgd])
        assert per_chip.compute == sam.compute
        assert (per_chip.network, per_chip.exposed) == (sgd.network, sgd.exposed)


def test_efficiency_grows_with_the_work_of_a_chip():
    def efficiency(batch=64, utilization=0.5, chip=scaling.CHIPS["v5e"]):
        step = scaling.step(chip, RESNET, scaling.SAM, 1024, batch, utilization)
        return step.efficiency

    for better, worse in [
        (efficiency(batch=128), efficiency()),
        (efficiency(utilization=0.25), efficiency()),
        (efficiency(), efficiency(chip=scaling.CHIPS["v5e"]._replace(link=1e9))),
        (efficiency(), efficiency(chip=scaling.CHIPS["v5e"]._replace(network=1e7))),
    ]:
        assert all(high > low for high, low in zip(better, worse, strict=True))
    assert efficiency(batch=1e9) == pytest.approx((1, 1))


def test_only_latency_is_left_of_what_fits_behind_the_backward_pass():
    v5e = scaling.CHIPS["v5e"]
    once = scaling.all_reduce(v5e, 64, RESNET.bytes)
    long = scaling.step(v5e, RESNET, scaling.SGD, 64, batch=64)
    assert long.exposed == once.latency
    short = scaling.step(v5e, RESNET, scaling.SGD, 64, batch=1)
    assert short.exposed == pytest.approx(once.total - 2 / 3 * short.compute)


def test_a_multiply_add_is_two_operations_and_a_gradient_three_passes():
    v5e = scaling.CHIPS["v5e"]._replace(peak=6 * RESNET.multiply_adds)
    sgd = scaling.step(v5e, RESNET, scaling.SGD, 1, batch=1, utilization=1.0)
    assert sgd == pytest.approx((1.0, 0.0, 0.0))


def test_the_parameters_are_those_of_the_model_here():
    model = models.build("resnet50_imagenet", num_classes=1000)
    images = jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)
    params, _ = jax.eval_shape(model.init, jax.random.key(0), images)
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == RESNET.parameters


# ── Command line and document ────────────────────────────────────────────────────────


def test_the_document_has_the_tables_that_the_script_prints(capsys):
    assert scaling.main([]) == 0
    printed = capsys.readouterr().out
    computed = DOCUMENT.read_text().partition("<!-- computed -->")[2]
    computed = computed.partition("<!-- measured -->")[0]
    tables = re.findall(r"(?:^\|.*\n)+", computed, re.M)
    assert len(tables) == 6
    assert [table for table in tables if table not in printed] == []


def test_the_record_has_every_chip_model_and_method(tmp_path, capsys):
    out = tmp_path / "scaling.json"
    assert scaling.main([f"--out={out}", "--utilization=0.25"]) == 0
    assert "utilization=0.25" in json.loads(out.read_text())["command"]
    records = json.loads(out.read_text())["results"]
    assert len(records) == 2 * len(EVERY) * len(scaling.METHODS)
    strong = [record for record in records if record["scaling"] == "strong"]
    assert {r["chips"] * r["batch_per_chip"] for r in strong} == {4096}
    capsys.readouterr()


@pytest.mark.parametrize("share", ["0", "1.5", "-1"])
def test_refuses_a_share_of_the_peak_that_is_none(share, capsys):
    with pytest.raises(SystemExit) as stopped:
        scaling.main([f"--utilization={share}"])
    assert stopped.value.code == 2
    assert "(0, 1]" in capsys.readouterr().err
