"""Dynamic loss scaling, for gradients that float16 would flush to zero."""

from collections.abc import Callable
from typing import Any, NamedTuple, Self

import jax
import jax.numpy as jnp

from sam_jax.methods import numerics


class LossScale(NamedTuple):
    """The factor of a loss whose network computes in float16; a pytree.

    In a typical network, half of the gradients are below 6e-8, the smallest number of
    float16. A factor on the loss brings them into range. The gradients, which belong to
    float32 weights, are divided by it afterwards. If anything in an update overflows,
    the whole update is skipped, method and optimizer included, and the factor is
    halved. After `PERIOD` updates without an overflow it is doubled. All gradients of
    an update share the factor. That at the perturbed weights may overflow alone, so
    check the resulting update. The loss itself is computed in float32, from outputs in
    float16, because the factor would take it out of the range of float16.

    Attributes:
        scale: the factor, a power of two between 1 and `HIGHEST`. Scalar, float32.
        good: finite updates since it was last changed. Scalar, int32.

    Example:
        >>> import jax, jax.numpy as jnp, optax, sam_jax
        >>> def loss(w):  # its gradient is 2e-10, which float16 has as zero
        ...     outputs = (1e-3 * w.astype(jnp.float16)) ** 2
        ...     return 1e-4 * jnp.sum(outputs.astype(jnp.float32))
        >>> w, loss_scale = jnp.ones(1), sam_jax.LossScale.initial()
        >>> print(jax.grad(loss)(w))
        [0.]
        >>> value, grads = loss_scale.value_and_grad(loss)(w)
        >>> print(jnp.abs(grads / 2e-10 - 1) < 0.01)
        [ True]
        >>> loss_scale = loss_scale.adjusted(finite=jnp.isfinite(grads).all())
        >>> int(loss_scale.scale), int(loss_scale.good)
        (65536, 1)

    References:
        Micikevicius et al., "Mixed Precision Training", ICLR 2018, `1710.03740
        <https://arxiv.org/abs/1710.03740>`_; the numbers are those of torch's
        ``GradScaler``.
    """

    scale: jax.Array
    good: jax.Array

    @classmethod
    def initial(cls) -> Self:
        """The loss scale before the first update."""
        return cls(jnp.full([], 2.0**16, jnp.float32), jnp.zeros([], jnp.int32))

    def value_and_grad(
        self, loss_fn: Callable[..., Any], *, has_aux: bool = False
    ) -> Callable[..., tuple[Any, Any]]:
        """As ``jax.value_and_grad`` of the first argument, with the factor inside.

        Args:
            loss_fn: returns the loss; with ``has_aux``, a pair of it and anything else.
            has_aux: whether it returns such a pair.

        Returns:
            A function whose results do not contain the factor.
        """

        def scaled_fn(*args: Any, **kwargs: Any) -> Any:
            found = loss_fn(*args, **kwargs)
            loss, *aux = found if has_aux else (found,)
            return self.scaled(loss), (loss, *aux)

        def value_and_grad(*args: Any, **kwargs: Any) -> tuple[Any, Any]:
            differentiated = jax.value_and_grad(scaled_fn, has_aux=True)
            (_, found), grads = differentiated(*args, **kwargs)
            return (found if has_aux else found[0]), self.unscaled(grads)

        return value_and_grad

    def scaled(self, loss: jax.Array) -> jax.Array:
        """The loss times the factor, in float32 or wider."""
        return numerics.wide(loss) * self.scale

    def unscaled(self, tree: Any) -> Any:
        """Arrays divided by the factor; exact, unless they leave their range."""
        return numerics.multiply(tree, 1 / self.scale)

    def adjusted(self, finite: jax.Array) -> Self:
        """The loss scale for the next update.

        Args:
            finite: whether everything that this update computed was. Scalar, boolean.

        Returns:
            Half of it, twice as much or the same.
        """
        due = self.good + 1 >= PERIOD
        grown = jnp.where(due, jnp.minimum(2 * self.scale, HIGHEST), self.scale)
        return self._replace(
            scale=jnp.where(finite, grown, jnp.maximum(self.scale / 2, 1)),
            good=jnp.where(finite & ~due, self.good + 1, 0),
        )


PERIOD = 2000
HIGHEST = 2.0**24
