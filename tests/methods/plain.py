"""The small network, SGD and Adam in plain NumPy, for `transcriptions`."""

import numpy as np

# ── Problem ──────────────────────────────────────────────────────────────────────────


class Network:
    """The network of ``problems.network_loss`` on one batch, differentiated by hand.

    ``F = sum_j tanh(x K)_j + b``, ``L = mean (F - y)^2``; the flat weights are the
    leaf ``bias``, then the leaf ``kernel``, as JAX sorts them.
    """

    leaves = ((slice(0, 1), ()), (slice(1, 13), (3, 4)))

    def __init__(self, inputs, targets):
        self.inputs, self.targets = inputs, targets

    def _hidden(self, w):
        return np.tanh(self.inputs @ w[1:].reshape(3, 4))

    def outputs(self, w):
        return self._hidden(w).sum(axis=1) + w[0]

    def losses(self, w):
        return (self.outputs(w) - self.targets) ** 2

    def loss(self, w):
        return self.losses(w).mean()

    def jacobian(self, w):
        """Of the outputs: [examples, weights]."""
        slope = 1 - self._hidden(w) ** 2
        kernel = self.inputs[:, :, None] * slope[:, None, :]
        return np.hstack([np.ones((len(slope), 1)), kernel.reshape(len(slope), -1)])

    def cotangent(self, w):
        """Gradient of the mean loss with respect to the outputs."""
        return 2 * (self.outputs(w) - self.targets) / len(self.targets)

    def grad(self, w, factors=1.0):
        """Of the mean of some factors times the losses of the examples."""
        return (factors * self.cotangent(w)) @ self.jacobian(w)

    def only(self, rows):
        """The same network on these examples of the batch."""
        return Network(self.inputs[rows], self.targets[rows])

    def hessian(self, w, step=1e-5):
        columns = [
            (self.grad(w + step * unit) - self.grad(w - step * unit)) / (2 * step)
            for unit in np.eye(len(w))
        ]
        hessian = np.array(columns)
        return (hessian + hessian.T) / 2


# ── Parts ────────────────────────────────────────────────────────────────────────────


def at(coefficient, t):
    """A coefficient, a number or a function of the updates done, at update ``t``."""
    return float(coefficient(t)) if callable(coefficient) else coefficient


def norm(x):
    return np.sqrt(np.sum(x * x))


def unit(x):
    return x / norm(x)


def layers(values, leaves):
    """One value per leaf, written to all of its weights."""
    size = leaves[-1][0].stop
    whole = np.empty(size)
    for value, (part, _) in zip(values, leaves, strict=True):
        whole[part] = value
    return whole


class MomentumSGD:
    """``v = 0.9 v + g``, ``w - lr v``; the momentum is a parameter."""

    def __init__(self, momentum=0.9):
        self.momentum, self.v = momentum, 0.0

    def step(self, w, g, lr):
        self.v = self.momentum * self.v + g
        return w - lr * self.v


class Adam:
    """Adam (Kingma and Ba, 2015); ``v`` is the first moment."""

    def __init__(self):
        self.v, self.second, self.t = 0.0, 0.0, 0

    def step(self, w, g, lr):
        self.t += 1
        self.v = 0.9 * self.v + 0.1 * g
        self.second = 0.999 * self.second + 0.001 * g**2
        first = self.v / (1 - 0.9**self.t)
        return w - lr * first / (np.sqrt(self.second / (1 - 0.999**self.t)) + 1e-8)
