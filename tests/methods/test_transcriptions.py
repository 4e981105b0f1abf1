"""Trajectories in float64 against `transcriptions`, on batches that change."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sam_jax import methods
from sam_jax.methods import noise
from tests.methods import plain, problems, transcriptions
from tests.methods.contract import cases

STEPS = 20
EXAMPLES = 16

pytestmark = pytest.mark.usefixtures("float64")


def falling(value):
    """A schedule, for both sides."""
    return lambda count: value / (1.0 + 0.1 * count)


def rising(value):
    return lambda count: value * (1.0 - 0.7 ** (1.0 + count))


# Coefficients by method; () are the defaults of the library, spelled out in the
# transcription.
SETTINGS = {
    "sam": [{}, {"rho": falling(0.3)}],
    "usam": [{}, {"rho": falling(0.3)}],
    "le_sam": [
        {},
        {"rho": 10.0, "sigma": 0.5},
        {"rho": falling(0.3), "sigma": rising(0.2)},
    ],
    "unified_sam": [
        {"rho": 0.2},
        {"rho": 0.2, "lam": 0.3},
        {"rho": falling(0.3), "lam": rising(1.0)},
        {"rho": 0.2, "lam": "1/t"},
        {"rho": 0.2, "lam": "1-1/t"},
    ],
    "vasso": [
        {},
        {"rho": 0.3, "theta": 0.2, "lam": 0.4},
        {"rho": falling(0.3), "theta": rising(0.9), "lam": falling(1.0)},
    ],
    "friendly_sam": [
        {},
        {"rho": 0.2, "sigma": 0.5, "lam": 0.6},
        {"rho": 0.2, "sigma": 0.7, "lam": 0.6, "include_current": True},
        {"rho": falling(0.3), "sigma": rising(1.0), "lam": falling(0.95)},
    ],
    "asam": [
        {},
        {"rho": 0.3, "eta": 0.2, "biases": True},
        {"rho": 0.3, "eta": 0.0, "biases": True},
        {"rho": 0.05, "p": np.inf},
        {"rho": 0.05, "p": np.inf, "eta": 0.3, "biases": True},
        {"rho": 0.2, "layerwise": True},
        {"rho": 0.2, "layerwise": True, "biases": True, "eta": 0.3},
        {"rho": 0.01, "layerwise": True, "p": np.inf},
        {"rho": 0.01, "layerwise": True, "p": np.inf, "biases": True, "eta": 0.2},
        {"rho": falling(0.5), "eta": 0.1},
    ],
    "fisher_sam": [{}, {"rho": 0.3, "eta": 5.0}, {"rho": falling(0.2), "eta": 0.2}],
    "random_sam": [
        {"rho": 0.2},
        {"rho": 0.2, "sigma": 0.1, "lam": 0.5},
        {"rho": 0.2, "sigma": 0.1, "noise": "tensor"},
        {"rho": 0.2, "sigma": 0.1, "noise": "plain"},
        {"rho": falling(0.2), "sigma": falling(0.3)},
    ],
    "extragradient": [{}, {"rho": falling(0.2)}],
    "async_sam": [{}, {"rho": 0.3, "delay": 3}, {"rho": falling(0.2), "delay": 0}],
    "multistep_sam": [
        {},
        {"rho": 0.3, "steps": 3},
        {"rho": 0.3, "steps": 3, "project": False},
        {"rho": falling(0.3), "steps": 2},
    ],
    "eigen_sam": [
        {"every": 1},
        {"every": 6, "rho": 0.3, "alpha": 0.7},
        {"every": 1, "rho": falling(0.3)},
    ],
    "sparse_sam": [
        {"rho": 0.2, "every": 1, "num_samples": 5},
        {"rho": falling(0.3), "every": 6},
        {"rho": 0.2, "every": 1, "num_samples": 64},  # more than the batch has
    ],
    "dynamic_sparse_sam": [{"rho": 0.2, "every": 4}, {"rho": falling(0.3), "every": 6}],
    "esam": [
        {},
        {"rho": 0.2, "beta": 0.5, "gamma": 0.3},
        {"rho": 0.2, "beta": 0.8, "gamma": 1.0},
        {"rho": 0.2, "beta": 1.0, "gamma": 0.01},
        {"rho": falling(0.2), "beta": 1.0, "gamma": 0.5},
    ],
    "gsam": [{}, {"rho": 0.3, "alpha": 0.8}, {"rho": falling(0.3), "alpha": 0.1}],
    "gnp": [
        {},
        {"rho": 0.3, "alpha": 0.4},
        {"rho": 0.3, "alpha": 0.4, "normalize_clean": True},
        {"rho": falling(0.3), "alpha": rising(0.8)},
    ],
    "wsam": [{}, {"rho": 0.3, "gamma": 0.3}, {"rho": falling(0.3), "gamma": 0.6}],
    "stable_sam": [{}, {"rho": falling(0.3)}],
    "cr_sam": [{}, {"rho": 0.3, "gamma": 0.5, "beta": 0.2}, {"rho": falling(0.3)}],
    "looksam": [
        {},
        {"rho": 0.2, "k": 3, "alpha": 0.5},
        {"rho": 0.1, "k": 3, "layerwise": True},
        {"rho": 0.2, "k": 1},
        {"rho": falling(0.3), "k": 2},
    ],
    "ae_sam": [
        {},
        {"rho": 0.3, "threshold": 0.5, "delta": 0.5},
        {"rho": 0.3, "threshold": -0.5},
        {"rho": falling(0.3), "threshold": falling(-0.5), "delta": falling(0.8)},
    ],
    "functional_sam": [{}, {"rho": falling(0.3)}],
    "focal_sam": [{}, {"gamma": rising(4.0), "lam": falling(0.9), "rho": falling(0.3)}],
    "decoupled_wsam": [
        {},
        {"rho": 0.3, "gamma": 0.4, "base": "adam"},
        {"learning_rate": falling(0.05), "rho": falling(0.3)},
    ],
    "lookbehind": [
        {},
        {"rho": 0.2, "k": 4, "alpha": 0.8},
        {"rho": 0.2, "k": 3, "base": "adam"},
        {"rho": 0.2, "k": 3, "alpha": "adaptive", "eta": 0.1},
        {"learning_rate": falling(0.05), "rho": falling(0.2)},
    ],
    "momentum_sam": [
        {},
        {"rho": 1.0, "base": "adam"},
        {"learning_rate": falling(0.05), "rho": falling(0.3)},
    ],
    "sampa": [
        {},
        {"rho": 0.3, "lam": 0.0, "base": "adam"},
        {"learning_rate": falling(0.05), "rho": falling(0.3), "lam": rising(0.5)},
    ],
    "adam_sam": [
        {"rho": 0.2},
        {"rho": 0.3, "b1": 0.5, "b2": 0.9, "damping": 0.1, "weight_decay": 0.1},
        {"learning_rate": falling(0.05), "rho": falling(0.3)},
    ],
    "bsam": [
        {"weight_decay": 1e-4},  # as many examples as the update is told
        {"num_examples": 50, "weight_decay": 1e-4},
        {"num_examples": 500, "weight_decay": 0.1, "rho": 0.2, "damping": 0.3},
        {"num_examples": 50, "weight_decay": 0.1, "init_precision": 2.5},
        {"num_examples": 50, "weight_decay": 0.0, "b1": 0.5, "b2": 0.9},
        {
            "num_examples": 50,
            "weight_decay": 1e-2,
            "rho": falling(0.1),
            "learning_rate": falling(0.1),
        },
    ],
    "sam_sps": [
        {"learning_rate": 1.0},
        {"learning_rate": 0.05, "rho": 0.3, "lam": 0.4, "weight_decay": 0.01},
        {"learning_rate": 0.3, "rho": 0.2, "f_min": 0.4},
        {"learning_rate": falling(1.0), "rho": falling(0.2), "lam": 0.0},
    ],
}


def network(step):
    """The NumPy network on the batch of an update."""
    inputs, targets = problems.batch(jnp.float64, seed=step + 1, examples=EXAMPLES)
    return plain.Network(np.array(inputs), np.array(targets))


def flat(params):
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(params)])


BASES = {
    "momentum": (lambda lr: optax.sgd(lr, momentum=0.9), plain.MomentumSGD),
    "adam": (optax.adam, plain.Adam),
}
# Methods that bring all of their optimizer; the others follow a base.
WHOLE = ("adam_sam", "bsam", "sam_sps")
OPTIMIZERS = (*WHOLE, "decoupled_wsam", "lookbehind", "momentum_sam", "sampa")


def method(name, learning_rate=0.05, base="momentum", **coefficients):
    """The method as a whole optimizer."""
    build = methods.factory(name)
    if name in WHOLE:
        return build(learning_rate, **coefficients)
    if name in OPTIMIZERS:
        return build(learning_rate, base=BASES[base][0], **coefficients)
    return optax.chain(build(**coefficients), BASES[base][0](learning_rate))


def parameters_seen(params, state, points):
    return params


@functools.cache
def program(name, fixed, seen):
    """One compiled run for all settings that differ in numbers and schedules only.

    Returns:
        coefficients -> what is seen after each update. Each coefficient that may follow
        a schedule is given by its values at all counts.
    """
    batches = [problems.batch(jnp.float64, t + 1, EXAMPLES) for t in range(STEPS)]
    stacked = jax.tree.map(lambda *x: jnp.stack(x), *batches)
    loss = problems.network_loss

    @jax.jit
    def trajectory(coefficients):
        schedules = {
            key: lambda count, values=values: values[count]
            for key, values in coefficients.items()
        }
        tx = method(name, **schedules, **dict(fixed))

        def step(carry, batch):
            params, state = carry
            points = []

            def value_and_grad_fn(params):
                points.append(params)
                return jax.value_and_grad(loss)(params, batch)

            call = problems.keywords(loss, params, batch)
            call |= {"value_and_grad_fn": value_and_grad_fn, "key": None}
            grads = jax.grad(loss)(params, batch)
            updates, state = tx.update(grads, state, params, **call)
            params = optax.apply_updates(params, updates)
            return (params, state), seen(params, state, points)

        params = problems.network(jnp.float64)
        return jax.lax.scan(step, (params, tx.init(params)), stacked)[1]

    return trajectory


def split(name, settings):
    """Values at all counts of what may follow a schedule, and the other settings."""
    schedulable = cases.schedulable(name).keys() | {"learning_rate"}
    defaults = {key: p.default for key, p in cases.parameters(name).items()}
    settings = {**defaults, "learning_rate": 0.05, **settings}
    coefficients = {
        # One further than the updates, for a step that looks ahead.
        key: np.array(
            [value(t) if callable(value) else value for t in range(STEPS + 1)]
        )
        for key, value in settings.items()
        if key in schedulable and (callable(value) or isinstance(value, (int, float)))
    }
    fixed = {
        key: value
        for key, value in settings.items()
        if key not in coefficients and value is not defaults.get(key)
    }
    return coefficients, tuple(sorted(fixed.items()))


def run(name, settings, seen=parameters_seen):
    """Parameters after each update of the library's method, or something else seen.

    ``points`` are those at which the update took gradients.
    """
    coefficients, fixed = split(name, settings)
    # optax.adam is not written for strict promotion.
    promotion = "standard" if dict(fixed).get("base") == "adam" else "strict"
    with jax.numpy_dtype_promotion(promotion):
        trajectory = program(name, fixed, seen)(coefficients)
    return [jax.tree.map(lambda x, t=t: x[t], trajectory) for t in range(STEPS)]


def transcription(name, learning_rate=0.05, base="momentum", **coefficients):
    start = flat(problems.network(jnp.float64))
    if name not in WHOLE:
        coefficients["base"] = BASES[base][1]
    objectives = map(network, range(STEPS))
    written = getattr(transcriptions, name)
    return list(written(objectives, start, learning_rate, **coefficients))


def assert_same(actual, expected, rtol=1e-9):
    assert len(actual) == len(expected) == STEPS
    assert np.abs(expected[-1] - expected[0]).max() > 0.01
    for t, (x, y) in enumerate(zip(actual, expected, strict=True)):
        np.testing.assert_allclose(
            flat(x), y, rtol=rtol, atol=rtol, err_msg=f"after update {t}"
        )


# ── What the two sides do not share by name ──────────────────────────────────────────


def draws(kind):
    """The library's random numbers of every update, for seed 0."""
    like = problems.network(jnp.float64)
    keys = [noise.update_key(0, jnp.int32(t), None) for t in range(STEPS)]
    return [flat(kind(key, like)) for key in keys]


