"""Problems of one shape, so that a sweep over them is one compiled call."""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from sam_jax.theory import finite_sums, problems


def one_of(members: Sequence[problems.Problem], index: jax.Array) -> problems.Problem:
    """The member of a traced index, to be mapped over; other constants: the first's."""

    def value(x: jax.Array) -> jax.Array:
        return jnp.stack([member.value(x) for member in members])[index]

    return dataclasses.replace(members[0], value=value)


def one_of_sums(
    members: Sequence[finite_sums.FiniteSum], index: jax.Array
) -> finite_sums.FiniteSum:
    """The same for finite sums of one size."""

    def component_values(x: jax.Array, rows: finite_sums.Rows) -> jax.Array:
        return jnp.stack([m.component_values(x, rows) for m in members])[index]

    return dataclasses.replace(
        members[0],
        value=lambda x: jnp.mean(component_values(x, slice(None))),
        component_values=component_values,
    )
