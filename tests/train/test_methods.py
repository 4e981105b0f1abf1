"""How the trainer drives the methods: cadence, masks, full optimizers, evaluation."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
import pytest

import sam_jax
from sam_jax import errors
from sam_jax.methods import trees
from sam_jax.train import optimizer
from tests.train import runs
from tests.train.steps import assert_close
from tests.train.test_optimizer import LEARNING_RATE, parameters


@pytest.fixture
def make(chain):
    """``make(**settings)``: the plain chain of SAM, or of another method."""
    return lambda method="sam", **settings: chain(method, **settings)


def gradient(params):
    """Of a quadratic with curvature 2 in every direction."""
    return jax.tree.map(lambda w: 2 * w, params)


def value_and_grad(params):
    return optax.tree.norm(params, squared=True), gradient(params)


def run(tx, steps):
    """Parameters and state after each of some updates."""
    params, history = parameters(), []
    tx = tx if isinstance(tx, optax.GradientTransformation) else runs.chain(tx)
    state = tx.init(params)

    @jax.jit
    def update(params, state):
        updates, state = tx.update(
            gradient(params),
            state,
            params,
            grad_fn=gradient,
            value_and_grad_fn=value_and_grad,
            num_examples=1000,
        )
        return optax.apply_updates(params, updates), state

    for _ in range(steps):
        params, state = update(params, state)
        history.append((params, state))
    return history


def perturbed_in(opt, steps):
    return [
        bool(sam_jax.diagnostics(state)["perturbation_norm"] > 0)
        for _, state in run(opt, steps)
    ]


@pytest.mark.parametrize("method", ["sam", "momentum_sam"])
def test_without_diagnostics_the_updates_are_the_same(make, method):
    told, silent = run(make(method), 3), run(make(method, diagnostics=False), 3)
    assert_close(silent[-1][0], told[-1][0], rtol=1e-6)
    assert sam_jax.diagnostics(silent[-1][1]) == {}


# ── Cadence ──────────────────────────────────────────────────────────────────────────


def test_every_k_uses_the_method_in_every_kth_update(make):
    opt = make(**{"cadence.name": "every_k", "cadence.every_k.k": 3})
    assert perturbed_in(opt, 7) == [True, False, False, True, False, False, True]


def test_late_phase_counts_in_shares_of_the_run(make):
    settings = {"start": 0.25, "stop": 0.5}  # updates 3, 4, 5 of twelve
    opt = make(
        **{f"cadence.late_phase.{k}": v for k, v in settings.items()},
        **{"cadence.name": "late_phase"},
    )
    assert perturbed_in(opt, 8) == [False] * 3 + [True] * 3 + [False] * 2


def test_stochastic_uses_the_method_as_often_as_it_should(make):
    opt = make(**{"cadence.name": "stochastic", "cadence.stochastic.probability": 0.5})
    assert 5 < sum(perturbed_in(opt, 30)) < 25


def test_refuses_a_phase_that_ends_before_it_begins(make):
    with pytest.raises(errors.UserError, match=r"at least start, got 0.5 < 0.7"):
        make(**{"cadence.name": "late_phase", "cadence.late_phase.stop": 0.5})


def test_refuses_a_cadence_around_a_full_optimizer(make):
    with pytest.raises(errors.UserError, match=r"momentum_sam takes the step itself"):
        make("momentum_sam", **{"cadence.name": "every_k"})


# ── Masks ────────────────────────────────────────────────────────────────────────────


def test_a_mask_by_its_name(make):
    opt = make(**{"method.mask": "weights", "method.rho": 0.5})
    [(after, _)] = run(opt, 1)
    before = parameters()
    kernel = before["kernel"]
    moved = kernel + 0.5 * kernel / jnp.linalg.norm(kernel)
    assert_close(after["kernel"], kernel - LEARNING_RATE * 2 * moved)
    assert_close(after["bias"], before["bias"] * (1 - LEARNING_RATE * 2))


# ── A radius tied to the learning rate ───────────────────────────────────────────────


def test_rho_follows_the_learning_rate(make):
    rho = {"name": "learning_rate", "value": 0.4, "low": 0.1}
    opt = make("gsam", **{"method.rho": rho, "schedule.name": "linear"})
    norms = [
        float(sam_jax.diagnostics(state)["perturbation_norm"])
        for _, state in run(opt, 12)
    ]
    np.testing.assert_allclose(norms, 0.1 + 0.3 * (1 - np.arange(12) / 12), rtol=1e-5)


# ── Full optimizers ──────────────────────────────────────────────────────────────────


def test_momentum_sam_wraps_the_base_with_its_clipping_and_decay(make):
    settings = {"weight_decay.value": 0.3, "clip_norm": 0.5, "method.rho": 0.2}
    opt = make("momentum_sam", **settings, **{"optimizer.sgd.momentum": 0.9})
    base = optax.chain(
        optax.clip_by_global_norm(0.5),
        optax.add_decayed_weights(0.3),
        optax.sgd(LEARNING_RATE, momentum=0.9),
    )
    theirs = sam_jax.momentum_sam(LEARNING_RATE, rho=0.2, base=lambda _: base)
    for (ours, _), (params, _) in zip(run(opt, 4), run(theirs, 4), strict=True):
        assert_close(ours, params)


def test_decoupled_decay_follows_the_updates_of_lookbehind(make):
    # Three inner steps of 0 gradient decay the weights with the rate of the update.
    settings = {"weight_decay.value": 0.3, "weight_decay.kind": "decoupled"}
    opt = make("lookbehind", **settings, **{"schedule.name": "linear", "method.k": 3})
    tx, params = runs.chain(opt), parameters()
    state, expected = tx.init(params), parameters()

    @jax.jit
    def update(params, state):
        zero = jax.tree.map(jnp.zeros_like, params)
        updates, state = tx.update(zero, state, params, grad_fn=lambda w: zero)
        return optax.apply_updates(params, updates), state

    for count in range(12):
        params, state = update(params, state)
        shrunk = (1 - LEARNING_RATE * (1 - count / 12) * 0.3) ** 3
        expected = jax.tree.map(lambda w, s=shrunk: w * (1 + s) / 2, expected)
        assert_close(params, expected)


def test_a_base_without_one_momentum_is_a_line_for_the_user(make):
    opt = make("momentum_sam", **{"optimizer.name": "rmsprop"})
    with pytest.raises(errors.UserError, match="base must keep one momentum"):
        opt.init(parameters())


@pytest.mark.parametrize("method", ["bsam", "sam_sps"])
def test_decay_of_the_kind_gradient_goes_into_methods_without_a_base(make, method):
    coefficients = {"rho": 0.05} | ({"num_examples": 1000} if method == "bsam" else {})
    opt = make(method, **{"weight_decay.value": 0.3, "method.rho": 0.05})
    theirs = getattr(sam_jax, method)(LEARNING_RATE, weight_decay=0.3, **coefficients)
    for (ours, _), (params, _) in zip(run(opt, 3), run(theirs, 3), strict=True):
        assert_close(ours, params)


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"clip_norm": 1.0}, "bsam takes the step itself and clips nothing"),
        (
            {"weight_decay.value": 0.1, "weight_decay.exclude_bias_and_norm": True},
            "bsam takes the step itself and decays every parameter",
        ),
    ],
)
def test_refuses_what_a_method_without_a_base_cannot_do(make, settings, message):
    with pytest.raises(errors.UserError, match=message):
        make("bsam", **settings)


# ── Weights to evaluate ──────────────────────────────────────────────────────────────


def test_momentum_sam_evaluates_the_weights_without_the_perturbation(make):
    opt = make("momentum_sam", **{"method.rho": 0.5, "optimizer.sgd.momentum": 0.9})
    *_, (params, state) = run(opt, 3)
    clean = opt.eval_params(state, params)
    distance = optax.tree.norm(optax.tree.sub(clean, params))
    np.testing.assert_allclose(distance, 0.5, rtol=1e-5)
    # Near the weights that the base alone would have reached.
    *_, (base, _) = run(make("none", **{"optimizer.sgd.momentum": 0.9}), 3)
    assert optax.tree.norm(optax.tree.sub(clean, base)) < 0.3


def test_schedule_free_refuses_decay_past_its_average(make):
    settings = {"optimizer.name": "schedule_free_sgd", "weight_decay.value": 0.1}
    with pytest.raises(errors.UserError, match="kind=gradient or loss"):
        make("sam", **settings, **{"weight_decay.kind": "decoupled"})
    for kind in ("gradient", "loss"):
        make("sam", **settings, **{"weight_decay.kind": kind})


def test_schedule_free_refuses_methods_that_move_past_its_average(make):
    for method in ("lookbehind", "decoupled_wsam"):
        with pytest.raises(errors.UserError, match=f"{method} moves the weights past"):
            make(method, **{"optimizer.name": "schedule_free_sgd"})


def test_schedule_free_behind_the_weights_of_sampa(make):
    opt = make("sampa", **{"optimizer.name": "schedule_free_sgd"})
    *_, (params, state) = run(opt, 5)
    own = sam_jax.sampa_eval_params(state, params)
    (inner,) = trees.nodes(state, optax.contrib.ScheduleFreeState)
    expected = optax.contrib.schedule_free_eval_params(inner, own)
    assert_close(opt.eval_params(state, params), expected)
    assert optax.tree.norm(optax.tree.sub(expected, own)) > 1e-3


def test_schedule_free_of_some_weights_in_an_optimizer_of_the_users(make, tmp_path):
    file = tmp_path / "own.py"
    file.write_text(
        "import jax, optax, optax.contrib\n\n\n"
        "def own(learning_rate):\n"
        "    some = {'a': optax.contrib.schedule_free_sgd(learning_rate),\n"
        "            'b': optax.set_to_zero()}\n"
        "    first = lambda p: jax.tree.unflatten(jax.tree.structure(p),\n"
        "        ['a'] + ['b'] * (len(jax.tree.leaves(p)) - 1))\n"
        "    return optax.multi_transform(some, first)\n"
    )
    opt = make("sam", **{"optimizer.name": f"{file}:own"})
    *_, (params, state) = run(opt, 5)
    found = jax.tree.leaves(opt.eval_params(state, params))
    before, *others = jax.tree.leaves(params)
    assert np.abs(found[0] - before).max() > 1e-4
    for x, same in zip(found[1:], others, strict=True):
        np.testing.assert_allclose(x, same, rtol=1e-6)


@pytest.mark.parametrize("method", ["sam_sps", "bsam"])
def test_an_optimizer_without_effect_changes_no_evaluation(make, method):
    settings = {"optimizer.name": "schedule_free_sgd", "weight_decay.value": 0.1}
    opt = make(method, **settings, **{"weight_decay.kind": "decoupled"})
    [(params, state)] = run(opt, 1)
    assert opt.eval_params(state, params) is not None


def test_methods_around_a_base_refuse_what_they_would_pass_by(make):
    factors = {"learning_rate_factors": ".=0.1"}
    with pytest.raises(errors.UserError, match="that decoupled_wsam adds behind"):
        make("decoupled_wsam", **factors)
    make("lookbehind", **factors)
    for method in ("momentum_sam", "sampa", "bsam"):
        with pytest.raises(errors.UserError, match="itself, in float32"):
            make(method, all_reduce_dtype="bfloat16")


def test_schedule_free_evaluates_its_average(make):
    opt = make("sam", **{"optimizer.name": "schedule_free_sgd"})
    *_, (params, state) = run(opt, 5)
    expected = optax.contrib.schedule_free_eval_params(state[1][2], params)
    assert_close(opt.eval_params(state, params), expected)
    assert optax.tree.norm(optax.tree.sub(expected, params)) > 1e-3


def test_other_methods_evaluate_the_weights_themselves(make):
    opt = make("sam")
    [(params, state)] = run(opt, 1)
    assert opt.eval_params(state, params) is params


# ── In words ─────────────────────────────────────────────────────────────────────────


def test_describes_method_cadence_and_optimizer(tiny):
    config = tiny("sam", **{"cadence.name": "every_k"})
    words = optimizer.describe(config)
    assert words["method"] == "sam (eps 1e-12, rho 0.05), every_k (k 5)"
    assert words["optimizer"].startswith("sgd, learning rate 0.1 (cosine)")
    assert optimizer.describe(tiny("bsam"))["optimizer"].startswith("its own, ")
