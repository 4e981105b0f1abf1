"""What is computed of many chips against closed forms, and the document against it."""

import pathlib
import re

import jax
import jax.numpy as jnp
import pytest

from experiments.benchmarks import scaling_model as scaling
from sam_jax import models

DOCUMENT = pathlib.Path(__file__).parents[2] / "docs" / "cloud_tpu.md"
RESNET = scaling.MODELS["ResNet-50"]


def test_an_all_reduce_sends_nothing_alone_and_twice_the_array_in_the_limit():
    assert scaling.all_reduce_bytes(100, 1) == 0
    assert scaling.all_reduce_bytes(100, 2) == 100
    assert scaling.all_reduce_bytes(100, 10**9) == pytest.approx(200)
    sent = [scaling.all_reduce_bytes(100, chips) for chips in range(1, 50)]
    assert sent == sorted(set(sent)) and sent[-1] < 200


def test_one_all_reduce_for_each_gradient_that_all_chips_share():
    rows = {row.step: row for row in scaling.traffic(chips=256, group=8)}
    sent = {step: row.bytes(RESNET) for step, row in rows.items()}
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
    last = scaling.memory_table((1, 64)).splitlines()[-1]
    whole = 3 * 4 * 86_567_656 / 1e6
    assert last == (
        f"| ViT-B/16, the same under VaSSO | {whole:.1f} | {whole / 64:.1f} |"
    )


@pytest.mark.parametrize(
    ("name", "network"),
    [("ResNet-50", "resnet50_imagenet"), ("ViT-B/16", "vit_b16")],
)
def test_the_parameters_are_those_of_the_model_here(name, network):
    model = models.build(network, num_classes=1000)
    images = jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)
    params, _ = jax.eval_shape(model.init, jax.random.key(0), images)
    assert (
        4 * sum(leaf.size for leaf in jax.tree.leaves(params)) == scaling.MODELS[name]
    )


def test_the_document_has_the_tables_that_the_script_prints(capsys):
    assert scaling.main([]) == 0
    printed = capsys.readouterr().out
    computed = DOCUMENT.read_text().partition("<!-- computed -->")[2]
    computed = computed.partition("<!-- measured -->")[0]
    tables = re.findall(r"(?:^\|.*\n)+", computed, re.M)
    assert len(tables) == 3
    assert [table for table in tables if table not in printed] == []
