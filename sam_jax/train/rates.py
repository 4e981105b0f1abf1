"""Learning rates of some arrays that are not those of the others."""

import math

import jax
import optax

from sam_jax import errors
from sam_jax.train import names

_SETTING = "config.learning_rate_factors"


def scaled_by_name(factors: str) -> optax.GradientTransformation:
    """Multiplies the updates of arrays by their names; comes after the optimizer.

    Args:
        factors: ``regex=factor`` with spaces between. The first whose regular
            expression is found in the name of an array has it; the others' is 1.

    Returns:
        The transformation. Its ``init`` raises UserError if one has no array.

    Raises:
        UserError: if the text has another form, or a factor not above 0.

    Example:
        >>> params = {"Dense_0": {"bias": 1.0, "kernel": 1.0}, "head": 1.0}
        >>> tx = scaled_by_name("kernel=0.5 Dense=2")
        >>> tx.update(params, tx.init(params))[0]
        {'Dense_0': {'bias': 2.0, 'kernel': 0.5}, 'head': 1.0}
    """
    pairs = [_pair(text) for text in factors.split()]

    def factor_of(params: optax.Params) -> dict[str, float]:
        found = {}
        for pattern, factor in pairs:
            left = [name for name in names.by_name(params) if name not in found]
            matched = names.matching(pattern, left, _SETTING)
            found |= dict.fromkeys(matched, factor)
        return found

    def init_fn(params: optax.Params) -> optax.EmptyState:
        factor_of(params)
        return optax.EmptyState()

    def update_fn(
        updates: optax.Updates,
        state: optax.OptState,
        params: optax.Params | None = None,
    ) -> tuple[optax.Updates, optax.OptState]:
        del params
        factor = factor_of(updates)
        scaled = jax.tree_util.tree_map_with_path(
            lambda path, x: x * factor.get(names.name(path), 1.0), updates
        )
        return scaled, state

    return optax.GradientTransformation(init_fn, update_fn)


def _pair(text: str) -> tuple[str, float]:
    pattern, _, factor = text.rpartition("=")
    try:
        if pattern and 0 < (value := float(factor)) < math.inf:
            return pattern, value
    except ValueError:
        pass
    raise errors.UserError(
        f"{_SETTING} must be regex=factor with spaces between, each factor above 0 "
        f"(config.freeze is for what is not trained), got {text!r}"
    )