def with_normal_draws(settings):
    return settings, settings | {"draws": draws(noise.normal_like)}


def with_uniform_draws(settings):
    return settings, settings | {"draws": draws(noise.uniform_like)}


def with_exact_eigenvector(settings):
    return settings | {"power_steps": 100}, settings


def with_kept_weights(settings, kept=5):
    sparsity = 1 - (kept + 0.01) / 13  # just above, so that no rounding decides
    return settings | {"sparsity": sparsity}, settings | {"kept": kept}


def with_observed_masks(settings, kept=6):
    """Only the library knows how masks are drawn: watch which weights move.

    Their rules are held by `test_masks_follow_the_gradients`.
    """
    ours = settings | {"sparsity": 1 - (kept + 0.01) / 13}
    return ours, {"rho": settings["rho"], "masks": observed_masks(ours)[1]}


def parameters_and_last_point(params, state, points):
    return params, points[-1]


def observed_masks(settings):
    """The weights before each update of dynamic_sparse_sam, and its masks."""
    seen = run("dynamic_sparse_sam", settings, parameters_and_last_point)
    after, points = zip(*seen, strict=True)
    before = [flat(w) for w in (problems.network(jnp.float64), *after[:-1])]
    masks = [flat(p) != w for p, w in zip(points, before, strict=True)]
    return before, masks


