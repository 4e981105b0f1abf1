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
# For peers that take norms, and what follows from them, in float32, whatever the dtype
# of the gradients: pytorch_optimizer and sam_sps.
FLOAT32 = 1e-6

pytestmark = pytest.mark.usefixtures("float64")


def peers(test):
    """Marks a test that needs other packages, among them torch: the second tier."""
    return pytest.mark.slow("imports torch")(pytest.mark.peers(test))


def peer(module):
    """Imports a peer, or skips the test."""
    try:
        with warnings.catch_warnings():
            # What other packages deprecate at import says nothing about ours.
            warnings.simplefilter("ignore", DeprecationWarning)
            return importlib.import_module(module)
    except ModuleNotFoundError as error:
        pytest.skip(f"{error.name} is missing: pip install -r requirements-peers.txt")


def ours(tx, keys=("kernel", "bias")):
    """Parameters after each update; those not in ``keys`` are constants."""
    params, batch = problems.network(jnp.float64), problems.batch(jnp.float64)

    def loss(part, batch):
        return problems.network_loss(params | part, batch)

    part = {key: params[key] for key in keys}
    return problems.trajectory(tx, loss, part, (batch,), STEPS)


def sgd(direction, momentum=0.9):
    return optax.chain(direction, optax.sgd(0.05, momentum=momentum))


def torch_trajectory(
    make_optimizer,
    keys=("kernel", "bias"),
    returns=lambda outputs, loss: loss,
    after_step=lambda: None,
):
    """The problem and the loop of `ours`, written in torch.

    ``returns`` is what the peer's closure has to return.
    """
    torch = peer("torch")
    params = {
        key: torch.tensor(np.array(leaf), requires_grad=key in keys)
        for key, leaf in problems.network(jnp.float64).items()
    }
    inputs, targets = (torch.tensor(np.array(x)) for x in problems.batch(jnp.float64))
    optimizer = make_optimizer([params[key] for key in keys])

    @torch.enable_grad()  # some of them call it where they switched gradients off
    def closure():
        optimizer.zero_grad()
        outputs = torch.tanh(inputs @ params["kernel"]).sum(1) + params["bias"]
        loss = torch.mean((outputs - targets) ** 2)
        loss.backward()
        return returns(outputs, loss)

    seen = []
    for _ in range(STEPS):
        closure()
        optimizer.step(closure)
        after_step()
        seen.append({key: params[key].detach().numpy().copy() for key in keys})
    return seen


def assert_same(actual, expected, rtol=1e-10):
    assert len(actual) == len(expected) == STEPS
    assert np.abs(actual[-1]["kernel"] - actual[0]["kernel"]).max() > 0.05
    for x, y in zip(actual, expected, strict=True):
        for key in y:
            np.testing.assert_allclose(x[key], y[key], rtol=rtol, atol=rtol)


