"""Plackett-Luce: published estimates, laws, errors instead of infinite strengths, kernels equal to their slow twin."""

import csv
import dataclasses
import json
import math
import sys
from itertools import permutations

import numpy as np
import pytest

import fastirl as fi
from fastirl import PlackettLuceResult, Rankings, _rankings, plackett_luce
from fastirl import _rankings_reference as reference
from fastirl.exceptions import ConvergenceWarning, InvalidInputError, NoFiniteOptimumError
from fastirl.plackett_luce import _Strict, _Tied
from real_data import need

NAMES = ["ann", "bob", "cy", "dee"]


def simulated(n_items, n_rankings, length, rng, spread=1.0):
    strength = rng.normal(size=n_items) * spread
    items = np.array([rng.choice(n_items, length, replace=False) for _ in range(n_rankings)])
    utility = strength[items] + rng.gumbel(size=items.shape)
    return np.take_along_axis(items, np.argsort(-utility, axis=1), axis=1), strength


def tied_lists(n_items, n_rankings, rng, largest=3):
    """Random rankings of random lengths with random ties."""
    lists = []
    for _ in range(n_rankings):
        items, order = rng.permutation(n_items)[: rng.integers(1, n_items + 1)].tolist(), []
        while items:
            size = min(int(rng.choice([1, 1, 1, 2, largest])), len(items))
            order.append(tuple(items[:size]) if size > 1 else items[0])
            items = items[size:]
        lists.append(order)
    return lists


def groups(rankings):
    """What the slow twin takes: lists of tuples of indices, and how many of the groups are ranked."""
    out, ranked = [], []
    for r in range(len(rankings)):
        part = slice(rankings.offsets[r], rankings.offsets[r + 1])
        item, level, n = rankings.item[part], rankings.level[part], rankings.n_ranked[r]
        found = [tuple(item[:n][level[:n] == at].tolist()) for at in np.unique(level[:n])]
        ranked.append(len(found))
        out.append(found + ([tuple(item[n:].tolist())] if n < len(item) else []))
    return out, ranked


# --- published estimates --------------------------------------------------------------------------


def test_sushi_and_netflix_as_published():
    sushi = plackett_luce(Rankings.read_preflib(need("ranking") / "sushi10" / "sushi.soc"))
    np.testing.assert_allclose(sushi.log_likelihood, -71211.599225, rtol=0, atol=1e-5)
    np.testing.assert_allclose(sushi.worth, [.0915, .1422, .0771, .0684, .0939, .0509, .2450, .0859, .0342, .1109],
                               rtol=0, atol=6e-5)
    netflix = plackett_luce(Rankings.read_preflib(need("ranking") / "netflix4" / "netflix.soc"))
    np.testing.assert_allclose(netflix.log_likelihood, -1746.757926, rtol=0, atol=1e-6)
    np.testing.assert_allclose(netflix.worth, [.2306, .4512, .1684, .1498], rtol=0, atol=6e-5)


