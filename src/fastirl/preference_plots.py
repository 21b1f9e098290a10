"""Charts of preferences: strengths with intervals, who beats whom, regret and query curves with a band over runs.

Each function draws on Axes and returns them.
"""

import numpy as np
from scipy.special import ndtri

from ._drawing import INK, PALETTE, axes, tidy
from ._validation import float_matrix, float_vector, naming, one_of, positive_number, require, whole_number
from .comparisons import Comparisons
from .exceptions import InvalidInputError
from .rankings import Rankings
from .winners import PairwiseMatrix, copeland

__all__ = ["plot_curves", "plot_regret", "plot_strengths", "plot_win_matrix"]

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


def plot_regret(simulation, kind="condorcet", ax=None, *, band="interval", level=0.9, log="", title=None):
    """Draw the cumulative regret of dueling bandits against the number of duels.

    Parameters
    ----------
    simulation : DuelSimulation
    kind : "condorcet", "copeland" or "borda"
    ax, band, level, log, title : as in `plot_curves`

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    MissingExtraError
        Without matplotlib.
    InvalidInputError
        "condorcet" where no item wins against all others, and what `plot_curves` refuses.
    """
    if not hasattr(simulation, "curves"):
        raise InvalidInputError(f"`simulation` must be a DuelSimulation: got {type(simulation).__name__}; pass what "
                                "simulate_duels returned")
    curves = simulation.curves(kind)
    return plot_curves(curves, ax, band=band, level=level, xlabel="Duels", log=log, title=title,
                       ylabel=f"Cumulative {kind.capitalize()} regret")


