"""Maps of networks, flows and routes, and a chart of estimates. Each function draws on Axes and returns them."""

import math

import numpy as np

from ._drawing import INK as _INK
from ._drawing import PALETTE as _PALETTE
from ._drawing import axes as _axes
from ._drawing import tidy
from ._validation import float_vector, one_of, require
from .exceptions import InvalidInputError

__all__ = ["plot_comparison", "plot_network", "plot_flows", "plot_routes", "plot_estimates"]

_STREET = "#c9ccd1"
_SCALES = ("sqrt", "log", "linear")
_HALO = "#ffffff"


def plot_network(net, ax=None, *, color=_STREET, linewidth=0.6, attribution=None, scale_bar=True):
    """Draw the streets of a network.

    Parameters
    ----------
    net : RoadNetwork with coordinates (from a table of links with nodes or lines)
    ax : matplotlib Axes, optional; by default a new figure is made
    color : colour of the streets
    linewidth : float, in points
    attribution : str, optional, written below the map; data such as OpenStreetMap's ask for it
    scale_bar : bool, a bar of a round length in metres or kilometres, on maps in degrees only

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    MissingExtraError
        Without matplotlib.
    InvalidInputError
        A network without coordinates.

    Notes
    -----
    Links are straight lines between their ends; links whose ends are unknown are left out. Maps in degrees are
    stretched by the cosine of the middle latitude, right for a city. Nothing is fetched: there is no background map.
    """
    segments, _ = _streets(net)
    ax = _axes(ax)
    _draw_lines(ax, segments, colors=color, linewidths=linewidth, zorder=1)
    _frame(ax, net, segments, attribution, scale_bar)
    return ax


def plot_flows(net, flows, ax=None, *, scale="sqrt", cmap=None, max_width=5.0, label=None, colorbar=True,
               attribution=None, scale_bar=True):
    """Draw the flow on each street by colour and width.

    Parameters
    ----------
    net : RoadNetwork with coordinates
    flows : array (n_arcs,) >= 0, passages of each arc, such as ``model.expected_flows(...)``
    ax : matplotlib Axes, optional
    scale : "sqrt", "log" or "linear"
        How flow is turned into colour; the colour bar says it. "log" covers at most four powers of ten below the
        largest flow, and what is less takes the lowest colour.
    cmap : name of a colour map or a matplotlib Colormap, by default light to dark without its palest part
    max_width : float, width in points of the street with the largest flow; widths follow the colours
    label : str, optional, what is counted, by default "Expected passages"
    colorbar : bool
    attribution, scale_bar : as in `plot_network`

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    MissingExtraError
        Without matplotlib.
    InvalidInputError
        No coordinates; flows that are negative, not finite or of another length; an unknown scale.

    Notes
    -----
    Where states are links, a link's flow is the sum over the turns into it, so travellers are not counted on the link
    where they start. Links that join the same two points, in either direction, are one line with the sum of their
    flows.
    Streets with a flow below a thousandth of the largest are drawn as streets without any.
    """
    flows = float_vector("flows", flows, net.n_arcs, nonnegative=True)
    one_of("scale", scale, _SCALES)
    mpl = require("matplotlib")
    colors = require("matplotlib.colors")
    segments, street_of_arc = _streets(net)
    known = street_of_arc >= 0
    total = np.bincount(street_of_arc[known], flows[known], minlength=len(segments))
    ax = _axes(ax)
    _draw_lines(ax, segments, colors=_STREET, linewidths=0.6, zorder=1)
    top = float(total.max(initial=0.0))
    shown = np.flatnonzero(total > 1e-3 * top)
    shown = shown[np.argsort(total[shown], kind="stable")]
    if top > 0:
        norm = _norm(colors, scale, float(total[shown[0]]), top)
        cmap = _default_cmap(mpl, colors) if cmap is None else mpl.colormaps[cmap] if isinstance(cmap, str) else cmap
        share = np.clip(np.asarray(norm(total[shown]), float), 0.0, 1.0)
        lines = _draw_lines(ax, segments[shown], cmap=cmap, norm=norm, linewidths=0.4 + (max_width - 0.4) * share,
                            zorder=2, capstyle="round")
        lines.set_array(total[shown])
        if colorbar:
            both = "both directions, " if net.coordinates.shape[1] == 4 or len(segments) < net.n_arcs else ""
            words = {"sqrt": "square-root scale", "log": "logarithmic scale", "linear": "linear scale"}[scale]
            bar = ax.figure.colorbar(lines, ax=ax, fraction=0.035, pad=0.02)
            bar.set_label(f"{label or 'Expected passages'} ({both}{words})", color=_INK, fontsize=9)
            bar.outline.set_visible(False)
            bar.ax.tick_params(labelsize=8, colors=_INK, length=2)
    _frame(ax, net, segments, attribution, scale_bar)
    return ax


