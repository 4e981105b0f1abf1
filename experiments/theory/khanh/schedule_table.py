"""Section 5: which schedules of the experiments satisfy which theorem."""

from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib import axes, colors
from scipy import integrate

from experiments.theory import claims, mutations, pictures
from sam_jax.theory import conditions, families, orders

CLAIM = claims.Claim(
    title="Which schedules satisfy which theorem",
    source="Khanh et al. 2024, section 5 against Theorem 3.2, Corollary 3.5, "
    "Theorem 4.2",
    statement=r"""The verdicts follow from exponents, not from sums of terms (the table
is ours). Diminish 1, 2 and 3 satisfy Theorem 3.2 with any bounded radius. Corollary
3.5, for non-convex functions, needs $\sum t_k \rho_k < \infty$. With $\rho_k = C/k^p$
this holds for any $p > 0$ with Diminish 1 and 3, but only for $p > 0.4999$ with
Diminish 2, so the almost constant radius $p = 0.001$ of Remark 3.6 is too large.
**With a constant radius all of them fail:** the paper's own experiments, $\rho = 0.05$
on networks, are outside Corollary 3.5 for every schedule. A constant step size
satisfies Theorem 4.2 on USAM. A cosine is defined for a finite number of steps and
satisfies none of these.""",
    recipe="""Symbolic verdicts of `sam_jax.theory.conditions` for seven schedules, with
L = 1 and 0.05 for rho or C. Numerically, the sums of t_k rho_k over the blocks (N, 2N]
of the library's schedules, up to 2^20 steps.""",
    criterion="""All verdicts agree with the table. The ratio of two consecutive blocks
equals that of the symbolic order, k^-a (log k)^-b, to 0.2 %.""",
    survivors=dict.fromkeys(
        mutations.FACTORS, "decided by exponents: no method is run"
    ),
)

RATE, RHO = 0.1, 0.05
STEP_SIZES: dict[str, families.Family] = {
    "Diminish 1": families.Power(RATE, 1),
    "Diminish 2": families.Power(RATE, 0.5001),
    "Diminish 3": families.PowerLog(RATE),
    "constant": families.Constant(RATE),
    "step decay": families.StepDecay(RATE, (60, 120, 160), 0.2),
    "cosine": families.Cosine(RATE, 200),
    "cosine, restarts": families.CosineRestarts(RATE, 50),
}
RADII: dict[str, families.Family] = {
    "C/k": families.Power(RHO, 1),
    "C/k^0.5": families.Power(RHO, 0.5),
    "C/k^0.4999": families.Power(RHO, 0.4999),
    "C/k^0.001": families.Power(RHO, 0.001),
    "squares": families.PerfectSquares(RHO, 0.5),
    "constant": families.Constant(RHO),
}
COLUMNS = [
    "sum t = inf",
    "sum t^2 < inf",
    "Thm 3.2, rho const.",
    *(f"Cor 3.5, {name}" for name in RADII),
    "Thm 4.2 (USAM)",
]
# The table, derived by hand; columns as above, y(es) and n(o).
TABLE = {
    "Diminish 1": "yyy yyyyyn y",
    "Diminish 2": "yyy yynnyn y",
    "Diminish 3": "yyy yyyyyn y",
    "constant": "ynn nnnnnn y",
    "step decay": "ynn nnnnnn y",
    "cosine": "nyn nnnnnn n",
    "cosine, restarts": "ynn nnnnnn y",
}


CASES = {
    "1/k, C/k^0.001": (STEP_SIZES["Diminish 1"], RADII["C/k^0.001"]),
    "k^-0.5001, C/k^0.001": (STEP_SIZES["Diminish 2"], RADII["C/k^0.001"]),
    "k^-0.5001, C/k^0.5": (STEP_SIZES["Diminish 2"], RADII["C/k^0.5"]),
    # A new m in every step: log m is log k without a constant.
    "1/(k log k), C": (families.PowerLog(RATE, period=1), RADII["constant"]),
}