def test_puddings_with_ties_are_davidsons():
    with open(need("ranking") / "pudding" / "pairs.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    orders = [order for row in rows for order in ([row["i"], row["j"]], [row["j"], row["i"]], [(row["i"], row["j"])])]
    counts = [float(row[name]) for row in rows for name in ("w_ij", "w_ji", "t_ij")]
    fit = plackett_luce(Rankings.from_lists(orders, weight=counts))
    np.testing.assert_allclose(-2 * fit.log_likelihood, 1619.419020, rtol=0, atol=1e-6)
    np.testing.assert_allclose(fit.tie_parameters[2], 0.7468230, rtol=0, atol=1e-7)
    np.testing.assert_allclose(fit.worth, [.1388, .1730, .1617, .1654, .1587, .2024], rtol=0, atol=6e-5)
    found = [fit.contrast(other, "1") for other in "23456"]
    np.testing.assert_allclose([c.estimate for c in found], [.2202, .1530, .1751, .1339, .3771], rtol=0, atol=6e-5)
    # the published errors are at Davidson's seventh iteration
    np.testing.assert_allclose([c.std_error for c in found], [.1872, .1935, .1882, .1927, .1924], rtol=0, atol=6e-5)
    np.testing.assert_allclose(fit.parameter_errors()["log delta 2"], 0.0825, rtol=0, atol=6e-5)


@pytest.mark.parametrize("name, atol", [("rankings-1", 1e-9), ("rankings-2", 3e-5), ("top1-1", 1e-9), ("top1-2", 2e-8)])
def test_the_cases_of_choix(name, atol):
    case = json.loads((need("ranking") / "choix_testcases" / f"testcase-{name}.json").read_text())
    if name.startswith("rankings"):
        data = Rankings.from_lists(case["data"])
    else:
        data = Rankings.from_choices(*zip(*case["data"]))
    np.testing.assert_allclose(plackett_luce(data).strength, case["ml_est"], rtol=0, atol=atol)


# --- kernels and their twin -----------------------------------------------------------------------


def test_the_slow_twin_adds_up_to_one_over_all_outcomes():
    strength = np.array([0.3, -1.0, 0.8])
    total = sum(math.exp(reference.log_likelihood([[(i,) for i in order]], 3, strength)[0]) for order in permutations(range(3)))
    assert total == pytest.approx(1.0, rel=1e-14)
    ties = {2: -0.4, 3: -1.1}
    outcomes = [[(0, 1, 2)]] + [[(i,), tuple(j for j in range(3) if j != i)] for i in range(3)]
    outcomes += [[tuple(j for j in range(3) if j != i), (i,)] for i in range(3)]
    outcomes += [[(i,) for i in order] for order in permutations(range(3))]
    total = sum(math.exp(reference.log_likelihood([order], 3, strength, ties)[0]) for order in outcomes)
    assert total == pytest.approx(1.0, rel=1e-14)


@pytest.mark.parametrize("seed", range(4))
def test_without_ties_kernels_equal_their_twin(seed):
    rng = np.random.default_rng(seed)
    lists = [rng.permutation(6)[: rng.integers(2, 7)].tolist() for _ in range(15)]
    below = [[i for i in range(6) if i not in order][: rng.integers(0, 3)] for order in lists]
    data = Rankings.from_lists(lists, below, weight=rng.random(15), labels=range(6))
    theta = rng.normal(size=6) * 2
    model = _Strict(data, None)
    model.component = np.zeros(6, np.int32)
    value, gradient, at = model.evaluate(theta)
    found, ranked = groups(data)
    want = reference.log_likelihood(found, 6, theta, weight=data.weight, n_ranked=ranked)
    np.testing.assert_allclose(-value, want[0], rtol=1e-13)
    np.testing.assert_allclose(-gradient, want[1], rtol=0, atol=1e-13)
    np.testing.assert_allclose(model.dense(at), want[2], rtol=0, atol=1e-13)
    first, second, curvature = model.pair_curvature(at)
    np.testing.assert_allclose(curvature, -want[2][first, second], rtol=0, atol=1e-13)
    assert np.count_nonzero(np.triu(want[2], 1)) == len(first)
    direction = rng.normal(size=6)
    # single precision is enough for directions
    np.testing.assert_allclose(model.times(at, direction), want[2] @ direction, rtol=0, atol=1e-6)
    np.testing.assert_allclose(data.weight @ model.score_rows(at).toarray(), want[1], rtol=0, atol=1e-13)


@pytest.mark.parametrize("n_ranked", [None, 2])
def test_rankings_of_one_length_and_of_several_take_the_same_sums(n_ranked):
    items, theta = simulated(7, 25, 4, np.random.default_rng(15))
    models = [_Strict(Rankings.from_arrays(items, n_ranked=n_ranked, labels=range(7)), None),
              _Strict(Rankings.from_lists([*items.tolist(), [0]], None if n_ranked is None else [[]] * 26, labels=range(7)),
                      None)]
    if n_ranked is not None:
        models.pop()
        models.append(_Strict(Rankings.from_arrays(items, n_ranked=n_ranked, weight=[2.0] * 25, labels=range(7)), None))
    (value, gradient, at), (other, slope, there) = (model.evaluate(theta) for model in models)
    factor = 1 if n_ranked is None else 2
    np.testing.assert_allclose(other, factor * value, rtol=1e-13)
    np.testing.assert_allclose(slope, factor * gradient, rtol=0, atol=1e-12)
    direction = np.arange(7.0)
    np.testing.assert_allclose(models[1].times(there, direction), factor * models[0].times(at, direction), rtol=0, atol=1e-12)


@pytest.mark.parametrize("seed", range(4))
def test_with_ties_kernels_equal_their_twin(seed):
    rng = np.random.default_rng(seed)
    data = Rankings.from_lists(tied_lists(5, 15, rng), weight=rng.random(15), labels=range(5), below="all" if seed % 2 else None)
    data = data.subset(np.diff(data.offsets) > 1)
    model = _Tied(data, None)
    model.component = np.zeros(5, np.int32)
    theta = rng.normal(size=model.n_params)
    value, gradient, at = model.evaluate(theta)
    found, ranked = groups(data)
    want = reference.log_likelihood(found, 5, theta[:5], dict(zip(model.orders, theta[5:])), data.weight, ranked)
    np.testing.assert_allclose(-value, want[0], rtol=1e-13)
    np.testing.assert_allclose(-gradient, want[1], rtol=0, atol=1e-13)
    np.testing.assert_allclose(model.dense(at), want[2], rtol=0, atol=1e-13)
    direction = rng.normal(size=model.n_params)
    np.testing.assert_allclose(model.times(at, direction), want[2] @ direction, rtol=0, atol=1e-13)
    np.testing.assert_allclose(data.weight @ model.score_rows(at).toarray(), want[1], rtol=0, atol=1e-13)


def test_the_twins_gradient_is_the_difference_quotient_of_its_value():
    rankings, strength, ties = [[(0, 1), (2,)], [(2,), (1,), (0,)]], np.array([0.2, -0.3, 0.5]), {2: -0.2}
    gradient = reference.log_likelihood(rankings, 3, strength, ties)[1]
    step = 1e-6
    for at in range(4):
        def value(sign, at=at):
            moved = strength + sign * step * (np.arange(3) == at)
            return reference.log_likelihood(rankings, 3, moved, {2: ties[2] + sign * step * (at == 3)})[0]
        assert gradient[at] == pytest.approx((value(1) - value(-1)) / (2 * step), abs=1e-9)


@pytest.mark.parametrize("seed", range(30))
def test_connection_in_rounds_is_that_of_the_graph(seed):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(2, 7))
    lists = tied_lists(n, int(rng.integers(2, 6)), rng)
    below = [[i for i in range(n) if i not in np.hstack([np.ravel(e) for e in order])][: rng.integers(0, 3)] for order in lists]
    data = Rankings.from_lists(lists, below, labels=range(n))
    for within in (True, False):
        reach = np.eye(n, dtype=bool)
        for groups_of, ranked in zip(*groups(data)):
            for at, group in enumerate(groups_of[:ranked]):
                worse = [i for other in groups_of[at + 1:] for i in other]
                for i in group:
                    reach[i, worse + (list(group) if within else [])] = True
        for _ in range(n):
            reach = reach | (reach.astype(int) @ reach.astype(int) > 0)
        found = _rankings.all_connected(data.item, data.offsets, data.level, data.n_ranked, n, 1000, within)
        assert found == reach.all()


