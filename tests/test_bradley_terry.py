"""Bradley-Terry: published estimates, laws, certificates, errors, and data without a maximum."""

import json
import warnings

import numpy as np
import pytest
from scipy import optimize, sparse
from scipy.special import expit, log_expit

import real_data
from fastirl import (
    BradleyTerryResult, Comparisons, ConvergenceWarning, InvalidInputError, NoFiniteOptimumError, SeparationError,
    bootstrap_strengths, bradley_terry,
)
from fastirl import _comparisons as kernels
from fastirl import _comparisons_reference as twin
from fastirl import _laplacian
from fastirl._pair_likelihood import davidson_derivatives, half_derivatives, rao_kupper_derivatives

METHODS = ("dense", "direct", "iterative")


def random_comparisons(n_items=12, n=600, seed=0, scale=1.0, ties=0.0, cluster=None):
    rng = np.random.default_rng(seed)
    truth = scale * rng.standard_normal(n_items)
    first = rng.integers(n_items, size=n)
    second = (first + rng.integers(1, n_items, n)) % n_items
    outcome = (rng.random(n) < 1 / (1 + np.exp(truth[second] - truth[first]))).astype(float)
    outcome[rng.random(n) < ties] = 0.5
    return Comparisons.from_pairs(first, second, outcome, labels=range(n_items), cluster=cluster)


def ladder(n_items, per_pair, seed=1, reach=3):
    rng = np.random.default_rng(seed)
    first = np.repeat(np.arange(n_items - reach), reach)
    second = first + np.tile(np.arange(1, reach + 1), n_items - reach)
    wins = rng.binomial(per_pair - 2, 0.5, len(first)) + 1
    return Comparisons.from_pairs(np.tile(first, 2), np.tile(second, 2), np.repeat([1.0, 0.0], len(first)),
                                  weight=np.concatenate([wins, per_pair - wins]))


def same_fit(a, b, tol=1e-7):
    np.testing.assert_allclose(a.strength, b.strength, atol=tol)
    np.testing.assert_allclose(a.std_error, b.std_error, rtol=1e-6)


# -------------------------------------------------------------------- published estimates


def ranking(name):
    folder = real_data.need("ranking") / name
    if not folder.exists():
        pytest.skip(f"the data folder has no ranking/{name}")
    return folder


def columns(path):
    header, *rows = [line.split(",") for line in path.read_text().split("\n") if line]
    return {name: [row[k] for row in rows] for k, name in enumerate(header)}


def baseball():
    table = columns(ranking("baseball") / "games.csv")
    home, away = table["home_team"], table["away_team"]
    weight = np.array(table["home_wins"] + table["away_wins"], dtype=float)
    return Comparisons.from_pairs(home * 2, away * 2, np.repeat([1.0, 0.0], len(home)), weight=weight)


def test_baseball_without_home_advantage():
    # Agresti (2002), table 10.11, and its recomputation to four digits
    fit = bradley_terry(baseball(), fixed={"Baltimore": 0})
    teams = ["Cleveland", "Boston", "New York", "Toronto", "Detroit", "Milwaukee"]
    at = fit.source.comparisons.index(teams)
    np.testing.assert_allclose(fit.strength[at], [0.6839, 1.1077, 1.2476, 1.2945, 1.4364, 1.5814], atol=5e-5)
    np.testing.assert_allclose(fit.std_error[at], [0.3319, 0.3339, 0.3359, 0.3367, 0.3396, 0.3433], atol=5e-5)


def test_baseball_with_home_advantage():
    fit = bradley_terry(baseball(), home=True)
    ability = np.exp(fit.strength) / np.exp(fit.strength).sum()
    teams = ["Baltimore", "Cleveland", "Boston", "New York", "Toronto", "Detroit", "Milwaukee"]
    at = fit.source.comparisons.index(teams)
    np.testing.assert_allclose(ability[at], [0.044, 0.088, 0.137, 0.157, 0.164, 0.190, 0.220], atol=5e-4)
    assert fit.home == pytest.approx(0.3023, abs=5e-5)
    assert fit.parameter_errors()["home"] == pytest.approx(0.1309, abs=5e-5)


def test_citations():
    # Turner, Firth (2012), JSS 48(9): the row is cited, which is a win over the column
    lines = [line.split(",") for line in (ranking("citations4") / "cited_by_citing.csv").read_text().split("\n") if line]
    wins = np.array([line[1:] for line in lines[1:]], dtype=float)
    np.fill_diagonal(wins, 0)
    fit = bradley_terry(Comparisons.from_matrix(wins, labels=lines[0][1:]), fixed={"Biometrika": 0})
    np.testing.assert_allclose(fit.strength, [0, -2.9491, -0.4796, 0.2690], atol=5e-5)
    np.testing.assert_allclose(fit.std_error, [0, 0.1025, 0.0606, 0.0708], atol=5e-5)
    total = wins + wins.T
    with np.errstate(divide="ignore", invalid="ignore"):
        saturated = np.nansum(wins * np.log(wins / total))
    assert 2 * (saturated - fit.log_likelihood) == pytest.approx(4.293, abs=5e-4)


def pudding():
    table = {name: np.array(values, dtype=float) for name, values in columns(ranking("pudding") / "pairs.csv").items()}
    first, second = table["i"].astype(int), table["j"].astype(int)
    return Comparisons.from_pairs(np.tile(first, 3), np.tile(second, 3), np.repeat([1, 0, 0.5], len(first)),
                                  weight=np.concatenate([table["w_ij"], table["w_ji"], table["t_ij"]]))


def test_pudding_by_davidson():
    fit = bradley_terry(pudding(), ties="davidson", fixed={1: 0})
    worth = np.exp(fit.strength) / np.exp(fit.strength).sum()
    np.testing.assert_allclose(worth, [0.1388, 0.1730, 0.1617, 0.1654, 0.1587, 0.2024], atol=6e-5)
    np.testing.assert_allclose(fit.std_error[1:], [0.1872, 0.1935, 0.1882, 0.1927, 0.1924], atol=6e-5)
    assert fit.tie_parameters[2] == pytest.approx(0.7468230, abs=1e-6)
    assert fit.log_likelihood == pytest.approx(-809.709510, abs=1e-6)
    assert fit.parameter_errors()["log nu"] == pytest.approx(0.0825, abs=6e-5)


def test_pudding_by_rao_kupper():
    fit = bradley_terry(pudding(), ties="rao_kupper")
    worth = np.exp(fit.strength) / np.exp(fit.strength).sum()
    np.testing.assert_allclose(worth, [0.1444, 0.1718, 0.1628, 0.1661, 0.1604, 0.1945], atol=6e-5)
    assert fit.tie_parameters[2] == pytest.approx(1.748457, abs=1e-6)
    assert fit.log_likelihood == pytest.approx(-809.697133, abs=1e-6)


