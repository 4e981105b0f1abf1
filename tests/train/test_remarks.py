"""What a configuration asks for and never happens is said at the start."""

import dataclasses
import re

import numpy as np
import pytest

from sam_jax.train import build, cards, loop, overrides, remarks
from tests.train import runs

# Four updates in each of three epochs, as `tiny` has them.
RHO = {"name": "cosine", "value": 0.0}

SAID = [
    # The method.
    ({"method.rho": 0}, r"config\.method\.rho is 0 in every update"),
    ({"method.rho": 1e-60}, r"config\.method\.rho is 0 in every update"),
    ({"method.rho": RHO}, r"config\.method\.rho is 0 in every update"),
    (
        {"cadence.name": "late_phase", "cadence.late_phase.start": 1.0},
        "cadence.name=late_phase: none of the 12 updates has a method",
    ),
    (
        {
            "cadence.name": "late_phase",
            "cadence.late_phase.start": 0.5,
            "cadence.late_phase.stop": 0.52,
        },
        "none of the 12 updates",
    ),
    (
        {"cadence.name": "every_k", "cadence.every_k.k": 12},
        "with k=12, only the first of 12 updates",
    ),
    (
        {"cadence.name": "stochastic", "cadence.stochastic.probability": 0},
        "with probability 0, no update",
    ),
    ({"cadence.name": "every_k"}, "there is no method to use"),
    # Schedules.
    ({"learning_rate": 0}, r"config\.learning_rate is 0 in every update"),
    ({"schedule.warmup_epochs": 0.1}, "warmup_epochs=0.1 is less than half an update"),
    ({"schedule.warmup_epochs": 0.25}, "warmup_epochs=0.25 is one update, of the"),
    (
        {"method.rho": {"name": "linear", "value": 0.1, "warmup_epochs": 0.25}},
        r"config\.method\.rho\.warmup_epochs=0\.25 is one update",
    ),
    (
        {"schedule.name": "step", "schedule.boundaries": (1, 3, 60)},
        "schedule.boundaries: the run ends before epoch 3, 60",
    ),
    (
        {"method.rho": {"name": "step", "value": 0.1, "boundaries": (60,)}},
        r"config\.method\.rho\.boundaries: the run ends before epoch 60",
    ),
    # Data.
    (
        {"data.sampling.name": "importance", "data.sampling.uniform": 1},
        "config.data.sampling: every example has the same chance",
    ),
    ({"data.label_noise": 0.001}, "label_noise=0.001 makes no label wrong"),
    ({"data.cutout": 2, "data.cutout_probability": 0}, "its cutout_probability is 0"),
]


@pytest.mark.parametrize(("changes", "message"), SAID)
def test_what_has_no_effect_is_said(tiny, changes, message):
    method = "none" if changes == {"cadence.name": "every_k"} else "sam"
    (found,) = remarks.of(build.build(tiny(method, **changes)))
    assert re.search(message, found), found
    assert found.isprintable()


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"cadence.name": "every_k", "cadence.every_k.k": 11},
        {"cadence.name": "late_phase", "cadence.late_phase.start": 0.95},
        {"schedule.warmup_epochs": 0.5},
        {"schedule.name": "step", "schedule.boundaries": (1, 2.7)},
        {"data.sampling.name": "importance", "data.sampling.uniform": 0.5},
        {"data.label_noise": 0.1, "data.cutout": 2},
        {"method.rho": {"name": "linear", "value": 0.1}},
    ],
)
def test_nothing_is_said_of_what_has_an_effect(tiny, changes):
    assert list(remarks.of(build.build(tiny("sam", **changes)))) == []


def test_a_schedule_of_a_card_that_is_zero(tiny):
    config = tiny("sam", **{"method.rho": lambda count: 0.0 * count})
    assert "rho is 0 in every update" in "".join(remarks.of(build.build(config)))
    config = tiny("sam", **{"method.rho": lambda count: 0.1 * (count == 11)})
    assert not list(remarks.of(build.build(config)))


def test_a_coefficient_of_an_own_method_may_be_a_word(tiny, tmp_path):
    file = tmp_path / "my.py"
    file.write_text(
        "import sam_jax\n\ndef mine(rho: float | str = 'auto'):\n"
        "    return sam_jax.sam(0.1)\n"
    )
    config = cards.load(f"{runs.DIGITS}:{file}:mine")
    found = dataclasses.replace(tiny(), method=config.method)
    assert list(remarks.of(build.build(found))) == []