def test_checks_of_rankings_in_compiled_code():
    data = Rankings.from_lists([["a", "b"], ["c", ("a", "b")]])
    assert _rankings.first_repeat(data.item, data.offsets, 3) == -1
    assert _rankings.first_repeat(np.array([0, 1, 0], np.int32), np.array([0, 3]), 2) == 2
    tail, head = _rankings.successors(data.item, data.offsets, data.level, data.n_ranked, 0, 2)
    assert sorted(zip(tail.tolist(), head.tolist())) == [(0, 1), (0, 1), (1, 0), (2, 0)]


# --- laws -----------------------------------------------------------------------------------------


def test_every_method_finds_the_same_and_certifies_it():
    items, _ = simulated(30, 400, 5, np.random.default_rng(0))
    fits = {method: plackett_luce(Rankings.from_arrays(items), method=method) for method in ("direct", "iterative")}
    for method, fit in fits.items():
        assert isinstance(fit, PlackettLuceResult) and fit.converged and fit.method == method
        assert fit.score_residual <= 1e-8 and fit.decrement <= 1e-6
        found, _ = groups(Rankings.from_arrays(items))
        value, gradient, information = reference.log_likelihood(found, 30, fit.strength)
        assert np.abs(gradient).max() <= 1e-7 and fit.log_likelihood == pytest.approx(value, rel=1e-13)
        assert math.sqrt(gradient @ np.linalg.pinv(information) @ gradient) <= 1e-6
        np.testing.assert_allclose(fit.covariance(), np.linalg.pinv(information), rtol=0, atol=1e-9)
    np.testing.assert_allclose(fits["direct"].strength, fits["iterative"].strength, rtol=0, atol=1e-7)


def test_with_ties_every_method_finds_the_same():
    data = Rankings.from_lists(tied_lists(6, 80, np.random.default_rng(1)))
    fits = [plackett_luce(data, method=method) for method in ("direct", "iterative")]
    np.testing.assert_allclose(fits[0].strength, fits[1].strength, rtol=0, atol=1e-6)
    assert set(fits[0].tie_parameters) == {2, 3} and all(fit.converged for fit in fits)
    found, ranked = groups(data)
    log_ties = {order: math.log(value) for order, value in fits[0].tie_parameters.items()}
    value, gradient, information = reference.log_likelihood(found, 6, fits[0].strength, log_ties)
    assert np.abs(gradient).max() < 1e-8
    inverse = np.linalg.pinv(information)
    np.testing.assert_allclose(fits[0].covariance(), inverse[:6, :6], rtol=0, atol=1e-9)
    assert fits[0].parameters == {f"log delta {order}": value for order, value in log_ties.items()}
    np.testing.assert_allclose(list(fits[0].parameter_errors().values()), np.sqrt(np.diag(inverse)[6:]), rtol=1e-6)