@pytest.mark.parametrize("case", [1, 2])
def test_pairwise_cases_of_choix(case):
    data = json.loads((ranking("choix_testcases") / f"testcase-pairwise-{case}.json").read_text())
    winner, loser = np.array(data["data"]).T
    fit = bradley_terry(Comparisons.from_winners(winner, loser, labels=range(data["n_items"])))
    expected = np.array(data["ml_est"])
    np.testing.assert_allclose(fit.strength, expected - expected.mean(), atol=1e-8)


def test_chess_is_a_cycle_of_three():
    c = Comparisons.from_matrix([[0, 22, 8], [13, 0, 23], [10, 12, 0]], labels=["Topalov", "Anand", "Karpov"])
    fit = bradley_terry(c)
    worth = np.exp(fit.strength) / np.exp(fit.strength).sum()
    np.testing.assert_allclose(worth, [0.4036108, 0.3405168, 0.2558723], atol=1e-6)
    assert fit.log_likelihood == pytest.approx(-60.061739, abs=1e-6)


# -------------------------------------------------------------------- oracles


def test_two_items_have_a_closed_form():
    fit = bradley_terry(Comparisons.from_matrix([[0, 30], [10, 0]], labels=["a", "b"]))
    assert fit.contrast("a", "b").estimate == pytest.approx(np.log(3), abs=1e-6 * (1 / 30 + 1 / 10) ** 0.5)
    assert fit.contrast("a", "b").std_error == pytest.approx((1 / 30 + 1 / 10) ** 0.5, rel=1e-6)
    np.testing.assert_allclose(fit.std_error, (1 / 30 + 1 / 10) ** 0.5 / 2, rtol=1e-6)
    assert fit.probability("a", "b") == pytest.approx(0.75)


def test_a_tree_of_pairs_has_a_closed_form():
    wins = {(0, 1): (3, 4), (0, 2): (5, 1), (2, 3): (2, 9), (2, 4): (7, 7)}
    c = Comparisons.from_pairs([i for i, _ in wins] * 2, [j for _, j in wins] * 2, [1] * 4 + [0] * 4,
                               weight=[u for u, _ in wins.values()] + [v for _, v in wins.values()])
    fit = bradley_terry(c)
    for (i, j), (u, v) in wins.items():
        assert fit.contrast(i, j).estimate == pytest.approx(np.log(u / v), abs=1e-6 * (1 / u + 1 / v) ** 0.5)
        assert fit.contrast(i, j).std_error == pytest.approx((1 / u + 1 / v) ** 0.5, rel=1e-6)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("make", [random_comparisons, lambda: ladder(40, 10)])
def test_every_method_finds_the_maximum_of_the_slow_twin(method, make):
    c = make()
    p = c.pairs()
    strength, covariance = twin.fit(p.first, p.second, p.wins_first, p.wins_second, c.n_items)
    fit = bradley_terry(c, method=method)
    assert fit.converged and fit.method == method and fit.score_residual <= 1e-8 and fit.decrement <= 1e-6
    np.testing.assert_allclose(fit.strength, strength, atol=1e-7)
    np.testing.assert_allclose(fit.std_error, np.sqrt(np.diag(covariance)), rtol=1e-5)
    np.testing.assert_allclose(fit.covariance(), covariance, atol=1e-6 * covariance.max())
    assert fit.contrast(0, 7).std_error == pytest.approx(
        (covariance[0, 0] + covariance[7, 7] - 2 * covariance[0, 7]) ** 0.5, rel=1e-6)


def test_a_general_optimizer_finds_no_better_point():
    c = random_comparisons(6, 80, seed=4, ties=0.2)
    fit = bradley_terry(c)

    def loss(r):
        eta = r[c.first] - r[c.second]
        return -(c.outcome * log_expit(eta) + (1 - c.outcome) * log_expit(-eta)).sum()

    found = optimize.minimize(loss, np.zeros(6), method="BFGS", options={"gtol": 1e-8})
    np.testing.assert_allclose(fit.strength, found.x - found.x.mean(), atol=1e-6)
    assert fit.log_likelihood == pytest.approx(-found.fun, abs=1e-9)


@pytest.mark.parametrize("rule, parameter", [(davidson_derivatives, -0.3), (rao_kupper_derivatives, 0.4)])
def test_derivatives_of_ties_equal_differences(rule, parameter):
    cells = random_comparisons(8, 50, ties=0.3).pairs()
    eta = np.random.default_rng(2).normal(0, 2, len(cells))
    step = 1e-5

    def value(d_eta, d_parameter):
        return rule(eta + d_eta, parameter + d_parameter, cells)[0]

    _, by_eta, twice, by_tie, mixed, twice_tie = rule(eta, parameter, cells)
    np.testing.assert_allclose(by_eta, (value(step, 0) - value(-step, 0)) / (2 * step), atol=1e-7)
    np.testing.assert_allclose(by_tie, (value(0, step) - value(0, -step)) / (2 * step), atol=1e-7)

    def slopes(d_eta, d_parameter, which):
        return rule(eta + d_eta, parameter + d_parameter, cells)[which]

    np.testing.assert_allclose(twice, -(slopes(step, 0, 1) - slopes(-step, 0, 1)) / (2 * step), atol=1e-7)
    np.testing.assert_allclose(mixed, -(slopes(step, 0, 3) - slopes(-step, 0, 3)) / (2 * step), atol=1e-7)
    np.testing.assert_allclose(twice_tie, -(slopes(0, step, 3) - slopes(0, -step, 3)) / (2 * step), atol=1e-7)


@pytest.mark.parametrize("ties", ["davidson", "rao_kupper"])
def test_probabilities_of_the_three_outcomes_sum_to_one(ties):
    fit = bradley_terry(random_comparisons(8, 300, ties=0.3), ties=ties)
    i, j = np.array([0, 3, 5]), np.array([1, 7, 2])
    np.testing.assert_allclose(fit.probability(i, j) + fit.probability(j, i) + fit.tie_probability(i, j), 1, rtol=1e-12)


def test_davidson_matches_its_sufficient_statistics():
    c = random_comparisons(8, 300, seed=3, ties=0.3)
    fit = bradley_terry(c, ties="davidson")
    p = c.pairs()
    tie = fit.tie_probability(p.first, p.second)
    assert (p.weight * tie).sum() == pytest.approx(p.ties.sum(), abs=1e-6)
    expected = p.weight * (fit.probability(p.first, p.second) + tie / 2)
    score = np.bincount(p.first, p.wins_first - expected, 8) - np.bincount(p.second, p.wins_first - expected, 8)
    np.testing.assert_allclose(score, 0, atol=1e-6)