def test_scores_that_are_all_alike(tiny, tmp_path):
    np.save(tmp_path / "scores.npy", np.full(1297, 7.0))
    sampling = {"data.sampling.name": "importance"}
    sampling["data.sampling.scores"] = str(tmp_path / "scores.npy")
    (found,) = remarks.of(build.build(tiny("sam", **sampling)))
    assert "every example has the same chance" in found


def test_a_run_begins_with_it(tiny, tmp_path, capsys, monkeypatch):
    def stops(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(loop._Training, "go_on", stops)
    with pytest.raises(KeyboardInterrupt):
        loop.train_and_evaluate(tiny("none", learning_rate=0), tmp_path / "run")
    said = capsys.readouterr().out
    assert "\nwarning: config.learning_rate is 0 in every update" in said


# ── More epochs than planned ─────────────────────────────────────────────────────────

LATE = {"cadence.name": "late_phase", "cadence.late_phase.start": 0.5}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"schedule.name": "constant"}, ["is the one that it were with all of them"]),
        # Steps and warm-ups are counted in epochs.
        ({"schedule.name": "step", "schedule.boundaries": (2,)}, ["is the one that"]),
        (
            {"schedule.name": "cosine"},
            [
                "config.learning_rate is stretched over 6 epochs: 0.05 in the next "
                "update, 0 by the plan of 3",
                "6 epochs instead of the 3 that were planned: the 12 updates done were "
                "those of the other plan",
            ],
        ),
        (
            {"schedule.name": "constant", "method.rho": {"name": "linear", "value": 1}},
            ["config.method.rho is stretched", "the 12 updates done were"],
        ),
        (
            {"schedule.name": "constant"} | LATE,
            ["config.cadence.late_phase is stretched", "the 12 updates done were"],
        ),
        (
            {"schedule.name": "constant", "swa_start": 0.5},
            ["config.swa_start, as the share", "the 12 updates done were"],
        ),
    ],
)
def test_what_more_epochs_do_is_said(tiny, changes, said):
    run = build.build(tiny("sam", epochs=6, **changes))
    lines = list(remarks.of_more_epochs(run, 3, 12))
    assert len(lines) == len(said)
    for line, part in zip(lines, said, strict=True):
        assert part in line


def test_a_plan_that_changes_before_anything_is_done_is_the_plan(tiny):
    *_, line = remarks.of_more_epochs(build.build(tiny(epochs=6)), 3, 0)
    assert "is the one that it were" in line


# ── What was written for nothing ─────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("change", "switch"),
    [
        ("data.sampling.scores=x.npy", "config.data.sampling.name is 'shuffle'"),
        ("cadence.every_k.k=5", "config.cadence.name is 'always'"),
        ("cadence.late_phase.start=0.5", "config.cadence.name is 'always'"),
        ("optimizer.adamw.b1=0.5", "config.optimizer.name is 'sgd'"),
        ("optimizer.adam.b1=0.5", "config.optimizer.name is 'sgd'"),
        ("schedule.boundaries=(1,)", "config.schedule.name is 'cosine'"),
        ("schedule.factor=0.5", "config.schedule.name is 'cosine'"),
        ("wandb.name=x", "config.wandb.mode is 'disabled'"),
        ("data.cutout_probability=0.5", "config.data.cutout is 0"),
        ("data.data_dir=x", "config.data.name is 'digits'"),
        ("data.cache_dir=x", "config.data.name is 'digits'"),
        ("max_consecutive_skips=3", "config.on_nonfinite is 'stop'"),
        ("model.options={}", None),
        ("epochs=2", None),
        ("optimizer.sgd.momentum=0.5", None),
        ("method.rho=0.5", None),
        ("schedule.final_fraction=0.5", None),
        ("schedule.name=cosine", None),
        ("data.sampling.name=shuffle", None),
        ('method.rho={"name": "cosine", "value": 1}', None),
        ('model.options={"depth": 1}', None),
    ],
)
def test_a_setting_of_what_is_not_chosen_is_said_to_be_unused(change, switch):
    flag = f"--config.{change}"
    found = list(overrides.unused(cards.load(runs.DIGITS, flag), [flag]))
    key = flag.partition("=")[0]
    assert found == ([] if switch is None else [f"{key} has no effect: {switch}"])


def test_what_is_chosen_as_well_is_used():
    flags = ["--config.cadence.every_k.k=5", "--config.cadence.name=every_k"]
    assert not list(overrides.unused(cards.load(runs.DIGITS, *flags), flags))


def test_a_method_that_takes_the_step_uses_no_optimizer():
    flags = ["--config.optimizer.sgd.momentum=0.5"]
    (found,) = overrides.unused(cards.load(f"{runs.DIGITS}:bsam", *flags), flags)
    assert found.endswith("config.method.name is 'bsam'")
