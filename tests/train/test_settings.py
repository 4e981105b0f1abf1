"""The typed settings: what was chosen and no more, every value checked."""

import dataclasses
import json

import numpy as np
import pytest

from sam_jax import errors
from sam_jax.train import coefficients, config, settings


@pytest.fixture
def read(tiny):
    """``read("sam", **{"epochs": 3})``: those of the tiny configuration."""
    return lambda method="sam", **changes: tiny(method, **changes)


def test_the_defaults_are_those_of_the_configuration():
    assert settings.read(config.default_config()) == settings.Settings()
    assert settings.read({}) == settings.Settings()


def test_what_is_not_chosen_does_not_exist(read):
    found = read(**{"optimizer.name": "adamw", "schedule.name": "step"})
    assert found.optimizer.options.keys() == {"b1", "b2", "eps", "weight_decay"}
    assert not hasattr(found.schedule, "final_fraction")
    assert not hasattr(found.cadence, "k")
    assert not hasattr(found.data.sampling, "uniform")


def test_an_array_is_no_choice():
    with pytest.raises(errors.UserError, match=r"config.data.resize .*pad, squash"):
        settings.read({"data": {"resize": np.array([1, 2])}})


def test_a_number_of_examples_stays_whole(read):
    assert isinstance(read(**{"data.validation": 97}).data.validation, int)
    assert isinstance(read(**{"data.validation": 0.5}).data.validation, float)


def test_a_run_cannot_change_its_settings(read):
    with pytest.raises(dataclasses.FrozenInstanceError):
        read().epochs = 3


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("clip_norm", 0.0, "must be a finite number > 0 or None, got 0.0"),
        ("schedule.boundaries", (1, "x"), "must be a tuple of numbers, got"),
        ("weight_decay.kind", "los", "'los': did you mean 'loss'"),
        ("wandb.mode", "off-line", "'off-line': did you mean 'offline'"),
        ("cadence.name", "everyk", "'everyk': did you mean 'every_k'"),
        ("batch_norm", 0, "must be .*'batch'.* or .*integer.*, got 0"),
    ],
)
def test_refuses_with_setting_value_and_what_is_allowed(read, key, value, message):
    with pytest.raises(errors.UserError, match=message) as raised:
        read(**({"schedule.name": "step"} | {key: value}))
    assert f"config.{key}" in str(raised.value)
    assert "\n" not in str(raised.value)


def test_refuses_a_key_that_does_not_exist():
    message = "'config.data.nme': did you mean 'config.data.name'"
    with pytest.raises(errors.UserError, match=message):
        settings.read({"data": {"nme": "digits"}})
    with pytest.raises(errors.UserError, match=r"config\.data must be a mapping"):
        settings.read({"data": "digits"})


@pytest.mark.parametrize(
    ("method", "key", "value", "message"),
    [
        # A text is true, and --config.method.layerwise=off is a text.
        ("looksam", "layerwise", "off", "must be True or False, got 'off'"),
        ("looksam", "k", 5.0, "must be an integer, got 5.0"),
        ("looksam", "k", True, "must be an integer, got True"),
        ("looksam", "rho", False, "must be a number or a schedule, got False"),
        ("looksam", "rho", None, "must be a number or a schedule, got None"),
        ("unified_sam", "lam", None, "a number or a text or a schedule, got None"),
        ("bsam", "num_examples", "all", "must be an integer or None, got 'all'"),
        ("random_sam", "noise", 3, "must be a text, got 3"),
        ("asam", "eta", {"name": "cosine", "value": 1}, "must be a number, got {"),
        ("sam", "mask", "norms", "mask 'norms': did you mean 'norm_layers'?"),
        ("sam", "rho", {"name": "cosine"}, "rho: .* needs 'name' and 'value'"),
        ("sam", "rho", {"value": 0.1}, "rho: .* needs 'name' and 'value'"),
        ("sam", "rho", {"name": "cosine", "value": -1}, "rho.value must be .* got -1"),
        ("sam", "rho", {"name": "cosne", "value": 1}, "did you mean 'cosine'?"),
        (
            "sam",
            "rho",
            {"name": "cosine", "value": 1, "final_fractio": 0},
            "did you mean 'config.method.rho.final_fraction'?",
        ),
    ],
)
def test_coefficients_have_the_types_of_the_factory(read, method, key, value, message):
    with pytest.raises(errors.UserError, match=message) as raised:
        read(method, **{f"method.{key}": value})
    assert f"config.method.{key}" in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_whole_number_is_a_number_too(read):
    assert read("asam", **{"method.p": 3}).method.coefficients["p"] == 3


