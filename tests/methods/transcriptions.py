"""Every method once more, from its paper's formula, in plain NumPy.

They share nothing with the library: no code, and no JAX. The weights are one flat
vector, so that a formula reads as on paper; where a method looks at layers, its parts
are `Network.leaves`. A transcription is a generator of the weights after each update ::

    name(objectives, w, learning_rate, base, **coefficients)

with one objective (a batch) per update. Methods that end in a direction are written as
that direction, and `descend` follows it.
"""

import copy
import functools

import numpy as np

from tests.methods.plain import MomentumSGD, Network, at, layers, norm, unit


def descend(transcription):
    """Follows a direction: ``direction(f, w, t) -> d`` made from the coefficients."""

    @functools.wraps(transcription)
    def trajectory(objectives, w, learning_rate, base=MomentumSGD, **coefficients):
        direction, optimizer = transcription(**coefficients), base()
        for t, f in enumerate(objectives):
            w = optimizer.step(w, direction(f, w, t), at(learning_rate, t))
            yield w

    return trajectory


# ── Another displacement ─────────────────────────────────────────────────────────────


@descend
def sam(rho=0.05):
    return lambda f, w, t: f.grad(w + at(rho, t) * unit(f.grad(w)))


@descend
def usam(rho=0.05):
    return lambda f, w, t: f.grad(w + at(rho, t) * f.grad(w))


@descend
def le_sam(rho=0.3, sigma=0.35):
    def direction(f, w, t):
        g = f.grad(w)
        return f.grad(w + min(at(sigma, t) / norm(g), at(rho, t)) * unit(g))

    return direction


@descend
def unified_sam(rho=0.05, lam="1-1/t"):
    # Steps are counted from 1 in the paper's two schedules.
    named = {"1/t": lambda t: 1 / (t + 1), "1-1/t": lambda t: 1 - 1 / (t + 1)}
    lam = named.get(lam, lam) if isinstance(lam, str) else lam

    def direction(f, w, t):
        g = f.grad(w)
        share = at(lam, t)
        return f.grad(w + at(rho, t) * (1 - share + share / norm(g)) * g)

    return direction


@descend
def vasso(rho=0.05, theta=0.9, lam=1.0):
    e = None

    def direction(f, w, t):
        nonlocal e
        g = f.grad(w)
        e = g if e is None else (1 - at(theta, t)) * e + at(theta, t) * g
        share = at(lam, t)
        return f.grad(w + at(rho, t) * (1 - share + share / norm(e)) * e)

    return direction


@descend
def friendly_sam(rho=0.05, sigma=1.0, lam=0.9, include_current=False):
    m = None

    def direction(f, w, t):
        nonlocal m
        g, s, keep = f.grad(w), at(sigma, t), at(lam, t)
        if m is None:  # the average starts at the first gradient; nothing to subtract
            m, u = g, g
        elif include_current:
            m = keep * m + (1 - keep) * g
            u = g - s * m
        else:
            u = g - s * m
            m = keep * m + (1 - keep) * g
        return f.grad(w + at(rho, t) * unit(u))

    return direction


@descend
def asam(rho=0.5, eta=0.01, p=2, layerwise=False, biases=False, leaves=Network.leaves):
    def metric(w, t):
        size = layers([norm(w[part]) for part, _ in leaves], leaves)
        diagonal = (size if layerwise else np.abs(w)) + at(eta, t)
        weights = layers([len(shape) >= 2 or biases for _, shape in leaves], leaves)
        return np.where(weights, diagonal, 1.0)

    def direction(f, w, t):
        g, T = f.grad(w), metric(w, t)
        if p == 2:
            return f.grad(w + at(rho, t) * T**2 * g / norm(T * g))
        return f.grad(w + at(rho, t) * T * np.sign(g))

    return direction


@descend
def fisher_sam(rho=0.1, eta=1.0):
    def direction(f, w, t):
        g = f.grad(w)
        inverse = 1 / (1 + at(eta, t) * g**2)
        return f.grad(w + at(rho, t) * inverse * g / np.sqrt(g @ (inverse * g)))

    return direction


@descend
def random_sam(draws, rho=0.05, sigma=0.01, lam=1.0, noise="filter"):
    """``draws``: the standard normal numbers of every update."""

    def spread(w, shape):
        w = w.reshape(shape)
        if not shape:
            return np.abs(w)
        others = tuple(range(w.ndim - 1))
        return np.broadcast_to(np.sqrt(np.sum(w**2, axis=others)), shape).ravel()

    def displacement(w, n, s):
        if noise == "plain":
            return s * n
        whole = np.empty_like(w)
        for part, shape in Network.leaves:
            if noise == "filter":
                whole[part] = s * spread(w[part], shape) * n[part]
            else:
                whole[part] = s * norm(w[part]) * unit(n[part])
        return whole

    def direction(f, w, t):
        delta = displacement(w, draws[t], at(sigma, t))
        u = delta + at(lam, t) * f.grad(w + delta)
        return f.grad(w + at(rho, t) * unit(u))

    return direction


@descend
def extragradient(rho=0.05):
    return lambda f, w, t: f.grad(w - at(rho, t) * f.grad(w))


@descend
def async_sam(rho=0.05, delay=1):
    past = []

    def direction(f, w, t):
        past.append(f.grad(w))
        stale = past[t - delay] if t >= delay else past[t]
        return f.grad(w + at(rho, t) * unit(stale))

    return direction