# -------------------------------------------------------------------- laws


def test_relabelling_relabels_strengths():
    c = random_comparisons()
    names = np.array([f"item {k}" for k in np.random.default_rng(5).permutation(12)])
    a, b = bradley_terry(c), bradley_terry(Comparisons.from_pairs(names[c.first], names[c.second], c.outcome))
    at = b.source.comparisons.index(names)
    np.testing.assert_allclose(b.strength[at], a.strength, atol=1e-8)
    np.testing.assert_allclose(b.std_error[at], a.std_error, rtol=1e-6)


@pytest.mark.parametrize("ties", ["half", "davidson", "rao_kupper"])
def test_flipping_all_outcomes_reverses_strengths(ties):
    c = random_comparisons(ties=0.2)
    a, b = bradley_terry(c, ties), bradley_terry(c.flipped(), ties)
    np.testing.assert_allclose(a.strength, -b.strength, atol=1e-8)
    assert a.log_likelihood == pytest.approx(b.log_likelihood)


def test_exchanging_who_is_named_first_exchanges_nothing_but_home():
    c = random_comparisons()
    turned = Comparisons.from_pairs(c.second, c.first, 1 - c.outcome)
    same_fit(bradley_terry(c), bradley_terry(turned))
    a, b = bradley_terry(c, home=True), bradley_terry(turned, home=True)
    same_fit(a, b)
    assert a.home == pytest.approx(-b.home, abs=1e-8)


def test_a_tie_is_two_half_wins_and_a_soft_label_its_shares():
    first, second = [0, 1, 2, 0, 1], [1, 2, 0, 2, 0]
    outcome = np.array([0.5, 0.5, 0.25, 1, 0.9])
    whole = Comparisons.from_pairs(first, second, outcome)
    parts = Comparisons.from_pairs(first * 2, second * 2, [1] * 5 + [0] * 5, weight=np.concatenate([outcome, 1 - outcome]))
    same_fit(bradley_terry(whole), bradley_terry(parts))


def test_duplicates_are_weights():
    c = random_comparisons(n=100, n_items=5)
    weight = np.random.default_rng(1).integers(0, 4, 100)
    rows = np.repeat(np.arange(100), weight)
    a = bradley_terry(Comparisons.from_pairs(c.first, c.second, c.outcome, weight=weight))
    b = bradley_terry(c.subset(rows=rows))
    same_fit(a, b)
    np.testing.assert_allclose(a.standard_errors("robust"), b.standard_errors("robust"), rtol=1e-7)


@pytest.mark.parametrize("ties, bare", [("davidson", 0.0), ("rao_kupper", 1.0)])
def test_without_ties_their_rules_are_bradley_terry(ties, bare):
    c = random_comparisons()
    fit = bradley_terry(c, ties)
    same_fit(fit, bradley_terry(c))
    assert fit.tie_parameters[2] == bare and fit.tie_probability(0, 1) == 0


