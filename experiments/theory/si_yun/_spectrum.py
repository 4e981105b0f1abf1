"""The top of a Hessian's spectrum from Hessian-vector products."""

import jax
import jax.numpy as jnp

from sam_jax.theory import problems


def top_eigenvalue(
    value: problems.Value, x: jax.Array, iterations: int = 24
) -> jax.Array:
    """Largest eigenvalue of the Hessian at x, by Lanczos' method.

    Args:
        value: the function.
        x: the point, [d].
        iterations: of Lanczos; each is one Hessian-vector product. The start vector is
            fixed, and all earlier vectors are projected out twice.

    Returns:
        The estimate, a scalar; never above the eigenvalue.
    """
    gradient = jax.grad(value)

    def product(v: jax.Array) -> jax.Array:
        return jax.jvp(gradient, (x,), (v,))[1]

    first = jax.random.normal(jax.random.key(0), x.shape, x.dtype)
    basis = jnp.zeros((iterations, *x.shape), x.dtype)
    basis = basis.at[0].set(first / jnp.linalg.norm(first))

    def step(i: jax.Array, carry: tuple[jax.Array, jax.Array]):
        basis, images = carry
        image = product(basis[i])
        rest = image
        for _ in range(2):
            rest = rest - basis.T @ (basis @ rest)
        following = rest / jnp.maximum(jnp.linalg.norm(rest), 1e-30)
        # Beyond the last row nothing is stored.
        basis = basis.at[i + 1].set(following, mode="drop")
        return basis, images.at[i].set(image)

    carry = basis, jnp.zeros_like(basis)
    basis, images = jax.lax.fori_loop(0, iterations, step, carry)
    projected = basis @ images.T
    return jnp.linalg.eigvalsh((projected + projected.T) / 2)[-1]
