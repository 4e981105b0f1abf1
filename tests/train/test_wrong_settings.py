"""Values that a setting cannot have, as given on a command line: one sentence each."""

import itertools

import pytest

from sam_jax import errors, methods
from sam_jax.train import build, cards, optimizer, settings
from tests.train import runs

HUGE = "99999999999999999999"
STEPS = 18


def load(*changes, method="sam"):
    """The settings and their optimizer; `changes` are such as ``epochs=2``."""
    card, flags = f"{runs.DIGITS}:{method}", [f"--config.{x}" for x in changes]
    made = cards.load(card, *flags)
    optimizer.make_optimizer(made, STEPS)
    return made


def refused(*changes, method="sam"):
    """The sentence that refuses a change."""
    with pytest.raises(errors.UserError) as raised:
        load(*changes, method=method)
    message = str(raised.value)
    assert message.isprintable() and len(message) < 1000, message
    return message


# ── Integers ─────────────────────────────────────────────────────────────────────────

INTEGERS = {
    "seed": "[0, 2**32)",
    "data.seed": "[0, 2**32)",
    "epochs": "[1, 1000000]",
    "batch_size": "[1, 2**20]",
    "method_group_size": "[1, 2**20] or None",
    "accumulation_steps": "[1, 2**20]",
    "eval_batch_size": "[1, 2**20]",
    "steps_per_dispatch": "[1, 10000]",
    "model.width": "[1, 2**16] or None",
    "data.crop": "[0, 2**16]",
    "data.randaugment": "[0, 100]",
    "data.workers": "[0, 1000]",
    "data.cutout": "[0, 2**16]",
    "data.train_examples": "[1, 2**31) or None",
    "log_every_steps": "[1, 2**31)",
    "eval_every_epochs": "[1, 2**31)",
    "checkpoint.every_epochs": "[1, 2**31) or None",
    "checkpoint.keep_last": "[1, 2**31)",
    "max_consecutive_skips": "[1, 2**31)",
    "mesh.fsdp": "[1, 2**31)",
    "sharpness.every": "[1, 2**31) or None",
    "sharpness.examples": "[1, 2**31)",
    "cadence.every_k.k": "[1, 2**31)",
}


@pytest.mark.parametrize("key", INTEGERS)
def test_integers_are_bounded(key):
    for value in (HUGE, "-1", "1e30", "1.5", "nan", "True", "abc", "[1, 2]"):
        message = refused(f"{key}={value}")
        assert f"config.{key} must be an integer in {INTEGERS[key]}, got" in message


@pytest.mark.parametrize(
    ("method", "key", "most"),
    [
        ("async_sam", "delay", 1000),
        ("eigen_sam", "power_steps", 1000),
        ("multistep_sam", "steps", 1000),
        ("lookbehind", "k", 1000),
        ("looksam", "k", 2**31 - 1),
        ("eigen_sam", "every", 2**31 - 1),
        ("sparse_sam", "every", 2**31 - 1),
        ("sparse_sam", "num_samples", 2**31 - 1),
        ("random_sam", "seed", 2**32 - 1),
    ],
)
def test_integers_of_methods_are_bounded(method, key, most):
    """Above it, a programme would never be made, or an int32 would overflow."""
    load(f"method.{key}=1", method=method)
    message = refused(f"method.{key}={HUGE}", method=method)
    assert f"config.method.{key} must be an integer <= {most}, got {HUGE}" in message


def test_a_run_has_no_more_updates_than_are_counted():
    made = settings.read({"epochs": 1_000_000})
    with pytest.raises(errors.UserError, match=r"epochs=1000000 .* at most 429"):
        optimizer.make_optimizer(made, 5_000_000)


# ── Numbers ──────────────────────────────────────────────────────────────────────────


def coefficients_of_methods():
    """Every coefficient that a whole number may stand for."""
    for name in methods.names():
        defaults = load(method=name).method.coefficients
        for key, value in defaults.items():
            if isinstance(value, float) and (name, key) != ("asam", "p"):
                yield name, key


@pytest.mark.parametrize("value", [HUGE, "1e39", "1e999", "1" + "0" * 400])
def test_coefficients_are_float32_numbers(value):
    for name, key in coefficients_of_methods():
        if value == HUGE:  # 1e20 where it is not outside of the range
            try:
                made = load(f"method.{key}={value}", method=name)
            except errors.UserError as error:
                assert f"config.method.{key} must be" in str(error)
            else:
                assert made.method.coefficients[key] == 1e20
        else:
            message = refused(f"method.{key}={value}", method=name)
            assert f"config.method.{key} must be" in message


OPTIONS = {
    "number in [0, 1)": (
        *("sgd.momentum", "adamw.b1", "adamw.b2", "lion.b1", "lion.b2"),
        *("lars.momentum", "adam.b1", "muon.beta", "rmsprop.decay"),
    ),
    "number in [0, 1]": ("adamw.eps", "adamw.eps_root", "lars.eps", "adagrad.eps"),
    "number in [0, 1000]": (
        *("adamw.weight_decay", "lion.weight_decay", "lars.weight_decay"),
        *("lars.trust_coefficient", "ademamix.alpha"),
    ),
}


