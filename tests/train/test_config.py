"""The configuration of a run card: typed, locked, with a method from its fragment."""

import pathlib
import runpy

import pytest

from sam_jax.train import config

ROOT = pathlib.Path(__file__).parents[2]


def test_configurations_are_independent_and_locked():
    first, second = config.default_config(), config.default_config()
    first.data.name = "digits"
    assert second.data.name == "cifar10"
    with pytest.raises(AttributeError):
        first.data.nme = "digits"
    with pytest.raises(TypeError):
        first.epochs = "many"


@pytest.mark.parametrize("name", ["bsam", "momentum_sam"])
def test_a_method_brings_its_coefficients(name, tmp_path):
    found = config.load_method(name, card=tmp_path / "card.py")
    # The paper's values, of the package's fragments, wherever the card lies.
    fragment = ROOT / "configs" / "methods" / f"{name}.py"
    papers = runpy.run_path(str(fragment))["get_config"]()
    assert found.to_dict() == config.default_coefficients(name) | dict(papers)
    assert found.name == name
    assert found.mask is None
    # What other parts of the configuration decide.
    assert not {"learning_rate", "base", "weight_decay"} & set(found)
