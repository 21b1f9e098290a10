"""What the maps and charts draw: as many lines as streets, flows in their places, nothing left open."""

import numpy as np
import pytest

import fastirl as fi
from fastirl.exceptions import InvalidInputError, MissingExtraError, NotFittedError

matplotlib = pytest.importorskip("matplotlib")
matplotlib.use("Agg")

from matplotlib import pyplot as plt  # noqa: E402
from matplotlib.collections import LineCollection  # noqa: E402

from fastirl import plotting  # noqa: E402

# a square of four two-way streets and a one-way diagonal, near latitude 60 where a degree east is half a degree north
NODES = {"node_id": [0, 1, 2, 3], "lon": [10.0, 10.02, 10.02, 10.0], "lat": [60.0, 60.0, 60.01, 60.01]}
LINKS = {"link_id": [10, 11, 20, 21, 30, 31, 40, 41, 50], "from_node": [0, 1, 1, 2, 2, 3, 3, 0, 0],
         "to_node": [1, 0, 2, 1, 3, 2, 0, 3, 2], "length_m": [1.1, 1.1, 1.1, 1.1, 1.1, 1.1, 1.1, 1.1, 1.6]}
N_STREETS = 5


@pytest.fixture
def net():
    return fi.RoadNetwork.from_links(LINKS, NODES, features=["length_m", "left_turn", "u_turn"])


@pytest.fixture
def model(net):
    # drawn from known weights, so that a fit identifies them
    utility = net.features @ np.array([-1.5, -0.5, -5.0])
    rng, states, actions = np.random.default_rng(7), [], []
    for origin, destination in ((10, 30), (50, 40), (41, 20), (20, 41), (30, 21)):
        ptr, arcs = fi.sample_routes(net, utility, origin, destination, 40, rng)
        for a, b in zip(ptr[:-1], ptr[1:]):
            states.append([origin, *net.state_ids[net.head[arcs[a:b]]]])
            actions.append(arcs[a:b])
    trips = fi.Trajectories.from_sequences(states, actions)
    return fi.MaxEntIRL(fi.LinearReward({"u_turn": -5.0})).fit(net, trips)


@pytest.fixture(autouse=True)
def _close():
    yield
    plt.close("all")


def collections(ax):
    return [item for item in ax.collections if isinstance(item, LineCollection)]


def saved(ax, tmp_path):
    path = tmp_path / "picture.png"
    ax.figure.savefig(path)
    assert path.stat().st_size > 1000


def test_a_network_is_drawn_with_one_line_a_street(net, tmp_path):
    ax = plotting.plot_network(net, attribution="© somebody")
    streets, = collections(ax)
    assert len(streets.get_segments()) == N_STREETS
    assert "© somebody" in [text.get_text() for text in ax.texts]
    saved(ax, tmp_path)


def test_degrees_are_stretched_by_latitude_and_planar_maps_are_not(net):
    ax = plotting.plot_network(net)
    np.testing.assert_allclose(ax.get_aspect(), 1 / np.cos(np.radians(60.005)), rtol=1e-9)
    assert any(text.get_text().endswith((" m", " km")) for text in ax.texts)
    planar = fi.RoadNetwork.from_arcs(2, [0], [1], np.ones((1, 1)), coordinates=[[0.0, 0.0], [3.0, 4.0]])
    ax = plotting.plot_network(planar)
    assert ax.get_aspect() == 1.0 and not ax.texts


def test_the_scale_bar_has_the_length_it_says(net):
    ax = plotting.plot_network(net)
    bar = next(line for line in ax.lines if line.get_transform() == ax.transAxes)
    number, unit = next(text.get_text() for text in ax.texts if text.get_text().endswith("m")).split()
    metres = float(number) * {"m": 1, "km": 1000}[unit]
    degrees = np.ptp(bar.get_xdata()) * np.ptp(ax.get_xlim())
    np.testing.assert_allclose(degrees * 111_320 * np.cos(np.radians(60.005)), metres, rtol=1e-9)


