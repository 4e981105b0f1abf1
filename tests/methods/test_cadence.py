import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

import sam_jax
from sam_jax.methods import observations
from tests.methods import problems
from tests.methods.contract.cases import assert_close, assert_equal

SAM = sam_jax.sam(0.3)


@functools.cache
def run(*chain, steps=3):
    args = (problems.network_loss, problems.network(), (problems.batch(),), steps)
    tx = optax.chain(*chain, optax.sgd(0.1, momentum=0.9))
    with jax.disable_jit():
        return problems.trajectory(tx, *args)


def perturbations(tx, steps):
    """Length of the perturbation in each of some updates; zero if it was skipped."""
    params = jnp.array([3.0, 4.0])

    def update(state, _):
        _, state = tx.update(params, state, params, grad_fn=lambda w: w)
        return state, sam_jax.diagnostics(state)["perturbation_norm"]

    _, seen = jax.lax.scan(update, tx.init(params), length=steps)
    return seen.tolist()


def used(tx, steps):
    return [length > 0 for length in perturbations(tx, steps)]


# ── When the method is used ──────────────────────────────────────────────────────────


ALWAYS = {
    "every_k": lambda method: sam_jax.every_k(method, 1),
    "late_phase": lambda method: sam_jax.late_phase(method, 0),
    "stochastic": lambda method: sam_jax.stochastic(method, 1.0),
    "when": lambda method: sam_jax.when(method, lambda g, s, count, key: (True, s)),
}
NEVER = {
    "late_phase": lambda method: sam_jax.late_phase(method, 100),
    "empty": lambda method: sam_jax.late_phase(method, 1, 1),
    "stochastic": lambda method: sam_jax.stochastic(method, 0.0),
    "when": lambda method: sam_jax.when(method, lambda g, s, count, key: (False, s)),
}


@pytest.mark.parametrize("always", ALWAYS)
@pytest.mark.parametrize("method", [SAM, sam_jax.vasso(0.3, theta=0.5)])
def test_used_always_it_is_the_method(always, method):
    assert_close(run(ALWAYS[always](method)), run(method), rtol=0)


@pytest.mark.parametrize("never", NEVER)
def test_used_never_it_is_the_base(never):
    assert_equal(run(NEVER[never](SAM)), run())


@pytest.mark.parametrize(
    "tx, updates",
    [
        (sam_jax.every_k(sam_jax.sam()), [0, 5, 10]),
        (sam_jax.every_k(sam_jax.sam(), k=4), [0, 4, 8]),
        (sam_jax.late_phase(sam_jax.sam(), 9), [9, 10, 11]),
        (sam_jax.late_phase(sam_jax.sam(), 2, 4), [2, 3]),
        (sam_jax.every_k(sam_jax.late_phase(sam_jax.sam(), 3), k=2), [4, 6, 8, 10]),
        (sam_jax.late_phase(sam_jax.every_k(sam_jax.sam(), k=3), 5, 10), [6, 9]),
    ],
)
def test_used_in_the_updates_it_says(tx, updates):
    assert used(tx, 12) == [count in updates for count in range(12)]


def test_stochastic_uses_its_share_and_repeats_itself():
    share = lambda p, **kw: used(sam_jax.stochastic(sam_jax.sam(), p, **kw), 400)  # noqa: E731
    assert np.mean(share(0.3)) == pytest.approx(0.3, abs=0.07)  # 3 deviations
    assert share(0.3) == share(0.3)
    assert share(0.3) != share(0.3, seed=1)


def test_the_probability_may_follow_a_schedule():
    probability = lambda count: jnp.where(count < 5, 0.0, 1.0)  # noqa: E731
    tx = sam_jax.stochastic(sam_jax.sam(), probability)
    assert used(tx, 8) == [False] * 5 + [True] * 3


def test_stochastic_draws_from_the_updates_key():
    tx, params = sam_jax.stochastic(sam_jax.sam(), 0.5), jnp.ones(2)

    def first(key):
        _, state = tx.update(
            params, tx.init(params), params, grad_fn=lambda w: w, key=key
        )
        return sam_jax.diagnostics(state)["perturbation_norm"] > 0

    drawn = jax.jit(jax.vmap(first))(jax.random.split(jax.random.key(0), 200))
    assert np.mean(drawn) == pytest.approx(0.5, abs=0.1)


