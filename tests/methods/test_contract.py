"""What holds for every method of the library; new ones are found by their name."""

import functools
import importlib
import importlib.util
import inspect
import pathlib
import re
import typing
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import sam_jax
from sam_jax import methods
from sam_jax.methods import devices
from tests.methods import problems
from tests.methods.traits import Traits, sgd

ROOT = pathlib.Path(__file__).parents[2]
USUAL = Traits()
NUMBERS = {"No": 0, "One": 1, "Two": 2, "Three": 3, "Four": 4}

pytestmark = pytest.mark.parametrize("name", methods.names())


def traits(name):
    """What the test file of a method says about it; see `Traits`."""
    return getattr(
        importlib.import_module(f"tests.methods.test_{name}"), "TRAITS", USUAL
    )


def parameters(name):
    return inspect.signature(methods.factory(name)).parameters


def is_optimizer(name):
    """Whether a method brings its own step size and base, instead of a direction."""
    return "learning_rate" in parameters(name)


def optimizer(name, learning_rate=0.1, base=sgd, **coefficients):
    coefficients = {**traits(name).settings, **coefficients}
    if is_optimizer(name):
        return methods.factory(name)(learning_rate, **coefficients)
    return optax.chain(methods.factory(name)(**coefficients), base(learning_rate))


class DefaultRun(NamedTuple):
    """A jitted step shared by the tests that differ in its arguments only.

    Attributes:
        update: ``(carry, learning_rate, rho, seed) -> carry``, the carry being
            parameters and state.
        start: the first carry.
        traces: one entry for every time that the step was traced.
    """

    update: Callable[..., tuple[optax.Params, optax.OptState]]
    start: tuple[optax.Params, optax.OptState]
    traces: list[str]


@functools.cache
def default_run(name):
    traces = []

    @jax.jit
    def step(params, state, batch, learning_rate, rho):
        traces.append(name)
        tx = optimizer(name, learning_rate, rho=rho)
        return problems.make_step(tx, problems.network_loss)(params, state, batch)

    def update(carry, learning_rate=0.1, rho=0.05, seed=1):
        return step(*carry, problems.batch(seed=seed), learning_rate, rho)

    params = problems.network()
    return DefaultRun(update, (params, optimizer(name).init(params)), traces)


def schedulable(name):
    """The coefficients that may follow a schedule, with a number for each."""
    allowed = typing.get_args(optax.ScalarOrSchedule)
    return {
        key: parameter.default if np.isreal(parameter.default) else 0.5
        for key, parameter in parameters(name).items()
        if all(kind in typing.get_args(parameter.annotation) for kind in allowed)
        and key != "learning_rate"
    }


def numeric(name):
    """The names of all coefficients that are numbers."""
    return {
        key
        for key, parameter in parameters(name).items()
        if isinstance(parameter.default, (int, float))
        and not isinstance(parameter.default, bool)
    } | set(schedulable(name))


def to_numpy(x):
    typed_key = jnp.issubdtype(x.dtype, jax.dtypes.prng_key)
    return np.asarray(jax.random.key_data(x) if typed_key else x)


def assert_equal(actual, desired):
    """Same structure, same bits."""
    assert jax.tree.structure(actual) == jax.tree.structure(desired)
    for x, y in zip(jax.tree.leaves(actual), jax.tree.leaves(desired), strict=True):
        assert x.dtype == y.dtype
        np.testing.assert_array_equal(to_numpy(x), to_numpy(y))


def assert_close(actual, desired, rtol):
    assert jax.tree.structure(actual) == jax.tree.structure(desired)
    for x, y in zip(jax.tree.leaves(actual), jax.tree.leaves(desired), strict=True):
        np.testing.assert_allclose(
            to_numpy(x),
            to_numpy(y),
            rtol=rtol,
            atol=rtol * np.max(np.abs(y), initial=1),
        )


def assert_finite(tree):
    for leaf in jax.tree.leaves(tree):
        assert np.isfinite(to_numpy(leaf)).all(), tree


