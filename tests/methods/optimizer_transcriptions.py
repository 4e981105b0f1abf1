"""The methods that are optimizers of their own, from their formulas in plain NumPy."""

import copy

import numpy as np

from tests.methods.plain import MomentumSGD, Network, at, layers, norm, unit

__all__ = [
    "adam_sam",
    "bsam",
    "decoupled_wsam",
    "lookbehind",
    "momentum_sam",
    "sam_sps",
    "sampa",
]


def decoupled_wsam(objectives, w, learning_rate, base=MomentumSGD, rho=0.05, gamma=0.9):
    optimizer = base()
    for t, f in enumerate(objectives):
        g, lr = f.grad(w), at(learning_rate, t)
        gp = f.grad(w + at(rho, t) * unit(g))
        a = at(gamma, t) / (1 - at(gamma, t))
        w = optimizer.step(w, g, lr) - lr * a * (gp - g)
        yield w


def lookbehind(
    objectives,
    w,
    learning_rate,
    base=MomentumSGD,
    rho=0.05,
    k=2,
    alpha=0.5,
    eta=None,
    leaves=Network.leaves,
):
    optimizer = base()
    matrix = layers([len(shape) >= 2 for _, shape in leaves], leaves)
    for t, f in enumerate(objectives):
        fast = ascended = first = w
        for i in range(k):
            T = np.ones_like(w)
            if eta is not None:
                T = np.where(matrix, np.abs(ascended) + eta, 1.0)
            g = f.grad(ascended)
            ascended = ascended + at(rho, t) * T**2 * g / norm(T * g)
            fast = optimizer.step(fast, f.grad(ascended), at(learning_rate, t))
            first = fast if i == 0 else first
        if alpha == "adaptive":
            ways = [(first[part] - w[part], fast[part] - w[part]) for part, _ in leaves]
            cosines = [unit(a) @ unit(b) for a, b in ways]
            w = w + (1 + layers(cosines, leaves)) / 2 * (fast - w)
        else:
            w = w + at(alpha, t) * (fast - w)
        yield w


def momentum_sam(
    objectives, w, learning_rate, base=MomentumSGD, rho=0.3, evaluated=False
):
    """The weights that the caller holds, the perturbed ones; or those to evaluate."""
    optimizer, held = base(), w
    for t, f in enumerate(objectives):
        w = optimizer.step(w, f.grad(held), at(learning_rate, t))
        held = w - at(rho, t) * unit(optimizer.v)
        yield w if evaluated else held


def sampa(
    objectives, w, learning_rate, base=MomentumSGD, rho=0.1, lam=0.2, evaluated=False
):
    """As the authors: both gradients first, the perturbed one of the batch before.

    The y that the caller holds, or the x to evaluate.
    """
    optimizer, x, y, g_y, before = base(), w, w, None, None
    for t, f in enumerate(objectives):
        if before is not None:
            rate = at(learning_rate, t)
            y = copy.deepcopy(optimizer).step(x, g_y, rate)
            yield x if evaluated else y
            g_perturbed = before.grad(x + at(rho, t - 1) * unit(g_y))
            share, g_y = at(lam, t), f.grad(y)
            x = optimizer.step(x, share * g_y + (1 - share) * g_perturbed, rate)
        else:
            g_y = f.grad(x)
            x = optimizer.step(x, g_y, at(learning_rate, t))
        before = f
    y = copy.deepcopy(optimizer).step(x, g_y, at(learning_rate, t + 1))
    yield x if evaluated else y


def adam_sam(
    objectives,
    w,
    learning_rate,
    rho=0.05,
    b1=0.9,
    b2=0.999,
    damping=1e-8,
    weight_decay=0.0,
):
    m, v = np.zeros_like(w), np.zeros_like(w)
    for t, f in enumerate(objectives):
        way = f.grad(w) / (np.sqrt(v) + damping)
        g = f.grad(w + at(rho, t) * unit(way)) + at(weight_decay, t) * w
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g * g
        first, second = m / (1 - b1 ** (t + 1)), v / (1 - b2 ** (t + 1))
        w = w - at(learning_rate, t) * first / (np.sqrt(second) + damping)
        yield w


def bsam(
    objectives,
    w,
    learning_rate,
    draws,
    num_examples,
    rho=0.01,
    weight_decay=1e-4,
    b1=0.9,
    b2=0.999,
    damping=0.1,
    init_precision=1.0,
):
    """``draws``: the standard normal numbers of every update."""
    m, s = np.zeros_like(w), np.full_like(w, init_precision)
    for t, f in enumerate(objectives):
        g = f.grad(w + draws[t] / np.sqrt(num_examples * s))
        gp = f.grad(w + at(rho, t) * g / s)
        m = b1 * m + (1 - b1) * (gp + weight_decay * w)
        w = w - at(learning_rate, t) * m / s
        s = b2 * s + (1 - b2) * (np.sqrt(s * g**2) + damping + weight_decay)
        yield w


def sam_sps(
    objectives, w, learning_rate=1.0, rho=0.1, lam=1.0, f_min=0.0, weight_decay=0.0
):
    for t, f in enumerate(objectives):
        g, share = f.grad(w), at(lam, t)
        e = w + at(rho, t) * (1 - share + share / norm(g)) * g
        gp = f.grad(e)
        gap = max(0.0, f.loss(e) - f_min - gp @ (e - w))
        step = min(gap / (gp @ gp), at(learning_rate, t))
        w = w - step * (gp + weight_decay * w)
        yield w