@pytest.mark.parametrize(
    ("words", "key"), [(words, key) for words, keys in OPTIONS.items() for key in keys]
)
def test_options_of_optimizers_have_ranges(words, key):
    name = f"optimizer.name={key.partition('.')[0]}"
    for value in ("-1", "-0.5", "1e30", "inf", "-inf", "nan", "True", "abc", "(1,)"):
        message = refused(name, f"optimizer.{key}={value}")
        assert f"config.optimizer.{key} must be a {words}" in message
    load(name, f"optimizer.{key}=0.5")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("adamw.nesterov=off", "optimizer.adamw.nesterov must be True or False"),
        ("adamw.mu_dtype=float17", "did you mean 'float16'?"),
        ("galore.rank=1.5", "optimizer.galore.rank must be an integer"),
        ("dadapt_adamw.betas=(0.9, 2)", "betas must be a tuple of numbers"),
        ("adamw.mask=abc", "optimizer.adamw.mask must be None"),
        ("adamw.esp=1", "unknown setting of adamw 'esp': did you mean 'eps'?"),
        ("muon.preconditioning=x", "muon.preconditioning 'x'"),
    ],
)
def test_other_options_of_optimizers_are_typed(change, message):
    assert message in refused(f"optimizer.{change}")


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("weight_decay.value", "a number in [0, 1000]"),
        ("schedule.factor", "a number in [0, 1000]"),
        ("schedule.warmup_epochs", "a finite number >= 0"),
        ("schedule.final_fraction", "a number in [0, 1]"),
        ("learning_rate", "a finite number >= 0"),
        ("clip_norm", "a finite number > 0 or None"),
        ("label_smoothing", "a number in [0, 1)"),
        ("ema_decay", "a number in [0, 1)"),
        ("swa_start", "a number in [0, 1) or None"),
        ("data.label_noise", "a number in [0, 1)"),
        ("data.cutout_probability", "a number in [0, 1]"),
        ("data.sampling.uniform", "a number in [0, 1]"),
        ("cadence.late_phase.start", "a number in [0, 1]"),
        ("cadence.stochastic.probability", "a number in [0, 1]"),
        ("schedule.boundaries", "a tuple of numbers"),
        ("data.validation", "a whole number of examples or a share in [0, 1)"),
    ],
)
def test_numbers_are_checked_whether_they_are_used_or_not(key, words):
    for value in ("nan", "-1", "1e999", "abc", "True", "1" + "0" * 400, "[1, 'x']"):
        assert f"config.{key} must be {words}, got" in refused(f"{key}={value}")


# ── Other types ──────────────────────────────────────────────────────────────────────

BOOLEANS = [
    *(("asam", "layerwise"), ("asam", "biases"), ("looksam", "layerwise")),
    *(("gnp", "normalize_clean"), ("friendly_sam", "include_current")),
    ("multistep_sam", "project"),
]


@pytest.mark.parametrize(("method", "key"), BOOLEANS)
def test_booleans_of_methods_are_true_or_false(method, key):
    for value in ("no", "off", "FALSE", "f", "abc", "nan", "[1, 2]", "-1", "0", "None"):
        message = refused(f"method.{key}={value}", method=method)
        assert f"config.method.{key} must be True or False, got" in message
    for value in ("True", "true", "False", "false"):
        made = load(f"method.{key}={value}", method=method)
        assert made.method.coefficients[key] is (value in ("True", "true"))


@pytest.mark.parametrize("method", methods.names())
def test_a_list_is_no_name_of_a_mask(method):
    message = refused("method.mask=[1,2]", method=method)
    assert "unknown config.method.mask [1, 2]: There are: None, norm_layers" in message


@pytest.mark.parametrize("options", ["{'width': 3}", "{'dtype': 1}", "{1: 2}", "[1]"])
def test_options_of_models_are_its_own(options):
    spec = build.DataSpec((8, 8, 1), 10, 1168, STEPS)
    with pytest.raises(errors.UserError, match=r"config\.model\.options"):
        build.steps(load(f"model.options={options}", "mesh.data=1"), spec)


@pytest.mark.parametrize(
    ("name", "options"), [("mlp", "{'depth': 1000000}"), ("wrn1000000_9", "{}")]
)
def test_networks_have_a_depth_that_can_be_built(name, options):
    spec = build.DataSpec((8, 8, 1), 10, 1168, STEPS)
    made = load(f"model.name={name}", f"model.options={options}", "mesh.data=1")
    with pytest.raises(errors.UserError, match=r"depth.* is 1000000: give an"):
        build.steps(made, spec)


# ── Schedules ────────────────────────────────────────────────────────────────────────

TIED = 'method.rho={"name": "learning_rate", "value": 0.1, "low": 0.02}'


@pytest.mark.parametrize(
    "flat",
    [
        ["schedule.name=constant"],
        ["schedule.name=step"],  # whose boundaries lie beyond the end
        ["schedule.name=step", "schedule.boundaries=(1,)", "schedule.factor=2"],
    ],
)
def test_what_follows_the_learning_rate_needs_one_that_falls(flat):
    message = refused(TIED, *flat)
    assert "config.method.rho follows the learning rate, which ends at its" in message
    assert "--config.schedule.name=cosine" in message
    load(TIED)


def test_a_warm_up_leaves_an_update():
    assert "warmup_epochs must be in [0, 30)" in refused("schedule.warmup_epochs=30")
    message = refused("schedule.warmup_epochs=29.99")
    assert "warmup_epochs=29.99 leaves no update" in message


def test_boundaries_beyond_the_end_are_no_mistake():
    made = load("schedule.name=step", "schedule.boundaries=(15, 1e30)")
    rate = optimizer.make_optimizer(made, STEPS).learning_rate
    assert [round(float(rate(15 * STEPS + i)), 6) for i in (-1, 0)] == [0.1, 0.02]


def test_every_setting_is_one_of_these():
    """A new setting that nobody thought of here would not be tried."""
    plain = settings.flat(cards.configuration(runs.DIGITS))
    keys = itertools.chain(INTEGERS, ("mesh.data",))
    integers = {k for k, v in plain.items() if type(v) is int and "boundaries" not in k}
    assert integers - set(keys) <= {"learning_rate"}