def signature_of(tree):
    return jax.tree.map(lambda x: (jnp.shape(x), jnp.asarray(x).dtype), tree)


# ── State ────────────────────────────────────────────────────────────────────────────


def test_init_can_be_evaluated_abstractly(name):
    tx, params = optimizer(name), problems.network()
    abstract = jax.eval_shape(tx.init, params)
    assert signature_of(tx.init(params)) == jax.tree.map(
        lambda x: (x.shape, x.dtype), abstract
    )


def test_params_and_state_can_be_donated_together(name):
    tx, params = optimizer(name), problems.network()
    state = tx.init(params)
    # Unused inputs are kept: whatever shares a buffer is then given away twice.
    step = jax.jit(
        problems.make_step(tx, problems.network_loss),
        donate_argnums=(0, 1),
        keep_unused=True,
    )
    donated = jax.tree.leaves((params, state))
    for _ in range(2):
        params, state = step(params, state, problems.batch())
    assert all(leaf.is_deleted() for leaf in donated)
    assert_finite(params)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
def test_structure_shapes_and_dtypes_stay(name, dtype):
    tx, params = optimizer(name, learning_rate=0.02), problems.network(dtype)
    args = (problems.batch(dtype),)
    # A scan refuses a carry of another structure, shape or dtype.
    after, state = problems.train(tx, problems.network_loss, params, args, steps=20)
    assert signature_of(after) == signature_of(params)
    assert signature_of(state) == signature_of(tx.init(params))
    call = problems.keywords(problems.network_loss, params, *args)
    updates, _ = jax.eval_shape(
        lambda params, state: tx.update(params, state, params, **call), params, state
    )
    assert jax.tree.map(lambda x: (x.shape, x.dtype), updates) == signature_of(params)
    assert_finite((after, state))
    assert problems.network_loss(after, *args) < problems.network_loss(params, *args)


def test_low_precision_weights_with_gradients_in_float32(name):
    if is_optimizer(name):
        pytest.skip("its base decides")
    tx, params = methods.factory(name)(**traits(name).settings), problems.network()
    call = problems.keywords(problems.network_loss, params, problems.batch())
    low = jax.tree.map(lambda w: w.astype(jnp.bfloat16), params)
    functions = {  # of weights in bfloat16, in float32
        key: lambda weights, *args, f=f: f(
            jax.tree.map(lambda w: w.astype(jnp.float32), weights), *args
        )
        for key, f in call.items()
        if key.endswith("_fn")
    }

    def step(state, _):
        grads = functions["grad_fn"](low)
        return tx.update(grads, state, low, **(call | functions))[::-1]

    with jax.numpy_dtype_promotion("standard"):
        # A scan refuses a state of another dtype.
        _, directions = jax.lax.scan(step, tx.init(low), length=3)
    assert_finite(directions)


def test_nothing_to_train(name):
    tx = optimizer(name, base=optax.sgd)
    call = problems.keywords(lambda params: jnp.zeros([]), {})
    updates, _ = tx.update({}, tx.init({}), {}, **call)
    assert updates == {}


def test_compiles_once(name):
    update, carry, traces = default_run(name)
    for seed in range(4):
        carry = update(carry, rho=0.1 * seed, seed=seed)
    assert len(traces) == 1


def test_continues_from_saved_arrays_with_the_same_bits(name):
    update, start, _ = default_run(name)

    def run(carry, steps):
        for _ in range(steps):
            carry = update(carry)
        return carry

    def restore(saved, like):
        if jnp.issubdtype(like.dtype, jax.dtypes.prng_key):
            return jax.random.wrap_key_data(saved, impl=jax.random.key_impl(like))
        return jnp.asarray(saved)

    leaves, structure = jax.tree.flatten(run(start, 3))
    saved = [np.array(to_numpy(leaf)) for leaf in leaves]
    restored = [restore(x, leaf) for x, leaf in zip(saved, leaves, strict=True)]
    assert_equal(run(structure.unflatten(restored), 3), run(start, 6))