def test_the_decision_sees_gradient_state_count_and_key():
    seen = []

    def decide(grads, state, count, key):
        seen.append((grads, int(count), key))
        return state >= 2, state + 1

    tx = sam_jax.when(sam_jax.sam(0.5), decide, init=lambda: jnp.zeros([], jnp.int32))
    params, grads = jnp.ones(2), jnp.array([3.0, 4.0])
    state, lengths = tx.init(params), []
    for _ in range(4):
        _, state = tx.update(grads, state, params, grad_fn=lambda w: w, key="key")
        lengths.append(float(sam_jax.diagnostics(state)["perturbation_norm"]))
    assert lengths == pytest.approx([0, 0, 0.5, 0.5])
    assert [count for _, count, _ in seen] == [0, 1, 2, 3]
    assert all(g is grads and key == "key" for g, _, key in seen)
    assert state.decision == 4


# ── What a skipped update does ───────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "tx, uses",
    [
        (sam_jax.every_k(sam_jax.sam(), 5), 2),
        (sam_jax.late_phase(sam_jax.sam(), 7), 3),
        (sam_jax.stochastic(sam_jax.sam(), 0.0), 0),
    ],
    ids=["every_k", "late_phase", "stochastic"],
)
def test_gradients_are_taken_in_used_updates_only(tx, uses):
    assert sum(problems.evaluations(tx, 10)) == 10 + uses


def test_a_skipped_update_costs_what_sgd_costs():
    shapes = {"a": (256, 256), "b": (256, 256), "c": (256, 256)}
    params = {k: jax.ShapeDtypeStruct(v, jnp.float32) for k, v in shapes.items()}
    inputs = jax.ShapeDtypeStruct((2048, 256), jnp.float32)

    def loss(params, inputs):  # nearly all of its work is in matrix products
        return jnp.sum(jnp.square(inputs @ params["a"] @ params["b"] @ params["c"]))

    def flops(direction, count):
        # A count that is known when the step is compiled decides for one branch.
        state = jax.tree.map(
            lambda x: jnp.full(x.shape, count, x.dtype), direction.init({})
        )
        step = problems.make_step(direction, loss)
        fixed = jax.jit(lambda params, inputs: step(params, state, inputs)[0])
        return fixed.lower(params, inputs).compile().cost_analysis()["flops"]

    sgd = flops(optax.with_extra_args_support(optax.identity()), 0)
    for cadence in (
        sam_jax.every_k(sam_jax.sam(), 2),
        sam_jax.late_phase(sam_jax.sam(), 0, 1),
    ):
        assert flops(cadence, 1) / sgd == pytest.approx(1, rel=0.01)
        assert flops(cadence, 0) / sgd == pytest.approx(2, rel=0.01)


@pytest.mark.parametrize("injected", [False, True])
def test_schedules_of_the_coefficients_advance(injected):
    make = sam_jax.sam
    if injected:
        make = optax.inject_hyperparams(sam_jax.sam, static_args=("mask",))
    tx = sam_jax.every_k(make(rho=lambda count: 0.1 * (1 + jnp.float32(count))), 3)
    expected = [0.1, 0, 0, 0.4, 0, 0, 0.7]
    assert perturbations(tx, 7) == pytest.approx(expected)


def test_the_probability_can_be_injected():
    def stochastic_sam(probability):
        return sam_jax.stochastic(sam_jax.sam(), probability)

    tx = optax.inject_hyperparams(stochastic_sam)(
        probability=lambda count: jnp.where(count < 2, 1.0, 0.0)
    )
    assert used(tx, 5) == [True, True, False, False, False]


def test_diagnostics_say_that_nothing_was_perturbed():
    tx = sam_jax.late_phase(sam_jax.sam(0.5), 1)
    params, grads = jnp.ones(2), jnp.array([3.0, 4.0])
    call = {"value_and_grad_fn": lambda w: (jnp.sum(w), w)}
    direction, state = tx.update(grads, tx.init(params), params, value=7.0, **call)
    np.testing.assert_array_equal(direction, grads)
    assert sam_jax.diagnostics(state) == {
        "grad_norm": 5,
        "perturbation_norm": 0,
        "gradient_cosine": 1,
        "perturbed_loss": 7,
    }
    _, state = tx.update(grads, state, params, value=7.0, **call)
    assert sam_jax.diagnostics(state)["perturbed_loss"] == pytest.approx(2.7)
    _, untold = tx.update(grads, tx.init(params), params, **call)
    assert "perturbed_loss" not in sam_jax.diagnostics(untold)


def test_diagnostics_that_a_method_does_not_have_stay_away():
    class State(NamedTuple):
        diagnostics: observations.Diagnostics

    def seen(grads):
        full = observations.observe_unperturbed(grads, None)
        return State(full._replace(gradient_cosine=None, perturbed_loss=None))

    method = optax.GradientTransformationExtraArgs(
        seen, lambda grads, state, params=None, **_: (grads, seen(grads))
    )
    tx, params = sam_jax.late_phase(method, 1), jnp.array([3.0, 4.0])
    _, state = tx.update(params, tx.init(params), params, grad_fn=lambda w: w)
    assert sam_jax.diagnostics(state) == {"grad_norm": 5, "perturbation_norm": 0}


