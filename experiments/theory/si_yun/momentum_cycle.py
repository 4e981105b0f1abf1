"""SAM with momentum: the 2-cycle and where it diverges."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

import sam_jax
from experiments.theory import claims, pictures
from sam_jax.theory import descent, problems
from sam_jax.theory.step_sizes import si_yun

CLAIM = claims.Claim(
    title="With momentum SAM has a stable 2-cycle, and diverges from s = 2(1 + b) on",
    source="ours, on the setting of Si and Yun 2023",
    statement="""Derived: on lambda x^2/2 with the average m <- b m + (1 - b) g and x <-
x - alpha m, SAM has one alternating cycle, **|x| = s rho/(2(1 + b) - s)**, s = alpha
lambda (1 - b). It is stable for 0 < s < 2(1 + b); from s = 2(1 + b) on SAM diverges. A
trace m <- b m + g is the same with s = alpha lambda. With much momentum the cycle is
not the only one: from rest far away SAM may end in a longer one.""",
    recipe="""lambda = 2, rho = 0.1; b = 0, 0.5, 0.9; s/(2(1 + b)) from 0.02 to 0.95 in
12 values and 1, 1.02; the average by optax.ema, the trace by optax.trace. Starts: the
cycle with x and m enlarged by 10 %, and x = 1 with m = 0; 2,000 steps.""",
    criterion="""From near the cycle the last iterates alternate with the closed form's
amplitude to 1e-6, and average and trace agree; so they do from rest with b = 0, but not
all with b = 0.9. At and above the threshold |x| is above 10 and growing.""",
)


def run(quick: bool) -> claims.Outcome:
    """Runs the claim; ``quick`` changes nothing here."""
    del quick
    curvature, rho = 2.0, 0.1
    problem = problems.quadratic([curvature], [1.0])
    decays = np.array([0.0, 0.5, 0.9])
    shares = np.r_[np.linspace(0.02, 0.95, 12), 1.0, 1.02]
    rates = shares * 2 * (1 + decays[:, None])  # s, [b, share]
    checkpoints = np.r_[np.arange(200), 1_000, 1_999, 2_000]
    below = shares < 1

    @jax.jit
    @jax.vmap
    def descend(
        decay: jax.Array, rate: jax.Array, start: jax.Array, memory: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        step = rate / curvature
        average = _started(optax.ema(decay, debias=False), memory)
        trace = _started(optax.trace(decay), memory / (1 - decay))
        scale = {"ema": -step / (1 - decay), "trace": -step}
        bases = (
            optax.chain(average, optax.scale(scale["ema"])),
            optax.chain(trace, optax.scale(scale["trace"])),
        )
        first, second = (
            descent.descend(
                optax.chain(sam_jax.sam(rho), base),
                descent.exact(problem),
                start[None],
                checkpoints,
                record=lambda x: x[0],
            ).recorded
            for base in bases
        )
        return first, second

    spread = np.broadcast_to(decays[:, None], rates.shape)
    cycle = np.vectorize(si_yun.cycle_amplitude)(
        (rates / (curvature * (1 - spread)))[:, below],
        smoothness=curvature,
        rho=rho,
        momentum=spread[:, below],
    )
    # On the cycle the average alternates too, opposite to the step that it makes.
    memory = -(1 - spread) / (1 + spread) * curvature
    memory = memory[:, below] * (cycle + rho)
    near = descend(
        *(
            jnp.asarray(a.ravel())
            for a in (spread[:, below], rates[:, below], 1.1 * cycle, 1.1 * memory)
        )
    )
    one = np.ones(rates.size)
    far = descend(
        *(jnp.asarray(a.ravel()) for a in (spread, rates, one, np.zeros_like(one)))
    )
    averaged, traced = (np.asarray(f).reshape(*cycle.shape, -1) for f in near)
    rest = np.asarray(far[0]).reshape(*rates.shape, -1)
    excess = np.abs(rest[:, below, -1]) / cycle - 1

    picture, (left, right) = pictures.panels(2)
    fine = np.linspace(0.01, 0.97, 200)
    for i, decay in enumerate(decays):
        marker, label = "osD"[i], f"b = {decay:g}"
        size = 9 - 3 * i
        measured = np.abs(averaged[i, :, -1]) / rho
        left.plot(shares[below], measured, marker, ms=size, mfc="none", label=label)
        right.plot(np.abs(rest[i, 1, :200]), lw=0.8, label=f"{label}, from rest")
        right.axhline(cycle[i, 1], color="#555555", linestyle="--", linewidth=1)
    # In s / (2 (1 + b)) the closed form does not depend on b.
    pictures.bound(left, fine, fine / (1 - fine), "s / (2(1 + b) - s)")
    pictures.log_y(left, "s / (2(1 + b))", "|x| / rho", "the 2-cycle")
    title = f"s = {shares[1]:.2f} x 2(1 + b), cycle dashed"
    pictures.log_y(right, "iteration", "|x|", title)
    pictures.legends([left, right])
    return claims.Outcome(
        checks=[
            claims.close(
                "|x| / rho from near the cycle",
                np.abs(averaged[..., -1]) / rho,
                cycle / rho,
                rtol=1e-6,
            ),
            claims.close(
                "x_{t+1} + x_t", averaged[..., -1] + averaged[..., -2], 0, atol=1e-9
            ),
            claims.close("average against trace", averaged, traced, atol=1e-9),
            claims.close("|x| / |cycle| - 1 from rest, b = 0", excess[0], 0, atol=1e-6),
            claims.says(
                "from rest with b = 0.9 other cycles occur",
                bool((np.abs(excess[2]) > 0.01).any()),
                True,
            ),
            claims.at_least(
                "|x| at and above s = 2(1 + b)", np.abs(rest[:, ~below, -1]), 10
            ),
            claims.at_least(
                "growth of |x| there in the last 1,000 steps",
                np.abs(rest[:, ~below, -1] / rest[:, ~below, -3]),
                1.5,
            ),
        ],
        picture=picture,
        data={
            "b": decays,
            "share_of_threshold": shares,
            "amplitude": np.abs(averaged[..., -1]),
            "predicted": cycle,
            "from_rest": np.abs(rest[..., -1]),
        },
    )


def _started(
    base: optax.GradientTransformation, memory: jax.Array
) -> optax.GradientTransformation:
    """Momentum with a memory: the mean or trace it starts with."""

    def init(params: optax.Params) -> optax.OptState:
        state = base.init(params)
        return jax.tree.map(lambda leaf: memory[None] if leaf.ndim else leaf, state)

    return optax.GradientTransformation(init, base.update)