def plot_routes(net, routes, labels=None, ax=None, *, styles=None, colors=None, streets=True, attribution=None,
                scale_bar=True):
    """Draw routes, with a ring at each origin and a square at each destination.

    Parameters
    ----------
    net : RoadNetwork with coordinates
    routes : sequence of Route, Trajectory or sequences of state labels
        Such as ``model.predict_route(...)``, ``trips[i]`` or a list of link ids.
    labels : sequence of (str or None), optional, one for each route, for the legend; None leaves a route out of it
    ax : matplotlib Axes, optional
    styles : sequence of "solid" or "dashed", optional
        By default a Route (which a model predicted) is dashed, anything else (observed) is solid.
    colors : sequence of colours, optional
        By default routes that share origin and destination share a colour.
    streets : bool, draw the network below
    attribution, scale_bar : as in `plot_network`

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    MissingExtraError
        Without matplotlib.
    InvalidInputError
        No coordinates, an unknown state, labels, styles or colors of another length.

    Notes
    -----
    Dashed routes are drawn above solid, wider and paler ones, so that a prediction on the observed streets shows as
    dashes on a band. It does not check that a route is a walk on the network.
    """
    lines_of = [_route_line(net, route) for route in routes]
    if not lines_of:
        raise InvalidInputError("`routes` must hold at least one route: it is empty; pass a list of routes")
    n = len(lines_of)
    labels = _one_each("labels", labels, [None] * n)
    predicted = [hasattr(route, "log_probability") for route in routes]
    styles = _one_each("styles", styles, ["dashed" if guess else "solid" for guess in predicted])
    for style in styles:
        one_of("styles", style, ("solid", "dashed"))
    pairs = {}
    for _, ends in lines_of:
        pairs.setdefault(ends, len(pairs))
    colors = _one_each("colors", colors, [_PALETTE[pairs[ends] % len(_PALETTE)] for _, ends in lines_of])
    segments, _ = _streets(net)
    ax = _axes(ax)
    if streets:
        _draw_lines(ax, segments, colors=_STREET, linewidths=0.5, zorder=1)
    for (points, _), label, style, color in zip(lines_of, labels, styles, colors):
        solid = style == "solid"
        ax.plot(*points.T, color=color, linestyle="-" if solid else (0, (2.2, 1.4)), linewidth=5.5 if solid else 2.0,
                alpha=0.42 if solid else 1.0, solid_capstyle="round", solid_joinstyle="round", label=label,
                zorder=3 if solid else 4)
    marked = set()
    for (points, ends), color in zip(lines_of, colors):
        if ends not in marked:
            marked.add(ends)
            ax.plot(*points[0], marker="o", markersize=8.5, color=_HALO, markeredgecolor=color, markeredgewidth=2.2,
                    zorder=5)
            ax.plot(*points[-1], marker="s", markersize=7.5, color=color, markeredgecolor=_HALO, markeredgewidth=1.2,
                    zorder=5)
    if any(label is not None for label in labels):
        legend = ax.legend(loc="best", fontsize=8, frameon=True, framealpha=0.92, edgecolor="none", handlelength=3.0,
                           labelcolor=_INK)
        legend.set_zorder(6)
    _frame(ax, net, segments, attribution, scale_bar)
    return ax


