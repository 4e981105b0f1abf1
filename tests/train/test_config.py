"""The configuration: typed, locked, checked, written and compared."""

import json

import pytest
from ml_collections import config_dict

from sam_jax import errors, methods
from sam_jax.train import config as config_lib


def test_every_default_passes_the_check():
    config = config_lib.default_config()
    assert config_lib.check(config) is None


def test_configurations_are_independent_and_locked():
    first, second = config_lib.default_config(), config_lib.default_config()
    first.data.name = "digits"
    assert second.data.name == "cifar10"
    with pytest.raises(AttributeError):
        first.data.nme = "digits"
    with pytest.raises(TypeError):
        first.epochs = "many"


@pytest.mark.parametrize(
    ("key", "value", "allowed"),
    [
        ("epochs", 0, "an integer >= 1"),
        ("seed", 2**32, r"an integer in \[0, 2\*\*32\)"),
        ("learning_rate", -1.0, "a finite number >= 0"),
        ("learning_rate", float("nan"), "a finite number >= 0"),
        ("learning_rate", float("inf"), "a finite number >= 0"),
        ("clip_norm", 0.0, "a finite number > 0 or None"),
        ("clip_norm", float("nan"), "a finite number > 0 or None"),
        ("weight_decay.value", -0.1, "a finite number >= 0"),
        ("weight_decay.value", float("nan"), "a finite number >= 0"),
        ("label_smoothing", -0.1, r"a number in \[0, 1\)"),
        ("ema_decay", float("nan"), r"a number in \[0, 1\)"),
        ("data.validation", "x", r"a whole number .* share in \[0, 1\)"),
        ("data.validation", None, r"a whole number .* share in \[0, 1\)"),
    ],
)
def test_check_names_setting_value_and_what_is_allowed(key, value, allowed):
    config = config_lib.default_config()
    config.update_from_flattened_dict({key: value})
    with pytest.raises(errors.UserError, match=f"config.{key} must be {allowed}, got"):
        config_lib.check(config)


@pytest.mark.parametrize("name", methods.names())
def test_a_method_brings_its_coefficients(name, tmp_path):
    settings = config_lib.load_method(name, card=tmp_path / "card.py")
    assert settings == config_dict.ConfigDict(config_lib.default_coefficients(name))
    assert settings.name == name
    assert settings.mask is None
    # What other parts of the configuration decide.
    assert not {"learning_rate", "base", "weight_decay"} & set(settings)


def test_unknown_method_is_one_line_with_the_nearest():
    with pytest.raises(errors.UserError, match=r"'usm': did you mean 'usam'\?"):
        config_lib.load_method("usm", card="card.py")


def test_json_is_sorted_and_complete(tiny):
    config = tiny("unified_sam", **{"method.lam": "1/t"})
    stored = json.loads(config_lib.to_json(config))
    assert stored["method"]["lam"] == "1/t"
    assert stored["schedule"]["boundaries"] == [60, 120, 160]
    assert stored["clip_norm"] is None
    assert set(stored) == set(config)
    assert list(stored) == sorted(stored)


def test_json_knows_a_schedule_of_a_coefficient(tiny):
    spec = {"name": "cosine", "value": 0.1}
    stored = json.loads(config_lib.to_json(tiny("sam", **{"method.rho": spec})))
    assert stored["method"]["rho"] == spec


def test_equal_configurations_do_not_differ(tiny):
    a, b = (json.loads(config_lib.to_json(tiny())) for _ in range(2))
    assert config_lib.differences(a, b) == []


def test_differences_name_nested_new_and_lost_keys():
    old = {"a": {"b": 1, "c": 2}, "mesh": {"data": 1}, "data": {"name": "x"}}
    new = {"a": {"b": 3, "d": 4}, "mesh": {"data": 8}, "data": {"data_dir": "y"}}
    assert config_lib.differences(old, new) == [
        "a.b: 1 -> 3",
        "a.c: 2 -> None",
        "a.d: None -> 4",
        "data.name: x -> None",
    ]


def test_free_settings_exist(tiny):
    """A setting that was renamed must not stay free under its old name."""
    flat = config_lib._flat(json.loads(config_lib.to_json(tiny())))
    for free in config_lib.FREE_SETTINGS:
        assert any(key == free or key.startswith(f"{free}.") for key in flat), free
