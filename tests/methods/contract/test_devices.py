"""A method on several devices, in groups of examples: one weight vector, one state."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import sam_jax
from sam_jax.testing import devices as testing_devices
from tests.methods import problems
from tests.methods.contract import cases
from tests.methods.contract.cases import every_method, on_devices
from tests.methods.traits import sgd, traits

SPECS = testing_devices.SPECS


def mesh_of(devices):
    return jax.make_mesh((devices,), ("data",), axis_types=(AxisType.Auto,))


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("check_vma", [True, False])
@on_devices(["vasso", "looksam"])
def test_a_shard_map_with_global_gradients_is_one_device(name, devices, check_vma):
    if traits(name).examples:
        pytest.skip("chooses among the examples of each device")
    sharded, arguments = testing_devices.global_gradients(
        cases.of(name), mesh_of(devices), jnp.float64, check_vma=check_vma
    )
    carry = jax.jit(sharded)(*arguments)
    for leaf in jax.tree.leaves(carry):
        shards = [cases.to_numpy(shard.data) for shard in leaf.addressable_shards]
        assert len(shards) == devices
        assert all(np.array_equal(shard, shards[0]) for shard in shards)
    params, _, batch = arguments
    with jax.disable_jit():
        tx = cases.optimizer(name)
        one = problems.trajectory(tx, problems.network_loss, params, (batch,), 3)
    cases.assert_close(carry[0], one[-1], rtol=1e-9)


@pytest.mark.parametrize("perturbation", ["per device", "shared"])
@on_devices(["vasso"])
def test_per_device_gradients_give_finite_weights(name, devices, perturbation):
    mesh = mesh_of(devices)
    sharded, arguments = testing_devices.per_device(cases.of(name), perturbation, mesh)
    cases.assert_finite(jax.jit(sharded)(*arguments))


def of_devices(name, perturbation, how, devices):
    """`per_device`, also where no type says what differs: then stacked values of all.

    With types the update is given the parameters as they vary, or "unmarked".
    """
    tx = optax.chain(
        sam_jax.pmean("data") if perturbation == "shared" else optax.identity(),
        cases.method(name),
        *([] if cases.is_optimizer(name) else [sam_jax.pmean("data"), sgd(0.1)]),
    )
    params, batch = problems.network(jnp.float64), problems.batch(jnp.float64)

    typed = how in ("types", "unmarked")

    def steps(params, state, batch):
        def step(carry, _):
            params, state = carry
            own = jax.lax.pcast(params, "data", to="varying") if typed else params
            call = problems.keywords(problems.network_loss, own, batch)
            given = params if how == "unmarked" else own
            updates, state = tx.update(call["grad_fn"](own), state, given, **call)
            return (optax.apply_updates(params, updates), state), None

        return jax.lax.scan(step, (params, state), length=3)[0]

    def alone(*args):
        return jax.tree.map(lambda x: x[None], steps(*args))

    split = jax.tree.map(lambda x: x.reshape(devices, -1, *x.shape[1:]), batch)
    mesh = mesh_of(devices)
    if how == "pmap":
        mapped = jax.pmap(  # noqa: TID251 (a user's own)
            steps, "data", in_axes=(None, None, 0), devices=jax.devices()[:devices]
        )
        return mapped(params, tx.init(params), split)
    specs = SPECS if typed else SPECS | {"out_specs": P("data")}
    mapped = jax.shard_map(
        steps if typed else alone, mesh=mesh, check_vma=typed, **specs
    )
    return jax.jit(mapped)(params, tx.init(params), batch)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(
    "perturbation, how", [("per device", "pmap"), ("shared", "shard_map")]
)
@every_method("looksam", "bsam", why="programs for devices of each method")
def test_devices_agree_where_no_type_says_what_differs(name, perturbation, how):
    carry = of_devices(name, perturbation, how, devices=2)
    for leaf in jax.tree.leaves(carry):
        one, other = cases.to_numpy(leaf)
        np.testing.assert_array_equal(one, other)
    first = jax.tree.map(lambda x: x[0], carry)
    # A gradient that all share does not tell that the functions' are each device's.
    for how in ("types", "unmarked") if perturbation == "per device" else ("types",):
        typed = of_devices(name, perturbation, how, devices=2)
        cases.assert_close(first[0], typed[0], rtol=1e-9)
        cases.assert_close(first[1], typed[1], rtol=1e-5)  # diagnostics are float32


def test_members_of_a_pmap_without_a_name_are_trainings_of_their_own():
    tx = optax.chain(sam_jax.vasso(0.1), sgd(0.1))
    params, batch = problems.network(), problems.batch()
    step = problems.make_step(tx, problems.network_loss)
    carry = params, tx.init(params)
    split = jax.tree.map(lambda x: x.reshape(2, -1, *x.shape[1:]), batch)
    axes = (None, None, 0)
    mapped = jax.pmap(step, in_axes=axes, devices=jax.devices()[:2])  # noqa: TID251
    alone = jax.vmap(step, in_axes=axes)(*carry, split)
    cases.assert_close(mapped(*carry, split), alone, rtol=1e-5)


@pytest.mark.usefixtures("float64")
@on_devices(["vasso", "looksam", "sparse_sam"], many=4)
def test_groups_of_a_vmap_agree_as_devices_do(name, devices):
    """Groups along a mapped axis, against a group on each device of a shard_map."""
    mapped, on_device, (params, start, batch) = testing_devices.groups(
        cases.of(name), devices, jnp.float64
    )
    steps = mapped, jax.shard_map(on_device, mesh=mesh_of(devices), **SPECS)
    scale = 1.0 if cases.is_optimizer(name) else -0.1
    results = []
    for step in steps:
        weights, state, update = params, start, jax.jit(step)
        for _ in range(3):
            direction, state = update(weights, state, batch)
            weights = jax.tree.map(lambda w, d: w + scale * d, weights, direction)
        results.append((weights, state))
    (ours, our_state), (theirs, their_state) = results
    cases.assert_close(ours, theirs, rtol=1e-12)
    cases.assert_close(our_state, their_state, rtol=1e-5)  # diagnostics are float32


@pytest.mark.usefixtures("float64")
@on_devices(["sam", "sparse_sam"])
def test_one_and_several_devices_agree(name, devices):
    def after(devices):
        mesh = mesh_of(devices)
        whole, split = NamedSharding(mesh, P()), NamedSharding(mesh, P("data"))
        tx, params = cases.optimizer(name), problems.network(jnp.float64)
        carry = jax.device_put((params, tx.init(params)), whole)
        args = jax.device_put(problems.batch(jnp.float64), split)
        step = jax.jit(problems.make_step(tx, problems.network_loss))
        for _ in range(3):
            carry = step(*carry, args)
        assert all(leaf.sharding.is_fully_replicated for leaf in jax.tree.leaves(carry))
        return carry

    (one, _), (several, _) = after(1), after(devices)
    assert len(jax.tree.leaves(several)[0].devices()) == devices
    cases.assert_close(several, one, rtol=1e-12)


def on_a_mesh(name, kind, kernel):
    """A step on a mesh with axes of some kind, the kernel cut or not; its arguments."""
    mesh = jax.make_mesh((2, 2), ("data", "model"), axis_types=(kind, kind))

    def put(tree, spec):
        return jax.device_put(tree, NamedSharding(mesh, spec))

    tx, params = cases.optimizer(name), problems.network(jnp.float64)
    params = {"kernel": put(params["kernel"], kernel), "bias": put(params["bias"], P())}
    batch = put(problems.batch(jnp.float64), P("data"))
    step = problems.make_step(tx, problems.network_loss)
    with jax.set_mesh(mesh):
        return mesh, jax.jit(step), (params, jax.jit(tx.init)(params), batch)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(
    "kind", [AxisType.Auto, AxisType.Explicit], ids=["auto", "explicit"]
)
@every_method("dynamic_sparse_sam", why="a program for four devices of each method")
def test_cut_parameters_on_any_kind_of_mesh_are_one_device(name, kind):
    mesh, step, (*carry, batch) = on_a_mesh(name, kind, P(None, "model"))
    with jax.set_mesh(mesh):
        for _ in range(2):
            carry = step(*carry, batch)
    assert not carry[0]["kernel"].sharding.is_fully_replicated
    with jax.disable_jit():
        network = problems.network(jnp.float64), (problems.batch(jnp.float64),), 2
        one = problems.trajectory(
            cases.optimizer(name), problems.network_loss, *network
        )
    cases.assert_close(jax.device_get(carry[0]), jax.device_get(one[-1]), rtol=1e-9)
