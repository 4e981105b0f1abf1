"""Dynamic loss scaling, for gradients that float16 would flush to zero."""

from collections.abc import Callable
from typing import Any, NamedTuple, Self

import jax
import jax.numpy as jnp

from sam_jax.methods import numerics


class LossScale(NamedTuple):
    """The factor of a loss whose network computes in float16; a pytree.

    Half of the gradients of a usual network are below 6e-8, the smallest number of
    float16. A factor on the loss brings them into its range, and is taken out of the
    gradients again, which are those of float32 weights. An update in which anything has
    overflown is left out whole, method, optimizer and all, and the factor halved; after
    `PERIOD` updates in a row without, it is doubled. Every gradient of an update has
    the same factor, the one at the perturbed weights too, and either may overflow:
    judge what comes out, the updates. The loss itself is computed in float32, from
    outputs in float16: the factor leaves the latter's range.

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
        """Before the first update."""
        return cls(jnp.full([], 2.0**16, jnp.float32), jnp.zeros([], jnp.int32))

    def value_and_grad(
        self, loss_fn: Callable[..., Any], *, has_aux: bool = False
    ) -> Callable[..., tuple[Any, Any]]:
        """As ``jax.value_and_grad`` of the first argument, with the factor inside.

        Args:
            loss_fn: gives the loss, or with ``has_aux`` the loss and anything else.
            has_aux: whether it does.

        Returns:
            The same, without the factor in what it returns.
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
        """Arrays without the factor; exact, but where it leaves their range."""
        return numerics.multiply(tree, 1 / self.scale)

    def adjusted(self, finite: jax.Array) -> Self:
        """The one for the next update.

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
