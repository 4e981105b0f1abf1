"""A small network in float64, with its exact matrices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from sam_jax import sharpness


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


class Network:
    """Two layers of tanh, 23 parameters, squared error plus a quartic."""

    def __init__(self):
        keys = jax.random.split(jax.random.key(0), 4)
        self.params = {
            "w": jax.random.normal(keys[0], (4, 3)),
            "b": jax.random.normal(keys[1], (3,)),
            "v": jax.random.normal(keys[2], (3, 2)),
            "c": jnp.zeros(2),
        }
        self.x = jax.random.normal(keys[3], (10, 4))
        self.batches = [self.x[:6], self.x[6:]]

    @staticmethod
    def outputs(params, x):
        hidden = jnp.tanh(x @ params["w"] + params["b"])
        return hidden @ params["v"] + params["c"]

    @staticmethod
    def of_outputs(outputs, x):
        error = outputs - jnp.sin(x[:, :2])
        return jnp.mean(jnp.sum(error**2 + error**4, axis=1))

    @property
    def loss(self):
        return sharpness.Composed(self.outputs, self.of_outputs)

    def whole(self, params):
        return self.loss(params, self.x)

    def hessian(self, loss=None):
        vector, form = ravel_pytree(self.params)
        return np.asarray(jax.hessian(lambda v: (loss or self.whole)(form(v)))(vector))

    def gauss_newton(self):
        vector, form = ravel_pytree(self.params)
        jacobian = jax.jacobian(lambda v: self.outputs(form(v), self.x).ravel())(vector)
        outputs = self.outputs(self.params, self.x)
        inner = jax.hessian(
            lambda z: self.of_outputs(z.reshape(outputs.shape), self.x)
        )(outputs.ravel())
        return np.asarray(jacobian.T @ inner @ jacobian)


@pytest.fixture(scope="session")
def network():
    with jax.enable_x64(True):
        return Network()
