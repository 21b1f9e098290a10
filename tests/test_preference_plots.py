"""Charts of preferences draw the numbers that they were given."""

import numpy as np
import pytest

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
    ({}, {}, "empty dict"), ([1], {}, "list"), ({"a": [1, 2, 3]}, {}, "must be"), ({"a": ([1, 2], [[1.0, 2, 3]])}, {}, "one value for"),
    ({"a": ([1, 2], [[1.0, np.nan]])}, {}, "finite"), ({"a": ([1], [1])}, {"band": "sd"}, "`band`"),
    ({"a": ([1], [1])}, {"level": 1.0}, "`level`"), ({"a": ([1], [1])}, {"log": "z"}, "`log`"),
])
def test_wrong_curves_are_refused(curves, options, message):
    with pytest.raises(InvalidInputError, match=message):
        preference_plots.plot_curves(curves, **options)