def plot_estimates(model, ax=None, *, kind="robust", level=0.95):
    """Draw each weight with its interval, and write the numbers beside it.

    Parameters
    ----------
    model : fitted MaxEntIRL
    ax : matplotlib Axes, optional
    kind : "robust", "hessian", "bhhh" or "clustered", the standard errors
    level : float in (0, 1), share of the normal interval

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    MissingExtraError
        Without matplotlib.
    NotFittedError
        A model without a fit.
    InvalidInputError
        A `level` outside (0, 1), or standard errors that the fit does not offer.

    Notes
    -----
    Where the largest free weight is over twenty times the smallest, the axis is logarithmic away from 0; its label says
    so.
    Each weight is in utility per unit of its own feature, so lengths compare only between features of one unit. Held
    weights are hollow, without an interval, and in words only where they lie far outside the others; of weights
    without a finite standard error only the estimate is drawn.
    """
    stats = require("scipy.stats")
    level = float_vector("level", [level])[0]
    if not 0 < level < 1:
        raise InvalidInputError(f"`level` must lie between 0 and 1: got {level:g}; pass 0.95 for 95% intervals")
    error = model.standard_errors(kind)
    weight, names = np.asarray(model.coef_), list(model.feature_names_)
    half = stats.norm.ppf(0.5 + level / 2) * error
    place = np.arange(len(names))[::-1]
    ax = _axes(ax, size=(7.2, 0.42 * len(names) + 1.5))
    free = np.asarray(model.free_)
    sure = free & np.isfinite(half)
    ax.axvline(0.0, color=_INK, linewidth=0.8, zorder=1)
    ax.errorbar(weight[sure], place[sure], xerr=half[sure], fmt="o", color=_PALETTE[0], markersize=5.5, capsize=3.5,
                elinewidth=1.6, zorder=3)
    ax.plot(weight[free & ~sure], place[free & ~sure], "o", color=_PALETTE[0], markersize=5.5)
    size = np.abs(weight[free & (weight != 0)])
    near = ~free & (np.abs(weight) <= 2.0 * size.max(initial=0.0))
    ax.plot(weight[near], place[near], "o", color=_PALETTE[0], markerfacecolor="none", markersize=6.5)
    wide = size.size > 1 and size.max() > 20 * size.min()
    if wide:
        ax.set_xscale("symlog", linthresh=float(max(size.min(), size.max() / 100)))
        ticker = require("matplotlib.ticker")
        ax.xaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:g}".replace("-", "−")))
        ax.xaxis.set_minor_locator(ticker.NullLocator())
    for at, name, value, spread, is_free in zip(place, names, weight, half, free):
        text = _with_spread(value, spread) if is_free and np.isfinite(spread) else (
            f"{value:.3g} ({'no s.e.' if is_free else 'held'})".replace("-", "−"))
        ax.annotate(text, (1.02, at), xycoords=("axes fraction", "data"), va="center", fontsize=8.5, color=_INK,
                    annotation_clip=False)
    ax.set_yticks(place, names, fontsize=9.5, color=_INK)
    ax.set_ylim(-0.6, len(names) - 0.4)
    ax.set_xlabel(f"Weight in utility per unit of the feature, {100 * level:g}% intervals ({kind})"
                  + (",\nlogarithmic away from 0" if wide else ""), fontsize=9, color=_INK)
    tidy(ax, ("top", "right", "left"), grid="x")
    return ax


