"""How a batch is laid out: groups, their devices, and parts one after another."""

import dataclasses

import pytest

from sam_jax import errors
from sam_jax.train import build, layout, settings
from sam_jax.train import groups as groups_lib


@pytest.mark.parametrize(
    ("m", "steps", "devices", "expected"),
    [
        (None, 1, 8, {"count": 1, "members": 8}),
        (16, 1, 8, {"count": 8, "members": 1}),
        (16, 1, 2, {"count": 8, "per_device": 4}),
        (32, 1, 8, {"count": 4, "members": 2}),
        (None, 4, 8, {"members": 8, "chunks": 4}),
        (64, 4, 1, {"count": 2, "per_device": 2, "chunks": 2}),
        (16, 4, 1, {"count": 8, "per_device": 8, "chunks": 1}),
    ],
)
def test_layout(m, steps, devices, expected):
    found = layout.lay_out(128, m, steps, "group", devices)
    assert found == groups_lib.Groups(**expected)


@pytest.mark.parametrize(("m", "together"), [(None, False), (64, True), (16, True)])
def test_all_groups_pass_together_for_statistics_of_the_batch(m, together):
    assert layout.lay_out(128, m, 1, "batch", 1).lockstep == together
    assert not layout.lay_out(128, m, 1, "group", 1).lockstep


@pytest.mark.parametrize(
    ("m", "steps", "devices", "said"),
    [
        (48, 1, 8, r"method_group_size=48 .*128 on 8 devices, 16 .*take 32 or 64"),
        (24, 1, 1, "take 16 or 32"),
        (200, 1, 1, "take 128, or None"),
        (None, 3, 1, r"accumulation_steps=3 .*take 2 or 4"),
        (None, 32, 8, "take 16"),
        (64, 256, 1, "take 128"),
    ],
)
def test_refuses_what_does_not_divide(m, steps, devices, said):
    with pytest.raises(errors.UserError, match=said):
        layout.lay_out(128, m, steps, "group", devices)


def test_advice_fits_the_rows_of_the_grid():
    with pytest.raises(errors.UserError, match=r"rows of 2: take 4 or 12,"):
        layout.lay_out(12, 5, 1, "group", 6, 2)


def test_head_of_the_log_says_what_is_done(tiny):
    def said(m, steps, devices, method="sam"):
        config = tiny(
            method, batch_size=64, method_group_size=m, accumulation_steps=steps
        )
        found = layout.lay_out(64, m, steps, "group", devices)
        return layout.describe(config, found)

    assert said(None, 1, 1, "sgd") == "64"
    assert said(None, 4, 2) == "64, sharing one perturbation, in 4 chunks"
    # Each device has one group, which is no larger than a chunk.
    assert said(8, 4, 8) == (
        "64, in groups of 8, each with one perturbation, whole: accumulation_steps=4 "
        "cuts none"
    )


def test_refuses_statistics_of_the_batch_in_parts():
    with pytest.raises(errors.UserError, match="accumulation_steps=1, or"):
        layout.lay_out(128, None, 2, "batch", 1)


@pytest.mark.parametrize(
    ("number", "m", "steps", "near"),
    [(48, None, 1, "32 or 64"), (64, 32, 1, "32"), (32, None, 8, "16")],
)
def test_batch_norm_of_a_number_divides_what_passes_together(number, m, steps, near):
    with pytest.raises(errors.UserError, match=f"config.batch_norm={number}.*{near}"):
        layout.lay_out(128, m, steps, number, 2)
    of_group = layout.lay_out(128, m, steps, "group", 2)
    expected = dataclasses.replace(of_group, norm_examples=8)
    assert layout.lay_out(128, m, steps, 8, 2) == expected


def test_another_dtype_of_all_reduces_is_for_groups():
    for group in (None, 128):
        given = {"all_reduce_dtype": "bfloat16", "method_group_size": group}
        chosen = settings.read(given | {"batch_size": 128})
        with pytest.raises(errors.UserError, match="separately: set"):
            build.layout(chosen)