# ── Calls ────────────────────────────────────────────────────────────────────────────


def test_unknown_keywords_change_nothing(name):
    tx, params = optimizer(name), problems.network()
    call = problems.keywords(problems.network_loss, params, problems.batch())
    grads = call["grad_fn"](params)
    plain = tx.update(grads, tx.init(params), params, **call)
    extra = tx.update(grads, tx.init(params), params, anything=object(), **call)
    assert_equal(extra, plain)
    # Nor does the state hold the caller's arrays: they may be donated.
    theirs = {id(leaf) for leaf in jax.tree.leaves((grads, params))}
    assert not theirs & {id(leaf) for leaf in jax.tree.leaves(plain[1])}


def test_missing_arguments_show_the_call(name):
    tx, params = optimizer(name), problems.network()
    call = problems.keywords(problems.network_loss, params, problems.batch())
    for missing in traits(name).needs:
        arguments = {"params": params, **call}
        del arguments[missing]
        if missing == "grad_fn":  # either of the two will do
            del arguments["value_and_grad_fn"]
        example = r"tx\.update\(grads, state, params, \w+=\w+"
        with pytest.raises(ValueError, match=rf"^{missing} is missing.*{example}"):
            tx.update(params, tx.init(params), **arguments)


def documented_gradients(name):
    doc = inspect.getdoc(methods.factory(name))
    found = re.search(rf"\b({'|'.join(NUMBERS)}) gradients? per update", doc)
    assert found, "the docstring says 'Two gradients per update', or how many it takes"
    return NUMBERS[found[1]]


def test_number_of_gradients_is_the_documented_one(name):
    tx, params = optimizer(name), problems.network()
    calls = []

    def counted(params, batch):
        jax.debug.callback(lambda: calls.append(1))  # runs only where the loss does
        return problems.network_outputs(params, batch)

    loss = problems.network_loss._replace(outputs=counted)
    step = jax.jit(problems.make_step(tx, loss))
    state = tx.init(params)
    for _ in range(5):
        params, state = step(params, state, problems.batch())
    jax.effects_barrier()
    expected = traits(name).calls
    assert len(calls) == (expected or 5 * documented_gradients(name))


def test_flops_are_those_of_the_documented_gradients(name):
    shapes = {"a": (256, 256), "b": (256, 256), "c": (256, 256)}
    params = {k: jax.ShapeDtypeStruct(v, jnp.float32) for k, v in shapes.items()}
    inputs = jax.ShapeDtypeStruct((2048, 256), jnp.float32)
    loss = problems.Supervised(  # nearly all of its work is in matrix products
        lambda params, inputs: inputs @ params["a"] @ params["b"] @ params["c"],
        lambda outputs, inputs: jnp.sum(jnp.square(outputs), axis=1),
    )

    def flops(tx):
        step = jax.jit(problems.make_step(tx, loss))
        state = jax.eval_shape(tx.init, params)
        return step.lower(params, state, inputs).compile().cost_analysis()["flops"]

    ratio = flops(optimizer(name)) / flops(sgd(0.1))
    expected = traits(name).flops or documented_gradients(name)
    assert ratio == pytest.approx(expected, rel=0.01)


