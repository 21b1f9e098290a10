"""Charts of preferences draw the numbers that they were given."""

import numpy as np
import pytest

import fastirl as fi
from fastirl.exceptions import InvalidInputError

matplotlib = pytest.importorskip("matplotlib")
matplotlib.use("Agg")

from matplotlib import pyplot as plt  # noqa: E402

from fastirl import preference_plots  # noqa: E402


@pytest.fixture(autouse=True)
def _close():
    yield
    plt.close("all")


def band_of(collection):
    points = collection.get_paths()[0].vertices
    return {x: (points[points[:, 0] == x, 1].min(), points[points[:, 0] == x, 1].max()) for x in np.unique(points[:, 0])}


def test_a_curve_is_the_mean_of_its_runs_with_the_interval_of_that_mean(tmp_path):
    rng = np.random.default_rng(0)
    x, runs = np.arange(5.0), rng.normal(size=(12, 5))
    ax = preference_plots.plot_curves({"a": (x, runs), "one run": (x, runs[0])}, level=0.95, xlabel="duels", ylabel="regret",
                                      reference={"none": 0.0})
    np.testing.assert_allclose(ax.lines[0].get_ydata(), runs.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(ax.lines[1].get_ydata(), runs[0], rtol=1e-12)
    half = 1.959963984540054 * runs.std(axis=0, ddof=1) / np.sqrt(12)
    band, = ax.collections
    for place, (low, high) in band_of(band).items():
        np.testing.assert_allclose([low, high], runs[:, int(place)].mean() + np.array([-1, 1]) * half[int(place)], rtol=1e-9)
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["a", "one run", "none"]
    assert "95% interval of the mean" in ax.get_legend().get_title().get_text()
    ax.figure.savefig(tmp_path / "curves.png")


def test_a_band_of_quantiles_holds_the_middle_of_the_runs():
    runs = np.arange(101.0)[:, None] * np.ones(3)
    ax = preference_plots.plot_curves({"a": (np.arange(3), runs)}, band="quantile", level=0.8)
    np.testing.assert_allclose(list(band_of(ax.collections[0]).values()), [(10.0, 90.0)] * 3, rtol=1e-12)
    assert not preference_plots.plot_curves({"a": (np.arange(3), runs)}, band="none").collections


@pytest.mark.parametrize("curves, options, message", [
    ({}, {}, "empty dict"), ([1], {}, "list"), ({"a": [1, 2, 3]}, {}, "must be"),
    ({"a": ([1, 2], [[1.0, 2, 3]])}, {}, "one value for"),
    ({"a": ([1, 2], [[1.0, np.nan]])}, {}, "finite"), ({"a": ([1], [1])}, {"band": "sd"}, "`band`"),
    ({"a": ([1], [1])}, {"level": 1.0}, "`level`"), ({"a": ([1], [1])}, {"log": "z"}, "`log`"),
])
def test_wrong_curves_are_refused(curves, options, message):
    with pytest.raises(InvalidInputError, match=message):
        preference_plots.plot_curves(curves, **options)


# --- strengths, matrices, regret ------------------------------------------------------------------------

NAMES = list("abcdefgh")


def votes(n_items=5, n_votes=80):
    rng = np.random.default_rng(3)
    utility = -0.5 * np.arange(n_items) + rng.gumbel(size=(n_votes, n_items))
    return fi.Rankings.from_arrays(np.array(NAMES[:n_items])[np.argsort(-utility, axis=1)])


def test_strengths_are_drawn_from_the_strongest_down_with_their_intervals(tmp_path):
    fit = fi.plackett_luce(votes())
    ax = preference_plots.plot_strengths(fit, kind="robust")
    order = np.argsort(-fit.strength)
    assert [text.get_text() for text in ax.get_yticklabels()] == [fit.labels[at] for at in order]
    assert (np.diff(ax.get_yticks()) < 0).all()
    drawn = np.array([segment[:, 0] for container in ax.containers for segment in container.lines[2][0].get_segments()])
    half = 1.959963984540054 * fit.standard_errors("robust")[order]
    np.testing.assert_allclose(drawn, np.stack([fit.strength[order] - half, fit.strength[order] + half], axis=1), rtol=1e-9)
    assert "95% intervals (robust)" in ax.get_xlabel()
    ax.figure.savefig(tmp_path / "strengths.png")
    with pytest.raises(InvalidInputError, match="`level`"):
        preference_plots.plot_strengths(fit, level=1)


def test_of_many_items_the_ends_are_drawn_and_the_rest_is_counted():
    ax = preference_plots.plot_strengths(fi.plackett_luce(votes(8)), most=5)
    names = [text.get_text() for text in ax.get_yticklabels()]
    assert len(names) == 6 and names[3] == "… 3 more" and set(names) - {names[3]} <= set(NAMES)
    assert len(set(ax.get_yticks())) == 6


def test_the_win_matrix_shows_shares_in_order_of_copeland(tmp_path):
    c = fi.PairwiseMatrix.from_probabilities([[0.5, 0.2, 0.6], [0.8, 0.5, 1.0], [0.4, 0.0, 0.5]], ["x", "y", "z"])
    ax = preference_plots.plot_win_matrix(c)
    image, = ax.images
    assert [text.get_text() for text in ax.get_yticklabels()] == ["y", "x", "z"]
    np.testing.assert_allclose(image.get_array().filled(-1), [[-1, 0.8, 1.0], [0.2, -1, 0.6], [0, 0.4, -1]])
    assert [text.get_text() for text in ax.texts] == [".80", "1", ".20", ".60", ".00", ".40"]
    ax.figure.savefig(tmp_path / "wins.png")
    ax = preference_plots.plot_win_matrix(c, order=["z", "y", "x"], annotate=False, colorbar=False)
    assert ax.images[0].get_array()[0, 2] == 0.4 and not ax.texts and len(ax.figure.axes) == 1
    assert preference_plots.plot_win_matrix(votes(), order="given").images[0].get_array().shape == (5, 5)


def test_unobserved_cells_are_blank_or_refused():
    c = fi.Comparisons.from_winners(["a", "b"], ["b", "c"])
    with pytest.raises(InvalidInputError, match="'a' and 'c' were not compared"):
        preference_plots.plot_win_matrix(c)
    drawn = preference_plots.plot_win_matrix(c, unobserved="tie").images[0].get_array()
    assert np.ma.getmaskarray(drawn)[0, 2] and np.ma.getmaskarray(drawn).sum() == 5
    with pytest.raises(InvalidInputError, match="`order`"):
        preference_plots.plot_win_matrix(c, order=["a", "b"], unobserved="tie")
    with pytest.raises(InvalidInputError, match="200 items"):
        preference_plots.plot_win_matrix(fi.Comparisons.from_winners([0], [1], labels=range(300)), unobserved="tie")


def test_regret_curves_are_those_of_the_simulation(tmp_path):
    p = [[0.5, 0.7, 0.8], [0.3, 0.5, 0.6], [0.2, 0.4, 0.5]]
    found = fi.simulate_duels({"random": fi.RandomDuels, "RUCB": fi.RUCB}, p, 300, 3, np.random.default_rng(0), n_points=20)
    ax = preference_plots.plot_regret(found, "borda")
    np.testing.assert_allclose(ax.lines[0].get_ydata(), found.regret["borda"]["random"].mean(axis=0))
    np.testing.assert_array_equal(ax.lines[1].get_xdata(), found.times)
    assert ax.get_ylabel() == "Cumulative Borda regret"
    ax.figure.savefig(tmp_path / "regret.png")