@descend
def multistep_sam(rho=0.05, steps=2, project=True):
    def direction(f, w, t):
        radius, e = at(rho, t), np.zeros_like(w)
        for _ in range(steps):
            e = e + radius * unit(f.grad(w + e))
            if project:
                e = e * min(1.0, radius / norm(e))
        return f.grad(w + e)

    return direction


@descend
def eigen_sam(rho=0.1, alpha=0.2, every=1):
    """With the exact eigenvector instead of some power steps."""
    v = None

    def direction(f, w, t):
        nonlocal v
        if t % every == 0:
            values, vectors = np.linalg.eigh(f.hessian(w))
            v = vectors[:, np.argmax(np.abs(values))]
        g = unit(f.grad(w))
        e = g + at(alpha, t) * np.sign(g @ v) * (v - (v @ g) * g)
        return f.grad(w + at(rho, t) * e)

    return direction


def _largest(values, count):
    mask = np.zeros(len(values))
    mask[np.argsort(-values)[:count]] = 1
    return mask


@descend
def sparse_sam(kept, rho=0.05, num_samples=16, every=100):
    """``kept``: the number of weights in the mask."""
    mask = None

    def direction(f, w, t):
        nonlocal mask
        if t % every == 0:
            fisher = np.zeros_like(w)
            for row in range(min(num_samples, len(f.targets))):
                fisher += f.only([row]).grad(w) ** 2
            mask = _largest(fisher, kept)
        return f.grad(w + at(rho, t) * mask * unit(f.grad(w)))

    return direction


@descend
def dynamic_sparse_sam(masks, rho=0.05):
    """``masks``: that of every update (their rules are tested on their own)."""
    return lambda f, w, t: f.grad(w + at(rho, t) * masks[t] * unit(f.grad(w)))


@descend
def esam(draws, rho=0.05, beta=0.6, gamma=0.5):
    """``draws``: uniform numbers of every update; below beta, a weight is perturbed."""

    def direction(f, w, t):
        kept = draws[t] < at(beta, t)
        e = at(rho, t) / at(beta, t) * kept * unit(f.grad(w))
        rise = f.losses(w + e) - f.losses(w)
        count = max(1, round(gamma * len(rise)))
        return f.only(np.argsort(-rise)[:count]).grad(w + e)

    return direction


# ── Another combination ──────────────────────────────────────────────────────────────


@descend
def gsam(rho=0.05, alpha=0.4):
    def direction(f, w, t):
        g = f.grad(w)
        gp = f.grad(w + at(rho, t) * unit(g))
        orthogonal = g - (g @ unit(gp)) * unit(gp)
        return gp - at(alpha, t) * orthogonal

    return direction


@descend
def gnp(rho=0.05, alpha=0.8, normalize_clean=False):
    def direction(f, w, t):
        g, a = f.grad(w), at(alpha, t)
        gp = f.grad(w + at(rho, t) * unit(g))
        return (1 - a) * (unit(g) if normalize_clean else g) + a * gp

    return direction


@descend
def wsam(rho=0.05, gamma=0.9):
    def direction(f, w, t):
        g = f.grad(w)
        gp = f.grad(w + at(rho, t) * unit(g))
        a = at(gamma, t) / (1 - at(gamma, t))
        return (1 - a) * g + a * gp

    return direction


@descend
def stable_sam(rho=0.05):
    def direction(f, w, t):
        g = f.grad(w)
        gp = f.grad(w + at(rho, t) * unit(g))
        return norm(g) / norm(gp) * gp

    return direction


@descend
def cr_sam(rho=0.1, gamma=0.1, beta=0.1):
    def direction(f, w, t):
        g = f.grad(w)
        e = at(rho, t) * unit(g)
        plus, minus = f.grad(w + e), f.grad(w - e)
        curvature, slope = plus + minus - 2 * g, plus - minus
        return plus + at(gamma, t) * curvature + at(beta, t) * slope

    return direction


@descend
def looksam(rho=0.05, k=5, alpha=0.7, layerwise=False, leaves=Network.leaves):
    gv = None

    def direction(f, w, t):
        nonlocal gv
        g = f.grad(w)
        if t % k:
            return g + at(alpha, t) * norm(g) / norm(gv) * gv
        scale = 1 / norm(g)
        if layerwise:
            ratios = [norm(w[part]) / norm(g[part]) for part, _ in leaves]
            scale = layers(ratios, leaves)
        gp = f.grad(w + at(rho, t) * scale * g)
        gv = gp - (g @ gp) / (g @ g) * g
        return gp

    return direction


@descend
def ae_sam(rho=0.05, threshold=0.0, delta=0.9):
    mu, variance = None, 0.0

    def direction(f, w, t):
        nonlocal mu, variance
        g, keep = f.grad(w), at(delta, t)
        # The mean starts at the first square, hence with SAM; the paper leaves it open.
        mu = g @ g if mu is None else keep * mu + (1 - keep) * (g @ g)
        variance = keep * variance + (1 - keep) * (g @ g - mu) ** 2
        if g @ g >= mu + at(threshold, t) * np.sqrt(variance):
            return f.grad(w + at(rho, t) * unit(g))
        return g

    return direction


@descend
def functional_sam(rho=0.05):
    def direction(f, w, t):
        e = at(rho, t) * unit(f.grad(w))
        return f.cotangent(w) @ f.jacobian(w + e)

    return direction


# ── Optimizers of their own ──────────────────────────────────────────────────────────


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
