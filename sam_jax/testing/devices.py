"""Promises of a method on several devices, by types: no devices are needed."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import AbstractMesh, AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from sam_jax.methods.devices import GROUP_AXIS, pmean, vary
from sam_jax.testing import problems
from sam_jax.testing.method import Method, sgd, signature_of

SPECS: Mapping[str, Any] = {
    "in_specs": (P(), P(), P("data")),
    "out_specs": (P(), P()),
}
TWO = AbstractMesh((2,), ("data",), axis_types=(AxisType.Auto,))


def of_functions(
    call: Mapping[str, Any], change: Callable[[Callable[..., Any]], Callable[..., Any]]
) -> dict[str, Any]:
    """The keywords of an update whose functions are changed."""
    return {k: change(f) if k.endswith("_fn") else f for k, f in call.items()}


def global_gradients(
    tested: Method, mesh: Any, dtype: Any = jnp.float32, *, check_vma: bool = True
) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    """Three updates in a shard_map that averages every gradient, and their start."""
    tx, params = tested.optimizer(), problems.network(dtype)

    def mean(tree: Any) -> Any:
        return jax.lax.pmean(tree, "data")

    def local(params: Any) -> Any:
        """So that a gradient of replicated parameters is this device's own."""
        return jax.lax.pcast(params, "data", to="varying") if check_vma else params

    def keywords(weights: Any, batch: Any) -> dict[str, Any]:
        call = problems.keywords(problems.network_loss, local(weights), batch)
        losses = call["example_losses"], call["value"]
        call["example_losses"], call["value"] = mean(losses)
        return of_functions(call, lambda f: lambda w, *args: mean(f(local(w), *args)))

    def steps(params: Any, state: Any, batch: Any) -> Any:
        def step(carry: Any, _: Any) -> Any:
            params, state = carry
            call = keywords(params, batch)
            grads = call["grad_fn"](params)
            updates, state = tx.update(grads, state, params, **call)
            return (optax.apply_updates(params, updates), state), None

        return jax.lax.scan(step, (params, state), length=3)[0]

    sharded = jax.shard_map(steps, mesh=mesh, check_vma=check_vma, **SPECS)
    return sharded, (params, tx.init(params), problems.batch(dtype))


def per_device(
    tested: Method, perturbation: str, mesh: Any
) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    """Steps whose gradients are each device's own, and their first arguments."""
    tx = optax.chain(
        pmean("data") if perturbation == "shared" else optax.identity(),
        tested.make(),
        *([] if tested.is_optimizer else [pmean("data"), sgd(0.1)]),
    )
    params = problems.network()

    def steps(params: Any, state: Any, batch: Any) -> Any:
        def step(carry: Any, _: Any) -> Any:
            params, state = carry
            own = jax.lax.pcast(params, "data", to="varying")
            call = problems.keywords(problems.network_loss, own, batch)
            updates, state = tx.update(call["grad_fn"](own), state, own, **call)
            return (optax.apply_updates(params, updates), state), None

        return jax.lax.scan(step, (params, state), length=2)[0]

    # A state that differed between devices would be refused as replicated output.
    sharded = jax.shard_map(steps, mesh=mesh, **SPECS)
    return sharded, (params, tx.init(params), problems.batch())


def groups(
    tested: Method, number: int, dtype: Any = jnp.float32
) -> tuple[Callable[..., Any], Callable[..., Any], tuple[Any, ...]]:
    """An update in groups of a mapped axis, that of a group a device, arguments."""
    tx = tested.make()
    params, batch = problems.network(dtype), problems.batch(dtype)

    def local(params: Any) -> Any:
        """So that a gradient is this device's own, also at unperturbed weights."""
        return vary(params, jax.sharding.get_abstract_mesh().manual_axes)

    def of_group(params: Any, state: Any, batch: Any) -> Any:
        call = problems.keywords(problems.network_loss, local(params), batch)
        call = of_functions(call, lambda f: lambda w, *args: f(local(w), *args))
        grads = call["grad_fn"](local(params))
        return tx.update(grads, state, params, **call)

    def mapped(params: Any, state: Any, batch: Any) -> Any:
        groups = jax.tree.map(lambda a: a.reshape(number, -1, *a.shape[1:]), batch)
        directions, state = jax.vmap(
            of_group,
            in_axes=(None, None, 0),
            out_axes=(0, None),
            axis_name=GROUP_AXIS,
        )(params, state, groups)
        return jax.tree.map(lambda d: d.mean(0), directions), state

    def on_device(params: Any, state: Any, batch: Any) -> Any:
        direction, state = of_group(params, state, batch)
        return jax.lax.pmean(direction, "data"), state

    return mapped, on_device, (params, tx.init(params), batch)


# ── Promises ─────────────────────────────────────────────────────────────────────────


def _agrees(function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    after = jax.eval_shape(function, *arguments)  # it is the types that tell
    assert signature_of(after) == signature_of(arguments[:2])


def global_gradients_keep_the_state(tested: Method) -> None:
    """With gradients averaged over devices, one state is kept by all of them."""
    if not tested.traits.examples:  # chooses among the examples of each device
        _agrees(*global_gradients(tested, TWO))


def own_gradients_keep_the_state(tested: Method) -> None:
    """With gradients of each device's own, one state is kept by all of them.

    What is kept of gradients goes through `sam_jax.pmean` or ``devices.agree``.
    """
    for perturbation in ("per device", "shared"):
        _agrees(*per_device(tested, perturbation, TWO))


def groups_keep_the_state(tested: Method) -> None:
    """In groups of a `jax.vmap` over `sam_jax.GROUP_AXIS`, all keep one state."""
    mapped, _, arguments = groups(tested, 2)
    # A state that differs between groups is refused as an output without their axis.
    _agrees(mapped, arguments)


def explicit_axes_stay(tested: Method) -> None:
    """On a mesh with explicit axes, cut parameters and their state stay as cut."""
    side = 2 if len(jax.devices()) >= 4 else 1  # the types are the same
    kinds = (AxisType.Explicit, AxisType.Explicit)
    mesh = jax.make_mesh((side, side), ("data", "model"), axis_types=kinds)
    tx = tested.optimizer()

    def cut(tree: Any, specs: Any) -> Any:
        return jax.tree.map(
            lambda x, spec: jax.ShapeDtypeStruct(
                x.shape, x.dtype, sharding=NamedSharding(mesh, spec)
            ),
            tree,
            specs,
        )

    params = cut(problems.network(), {"kernel": P(None, "model"), "bias": P()})
    batch = cut(problems.batch(), (P("data"), P("data")))
    step = problems.make_step(tx, problems.network_loss)
    with jax.set_mesh(mesh):
        before = params, jax.eval_shape(tx.init, params)
        after = jax.eval_shape(step, *before, batch)
    assert signature_of(after) == signature_of(before)
    kept = jax.tree.map(lambda x: x.sharding.spec, (before[0], after[0]))
    assert kept[0] == kept[1], f"cut as {kept[0]}, and afterwards as {kept[1]}"


CHECKS: tuple[Callable[[Method], None], ...] = (
    global_gradients_keep_the_state,
    own_gradients_keep_the_state,
    groups_keep_the_state,
    explicit_axes_stay,
)
