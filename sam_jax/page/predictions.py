"""Predictions of the runs on their test set: calibration, confusions, mistakes."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sam_jax.page import charts
from sam_jax.page.markup import Html, escaped, figure, grid, paragraph, table
from sam_jax.page.seen import Seen, legend

_FEWEST = 10  # predictions of a bin that is drawn


def calibration(seen: Seen) -> Html:
    """How sure the predictions are, and how often they are right."""
    lines, shares, rows = [], [], []
    for group, style in seen.drawn:
        found = [seen.scores[id(run)] for run in group.runs if id(run) in seen.scores]
        if not found:
            continue
        bins = np.sum([each["bins"] for each in found], axis=0)
        count, sure, right = bins[bins[:, 0] >= _FEWEST].T
        lines.append(charts.Line(group.label, style, sure / count, right / count))
        middle = (np.arange(len(bins)) + 0.5) / len(bins)
        share = 100 * bins[:, 0] / bins[:, 0].sum()
        shares.append(charts.Line(group.label, style, middle, share))
        numbers = [group.spread(seen.score(key)) for key in ("ece", "nll", "accuracy")]
        certain = float(bins[:, 1].sum() / bins[:, 0].sum())
        cells = [x.shown(4) if x else "–" for x in numbers] + [f"{certain:.4f}"]
        rows.append([group.label, *cells])
    if not lines:
        return Html("")
    about = "share of right predictions over their probability"
    pictures = [
        figure(
            "right (share) at each probability",
            charts.line_chart(
                lines,
                "probability of the predicted class",
                about,
                log=False,
                bounds=(0, 1),
                diagonal=True,
                x_bounds=(0, 1),
            ),
        ),
        figure(
            "predictions (%) in each of 15 bins",
            charts.line_chart(
                shares,
                "probability of the predicted class",
                "share of predictions",
                log=False,
                x_bounds=(0, 1),
            ),
        ),
    ]
    said = (
        "On the dotted line predictions are as sure as they are right, below it they "
        "are too sure; bins of fewer than ten are left out. ECE is the mean distance "
        "from it (15 bins), NLL the mean cross-entropy on the test set; weights after "
        "the last epoch."
    )
    own = {str(group.runs[0].settings["loss"]) for group in seen.groups}
    if own != {"cross_entropy"}:
        said += (
            f" The runs minimize {', '.join(sorted(own))}: probabilities are the "
            "softmax of the outputs all the same."
        )
    head_of = ["run", "ECE", "NLL", "accuracy", "mean probability"]
    parts = legend(seen), table(head_of, rows), grid(pictures), paragraph(said, "soft")
    return Html("".join(parts))


def confusion(seen: Seen) -> Html:
    """Which class is mistaken for which."""
    pictures, rows, left = [], [], 0
    for group, _ in seen.drawn:
        found = [seen.scores[id(run)] for run in group.runs if id(run) in seen.scores]
        if not found:
            continue
        names = found[0]["class_names"]
        found = [each for each in found if each["class_names"] == names]
        counts = np.sum([each["confusion"] for each in found], axis=0)
        of_all = f", {len(found)} seeds together" if len(found) > 1 else ""
        if len(pictures) < 4:
            about = f"confusion matrix of {group.label}"
            picture = charts.matrix(counts, names, about) if len(names) <= 500 else ""
            kind = "wide" if len(names) > 12 else ""
            pictures.append(figure(f"{group.label}{of_all}", picture, kind))
        else:
            left += 1
        wrong = np.where(np.eye(len(names), dtype=bool), 0, counts)
        order = np.argsort(-wrong, axis=None, kind="stable")[:6]
        for place in order.tolist():
            true, predicted = divmod(place, len(names))
            if wrong[true, predicted]:
                share = 100 * wrong[true, predicted] / counts[true].sum()
                pair = f"{names[true]} → {names[predicted]}"
                rows.append([group.label, pair, wrong[true, predicted], f"{share:.1f}"])
    if not pictures:
        return Html("")
    said = (
        "Blue: right, orange: wrong, each the darker the larger its share of the true "
        "class (orange in relation to the largest mistake)."
    )
    if not any(pictures):
        said = "Matrices of more than 500 classes are left out."
    said += f" {left} more rows have no matrix." if left else ""
    head_of = ["run", "true → predicted", "examples", "of the true class (%)"]
    more = table(head_of, rows)
    folded = f"<details><summary>Most frequent mistakes</summary>{more}</details>"
    return Html(grid(pictures) + paragraph(said, "soft") + (folded if rows else ""))


def mistakes(seen: Seen) -> Html:
    """The most confident wrong predictions, as pictures or as a table."""
    parts = []
    many = len(seen.groups) > 1
    for group, _ in seen.drawn[:4]:
        run = next((run for run in group.runs if id(run) in seen.scores), None)
        found = seen.scores[id(run)] if run else None
        if not (run and found and found["mistakes"]):
            continue
        shown = found["mistakes"][: 10 if many else 33]
        names = found["class_names"]
        if many or len(group.runs) > 1:
            parts.append(f"<h3>{escaped(f'{group.label}, seed {run.seed}')}</h3>")
        parts.append(_gallery(shown, names, images=seen.images))
    if not parts:
        return Html("")
    said = "The surest of the wrong predictions: true class → predicted one."
    return Html(paragraph(said, "soft") + "".join(parts))


def _gallery(
    found: Sequence[Mapping[str, Any]], names: Sequence[str], *, images: bool
) -> Html:
    if not (images and found[0]["image"]):
        rows = [
            [
                each["index"],
                names[each["label"]],
                names[each["predicted"]],
                f"{100 * each['probability']:.1f}",
            ]
            for each in found
        ]
        titles = ["example", "true class", "predicted", "probability (%)"]
        return table(titles, rows)
    pictures = []
    for each in found:
        true, predicted = (escaped(names[each[k]]) for k in ("label", "predicted"))
        source = f"data:image/png;base64,{escaped(each['image'])}"
        sure = f"{100 * each['probability']:.0f} %"
        pictures.append(
            f'<figure><img src="{source}" alt="{true}, taken for {predicted}">'
            f"<figcaption>{true} → {predicted} <small>{sure}</small></figcaption>"
            "</figure>"
        )
    return Html(f'<div class="pictures">{"".join(pictures)}</div>')