def plot_comparison(comparison, measures=None, axes=None):
    """Draw learners side by side: a panel a measure, a dot a fold, a bar at the mean.

    Parameters
    ----------
    comparison : LearnerComparison, from :func:`compare_learners`
    measures : sequence of column names, by default all that were measured
    axes : sequence of matplotlib Axes, one for each measure, optional; by default a new figure is made

    Returns
    -------
    list of matplotlib.axes.Axes

    Raises
    ------
    MissingExtraError
        Without matplotlib.
    InvalidInputError
        An unknown measure, no measure, axes of another number.

    Notes
    -----
    Learners stand in the order of the table, with the same colour in all panels. What is −inf (a held-out choice of
    probability 0) is written at the left edge, what was not measured as "–". An arrow says which end is better. Seconds
    are on a logarithmic axis.
    """
    table, folds = comparison.table, comparison.folds
    known = [name for name in table.columns if name != "learner"]
    measures = known if measures is None else [measures] if isinstance(measures, str) else list(measures)
    for name in measures:
        one_of("measures", name, tuple(known))
    if not measures or (axes is not None and len(list(axes)) != len(measures)):
        raise InvalidInputError(f"`axes` must be one for each of the {len(measures)} measures, of which there must be some: got "
                                f"{0 if axes is None else len(list(axes))}; leave it out, or pass as many")
    names = [str(name) for name in table["learner"]]
    place = {name: len(names) - 1 - i for i, name in enumerate(names)}
    if axes is None:
        columns = min(len(measures), 3)
        rows = -(-len(measures) // columns)
        _, grid = require("matplotlib.pyplot").subplots(rows, columns,
                                                        figsize=(3.6 * columns + 1.6, (0.3 * len(names) + 1.1) * rows),
                                                        layout="constrained", sharey=True, squeeze=False)
        axes = list(grid.ravel()[:len(measures)])
        for spare in grid.ravel()[len(measures):]:
            spare.set_visible(False)
    axes = list(axes)
    for ax, measure in zip(axes, measures):
        edge = ax.get_yaxis_transform()
        for name in names:
            color, at = _PALETTE[names.index(name) % len(_PALETTE)], place[name]
            values = [float(x) for x, of in zip(folds[measure], folds["learner"]) if of == name and x is not None]
            finite = [x for x in values if math.isfinite(x)]
            ax.plot(finite, [at] * len(finite), "o", color=color, alpha=0.55, markersize=5, markeredgewidth=0, zorder=3)
            if finite and len(finite) == len(values):
                ax.plot([np.mean(finite)], [at], "|", color=color, markersize=15, markeredgewidth=2.4, zorder=4)
            elif len(finite) < len(values):
                ax.text(0.01, at, f"−∞ in {len(values) - len(finite)} of {len(values)}", transform=edge, va="center", fontsize=8,
                        color=color)
            else:
                ax.text(0.01, at, "–", transform=edge, va="center", fontsize=9, color=color)
        better = "less is better" if measure in _LESS else "more is better"
        ax.set_title(measure, fontsize=10.5, color=_INK, loc="left")
        ax.set_xlabel({"seconds": "CPU seconds to fit (less is better)", "MB": "MB at the peak of a fit (less is better)"}.get(
            measure, better), fontsize=8.5, color=_INK)
        ax.set_yticks(list(place.values()), list(place), fontsize=9, color=_INK)
        ax.set_ylim(-0.6, len(names) - 0.4)
        if measure == "seconds" and all(x is None or x > 0 for x in folds[measure]):
            ax.set_xscale("log")
        tidy(ax, ("top", "right", "left"), grid="both")
    return axes


_LESS = ("feature gap", "occupancy distance", "value gap", "seconds", "MB")


def _with_spread(value, spread):
    """The value and its spread to two digits of the spread."""
    digits = min(max(1 - math.floor(math.log10(spread)), 0), 6) if spread > 0 else 3
    return f"{value:.{digits}f} ± {spread:.{digits}f}".replace("-", "−")


# --- geometry -------------------------------------------------------------------------------------


def _coordinates(net):
    if getattr(net, "coordinates", None) is None:
        raise InvalidInputError(
            "a map needs coordinates: this network has none; build it with from_links(links, nodes, ...) or pass "
            "coordinates= to from_arcs"
        )
    return net.coordinates


def _arc_ends(net):
    """(n_arcs, 4) ends of what an arc's passage travels: the link moved to, or the line between two nodes."""
    places = _coordinates(net)
    if places.shape[1] == 4:
        return places[net.head]
    return np.concatenate([places[net.tail], places[net.head]], axis=1)


def _streets(net):
    """Lines (m, 2, 2), one for each pair of end points, and the line of each arc, −1 where an end is unknown."""
    places = _coordinates(net)
    ends = _arc_ends(net)
    states = places if places.shape[1] == 4 else np.empty((0, 4))  # links into which no turn leads are streets too
    both = np.concatenate([ends, states])
    known = np.isfinite(both).all(axis=1)
    turned = (both[:, 0] > both[:, 2]) | ((both[:, 0] == both[:, 2]) & (both[:, 1] > both[:, 3]))
    both = np.where(turned[:, None], both[:, [2, 3, 0, 1]], both)
    if not known.any():
        raise InvalidInputError("a map needs coordinates: all of this network's are unknown; pass nodes with "
                                "coordinates")
    lines, code = np.unique(both[known], axis=0, return_inverse=True)
    street = np.full(len(both), -1)
    street[known] = code.reshape(-1)
    return lines.reshape(-1, 2, 2), street[:len(ends)]


def _route_line(net, route):
    """Points (m, 2) of a route, and its (origin, destination)."""
    labels = np.asarray(route.states if hasattr(route, "states") else route)
    index = net.state_index(labels.reshape(-1), "routes")
    places = _coordinates(net)
    if index.size == 0:
        raise InvalidInputError("a route must have at least one state: one is empty; leave it out")
    if places.shape[1] == 2:
        points = places[index]
    else:
        points = np.concatenate([places[index[:1], :2], places[index, 2:]])
    return points, (int(index[0]), int(index[-1]))


def _one_each(name, values, default):
    if values is None:
        return default
    values = list(values)
    if len(values) != len(default):
        raise InvalidInputError(
            f"`{name}` must have one entry for each route: got {len(values)} for {len(default)}; pass as many as "
            "routes")
    return values


# --- drawing --------------------------------------------------------------------------------------


def _draw_lines(ax, segments, **options):
    lines = require("matplotlib.collections").LineCollection(segments, **options)
    ax.add_collection(lines)
    return lines


def _norm(colors, scale, low, high):
    if scale == "log":
        low = max(low, high * 1e-4)
        return colors.LogNorm(low if low < high else high / 10, high)
    return colors.PowerNorm(0.5 if scale == "sqrt" else 1.0, 0.0, high)


def _default_cmap(mpl, colors):
    # the palest colours of the map would vanish on white
    return colors.LinearSegmentedColormap.from_list("flows", mpl.colormaps["inferno_r"](np.linspace(0.18, 0.95, 256)))


def _frame(ax, net, segments, attribution, scale_bar):
    """Limits, proportions, no ticks, scale bar and credits."""
    points = segments.reshape(-1, 2)
    low, high = points.min(axis=0), points.max(axis=0)
    pad = np.where(high > low, 0.02 * (high - low), 0.02 * max(float((high - low).max()), 1e-9))
    ax.set_xlim(low[0] - pad[0], high[0] + pad[0])
    ax.set_ylim(low[1] - pad[1], high[1] + pad[1])
    middle = math.radians(0.5 * (low[1] + high[1]))
    geographic = bool(net.report.get("geographic", False))
    ax.set_aspect(1.0 / max(math.cos(middle), 1e-3) if geographic else 1.0)
    ax.set_xticks([])
    ax.set_yticks([])
    for spine in ax.spines.values():
        spine.set_visible(False)
    if geographic and scale_bar:
        _scale_bar(ax, low, high, 111_320.0 * math.cos(middle))
    if attribution:
        ax.text(0.0, -0.005, attribution, transform=ax.transAxes, fontsize=6.5, color="#6b7280", va="top", ha="left")


def _scale_bar(ax, low, high, metres_per_degree):
    width = (high[0] - low[0]) * metres_per_degree
    if not width > 0:
        return
    power = 10.0 ** math.floor(math.log10(width / 4))
    metres = max(factor * power for factor in (1, 2, 5) if factor * power <= width / 4)
    text = f"{metres / 1000:g} km" if metres >= 1000 else f"{metres:g} m"
    share = metres / metres_per_degree / (ax.get_xlim()[1] - ax.get_xlim()[0])
    ax.plot([0.02, 0.02 + share], [0.03, 0.03], transform=ax.transAxes, color=_INK, linewidth=2.2,
            solid_capstyle="butt", zorder=6)
    ax.text(0.02 + share / 2, 0.037, text, transform=ax.transAxes, ha="center", va="bottom", fontsize=8, color=_INK,
            zorder=6)
