"""The chain does what its parts do by hand, in the documented order."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sam_jax import errors, methods
from sam_jax.train import optimizer, options, settings
from tests.train import runs
from tests.train.steps import assert_close

LEARNING_RATE = runs.LEARNING_RATE
STEPS_PER_EPOCH = runs.STEPS_PER_EPOCH


def parameters():
    return {
        "kernel": jnp.linspace(-1.0, 2.0, 6).reshape(2, 3),
        "bias": jnp.array([0.5, -0.5, 1.0]),
    }


def loss(params):
    outputs = jnp.array([[1.0, 2.0], [3.0, -1.0]]) @ params["kernel"] + params["bias"]
    return jnp.sum(jnp.square(outputs))


def norm(tree):
    return math.sqrt(sum(float(jnp.sum(x**2)) for x in jax.tree.leaves(tree)))


def run(opt, steps=1, params=None):
    """Parameters after some steps as the trainer makes them."""
    params = parameters() if params is None else params
    tx = runs.chain(opt)
    state = tx.init(params)

    def value_and_grad_fn(p):
        return jax.value_and_grad(lambda p: loss(p) + opt.loss_decay(p))(p)

    @jax.jit
    def step(params, state):
        value, grads = value_and_grad_fn(params)
        updates, state = tx.update(
            grads,
            state,
            params,
            value=value,
            grad_fn=lambda p: value_and_grad_fn(p)[1],
            value_and_grad_fn=value_and_grad_fn,
        )
        return optax.apply_updates(params, updates), state

    for _ in range(steps):
        params, state = step(params, state)
    return params


def perturbed_gradient(params, rho, gradient):
    grads = gradient(params)
    size = norm(grads)
    return gradient(jax.tree.map(lambda w, g: w + rho * g / size, params, grads))


# ── Order of the chain ───────────────────────────────────────────────────────────────


def test_clipping_takes_the_direction_of_the_method_and_decay_comes_after(chain):
    params, decay, clip, rho = parameters(), 0.3, 0.5, 0.2
    opt = chain(
        "sam", **{"method.rho": rho, "clip_norm": clip, "weight_decay.value": decay}
    )
    direction = perturbed_gradient(params, rho, jax.grad(loss))
    factor = clip / norm(direction)
    assert factor < 0.1, "the test needs a direction that is clipped"
    expected = jax.tree.map(
        lambda w, d: w - LEARNING_RATE * (factor * d + decay * w), params, direction
    )
    assert_close(run(opt), expected)


def test_a_small_direction_is_not_clipped(chain):
    assert_close(run(chain(clip_norm=1e6), 3), run(chain(), 3))


def test_momentum_sees_decay_of_the_kind_gradient(chain):
    decay, momentum = 0.3, 0.9
    params, trace = parameters(), jax.tree.map(jnp.zeros_like, parameters())
    for _ in range(3):
        grads = jax.grad(loss)(params)
        trace = jax.tree.map(
            lambda m, g, w: momentum * m + g + decay * w, trace, grads, params
        )
        params = jax.tree.map(lambda w, m: w - 0.01 * m, params, trace)
    opt = chain(
        **{
            "weight_decay.value": decay,
            "optimizer.sgd.momentum": momentum,
            "learning_rate": 0.01,
        }
    )
    assert_close(run(opt, 3), params)


# ── Weight decay ─────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("schedule", ["constant", "cosine"])
def test_decoupled_decay_is_that_of_adamw(chain, schedule):
    opt = chain(
        **{
            "optimizer.name": "adamw",
            "weight_decay.value": 0.3,
            "weight_decay.kind": "decoupled",
            "schedule.name": schedule,
        }
    )
    adamw = optax.adamw(opt.learning_rate, weight_decay=0.3)
    reference = opt._replace(base=optax.with_extra_args_support(adamw))
    assert_close(run(opt, 5), run(reference, 5))
    without = opt._replace(
        base=optax.with_extra_args_support(
            optax.adamw(opt.learning_rate, weight_decay=0)
        )
    )
    assert norm(jax.tree.map(jnp.subtract, run(opt, 5), run(without, 5))) > 0.01


def test_decay_in_the_loss_adds_its_gradient_and_moves_the_perturbation(chain):
    params, decay, rho = parameters(), 2.0, 0.5

    def decayed(params):
        squares = sum(jnp.sum(w**2) for w in jax.tree.leaves(params))
        return loss(params) + decay / 2 * squares

    in_loss = chain(
        "sam",
        **{"method.rho": rho, "weight_decay.value": decay, "weight_decay.kind": "loss"},
    )
    direction = perturbed_gradient(params, rho, jax.grad(decayed))
    expected = jax.tree.map(lambda w, d: w - LEARNING_RATE * d, params, direction)
    assert_close(run(in_loss), expected)
    np.testing.assert_allclose(
        in_loss.loss_decay(params), decayed(params) - loss(params), rtol=1e-6
    )
    beside = chain("sam", **{"method.rho": rho, "weight_decay.value": decay})
    assert norm(jax.tree.map(jnp.subtract, run(beside), run(in_loss))) > 0.01


def test_for_sgd_all_kinds_are_the_same(chain):
    ways = [
        run(chain(**{"weight_decay.value": 0.3, "weight_decay.kind": kind}), 3)
        for kind in ("gradient", "decoupled", "loss")
    ]
    assert_close(ways[0], ways[1])
    assert_close(ways[0], ways[2])


@pytest.mark.parametrize("kind", ["gradient", "decoupled", "loss"])
def test_mask_leaves_out_bias_and_norm(chain, kind):
    decay = {"weight_decay.value": 0.3, "weight_decay.kind": kind}
    masked = run(chain(**decay, **{"weight_decay.exclude_bias_and_norm": True}))
    everywhere, nowhere = run(chain(**decay)), run(chain())
    assert_close(masked["kernel"], everywhere["kernel"])
    assert_close(masked["bias"], nowhere["bias"])
    assert norm(everywhere["bias"] - nowhere["bias"]) > 0.01


def test_loss_decay_is_zero_for_the_other_kinds(chain):
    for kind in ("gradient", "decoupled"):
        opt = chain(**{"weight_decay.value": 0.3, "weight_decay.kind": kind})
        assert float(opt.loss_decay(parameters())) == 0


# ── Base optimizers ──────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", sorted(options.optimizers()))
def test_every_optimizer_makes_a_finite_step_by_its_name(chain, name):
    new = run(chain(**{"optimizer.name": name}), 2)
    assert jax.tree.map(jnp.shape, new) == jax.tree.map(jnp.shape, parameters())
    assert all(bool(jnp.isfinite(x).all()) for x in jax.tree.leaves(new))
    assert norm(jax.tree.map(jnp.subtract, new, parameters())) > 0


def test_settings_of_an_optimizer_arrive(chain):
    plain = {"optimizer.name": "adamw", "optimizer.adamw.b1": 0.5}
    reference = chain()._replace(
        base=optax.with_extra_args_support(
            optax.adamw(LEARNING_RATE, b1=0.5, weight_decay=0.0)
        )
    )
    assert_close(run(chain(**plain), 3), run(reference, 3))


# ── Mistakes ─────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("method", "settings", "message"),
    [
        ("none", {"optimizer.name": "adamww"}, "optimizer 'adamww': .*'adamw'?"),
        ("none", {"optimizer.name": "lbfgs"}, "unknown optimizer 'lbfgs'"),
        ("unified_sam", {"method.lam": 1.5}, r"lam must be .*\[0, 1\].* got 1.5"),
        ("unified_sam", {"method.lam": "2/t"}, "lam must be .*'1/t'.* got '2/t'"),
        ("sam", {"method.name": "smm"}, "unknown method 'smm': did you mean 'sam'?"),
        ("unified_sam", {"method.name": "sam"}, "unknown setting of sam 'lam'"),
    ],
)
def test_refuses(chain, method, settings, message):
    with pytest.raises(errors.UserError, match=message) as raised:
        chain(method, **settings)
    assert "\n" not in str(raised.value)


def test_refuses_an_unknown_setting_of_an_optimizer():
    with pytest.raises(errors.UserError, match=r"'momentun': did you mean 'momentum'"):
        settings.Optimizer.read({"name": "sgd", "sgd": {"momentun": 0.9}}, "optimizer")


@pytest.mark.parametrize("kind", [TypeError, ValueError])
def test_a_mistake_in_the_code_of_a_method_keeps_its_traceback(tiny, monkeypatch, kind):
    config = tiny("sam")

    def factory(rho, *, eps, mask):
        raise kind("a mistake")

    monkeypatch.setattr(methods, "factory", lambda name: factory)
    with pytest.raises(kind, match="a mistake") as raised:
        optimizer.make_optimizer(config, STEPS_PER_EPOCH)
    assert not isinstance(raised.value, errors.UserError)
    assert raised.traceback[-1].name == "factory"


def test_a_mistake_in_the_code_of_a_methods_state_keeps_its_traceback(
    tiny, monkeypatch
):
    def init(params):
        raise ValueError("a mistake")

    broken = optax.GradientTransformation(init, optax.identity().update)
    config = tiny("sam")
    monkeypatch.setattr(methods, "factory", lambda name: lambda **_: broken)
    made = optimizer.make_optimizer(config, STEPS_PER_EPOCH)
    with pytest.raises(ValueError, match="a mistake") as raised:
        made.init(parameters())
    assert not isinstance(raised.value, errors.UserError)


def test_what_optax_refuses_is_a_line_and_its_mistakes_are_not(tiny, monkeypatch):
    def refuses(learning_rate, momentum, nesterov):
        raise error

    config = tiny("none")
    monkeypatch.setattr(options, "optimizers", lambda: {"sgd": refuses})
    error = ValueError("momentum is odd")
    with pytest.raises(errors.UserError, match=r"optimizer\.sgd: momentum is odd"):
        optimizer.make_optimizer(config, STEPS_PER_EPOCH)
    error = TypeError("a mistake")
    with pytest.raises(TypeError, match="a mistake"):
        optimizer.make_optimizer(config, STEPS_PER_EPOCH)
