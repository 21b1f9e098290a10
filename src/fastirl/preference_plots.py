"""Charts of preferences: strengths with intervals, who beats whom, regret and query curves with a band over runs.

Each function draws on Axes and returns them.
"""

import numpy as np
from scipy.special import ndtri

from ._drawing import INK, PALETTE, axes, tidy
from ._validation import float_matrix, float_vector, one_of, positive_number
from .exceptions import InvalidInputError

__all__ = ["plot_curves"]

_BANDS = ("interval", "quantile", "none")


def plot_curves(curves, ax=None, *, band="interval", level=0.9, xlabel="", ylabel="", title=None, reference=None,
                log=""):
    r"""Draw one line for each named curve, the mean over its runs, with a band that tells how runs differ.

    Parameters
    ----------
    curves : mapping from name to (x, runs)
        x (n_points,) places, runs (n_runs, n_points) values, or (n_points,) for a single run.
    ax : matplotlib Axes, optional; by default a new figure is made
    band : "interval", "quantile" or "none"
        "interval": normal interval of the mean, :math:`\bar y \pm z\, s / \sqrt{n}`. "quantile": the middle `level` of the
        runs. A single run has no band.
    level : float in (0, 1), share of the band
    xlabel, ylabel : str, with units
    title : str, optional
    reference : mapping from name to a number, optional; each is drawn as a dashed horizontal line
    log : "", "x", "y" or "xy", the logarithmic axes

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    MissingExtraError
        Without matplotlib.
    InvalidInputError
        No curves, runs that do not fit their places, NaN, an unknown band, a level outside (0, 1).

    Notes
    -----
    The legend says which band is drawn and over how many runs. It does not smooth. On a logarithmic axis matplotlib leaves
    out what is not above 0.
    """
    if not isinstance(curves, dict) or not curves:
        raise InvalidInputError("`curves` must map names to (x, runs): got "
                                f"{'an empty dict' if curves == {} else type(curves).__name__}; pass {{'random': (x, runs)}}")
    one_of("band", band, _BANDS)
    one_of("log", log, ("", "x", "y", "xy"))
    level = positive_number("level", level)
    if level >= 1:
        raise InvalidInputError(f"`level` must lie between 0 and 1: got {level:g}; pass 0.9 for the middle 90%")
    checked = {str(name): _curve(name, pair) for name, pair in curves.items()}
    ax = axes(ax, size=(7.4, 4.6))
    half = float(ndtri(0.5 + level / 2))
    counts = set()
    for at, (name, (x, runs)) in enumerate(checked.items()):
        color, n_runs = PALETTE[at % len(PALETTE)], len(runs)
        counts.add(n_runs)
        mean = runs.mean(axis=0)
        style = ("-", "--", ":")[at // len(PALETTE) % 3]
        ax.plot(x, mean, color=color, linestyle=style, linewidth=1.9, label=name, zorder=3)
        if band == "none" or n_runs < 2:
            continue
        if band == "interval":
            spread = half * runs.std(axis=0, ddof=1) / np.sqrt(n_runs)
            low, high = mean - spread, mean + spread
        else:
            low, high = np.quantile(runs, [0.5 - level / 2, 0.5 + level / 2], axis=0)
        ax.fill_between(x, low, high, color=color, alpha=0.18, linewidth=0, zorder=2)
    for name, value in (reference or {}).items():
        value = float_vector("reference", [value])[0]
        ax.axhline(value, color="#6b7280", linestyle=(0, (4, 3)), linewidth=1.1, label=str(name), zorder=1)
    for axis in log:
        getattr(ax, f"set_{axis}scale")("log")
    ax.set_xlabel(xlabel, fontsize=9.5, color=INK)
    ax.set_ylabel(ylabel, fontsize=9.5, color=INK)
    if title:
        ax.set_title(title, fontsize=10.5, color=INK, loc="left")
    tidy(ax)
    legend = ax.legend(loc="best", fontsize=8.5, frameon=True, framealpha=0.92, edgecolor="none", labelcolor=INK)
    if band != "none" and max(counts) > 1:
        runs = f"{min(counts)}" if len(counts) == 1 else f"{min(counts)} to {max(counts)}"
        what = f"{100 * level:g}% interval of the mean" if band == "interval" else f"middle {100 * level:g}% of the runs"
        legend.set_title(f"mean of {runs} runs; band: {what}", prop={"size": 7.5})
    return ax


def _curve(name, pair):
    if not isinstance(pair, (tuple, list)) or len(pair) != 2:
        raise InvalidInputError(f"each curve must be (x, runs): {name!r} is a {type(pair).__name__}; pass two arrays")
    x = float_vector(f"x of {name}", pair[0])
    runs = float_matrix(f"runs of {name}", np.atleast_2d(np.asarray(pair[1])))
    if runs.shape[1] != len(x) or not len(x) or not len(runs):
        raise InvalidInputError(f"the runs of a curve must have one value for each x: {name!r} has runs of shape {runs.shape} "
                                f"for {len(x)} places; pass runs (n_runs, {len(x)})")
    return x, runs