def test_an_average_stands_still_in_skipped_updates():
    # VaSSO's average sees the gradients of the updates 2 and 4 only.
    tx = sam_jax.late_phase(
        sam_jax.every_k(sam_jax.vasso(theta=0.25), 2), start=1, stop=6
    )
    params = jnp.zeros(1)
    state, averages = tx.init(params), []
    for g in (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0):
        _, state = tx.update(jnp.array([g]), state, params, grad_fn=lambda w: w)
        averages.append(float(optax.tree.get(state, "average")[0]))
    # It starts at 4, and 0.75 * 4 + 0.25 * 16 = 7.
    assert averages == [0, 0, 4, 4, 7, 7, 7]


class Point(NamedTuple):
    count: jax.Array
    x: jax.Array


def test_a_parameter_may_be_called_count():
    params = Point(jnp.array(3.0), jnp.array([4.0]))
    tx = sam_jax.every_k(sam_jax.vasso(theta=0.5), 2)
    state = tx.init(params)
    for _ in range(2):
        _, state = tx.update(params, state, params, grad_fn=lambda w: w)
    assert optax.tree.get(state, "average") == params
    assert state.count == 2 and state.method.count == 2


def test_every_count_advances_once_an_update():
    tx = sam_jax.every_k(sam_jax.vasso(lambda count: 0.1), 3)
    params = jnp.ones(2)
    state = tx.init(params)
    for _ in range(5):
        _, state = tx.update(params, state, params, grad_fn=lambda w: w)
    counts = [value for _, value in optax.tree.get_all_with_path(state, "count")]
    assert len(counts) == 4 and all(count == 5 for count in counts)


# ── Where it runs ────────────────────────────────────────────────────────────────────


def test_a_scan_is_the_loop():
    tx = optax.chain(sam_jax.every_k(sam_jax.vasso(0.3), 3), optax.sgd(0.1))
    args = (problems.network_loss, problems.network(), (problems.batch(),), 7)
    after, state = problems.train(tx, *args)
    assert_close(after, problems.trajectory(tx, *args)[-1], rtol=1e-6)
    assert state[0].count == 7


def on_devices(tx, check_vma, devices=2):
    """Parameters and state after four updates, each device with its own examples."""
    mesh = jax.make_mesh((devices,), ("data",), axis_types=(AxisType.Auto,))
    params = problems.network(jnp.float64)

    def steps(params, state, batch):
        for _ in range(4):
            own = jax.lax.pcast(params, "data", to="varying") if check_vma else params
            call = problems.gradients(problems.network_loss, batch)
            updates, state = tx.update(
                call["grad_fn"](own), state, own, **call, value=jnp.zeros([])
            )
            params = optax.apply_updates(params, updates)
        return params, state

    specs = {"in_specs": (P(), P(), P("data")), "out_specs": (P(), P())}
    sharded = jax.jit(jax.shard_map(steps, mesh=mesh, check_vma=check_vma, **specs))
    return sharded(params, tx.init(params), problems.batch(jnp.float64))


ON_EIGHT = pytest.mark.slow("programs for eight devices")


def every_second(method):
    return sam_jax.every_k(method, 2)


def late(method):
    return sam_jax.late_phase(method, 1, 3)


def sometimes(method):
    return sam_jax.stochastic(method, 0.5)


@pytest.mark.usefixtures("float64")
# A cadence decides before it knows of devices.
@pytest.mark.parametrize(
    "cadence, check_vma, devices",
    [
        (every_second, True, 2),
        (sometimes, False, 2),
        *(
            pytest.param(cadence, check_vma, 8, marks=ON_EIGHT)
            for cadence in (every_second, late, sometimes)
            for check_vma in (True, False)
        ),
    ],
)
def test_devices_decide_as_one(cadence, check_vma, devices):
    tx = optax.chain(
        sam_jax.pmean("data"),  # one gradient for all; the second one is each one's own
        cadence(sam_jax.vasso(0.3, theta=0.5)),
        sam_jax.pmean("data"),
        optax.sgd(0.1),
    )
    after, state = on_devices(tx, check_vma, devices)
    one = optax.chain(cadence(sam_jax.vasso(0.3, theta=0.5)), optax.sgd(0.1))
    batch, params = problems.batch(jnp.float64), problems.network(jnp.float64)
    call = problems.gradients(problems.network_loss, batch)
    alone_state = one.init(params)
    with jax.disable_jit():
        for _ in range(4):
            updates, alone_state = one.update(
                call["grad_fn"](params), alone_state, params, **call
            )
            params = optax.apply_updates(params, updates)
    assert_close(after, params, rtol=1e-9)
    if not check_vma:  # then the diagnostics of each device are its own
        state = jax.tree.map(
            lambda node: () if isinstance(node, observations.Diagnostics) else node,
            state,
            is_leaf=lambda node: isinstance(node, observations.Diagnostics),
        )
    for leaf in jax.tree.leaves((after, state)):
        shards = [np.asarray(shard.data) for shard in leaf.addressable_shards]
        assert all(np.array_equal(shard, shards[0]) for shard in shards)