def test_few_ties_come_close_to_none():
    c = random_comparisons(n=2000)
    more = Comparisons.from_pairs(np.append(c.first, 0), np.append(c.second, 1), np.append(c.outcome, 0.5),
                                  weight=np.append(np.ones(2000), 1e-6))
    for ties in ("davidson", "rao_kupper"):
        np.testing.assert_allclose(bradley_terry(more, ties).strength, bradley_terry(c).strength, atol=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_an_unrelated_component_changes_nothing(method):
    a, b = random_comparisons(10, 300, seed=1), random_comparisons(25, 900, seed=2)
    both = Comparisons.from_pairs(np.append(a.first, b.first + 10), np.append(a.second, b.second + 10),
                                  np.append(a.outcome, b.outcome))
    fit, alone = bradley_terry(both, components="each", method=method), bradley_terry(a)
    assert fit.n_components == 2
    np.testing.assert_allclose(fit.strength[:10], alone.strength, atol=1e-7)
    np.testing.assert_allclose(fit.std_error[:10], alone.std_error, rtol=1e-5)
    with pytest.raises(InvalidInputError, match="one component"):
        fit.contrast(0, 20)


def test_strengths_relative_to_a_held_item_are_contrasts():
    c = random_comparisons()
    free, held = bradley_terry(c), bradley_terry(c, fixed={3: 1.5})
    np.testing.assert_allclose(held.strength - 1.5, free.strength - free.strength[3], atol=1e-7)
    for i in (0, 8):
        assert held.std_error[i] == pytest.approx(free.contrast(i, 3).std_error, rel=1e-6)
    assert held.std_error[3] == 0 and held.strength[3] == 1.5


@pytest.mark.parametrize("method", METHODS)
def test_two_held_items_hold_both_methods_to_the_same_point(method):
    fit = bradley_terry(random_comparisons(), fixed={3: 1.0, 4: -1.0}, method=method)
    assert fit.strength[3] == 1 and fit.strength[4] == -1 and fit.converged
    np.testing.assert_allclose(fit.strength, bradley_terry(random_comparisons(), fixed={3: 1.0, 4: -1.0}).strength, atol=1e-7)


def test_features_of_one_hot_items_are_strengths():
    c = random_comparisons()
    free = bradley_terry(c)
    fit = bradley_terry(c, features=np.eye(12)[:, 1:])
    np.testing.assert_allclose(fit.strength, free.strength - free.strength[0], atol=1e-7)
    held = bradley_terry(c, fixed={0: 0})
    np.testing.assert_allclose(list(fit.parameter_errors().values()), held.std_error[1:], rtol=1e-6)
    np.testing.assert_allclose(fit.standard_errors("robust"), held.standard_errors("robust"), rtol=1e-6)
    sparse_fit = bradley_terry(c, features=sparse.csr_array(np.eye(12)[:, 1:]))
    np.testing.assert_allclose(sparse_fit.strength, fit.strength, atol=1e-9)
    np.testing.assert_allclose(sparse_fit.std_error, fit.std_error, rtol=1e-9)


def test_a_constant_contest_feature_is_home():
    c = random_comparisons(ties=0.2)
    for ties in ("half", "davidson"):
        a = bradley_terry(c, ties, home=True)
        b = bradley_terry(c, ties, contest_features=np.ones((600, 1)), contest_names=["at home"])
        assert a.home == pytest.approx(b.contest_coef["at home"], abs=1e-7)
        same_fit(a, b)
        for kind in ("hessian", "robust"):
            assert a.parameter_errors(kind)["home"] == pytest.approx(b.parameter_errors(kind)["at home"], rel=1e-6)
        assert a.probability(0, 1) == pytest.approx(b.probability(0, 1, contest_features=[[1.0]]))
        assert a.probability(0, 1, neutral=True) == pytest.approx(b.probability(0, 1, contest_features=[[0.0]]))


def test_a_wide_prior_is_none_and_a_narrow_one_is_all():
    c = random_comparisons()
    np.testing.assert_allclose(bradley_terry(c, prior_std=1e4).strength, bradley_terry(c).strength, atol=1e-5)
    assert np.abs(bradley_terry(c, prior_std=1e-4).strength).max() < 1e-5


@pytest.mark.parametrize("method", METHODS)
def test_ghost_games_are_games_against_a_held_item(method):
    c = random_comparisons(8, 60)
    ghost = Comparisons.from_pairs(np.append(c.first, np.arange(8)), np.append(c.second, np.full(8, 8)),
                                   np.append(c.outcome, np.full(8, 0.5)), weight=np.append(np.ones(60), np.full(8, 3.0)))
    a = bradley_terry(c, ghost_games=3, method=method)
    b = bradley_terry(ghost, fixed={8: 0})
    np.testing.assert_allclose(a.strength, b.strength[:8], atol=1e-7)
    np.testing.assert_allclose(a.std_error, b.std_error[:8], rtol=1e-5)


# -------------------------------------------------------------------- certificates and errors


def test_a_long_ladder_is_solved_and_its_certificate_kept():
    c = ladder(200, 20)
    fit = bradley_terry(c)
    p = c.pairs()
    eta = fit.strength[p.first] - fit.strength[p.second]
    a = p.wins_first - p.weight / (1 + np.exp(-eta))
    score = np.bincount(p.first, a, 200) - np.bincount(p.second, a, 200)
    games = np.bincount(p.first, p.weight, 200) + np.bincount(p.second, p.weight, 200)
    assert (np.abs(score) <= 1e-8 * games).all()
    np.testing.assert_allclose(fit.strength, bradley_terry(c, method="dense").strength, atol=1e-6)


def test_too_few_iterations_are_a_warning_and_a_flag():
    with pytest.warns(ConvergenceWarning, match="max_iter"):
        fit = bradley_terry(random_comparisons(scale=2.0), max_iter=1)
    assert not fit.converged and "NOT converged" in str(fit)


def test_probed_errors_come_with_an_error_that_holds():
    c = random_comparisons(700, 20_000, seed=6)
    fit = bradley_terry(c, method="iterative")
    pattern = fit.source.pattern
    solver = _laplacian.IterativeSolver(pattern, fit.source.found["curvature"], None)
    found, error = solver.diagonal(np.random.default_rng(0))
    exact = bradley_terry(c, method="dense").std_error
    assert 0 < error < 0.05
    assert np.sqrt(np.mean((np.sqrt(found) / exact - 1) ** 2)) < 1.5 * error


def test_errors_of_loosely_connected_items_hold_too(monkeypatch):
    # a grid of 40 × 50: probes vary far too much there
    grid = np.arange(2000).reshape(40, 50)
    first = np.append(grid[:, :-1].ravel(), grid[:-1].ravel())
    second = np.append(grid[:, 1:].ravel(), grid[1:].ravel())
    wins = np.random.default_rng(3).integers(1, 5, len(first))
    c = Comparisons.from_pairs(np.append(first, second), np.append(second, first), np.ones(2 * len(first)),
                               weight=np.append(wins, 5 - wins))
    exact = bradley_terry(c, method="direct").std_error
    found = bradley_terry(c, method="iterative")
    np.testing.assert_allclose(found.std_error, exact, rtol=1e-5)
    assert found.std_error_accuracy() == 0
    monkeypatch.setattr(_laplacian, "LOOSE", 0.0)
    drawn = bradley_terry(c, method="iterative")
    assert drawn.std_error_accuracy() == pytest.approx(0.05)
    off = drawn.std_error / exact - 1
    assert np.sqrt(np.mean(off**2)) < 0.075 and np.abs(off).max() < 0.3


def test_robust_and_clustered_errors_by_definition():
    rng = np.random.default_rng(8)
    c = random_comparisons(6, 200, seed=7, cluster=rng.integers(20, size=200))
    fit = bradley_terry(c)
    inverse = fit.covariance()
    design = np.zeros((200, 6))
    design[np.arange(200), c.first], design[np.arange(200), c.second] = 1, -1
    score = design * (c.outcome - fit.probability(c.first, c.second))[:, None]
    np.testing.assert_allclose(fit.covariance("robust"), inverse @ score.T @ score @ inverse, atol=1e-10)
    sums = np.array([score[c.cluster == g].sum(axis=0) for g in range(20)])
    np.testing.assert_allclose(fit.covariance("clustered"), 20 / 19 * inverse @ sums.T @ sums @ inverse, atol=1e-10)
    np.testing.assert_allclose(fit.standard_errors("clustered") ** 2, np.diag(fit.covariance("clustered")), rtol=1e-8)


def test_each_comparison_its_own_cluster_is_robust():
    c = random_comparisons(6, 200, cluster=np.arange(200))
    fit = bradley_terry(c, ties="half", home=True)
    np.testing.assert_allclose(fit.standard_errors("clustered"), fit.standard_errors("robust") * (200 / 199) ** 0.5, rtol=1e-8)
    robust, clustered = fit.parameter_errors("robust"), fit.parameter_errors("clustered")
    assert clustered["home"] == pytest.approx(robust["home"] * (200 / 199) ** 0.5, rel=1e-8)


def test_simultaneous_intervals_are_wider_and_ordered():
    fit = bradley_terry(random_comparisons())
    one, draws, sidak, bonferroni = (fit.intervals(0.9, how) for how in (False, "draws", "sidak", "bonferroni"))
    assert one.quantile < draws.quantile <= sidak.quantile + 0.02 and sidak.quantile <= bonferroni.quantile
    np.testing.assert_allclose(one.upper - one.estimate, 1.6448536 * fit.std_error, rtol=1e-6)
    table = fit.rank_sets(0.9)
    assert (table["best"] <= table["rank"]).all() and (table["rank"] <= table["worst"]).all()


def test_rank_sets_by_comparing_all_intervals():
    fit = bradley_terry(random_comparisons(scale=2.0))
    i, table = fit.intervals(0.95, True), fit.rank_sets(0.95)
    for row in range(12):
        k = int(table["item"][row])
        assert table["best"][row] == 1 + sum(i.lower > i.upper[k])
        assert table["worst"][row] == 12 - sum(i.upper < i.lower[k])


def test_coverage_of_pointwise_and_simultaneous_intervals():
    # 400 simulations: a rate of 95% lies within ±3.3% with probability 0.998
    rng = np.random.default_rng(11)
    truth = np.array([0.8, 0.3, 0.0, -0.4, -0.7])
    first, second = np.triu_indices(5, 1)
    p = 1 / (1 + np.exp(truth[second] - truth[first]))
    pointwise, simultaneous = 0, 0
    for _ in range(400):
        u = rng.binomial(40, p)
        c = Comparisons.from_pairs(np.tile(first, 2), np.tile(second, 2), np.repeat([1, 0], 10), weight=np.append(u, 40 - u))
        fit = bradley_terry(c)
        one, all_ = fit.intervals(), fit.intervals(simultaneous="sidak")
        pointwise += one.lower[0] <= truth[0] <= one.upper[0]
        simultaneous += bool(((all_.lower <= truth) & (truth <= all_.upper)).all())
    assert abs(pointwise / 400 - 0.95) < 0.033
    assert simultaneous / 400 > 0.95 - 0.033


def test_coverage_of_clustered_intervals():
    # 300 simulations of 100 people with tastes of their own; 95% lies within ±4% with probability 0.999
    rng = np.random.default_rng(12)
    truth = np.linspace(-1, 1, 5)

    def people(n):
        first = rng.integers(0, 5, (n, 20))
        second = (first + rng.integers(1, 5, (n, 20))) % 5
        own, rows = truth + rng.standard_normal((n, 5)), np.arange(n)[:, None]
        outcome = (rng.random((n, 20)) < 1 / (1 + np.exp(own[rows, second] - own[rows, first]))).astype(float)
        return Comparisons.from_pairs(first.ravel(), second.ravel(), outcome.ravel(), cluster=np.repeat(np.arange(n), 20))

    population = bradley_terry(people(20_000)).strength[4]
    clustered, ignored = 0, 0
    for _ in range(300):
        fit = bradley_terry(people(100))
        a, b = fit.intervals(kind="clustered"), fit.intervals()
        clustered += a.lower[4] <= population <= a.upper[4]
        ignored += b.lower[4] <= population <= b.upper[4]
    assert abs(clustered / 300 - 0.95) < 0.04
    assert ignored / 300 < 0.91


def test_bootstrap_in_compiled_code_is_a_refit_of_each_resample():
    c = random_comparisons(10, 2000, seed=9)
    fit = bradley_terry(c)
    boot = bootstrap_strengths(fit, 300, rng=4)
    assert boot.strength.shape == (300, 10) and boot.n_unbounded == 0
    np.testing.assert_allclose(boot.std_error, fit.std_error, rtol=0.2)
    found = boot.intervals(0.9)
    assert (found.lower < fit.strength).all() and (fit.strength < found.upper).all() and found.method == "bootstrap"
    np.testing.assert_allclose(found.lower, np.quantile(boot.strength, 0.05, axis=0), rtol=1e-12)
    assert (found.std_error == boot.std_error).all() and found.level == 0.9 and found.quantile is None
    np.testing.assert_array_equal(boot.strength, bootstrap_strengths(fit, 300, rng=4).strength)


def test_refits_equal_the_twin():
    c = random_comparisons(6, 400, seed=10)
    fit, p = bradley_terry(c), c.pairs()
    from fastirl.bradley_terry import _rows_by_pair
    pair, share = _rows_by_pair(c)
    found, n_iter = np.empty((5, 6)), np.empty(5, np.int32)
    inverse = np.ascontiguousarray(fit.covariance())
    kernels.refits(pair, share, p.first, p.second, fit.strength, inverse, 77, 1e-9, 60, found, n_iter)
    for b in range(5):
        u, v = kernels.resampled(pair, share, len(p), 77, b)
        assert u.sum() + v.sum() == pytest.approx(400) and n_iter[b] >= 0
        np.testing.assert_allclose(found[b], twin.fit(p.first, p.second, u, v, 6)[0], atol=1e-7)


def test_bootstrap_of_clusters_of_weights_and_of_unbounded_resamples():
    c = random_comparisons(5, 300, cluster=np.arange(300) // 10)
    assert bootstrap_strengths(bradley_terry(c), 20, by="cluster").strength.shape == (20, 5)
    few = Comparisons.from_matrix([[0, 1, 3], [3, 0, 1], [1, 3, 0]])
    boot = bootstrap_strengths(bradley_terry(few), 50)
    assert boot.n_unbounded > 0 and len(boot.strength) == 50 - boot.n_unbounded
    with pytest.raises(InvalidInputError, match="cluster"):
        bootstrap_strengths(bradley_terry(few), 50, by="cluster")


# -------------------------------------------------------------------- kernels equal their twins


@pytest.mark.parametrize("bits", [0, 64, 256, 512])
@pytest.mark.parametrize("n", [0, 1, 7, 256, 1000])
def test_derivatives_equal_the_twin(bits, n):
    rng = np.random.default_rng(n)
    first = np.sort(rng.integers(0, 20, n)).astype(np.int32)
    second = ((first + rng.integers(1, 20, n)) % 20).astype(np.int32)
    u, v = rng.exponential(size=n), rng.exponential(size=n)
    strength = rng.normal(0, 3, 20)
    item, h = np.empty((20, 2)), np.empty(n)
    try:
        found = kernels.derivatives(first, second, u, v, strength, 0.3, item, h, bits)
    except ValueError as error:
        pytest.skip(str(error))
    value, score, bend, pair, slope, square = twin.derivatives(first, second, u, v, strength, 0.3)
    np.testing.assert_allclose(found, (value, slope, square), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(item, np.column_stack([score, bend]), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(h, pair, rtol=1e-13)
    narrow = np.empty(n, np.float32)
    kernels.derivatives(first, second, u, v, strength, 0.3, item, narrow, bits)
    np.testing.assert_allclose(narrow, pair, rtol=1e-6)


def test_derivatives_far_out_lose_no_digits():
    eta = np.array([-745.0, -700, -40, -20, -1e-9, 0, 1e-9, 20, 40, 700, 745])
    n = len(eta)
    first, second = np.arange(n, dtype=np.int32), np.full(n, n, np.int32)
    item, h = np.empty((n + 1, 2)), np.empty(n)
    value, _, _ = kernels.derivatives(first, second, np.ones(n), np.zeros(n), np.append(eta, 0.0), 0.0, item, h)
    assert value == pytest.approx(log_expit(eta).sum(), rel=1e-14)
    np.testing.assert_allclose(item[:-1, 0], np.exp(log_expit(-eta)), rtol=1e-12, atol=1e-300)
    np.testing.assert_allclose(h, np.exp(log_expit(-eta) + log_expit(eta)), rtol=1e-12, atol=1e-300)


@pytest.mark.parametrize("ordered", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
def test_both_ways_of_counting_equal_the_twin(ordered, weighted):
    rng = np.random.default_rng(12)
    first = rng.integers(0, 9, 200).astype(np.int32)
    second = ((first + rng.integers(1, 9, 200)) % 9).astype(np.int32)
    outcome, weight = rng.choice([0, 0.3, 0.5, 1], 200), rng.integers(0, 3, 200).astype(float) if weighted else None
    expected = twin.add_up(first, second, outcome, weight, ordered)
    wins, ties = np.zeros((9, 9, 2)), np.zeros((9, 9))
    n_ties = kernels.count_table(first, second, outcome, weight, ordered, wins, ties)
    for arrays in (kernels.list_table(wins, ties, n_ties > 0),
                   kernels.merge_rows(*kernels.sort_rows(first, second, weight, 9, ordered), outcome, weight)):
        assert list(zip(arrays[0].tolist(), arrays[1].tolist())) == sorted(expected)
        np.testing.assert_allclose(np.array(arrays[2:]).T, [expected[key] for key in sorted(expected)], atol=1e-12)


def test_sparse_factors_equal_dense_algebra():
    rng = np.random.default_rng(13)
    c = random_comparisons(30, 60, seed=13)
    p = c.pairs()
    h, extra = rng.exponential(size=len(p)), rng.exponential(size=30)
    matrix = twin.laplacian(p.first, p.second, h, 30) + np.diag(extra)
    pattern = _laplacian.Pattern(p.first, p.second, 30, np.zeros(30, bool), np.zeros(30, np.int64), np.zeros(1, bool))
    solver = _laplacian.DirectSolver(pattern, h, extra, pattern.elimination(np.inf))
    right = rng.standard_normal((30, 3))
    np.testing.assert_allclose(solver.solve(right), np.linalg.solve(matrix, right), rtol=1e-9)
    np.testing.assert_allclose(solver.diagonal()[0], np.diag(np.linalg.inv(matrix)), rtol=1e-9)
    half = solver.draws(np.eye(30))
    np.testing.assert_allclose(half @ half.T, np.linalg.inv(matrix), rtol=1e-8, atol=1e-12)
    assert kernels.minimum_degree(pattern.ptr, p.second, np.zeros(30, np.uint8), 0.0) is None or len(p) == 0


def test_iterations_for_one_and_for_eight_right_sides_equal_dense_algebra():
    rng = np.random.default_rng(14)
    c = random_comparisons(40, 300, seed=14)
    p = c.pairs()
    h = rng.exponential(size=len(p)).astype(np.float32)
    inverse = np.linalg.pinv(twin.laplacian(p.first, p.second, h.astype(float), 40), hermitian=True)
    pattern = _laplacian.Pattern(p.first, p.second, 40, np.zeros(40, bool), np.zeros(40, np.int64), np.ones(1, bool))
    solver = _laplacian.IterativeSolver(pattern, h, None)
    right = rng.standard_normal((40, 11))
    np.testing.assert_allclose(solver.solve(right, 1e-12), inverse @ right, atol=1e-9)
    np.testing.assert_allclose(solver.solve(right[:, 0], 1e-12), inverse @ right[:, 0], atol=1e-9)


@pytest.mark.parametrize("ordered", [False, True])
@pytest.mark.parametrize("n", [0, 1, 500])
@pytest.mark.parametrize("width", [np.uint32, np.uint64])
def test_packed_counting_equals_the_twin(ordered, n, width):
    rng = np.random.default_rng(15)
    first = rng.integers(0, 7, n).astype(np.int32)
    second = ((first + rng.integers(1, 7, n)) % 7).astype(np.int32)
    twice = rng.choice([0, 1, 2], n).astype(np.int8)
    expected = twin.add_up(first, second, twice / 2, None, ordered)
    table, ties = np.zeros((7, 7), width), np.zeros((7, 7), np.int32)
    n_ties = kernels.count_packed(first, second, twice, ordered, table, ties)
    arrays, total = kernels.list_packed(table, ties, n_ties > 0, ordered, 42 if ordered else 21)
    assert total == n
    assert list(zip(arrays[0].tolist(), arrays[1].tolist())) == sorted(expected)
    np.testing.assert_array_equal(np.array(arrays[2:]).T.reshape(-1, 3), np.array(
        [expected[key] for key in sorted(expected)]).reshape(-1, 3))


@pytest.mark.parametrize("bits", [64, 256, 512])
@pytest.mark.parametrize("n", [0, 1, 255, 256, 257, 1000])
def test_counting_and_halving_on_vectors_equal_the_twin(bits, n):
    rng = np.random.default_rng(16)
    first = rng.integers(0, 7, n).astype(np.int32)
    second = ((first + rng.integers(1, 7, n)) % 7).astype(np.int32)
    outcome, twice = rng.choice([0.0, 1.0], n), np.empty(n, np.int8)
    table = np.zeros((7, 7), np.uint32)
    try:
        assert kernels.halves(outcome, twice, bits) == (True, -1)
    except ValueError as error:
        pytest.skip(str(error))
    np.testing.assert_array_equal(twice, 2 * outcome)
    kernels.count_strict(first, second, twice, table, bits)
    arrays, total = kernels.list_packed(table, np.zeros((1, 1), np.int32), False, False, 21)
    expected = twin.add_up(first, second, outcome)
    assert total == n and list(zip(arrays[0].tolist(), arrays[1].tolist())) == sorted(expected)
    np.testing.assert_array_equal(np.array(arrays[2:]).T.reshape(-1, 3),
                                  np.array([expected[key] for key in sorted(expected)]).reshape(-1, 3))
    for at in {0, n // 2, n - 1} if n else ():
        for odd, bad in ((0.5, -1), (-0.0, -1), (0.3, -1), (np.nextafter(1, 2), at), (-1e-300, at), (np.nan, at), (np.inf, at)):
            changed = outcome.copy()
            changed[at] = odd
            assert kernels.halves(changed, twice, bits) == (odd in (0.0, 0.5), bad)


@pytest.mark.parametrize("labels", [[0, 1, 2], [3, 4, 5], [0, 7, 900], [5, 1023, 1024], [-1, 0, 1], [0, 65_535, 65_536],
                                    [2**40, 2**40 + 1, 3]])
def test_labels_near_0_and_elsewhere_become_the_same_codes(labels):
    first, second = np.array(labels)[[0, 1, 2, 0] * 5000], np.array(labels)[[1, 2, 0, 2] * 5000]
    c = Comparisons.from_pairs(first, second, 1)
    expected, codes = np.unique(np.concatenate([first, second]), return_inverse=True)
    np.testing.assert_array_equal(c.labels, expected)
    np.testing.assert_array_equal(np.concatenate([c.first, c.second]), codes)
    second[7] = first[7]
    with pytest.raises(InvalidInputError, match=f"entry 7 compares {first[7]} with itself"):
        Comparisons.from_pairs(first, second, 1)


def test_the_dense_laplacian_equals_the_twin_in_any_order():
    rng = np.random.default_rng(17)
    first, second = rng.integers(0, 6, 30).astype(np.int32), rng.integers(6, 9, 30).astype(np.int32)
    h, out = rng.exponential(size=30), np.empty((9, 9))
    for order in (np.arange(30), np.argsort(first, kind="stable"), np.array([], int)):
        arrays = first[order], second[order], h[order]
        kernels.dense_laplacian(*arrays, out, 0.7)
        np.testing.assert_allclose(out, twin.laplacian(*arrays, 9) + 0.7, rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize("shares", [(40_000, 0, 0), (0, 40_000, 0), (20_000, 30_000, 70_000), (32_768, 32_768, 0)])
def test_counts_beyond_16_bits(shares):
    outcome = np.repeat([1, 0, 0.5], shares)
    c = Comparisons.from_pairs(np.zeros(len(outcome), int), np.ones(len(outcome), int), outcome)
    p = c.pairs()
    assert (p.wins_first[0], p.wins_second[0], p.ties[0]) == (outcome.sum(), (1 - outcome).sum(), shares[2])


# -------------------------------------------------------------------- no maximum, no data, wrong data


def pairs_of(*winners):
    return Comparisons.from_winners([w for w, _ in winners], [v for _, v in winners])


@pytest.mark.parametrize("c, message, items", [
    (pairs_of("ab", "ba", "ca", "cb"), "'c' never lost to", ("c",)),
    (pairs_of("ab", "ba", "ac", "bc"), "'c' never won against", ("c",)),
    (pairs_of("ab", "ba", "cd", "dc", "ac"), "'a', 'b' never lost to .* 'c', 'd' never won against", ("a", "b")),
    (pairs_of("ab", "ba", "cd", "dc"), "'a', 'b' were never compared with the rest", ("a", "b")),
    (Comparisons.from_winners(list("aabb"), list("bbaa"), labels=list("abc")), "'c' was never compared", ("c",)),
    (Comparisons.from_pairs(["a", "b", "a"], ["b", "a", "c"], [1, 1, 1], weight=[1, 1, 0]), "'c' was never compared", ("c",)),
])
@pytest.mark.parametrize("ties", ["half", "davidson"])
def test_data_without_a_maximum_name_the_items(c, message, items, ties):
    with pytest.raises(NoFiniteOptimumError, match=message) as caught:
        bradley_terry(c, ties)
    assert set(caught.value.items) == set(items)
    assert "prior_std=" in str(caught.value)
    for settings in ({"prior_std": 2.0}, {"ghost_games": 0.1}, {"components": "each"}):
        fit = bradley_terry(c, **settings)
        assert fit.converged and np.isfinite(fit.strength).all() and np.isfinite(fit.std_error).all()


def test_the_limit_across_components_is_the_supremum_of_the_likelihood():
    c = pairs_of("ab", "ab", "ba", "cd", "dc", "dc", "ac", "bd")
    fit = bradley_terry(c, components="each")
    assert fit.across == 2 and fit.n_components == 2
    held = {"a": 20 + fit.strength[0], "b": 20 + fit.strength[1], "c": fit.strength[2]}
    assert bradley_terry(c, fixed=held).log_likelihood == pytest.approx(fit.log_likelihood, abs=1e-7)


def test_a_million_labels_with_three_comparisons_name_what_is_missing():
    c = Comparisons.from_winners([0, 5, 999_999], [5, 999_999, 0], labels=range(10**6))
    with pytest.raises(NoFiniteOptimumError, match=r"1, 2, 3, 4, 6, … \(999,997 items\) were never compared"):
        bradley_terry(c)
    fit = bradley_terry(c, components="each")
    assert fit.converged and np.count_nonzero(fit.strength) == 0


def test_a_held_item_needs_no_result_but_the_others_do():
    c = pairs_of("ab", "bc", "ca", "xa")
    with pytest.raises(NoFiniteOptimumError, match="'x' never lost"):
        bradley_terry(c, fixed={"a": 0})
    two = pairs_of("ab", "bc")
    fit = bradley_terry(two, fixed={"a": 1.0, "c": -1.0})
    np.testing.assert_allclose(fit.strength, [1, 0, -1], atol=1e-8)


def test_only_ties():
    c = Comparisons.from_pairs(list("abc"), list("bca"), 0.5)
    np.testing.assert_allclose(bradley_terry(c).strength, 0, atol=1e-12)
    for ties in ("davidson", "rao_kupper"):
        with pytest.raises(InvalidInputError, match="all are ties"):
            bradley_terry(c, ties)


def test_davidson_without_an_upset_has_no_maximum():
    # one win and a tie between the same two: the win can be made certain along with ties
    c = Comparisons.from_pairs(["a", "a"], ["b", "b"], [1, 0.5])
    with pytest.raises(SeparationError, match="parameter of ties"):
        bradley_terry(c, "davidson")
    assert bradley_terry(c).converged


def test_home_that_tells_every_outcome_has_no_maximum():
    c = Comparisons.from_pairs(list("abcabc"), list("bcacab"), 1)
    with pytest.raises(SeparationError, match="home"):
        bradley_terry(c, home=True)
    assert bradley_terry(c).converged


def test_features_that_tell_every_outcome_have_no_maximum():
    c = Comparisons.from_pairs([0, 1, 2, 0], [1, 2, 3, 3], 1)
    x = np.array([[3.0, 0], [2, 1], [1, 0], [0, 1]])
    with pytest.raises(SeparationError, match="'x0'"):
        bradley_terry(c, features=x)
    assert bradley_terry(c, features=x, prior_std=1.0).converged


@pytest.mark.parametrize("x, message", [
    (np.column_stack([np.arange(12.0), np.ones(12)]), "'x1' does not"),
    (np.column_stack([np.arange(12.0), 2 * np.arange(12.0)]), "combinations of each other: 'x0', 'x1'"),
    (np.zeros((11, 2)), "12 rows"),
    (np.full((12, 1), np.nan), "finite"),
])
def test_bad_features(x, message):
    with pytest.raises(InvalidInputError, match=message):
        bradley_terry(random_comparisons(), features=x)


@pytest.mark.parametrize("settings, message", [
    ({"ties": "elo"}, "one of"),
    ({"fixed": {99: 0.0}}, "99"),
    ({"fixed": "a"}, "map labels"),
    ({"fixed": {1: np.nan}}, "finite strengths"),
    ({"fixed": dict.fromkeys(range(12), 0.0)}, "something to estimate"),
    ({"prior_std": 0}, "above 0"),
    ({"ghost_games": -1}, "at least 0"),
    ({"tol": "tight"}, "must be a number"),
    ({"features": np.eye(12), "fixed": {1: 0.0}}, "not be used with features"),
    ({"feature_names": ["a"]}, "come with"),
    ({"contest_features": np.ones((5, 1))}, "600 rows"),
    ({"home": True, "contest_features": np.ones((600, 1))}, "identify"),
])
def test_wrong_settings(settings, message):
    with pytest.raises(InvalidInputError, match=message):
        bradley_terry(random_comparisons(), **settings)


def test_no_comparison_one_item_and_what_is_no_comparison():
    with pytest.raises(InvalidInputError, match="at least two items"):
        bradley_terry(Comparisons.from_pairs([], [], [], labels=["a"]))
    with pytest.raises(InvalidInputError, match="at least two items"):
        bradley_terry(Comparisons.from_pairs([], [], []))
    with pytest.raises(InvalidInputError, match="positive weight"):
        bradley_terry(Comparisons.from_pairs([], [], [], labels=["a", "b"]))
    with pytest.raises(InvalidInputError, match="must be Comparisons"):
        bradley_terry([("a", "b")])
    with pytest.raises(InvalidInputError, match="only say who won"):
        bradley_terry(pairs_of("ab", "ba"), home=True)


def test_unknown_labels_levels_and_kinds():
    fit = bradley_terry(random_comparisons())
    with pytest.raises(InvalidInputError, match="'zebra'"):
        fit.contrast(0, "zebra")
    with pytest.raises(InvalidInputError, match="between 0 and 1"):
        fit.intervals(1.0)
    with pytest.raises(InvalidInputError, match="one of"):
        fit.standard_errors("white")
    with pytest.raises(InvalidInputError, match="none"):
        fit.standard_errors("clustered")


def test_no_warning_and_no_nan_on_the_way():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for ties in ("half", "davidson", "rao_kupper"):
            fit = bradley_terry(random_comparisons(ties=0.1, scale=2.0), ties, home=True)
            assert np.isfinite(fit.std_error).all() and str(fit.summary())
        assert half_derivatives(np.array([800.0]), random_comparisons().pairs())[0].shape


def test_the_decrement_sees_what_iterations_are_slow_to_solve():
    """Two dense groups that few comparisons join: a rough last solution said 6e-8 where it was 5e-7."""
    rng = np.random.default_rng(10)
    m, links = 2000, 20
    first, second, outcome = [], [], []
    for group in range(2):
        i = rng.integers(m, size=30 * m)
        j = (i + rng.integers(1, m, size=30 * m)) % m
        truth = 0.3 * rng.normal(size=m)
        first.append(i + group * m)
        second.append(j + group * m)
        outcome.append(rng.random(30 * m) < expit(truth[i] - truth[j]))
    first.append(rng.integers(m, size=links))
    second.append(rng.integers(m, size=links) + m)
    outcome.append(np.arange(links) > 0)
    c = Comparisons.from_pairs(*map(np.concatenate, (first, second, outcome)))
    fit = bradley_terry(c)
    assert isinstance(fit, BradleyTerryResult) and fit.converged and fit.method == "iterative"
    p, r, n = c.pairs(), fit.strength, c.n_items
    eta = r[p.first] - r[p.second]
    a = p.wins_first * expit(-eta) - p.wins_second * expit(eta)
    h = p.weight * expit(eta) * expit(-eta)
    g = np.bincount(p.first, a, n) - np.bincount(p.second, a, n)
    k = sparse.csgraph.laplacian(sparse.coo_array((h, (p.first, p.second)), shape=(n, n)).tocsr(), symmetrized=True).tocsr()
    solved, failed = sparse.linalg.cg(k, g - g.mean(), rtol=1e-9, maxiter=20_000, M=sparse.diags_array(1 / k.diagonal()))
    assert not failed
    assert fit.decrement == pytest.approx(np.sqrt(g @ solved), rel=0.05)


def test_only_ties_within_groups_leave_their_parameter_without_an_estimate():
    c = Comparisons.from_pairs([0, 1], [1, 2], [0.0, 0.5])
    with pytest.raises(InvalidInputError, match="all are ties"):
        bradley_terry(c, ties="davidson", components="each")
    assert bradley_terry(c, components="each").strength == pytest.approx([0, 0, 0])


@pytest.mark.parametrize("ties", ["half", "davidson"])
@pytest.mark.parametrize("held", [{"prior_std": 1.0}, {"ghost_games": 1.0}])
def test_a_prior_holds_strengths_and_home_may_still_run_away(ties, held):
    c = Comparisons.from_pairs(["a", "b", "c", "a"], ["b", "c", "a", "b"], [1, 1, 1, 1])
    with pytest.raises(SeparationError, match="'home' can grow") as found:
        bradley_terry(c, ties, home=True, **held)
    assert list(found.value.direction) == ["home"]
    # strengths tell all outcomes, home does not: finite under a prior that lets strengths reach log odds beyond 10
    mixed = Comparisons.from_pairs(["a", "b", "a"], ["b", "a", "b"], [1, 0, 1], weight=[1e6, 1e6, 1e6])
    assert bradley_terry(mixed, ties, home=True, prior_std=1e3).converged


def test_two_contest_features_that_only_together_say_nothing_are_refused():
    c = Comparisons.from_pairs([0, 0, 3, 3], [2, 1, 2, 2], [0.6, 0.2, 0.5, 0.1])
    z = [[-0.7, -2.3], [0.0, -0.5], [0.6, 0.9], [-0.1, -1.2]]  # five parameters, four comparisons
    with pytest.raises(InvalidInputError, match="identify z0, z1"):
        bradley_terry(c, contest_features=z)
    with pytest.raises(InvalidInputError, match="numbers"):
        bradley_terry(c, contest_features=["sun", "rain", "sun", "sun"])


def test_intervals_where_all_errors_are_zero():
    """In each cluster what is won is lost again."""
    c = Comparisons.from_pairs(["a", "b", "a", "b"], ["b", "a", "b", "a"], [1, 1, 0, 0], cluster=[1, 1, 2, 2])
    i = bradley_terry(c).intervals(simultaneous=True, kind="clustered")
    assert i.upper == pytest.approx(i.lower, abs=1e-12)


def test_probing_leaves_out_items_that_are_alone(recwarn):
    base = random_comparisons(1600, 40_000, scale=0.3)
    c = Comparisons.from_pairs(base.first, base.second, base.outcome, labels=range(1700))
    fit = bradley_terry(c, components="each", method="iterative")
    assert fit.n_components == 101 and 0 < fit.std_error_accuracy("robust") < 0.05 and not len(recwarn)
    assert (fit.standard_errors("robust")[1600:] == 0).all()