# ── Edges ────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("dtype, huge", [(jnp.float32, 1e30), (jnp.float16, 6e4)])
def test_zero_and_huge_gradients_give_finite_updates(name, dtype, huge):
    required = {"learning_rate": 0.1} if is_optimizer(name) else {}
    tx = methods.factory(name)(**required, **traits(name).settings)
    params = {
        "matrix": jnp.ones((3, 2), dtype),
        "scalar": jnp.ones([], dtype),
        "empty": jnp.ones((0, 4), dtype),
    }
    zero = jax.tree.map(jnp.zeros_like, params)
    large = {**params, "matrix": jnp.full((3, 2), huge, dtype)}

    @jax.jit
    def update(grads, state):
        return tx.update(
            grads,
            state,
            params,
            grad_fn=lambda params: grads,
            value_and_grad_fn=lambda params: (jnp.zeros([], dtype), grads),
            value=jnp.zeros([], dtype),
            num_examples=1000,
            example_losses=jnp.zeros(4, dtype),
            example_losses_fn=lambda params: jnp.zeros(4, dtype),
            subset_grad_fn=lambda params, rows: grads,
            functional_value_and_grad_fn=lambda params: (jnp.zeros([], dtype), grads),
        )

    state = tx.init(params)
    for grads in (zero, large, zero, params):
        updates, state = update(grads, state)
        assert_finite(updates)
        assert signature_of(updates) == signature_of(params)
    # The diagnostics are no excuse: the norm of the huge gradient is finite as well.
    _, state = update(large, state)
    seen = sam_jax.diagnostics(state)
    assert_finite(seen)
    assert seen["grad_norm"] == pytest.approx(float(huge) * 6**0.5, rel=1e-2)


def test_learning_rate_zero_leaves_params_unchanged(name):
    update, carry, _ = default_run(name)
    for _ in range(3):
        carry = update(carry, learning_rate=0.0)
    evaluated = methods.eval_params(name)
    if evaluated is None:
        assert_equal(carry[0], problems.network())
    else:  # it holds other weights, and gives these back up to rounding
        assert_close(evaluated(carry[1], carry[0]), problems.network(), rtol=1e-6)


# ── Meaning ──────────────────────────────────────────────────────────────────────────


def test_radius_zero_is_the_base_optimizer(name):
    base, exact, *_ = traits(name)
    if base is None:
        pytest.skip("recombines gradients so that no base is left at rho = 0")
    args = (problems.network_loss, problems.network(), (problems.batch(),), 5)
    ours = problems.trajectory(optimizer(name, rho=0.0), *args)
    theirs = problems.trajectory(base(0.1), *args)
    if exact:
        assert_equal(ours, theirs)
    else:
        assert_close(ours, theirs, rtol=1e-5)


def test_a_larger_radius_is_felt(name):
    update, start, _ = default_run(name)
    near, far = (update(update(start, rho=rho), rho=rho)[0] for rho in (0.0, 0.5))
    differences = jax.tree.map(lambda x, y: jnp.max(jnp.abs(x - y)), near, far)
    assert max(jax.tree.leaves(differences)) > 1e-3


@pytest.mark.parametrize("objective", ["quadratic", "nonconvex", "logistic"])
def test_converges_on_small_objectives(name, objective):
    inputs, targets = problems.batch()
    loss = {
        "quadratic": lambda w: w @ (jnp.array([1.0, 2.0, 5.0]) * w) / 2,
        "nonconvex": lambda w: jnp.sum(jnp.log1p(jnp.square(w - 1))),
        "logistic": lambda w: (
            jnp.mean(jnp.logaddexp(0.0, -jnp.sign(targets) * (inputs @ w)))
            + 0.01 * jnp.sum(w**2)
        ),
    }[objective]
    tx = optimizer(name, learning_rate=traits(name).rate)
    start = jnp.array([1.0, -1.0, 2.0])
    after, _ = problems.train(tx, loss, start, steps=400)
    best, _ = problems.train(sgd(0.02), loss, start, steps=4000)
    # A constant radius ends near the minimum, not in it.
    assert loss(after) - loss(best) < 0.02 * (loss(start) - loss(best))


