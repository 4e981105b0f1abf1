"""A method among other transformations: schedules, chains, wrappers."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import sam_jax
from sam_jax import methods
from tests.methods import problems
from tests.methods.contract import cases
from tests.methods.contract.cases import every_method
from tests.methods.traits import sgd, traits

# What Optax does around a method does not depend on the method's formula.
FEW = ("sam", "looksam", "sparse_sam", "bsam")


@every_method(*FEW)
def test_in_a_chain_with_clipping_decay_and_schedule(name):
    cases.skip_optimizer(name)
    params, batch = problems.network(), problems.batch()
    direction = cases.method(name)
    tx = optax.chain(
        direction,
        optax.clip_by_global_norm(0.1),
        optax.add_decayed_weights(0.01),
        optax.scale_by_learning_rate(lambda count: 0.5 ** jnp.float32(count)),
    )
    with jax.disable_jit():
        step = problems.make_step(tx, problems.network_loss)
        after, state = step(params, tx.init(params), batch)
        call = problems.keywords(problems.network_loss, params, batch)
        grads = call["grad_fn"](params)
        d, _ = direction.update(grads, direction.init(params), params, **call)
    clip = min(1.0, 0.1 / float(optax.tree.norm(d)))
    expected = jax.tree.map(lambda w, d: w - (clip * d + 0.01 * w), params, d)
    cases.assert_close(after, expected, rtol=1e-5)
    assert len(sam_jax.diagnostics(state)) == 4


@every_method(*FEW, "momentum_sam")
def test_without_diagnostics_the_same_updates(name):
    told = cases.optimizer(name)
    silent = sam_jax.without_diagnostics(told)
    assert type(silent) is type(told)
    for expected, params in zip(
        cases.unjitted(told, 2), cases.unjitted(silent, 2), strict=True
    ):
        cases.assert_equal(params, expected)
    state = jax.eval_shape(silent.init, problems.network())
    kept = jax.eval_shape(told.init, problems.network())
    fields = len(sam_jax.diagnostics(kept))
    assert fields > 0 and sam_jax.diagnostics(state) == {}
    assert len(jax.tree.leaves(kept)) - len(jax.tree.leaves(state)) >= fields


@every_method(*FEW, "vasso", "ae_sam")
def test_injected_numbers_do_what_schedules_do(name):
    static = tuple(
        set(cases.parameters(name)) - set(cases.schedulable(name)) - {"learning_rate"}
    )
    required = {"learning_rate": 0.1} if cases.is_optimizer(name) else {}
    coefficients = required | dict(traits(name).settings) | cases.schedulable(name)
    coefficients["rho"] = lambda count: 0.1 * (1 + jnp.float32(count))
    tx = optax.inject_hyperparams(methods.factory(name), static)(**coefficients)
    if not cases.is_optimizer(name):
        tx = optax.chain(tx, sgd(0.1))
    carry = cases.of(name).start()
    for count, params in enumerate(cases.unjitted(tx, 2)):
        carry = cases.run(name, 1, carry, rho=0.1 * (1 + count))
        cases.assert_close(params, carry[0], rtol=1e-6)


@every_method()
def test_a_number_that_cannot_be_a_schedule_refuses_one(name):
    required = {"learning_rate": 0.1} if cases.is_optimizer(name) else {}
    settings = required | dict(traits(name).settings)
    numbers = {
        argument
        for argument, parameter in cases.parameters(name).items()
        if parameter.annotation in (int, float)
    }
    for argument in numbers:
        with pytest.raises(sam_jax.checks.BadValue, match=f"{argument} must be"):
            methods.factory(name)(**settings | {argument: lambda count: 1})


@every_method()
def test_an_injected_function_is_told_to_be_static(name):
    required = {"learning_rate": 0.1} if cases.is_optimizer(name) else {}
    others = set(cases.parameters(name)) - set(cases.schedulable(name))
    masks = problems.matrices, sam_jax.weights_mask, sam_jax.norm_layers_mask
    functions = [("mask", {"mask": mask}) for mask in masks]
    functions += [("base", {})] if "base" in others else []
    for argument, given in functions:
        arguments = required | dict(traits(name).settings) | given
        inject = optax.inject_hyperparams(methods.factory(name), others - {argument})
        with pytest.raises(sam_jax.checks.BadValue) as refused:
            inject(**arguments).init(problems.network())
        assert f'static_args=("{argument}",)' in str(refused.value)
        assert "\n" not in str(refused.value)


@every_method("looksam", "bsam")
def test_an_injected_argument_works_or_is_told_to_be_static(name):
    required = {"learning_rate": 0.1} if cases.is_optimizer(name) else {}
    settings = required | dict(traits(name).settings)
    params, batch = problems.network(), problems.batch()
    call = problems.keywords(problems.network_loss, params, batch)
    grads = cases.gradient_at(params)

    def first_update(tx):
        with jax.disable_jit():
            return tx.update(grads, tx.init(params), params, **call)[0]

    plain = first_update(cases.method(name))
    others = set(cases.parameters(name)) - set(cases.schedulable(name))
    for argument in others - {"learning_rate"}:
        arguments = settings
        if argument == "mask":
            arguments = settings | {"mask": problems.matrices}
        try:
            inject = optax.inject_hyperparams(
                methods.factory(name), others - {argument}
            )
            injected = first_update(inject(**arguments))
        except sam_jax.checks.BadValue as error:
            assert f'static_args=("{argument}",)' in str(error).replace("'", '"')
        else:
            cases.assert_close(injected, plain, rtol=1e-6)


@pytest.mark.parametrize("wrapper", ["masked", "partition"])
@every_method(*FEW)
def test_around_a_base_for_some_parameters(name, wrapper):
    cases.skip_optimizer(name)
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

    [some] = cases.unjitted(cases.optimizer(name, base=base), 1)
    [every] = cases.unjitted(cases.optimizer(name), 1)
    cases.assert_equal(some["bias"], params["bias"])
    cases.assert_close(some["kernel"], every["kernel"], rtol=1e-6)
    assert not np.array_equal(some["kernel"], params["kernel"])


@pytest.mark.parametrize("wrapper", ["masked", "partition", "selective"])
@every_method()
def test_inside_a_wrapper_that_makes_another_tree(name, wrapper):
    tx, params, some = cases.optimizer(name), problems.network(), {"kernel": True}
    parts = {True: tx, False: optax.set_to_zero()}
    wrapped = {
        "masked": lambda: optax.masked(tx, some | {"bias": False}),
        "partition": lambda: optax.partition(parts, some | {"bias": False}),
        "selective": lambda: optax.selective_transform(
            tx, freeze_mask={"kernel": False, "bias": True}
        ),
    }[wrapper]()
    call = problems.keywords(problems.network_loss, params, problems.batch())

    def update():
        return wrapped.update(params, wrapped.init(params), params, **call)

    if traits(name).needs == ("params",):  # it takes no gradient itself
        assert jax.tree.structure(jax.eval_shape(update)[0]) == jax.tree.structure(
            params
        )
        return
    with pytest.raises(ValueError, match="a method belongs outside the") as refused:
        jax.eval_shape(update)
    assert "\n" not in str(refused.value)
    assert "optax.chain(sam_jax.sam(rho, mask=...), optax.part" in str(refused.value)