def test_flows_of_both_directions_are_one_line_with_their_sum(net, tmp_path):
    flows = np.zeros(net.n_arcs)
    into = {link: np.flatnonzero(net.state_ids[net.head] == link) for link in LINKS["link_id"]}
    flows[into[20][0]], flows[into[21][0]], flows[into[50][0]] = 3.0, 4.0, 2.0
    ax = plotting.plot_flows(net, flows)
    streets, flowing = collections(ax)
    assert len(streets.get_segments()) == N_STREETS
    np.testing.assert_allclose(flowing.get_array(), [2.0, 7.0], rtol=0)
    np.testing.assert_allclose(np.sort(flowing.get_segments()[1], axis=0), [[10.02, 60.0], [10.02, 60.01]])
    widths = flowing.get_linewidths()
    assert widths[0] < widths[1] == pytest.approx(5.0)
    saved(ax, tmp_path)


@pytest.mark.parametrize("scale, words", [
    ("sqrt", "square-root scale"), ("log", "logarithmic scale"), ("linear", "linear scale"),
])
def test_the_colour_bar_says_what_is_counted_and_on_which_scale(net, scale, words):
    flows = np.arange(1.0, net.n_arcs + 1)
    ax = plotting.plot_flows(net, flows, scale=scale, label="Trips a day")
    bar = ax.figure.axes[1]
    assert bar.get_ylabel() == f"Trips a day (both directions, {words})"
    assert len(plotting.plot_flows(net, flows, colorbar=False).figure.axes) == 1


def test_flows_on_given_axes_and_no_flow_at_all(net):
    figure, ax = plt.subplots()
    assert plotting.plot_flows(net, np.zeros(net.n_arcs), ax=ax) is ax
    assert len(figure.axes) == 1 and len(collections(ax)) == 1


def test_flows_on_a_node_based_network_are_those_of_its_links():
    net = fi.RoadNetwork.from_links(LINKS, NODES, features=["length_m"], turns="none")
    flows = np.where(net.arc_ids == 50, 5.0, 0.0)
    _, flowing = collections(plotting.plot_flows(net, flows))
    np.testing.assert_allclose(np.sort(flowing.get_segments()[0], axis=0), [[10.0, 60.0], [10.02, 60.01]])
    assert flowing.get_array() == [5.0]


def test_expected_flows_of_a_model_are_drawn_on_every_street_they_use(net, model):
    flows = model.expected_flows([10], [30], 1.0)
    _, flowing = collections(plotting.plot_flows(net, flows))
    np.testing.assert_allclose(flowing.get_array().sum(), flows.sum(), rtol=0.02)


@pytest.mark.parametrize("flows, message", [
    ([1.0], "`flows` must have"), (None, "`flows`"), ("-1.0", "must not be negative"), ("nan", "NaN"),
])
def test_wrong_flows_are_refused(net, flows, message):
    with pytest.raises(InvalidInputError, match=message):
        plotting.plot_flows(net, flows if flows is None or len(flows) == 1 else np.full(net.n_arcs, float(flows)))


def test_routes_observed_are_solid_and_predicted_are_dashed(net, model, tmp_path):
    trips = fi.Trajectories.from_sequences([[10, 20, 30]], ids=["a"])
    ax = plotting.plot_routes(net, [trips[0], model.predict_route(10, 30), [41, 31]], ["seen", "predicted", None])
    routes = [line for line in ax.lines if len(line.get_xdata()) > 2]
    assert [line.get_linestyle() for line in routes] == ["-", "--", "-"]
    assert routes[0].get_color() == routes[1].get_color() != routes[2].get_color()
    np.testing.assert_allclose(routes[0].get_xydata(), [[10.0, 60.0], [10.02, 60.0], [10.02, 60.01], [10.0, 60.01]])
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["seen", "predicted"]
    rings = [line for line in ax.lines if line.get_marker() == "o"]
    squares = [line for line in ax.lines if line.get_marker() == "s"]
    assert len(rings) == len(squares) == 2
    np.testing.assert_allclose(squares[0].get_xydata(), [[10.0, 60.01]])
    saved(ax, tmp_path)


