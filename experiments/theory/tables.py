"""The papers' own tables, each cell with the claims that check it, as Markdown.

In a cell ``@paper/claim`` becomes a link to the claim's page with its verdict.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from experiments.benchmarks import measure
from sam_jax.theory import conditions


class Table(NamedTuple):
    """A table of a paper.

    Attributes:
        title: paper and number.
        note: how sure its cells are.
        columns: its head.
        rows: its cells, as the head has.
    """

    title: str
    note: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


_CHECKED = {
    1: "@khanh/convex_diminishing",
    2: "@khanh/descent_condition",
    3: "@khanh/nonconvex_normalized @khanh/perfect_squares @khanh/unnormalized",
    4: "@khanh/nonconvex_normalized @khanh/convex_diminishing",
    5: "@khanh/unnormalized @khanh/kl_rates @khanh/flat_minimum",
}
_GIVES = {
    1: "",
    2: "(1), unless ||x^k|| tends to infinity",
    3: "(1), (2)",
    4: "",
    5: "(1), (2), (3), (4)",
}
_SHIFTED = "mean of E(||grad f|| - beta rho)^2"
_DIMINISHING = "@khanh/convex_diminishing"

TABLES: Sequence[Table] = (
    Table(
        "Khanh et al. 2024, Table 1: the fundamental convergence properties",
        "Wording and implications as in the paper's text.",
        ("no", "property", "implies", "claims"),
        [
            (f"({n})", text, _GIVES[n], _CHECKED[n])
            for n, text in conditions.PROPERTIES.items()
        ],
    ),
    Table(
        "Khanh et al. 2024, Table 2: SAM on convex functions (Theorem 3.2)",
        "Cells as in the theorem.",
        ("setting", "conclusion", "claims"),
        [
            ("general", "liminf ||grad f(x^k)|| = 0", _DIMINISHING),
            (
                "bounded set of minimizers",
                "accumulation points are stationary, f(x^k) -> min f",
                _DIMINISHING,
            ),
            ("unique minimizer", "the iterates converge", _DIMINISHING),
        ],
    ),
    Table(
        "Khanh et al. 2024, Table 3: functions that are not convex",
        "Cells recalled; they agree with the theorems.",
        ("methods", "setting", "conclusion", "claims"),
        [
            (
                "SAM, F-SAM, VaSSO, RSAM (Corollary 3.5)",
                "general",
                "lim ||grad f(x^k)|| = 0, the values converge",
                "@khanh/nonconvex_normalized @khanh/almost_constant_radius "
                "@khanh/perfect_squares",
            ),
            ("", "KL property", "the iterates converge", "@khanh/nonconvex_normalized"),
            (
                "USAM, extragradient (Theorem 4.2)",
                "L-descent",
                "accumulation points are stationary",
                "@khanh/usam_without_lipschitz; of IGDr @khanh/descent_condition",
            ),
            (
                "",
                "Lipschitz gradient",
                "lim ||grad f(x^k)|| = 0",
                "@khanh/unnormalized @khanh/error_bounds",
            ),
            (
                "",
                "KL property",
                "the iterates converge",
                "@khanh/unnormalized @khanh/kl_rates @khanh/flat_minimum",
            ),
        ],
    ),
    Table(
        "Si and Yun 2023, Table 1: rates of SAM with a constant radius",
        "Rates recalled, those of Theorems 3.3 and 3.4 confirmed by Khanh et al. 2024; "
        "the claims check derived bounds with explicit constants.",
        ("gradients", "function", "measure", "upper bound", "lower bound"),
        [
            (
                "deterministic",
                "strongly convex",
                "f(x_T) - f*",
                "O~(exp(-T) + 1/T^2), 3.1 @si_yun/strongly_convex_rate",
                "1/T^2, 3.2 @si_yun/strongly_convex_lower_bound",
            ),
            (
                "",
                "convex",
                "mean of ||grad f||^2",
                "O(1/T + 1/sqrt(T)), 3.3 @si_yun/convex_rate",
                "-",
            ),
            (
                "",
                "not convex",
                "mean of ||grad f||^2",
                "O(1/T) + O(rho^2), 3.4 @si_yun/nonconvex_bound",
                "rho^2, 3.5 @si_yun/nonconvex_stall @si_yun/stall_family",
            ),
            (
                "stochastic, n- and m-SAM",
                "strongly convex",
                "E f(x_T) - f*",
                "O~(exp(-T) + [sigma^2 - rho^2]_+/T) + O(rho^2), 4.1 "
                "@si_yun/stochastic_strongly_convex",
                "rho^2, m-SAM, 4.2 @si_yun/stochastic_stall @si_yun/stochastic_bias",
            ),
            (
                "",
                "convex",
                "mean of E||grad f||^2",
                "O(1/T + sqrt([sigma^2 - rho^2]_+/T)) + O(rho^2), 4.3 "
                "@si_yun/stochastic_convex",
                "rho^2, m-SAM, 4.4 @si_yun/stochastic_stall (the same functions)",
            ),
            (
                "n-SAM",
                "not convex",
                "mean of E||grad f||^2",
                "O(1/T + 1/sqrt(T)) + O(rho^2), 4.5 @si_yun/stochastic_nonconvex",
                "rho^2 @si_yun/nonconvex_stall (no noise)",
            ),
            (
                "m-SAM",
                "not convex, Lipschitz",
                _SHIFTED,
                "O(1/T + 1/sqrt(T)) + O(rho^2), 4.6 @si_yun/stochastic_nonconvex",
                "-",
            ),
            (
                "others: Andriushchenko and Flammarion 2022, Mi et al. 2022, Zhuang et "
                "al. 2022, AdaSAM 2023, Li and Giannakis 2023",
                "decaying radius, or no normalization",
                "",
                "the contrasts in @si_yun/nonconvex_stall @si_yun/valley "
                "@si_yun/stochastic_bias",
                "",
            ),
        ],
    ),
    Table(
        "Oikonomou and Loizou 2025, Table 1: SAM under the PL condition, and without",
        "Rows recalled. BV: bounded variance, BG: bounded gradients, ER: expected "
        "residual; that the first two are special cases of the third is in "
        "@oikonomou/expected_residual. What has no claim is not stated here with "
        "constants that could be checked.",
        ("function", "work", "method and assumption", "result", "claims"),
        [
            (
                "PL",
                "Andriushchenko and Flammarion 2022",
                "USAM, BV, decreasing steps",
                "1/t",
                "@oikonomou/decreasing_rate (its rule beside ours)",
            ),
            (
                "",
                "Shin et al. 2024",
                "USAM, interpolation",
                "linear",
                "@oikonomou/interpolation",
            ),
            (
                "",
                "Dai et al. 2023",
                "SAM, deterministic",
                "linear to a neighbourhood",
                "@khanh/two_cycle",
            ),
            (
                "",
                "Theorem 3.2",
                "Unified SAM, ER, constant steps",
                "linear to a neighbourhood",
                "@oikonomou/bound_per_sampling @oikonomou/lambda_sweep "
                "@oikonomou/two_cycle_plateau",
            ),
            (
                "",
                "Theorem 3.5",
                "Unified SAM, ER, decreasing steps",
                "1/t, for every lambda",
                "@oikonomou/decreasing_rate @oikonomou/constant_vs_decreasing",
            ),
            (
                "not convex",
                "Andriushchenko and Flammarion 2022",
                "USAM, BV, rho = 1/(L T^(1/4))",
                "least ||grad f|| tends to 0",
                "-",
            ),
            (
                "",
                "Mi et al. 2022, Zhuang et al. 2022, Li and Giannakis 2023, Sun et "
                "al. 2023",
                "variants of SAM, BV or BV and BG",
                "the same, decaying radius",
                "-",
            ),
            (
                "",
                "Si and Yun 2023",
                "SAM, BV",
                "to a floor of order rho^2",
                "@si_yun/stochastic_nonconvex @si_yun/nonconvex_stall",
            ),
            (
                "",
                "Theorem 3.7",
                "Unified SAM, ER",
                "least E||grad f|| <= epsilon",
                "@oikonomou/nonconvex",
            ),
        ],
    ),
)


def names() -> set[str]:
    """The claims that the tables link to.

    Example:
        >>> "khanh/two_cycle" in names()
        True
    """
    texts = [text for table in TABLES for row in table.rows for text in row]
    texts += [table.note for table in TABLES]
    return {name for text in texts for name in _CLAIM.findall(text)}


_CLAIM = re.compile(r"@(\w+/\w+)")


def page(records: Sequence[Mapping[str, Any]]) -> str:
    """All tables, linked from the folder of the results.

    Args:
        records: of the claims that were run; see `report.index`.
    """
    verdicts = {record["name"]: record["verdict"] for record in records}

    def linked(text: str) -> str:
        def link(match: re.Match[str]) -> str:
            name = match[1]
            verdict = verdicts.get(name, "not run")
            return f"[{name}](../{name}.py) ({verdict})"

        return _CLAIM.sub(link, text.replace("|", "\\|"))

    parts = ["# The papers' tables, claim by claim"]
    for table in TABLES:
        rows = [[linked(cell) for cell in row] for row in table.rows]
        parts += [f"## {table.title}", linked(table.note)]
        parts.append(measure.markdown(table.columns, rows))
    return "\n\n".join(parts) + "\n"