def test_diagnostics_tell_what_the_update_saw(name):
    params, batch = problems.network(), problems.batch()
    call = problems.keywords(problems.network_loss, params, batch)
    grads = call["grad_fn"](params)
    tx = optimizer(name, rho=0.1)
    state = tx.init(params)
    _, state = tx.update(grads, state, params, **call)
    seen = sam_jax.diagnostics(state)
    if seen["perturbation_norm"] == 0:  # one gradient: it perturbs for the next update
        _, state = tx.update(grads, state, params, **call)
        seen = sam_jax.diagnostics(state)
    pair = traits(name).pair
    assert tuple(seen) == sam_jax.Diagnostics._fields[: 4 if pair else 2]
    assert all(x.dtype == jnp.float32 and x.shape == () for x in seen.values())
    flat = np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(grads)])
    if traits(name).unused_gradient:
        assert 0 < seen["grad_norm"] != np.linalg.norm(flat)
    else:
        assert seen["grad_norm"] == pytest.approx(np.linalg.norm(flat), rel=1e-6)
    assert seen["perturbation_norm"] > 0
    if pair:
        assert -1 <= seen["gradient_cosine"] < 1
        clean = problems.network_loss(params, batch)
        assert seen["perturbed_loss"] != clean and np.isfinite(seen["perturbed_loss"])


@pytest.mark.parametrize("form", ["tree", "function"])
def test_mask_keeps_the_other_parameters_in_place(name, form):
    if not traits(name).pair:
        pytest.skip("takes no gradient by itself")
    params, grads = problems.network(), problems.network()
    kept = jax.tree.map(lambda leaf: leaf.ndim > 1, params)
    mask = kept if form == "tree" else lambda tree: jax.tree.map(lambda _: _, kept)
    tx = optimizer(name, rho=0.1, mask=mask)
    perturbed = problems.perturbed_params(tx, grads, tx.init(params), params)
    moved = jax.tree.map(lambda x, y: bool((x != y).any()), perturbed, params)
    assert moved == kept


# ── Company ──────────────────────────────────────────────────────────────────────────


def test_in_a_chain_with_clipping_decay_and_schedule(name):
    if is_optimizer(name):
        pytest.skip("brings its own base optimizer")
    params, args = problems.network(), (problems.batch(),)
    direction = methods.factory(name)(**traits(name).settings)
    tx = optax.chain(
        direction,
        optax.clip_by_global_norm(0.1),
        optax.add_decayed_weights(0.01),
        optax.scale_by_learning_rate(lambda count: 0.5 ** jnp.float32(count)),
    )
    after, state = jax.jit(problems.make_step(tx, problems.network_loss))(
        params, tx.init(params), *args
    )
    call = problems.keywords(problems.network_loss, params, *args)
    d, _ = direction.update(
        call["grad_fn"](params), direction.init(params), params, **call
    )
    clip = min(1.0, 0.1 / float(optax.tree.norm(d)))
    expected = jax.tree.map(lambda w, d: w - (clip * d + 0.01 * w), params, d)
    assert_close(after, expected, rtol=1e-5)
    assert len(sam_jax.diagnostics(state)) == 4


def test_inject_hyperparams_takes_a_schedule_of_rho(name):
    static = tuple(set(parameters(name)) - set(schedulable(name)) - {"learning_rate"})
    required = {"learning_rate": 0.1} if is_optimizer(name) else {}
    required |= {k: v for k, v in traits(name).settings.items() if k != "rho"}
    injected = optax.inject_hyperparams(methods.factory(name), static_args=static)
    tx = injected(rho=lambda count: 0.1 * (1 + jnp.float32(count)), **required)
    if not is_optimizer(name):
        tx = optax.chain(tx, sgd(0.1))
    args = (problems.network_loss, problems.network(), (problems.batch(),), 3)
    update, carry, _ = default_run(name)
    for count, params in enumerate(problems.trajectory(tx, *args)):
        carry = update(carry, rho=0.1 * (1 + count))
        assert_close(params, carry[0], rtol=1e-5)


