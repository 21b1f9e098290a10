"""Rewards from comparisons of trajectories: laws, limits, and answers from elsewhere.

Oracles: mpmath, SciPy's optimiser on the plain formula, central differences, Plackett-Luce by listing, Dijkstra by hand.
"""

import warnings

import mpmath
import numpy as np
import pytest
import small_mdps as small
import small_networks as roads
from scipy import optimize

import fastirl as fi
from fastirl.exceptions import ConvergenceWarning, DivergenceError, IdentificationWarning, InvalidInputError, SeparationError
from fastirl.trajectory_preferences import ReturnChoices, _visits

TRUTH = np.array([0.9, -0.6, 0.3])
NAMES = ["goal", "cost", "view"]


def world(seed=0, n=8, k=3, features=None):
    mdp = small.random_dense(n, 3, seed=seed).mdp
    features = np.random.default_rng(seed + 10).normal(size=(mdp.n_pairs, k)) if features is None else features
    return mdp.with_features(features, NAMES[:k] if k <= 3 else None, features_on="pair")


def drawn(mdp, n=40, seed=1, lengths=(3, 9)):
    """Trajectories of unequal lengths, so that every feature counts."""
    rng = np.random.default_rng(seed)
    start = np.full(mdp.n_states, 1.0 / mdp.n_states)
    parts = [fi.sample_trajectories(mdp, None, n // 2, rng, horizon=h, initial_distribution=start) for h in lengths]
    return fi.Trajectories.concatenate(parts, ids=[f"t{i}" for i in range(2 * (n // 2))])


def asked(trips, returns, n=300, seed=2, cluster=None):
    """Comparisons of random pairs, answered by Bradley-Terry."""
    rng = np.random.default_rng(seed)
    a = rng.integers(len(trips), size=n)
    b = (a + rng.integers(1, len(trips), size=n)) % len(trips)
    mu = (rng.random(n) < 1 / (1 + np.exp(returns[b] - returns[a]))).astype(float)
    return fi.Comparisons.from_pairs(trips.ids[a], trips.ids[b], mu, cluster=cluster), a, b, mu


@pytest.fixture(scope="module")
def case():
    mdp = world()
    trips = drawn(mdp)
    phi = np.asarray(_visits(mdp, trips, None)[0] @ mdp.features)
    comparisons, a, b, mu = asked(trips, phi @ TRUTH)
    return mdp, trips, phi, comparisons, a, b, mu


# -- the likelihood


def test_returns_are_sums_and_discounted_sums_along_the_trajectory():
    mdp = world()
    trips = drawn(mdp, 6)
    reward = mdp.features @ TRUTH
    for discount in (None, 0.8, 1.0):
        visits, _ = _visits(mdp, trips, discount)
        for n, trip in enumerate(trips):
            pairs = mdp.pair_index(trip.states[:-1], trip.actions)
            expected = sum((1.0 if discount is None else discount)**t * reward[p] for t, p in enumerate(pairs))
            np.testing.assert_allclose((visits @ reward)[n], expected, rtol=1e-12)


@pytest.mark.parametrize("gap", [0.0, 1e-9, 0.3, -0.3, 36.0, -36.0, 746.0, -746.0, 1e3, -1e3, 1e6, -1e6])
def test_no_plateau_the_likelihood_and_its_slope_are_exact_at_any_return(gap):
    choices = ReturnChoices(_identity(2), np.array([0]), np.array([1]), np.array([0, 1]), np.array([1.0]))
    log, p, own = choices.at(np.array([gap]))
    with mpmath.workdps(60):
        exact = -mpmath.log(1 + mpmath.exp(mpmath.mpf(gap)))
        slope = 1 / (1 + mpmath.exp(-mpmath.mpf(gap)))
    np.testing.assert_allclose([log[0], p[0], own[0]], [float(exact), float(slope), float(1 / (1 + mpmath.exp(gap)))], rtol=1e-14)


def test_k_wise_choices_are_exact_at_any_return():
    rng = np.random.default_rng(0)
    choices = ReturnChoices(_identity(5), np.zeros(4, int), np.arange(1, 5), np.array([0, 4]), np.ones(1))
    for scale in (1.0, 100.0, 5e3):
        d = scale * rng.normal(size=4)
        log, p, own = choices.at(d)
        with mpmath.workdps(60):
            e = [mpmath.exp(mpmath.mpf(float(x))) for x in d]
            total = 1 + sum(e)
            expected = [float(-mpmath.log(total)), *[float(x / total) for x in e], float(1 / total)]
        # where a share is below the smallest double it is 0
        np.testing.assert_allclose([log[0], *p, own[0]], expected, rtol=1e-12, atol=1e-300)


def _identity(n):
    from scipy import sparse

    return sparse.csr_array(np.eye(n))


def test_the_fit_is_the_maximum_that_scipy_finds(case):
    mdp, trips, phi, comparisons, a, b, mu = case
    learner = fi.PreferenceIRL().fit(mdp, trips, comparisons)

    def loss(theta):
        gap = (phi[a] - phi[b]) @ theta
        return float(np.sum(mu * np.logaddexp(0, -gap) + (1 - mu) * np.logaddexp(0, gap)))

    found = optimize.minimize(loss, np.zeros(3), method="Nelder-Mead", options={"xatol": 1e-10, "fatol": 1e-12, "maxiter": 4000})
    np.testing.assert_allclose(learner.coef_, found.x, atol=1e-6)
    np.testing.assert_allclose(learner.log_likelihood_, -found.fun, rtol=1e-12)
    np.testing.assert_allclose(learner.null_log_likelihood_, -mu.size * np.log(2), rtol=1e-12)
    assert learner.converged_ and learner.residual_ <= 1e-10
    np.testing.assert_allclose(learner.score(comparisons), learner.log_likelihood_ / mu.size, rtol=1e-12)


def test_a_wrong_start_at_returns_of_thousands_ends_at_the_same_maximum(case):
    mdp, trips, _, comparisons, *_ = case
    plain = fi.PreferenceIRL().fit(mdp, trips, comparisons)
    for start in ([-500.0, 400.0, 300.0], [2e3, 2e3, -2e3]):
        far = fi.PreferenceIRL(start=start).fit(mdp, trips, comparisons)
        assert far.converged_
        np.testing.assert_allclose(far.coef_, plain.coef_, atol=1e-8)


def test_features_in_thousands_change_the_units_of_weights_only(case):
    mdp, trips, _, comparisons, *_ = case
    plain = fi.PreferenceIRL().fit(mdp, trips, comparisons)
    units = np.array([1e3, 1e-4, 1.0])
    other = fi.PreferenceIRL().fit(mdp.with_features(mdp.features * units, NAMES, features_on="pair"), trips, comparisons)
    np.testing.assert_allclose(other.coef_ * units, plain.coef_, rtol=1e-7)
    np.testing.assert_allclose(other.standard_errors() * units, plain.standard_errors(), rtol=1e-6)


# -- laws


def test_flipping_every_answer_turns_the_reward_round(case):
    mdp, trips, _, comparisons, *_ = case
    learner, flipped = (fi.PreferenceIRL().fit(mdp, trips, c) for c in (comparisons, comparisons.flipped()))
    np.testing.assert_allclose(flipped.coef_, -learner.coef_, atol=1e-9)


def test_cannot_say_is_half_a_win_for_each_and_a_weight_is_a_repetition(case):
    mdp, trips, _, comparisons, a, b, mu = case
    soft = np.where(np.arange(mu.size) % 3 == 0, 0.5, np.where(np.arange(mu.size) % 3 == 1, 0.8, mu))
    first, second = trips.ids[a], trips.ids[b]
    one = fi.PreferenceIRL().fit(mdp, trips, fi.Comparisons.from_pairs(first, second, soft))
    halves = fi.Comparisons.from_pairs(np.tile(first, 2), np.tile(second, 2), np.repeat([1.0, 0.0], mu.size),
                                       weight=np.concatenate([soft, 1 - soft]))
    twice = fi.Comparisons.from_pairs(np.tile(first, 2), np.tile(second, 2), np.tile(soft, 2))
    double = fi.Comparisons.from_pairs(first, second, soft, weight=np.full(mu.size, 2.0))
    np.testing.assert_allclose(fi.PreferenceIRL().fit(mdp, trips, halves).coef_, one.coef_, atol=1e-10)
    fits = [fi.PreferenceIRL().fit(mdp, trips, c) for c in (twice, double)]
    np.testing.assert_allclose(fits[0].log_likelihood_, fits[1].log_likelihood_, rtol=1e-12)
    for kind in ("hessian", "robust"):
        np.testing.assert_allclose(fits[0].standard_errors(kind), fits[1].standard_errors(kind), rtol=1e-9)


def test_relabelling_and_reordering_trajectories_changes_nothing(case):
    mdp, trips, _, comparisons, a, b, mu = case
    order = np.random.default_rng(3).permutation(len(trips))
    names = np.array([f"name {i}" for i in range(len(trips))])
    shuffled = trips[order].replace(ids=names[order])
    other = fi.PreferenceIRL().fit(mdp, shuffled, fi.Comparisons.from_pairs(names[a], names[b], mu))
    np.testing.assert_allclose(other.coef_, fi.PreferenceIRL().fit(mdp, trips, comparisons).coef_, atol=1e-10)


def items(n):
    """A model in which a trajectory is one step, a different one for each item."""
    tensor = np.zeros((n + 1, 1, n + 1))
    tensor[:, 0, n] = 1.0
    mdp = fi.MDP(tensor, discount=0.9, terminal=[n])
    return mdp, fi.Trajectories.from_sequences([[i, n] for i in range(n)], actions=[[0]] * n)


def test_one_hot_trajectories_are_bradley_terry():
    n = 6
    mdp, trips = items(n)
    rng = np.random.default_rng(4)
    a, b = np.triu_indices(n, 1)
    a, b = np.repeat(a, 12), np.repeat(b, 12)
    mu = (rng.random(a.size) < 0.5).astype(float)
    wins = np.zeros((n, n))
    np.add.at(wins, (np.where(mu == 1, a, b), np.where(mu == 1, b, a)), 1)
    strength = np.ones(n)  # Zermelo's iteration
    for _ in range(5_000):
        strength = wins.sum(axis=1) / np.sum((wins + wins.T) / (strength[:, None] + strength), axis=1)
        strength /= np.exp(np.mean(np.log(strength)))
    with pytest.warns(IdentificationWarning, match="equally long"):
        learner = fi.PreferenceIRL(fi.FreeReward("pair")).fit(mdp, trips, fi.Comparisons.from_pairs(a, b, mu))
    np.testing.assert_allclose(learner.coef_, np.log(strength), atol=1e-9)
    assert abs(learner.coef_.sum()) < 1e-10 and len(learner.unidentified_) == 1
    np.testing.assert_allclose(learner.probability(0, 1), strength[0] / (strength[0] + strength[1]), rtol=1e-9)
    whole = fi.PreferenceIRL(fi.LinearReward(fixed={"x0": 0.0}))
    whole.fit(mdp.with_features(np.eye(n), features_on="pair"), trips, fi.Comparisons.from_pairs(a, b, mu))
    np.testing.assert_allclose(np.exp(whole.coef_), strength / strength[0], rtol=1e-8)


def test_rankings_of_two_are_comparisons(case):
    mdp, trips, _, comparisons, a, b, mu = case
    pairs = [(trips.ids[i], trips.ids[j]) if m == 1 else (trips.ids[j], trips.ids[i]) for i, j, m in zip(a, b, mu)]
    two, ranked = fi.PreferenceIRL().fit(mdp, trips, comparisons), fi.PreferenceIRL().fit(mdp, trips, rankings=pairs)
    np.testing.assert_allclose(ranked.coef_, two.coef_, atol=1e-9)
    for kind in ("hessian", "robust"):
        np.testing.assert_allclose(ranked.standard_errors(kind), two.standard_errors(kind), rtol=1e-8)
    np.testing.assert_allclose(ranked.accuracy_, two.accuracy_, rtol=1e-12)


def test_rankings_of_four_are_plackett_luce(case):
    mdp, trips, phi, *_ = case
    rng = np.random.default_rng(5)
    orders = []
    for _ in range(150):
        some = rng.choice(len(trips), 4, replace=False)
        orders.append(some[np.argsort(-(phi[some] @ TRUTH + rng.gumbel(size=4)))])

    def log_likelihood(theta):
        total = 0.0
        for order in orders:
            r = phi[order] @ theta
            total += sum(r[j] - np.logaddexp.reduce(r[j:]) for j in range(3))
        return total

    learner = fi.PreferenceIRL().fit(mdp, trips, rankings=[list(trips.ids[o]) for o in orders])
    np.testing.assert_allclose(learner.log_likelihood_, log_likelihood(learner.coef_), rtol=1e-12)
    found = optimize.minimize(lambda t: -log_likelihood(t), np.zeros(3), tol=1e-12)
    np.testing.assert_allclose(learner.coef_, found.x, atol=1e-5)
    step = 1e-4
    hessian = np.array([[(log_likelihood(learner.coef_ + step * (u + v)) - log_likelihood(learner.coef_ + step * (u - v))
                          - log_likelihood(learner.coef_ - step * (u - v)) + log_likelihood(learner.coef_ - step * (u + v)))
                         / (4 * step**2) for u in np.eye(3)] for v in np.eye(3)])
    np.testing.assert_allclose(learner.covariance(), np.linalg.inv(-hessian), rtol=1e-4)
    np.testing.assert_allclose(np.sort(TRUTH), np.sort(learner.coef_), atol=0.2)


def test_one_hot_trajectories_are_bradley_terry_and_plackett_luce_of_this_package():
    mdp, trips = items(5)
    rng = np.random.default_rng(7)
    a, b = np.triu_indices(5, 1)
    comparisons = fi.Comparisons.from_pairs(np.tile(a, 20), np.tile(b, 20), rng.choice([0.0, 0.5, 1.0], size=200))
    rankings = fi.Rankings.from_arrays(np.array([rng.permutation(5) for _ in range(60)]), n_ranked=2)
    with pytest.warns(IdentificationWarning):
        pairs = fi.PreferenceIRL(fi.FreeReward("pair")).fit(mdp, trips, comparisons)
        orders = fi.PreferenceIRL(fi.FreeReward("pair")).fit(mdp, trips, rankings=rankings)
    for learner, other in ((pairs, fi.bradley_terry(comparisons)), (orders, fi.plackett_luce(rankings))):
        np.testing.assert_allclose(learner.coef_, other.strength - np.mean(other.strength), atol=1e-7)
        np.testing.assert_allclose(learner.log_likelihood_, other.log_likelihood, rtol=1e-9)


def test_those_below_lost_to_those_ranked(case):
    mdp, trips, *_ = case
    rng = np.random.default_rng(6)
    sets = [rng.choice(len(trips), 4, replace=False) for _ in range(60)]
    names = [list(trips.ids[s]) for s in sets]
    first = fi.Rankings.from_lists([row[:1] for row in names], below=[row[1:] for row in names])
    learner = fi.PreferenceIRL(fi.LinearReward(l2=0.1)).fit(mdp, trips, rankings=first)
    phi = np.asarray(_visits(mdp, trips, None)[0] @ mdp.features)
    expected = sum((phi[s] @ learner.coef_)[0] - np.logaddexp.reduce(phi[s] @ learner.coef_) for s in sets)
    np.testing.assert_allclose(learner.log_likelihood_, expected, rtol=1e-12)
    whole = fi.Rankings.from_lists(names, cluster=np.arange(60) % 7)
    listed = fi.PreferenceIRL(fi.LinearReward(l2=0.1)).fit(mdp, trips, rankings=names, ranking_cluster=np.arange(60) % 7)
    given = fi.PreferenceIRL(fi.LinearReward(l2=0.1)).fit(mdp, trips, rankings=whole)
    np.testing.assert_allclose(given.covariance("clustered"), listed.covariance("clustered"), rtol=1e-12)
    with pytest.raises(InvalidInputError, match="no ties"):
        fi.PreferenceIRL().fit(mdp, trips, rankings=fi.Rankings.from_lists([["t0", ("t1", "t2")]]))


def test_a_linear_reward_written_as_a_module_learns_the_same(case):
    torch = pytest.importorskip("torch")
    mdp, trips, _, comparisons, *_ = case
    torch.manual_seed(0)
    deep = fi.PreferenceIRL(fi.TorchReward(torch.nn.Linear(3, 1, bias=False), l2=0.5), tol=1e-14)
    deep.fit(mdp, trips, comparisons)
    plain = fi.PreferenceIRL(fi.LinearReward(l2=0.5)).fit(mdp, trips, comparisons)
    np.testing.assert_allclose(deep.coef_, plain.coef_, atol=1e-5)
    with pytest.raises(InvalidInputError, match="not linear"):
        deep.covariance()


def test_penalties_and_bounds_have_their_optimality_conditions(case):
    mdp, trips, phi, comparisons, a, b, mu = case

    def slope(theta):
        gap = (phi[a] - phi[b]) @ theta
        return (phi[a] - phi[b]).T @ (mu - 1 / (1 + np.exp(-gap)))

    ridge = fi.PreferenceIRL(fi.LinearReward(l2=3.0)).fit(mdp, trips, comparisons)
    np.testing.assert_allclose(slope(ridge.coef_), 3.0 * ridge.coef_, atol=1e-7)
    assert abs(ridge.penalty_ - 1.5 * ridge.coef_ @ ridge.coef_) < 1e-12
    size = float(np.median(np.abs(slope(np.zeros(3)))))
    lasso = fi.PreferenceIRL(fi.LinearReward(l1=size), tol=1e-14).fit(mdp, trips, comparisons)
    on = lasso.coef_ != 0
    assert 0 < on.sum() < 3 and lasso.converged_
    np.testing.assert_allclose(slope(lasso.coef_)[on], size * np.sign(lasso.coef_[on]), atol=1e-3)
    assert (np.abs(slope(lasso.coef_)[~on]) <= size + 1e-6).all()
    bounded = fi.PreferenceIRL(fi.LinearReward(bounds={"goal": (None, 0.5)}), tol=1e-14).fit(mdp, trips, comparisons)
    assert bounded.coef_[0] == 0.5 and slope(bounded.coef_)[0] > 0
    np.testing.assert_allclose(slope(bounded.coef_)[1:], 0.0, atol=1e-3)
    with pytest.raises(InvalidInputError, match="a bound holds"):
        bounded.standard_errors()


def test_held_weights_are_held_and_the_others_make_up_for_them(case):
    mdp, trips, phi, comparisons, a, b, mu = case
    learner = fi.PreferenceIRL(fi.LinearReward(fixed={"cost": -2.0})).fit(mdp, trips, comparisons)
    assert learner.coef_[1] == -2.0 and learner.standard_errors()[1] == 0.0
    gap = (phi[a] - phi[b]) @ learner.coef_
    np.testing.assert_allclose(((phi[a] - phi[b]).T @ (mu - 1 / (1 + np.exp(-gap))))[[0, 2]], 0.0, atol=1e-7)


# -- uncertainty


def test_the_covariance_is_the_inverse_of_what_differences_give(case):
    mdp, trips, phi, comparisons, a, b, mu = case
    for l2 in (0.0, 2.0):
        learner = fi.PreferenceIRL(fi.LinearReward(l2=l2)).fit(mdp, trips, comparisons)

        def slope(theta):
            gap = (phi[a] - phi[b]) @ theta
            return (phi[a] - phi[b]).T @ (mu - 1 / (1 + np.exp(-gap))) - l2 * theta  # noqa: B023

        hessian = np.array([(slope(learner.coef_ - 1e-5 * u) - slope(learner.coef_ + 1e-5 * u)) / 2e-5 for u in np.eye(3)])
        np.testing.assert_allclose(learner.covariance(), np.linalg.inv(hessian), rtol=1e-6)
        gap = (phi[a] - phi[b]) @ learner.coef_
        scores = (mu - 1 / (1 + np.exp(-gap)))[:, None] * (phi[a] - phi[b])
        bread = np.linalg.inv(hessian)
        np.testing.assert_allclose(learner.covariance("robust"), bread @ scores.T @ scores @ bread, rtol=1e-6)


def test_laplace_posterior_is_the_posterior_where_answers_are_many(case):
    mdp, trips, phi, *_ = case
    comparisons, a, b, mu = asked(trips, phi[:, :1] @ [0.4], n=400, seed=8)
    learner = fi.PreferenceIRL(fi.LinearReward(l2=1.0, fixed={"cost": 0.0, "view": 0.0})).fit(mdp, trips, comparisons)
    grid = learner.coef_[0] + np.linspace(-8, 8, 4001) * learner.standard_errors()[0]
    gap = np.outer(grid, (phi[a] - phi[b])[:, 0])
    log = -(mu * np.logaddexp(0, -gap) + (1 - mu) * np.logaddexp(0, gap)).sum(axis=1) - 0.5 * grid**2
    density = np.exp(log - log.max())
    density /= density.sum()
    mean = density @ grid
    np.testing.assert_allclose(np.sqrt(density @ (grid - mean)**2), learner.standard_errors()[0], rtol=0.03)
    draws = learner.sample_posterior(4000, np.random.default_rng(0))
    np.testing.assert_allclose(draws[:, 0].std(), learner.standard_errors()[0], rtol=0.05)
    assert (draws[:, 1:] == 0).all()


def test_without_an_answer_the_posterior_is_the_prior():
    mdp = world()
    trips = drawn(mdp, 4)
    none = fi.Comparisons.from_pairs([], [], [])
    learner = fi.PreferenceIRL(fi.LinearReward(l2=4.0)).fit(mdp, trips, none)
    np.testing.assert_array_equal(learner.coef_, 0.0)
    np.testing.assert_allclose(learner.covariance(), np.eye(3) / 4.0)


def test_intervals_cover_as_often_as_they_say(case):
    mdp, trips, phi, *_ = case
    inside, n = np.zeros(3), 600
    for seed in range(n):
        comparisons = asked(trips, phi @ TRUTH, n=150, seed=100 + seed)[0]
        low, high = fi.PreferenceIRL().fit(mdp, trips, comparisons).credible_intervals().T
        inside += (low <= TRUTH) & (TRUTH <= high)
    # of 600 with chance 0.95 each: 0.95 ± 3 standard errors
    assert (np.abs(inside / n - 0.95) <= 3 * np.sqrt(0.95 * 0.05 / n)).all()


def test_clusters_of_one_are_robust_and_repeating_an_answer_in_its_cluster_adds_nothing(case):
    mdp, trips, _, comparisons, a, b, mu = case
    first, second = trips.ids[a], trips.ids[b]
    alone = fi.Comparisons.from_pairs(first, second, mu, cluster=np.arange(mu.size))
    learner = fi.PreferenceIRL().fit(mdp, trips, alone)
    np.testing.assert_allclose(learner.covariance("clustered"), learner.covariance("robust"), rtol=1e-10)
    thrice = fi.Comparisons.from_pairs(np.tile(first, 3), np.tile(second, 3), np.tile(mu, 3),
                                       cluster=np.tile(np.arange(mu.size), 3))
    repeated = fi.PreferenceIRL().fit(mdp, trips, thrice)
    np.testing.assert_allclose(repeated.covariance("clustered"), learner.covariance("robust"), rtol=1e-8)
    with pytest.raises(InvalidInputError, match="cluster"):
        fi.PreferenceIRL().fit(mdp, trips, comparisons).standard_errors("clustered")


def test_the_bootstrap_spreads_as_standard_errors_say(case):
    mdp, trips, _, comparisons, *_ = case
    learner = fi.PreferenceIRL().fit(mdp, trips, comparisons)
    fits = learner.bootstrap(200, np.random.default_rng(0))
    np.testing.assert_allclose(np.std([f.coef_ for f in fits], axis=0), learner.standard_errors("robust"), rtol=0.25)
    again = learner.bootstrap(2, np.random.default_rng(0))
    np.testing.assert_array_equal(again[0].coef_, fits[0].coef_)


# -- what comparisons cannot tell


def test_a_constant_reward_is_unidentified_where_trajectories_are_equally_long():
    mdp = world()
    mdp = mdp.with_features(np.column_stack([mdp.features, np.ones(mdp.n_pairs)]), [*NAMES, "step"], features_on="pair")
    trips = drawn(mdp, lengths=(5, 5))
    phi = np.asarray(_visits(mdp, trips, None)[0] @ mdp.features)
    comparisons, *_ = asked(trips, phi[:, :3] @ TRUTH)
    with pytest.warns(IdentificationWarning, match="'step'.*equally long"):
        learner = fi.PreferenceIRL().fit(mdp, trips, comparisons)
    assert learner.unidentified_ == (("step",),)
    assert learner.coef_[3] == 0.0 and np.isinf(learner.standard_errors()[3])
    assert np.isfinite(learner.standard_errors()[:3]).all()
    with pytest.raises(InvalidInputError, match="'step'.*l2"):
        learner.sample_posterior(1, np.random.default_rng(0))
    with warnings.catch_warnings():  # a prior speaks for it: no warning, but it is listed
        warnings.simplefilter("error")
        prior = fi.PreferenceIRL(fi.LinearReward(l2=0.5)).fit(mdp, trips, comparisons)
    assert prior.unidentified_ == (("step",),) and "only by the penalty" in str(prior.summary())
    np.testing.assert_allclose(prior.standard_errors()[3], 1 / np.sqrt(0.5), rtol=1e-9)
    unequal = drawn(mdp)
    phi = np.asarray(_visits(mdp, unequal, None)[0] @ mdp.features)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert fi.PreferenceIRL().fit(mdp, unequal, asked(unequal, phi @ [*TRUTH, -0.1])[0]).unidentified_ == ()


@pytest.mark.parametrize("discount", [None, 0.7])
def test_potentials_are_unidentified_where_trajectories_start_alike_and_end_alike(discount):
    problem = small.grid(side=3, slip=0.0, goals=(8,))
    mdp = problem.mdp
    potential = np.random.default_rng(0).normal(size=mdp.n_states)
    potential[8] = 0.3
    gamma = 1.0 if discount is None else discount
    shaping = gamma * (mdp.transitions @ potential) - potential[mdp.pair_state]
    other = np.random.default_rng(1).normal(size=mdp.n_pairs)
    mdp = mdp.with_features(np.column_stack([other, shaping]), ["other", "shaping"], features_on="pair")
    start = np.zeros(mdp.n_states)
    start[0] = 1.0
    trips = fi.sample_trajectories(mdp, None, 400, np.random.default_rng(2), initial_distribution=start)
    if discount is not None:  # γ^T Φ(end) tells lengths apart: equal ones only
        trips = trips[np.diff(trips.offsets) == 7]
    returns = _visits(mdp, trips, discount)[0] @ (0.3 * other)
    with pytest.warns(IdentificationWarning, match="'shaping'"):
        learner = fi.PreferenceIRL(discount=discount).fit(mdp, trips, asked(trips, returns)[0])
    assert learner.unidentified_ == (("shaping",),) and "potential" in learner.reasons_[0]
    assert abs(learner.coef_[1]) < 1e-9


def test_shared_and_collinear_features_are_named():
    mdp = world()
    x = mdp.features
    mdp = mdp.with_features(np.column_stack([x, x[:, 0] - 2 * x[:, 2], np.zeros(mdp.n_pairs)]), [*NAMES, "both", "never"],
                            features_on="pair")
    trips = drawn(mdp)
    phi = np.asarray(_visits(mdp, trips, None)[0] @ x)
    with pytest.warns(IdentificationWarning):
        learner = fi.PreferenceIRL().fit(mdp, trips, asked(trips, phi @ TRUTH)[0])
    assert [set(names) for names in learner.unidentified_] == [{"never"}, {"goal", "view", "both"}]
    np.testing.assert_allclose(learner.coef_[0] + learner.coef_[3], TRUTH[0], atol=0.4)
    # of all maxima the least: orthogonal to what is not identified
    np.testing.assert_allclose(learner.coef_[[0, 2, 3]] @ [1, -2, -1], 0.0, atol=1e-9)


def test_separated_comparisons_are_a_named_error_whose_way_out_works(case):
    mdp, trips, phi, *_ = case
    returns = phi @ TRUTH
    order = np.argsort(returns)
    never_wrong = fi.Comparisons.from_pairs(trips.ids[order[1:]], trips.ids[order[:-1]], 1)
    with pytest.raises(SeparationError, match="pass a prior") as failure:
        fi.PreferenceIRL().fit(mdp, trips, never_wrong)
    v = np.array([failure.value.direction.get(name, 0.0) for name in NAMES])
    gain = (phi[order[1:]] - phi[order[:-1]]) @ v
    assert gain.min() >= -1e-9 and gain.max() > 0
    assert fi.PreferenceIRL(fi.LinearReward(l2=0.01)).fit(mdp, trips, never_wrong).converged_
    # one answer against the order is not enough where another direction separates still
    with pytest.raises(SeparationError):
        fi.PreferenceIRL(fi.LinearReward(bounds={"goal": (0, None)})).fit(mdp, trips, never_wrong)
    learner = fi.PreferenceIRL()
    with pytest.raises(SeparationError):
        learner.fit(mdp, trips, never_wrong)
    assert not hasattr(learner, "coef_")


def test_quasi_separation_is_separation():
    """One feature is contradicted, the other never: its weight runs away alone."""
    mdp, trips = items(4)
    mdp = mdp.with_features(np.array([[0.0, 0], [1, 0], [0, 1], [1, 1]]), ["decided", "doubted"], features_on="pair")
    answers = fi.Comparisons.from_pairs([1, 2, 0, 3, 3], [0, 0, 2, 2, 1], [1, 1, 1, 1, 0.6])
    with pytest.raises(SeparationError) as failure:
        fi.PreferenceIRL().fit(mdp, trips, answers)
    assert set(failure.value.direction) == {"decided"}


def test_weight_zero_counts_nothing(case):
    mdp, trips, _, comparisons, a, b, mu = case
    extra = fi.Comparisons.from_pairs(np.append(trips.ids[a], "t0"), np.append(trips.ids[b], "t1"), np.append(mu, 1.0),
                                      weight=np.append(np.ones(mu.size), 0.0))
    np.testing.assert_allclose(fi.PreferenceIRL().fit(mdp, trips, extra).coef_,
                               fi.PreferenceIRL().fit(mdp, trips, comparisons).coef_, atol=1e-12)


def test_running_out_of_iterations_is_said(case):
    mdp, trips, _, comparisons, *_ = case
    with pytest.warns(ConvergenceWarning, match="max_iter=1"):
        assert not fi.PreferenceIRL(max_iter=1).fit(mdp, trips, comparisons).converged_


# -- input as people type it


@pytest.mark.parametrize("call, message", [
    (lambda m, t, c: fi.PreferenceIRL("linear"), "must be a reward"),
    (lambda m, t, c: fi.PreferenceIRL(discount=1.5), "discount"),
    (lambda m, t, c: fi.PreferenceIRL(planner="greedy"), "'soft', 'hard'"),
    (lambda m, t, c: fi.PreferenceIRL().fit(t, t, c), "MDP or a RoadNetwork"),
    (lambda m, t, c: fi.PreferenceIRL().fit(m, c, c), "must be Trajectories"),
    (lambda m, t, c: fi.PreferenceIRL().fit(m, t, [("t0", "t1", 1)]), "Comparisons.from_pairs"),
    (lambda m, t, c: fi.PreferenceIRL().fit(m, t), "must have some weight"),
    (lambda m, t, c: fi.PreferenceIRL().fit(m, t, fi.Comparisons.from_pairs(["t0"], ["ghost"], [1])), "'ghost'"),
    (lambda m, t, c: fi.PreferenceIRL().fit(m, t, fi.Comparisons.from_pairs([0], [1], [1])), "labels here are integers"),
    (lambda m, t, c: fi.PreferenceIRL().fit(m, t, fi.Comparisons.from_pairs(["t0"], ["t1"], [1], weight=[0])), "some weight"),
    (lambda m, t, c: fi.PreferenceIRL().fit(m, t, rankings=[["t0"]]), "at least two"),
    (lambda m, t, c: fi.PreferenceIRL().fit(m, t, rankings=["t0", "t1"]), "list of lists"),
    (lambda m, t, c: fi.PreferenceIRL().fit(m, t, rankings=[["t0", "t1", "t0"]]), "ranking 0"),
    (lambda m, t, c: fi.PreferenceIRL().fit(m, t, rankings=[["t0", "nobody"]]), "'nobody'"),
    (lambda m, t, c: fi.PreferenceIRL().fit(m, t, rankings=[["t0", "t1"]], ranking_weight=[-1]), "ranking_weight"),
    (lambda m, t, c: fi.PreferenceIRL(start=[1.0]).fit(m, t, c), "each of the 3"),
    (lambda m, t, c: fi.PreferenceIRL().fit(small.random_dense(8, 3, seed=0).mdp, t, c), "features"),
    (lambda m, t, c: fi.PreferenceIRL().covariance(), "must be fitted"),
    (lambda m, t, c: fi.PreferenceIRL().fit(m, t, c).covariance("sandwich"), "'robust'"),
    (lambda m, t, c: fi.PreferenceIRL().fit(m, t, c).credible_intervals(95), "level"),
    (lambda m, t, c: fi.PreferenceIRL().fit(m, t, c).sample_posterior(3, 0), "Generator"),
    (lambda m, t, c: fi.PreferenceIRL().fit(m, t, c).accuracy(fi.Comparisons.from_pairs(["t0"], ["t1"], 0.5)), "say ½"),
    (lambda m, t, c: fi.PreferenceIRL().fit(m, t, c).probability("t0", "nobody"), "'nobody'"),
])
def test_wrong_input_is_named(case, call, message):
    mdp, trips, _, comparisons, *_ = case
    with pytest.raises((InvalidInputError, fi.NotFittedError), match=message):
        call(mdp, trips, comparisons)


# -- planning, and roads


def test_the_policy_is_that_of_the_learned_reward(case):
    mdp, trips, _, comparisons, *_ = case
    soft = fi.PreferenceIRL(temperature=0.5).fit(mdp, trips, comparisons)
    planned = fi.soft_value_iteration(mdp, mdp.features @ soft.coef_, "pair", temperature=0.5)
    np.testing.assert_allclose(soft.policy(), planned.policy)
    hard = fi.PreferenceIRL(planner="hard", horizon=4).fit(mdp, trips, comparisons)
    np.testing.assert_array_equal(hard.policy(), fi.value_iteration(mdp, hard.reward_, "pair", horizon=4).policy)
    assert soft.visitation().state.shape == (mdp.n_states,)


@pytest.fixture(scope="module")
def routes():
    graph = roads.chain(8)
    rng = np.random.default_rng(3)
    arcs = roads.both_ways(np.array([(i, j) for i in range(8) for j in (i + 1, i + 3) if j < 8]))
    features = np.column_stack([rng.uniform(0.5, 2.0, len(arcs)), rng.random(len(arcs)) < 0.4]).astype(float)
    net = fi.RoadNetwork.from_arcs(graph.n, arcs[:, 0], arcs[:, 1], features, ["length", "steep"], state_ids=list("abcdefgh"))
    ptr, taken = fi.sample_routes(net, features @ [-1.0, -0.2], "a", "h", 60, rng)
    states = [["a", *net.state_ids[net.head[taken[i:j]]]] for i, j in zip(ptr[:-1], ptr[1:])]
    trips = fi.Trajectories.from_sequences(states)
    returns = _visits(net, trips, None)[0] @ (features @ [-1.0, -0.8])
    return net, trips, asked(trips, returns, n=500)[0]


def test_routes_are_compared_and_the_best_one_follows(routes):
    net, trips, comparisons = routes
    learner = fi.PreferenceIRL(planner="hard").fit(net, trips, comparisons)
    np.testing.assert_allclose(learner.coef_, [-1.0, -0.8], atol=4 * learner.standard_errors().max())
    best = learner.predict_route("a", "h")
    np.testing.assert_array_equal(best.arcs, fi.predict_routes(net, learner.reward_, ["a"], ["h"])[0])
    chances = learner.policy("h")
    out = np.bincount(net.tail, chances, minlength=net.n_states)
    np.testing.assert_array_equal(out, (net.state_ids != "h").astype(float))
    soft = fi.PreferenceIRL(temperature=0.5).fit(net, trips, comparisons)
    np.testing.assert_allclose(soft.policy("h"), fi.choice_probabilities(net, soft.reward_ / 0.5, "h"))


def test_circles_that_pay_are_a_named_error_on_roads(routes):
    net, trips, comparisons = routes
    gain = fi.PreferenceIRL(planner="hard").fit(net, trips, comparisons.flipped())
    with pytest.raises(DivergenceError, match="circles"):
        gain.policy("h")
    bounded = fi.LinearReward(bounds={"length": (None, -0.1), "steep": (None, 0.0)})
    cheap = fi.PreferenceIRL(bounded, planner="hard").fit(net, trips, comparisons.flipped())
    np.testing.assert_array_equal(cheap.coef_, [-0.1, 0.0])
    assert cheap.predict_route("a", "h").states[-1] == "h"


def test_probabilities_and_scores_of_held_out_comparisons(case):
    mdp, trips, phi, comparisons, *_ = case
    learner = fi.PreferenceIRL().fit(mdp, trips, comparisons)
    fresh = drawn(mdp, 20, seed=9)
    held = asked(fresh, np.asarray(_visits(mdp, fresh, None)[0] @ mdp.features) @ TRUTH, n=200, seed=11)[0]
    returns = learner.returns(fresh)
    np.testing.assert_allclose(returns, learner.return_features(fresh) @ learner.coef_, rtol=1e-12)
    labels = held.labels
    log = [np.log(learner.probability(labels[i] if mu else labels[j], labels[j] if mu else labels[i], fresh))
           for i, j, mu in zip(held.first, held.second, held.outcome)]
    np.testing.assert_allclose(learner.score(held, fresh), np.mean(log), rtol=1e-10)
    assert learner.score(held, fresh) > -np.log(2) and learner.accuracy(held, fresh) > 0.75
    both = learner.probability([labels[0]] * 2, labels[1:3], fresh)
    assert both.shape == (2,)
