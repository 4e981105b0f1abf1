"""What runs of one shape share: the data, and programs whose numbers are arguments.

The seed of a run is part of its state, so one program serves all seeds. Here the
learning rate and the coefficients that may be schedules are arguments as well, and one
program serves all their values: XLA compiles a step once for a whole sweep.
"""

import dataclasses
import functools
import json
import typing
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import jax

from sam_jax import data, plugins
from sam_jax.train import build, coefficients, dispatch, settings, sharding

_RATE = "learning_rate"


class Shared:
    """Builds runs, and keeps what the next one can use.

    Example:
        >>> shared = Shared()
        >>> chosen = {"data": {"name": "digits"}, "model": {"name": "mlp"}}
        >>> first, second = (
        ...     shared.make_run(settings.read(chosen | {"learning_rate": rate}))
        ...     for rate in (0.1, 0.2)
        ... )
        >>> first.dataset is second.dataset, first.eval_step is second.eval_step
        (True, True)
    """

    def __init__(self, most: int = 4) -> None:
        self._most = most
        self._data: dict[settings.Data, data.Dataset] = {}
        self._programs: dict[str, tuple[build.Steps, Any]] = {}

    def make_run(self, config: settings.Settings, **brought: Any) -> build.Run:
        """As `build.build`; XLA may round otherwise where numbers are arguments."""
        # These are not in the settings.
        make = functools.partial(self.make_steps, brought=tuple(brought.values()))
        if brought.get("dataset") is None:
            brought["dataset"] = self.dataset(config.data)
        return build.build(config, **brought, make=make)

    def dataset(self, config: settings.Data) -> data.Dataset:
        """As `build.load_data`."""
        return _kept(self._data, config, lambda: build.load_data(config), most=4)

    def make_steps(
        self,
        config: settings.Settings,
        spec: build.DataSpec,
        *,
        brought: tuple[Any, ...] = (),
        **parts: Any,
    ) -> build.Steps:
        """As `build.steps`; with what is brought, such as a network, other ones."""
        # Made for its own sake: a value that is not allowed is refused here.
        made = build.steps(config, spec, **parts)
        numbers = numbers_of(config)
        plain = settings.to_json(with_numbers(config, dict.fromkeys(numbers, 0.0), 0))
        values = (
            *config.method.coefficients.values(),
            *config.optimizer.options.values(),
        )
        # Of what a card has made, such as a schedule, no text says what it does.
        own = [id(value) for value in values if callable(value)]
        own += map(id, brought)
        shape = json.dumps([plain, sorted(numbers), own])
        programs, _ = _kept(
            self._programs,
            shape,
            # While it is kept, nothing else has the id of what was brought.
            lambda: (_of_numbers(config, made, parts), brought),
            most=self._most,
        )
        assert programs.train_steps is not None
        return dataclasses.replace(
            made,
            init=functools.partial(programs.init, numbers),
            train_step=functools.partial(programs.train_step, numbers),
            train_steps=functools.partial(programs.train_steps, numbers),
            eval_step=programs.eval_step,
            is_finite=programs.is_finite,
        )


T = TypeVar("T")


def _kept(cache: dict[Any, T], key: Any, make: Callable[[], T], most: int) -> T:
    """What is under a key, made if it is not; the oldest of too many is let go."""
    if key not in cache:
        if len(cache) >= most:
            del cache[next(iter(cache))]
        cache[key] = make()
    return cache[key]


def numbers_of(config: settings.Settings) -> dict[str, float]:
    """The learning rate and the coefficients that a program can take as arguments.

    Returns:
        Name -> value; none, where a method, an optimizer or a schedule of the user's
        might branch on them.

    Example:
        >>> method = {"name": "gsam", "rho": 0.1, "alpha": 0.4}
        >>> numbers_of(settings.read({"method": method}))
        {'learning_rate': 0.1, 'rho': 0.1, 'alpha': 0.4}
    """
    method = config.method
    schedules = (
        x.schedule
        for x in method.coefficients.values()
        if isinstance(x, coefficients.Scheduled)
    )
    parts = method, config.optimizer, config.schedule, *schedules
    if any(plugins.is_reference(part.name) for part in parts):
        return {}
    known = coefficients.parameters(method.name)
    found = {
        key: value
        for key, value in method.coefficients.items()
        if isinstance(value, float) and _may_be_schedule(known[key].annotation)
    }
    follows = any(
        isinstance(x, coefficients.Scheduled) for x in method.coefficients.values()
    )
    return found if follows else {_RATE: config.learning_rate, **found}


def _may_be_schedule(annotation: Any) -> bool:
    return any(typing.get_origin(x) is Callable for x in typing.get_args(annotation))


def with_numbers(
    config: settings.Settings, numbers: Mapping[str, Any], seed: int
) -> settings.Settings:
    """The settings with other numbers, which may be traced, and another seed."""
    numbers = dict(numbers)
    rate = numbers.pop(_RATE, config.learning_rate)
    method = dataclasses.replace(
        config.method, coefficients={**config.method.coefficients, **numbers}
    )
    return dataclasses.replace(config, learning_rate=rate, method=method, seed=seed)


def _of_numbers(
    config: settings.Settings, made: build.Steps, parts: Mapping[str, Any]
) -> build.Steps:
    """The functions of a run with the numbers as their first argument."""

    def steps(numbers: Mapping[str, Any]) -> build.Steps:
        return build.steps(
            with_numbers(config, numbers, config.seed), made.spec, **parts
        )

    def train_step(numbers: Mapping[str, Any], *of_step: Any) -> Any:
        return steps(numbers).train_step(*of_step)

    def train_steps(numbers: Mapping[str, Any], *of_steps: Any) -> Any:
        step = functools.partial(train_step, numbers)
        several = config.steps_per_dispatch
        return dispatch.make_train_steps(step, several, made.mesh)(*of_steps)

    places = jax.tree.map(lambda x: x.sharding, made.abstract_state())
    trained = {
        "donate_argnums": 1,
        "out_shardings": (places, sharding.replicated(made.mesh)),
    }
    return dataclasses.replace(
        made,
        init=jax.jit(
            lambda numbers, seed, given=None: steps(numbers).init(seed, given),
            out_shardings=places,
        ),
        train_step=jax.jit(train_step, **trained),
        train_steps=jax.jit(train_steps, **trained),
    )