@pytest.mark.usefixtures("float64")
def test_devices_with_their_own_gradients_keep_one_state():
    tx = optax.chain(
        sam_jax.every_k(sam_jax.vasso(0.3), 2), sam_jax.pmean("data"), optax.sgd(0.1)
    )
    after, state = on_devices(tx, check_vma=True)  # refuses a state that differs
    assert state[0].count == 4
    assert np.isfinite(after["bias"])


# ── Bad input ────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("k", [0, -1, 2.0, True, "5", None, lambda count: 5])
def test_the_interval_is_an_integer(k):
    with pytest.raises(ValueError, match=r"^k must be an integer >= 1, got "):
        sam_jax.every_k(sam_jax.sam(), k)


def test_the_phase_is_in_order():
    for start, stop in ((-1, None), (0.5, 3), (None, 3)):
        with pytest.raises(ValueError, match=r"^start must be an integer >= 0, got "):
            sam_jax.late_phase(sam_jax.sam(), start, stop)
    with pytest.raises(ValueError, match=r"^stop must be an integer >= 0, got "):
        sam_jax.late_phase(sam_jax.sam(), 3, 7.5)
    with pytest.raises(ValueError, match=r"^stop must be at least start, got 2 < 3"):
        sam_jax.late_phase(sam_jax.sam(), 3, 2)


@pytest.mark.parametrize("probability", [-0.1, 1.1, float("nan"), "?"])
def test_the_probability_is_one(probability):
    with pytest.raises(ValueError, match=r"^probability must be a number in \[0, 1\]"):
        sam_jax.stochastic(sam_jax.sam(), probability)


@pytest.mark.parametrize("missing", ["params", "grad_fn"])
def test_missing_arguments_are_refused_in_skipped_updates_too(missing):
    params = jnp.ones(2)
    tx = sam_jax.late_phase(sam_jax.sam(), 10)
    arguments = {"params": params, "grad_fn": lambda w: w}
    del arguments[missing]
    with pytest.raises(ValueError, match=rf"^{missing} is missing"):
        tx.update(params, tx.init(params), **arguments)


def test_one_stochastic_inside_another_draws_by_itself():
    inner = sam_jax.stochastic(sam_jax.sam(0.1), 0.5, seed=1)
    count = sum(used(sam_jax.stochastic(inner, 0.5, seed=0), 400))
    assert 70 < count < 130  # a quarter


@pytest.mark.parametrize(
    "method",
    [
        sam_jax.momentum_sam(0.1),
        sam_jax.sam_sps(),
        sam_jax.bsam(0.1),
        sam_jax.with_grad_fn(sam_jax.lookbehind(0.1), jnp.sin),
        sam_jax.apply_if_finite(sam_jax.momentum_sam(0.1), 3),
    ],
)
@pytest.mark.parametrize(
    "wrap", [sam_jax.every_k, sam_jax.stochastic, lambda m: sam_jax.late_phase(m, 3)]
)
def test_refuses_full_optimizers(wrap, method):
    with pytest.raises(
        ValueError, match="method must turn a gradient into a direction"
    ):
        wrap(method)


def test_a_method_with_keywords_of_its_own_needs_no_others():
    tx, w = sam_jax.every_k(sam_jax.functional_sam(0.1), 2), jnp.ones(2)
    second = sam_jax.functional_value_and_grad(lambda w: w, jnp.sum, w)
    direction, _ = tx.update(w, tx.init(w), w, functional_value_and_grad_fn=second)
    np.testing.assert_allclose(direction, [1.0, 1.0])


def test_looksam_catches_up_on_a_look_that_was_skipped():
    # Used in updates 0, 3, 6, ...; due from 5, 10 and 15 on.
    tx, w = sam_jax.every_k(sam_jax.looksam(k=5), 3), jnp.array([1.0, 2.0])
    grad_fn = jax.grad(lambda w: w[0] ** 2 * w[1])
    update = jax.jit(lambda s: tx.update(grad_fn(w), s, w, grad_fn=grad_fn)[1])
    state, looks = tx.init(w), []
    for count in range(18):
        state = update(state)
        if sam_jax.diagnostics(state)["perturbation_norm"] > 0:
            looks.append(count)
    assert looks == [0, 6, 12, 15]