def with_normal_draws_and_number(settings):
    ours, theirs = with_normal_draws(settings)
    told = problems.keywords(lambda w: w, jnp.float64(0))["num_examples"]
    return ours, {"num_examples": told} | theirs


PREPARE = {
    "random_sam": with_normal_draws,
    "bsam": with_normal_draws_and_number,
    "esam": with_uniform_draws,
    "eigen_sam": with_exact_eigenvector,
    "sparse_sam": with_kept_weights,
    "dynamic_sparse_sam": with_observed_masks,
}
# The Hessian of the transcription is a finite difference.
TOLERANCE = {"eigen_sam": 1e-7}


def test_every_method_has_a_transcription():
    written = {name for name in methods.names() if hasattr(transcriptions, name)}
    assert written == set(methods.names())
    assert set(methods.names()) <= set(SETTINGS)


def every_case():
    """All settings; a program that differs from another by a number is second tier.

    Each takes a compilation, except for coefficients that may follow a schedule.
    """
    forms, programs, result = set(), set(), []
    for name in methods.names():
        for number, settings in enumerate(SETTINGS.get(name, [{}])):
            _, fixed = split(name, settings)
            form = (
                name,
                *(
                    (key, "number" if type(value) in (int, float) else value)
                    for key, value in fixed
                ),
            )
            slow = form in forms and (name, fixed) not in programs
            if not slow:
                forms.add(form)
                programs.add((name, fixed))
            marks = pytest.mark.slow("the program of another number") if slow else []
            result.append(
                pytest.param(name, settings, id=f"{name}-{number}", marks=marks)
            )
    return result