def test_a_sparse_hessian_serves_where_a_dense_one_is_too_large(monkeypatch):
    for name in ("_DENSE", "_SPARSE"):
        monkeypatch.setattr(sys.modules["fastirl.plackett_luce"], name, 10)
    # a ladder: every item meets its next neighbours only
    rng, n = np.random.default_rng(2), 300
    first = rng.integers(0, n - 2, 6000)
    items = first[:, None] + np.argsort(rng.random((6000, 3)), axis=1)
    sparse = plackett_luce(Rankings.from_arrays(items), method="direct")
    cg = plackett_luce(Rankings.from_arrays(items), method="iterative")
    np.testing.assert_allclose(sparse.strength, cg.strength, rtol=0, atol=1e-6)
    monkeypatch.setattr(sys.modules["fastirl.plackett_luce"], "_CG_LIMIT", 20)
    switched = plackett_luce(Rankings.from_arrays(items))
    assert switched.method == "direct" and switched.converged
    monkeypatch.undo()
    exact = plackett_luce(Rankings.from_arrays(items), method="direct")
    for kind in ("hessian", "robust"):
        found, want = sparse.contrast(0, n - 1, kind), exact.contrast(0, n - 1, kind)
        np.testing.assert_allclose([found.estimate, found.std_error], [want.estimate, want.std_error], rtol=1e-6)
    monkeypatch.setattr(sys.modules["fastirl.plackett_luce"], "_EXACT", 10)
    np.testing.assert_allclose(sparse.standard_errors(), exact.standard_errors(), rtol=1e-8)
    assert sparse.std_error_accuracy() == 0.0


def test_probed_errors_are_as_near_as_they_say(monkeypatch):
    items, _ = simulated(400, 4000, 4, np.random.default_rng(12))
    fit = plackett_luce(Rankings.from_arrays(items))
    exact = fit.standard_errors()
    monkeypatch.setattr(sys.modules["fastirl.plackett_luce"], "_EXACT", 10)
    monkeypatch.setattr(sys.modules["fastirl.plackett_luce"], "_FILL", 0.0)
    probed = plackett_luce(Rankings.from_arrays(items))
    off = np.sqrt(np.mean((probed.standard_errors() / exact - 1) ** 2))
    assert 0 < probed.std_error_accuracy() < 0.01 and off < 2 * probed.std_error_accuracy()


def test_two_items_a_ranking_are_bradley_terry():
    items, _ = simulated(12, 400, 2, np.random.default_rng(13))
    cluster = np.arange(400) % 50
    fit = plackett_luce(Rankings.from_arrays(items, cluster=cluster))
    pairs = fi.bradley_terry(fi.Comparisons.from_winners(*items.T, cluster=cluster))
    # both certificates promise 1e-6 standard errors
    np.testing.assert_allclose(fit.strength, pairs.strength, rtol=0, atol=2e-6 * fit.standard_errors().max())
    np.testing.assert_allclose(fit.log_likelihood, pairs.log_likelihood, rtol=1e-12)
    np.testing.assert_allclose(fit.standard_errors(), pairs.standard_errors(), rtol=1e-6)
    np.testing.assert_allclose(fit.standard_errors("robust"), pairs.standard_errors("robust"), rtol=1e-6)
    np.testing.assert_allclose(fit.standard_errors("clustered"), pairs.standard_errors("clustered"), rtol=1e-6)


def test_two_items_that_may_tie_are_davidsons_model():
    rng = np.random.default_rng(14)
    items = np.array([rng.choice(6, 2, replace=False) for _ in range(300)])
    tied = rng.random(300) < 0.25
    fit = plackett_luce(Rankings.from_lists([[tuple(row)] if tie else list(row) for row, tie in zip(items.tolist(), tied)]))
    pairs = fi.bradley_terry(fi.Comparisons.from_pairs(*items.T, np.where(tied, 0.5, 1.0)), ties="davidson")
    np.testing.assert_allclose(fit.strength, pairs.strength, rtol=0, atol=2e-6 * fit.standard_errors().max())
    assert fit.tie_parameters[2] == pytest.approx(pairs.tie_parameters[2], rel=2e-6)
    np.testing.assert_allclose(fit.log_likelihood, pairs.log_likelihood, rtol=1e-12)
    np.testing.assert_allclose(fit.standard_errors(), pairs.standard_errors(), rtol=1e-6)


def test_relabelling_items_relabels_the_answer():
    items, _ = simulated(8, 60, 4, np.random.default_rng(3))
    names = np.array(list("hgfedcba"))
    plain, named = plackett_luce(Rankings.from_arrays(items)), plackett_luce(Rankings.from_arrays(names[items]))
    np.testing.assert_allclose(named.strength[[list(named.labels).index(name) for name in names]], plain.strength,
                               rtol=0, atol=1e-9)