def plot_strengths(fit, ax=None, *, level=0.95, kind="hessian", most=40):
    """Draw the strengths of items with their intervals, the strongest on top.

    Parameters
    ----------
    fit : a fit of `bradley_terry` or `plackett_luce`
    ax : matplotlib Axes, optional
    level : float in (0, 1), share of the pointwise normal interval
    kind : which standard errors, such as "hessian", "robust" or "clustered"
    most : int, so many items at most: the strongest and the weakest half of these, with a line where others are left out

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    MissingExtraError
        Without matplotlib.
    InvalidInputError
        A `level` outside (0, 1), errors that the fit does not offer.

    Notes
    -----
    Strengths are log odds between two items; only differences mean something. An interval is that of the strength against the
    mean of its component: that two of them overlap does not tell that two items are alike. Items without an error (held, or
    alone in their component) have no interval.
    """
    level = positive_number("level", level)
    if level >= 1:
        raise InvalidInputError(f"`level` must lie between 0 and 1: got {level:g}; pass 0.95 for 95% intervals")
    most = whole_number("most", most, lower=2)
    if not (hasattr(fit, "strength") and hasattr(fit, "standard_errors")):
        raise InvalidInputError(f"`fit` must be what bradley_terry or plackett_luce returned: got {type(fit).__name__}; fit "
                                "first")
    strength, error = np.asarray(fit.strength), np.asarray(fit.standard_errors(kind))
    order = np.argsort(-strength, kind="stable")
    hidden = max(len(order) - most, 0)
    if hidden:
        order = np.concatenate([order[: most - most // 2], order[len(order) - most // 2:]])
    half = float(ndtri(0.5 + level / 2)) * error[order]
    place = np.arange(len(order))[::-1].astype(float)
    if hidden:
        place[: most - most // 2] += 1
    component = np.asarray(fit.component)[order]
    ax = axes(ax, size=(7.2, 0.3 * len(order) + 1.3))
    ax.axvline(0.0, color=INK, linewidth=0.8, zorder=1)
    for at, group in enumerate(np.unique(component)):
        color, mine = PALETTE[at % len(PALETTE)], component == group
        sure, bare = mine & (half > 0), mine & ~(half > 0)
        ax.errorbar(strength[order][sure], place[sure], xerr=half[sure], fmt="o", color=color, markersize=5.0, capsize=2.8,
                    elinewidth=1.5, zorder=3)
        ax.plot(strength[order][bare], place[bare], "o", color=color, markerfacecolor="none", markersize=5.5, zorder=3)
    names = [_short(fit.labels[at]) for at in order]
    if hidden:
        gap = most // 2
        ax.axhline(gap, color="#6b7280", linestyle=(0, (1, 3)), linewidth=1.0)
        names.insert(most - most // 2, f"… {hidden:,} more")
        place = np.insert(place, most - most // 2, gap)
    ax.set_yticks(place, names)
    ax.set_ylim(place.min() - 0.7, place.max() + 0.7)
    tidy(ax, ("top", "right", "left"), grid="x")
    ax.set_xlabel(f"Strength (log odds), {100 * level:g}% intervals ({kind})", fontsize=9.5, color=INK)
    return ax


def plot_win_matrix(c, ax=None, *, order="copeland", annotate=None, colorbar=True, unobserved="error"):
    """Draw who is preferred to whom, as a matrix of shares: the item of the row against the item of the column.

    Parameters
    ----------
    c : Comparisons, Rankings, PairwiseMatrix or an (n_items, n_items) array of probabilities; at most 200 items
    ax : matplotlib Axes, optional
    order : "copeland", "given", or a sequence of all labels
        The items from top to bottom and from left to right; by the Copeland score a transitive preference has all its wins
        above the diagonal.
    annotate : bool, optional, write the shares into the cells; by default up to 15 items
    colorbar : bool
    unobserved : "error" or "tie"
        Whether pairs that nobody compared are an error, or left blank, and ties for the order.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    MissingExtraError
        Without matplotlib.
    InvalidInputError
        Too many items, an unobserved pair where `unobserved` is "error", an order that leaves labels out.

    Notes
    -----
    Blue: the row is preferred; orange: the column is; white: ½. Cells that were not observed, and the diagonal, are grey.
    """
    one_of("unobserved", unobserved, ("error", "tie"))
    with naming(probability="c"):
        pairs = _pairs_of(c)
    n = pairs.n_items
    if not 0 < n <= 200:
        raise InvalidInputError(f"a matrix of 1 to 200 items can be read: there are {n:,}; pass a subset")
    share = pairs.dense("probability", unobserved)
    seen = np.zeros((n, n), bool)
    seen[pairs.first, pairs.second] = seen[pairs.second, pairs.first] = True
    rows = _order_of(pairs, order, unobserved)
    share, seen, labels = share[np.ix_(rows, rows)], seen[np.ix_(rows, rows)], [_short(pairs.labels[at]) for at in rows]
    colors = require("matplotlib.colors")
    scale = colors.LinearSegmentedColormap.from_list("wins", [PALETTE[1], "#ffffff", PALETTE[0]]).with_extremes(bad="#eceef1")
    side = float(np.clip(0.42 * n + 2.2, 4.2, 12.0))
    ax = axes(ax, size=(side + (0.9 if colorbar else 0.0), side))
    image = ax.imshow(np.ma.array(share, mask=~seen), cmap=scale, vmin=0.0, vmax=1.0, interpolation="nearest")
    if annotate if annotate is not None else n <= 15:
        for i, j in zip(*np.nonzero(seen)):
            ax.text(j, i, f"{share[i, j]:.2f}".lstrip("0") if share[i, j] < 1 else "1", ha="center", va="center", fontsize=8,
                    color=INK if abs(share[i, j] - 0.5) < 0.33 else "#ffffff")
    if n <= 60:
        if max(map(len, labels)) > 3:
            ax.set_xticks(np.arange(n), labels, rotation=45, ha="left", rotation_mode="anchor")
        else:
            ax.set_xticks(np.arange(n), labels)
        ax.set_yticks(np.arange(n), labels)
        ax.xaxis.tick_top()
    else:
        ax.set_xticks([])
        ax.set_yticks([])
    tidy(ax, ("top", "right", "left", "bottom"), grid=None)
    ax.set_xlabel("… than", fontsize=9.5, color=INK)
    ax.xaxis.set_label_position("bottom")
    ax.set_ylabel("More often preferred …", fontsize=9.5, color=INK)
    if colorbar:
        bar = ax.figure.colorbar(image, ax=ax, fraction=0.04, pad=0.02)
        bar.set_label("Share of comparisons in which the row was preferred", color=INK, fontsize=9)
        bar.outline.set_visible(False)
        bar.ax.tick_params(labelsize=8, colors=INK, length=2)
    return ax


def _pairs_of(c):
    if isinstance(c, PairwiseMatrix):
        return c
    if isinstance(c, Comparisons):
        return PairwiseMatrix.from_counts(c)
    return PairwiseMatrix.from_rankings(c) if isinstance(c, Rankings) else PairwiseMatrix.from_probabilities(c)


def _order_of(pairs, order, unobserved):
    if isinstance(order, str):
        one_of("order", order, ("copeland", "given"))
        if order == "given":
            return np.arange(pairs.n_items)
        return np.argsort(-copeland(pairs, unobserved=unobserved).score, kind="stable")
    place = {label: at for at, label in enumerate(pairs.labels.tolist())}
    labels = list(order)
    if sorted(map(str, labels)) != sorted(map(str, place)):
        raise InvalidInputError(f"`order` must hold every label once: got {len(labels)} labels for "
                                f"{pairs.n_items} items; pass all")
    return np.array([place[label] for label in labels])


def _short(label, most=28):
    text = str(label)
    return text if len(text) <= most else text[: most - 1] + "…"
