"""How a method differs from the usual one; read by the contract suite.

A test file ``test_<method>.py`` may define ``TRAITS = Traits(...)``.
"""

import importlib
import importlib.util

from sam_jax.testing import Traits, sgd

__all__ = ["Traits", "has_test_file", "sgd", "traits"]

USUAL = Traits()


def has_test_file(name):
    return importlib.util.find_spec(f"tests.methods.test_{name}") is not None


def traits(name):
    """What the test file of a method says about it; the usual traits without a file."""
    if not has_test_file(name):
        return USUAL
    module = importlib.import_module(f"tests.methods.test_{name}")
    return getattr(module, "TRAITS", USUAL)
