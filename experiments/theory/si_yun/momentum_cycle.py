"""SAM with momentum: its 2-cycle, and the threshold of divergence."""

import jax
import numpy as np
import optax

import sam_jax
from experiments.theory import claims, pictures, runs
from sam_jax.theory import descent, problems
from sam_jax.theory.step_sizes import si_yun

CLAIM = claims.Claim(
    title="SAM with momentum has a stable 2-cycle and diverges for s >= 2(1 + b)",
    source="ours, on the setting of Si and Yun 2023",
    statement=r"""Derived: on $\lambda x^2/2$ with the average
$m \leftarrow b m + (1 - b) g$ and $x \leftarrow x - \alpha m$, SAM has one alternating
cycle,

$$
|x| = \frac{s \rho}{2 (1 + b) - s}, \qquad s = \alpha \lambda (1 - b).
$$

It is stable for $0 < s < 2(1 + b)$; for $s \ge 2(1 + b)$ SAM diverges. A trace
$m \leftarrow b m + g$ gives the same cycle with $s = \alpha \lambda$. With large
momentum other cycles exist: from a distant start at rest SAM may end in a longer
one.""",
    recipe="""lambda = 2, rho = 0.1; b = 0, 0.5, 0.9; s/(2(1 + b)) from 0.02 to 0.95 in
12 values and 1, 1.02; the average by optax.ema, the trace by optax.trace. Starts: the
cycle with x and m enlarged by 10 %, and x = 1 with m = 0; 2,000 steps.""",
    criterion="""From starts near the cycle the last iterates alternate with the
amplitude of the closed form to 1e-6, and average and trace agree. From rest the
amplitude is the same with b = 0, but not in every setting with b = 0.9. At and above
the threshold |x| is above 10 and growing.""",
)

CURVATURE, RHO = 2.0, 0.1
DECAYS = np.array([0.0, 0.5, 0.9])
SHARES = np.r_[np.linspace(0.02, 0.95, 12), 1.0, 1.02]


def run(quick: bool) -> claims.Outcome:
    """Runs the claim; ``quick`` changes nothing here."""
    del quick
    rates = SHARES * 2 * (1 + DECAYS[:, None])  # s, [b, share]
    spread, below = np.broadcast_to(DECAYS[:, None], rates.shape), SHARES < 1
    cycle = np.vectorize(si_yun.cycle_amplitude)(
        (rates / (CURVATURE * (1 - spread)))[:, below],
        smoothness=CURVATURE,
        rho=RHO,
        momentum=spread[:, below],
    )
    # On the cycle the average alternates too, opposite to the step that it makes.
    memory = -(1 - spread) / (1 + spread) * CURVATURE
    memory = memory[:, below] * (cycle + RHO)
    averaged, traced = runs.each(
        _paths, spread[:, below], rates[:, below], 1.1 * cycle, 1.1 * memory
    )
    rest, _ = runs.each(_paths, spread, rates, 1.0, 0.0)
    ratio, excess = np.abs(averaged[..., -1]), np.abs(rest[:, below, -1]) / cycle - 1
    beyond = rest[:, ~below]
    data = {"b": DECAYS, "share_of_threshold": SHARES, "amplitude": ratio}
    data |= {"predicted": cycle, "from_rest": np.abs(rest[..., -1])}
    checks = claims.Checks()
    checks.close("|x| / rho from near the cycle", ratio / RHO, cycle / RHO, rtol=1e-6)
    checks.close("x_{t+1} + x_t", averaged[..., -1] + averaged[..., -2], 0, atol=1e-9)
    checks.close("average against trace", averaged, traced, atol=1e-9)
    checks.close("|x| / |cycle| - 1 from rest, b = 0", excess[0], 0, atol=1e-6)
    checks.says(
        "from rest with b = 0.9 other cycles occur",
        bool((np.abs(excess[2]) > 0.01).any()),
        True,
    )
    checks.at_least("|x| at and above s = 2(1 + b)", np.abs(beyond[..., -1]), 10)
    checks.at_least(
        "growth of |x| in the last 1,000 steps, s >= 2(1 + b)",
        np.abs(beyond[..., -1] / beyond[..., -3]),
        1.5,
    )
    picture = pictures.draw(
        {"s/(2(1 + b))": SHARES[below], "|x|": ratio, "cycle": cycle, "b": DECAYS}
        | {"iteration": np.arange(200), "from rest": np.abs(rest[:, 1, :200])},
        pictures.Panel("s/(2(1 + b))", "|x|", "cycle", "the 2-cycle", "b", log="y"),
        pictures.Panel("iteration", "from rest", by="b", log="y", label="|x|"),
    )
    return claims.Outcome(checks, picture, data)


def _paths(
    decay: jax.Array, rate: jax.Array, start: jax.Array, memory: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Paths of SAM with the average and with the trace, from a point and a memory."""
    step = rate / CURVATURE
    average = _started(optax.ema(decay, debias=False), memory)
    trace = _started(optax.trace(decay), memory / (1 - decay))
    problem = problems.quadratic([CURVATURE], [1.0])
    first, second = (
        descent.descend(
            optax.chain(sam_jax.sam(RHO), base, optax.scale(scale)),
            descent.exact(problem),
            start[None],
            np.r_[np.arange(200), 1_000, 1_999, 2_000],
            record=lambda x: x[0],
        ).recorded
        for base, scale in ((average, -step / (1 - decay)), (trace, -step))
    )
    return first, second


def _started(
    base: optax.GradientTransformation, memory: jax.Array
) -> optax.GradientTransformation:
    """Momentum that starts with a given memory, its average or trace."""

    def init(params: optax.Params) -> optax.OptState:
        state = base.init(params)
        return jax.tree.map(lambda leaf: memory[None] if leaf.ndim else leaf, state)

    return optax.GradientTransformation(init, base.update)