def run(quick: bool) -> claims.Outcome:
    """Runs the claim; ``quick`` adds fewer terms."""
    verdicts = {name: _verdicts(step) for name, step in STEP_SIZES.items()}
    count = 2 ** (18 if quick else 20)
    terms = {name: _products(t, rho, count) for name, (t, rho) in CASES.items()}
    ratios = {name: _block_ratio(values) for name, values in terms.items()}
    symbolic = {
        name: _order_ratio(step.order * radius.order, count)
        for name, (step, radius) in CASES.items()
    }
    ends = np.unique(np.geomspace(1, count, 200).astype(int))
    sums = {name: np.cumsum(values)[ends - 1] for name, values in terms.items()}
    data = {"columns": COLUMNS, "verdicts": verdicts, "block_ratio": ratios}
    data |= {"block_ratio_of_order": symbolic, "steps": ends, "partial_sums": sums}
    checks = claims.Checks()
    checks += _checks_of_table(verdicts)
    checks.close(
        "ratio of the last two blocks of t rho",
        list(ratios.values()),
        list(symbolic.values()),
        rtol=2e-3,
    )
    picture, (left, right) = pictures.panels(2, width=5.2, height=3.9)
    _matrix(left, verdicts)
    # Two of them coincide.
    for width, (name, (step, radius)) in zip(
        (4, 1.4, 1.4, 1.4), CASES.items(), strict=True
    ):
        finite = (step.order * radius.order).summable
        label = f"{name}: {'finite' if finite else 'infinite'}"
        style = "--" if finite else "-"
        right.plot(ends, sums[name], style, label=label, linewidth=width)
    title = "partial sums do not show convergence"
    pictures.log_log(right, "steps", "partial sum of t rho", title)
    pictures.legends([right])
    return claims.Outcome(checks, picture, data)


def _checks_of_table(verdicts: Mapping[str, Sequence[bool]]) -> list[claims.Check]:
    expected = {
        name: [mark == "y" for mark in row.replace(" ", "")]
        for name, row in TABLE.items()
    }
    wrong = [
        f"{name}: {column}"
        for name in TABLE
        for column, got, want in zip(
            COLUMNS, verdicts[name], expected[name], strict=True
        )
        if got != want
    ]

    def covered(*columns: str, but: Sequence[str] = ()) -> str:
        found = [
            name
            for name, row in verdicts.items()
            if all(row[COLUMNS.index(f"Cor 3.5, {column}")] for column in columns)
            and not any(row[COLUMNS.index(f"Cor 3.5, {column}")] for column in but)
        ]
        return ", ".join(found) or "none"

    size = len(TABLE) * len(COLUMNS)
    what = "schedules that Corollary 3.5 covers with constant rho = 0.05"
    almost = "with the almost constant radius C/k^0.001"
    found = covered("C/k^0.5", but=["C/k^0.4999"])
    return [
        claims.says(
            f"verdicts off the table, of {size}", ", ".join(wrong) or "none", "none"
        ),
        claims.says(what, covered("constant"), "none"),
        claims.says(almost, covered("C/k^0.001"), "Diminish 1, Diminish 3"),
        claims.says("with C/k^0.5 but not with C/k^0.4999", found, "Diminish 2"),
    ]


def _verdicts(step_size: families.Family) -> list[bool]:
    """A row of the table."""

    def applies(theorem: str, method: str, radius: families.Family) -> bool:
        setting = conditions.Setting(
            method=method,
            step_size=step_size,
            radius=radius,
            smoothness=1.0,
            convex=True,
            bounded_below=True,
        )
        [found] = [v for v in conditions.assess(setting) if theorem in v.theorem.name]
        return found.applies is True

    return [
        step_size.sum_diverges,
        step_size.square_summable,
        applies("Khanh et al., Theorem 3.2", "sam", RADII["constant"]),
        *(applies("Corollary 3.5", "sam", radius) for radius in RADII.values()),
        applies("Theorems 4.1 and 4.2", "usam", RADII["constant"]),
    ]


def _products(
    step_size: families.Family, radius: families.Family, count: int
) -> np.ndarray:
    k = jnp.arange(count)
    of_steps, of_radii = step_size.schedule(), radius.schedule()
    return np.asarray(jax.vmap(lambda i: of_steps(i) * of_radii(i))(k))


def _block_ratio(values: np.ndarray) -> float:
    half, quarter = len(values) // 2, len(values) // 4
    return float(values[half:].sum() / values[quarter:half].sum())


def _order_ratio(order: orders.Order, count: int) -> float:
    """The limit of `_block_ratio`, by the integral of the symbolic order."""
    [term] = order.terms
    power, log = float(term.power), float(term.log)

    def block(start: float, end: float) -> float:
        # In u = log k, where the integrand is smooth.
        return integrate.quad(
            lambda u: np.exp((1 - power) * u) * u**-log, np.log(start), np.log(end)
        )[0]

    return block(count / 2, count) / block(count / 4, count / 2)


def _matrix(panel: axes.Axes, verdicts: dict[str, list[bool]]) -> None:
    values = np.array(list(verdicts.values()), float)
    panel.imshow(
        values, cmap=colors.ListedColormap(["#F3D9C9", "#CFE3F1"]), aspect="auto"
    )
    for (i, j), value in np.ndenumerate(values):
        panel.text(j, i, "yes" if value else "no", ha="center", va="center", size=7)
    panel.set_xticks(range(len(COLUMNS)), COLUMNS, rotation=40, ha="right", size=7)
    panel.set_yticks(range(len(verdicts)), list(verdicts), size=8)
    panel.grid(False)
    panel.set_title("Which schedule satisfies which condition?")