def test_duplication_is_weight_and_weight_zero_says_nothing():
    lists = tied_lists(5, 40, np.random.default_rng(4))
    weighted = plackett_luce(Rankings.from_lists(lists + [[0, 1]], weight=[2] * 40 + [0], cluster=range(41)))
    twice = plackett_luce(Rankings.from_lists(lists * 2, cluster=list(range(40)) * 2))
    np.testing.assert_allclose(weighted.strength, twice.strength, rtol=0, atol=1e-8)
    for kind in ("hessian", "robust", "clustered"):
        np.testing.assert_allclose(weighted.standard_errors(kind), twice.standard_errors(kind), rtol=1e-6)
    np.testing.assert_allclose(weighted.log_likelihood, twice.log_likelihood, rtol=1e-12)


def test_two_items_a_ranking_are_bradley_terry_in_closed_form():
    fit = plackett_luce(Rankings.from_ballots({("a", "b"): 30, ("b", "a"): 10}))
    found = fit.contrast("a", "b")
    assert found.estimate == pytest.approx(math.log(3), abs=1e-9) and found.probability == pytest.approx(0.75)
    assert found.std_error == pytest.approx(math.sqrt(1 / 30 + 1 / 10), rel=1e-8)
    np.testing.assert_allclose(fit.choice_probabilities(["a", "b"]), [0.75, 0.25], rtol=0, atol=1e-9)
    assert fit.worth.sum() == pytest.approx(1.0)


def test_two_tied_items_in_closed_form():
    # 50 wins, 30 losses, 20 ties of two items: three free probabilities, two parameters, all matched
    fit = plackett_luce(Rankings.from_ballots({("a", "b"): 50, ("b", "a"): 30, (("a", "b"),): 20}))
    assert fit.contrast("a", "b").estimate == pytest.approx(math.log(5 / 3), abs=1e-9)
    assert fit.tie_parameters[2] == pytest.approx(20 / math.sqrt(50 * 30), rel=1e-8)


def test_reversing_pairs_reverses_strengths():
    items, _ = simulated(6, 200, 2, np.random.default_rng(5))
    rankings = Rankings.from_arrays(items)
    np.testing.assert_allclose(plackett_luce(rankings.reversed()).strength, -plackett_luce(rankings).strength, rtol=0, atol=1e-7)


def test_a_full_ranking_and_one_cut_before_its_last_item_say_the_same():
    items, _ = simulated(5, 50, 5, np.random.default_rng(6))
    full, cut = Rankings.from_arrays(items), Rankings.from_arrays(items, n_ranked=4)
    np.testing.assert_allclose(plackett_luce(full).strength, plackett_luce(cut).strength, rtol=0, atol=1e-10)


def test_stages_are_choices():
    items, _ = simulated(5, 40, 4, np.random.default_rng(7))
    chosen = np.concatenate([items[:, at] for at in range(3)])
    offered = [row[at:].tolist() for at in range(3) for row in items]
    fits = plackett_luce(Rankings.from_arrays(items)), plackett_luce(Rankings.from_choices(chosen.tolist(), offered))
    np.testing.assert_allclose(fits[0].strength, fits[1].strength, rtol=0, atol=1e-9)
    np.testing.assert_allclose(fits[0].log_likelihood, fits[1].log_likelihood, rtol=1e-12)


def test_components_are_fitted_by_themselves_only_when_asked():
    part, other = [["a", "b", "c"], ["c", "b", "a"], ["b", "a"]], [["x", "y"], ["y", "x"], ["x", "y"]]
    with pytest.raises(NoFiniteOptimumError, match=r"\{'x', 'y'\} never meets") as caught:
        plackett_luce(part + other)
    assert caught.value.items == ("x", "y")
    both = plackett_luce(part + other, components="each")
    alone = plackett_luce(part)
    np.testing.assert_allclose(both.strength[:3], alone.strength, rtol=0, atol=1e-9)
    np.testing.assert_allclose(both.standard_errors()[:3], alone.standard_errors(), rtol=1e-7)
    np.testing.assert_allclose(both.strength[3:], [math.log(2) / 2, -math.log(2) / 2], rtol=0, atol=1e-9)
    np.testing.assert_allclose([both.worth[:3].sum(), both.worth[3:].sum()], 1.0, rtol=1e-12)
    with pytest.raises(InvalidInputError, match="different components"):
        both.contrast("a", "x")


def test_an_item_in_no_choice_is_named():
    data = Rankings.from_lists([["a", "b"], ["b", "a"]], labels=["a", "b", "nobody"])
    with pytest.raises(NoFiniteOptimumError, match=r"\{'nobody'\} is in no choice"):
        plackett_luce(data)
    fit = plackett_luce(data, components="each")
    assert fit.strength[2] == 0.0 and fit.standard_errors()[2] == 0.0
    assert plackett_luce(data, prior_std=1.0).standard_errors()[2] == pytest.approx(1.0)


