"""The same eigenvalues as curvlinops and PyHessian find, on the same network."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from sam_jax import sharpness
from tests.methods.test_peers import peer

pytestmark = [pytest.mark.peers, pytest.mark.slow("imports torch")]


@pytest.fixture
def pair():
    """A convolutional network of torch and its twin, in float64, and two batches."""
    torch = peer("torch")
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Conv2d(1, 2, 3),
        torch.nn.Tanh(),
        torch.nn.Flatten(),
        torch.nn.Linear(18, 3),
    ).double()
    images = torch.randn(10, 1, 5, 5, dtype=torch.float64)
    labels = torch.arange(10) % 3
    batches = [(images[:6], labels[:6]), (images[6:], labels[6:])]
    kernel, bias, weight, offset = (jnp.asarray(p.detach()) for p in model.parameters())
    params = [kernel, bias, weight, offset]

    def outputs(params, batch):
        kernel, bias, weight, offset = params
        hidden = jax.lax.conv(batch[0], kernel, (1, 1), "VALID")
        hidden = jnp.tanh(hidden + bias[:, None, None]).reshape(len(batch[0]), -1)
        return hidden @ weight.T + offset

    def of_outputs(logits, batch):
        right = batch[1][:, None] == jnp.arange(3)
        return -jnp.mean(jnp.sum(jax.nn.log_softmax(logits) * right, axis=1))

    ours = [tuple(map(jnp.asarray, batch)) for batch in batches]
    loss = sharpness.Composed(outputs, of_outputs)
    return (torch, model, batches), (loss, params, ours)


@pytest.mark.parametrize(
    ("operator", "product"),
    [
        ("HessianLinearOperator", sharpness.hessian_product),
        ("GGNLinearOperator", sharpness.gauss_newton_product),
    ],
)
@pytest.mark.filterwarnings("ignore:.torch.jit.script:DeprecationWarning")
def test_curvlinops(pair, operator, product):
    (torch, model, batches), (loss, params, ours) = pair
    curvlinops = peer("curvlinops")
    theirs = getattr(curvlinops, operator)(
        model, torch.nn.CrossEntropyLoss(), list(model.parameters()), batches
    )
    vector = jax.random.normal(jax.random.key(0), (sum(p.size for p in params),))
    _, form = ravel_pytree(params)
    matrix = sharpness.spectrum.matrix_of(loss, params, product, ours)
    mine, _ = ravel_pytree(matrix(params, form(vector)))
    other = theirs @ torch.tensor(np.array(vector))
    np.testing.assert_allclose(mine, other, rtol=1e-10, atol=1e-12)
    exact = np.linalg.eigvalsh(theirs @ torch.eye(len(vector), dtype=torch.float64))
    found = sharpness.top_eigenvalues(
        loss, params, 5, batches=ours, product=product, tolerance=1e-10
    )
    np.testing.assert_allclose(found.values, exact[::-1][:5], rtol=1e-8)
    trace = sharpness.trace(loss, params, batches=ours, product=product, probes=50)
    assert abs(trace.value - exact.sum()) < 4 * trace.standard_error


@pytest.mark.filterwarnings("ignore:Using backward")
def test_pyhessian(pair):
    (torch, model, batches), (loss, params, ours) = pair
    pyhessian = peer("pyhessian")
    data = tuple(torch.cat(parts) for parts in zip(*batches, strict=True))
    theirs = pyhessian.hessian(model, torch.nn.CrossEntropyLoss(), data, cuda=False)
    values, _ = theirs.eigenvalues(maxIter=300, tol=1e-9, top_n=1)
    found = sharpness.top_eigenvalues(loss, params, batches=ours, tolerance=1e-10)
    # It divides by the norm + 1e-6.
    np.testing.assert_allclose(found.values, values, rtol=5e-6)
