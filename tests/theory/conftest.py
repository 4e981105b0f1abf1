import jax
import pytest


@pytest.fixture(autouse=True)
def float64():
    """Theory is checked in float64."""
    with jax.enable_x64(True):
        yield
