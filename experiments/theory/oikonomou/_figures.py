"""The problems of Figures 1 to 3, drawn as by the authors' code with its seed."""

import numpy as np
from scipy import stats

from sam_jax.theory import finite_sums

SEED, SIZE, L2 = 3107, 100, 0.03


def consistent() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Matrix (condition number 10), solution and start of Figures 1 and 2."""
    generator = np.random.RandomState(SEED)
    matrix = finite_sums.conditioned_matrix(SIZE, 10, generator)
    return matrix, generator.randn(SIZE), generator.randn(SIZE)


def uneven() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Matrix (one large eigenvalue), target and start of Figure 3."""
    generator = np.random.RandomState(SEED)
    eigenvalues = np.r_[1.0, 10.0, generator.uniform(1, 2, SIZE - 2)]
    basis = stats.ortho_group.rvs(SIZE, random_state=generator)
    matrix = basis @ np.diag(eigenvalues) @ basis.T
    return matrix, generator.randn(SIZE), generator.randn(SIZE)


def figure_1() -> finite_sums.FiniteSum:
    """Least squares ||Ax - b||^2 / 2 (no 1/n), b = A (solution)."""
    matrix, solution, start = consistent()
    scaled = np.sqrt(SIZE) * matrix  # takes the 1/n of a finite sum back
    return finite_sums.least_squares(scaled, scaled @ solution, start=start)


def figure_2() -> finite_sums.FiniteSum:
    """Ridge regression on the same data."""
    matrix, solution, start = consistent()
    return finite_sums.least_squares(matrix, matrix @ solution, l2=L2, start=start)


def figure_3() -> finite_sums.FiniteSum:
    """Ridge regression with uneven L_i."""
    matrix, target, start = uneven()
    return finite_sums.least_squares(matrix, target, l2=L2, start=start)
