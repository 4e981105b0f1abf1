"""Strict settings for every test of the methods; ``--method`` selects one of them."""

import jax
import pytest

from sam_jax import methods


def pytest_addoption(parser):
    parser.addoption(
        "--method",
        metavar="NAME",
        help="of tests/methods, only the contract and the tests of this method",
    )


def pytest_collection_modifyitems(config, items):
    name = config.getoption("method", default=None)
    if name is None:
        return
    if name not in methods.names():
        raise pytest.UsageError(
            f"--method must be one of {', '.join(methods.names())}, got {name!r}"
        )
    chosen, others = [], []
    for item in items:
        parameters = item.callspec.params if hasattr(item, "callspec") else {}
        own = parameters.get("name") == name or item.path.stem == f"test_{name}"
        (chosen if own else others).append(item)
    items[:] = chosen
    config.hook.pytest_deselected(items=others)


@pytest.fixture(autouse=True)
def strict():
    with jax.numpy_rank_promotion("raise"), jax.numpy_dtype_promotion("strict"):
        yield


@pytest.fixture
def promotion_of_optax():
    """Optax multiplies counts and floats, which the tests' strict promotion refuses."""
    with jax.numpy_dtype_promotion("standard"):
        yield


@pytest.fixture
def float64():
    with jax.enable_x64(True):
        yield
