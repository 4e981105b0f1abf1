"""A method under test: how it is made, how it differs, one compiled step."""

import collections
import functools
import inspect
import typing
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from sam_jax import checks
from sam_jax.testing import problems


def sgd(learning_rate: optax.ScalarOrSchedule) -> optax.GradientTransformation:
    """The base optimizer of the contract."""
    return optax.sgd(learning_rate, momentum=0.9)


class Traits(NamedTuple):
    """How a method differs from the usual one.

    Attributes:
        base: learning rate -> what the method is at radius 0; None if no optimizer.
        at_base: coefficients besides radius 0 with which it is the base.
        exact: radius 0 gives the bits of the base, not only its values (a method that
            recombines two gradients cannot).
        any_value: numeric coefficients for which negative values have a meaning.
        calls: evaluations of the loss in the first five updates, the caller's own
            included; None is five times the documented number of gradients. This,
            ``flops`` and ``rate`` are for the methods of the package: its own tests
            read them, `check_method` does not.
        flops: of an update, in units of one gradient; None is the documented number.
        needs: keywords of the update whose absence is refused.
        unused_gradient: it works with a gradient of its own (drawn, stored), not with
            the caller's.
        perturbed_call: which of the gradients that the method takes itself in an update
            is the one at the perturbed weights, as an index; the last, unless it looks
            elsewhere afterwards.
        examples: the method chooses among the examples of the batch.
        pair: whether there are two gradients to compare in the diagnostics.
        diagnostics: whether its state has `sam_jax.diagnostics`.
        rate: learning rate with which it converges on the small objectives.
        radius: the coefficient that is the radius.
        settings: coefficients for the runs, where the defaults will not do.
    """

    base: Callable[[float], optax.GradientTransformation] | None = sgd
    at_base: Mapping[str, Any] = {}
    exact: bool = True
    any_value: frozenset[str] = frozenset({"seed"})
    calls: int | None = None
    flops: float | None = None
    needs: tuple[str, ...] = ("params", "grad_fn")
    unused_gradient: bool = False
    perturbed_call: int = -1
    examples: bool = False
    pair: bool = True
    diagnostics: bool = True
    rate: float = 0.02
    radius: str = "rho"
    settings: Mapping[str, Any] = {}


class Method:
    """A method by its factory.

    Attributes:
        name: of the factory, for messages.
        traits: how it differs.
        eval_params: ``(state, params) -> params`` to evaluate; None are those trained.
        parameters: of the factory, by name; a transformation has none.
        is_optimizer: whether it brings its own step size and base, instead of a
            direction.
    """

    def __init__(
        self,
        method: Callable[..., optax.GradientTransformation]
        | optax.GradientTransformation,
        traits: Traits = Traits(),  # noqa: B008 (it cannot be changed)
        eval_params: Callable[..., optax.Params] | None = None,
    ) -> None:
        self.traits, self.eval_params = traits, eval_params
        if isinstance(method, optax.GradientTransformation):
            self.name, self._factory = "the transformation", lambda: method
        else:
            self.name, self._factory = getattr(method, "__name__", "it"), method
        signature = inspect.signature(self._factory, eval_str=True)
        self.parameters = dict(signature.parameters)
        self.is_optimizer = "learning_rate" in self.parameters
        named = {traits.radius, *traits.settings} - {Traits().radius}
        if unknown := named - self.parameters.keys():
            raise checks.BadValue(
                f"{self.name} has no {min(unknown)}, which its traits name: it has "
                f"{', '.join(self.parameters) or 'no arguments'}"
            )

    @property
    def has_radius(self) -> bool:
        """Whether its radius can be chosen."""
        return self.traits.radius in self.parameters

    def make(
        self, learning_rate: Any = 0.1, **coefficients: Any
    ) -> optax.GradientTransformationExtraArgs:
        """The method alone; the rate is for those that need one."""
        rate = {"learning_rate": learning_rate} if self.is_optimizer else {}
        given = {**self.traits.settings, **coefficients}
        return optax.with_extra_args_support(self._factory(**rate, **given))

    def optimizer(
        self, learning_rate: Any = 0.1, base: Any = sgd, **coefficients: Any
    ) -> optax.GradientTransformationExtraArgs:
        """The method, and behind a direction a base optimizer."""
        tx = self.make(learning_rate, **coefficients)
        return tx if self.is_optimizer else optax.chain(tx, base(learning_rate))

    def schedulable(self) -> dict[str, float]:
        """The coefficients that may follow a schedule, with a number for each."""
        allowed = typing.get_args(optax.ScalarOrSchedule)
        numbers = {
            key: self.traits.settings.get(key, parameter.default)
            for key, parameter in self.parameters.items()
            if all(kind in typing.get_args(parameter.annotation) for kind in allowed)
            and key != "learning_rate"
        }
        return {k: x if isinstance(x, int | float) else 0.5 for k, x in numbers.items()}

    def numeric(self) -> set[str]:
        """The names of all coefficients that are numbers."""
        return {
            key
            for key, parameter in self.parameters.items()
            if isinstance(parameter.default, (int, float))
            and not isinstance(parameter.default, bool)
        } | set(self.schedulable())

    # ── One compiled step ────────────────────────────────────────────────────────────

    @functools.cached_property
    def step(self) -> "Step":
        """The one that the checks share which differ in its arguments only."""
        seen: dict[str, list[int]] = collections.defaultdict(list)

        def note(what: str, count: Any) -> None:
            jax.debug.callback(lambda count: seen[what].append(int(count)), count)

        def outputs(params: Any, batch: Any) -> jax.Array:
            note("loss", 1)  # runs where the loss does
            return problems.network_outputs(params, batch)

        def schedule(key: str, value: Any) -> optax.Schedule:
            def read(count: Any) -> jax.Array:
                note(key, count)
                return jnp.asarray(value, jnp.float32)

            return read

        loss = problems.network_loss._replace(outputs=outputs)
        follow = self.schedulable()

        def step(
            params: Any, state: Any, batch: Any, learning_rate: Any, rho: Any
        ) -> Any:
            values = follow | ({self.traits.radius: rho} if self.has_radius else {})
            given = {
                key: schedule(key, x) if key in follow else x
                for key, x in values.items()
            }
            tx = self.optimizer(learning_rate, **given)
            return problems.make_step(tx, loss)(params, state, batch)

        params, batch, number = problems.network(), problems.batch(), jnp.float32(0)
        _, state = jax.eval_shape(self.start)
        jitted = jax.jit(step, donate_argnums=(0, 1), keep_unused=True)
        compiled = jitted.lower(params, state, batch, number, number).compile()

        def update(
            carry: Any, learning_rate: float = 0.1, rho: float = 0.05, seed: int = 1
        ) -> Any:
            numbers = jnp.float32(learning_rate), jnp.float32(rho)
            return compiled(*carry, problems.batch(seed=seed), *numbers)

        return Step(update, seen)

    def start(self) -> Any:
        """The first carry of the shared step: parameters and state of their own."""
        schedules = dict.fromkeys(self.schedulable(), jnp.float32)
        params = problems.network()
        return params, self.optimizer(**schedules).init(params)

    def run(self, steps: int, carry: Any = None, **arguments: Any) -> Any:
        """The carry after some updates of the shared step."""
        update, seen = self.step
        seen.clear()
        carry = self.start() if carry is None else carry
        for _ in range(steps):
            carry = update(carry, **arguments)
        jax.effects_barrier()
        return carry


