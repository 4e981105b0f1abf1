"""Speed of the laboratory's loop: updates per second against NumPy.

    python -m experiments.benchmarks.theory_speed \
        --out=experiments/benchmarks/results/theory_speed.json

Stochastic SAM, one component per update, on the skewed parabolas and on ridge
regression, for many seeds at once. NumPy runs the same updates twice: seed after seed,
as such scripts are mostly written, and written by hand for all seeds at once. Times are
taken in turns; updates count over all seeds.
"""

import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

import sam_jax
from experiments import commands
from experiments.benchmarks import measure
from experiments.benchmarks.measure import Flag
from sam_jax.theory import descent, finite_sums, sampling

RHO, STEP_SIZE, L2 = 0.1, 0.01, 0.03
JAX, LOOP, VECTORIZED = "sam_jax", "NumPy, seed by seed", "NumPy, all seeds at once"


class Data(NamedTuple):
    """Ridge regression: components (a_i . x - b_i)^2 / 2 + l2 ||x||^2 / 2.

    Attributes:
        matrix: rows a_i, [n, d].
        target: b [n].
        l2: coefficient of the regularizer.
    """

    matrix: np.ndarray
    target: np.ndarray
    l2: float


def problems() -> dict[str, Data]:
    """The problems that are timed."""
    generator = np.random.default_rng(0)
    ridge = Data(generator.normal(size=(100, 20)), generator.normal(size=100), L2)
    line = Data(np.ones((3, 1)), np.array([-1.0, -1.0, 2.0]), 0.0)
    return {"parabolas (n = 3, d = 1)": line, "ridge (n = 100, d = 20)": ridge}


def by_sam_jax(data: Data, seeds: int, steps: int) -> Callable[[], Any]:
    """All seeds in one compiled call."""
    problem = finite_sums.least_squares(data.matrix, data.target, l2=data.l2)
    oracle = descent.same_sample(problem, sampling.uniform(problem.size))

    @jax.jit
    @jax.vmap
    def run(key: jax.Array) -> jax.Array:
        tx = optax.chain(sam_jax.sam(RHO), optax.sgd(STEP_SIZE))
        trace = descent.descend(
            tx, oracle, problem.start, [steps], record=problem.gap, key=key
        )
        return trace.x

    keys = jax.random.split(jax.random.key(0), seeds)
    return lambda: jax.block_until_ready(run(keys))


def seed_by_seed(data: Data, seeds: int, steps: int) -> np.ndarray:
    """The loop as one writes it for a single trajectory."""
    found = []
    for seed in range(seeds):
        generator = np.random.default_rng(seed)
        x = np.zeros(data.matrix.shape[1])
        for _ in range(steps):
            row = generator.integers(len(data.matrix))
            a, b = data.matrix[row], data.target[row]
            gradient = (a @ x - b) * a + data.l2 * x
            length = max(np.linalg.norm(gradient), 1e-12)
            perturbed = x + RHO * gradient / length
            x = x - STEP_SIZE * ((a @ perturbed - b) * a + data.l2 * perturbed)
        found.append(x)
    return np.array(found)


def all_at_once(data: Data, seeds: int, steps: int) -> np.ndarray:
    """The same with arrays over the seeds, written by hand for this problem."""
    generator = np.random.default_rng(0)
    x = np.zeros((seeds, data.matrix.shape[1]))
    for _ in range(steps):
        rows = generator.integers(len(data.matrix), size=seeds)
        a, b = data.matrix[rows], data.target[rows]
        gradient = ((a * x).sum(1) - b)[:, None] * a + data.l2 * x
        lengths = np.maximum(np.linalg.norm(gradient, axis=1), 1e-12)
        perturbed = x + RHO * gradient / lengths[:, None]
        residuals = (a * perturbed).sum(1) - b
        x = x - STEP_SIZE * (residuals[:, None] * a + data.l2 * perturbed)
    return x


@measure.benchmark(
    seeds=Flag(commands.count, 1000),
    steps=Flag(commands.count, 1000, "updates per seed"),
    rounds=Flag(commands.count, 7, "times for each loop"),
)
def main(args: Any) -> tuple[measure.Results, measure.Tables]:
    """Times the three loops on all problems."""
    with jax.enable_x64(True):
        results = {
            name: compare(data, args.seeds, args.steps, args.rounds)
            for name, data in problems().items()
        }
    rows = [
        [problem, who, f"{of['updates_per_second']:.3g}", of["time_over_sam_jax"]]
        for problem, entry in results.items()
        for who, of in entry.items()
    ]
    columns = ["problem", "loop", "updates/s", "time / sam_jax's"]
    return results, {"": measure.markdown(columns, rows)}


def compare(data: Data, seeds: int, steps: int, rounds: int) -> dict[str, Any]:
    """Updates per second of the three ways.

    NumPy's loop is timed for some of the seeds only: its time is proportional to them.
    """
    few = max(1, seeds // 200)
    run = by_sam_jax(data, seeds, steps)
    run()  # compiles
    times = measure.in_turns(
        {
            JAX: run,
            LOOP: lambda: seed_by_seed(data, few, steps),
            VECTORIZED: lambda: all_at_once(data, seeds, steps),
        },
        rounds,
    )
    updates = {JAX: seeds * steps, LOOP: few * steps, VECTORIZED: seeds * steps}
    per_update = {who: np.array(times[who]) / updates[who] for who in times}
    return {
        who: {
            "updates_per_second": float(1 / np.median(per_update[who])),
            "time_over_sam_jax": str(measure.ratio(per_update[who].tolist(), base)),
            "seconds_per_update": per_update[who].tolist(),
        }
        for base in [per_update[JAX].tolist()]
        for who in times
    }


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