@pytest.mark.parametrize("name, settings", every_case())
def test_trajectory(name, settings):
    prepare = PREPARE.get(name, lambda settings: (settings, settings))
    ours, theirs = prepare(settings)
    tolerance = TOLERANCE.get(name, 1e-9)
    assert_same(run(name, ours), transcription(name, **theirs), tolerance)


def test_networks_agree():
    params = problems.network(jnp.float64)
    batch = problems.batch(jnp.float64, seed=1, examples=EXAMPLES)
    value, grads = jax.value_and_grad(problems.network_loss)(params, batch)
    f, w = network(0), flat(params)
    np.testing.assert_allclose(f.loss(w), value, rtol=1e-13)
    np.testing.assert_allclose(f.grad(w), flat(grads), rtol=1e-12)


@pytest.mark.parametrize("drop_rate, exchanged", [(0.5, 3), (0.17, 1), (0.0, 0)])
def test_masks_follow_the_gradients(drop_rate, exchanged, kept=6, every=4):
    """dynamic_sparse_sam: the smallest gradients leave the mask, others come by lot."""
    settings = {"rho": 0.2, "every": every, "drop_rate": drop_rate}
    settings["sparsity"] = 1 - (kept + 0.01) / 13
    weights, masks = observed_masks(settings)
    assert all(mask.sum() == kept for mask in masks)
    for t in range(1, STEPS):
        old, new = masks[t - 1], masks[t]
        if t % every:
            assert (new == old).all(), t
            continue
        size = np.abs(network(t).grad(weights[t]))
        smallest = np.argsort(np.where(old, size, np.inf))[:exchanged]
        assert sorted(np.flatnonzero(old & ~new)) == sorted(smallest), t
        assert (~old & new).sum() == exchanged, t
    grown = {tuple(np.flatnonzero(m)) for m in masks[::every]}
    assert len(grown) > 2 or not exchanged


@pytest.mark.parametrize("name", ["momentum_sam", "sampa"])
def test_the_weights_to_evaluate_are_not_those_held(name):
    def evaluated(params, state, points):
        return methods.eval_params(name)(state, params)

    for settings in SETTINGS[name]:
        expected = transcription(name, evaluated=True, **settings)
        assert_same(run(name, settings, evaluated), expected)