@pytest.mark.parametrize("wrapper", ["masked", "partition"])
def test_around_a_base_for_some_parameters(name, wrapper):
    if is_optimizer(name):
        pytest.skip("brings its own base optimizer")
    params = problems.network()
    trained = {"kernel": True, "bias": False}

    def base(learning_rate):
        if wrapper == "masked":
            return optax.chain(
                optax.masked(sgd(learning_rate), trained),
                optax.masked(optax.set_to_zero(), {"kernel": False, "bias": True}),
            )
        parts = {True: sgd(learning_rate), False: optax.set_to_zero()}
        return optax.partition(parts, trained)

    tx = optimizer(name, base=base, rho=0.05)
    args = (problems.network_loss, params, (problems.batch(),), 1)
    [some] = problems.trajectory(tx, *args)
    update, start, _ = default_run(name)
    every, _ = update(start)
    assert_equal(some["bias"], params["bias"])
    assert_close(some["kernel"], every["kernel"], rtol=1e-6)
    assert not np.array_equal(some["kernel"], params["kernel"])


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("check_vma", [True, False])
def test_a_shard_map_with_global_gradients_is_one_device(name, check_vma):
    if traits(name).examples:
        pytest.skip("chooses among the examples of each device")
    tx, params = optimizer(name), problems.network(jnp.float64)
    batch = problems.batch(jnp.float64)
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))

    def mean(tree):
        return jax.lax.pmean(tree, "data")

    def local(params):
        """So that a gradient of replicated parameters is this device's own."""
        return jax.lax.pcast(params, "data", to="varying") if check_vma else params

    def steps(params, state, batch):
        def keywords(weights):
            call = problems.keywords(problems.network_loss, local(weights), batch)
            functions = {
                key: lambda weights, *args, f=f: mean(f(local(weights), *args))
                for key, f in call.items()
                if key.endswith("_fn")
            }
            losses = call["example_losses"], call["value"]
            call["example_losses"], call["value"] = mean(losses)
            return call | functions

        def step(carry, _):
            params, state = carry
            call = keywords(params)
            grads = call["grad_fn"](params)
            updates, state = tx.update(grads, state, params, **call)
            return (optax.apply_updates(params, updates), state), None

        return jax.lax.scan(step, (params, state), length=3)[0]

    specs = {"in_specs": (P(), P(), P("data")), "out_specs": (P(), P())}
    sharded = jax.shard_map(steps, mesh=mesh, check_vma=check_vma, **specs)
    carry = jax.jit(sharded)(params, tx.init(params), batch)
    for leaf in jax.tree.leaves(carry):
        shards = [to_numpy(shard.data) for shard in leaf.addressable_shards]
        assert all(np.array_equal(shard, shards[0]) for shard in shards)
    one = problems.trajectory(tx, problems.network_loss, params, (batch,), 3)
    assert_close(carry[0], one[-1], rtol=1e-9)


@pytest.mark.parametrize("perturbation", ["per device", "shared"])
def test_per_device_gradients_keep_the_state_in_agreement(name, perturbation):
    if is_optimizer(name):
        pytest.skip("takes its step itself; give it global gradients")
    tx = optax.chain(
        sam_jax.pmean("data") if perturbation == "shared" else optax.identity(),
        methods.factory(name)(**traits(name).settings),
        sam_jax.pmean("data"),
        sgd(0.1),
    )
    params = problems.network()
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))

    def steps(params, state, batch):
        def step(carry, _):
            params, state = carry
            own = jax.lax.pcast(params, "data", to="varying")
            call = problems.keywords(problems.network_loss, own, batch)
            updates, state = tx.update(call["grad_fn"](own), state, own, **call)
            return (optax.apply_updates(params, updates), state), None

        return jax.lax.scan(step, (params, state), length=2)[0]

    # A state that differed between devices would be refused as replicated output.
    specs = {"in_specs": (P(), P(), P("data")), "out_specs": (P(), P())}
    sharded = jax.jit(jax.shard_map(steps, mesh=mesh, **specs))
    after, state = sharded(params, tx.init(params), problems.batch())
    assert_finite((after, state))
    assert signature_of(state) == signature_of(tx.init(params))