def optax_trajectory(rho, sync_period):
    params, batch = problems.network(jnp.float64), problems.batch(jnp.float64)
    tx = optax.contrib.sam(
        optax.sgd(0.05, momentum=0.9),
        optax.chain(optax.contrib.normalize(), optax.sgd(rho)),
        sync_period=sync_period,
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

    state, seen = tx.init(params), []
    for _ in range(STEPS):
        params, state = step(params, state)
        seen.append(params)
    return seen


def test_optax_contrib_sam():
    theirs = optax_trajectory(0.1, sync_period=2)
    assert_same(ours(sgd(sam_jax.sam(0.1))), theirs)


@pytest.mark.parametrize("steps", [2, 3])
def test_optax_contrib_sam_with_several_ascent_steps(steps):
    """A period of k is k - 1 steps, which may leave the ball."""
    theirs = optax_trajectory(0.1, sync_period=steps + 1)
    method = sam_jax.multistep_sam(0.1, steps=steps, project=False)
    assert_same(ours(sgd(method)), theirs)


@peers
@pytest.mark.parametrize("lam", [0.0, 0.4, 1.0, "1/t", "1-1/t"])
def test_unifiedsam(lam):
    torch, unifiedsam = peer("torch"), peer("unifiedsam")
    theirs = torch_trajectory(
        lambda params: unifiedsam.unifiedSAM(
            params, torch.optim.SGD, rho=0.1, lambd=lam, lr=0.05, momentum=0.9
        )
    )
    assert_same(ours(sgd(sam_jax.unified_sam(0.1, lam=lam))), theirs)


@peers
@pytest.mark.parametrize(
    "settings",
    [
        {"lambd": 1.0, "weight_decay": 0.0, "f_star": 0.2},
        {"lambd": 0.0, "weight_decay": 5e-3, "f_star": 0.2},
        {"lambd": 0.3, "weight_decay": 5e-3, "gamma_b": 0.1},
    ],
)
def test_sam_sps(settings):
    sam_sps = peer("sam_sps")
    theirs = torch_trajectory(
        lambda params: sam_sps.SAM_SPS(params, rho=0.1, **settings)
    )
    names = {"lambd": "lam", "f_star": "f_min", "gamma_b": "learning_rate"}
    method = sam_jax.sam_sps(
        rho=0.1, **{names.get(key, key): value for key, value in settings.items()}
    )
    assert_same(ours(method), theirs, rtol=FLOAT32)


# Peer, its settings, ours, the momentum of both, and the leaves that both train.
BOTH = ("kernel", "bias")
TORCH = [
    ("SAM", {}, sam_jax.sam(0.1), 0.0, BOTH),
    ("SAM", {}, sam_jax.sam(0.1), 0.9, BOTH),
    # Its ASAM has no eta and adapts to biases as to weights.
    (
        "SAM",
        {"rho": 0.3, "adaptive": True},
        sam_jax.asam(0.3, eta=0.0, biases=True),
        0.9,
        BOTH,
    ),
    *(
        ("FriendlySAM", {"sigma": sigma, "lmbda": lam}, ours, 0.9, BOTH)
        for sigma, lam in [(1.0, 0.9), (0.5, 0.6)]
        for ours in [sam_jax.friendly_sam(0.1, sigma=sigma, lam=lam)]
    ),
    *(
        ("WSAM", {"gamma": gamma, "decouple": decouple}, ours, 0.9, BOTH)
        for gamma in (0.4, 0.9)
        for decouple, ours in [
            (False, sam_jax.wsam(0.1, gamma=gamma)),
            (True, sam_jax.decoupled_wsam(0.05, 0.1, gamma=gamma)),
        ]
    ),
    # It projects tensor by tensor: with reuse, the same for a single tensor only.
    *(
        (
            "LookSAM",
            {"k": k, "alpha": 0.7},
            sam_jax.looksam(0.1, k=k, alpha=0.7),
            0.9,
            keys,
        )
        for k, keys in [(1, BOTH), (2, BOTH[:1]), (5, BOTH[:1])]
    ),
]


@peers
@pytest.mark.parametrize("name, settings, method, momentum, keys", TORCH)
def test_pytorch_optimizer(name, settings, method, momentum, keys):
    torch, pytorch_optimizer = peer("torch"), peer("pytorch_optimizer")
    model = [torch.nn.Module()] if name == "WSAM" else []
    settings = {"rho": 0.1, "lr": 0.05, "momentum": momentum} | settings
    theirs = torch_trajectory(
        lambda params: getattr(pytorch_optimizer, name)(
            *model, params, torch.optim.SGD, **settings
        ),
        keys,
    )
    tx = method if settings.get("decouple") else sgd(method, momentum)
    assert_same(ours(tx, keys), theirs, rtol=FLOAT32)


@peers
@pytest.mark.parametrize("alpha", [0.0, 0.4])
def test_pytorch_optimizer_gsam(alpha):
    """Also the radius that follows the learning rate."""
    torch, pytorch_optimizer = peer("torch"), peer("pytorch_optimizer")
    after_step = []

    def make(params):
        base = torch.optim.SGD(params, lr=0.05, momentum=0.9)
        decay = torch.optim.lr_scheduler.ExponentialLR(base, 0.9)
        rho = pytorch_optimizer.ProportionScheduler(decay, 0.05, 0.0, 0.3, 0.1)
        model = torch.nn.Module()
        gsam = pytorch_optimizer.GSAM(params, base, model, rho, alpha=alpha)
        after_step.extend([decay.step, gsam.update_rho_t])
        return gsam

    theirs = torch_trajectory(
        make,
        returns=lambda outputs, loss: (outputs, loss),
        after_step=lambda: [call() for call in after_step],
    )

    def learning_rate(count):
        return 0.05 * 0.9 ** jnp.asarray(count, jnp.float64)

    tx = optax.chain(
        sam_jax.gsam(
            lambda count: 0.1 + 0.2 * learning_rate(count) / 0.05, alpha=alpha
        ),
        optax.sgd(learning_rate, momentum=0.9),
    )
    assert_same(ours(tx), theirs, rtol=FLOAT32)
