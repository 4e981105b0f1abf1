import optax
import pytest

import sam_jax
from sam_jax import schedules
from tests.methods import problems
from tests.methods.traits import Traits

TRAITS = Traits(exact=False)  # at rho = 0 the orthogonal part is rounding


def test_the_radius_can_follow_the_learning_rate():
    # From 0.1 to 0 in four updates; the radius goes from 0.6 to 0.2 with it.
    learning_rate = optax.linear_schedule(0.1, 0.0, 4)
    rho = schedules.tied_to(learning_rate, 0.2, 0.6, lr_min=0.0, lr_max=0.1)
    tx = optax.chain(sam_jax.gsam(rho), optax.sgd(learning_rate))
    step = problems.make_step(tx, problems.network_loss)
    params, radii = problems.network(), []
    state = tx.init(params)
    for _ in range(6):
        params, state = step(params, state, problems.batch())
        radii.append(float(sam_jax.diagnostics(state)["perturbation_norm"]))
    assert radii == pytest.approx([0.6, 0.5, 0.4, 0.3, 0.2, 0.2], rel=1e-5)
