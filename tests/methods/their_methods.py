"""Two methods of recent papers, as a user of the library writes them."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

import sam_jax
from sam_jax.methods.devices import agree, whole


def keep_unusual(percentile):
    """In each layer the entries far from its mean; all, where none is."""

    def of_layer(g):
        if g.size < 2:
            return g
        x = g.astype(jnp.float32)
        x = x / jnp.maximum(jnp.max(jnp.abs(x)), 1e-30)
        far = jnp.abs(x - jnp.mean(x))
        kept = jnp.where(
            far > jnp.quantile(whole(far), percentile), g, jnp.zeros_like(g)
        )
        return jnp.where(jnp.any(kept != 0), kept, g)

    return optax.stateless(lambda grads, params: jax.tree.map(of_layer, grads))


def zsharp(
    rho: optax.ScalarOrSchedule = 0.05,
    *,
    percentile: float = 0.8,
    eps: float = 1e-12,
    mask=None,
):
    """ZSharp (arXiv:2505.02369): SAM along the entries with the largest z-scores."""
    sam_jax.checks.nonnegative("rho", rho, schedule=True)
    sam_jax.checks.between("percentile", percentile, 0, 1)
    ascent = optax.chain(
        keep_unusual(percentile), sam_jax.normalize(eps), sam_jax.scale(rho)
    )
    return sam_jax.sharpness_aware(ascent, mask=mask)


class SampaState(NamedTuple):
    """Updates so far, and the gradient at the auxiliary weights."""

    count: jax.Array
    gradient: optax.Updates


def sampa(
    rho: optax.ScalarOrSchedule = 0.1,
    *,
    lam: optax.ScalarOrSchedule = 0.2,
    step: optax.ScalarOrSchedule = 0.1,
):
    """SAMPa (arXiv:2410.10683) on one batch: it climbs along a gradient kept before.

    y' = x - step g(x + rho v / |v|), v' = g(y'), and the direction is
    (1 - lam) g(x + rho v / |v|) + lam v'.
    """
    for name, value in {"rho": rho, "lam": lam, "step": step}.items():
        sam_jax.checks.nonnegative(name, value, schedule=True)

    def init(params):
        return SampaState(jnp.zeros([], jnp.int32), optax.tree.zeros_like(params))

    def update(updates, state, params=None, *, grad_fn=None, **others):
        for name, value in {"params": params, "grad_fn": grad_fn}.items():
            if value is None:
                raise ValueError(f"{name} is missing: sampa takes gradients itself")

        def read(x):
            return x(state.count) if callable(x) else x

        def moved(length, along):
            return jax.tree.map(
                lambda w, g: (w + length * g).astype(w.dtype), params, along
            )

        kept = jax.tree.map(
            lambda new, old: jnp.where(state.count == 0, new.astype(old.dtype), old),
            updates,
            state.gradient,
        )
        norm = jnp.maximum(optax.tree.norm(optax.tree.cast(kept, jnp.float32)), 1e-12)
        climbed = grad_fn(moved(read(rho) / norm, kept))
        ahead = grad_fn(moved(-read(step), climbed))
        share = read(lam)
        direction = jax.tree.map(
            lambda g, h, u: ((1 - share) * g + share * h).astype(u.dtype),
            *(climbed, ahead, updates),
        )
        like = jax.tree.map(lambda g, w: g.astype(w.dtype), ahead, params)
        return direction, SampaState(state.count + 1, agree(like))

    return optax.GradientTransformationExtraArgs(init, update)