@pytest.mark.usefixtures("float64")
def test_groups_of_a_vmap_agree_as_devices_do(name):
    """Groups along a mapped axis, against a group on each device of a shard_map."""
    rate = [0.1] if is_optimizer(name) else []
    method = methods.factory(name)(*rate, **traits(name).settings)
    scale = 1.0 if is_optimizer(name) else -0.1
    params, batch = problems.network(jnp.float64), problems.batch(jnp.float64)
    mesh = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,))

    def local(params):
        """So that a gradient is this device's own, also at unperturbed weights."""
        return devices.vary(params, jax.sharding.get_abstract_mesh().manual_axes)

    def of_group(params, state, batch):
        call = problems.keywords(problems.network_loss, local(params), batch)
        functions = {
            key: lambda weights, *args, f=f: f(local(weights), *args)
            for key, f in call.items()
            if key.endswith("_fn")
        }
        grads = call["grad_fn"](local(params))
        return method.update(grads, state, params, **(call | functions))

    def mapped(params, state, batch):
        groups = jax.tree.map(lambda a: a.reshape(4, -1, *a.shape[1:]), batch)
        directions, state = jax.vmap(
            of_group,
            in_axes=(None, None, 0),
            out_axes=(0, None),
            axis_name=sam_jax.GROUP_AXIS,
        )(params, state, groups)
        return jax.tree.map(lambda d: d.mean(0), directions), state

    def on_device(params, state, batch):
        direction, state = of_group(params, state, batch)
        return jax.lax.pmean(direction, "data"), state

    specs = {"in_specs": (P(), P(), P("data")), "out_specs": (P(), P())}
    results = []
    for step in (mapped, jax.shard_map(on_device, mesh=mesh, **specs)):
        weights, state = params, method.init(params)
        for _ in range(3):
            direction, state = jax.jit(step)(weights, state, batch)
            weights = jax.tree.map(lambda w, d: w + scale * d, weights, direction)
        results.append((weights, state))
    assert_close(results[0][0], results[1][0], rtol=1e-12)
    assert_close(results[0][1], results[1][1], rtol=1e-5)  # diagnostics are float32


@pytest.mark.usefixtures("float64")
def test_one_and_eight_devices_agree(name):
    def after(devices):
        mesh = jax.make_mesh((devices,), ("data",), axis_types=(AxisType.Auto,))
        whole, split = NamedSharding(mesh, P()), NamedSharding(mesh, P("data"))
        tx, params = optimizer(name), problems.network(jnp.float64)
        carry = jax.device_put((params, tx.init(params)), whole)
        args = jax.device_put(problems.batch(jnp.float64), split)
        step = jax.jit(problems.make_step(tx, problems.network_loss))
        for _ in range(3):
            carry = step(*carry, args)
        assert all(leaf.sharding.is_fully_replicated for leaf in jax.tree.leaves(carry))
        return carry

    (one, _), (eight, _) = after(1), after(8)
    assert len(jax.tree.leaves(eight)[0].devices()) == 8
    assert_close(eight, one, rtol=1e-12)


# ── Coefficients ─────────────────────────────────────────────────────────────────────


def test_signature(name):
    first, *rest = (p for p in parameters(name).values() if p.name != "learning_rate")
    assert first.name == "rho"
    assert {"eps", "mask"} <= {p.name for p in rest}
    assert all(p.kind is p.KEYWORD_ONLY for p in rest)
    assert all(p.default is not p.empty for p in (first, *rest))
    assert "rho" in schedulable(name)


def test_schedules_are_read_at_every_count(name):
    args = (problems.network_loss, problems.network(), (problems.batch(),), 3)
    for key, value in schedulable(name).items():
        seen = []

        def schedule(count, value=value, seen=seen):
            jax.debug.callback(lambda count: seen.append(int(count)), count)
            return jnp.asarray(value, jnp.float32)

        scheduled = problems.trajectory(optimizer(name, **{key: schedule}), *args)
        jax.effects_barrier()
        assert sorted(set(seen)) == [0, 1, 2], key
        constant = problems.trajectory(optimizer(name, **{key: value}), *args)
        assert_close(scheduled, constant, rtol=1e-6)