@pytest.mark.parametrize("arguments, message", [
    (dict(routes=[]), "at least one route"),
    (dict(routes=[[10, 99]]), "99"),
    (dict(routes=[[]]), "at least one state"),
    (dict(routes=[[10]], labels=["a", "b"]), "`labels` must have one entry"),
    (dict(routes=[[10]], styles=["dotted"]), "`styles` must be one of"),
])
def test_wrong_routes_are_refused(net, arguments, message):
    with pytest.raises(InvalidInputError, match=message):
        plotting.plot_routes(net, **arguments)


def test_estimates_are_drawn_with_their_intervals(model, tmp_path):
    ax = plotting.plot_estimates(model)
    assert [text.get_text() for text in ax.get_yticklabels()] == ["length_m", "left_turn", "u_turn"]
    bars = [line for container in ax.containers for line in container.lines[2]]
    drawn = np.array([segment[:, 0] for segment in bars[0].get_segments()])
    free = model.free_
    half = 1.959963984540054 * model.standard_errors()[free]
    np.testing.assert_allclose(drawn, np.stack([model.coef_[free] - half, model.coef_[free] + half], axis=1), rtol=1e-9)
    assert any("held" in text.get_text() for text in ax.texts)
    assert "95% intervals (robust)" in ax.get_xlabel()
    saved(ax, tmp_path)
    with pytest.raises(InvalidInputError, match="`level`"):
        plotting.plot_estimates(model, level=1.5)
    with pytest.raises(NotFittedError):
        plotting.plot_estimates(fi.MaxEntIRL())


def test_a_network_without_coordinates_is_refused():
    net = fi.RoadNetwork.from_arcs(2, [0], [1], np.ones((1, 1)))
    for draw in (plotting.plot_network, lambda net: plotting.plot_flows(net, [1.0]),
                 lambda net: plotting.plot_routes(net, [[0, 1]])):
        with pytest.raises(InvalidInputError, match="coordinates"):
            draw(net)


def test_a_street_with_an_unknown_end_is_left_out():
    nodes = {name: values[:3] for name, values in NODES.items()}
    net = fi.RoadNetwork.from_links(LINKS, nodes, features=["length_m"])
    streets, = collections(plotting.plot_network(net))
    assert len(streets.get_segments()) == 3


def test_without_matplotlib_the_error_names_the_extra(net, monkeypatch):
    import sys

    for name in ("matplotlib", "matplotlib.pyplot", "matplotlib.collections"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingExtraError, match=r"fastirl\[plot\]"):
        plotting.plot_network(net)


def test_a_comparison_is_a_panel_a_measure_with_a_dot_a_fold():
    from fastirl.domains import gridworld

    plotting = pytest.importorskip("matplotlib") and __import__("fastirl.plotting", fromlist=["plot_comparison"])
    made = gridworld(3)
    trips = fi.sample_trajectories(made.mdp, None, 30, np.random.default_rng(0), horizon=6,
                                   initial_distribution=made.initial_distribution)
    result = fi.compare_learners({"sure": fi.BehaviorCloning(smoothing=0), "unsure": fi.BehaviorCloning()}, made.mdp, trips,
                                 rng=np.random.default_rng(0))
    axes = plotting.plot_comparison(result, ["log likelihood", "feature gap"])
    assert [ax.get_title(loc="left") for ax in axes] == ["log likelihood", "feature gap"]
    drawn = sorted(x for line in axes[0].lines if line.get_marker() == "o" for x in line.get_xdata())
    finite = sorted(float(x) for x in result.folds["log likelihood"] if np.isfinite(x))
    np.testing.assert_allclose(drawn, finite)
    assert any("of 3" in text.get_text() for text in axes[0].texts)  # a choice never seen has probability 0
    assert [label.get_text() for label in axes[0].get_yticklabels()] == ["sure", "unsure"]
    assert axes[1].get_xlabel() == "less is better" and len(plotting.plot_comparison(result)) == len(result.table.columns) - 1
    with pytest.raises(fi.InvalidInputError, match="measures"):
        plotting.plot_comparison(result, ["speed"])
    with pytest.raises(fi.InvalidInputError, match="axes"):
        plotting.plot_comparison(result, ["feature gap"], axes=list(axes))