@pytest.mark.parametrize("lists, name, word", [
    ([["a", "b", "c"], ["a", "c", "b"]], "a", "unbeaten"),
    ([["a", "b", "c"], ["b", "a", "c"]], "c", "winless"),
    ([["a", "b", "c", "d"], ["b", "a", "d", "c"]], "a', 'b", "unbeaten"),
])
def test_unbeaten_and_winless_groups_are_named(lists, name, word):
    with pytest.raises(NoFiniteOptimumError, match=rf"\{{'{name}'\}}.*{word}.*prior"):
        plackett_luce(lists)
    fit = plackett_luce(lists, prior_std=1.0)
    assert fit.converged and np.isfinite(fit.strength).all()


def test_groups_infinitely_far_apart_are_fitted_each_by_itself():
    """{a, b, c} beat {x, y} whenever they meet: in the limit nothing is left but who wins within."""
    lists = [["a", "b", "c", "x", "y"], ["c", ("a", "b"), "y"], ["b", "a", "y", "x"], ["c", "a"], ["b", "c"], ["x", "y"],
             [("a", "b"), "c"]]
    below = [[], ["x"], [], ["x"], ["a"], [], []]
    data = Rankings.from_lists(lists, below)
    with pytest.raises(NoFiniteOptimumError, match=r"\{'x', 'y'\} lose to all others"):
        plackett_luce(data)
    fit = plackett_luce(data, components="each")
    assert fit.component.tolist() == [0, 0, 0, 1, 1]
    # δ is one number for all
    split = Rankings.from_lists([["a", "b", "c"], ["c", ("a", "b")], ["b", "a"], ["c", "a"], ["b", "c"], [("a", "b"), "c"],
                                 ["x", "y"], ["y", "x"], ["y", "x"], ["x", "y"]], [[], [], [], [], ["a"], [], [], [], [], []])
    apart = plackett_luce(split, components="each")
    np.testing.assert_allclose(fit.strength, apart.strength, rtol=0, atol=1e-8)
    assert fit.tie_parameters[2] == pytest.approx(apart.tie_parameters[2], rel=1e-8)
    # the limit is reached: a prior so wide that it hardly pulls leaves the same contrasts within
    wide = plackett_luce(data, prior_std=300.0)
    assert wide.contrast("a", "c").estimate == pytest.approx(fit.contrast("a", "c").estimate, abs=1e-3)
    with pytest.raises(NoFiniteOptimumError, match="only lead down"):
        plackett_luce([["a", "b", "c"]], components="each")


def test_ties_that_a_growing_parameter_explains_are_refused():
    # a wins once, ties once: half and half is reached only as δ and the distance of a and b grow together
    with pytest.raises(NoFiniteOptimumError, match="larger δ"):
        plackett_luce([["a", "b"], [("a", "b")]])
    with pytest.raises(NoFiniteOptimumError, match="ties of 2"):
        plackett_luce([[("a", "b")], [("b", "a")]])
    # a triple tie against a third item that always loses: connected, and still without a maximum
    with pytest.raises(NoFiniteOptimumError, match="without end"):
        plackett_luce([["a", "b", "z"], ["b", "a", "z"], [("a", "b", "z")]])
    assert plackett_luce([["a", "b", "z"], ["b", "a", "z"], [("a", "b", "z")], ["z", "a", "b"]]).converged


def test_a_prior_is_a_normal_density_at_the_mode():
    items, _ = simulated(5, 12, 3, np.random.default_rng(8))
    fit = plackett_luce(Rankings.from_arrays(items), prior_std=0.7)
    found, _ = groups(Rankings.from_arrays(items))
    _, gradient, information = reference.log_likelihood(found, 5, fit.strength)
    np.testing.assert_allclose(gradient, fit.strength / 0.49, rtol=0, atol=1e-7)
    np.testing.assert_allclose(fit.covariance(), np.linalg.inv(information + np.eye(5) / 0.49), rtol=0, atol=1e-9)
    wide = plackett_luce(Rankings.from_arrays(items), prior_std=1e-3)
    assert np.abs(wide.strength).max() < 1e-3


def test_intervals_cover_the_truth():
    rng, hits, trials = np.random.default_rng(9), {"hessian": 0, "robust": 0}, 400
    for _ in range(trials):
        items, truth = simulated(4, 150, 3, rng, spread=0.5)
        fit = plackett_luce(Rankings.from_arrays(items))
        for kind in hits:
            low, high = fit.contrast(0, 1, kind).interval
            hits[kind] += low <= truth[0] - truth[1] <= high
    # binomial(400, 0.95) lies within 0.95 ± 0.033 with probability 0.998
    assert all(abs(count / trials - 0.95) < 0.033 for count in hits.values())