def test_a_coefficient_of_a_card_may_be_a_schedule_of_optax(read):
    def schedule(count):
        return 0.1 / (count + 1)

    assert read(**{"method.rho": schedule}).method.coefficients["rho"] is schedule


def test_coefficients_that_are_missing_have_their_defaults():
    assert coefficients.Method.read({"name": "sam"}, "x").coefficients["rho"] == 0.05


# ── Written and compared ─────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "changes",
    [
        {"cadence.name": "every_k", "cadence.every_k.k": 3},
        {"schedule.name": "step", "schedule.boundaries": (1, 2.5)},
        {"data.sampling.name": "importance", "data.sampling.uniform": 0.5},
        {"optimizer.name": "lars", "method_group_size": 8, "data.validation": 97},
        {"method.rho": {"name": "learning_rate", "value": 0.4, "low": 0.1}},
        {"method.rho": {"name": "cosine", "value": 0.4, "warmup_epochs": 1}},
    ],
)
def test_json_gives_the_same_settings(read, changes):
    found = read(**changes)
    assert found != read()
    text = settings.to_json(found)
    assert settings.read(json.loads(text)) == found
    assert settings.differences(found, settings.read(json.loads(text))) == []
    assert list(json.loads(text)) == sorted(json.loads(text))


def test_a_whole_configuration_gives_the_same_settings(tmp_path):
    """What earlier run folders hold: the settings of what was not chosen as well."""
    made = config.default_config()
    made.method = config.load_method("unified_sam", card=tmp_path / "card.py")
    stored = json.loads(made.to_json_best_effort())
    assert {"adamw", "lars"} <= stored["optimizer"].keys()
    assert settings.differences(settings.read(stored), settings.read(made)) == []


def test_differences_name_nested_new_and_lost_keys(read):
    old = read(**{"schedule.name": "step", "wandb.mode": "offline"})
    new = read(**{"data.crop": 2, "data.data_dir": "y", "mesh.data": -1})
    assert settings.differences(old, new) == [
        "data.crop: 0 -> 2",
        "schedule.boundaries: [60, 120, 160] -> None",
        "schedule.factor: 0.2 -> None",
        "schedule.final_fraction: None -> 0.0",
        "schedule.name: step -> cosine",
    ]


def test_free_settings_exist(read):
    """A setting that was renamed must not stay free under its old name."""
    flat = settings.flat(json.loads(settings.to_json(read())))
    for free in settings.FREE_SETTINGS:
        assert any(key == free or key.startswith(f"{free}.") for key in flat), free


def test_sgd_as_a_method_is_the_baseline():
    sgd, none = (settings.read({"method": {"name": x}}) for x in ("sgd", "none"))
    assert sgd == none


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"optimizer": "sgd"}, "config.optimizer must be a mapping of settings"),
        ({"optimizer": {"name": "sgd", "sgd": 0.3}}, "config.optimizer.sgd must be a"),
        ({"optimizer": {"name": "sgd", "momentum": 0.8}}, "optimizer.momentum must be"),
        ({"method": "sam"}, "config.method must be a mapping of settings, got 'sam'"),
        ({"schedule": {"name": ["a"]}}, "config.schedule.name"),
        (
            {
                "method": {
                    "name": "sam",
                    "rho": {"name": "cosine", "value": 1, "low": 0},
                }
            },
            "unknown setting 'config.method.rho.low'",
        ),
        (
            {
                "method": {
                    "name": "sam",
                    "rho": {"name": "learning_rate", "value": 1, "factor": 0.5},
                }
            },
            "unknown setting 'config.method.rho.factor'",
        ),
        ({"model": {"options": {1: 3}}}, "model.options must be a mapping of names"),
        ({"model": {"options": {"a": {"b": 1, 2: 3}}}}, "mapping of names"),
        (
            {"checkpoint_every_epochs": 5},
            "checkpoint_every_epochs is now config.checkpoint.every_epochs",
        ),
    ],
)
def test_settings_of_the_wrong_shape_are_refused(changes, message):
    with pytest.raises(errors.UserError, match=message):
        settings.read(changes)


def test_numbers_of_numpy_are_numbers():
    method = {"name": "looksam", "rho": np.float32(0.5), "k": np.int64(3)}
    found = settings.read({"seed": np.int64(5), "method": method})
    assert found.seed == 5 and type(found.seed) is int
    assert found.method.coefficients["rho"] == 0.5
    json.loads(settings.to_json(found))


def test_runs_share_no_options():
    settings.Settings().optimizer.options["momentum"] = 0.0
    settings.Settings().model.options["depth"] = 1
    assert settings.read({}).optimizer.options["momentum"] == 0.9
    assert settings.Settings().model.options == {}


def test_settings_are_read_once():
    found = settings.read({"epochs": 3})
    assert settings.read(found) is found
