"""Every method once more, from its paper's formula, in plain NumPy.

They share nothing with the library: no code, and no JAX. The weights are one flat
vector, so that a formula reads as on paper; where a method looks at layers, its parts
are `Network.leaves`. A transcription is a generator of the weights after each update ::

    name(objectives, w, learning_rate, base, **coefficients)

with one objective (a batch) per update. Methods that end in a direction are written as
that direction, and `descend` follows it; `optimizer_transcriptions` has the others.
"""

import functools

import numpy as np

from tests.methods.optimizer_transcriptions import *  # noqa: F403
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
def focal_sam(rho=0.05, gamma=1.5, lam=0.7):
    """As the authors' code: lambda is part of the factors."""

    def direction(f, w, t):
        shares = 1 / (2 + f.losses(w))  # of ``problems.keywords``
        factors = at(lam, t) * (1 - shares) ** at(gamma, t)
        e = at(rho, t) * unit(f.grad(w, factors))
        return f.grad(w, 1 - factors) + f.grad(w + e, factors)

    return direction


@descend
def functional_sam(rho=0.05):
    def direction(f, w, t):
        e = at(rho, t) * unit(f.grad(w))
        return f.cotangent(w) @ f.jacobian(w + e)

    return direction
