"""The same trajectories as other implementations, in float64.

Those in requirements-peers.txt are imported inside the tests that need them.
"""

import importlib
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
import pytest

import sam_jax
from tests.methods import problems

STEPS = 25

pytestmark = pytest.mark.usefixtures("float64")


def peer(module):
    """Imports a peer, or skips the test."""
    try:
        with warnings.catch_warnings():
            # What other packages deprecate at import says nothing about ours.
            warnings.simplefilter("ignore", DeprecationWarning)
            return importlib.import_module(module)
    except ModuleNotFoundError as error:
        pytest.skip(f"{error.name} is missing: pip install -r requirements-peers.txt")


def ours(direction, momentum=0.9):
    tx = optax.chain(direction, optax.sgd(0.05, momentum=momentum))
    params, batch = problems.network(jnp.float64), problems.batch(jnp.float64)
    return problems.trajectory(tx, problems.network_loss, params, (batch,), STEPS)


def torch_trajectory(make_optimizer):
    """The problem and the loop of `ours`, written in torch."""
    torch = peer("torch")
    params = {
        key: torch.nn.Parameter(torch.tensor(np.array(leaf)))
        for key, leaf in problems.network(jnp.float64).items()
    }
    inputs, targets = (torch.tensor(np.array(x)) for x in problems.batch(jnp.float64))
    optimizer = make_optimizer(list(params.values()))

    def closure():
        optimizer.zero_grad()
        outputs = torch.tanh(inputs @ params["kernel"]).sum(1) + params["bias"]
        loss = torch.mean((outputs - targets) ** 2)
        loss.backward()
        return loss

    seen = []
    for _ in range(STEPS):
        closure()
        optimizer.step(closure)
        seen.append({k: p.detach().numpy().copy() for k, p in params.items()})
    return seen


def assert_same(actual, expected, rtol=1e-10):
    assert len(actual) == len(expected) == STEPS
    assert np.abs(actual[-1]["kernel"] - actual[0]["kernel"]).max() > 0.05
    for x, y in zip(actual, expected, strict=True):
        for key in y:
            np.testing.assert_allclose(x[key], y[key], rtol=rtol, atol=rtol)


def test_optax_contrib_sam():
    params, batch = problems.network(jnp.float64), problems.batch(jnp.float64)
    tx = optax.contrib.sam(
        optax.sgd(0.05, momentum=0.9),
        optax.chain(optax.contrib.normalize(), optax.sgd(0.1)),
        opaque_mode=True,
    )

    @jax.jit
    def step(params, state):
        grads = jax.grad(problems.network_loss)(params, batch)
        updates, state = tx.update(
            grads,
            state,
            params,
            grad_fn=lambda p, _: jax.grad(problems.network_loss)(p, batch),
        )
        return optax.apply_updates(params, updates), state

    state, theirs = tx.init(params), []
    for _ in range(STEPS):
        params, state = step(params, state)
        theirs.append(params)
    assert_same(ours(sam_jax.sam(0.1)), theirs)


@pytest.mark.peers
@pytest.mark.parametrize("lam", [0.0, 0.4, 1.0, "1/t", "1-1/t"])
def test_unifiedsam(lam):
    torch, unifiedsam = peer("torch"), peer("unifiedsam")
    theirs = torch_trajectory(
        lambda params: unifiedsam.unifiedSAM(
            params, torch.optim.SGD, rho=0.1, lambd=lam, lr=0.05, momentum=0.9
        )
    )
    assert_same(ours(sam_jax.unified_sam(0.1, lam=lam)), theirs)


@pytest.mark.peers
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_pytorch_optimizer_sam(momentum):
    torch, pytorch_optimizer = peer("torch"), peer("pytorch_optimizer")
    theirs = torch_trajectory(
        lambda params: pytorch_optimizer.SAM(
            params, torch.optim.SGD, rho=0.1, lr=0.05, momentum=momentum
        )
    )
    # It takes the norm in float32, whatever the dtype of the gradients.
    assert_same(ours(sam_jax.sam(0.1), momentum), theirs, rtol=1e-7)
