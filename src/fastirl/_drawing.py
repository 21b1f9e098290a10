"""What charts share: ink, colours, a figure of a size, frames without clutter."""

from ._validation import require

__all__ = ["INK", "PALETTE", "axes", "tidy"]

INK = "#22262e"
# distinct for most readers with a colour vision deficiency (Okabe and Ito)
PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00")


def axes(ax, size=(9.0, 7.2)):
    """The Axes given, or those of a new figure."""
    if ax is not None:
        return ax
    _, ax = require("matplotlib.pyplot").subplots(figsize=size, layout="constrained")
    return ax


def tidy(ax, sides=("top", "right"), grid="y"):
    """Pale grid behind, no spines on `sides`, small ticks."""
    ax.tick_params(axis="both", length=2.5, labelsize=9, colors=INK)
    if grid:
        ax.grid(axis=grid, color="#e6e8eb", linewidth=0.8, zorder=0)
    ax.set_axisbelow(True)
    for side in sides:
        ax.spines[side].set_visible(False)