def test_copied_answers_need_clustered_errors():
    items, _ = simulated(4, 100, 3, np.random.default_rng(10))
    once = plackett_luce(Rankings.from_arrays(items))
    copied = plackett_luce(Rankings.from_arrays(np.repeat(items, 4, axis=0), cluster=np.repeat(np.arange(100), 4)))
    want = once.standard_errors("robust") * math.sqrt(100 / 99)
    np.testing.assert_allclose(copied.standard_errors("clustered"), want, rtol=1e-7)
    np.testing.assert_allclose(copied.standard_errors("hessian"), once.standard_errors("hessian") / 2, rtol=1e-7)
    with pytest.raises(InvalidInputError, match="at least two clusters"):
        plackett_luce(Rankings.from_arrays(items, cluster=np.zeros(100, int))).standard_errors("clustered")
    with pytest.raises(InvalidInputError, match="need clusters"):
        once.standard_errors("clustered")


def test_running_out_of_steps_is_said():
    items, _ = simulated(10, 100, 4, np.random.default_rng(11), spread=3.0)
    with pytest.warns(ConvergenceWarning, match="stopped after 1 steps"):
        fit = plackett_luce(Rankings.from_arrays(items), prior_std=30.0, max_iter=1)
    assert not fit.converged and "NOT converged" in fit.summary().notes[-1]


def test_a_million_labels_and_three_rankings():
    data = Rankings.from_lists([[1, 2], [2, 3], [3, 1]], labels=range(1_000_000))
    with pytest.raises(NoFiniteOptimumError, match="is in no choice"):
        plackett_luce(data)
    fit = plackett_luce(data, components="each")
    assert fit.converged and not fit.strength.any()


@pytest.mark.parametrize("call, message", [
    (lambda: plackett_luce([["a"], ["b"]]), "two or more"),
    (lambda: plackett_luce([]), "two or more"),
    (lambda: plackett_luce("abc"), "`rankings`"),
    (lambda: plackett_luce([["a", "b"], [("a", "b")]], ties="error"), "ranking 1 ties 'a' and 'b'"),
    (lambda: plackett_luce([["a", "b"]], ties="half"), "`ties`"),
    (lambda: plackett_luce([["a", "b"]], prior_std=-1), "`prior_std`"),
    (lambda: plackett_luce([["a", "b"]], components="drop"), "`components`"),
    (lambda: plackett_luce([["a", "b"]], method="mm"), "`method`"),
    (lambda: plackett_luce(fi.Comparisons.from_winners(["a"], ["b"])), "bradley_terry"),
    (lambda: plackett_luce([["a", "b"], ["b", "a"]]).contrast("a", "c"), "'c'"),
    (lambda: plackett_luce([["a", "b"], ["b", "a"]]).choice_probabilities(["a", "a"]), "different"),
    (lambda: plackett_luce([["a", "b"], ["b", "a"]]).choice_probabilities("ab"), "a sequence of labels"),
    (lambda: plackett_luce([["a", "b"], ["b", "a"]]).standard_errors("sandwich"), "`kind`"),
    (lambda: plackett_luce([["a", "b"], ["b", "a"]]).summary(level=2), "`level`"),
])
def test_wrong_calls_are_refused(call, message):
    with pytest.raises(InvalidInputError, match=message):
        call()


def test_what_is_printed():
    fit = plackett_luce([NAMES, NAMES[::-1], ["bob", "ann"]])
    assert fit.summary()[""].tolist()[0] == "bob" and "log likelihood" in str(fit)
    assert repr(fit).startswith("PlackettLuceResult(4 items")