class Step(NamedTuple):
    """A compiled step.

    Attributes:
        update: ``(carry, learning_rate, rho, seed) -> carry``, the carry being
            parameters and state. It is donated, unused buffers as well: whatever
            shares a buffer is given away twice, which is an error.
        seen: of the last run, what the compiled program did: the counts at which each
            coefficient was read, and "loss" for every evaluation.
    """

    update: Callable[..., Any]
    seen: dict[str, list[int]]


# ── Comparisons ──────────────────────────────────────────────────────────────────────


def to_numpy(x: Any) -> np.ndarray:
    """A leaf as an array of NumPy; of a PRNG key its data."""
    typed_key = jnp.issubdtype(x.dtype, jax.dtypes.prng_key)
    return np.asarray(jax.random.key_data(x) if typed_key else x)


def assert_equal(actual: Any, desired: Any) -> None:
    """Same structure, same bits."""
    assert jax.tree.structure(actual) == jax.tree.structure(desired)
    for x, y in zip(jax.tree.leaves(actual), jax.tree.leaves(desired), strict=True):
        assert x.dtype == y.dtype
        np.testing.assert_array_equal(to_numpy(x), to_numpy(y))


def assert_close(actual: Any, desired: Any, rtol: float) -> None:
    """Same structure, nearly the same numbers."""
    assert jax.tree.structure(actual) == jax.tree.structure(desired)
    for x, y in zip(jax.tree.leaves(actual), jax.tree.leaves(desired), strict=True):
        np.testing.assert_allclose(
            to_numpy(x),
            to_numpy(y),
            rtol=rtol,
            atol=rtol * np.max(np.abs(y), initial=1),
        )


def assert_finite(tree: Any) -> None:
    """All numbers are finite."""
    for leaf in jax.tree.leaves(tree):
        assert np.isfinite(to_numpy(leaf)).all(), tree


def signature_of(tree: Any) -> Any:
    """Shape and dtype of every leaf."""
    return jax.tree.map(lambda x: (jnp.shape(x), jnp.result_type(x)), tree)


def refusal(call: Callable[[], Any]) -> str:
    """The sentence of a ValueError, another error as it is; empty if there is none."""
    try:
        call()
    except ValueError as error:
        return str(error)
    except Exception as error:
        return repr(error)
    return ""
