"""The typed settings: what was chosen and no more, every value checked."""

import dataclasses
import json

import pytest

from sam_jax import errors
from sam_jax.train import coefficients, config, settings, typed


@pytest.fixture
def read(tiny):
    """``read("sam", **{"epochs": 3})``: the settings of the tiny configuration."""
    return lambda method="sam", **changes: settings.read(tiny(method, **changes))


def test_the_defaults_are_those_of_the_configuration():
    assert settings.read(config.default_config()) == settings.Settings()
    assert settings.read({}) == settings.Settings()


def test_what_is_not_chosen_does_not_exist(read):
    found = read(**{"optimizer.name": "adamw", "schedule.name": "step"})
    assert found.optimizer.options.keys() == {"b1", "b2", "eps", "weight_decay"}
    assert not hasattr(found.schedule, "final_fraction")
    assert not hasattr(found.cadence, "k")
    assert not hasattr(found.data.sampling, "uniform")


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
    assert settings.read(json.loads(json.dumps(typed.plain(found)))) == found


def test_a_number_of_examples_stays_whole(read):
    assert isinstance(read(**{"data.validation": 97}).data.validation, int)
    assert isinstance(read(**{"data.validation": 0.5}).data.validation, float)


def test_a_run_cannot_change_its_settings(read):
    with pytest.raises(dataclasses.FrozenInstanceError):
        read().epochs = 3


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