@pytest.mark.parametrize("value", [-1, float("nan"), float("inf"), "?", [0.1]])
def test_bad_coefficients_are_refused_at_construction(name, value):
    for key in sorted(numeric(name) - traits(name).any_value):
        with pytest.raises(ValueError, match=rf"{key} must be .*, got "):
            optimizer(name, **{key: value})


# ── Papers ───────────────────────────────────────────────────────────────────────────


def test_is_exported(name):
    assert getattr(sam_jax, name) is methods.factory(name)
    assert methods.factory(name).__name__ == name


def test_docstring_has_every_section(name):
    doc = inspect.getdoc(methods.factory(name))
    summary, blank, *_ = doc.splitlines()
    assert summary.endswith(".") and not blank
    sections = ["Args", "Returns", "Raises", "Example", "References"]
    sections.append("Differences from the authors' code")
    starts = [doc.find(f"\n{section}:\n") for section in sections]
    assert min(starts) > 0, dict(zip(sections, starts, strict=True))
    assert starts == sorted(starts)
    body = {
        section: doc[start:end]
        for section, start, end in zip(
            sections, starts, [*starts[1:], len(doc)], strict=True
        )
    }
    assert ".. math::" in doc[: starts[0]]
    for parameter in parameters(name):
        assert re.search(rf"^    {parameter}: \S", body["Args"], re.M), parameter
    assert "ValueError: " in body["Raises"]
    assert ">>> " in body["Example"]
    assert re.search(r"\b(19|20)\d\d\b(?!\.\d)", body["References"])
    assert re.search(r"<https://arxiv\.org/abs/\d{4}\.\d{5}>", body["References"])


def test_docstring_tells_cost_state_and_use(name):
    doc = inspect.getdoc(methods.factory(name))
    lead = doc[: doc.find("\nArgs:\n")]
    assert re.search(r"^Use it (?:when|where|for|as|if|to|on|in|with)\b", lead, re.M)
    documented_gradients(name)
    documented_state(lead)


def documented_state(lead):
    """Copies of the parameters and booleans per parameter that a docstring names."""
    flat = " ".join(lead.split())
    if "no state but counters and diagnostics" in flat:
        return 0, 0
    found = re.search(r"; state: ([^.]*)", flat)
    assert found, "the docstring says '; state: one copy of the parameters'"
    copies = re.search(r"\b(one|two|three) cop", found[1])
    booleans = re.search(r"\bone boolean per parameter", found[1])
    return NUMBERS[copies[1].capitalize()] if copies else 0, int(bool(booleans))


def test_state_has_the_documented_size(name):
    lead, _, _ = inspect.getdoc(methods.factory(name)).partition("\nArgs:\n")
    copies, booleans = documented_state(lead)
    params = {"matrix": jnp.ones((100, 30)), "vector": jnp.ones(50)}
    required = {"learning_rate": 0.1} if is_optimizer(name) else {}
    state = methods.factory(name)(**{**traits(name).settings, **required}).init(params)
    documented = 3050 * (4 * copies + booleans)
    if "base" in parameters(name):  # its state is no concern of the method's
        documented += sum(x.nbytes for x in jax.tree.leaves(sgd(0.1).init(params)))
    actual = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
    assert documented <= actual <= documented + 100


def test_fragment_configures_the_method(name):
    path = ROOT / "configs" / "methods" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"fragment_{name}", path)
    fragment = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(fragment)
    assert re.search(r"\b(19|20)\d\d\b", fragment.__doc__), "says whose values they are"
    coefficients = dict(fragment.get_config())
    assert coefficients.pop("name", name) == name
    assert "rho" in coefficients
    required = {"learning_rate": 0.1} if is_optimizer(name) else {}
    tx = methods.factory(name)(**required, **coefficients)
    assert isinstance(tx, optax.GradientTransformationExtraArgs)
