"""What the pictures of this paper share."""

from matplotlib import axes, figure


def legend_below(picture: figure.Figure, panel: axes.Axes) -> None:
    """One legend for all panels, below them; its entries are those of one panel."""
    handles, labels = panel.get_legend_handles_labels()
    picture.legend(
        handles,
        labels,
        loc="outside lower center",
        ncols=len(labels),
        frameon=False,
        fontsize=8,
    )