def test_results_of_pairs_are_called_as_those_of_bradley_terry():
    """Pairs are the same model, and every name that both results have means the same."""
    votes = [["a", "b"]] * 3 + [["b", "a"]] + [["b", "c"]] * 2 + [["c", "a"], [("a", "b")], [("b", "c")]]
    ranked = Rankings.from_lists(votes)
    first, second, outcome = zip(*[(*vote[0], 0.5) if isinstance(vote[0], tuple) else (*vote, 1.0) for vote in votes])
    pairs, worths = fi.bradley_terry(fi.Comparisons.from_pairs(first, second, outcome), "davidson"), plackett_luce(ranked)
    shared = {field.name for field in dataclasses.fields(pairs)} & {field.name for field in dataclasses.fields(worths)}
    assert shared >= {"labels", "strength", "tie_parameters", "log_likelihood", "score_residual", "decrement", "converged",
                      "n_iter", "method", "ties", "component", "n_components", "prior_std", "weight_sum", "tol"}
    for name in ("labels", "ties", "n_components", "component", "prior_std", "weight_sum", "tol", "converged"):
        np.testing.assert_array_equal(getattr(pairs, name), getattr(worths, name))
    for name in ("strength", "std_error", "worth"):
        np.testing.assert_allclose(getattr(pairs, name), getattr(worths, name), rtol=0, atol=1e-7)
    assert pairs.tie_parameters[2] == pytest.approx(worths.tie_parameters[2], rel=1e-7)
    for kind in ("hessian", "robust"):
        np.testing.assert_allclose(pairs.covariance(kind), worths.covariance(kind), rtol=0, atol=1e-7)
        ours, theirs = (list(fit.parameter_errors(kind).values()) for fit in (pairs, worths))
        np.testing.assert_allclose(ours, theirs, rtol=1e-6)
    np.testing.assert_allclose(list(pairs.parameters.values()), list(worths.parameters.values()), atol=1e-7)
    one, other = list("abca"), list("bcac")
    for name in ("probability", "tie_probability"):
        np.testing.assert_allclose(getattr(pairs, name)(one, other), getattr(worths, name)(one, other), atol=1e-7)
        np.testing.assert_allclose(getattr(pairs, name)("a", ["b", "c"]), getattr(worths, name)("a", ["b", "c"]), atol=1e-7)
    there, back = worths.probability(one, other), worths.probability(other, one)
    np.testing.assert_allclose(there + back + worths.tie_probability(one, other), 1, rtol=1e-12)
    strict = plackett_luce([["a", "b"], ["b", "a"], ["a", "b"]])
    assert strict.probability("a", "b") == pytest.approx(2 / 3) and strict.tie_probability("a", "b") == 0
    assert pairs.summary().columns == worths.summary().columns[:5] and pairs.n_comparisons == worths.n_rankings


def test_intervals_and_ranks_are_those_of_bradley_terry_on_pairs():
    rng = np.random.default_rng(31)
    first = rng.integers(0, 6, 500)
    second = (first + rng.integers(1, 6, 500)) % 6
    strength = np.linspace(1, -1, 6)
    won = rng.random(500) < 1 / (1 + np.exp(strength[second] - strength[first]))
    winner, loser = np.where(won, first, second), np.where(won, second, first)
    pairs = fi.bradley_terry(fi.Comparisons.from_winners(winner, loser))
    ours = plackett_luce(np.column_stack([winner, loser]).tolist())
    for how in (False, "sidak", "bonferroni"):
        a, b = ours.intervals(0.9, how), pairs.intervals(0.9, how)
        np.testing.assert_allclose((a.lower, a.upper), (b.lower, b.upper), atol=1e-6)
        assert a.method == b.method and a.quantile == b.quantile
    draws = ours.intervals(0.9, True)
    assert draws.method == "draws" and draws.quantile == pytest.approx(pairs.intervals(0.9, "draws").quantile, rel=0.02)
    assert ours.intervals(0.9).quantile < draws.quantile < ours.intervals(0.9, "sidak").quantile
    i, table = ours.intervals(0.95, True), ours.rank_sets(0.95)
    at = {label: k for k, label in enumerate(i.labels.tolist())}
    for item, best, worst, rank in zip(table["item"].tolist(), table["best"], table["worst"], table["rank"]):
        assert best == 1 + (i.lower > i.upper[at[item]]).sum() and worst == 6 - (i.upper < i.lower[at[item]]).sum()
        assert best <= rank <= worst


def test_simultaneous_intervals_of_rankings_cover_all_at_once():
    rng, truth = np.random.default_rng(32), np.linspace(1, -1, 6)
    covered, ranks = 0, 0
    for _ in range(150):
        orders = np.argsort(-(truth + rng.gumbel(size=(120, 6))), axis=1)
        fit = plackett_luce(Rankings.from_arrays(orders))
        i = fit.intervals(0.9, True, rng=rng)
        covered += bool(((i.lower <= truth) & (truth <= i.upper)).all())
        table = fit.rank_sets(0.9, rng=rng)
        ranks += all(best <= item + 1 <= worst for item, best, worst in zip(table["item"], table["best"], table["worst"]))
    assert 0.82 < covered / 150 < 0.97 and ranks >= covered


def test_intervals_beyond_what_draws_can_do():
    fit = plackett_luce(Rankings.from_arrays(simulated(1600, 12_000, 5, np.random.default_rng(33))[0]))
    assert fit.intervals(simultaneous=True).method == "sidak"
    with pytest.raises(InvalidInputError, match="pass 'sidak'"):
        fit.intervals(simultaneous="draws")
    with pytest.raises(InvalidInputError, match="one component: there are 2"):
        plackett_luce([["a", "b"], ["b", "a"], ["a", "c"]], components="each").rank_sets()
