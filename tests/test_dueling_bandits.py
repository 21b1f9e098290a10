"""Dueling bandits: regret that stops growing, the published order of methods, seeds, and steps followed by hand."""

import copy
import functools
import math
import pickle

import numpy as np
import pytest

from fastirl import (
    RUCB, BeatTheMean, CopelandConfidenceBound, DoubleThompsonSampling, DuelingBandit, DuelSimulation, PairwiseMatrix,
    RandomDuels, Rankings, simulate_duels,
)
from fastirl import _comparisons as kernels
from fastirl import _comparisons_reference as twin
from fastirl.exceptions import InvalidInputError
from real_data import need

LEARNERS = {"RUCB": RUCB, "D-TS": DoubleThompsonSampling, "CCB": CopelandConfidenceBound}
BANDITS = [RandomDuels, *LEARNERS.values(), functools.partial(BeatTheMean, horizon=1000)]


def bradley_terry(strength):
    strength = np.asarray(strength, float)
    return 1 / (1 + np.exp(strength - strength[:, None]))


def cycle():
    """Three items in a circle, above two others that are below each of them."""
    p = np.full((5, 5), 0.5)
    for i, j, value in ((0, 1, .7), (1, 2, .7), (2, 0, .7), (0, 3, .9), (0, 4, .9), (1, 3, .9), (1, 4, .9), (2, 3, .9),
                        (2, 4, .9), (3, 4, .6)):
        p[i, j], p[j, i] = value, 1 - value
    return p


def halves(runs):
    """Mean regret of the first and of the second half of the duels."""
    middle = runs.shape[1] // 2 - 1
    return runs[:, middle].mean(), (runs[:, -1] - runs[:, middle]).mean()


# --- regret ------------------------------------------------------------------------------------------


def test_regret_is_sublinear_and_far_below_that_of_random_duels():
    p = bradley_terry([1.5, 0.7, 0.3, 0.0, -0.4, -1.0])
    found = simulate_duels({"random": RandomDuels, **LEARNERS}, p, 4000, 4, np.random.default_rng(0))
    for kind in ("condorcet", "copeland", "borda"):
        first, second = halves(found.regret[kind]["random"])
        assert second == pytest.approx(first, rel=0.05)
        for name in LEARNERS:
            begin, end = halves(found.regret[kind][name])
            assert end < 0.5 * begin and begin + end < 0.25 * (first + second), (kind, name)
    assert all(share == 1.0 for name, share in found.share_best["condorcet"].items())


def test_the_published_order_on_sushi():
    """Zoghi et al. (2014): RUCB far below Beat the Mean; Wu and Liu (2016): double Thompson sampling below RUCB."""
    c = PairwiseMatrix.from_rankings(Rankings.read_preflib(need("ranking") / "sushi10" / "sushi.soc"))
    bandits = {"BTM": functools.partial(BeatTheMean, horizon=6000), "RUCB": RUCB, "D-TS": DoubleThompsonSampling}
    found = simulate_duels(bandits, c, 6000, 3, np.random.default_rng(1))
    final = {name: runs[:, -1].mean() for name, runs in found.regret["condorcet"].items()}
    assert final["D-TS"] < 0.6 * final["RUCB"] and final["RUCB"] < 0.3 * final["BTM"]
    assert found.winners["condorcet"] == ("tamago (egg)",)


def test_in_a_circle_only_copeland_bandits_settle():
    found = simulate_duels({"RUCB": RUCB, "D-TS": DoubleThompsonSampling, "CCB": CopelandConfidenceBound}, cycle(), 6000, 3,
                           np.random.default_rng(2))
    assert set(found.regret) == {"copeland", "borda"} and found.winners["copeland"] == (0, 1, 2)
    for name in ("D-TS", "CCB"):
        begin, end = halves(found.regret["copeland"][name])
        assert end < 0.35 * begin, name
    with pytest.raises(InvalidInputError, match="no item wins against all"):
        found.curves("condorcet")


def test_beat_the_mean_drops_the_worst_first_and_keeps_the_best():
    p = bradley_terry([4.0, 0.0, -4.0])
    horizon = 30_000
    found = simulate_duels({"BTM": functools.partial(BeatTheMean, horizon=horizon)}, p, horizon, 2, np.random.default_rng(3))
    begin, end = halves(found.regret["condorcet"]["BTM"])
    assert end < 0.5 * begin and found.share_best["condorcet"]["BTM"] == 1.0
    bandit, rng, gone = BeatTheMean(3, np.random.default_rng(4), horizon), np.random.default_rng(5), []
    while len(bandit.left) > 1:
        before = bandit.left
        i, j = bandit.choose()
        bandit.update(i, j, float(rng.random() < p[i, j]))
        gone += [item for item in before if item not in bandit.left]
    assert gone == [2, 1] and bandit.choose() == (0, 0) and bandit.best() == 0


def test_regret_is_what_the_definitions_say():
    p = np.array([[0.5, 0.8, 0.6], [0.2, 0.5, 0.7], [0.4, 0.3, 0.5]])

    class Script(DuelingBandit):
        plan = [(0, 0), (1, 2), (0, 1), (2, 2)]

        def choose(self):
            return self.plan[self.n_duels]

    found = simulate_duels({"script": Script}, p, 4, 1, np.random.default_rng(0))
    assert found.times.tolist() == [1, 2, 3, 4]
    gaps = {"condorcet": [0.0, 0.3, 0.1], "copeland": [0, 0.5, 1.0], "borda": [0.0, 0.25, 0.35]}
    for kind, gap in gaps.items():
        cost = [0.5 * (gap[i] + gap[j]) for i, j in Script.plan]
        np.testing.assert_allclose(found.regret[kind]["script"], [np.cumsum(cost)], rtol=1e-12, atol=1e-15)


def test_outcomes_have_the_probabilities_given():
    class Fixed(DuelingBandit):
        def choose(self):
            return 0, 1

    kept = []

    def factory(n, rng):
        kept.append(Fixed(n, rng))
        return kept[-1]

    simulate_duels({"fixed": factory}, [[0.5, 0.3], [0.7, 0.5]], 20_000, 1, np.random.default_rng(6))
    share = kept[0].wins[0, 1] / 20_000
    assert abs(share - 0.3) < 4 * math.sqrt(0.21 / 20_000)
    assert kept[0].wins.sum() == kept[0].n_duels == 20_000


# --- seeds and relabelling -----------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_simulation():
    p = bradley_terry([1.0, 0.0, -1.0])
    bandits = {"random": RandomDuels, **LEARNERS, "BTM": functools.partial(BeatTheMean, horizon=300)}
    one, two, other = (simulate_duels(bandits, p, 300, 2, np.random.default_rng(seed)) for seed in (7, 7, 8))
    for name in bandits:
        np.testing.assert_array_equal(one.regret["borda"][name], two.regret["borda"][name])
        assert not np.array_equal(one.regret["borda"][name], other.regret["borda"][name])
    assert isinstance(one, DuelSimulation)


@pytest.mark.parametrize("kind", BANDITS)
def test_a_bandit_is_called_one_way(kind):
    bandit, rng = kind(4, np.random.default_rng(0)), np.random.default_rng(1)
    assert isinstance(bandit, DuelingBandit)
    for _ in range(200):
        i, j = bandit.choose()
        assert type(i) is int and type(j) is int and 0 <= i < 4 and 0 <= j < 4
        bandit.update(i, j, float(rng.integers(0, 3)) / 2)
    assert bandit.n_duels == 200 and 0 <= bandit.best() < 4
    np.testing.assert_array_equal((bandit.wins * 2) % 1, 0)


def test_counts_and_bounds_follow_the_updates():
    bandit = RUCB(3, np.random.default_rng(0))
    for i, j, outcome in ((0, 1, True), (np.int64(1), 0.0, 1), (0, 1, 0.5), (2, 1, 0), (2, 2, 0.5)):
        bandit.update(i, j, outcome)
    assert bandit.wins.tolist() == [[0, 1.5, 0], [1.5, 0, 1], [0, 0, 0]]
    upper, lower = twin.duel_bounds(bandit.wins, bandit._scale())
    radius = math.sqrt(0.51 * math.log(6))
    np.testing.assert_allclose(upper, [[0.5, 0.5 + radius / math.sqrt(3), 1], [0.5 + radius / math.sqrt(3), 0.5, 1 + radius],
                                       [1, radius, 0.5]], rtol=1e-14)
    np.testing.assert_allclose(lower, [[0.5, 0.5 - radius / math.sqrt(3), 0], [0.5 - radius / math.sqrt(3), 0.5, 1 - radius],
                                       [0, -radius, 0.5]], rtol=1e-14)
    assert bandit.best() == 1
    kept = bandit._high + bandit._scale() * bandit._width, bandit._low - bandit._scale() * bandit._width
    np.testing.assert_allclose(kept, (upper, lower), rtol=1e-14, atol=1e-14)


# --- kernels and their twins ------------------------------------------------------------------------------


def played(kind, n, n_duels, seed, ties=False):
    """A bandit that has played: bounds of all sorts, some pairs never met."""
    rng = np.random.default_rng(seed)
    bandit = kind(n, np.random.default_rng(seed))
    for _ in range(n_duels):
        bandit.update(*map(int, rng.choice(n, 2, replace=False)), float(rng.integers(0, 3) / 2 if ties else rng.integers(0, 2)))
    return bandit


@pytest.mark.parametrize("n, n_duels", [(2, 0), (2, 5), (3, 2), (6, 40), (6, 4000), (25, 900)])
def test_kernels_of_duels_equal_numpy(n, n_duels):
    bandit, rng = played(RUCB, n, n_duels, 3, ties=True), np.random.default_rng(4)
    scale, duels = bandit._scale(), bandit._duels
    upper, lower = bandit._high + scale * bandit._width, bandit._low - scale * bandit._width
    assert duels.unbeaten(scale) == np.flatnonzero((upper >= 0.5).all(axis=1)).tolist()
    beaters = (rng.random((n, n)) < 0.3).astype(np.uint8)
    most, least, wrong = duels.counts(scale, beaters)
    assert most == (upper >= 0.5).sum(axis=1).tolist() and least == (lower >= 0.5).sum(axis=1).tolist()
    assert wrong is bool((beaters.astype(bool) & (lower > 0.5)).any())
    open_pairs = np.flatnonzero(beaters.astype(bool) & (lower <= 0.5) & (upper >= 0.5))
    assert duels.undecided(scale, beaters) == open_pairs.tolist()

    def largest(values, allowed):
        if not allowed.any():
            return []
        return np.flatnonzero(allowed & (values == values[allowed].max())).tolist()

    for c in range(n):
        everyone, not_sure, among = np.ones(n, bool), lower[:, c] <= 0.5, beaters[c].astype(bool)
        assert duels.rivals(scale, c, False) == largest(upper[:, c], everyone)
        assert duels.rivals(scale, c, True) == largest(upper[:, c], not_sure)
        assert duels.rivals(scale, c, True, beaters[c]) == largest(upper[:, c], not_sure & among)
        gamma = rng.integers(1, 4, (2, n)).astype(float)
        theta = gamma[0] / gamma.sum(axis=0)
        theta[c] = 0.5
        assert duels.likeliest(scale, c, gamma) == largest(theta, not_sure)
    gamma, optimistic = rng.integers(1, 4, (n, n)).astype(float), (upper > 0.5).sum(axis=1)
    assert duels.winners(scale, gamma) == largest((gamma > gamma.T).sum(axis=1), optimistic == optimistic.max())


class Plain:
    """The algorithms once more in NumPy, from the bounds, whose last bits decide what ties."""

    def bounds(self):
        reach = self._scale() * self._width
        return self._high + reach, self._low - reach

    def pick(self, places):
        return int(places[int(self.rng.random() * len(places))])

    def largest(self, values, allowed=None, avoid=-1):
        if allowed is not None:
            values = np.where(allowed, values, -np.inf)
        places = np.flatnonzero(values == values.max())
        return self.pick(places[places != avoid] if len(places) > 1 else places)


class PlainRUCB(Plain, RUCB):
    def choose(self):
        upper, _ = self.bounds()
        possible = np.flatnonzero((upper >= 0.5).all(axis=1))
        if self._champion not in possible.tolist():
            self._champion = None
        if len(possible) == 0:
            c = self.pick(np.arange(self.n_items))
        elif len(possible) == 1:
            c = self._champion = int(possible[0])
        elif self._champion is not None:
            c = self._champion if self.rng.random() < 0.5 else self.pick(possible[possible != self._champion])
        else:
            c = self.pick(possible)
        return c, self.largest(upper[:, c], avoid=c)


class PlainThompson(Plain, DoubleThompsonSampling):
    def choose(self):
        upper, lower = self.bounds()
        optimistic = (upper > 0.5).sum(axis=1)
        gamma = self.rng.standard_gamma(self.wins + 1)
        first = self.largest((gamma > gamma.T).sum(axis=1), optimistic == optimistic.max())
        wins, losses = self.rng.standard_gamma(np.array((self.wins[:, first], self.wins[first])) + 1)
        theta = wins / (wins + losses)
        theta[first] = 0.5
        return first, self.largest(theta, lower[:, first] <= 0.5)


class PlainCopeland(Plain, CopelandConfidenceBound):
    """Zoghi et al. (2015), algorithm 1, with B as sets."""

    def choose(self):
        n, (upper, lower) = self.n_items, self.bounds()
        if self.n_duels == 0:
            self.best_ones, self.losses, self.against = set(range(n)), n, [set() for _ in range(n)]
        most, least = (upper >= 0.5).sum(axis=1) - 1, (lower >= 0.5).sum(axis=1) - 1
        front = [i for i in range(n) if most[i] == most.max()]
        if any(lower[i, j] > 0.5 for i in range(n) for j in self.against[i]):
            self.best_ones, self.losses, self.against = set(range(n)), n, [set() for _ in range(n)]
        for i in sorted(self.best_ones):
            if most[i] < least.max():
                self.best_ones.remove(i)
                if len(self.against[i]) != self.losses + 1:
                    self.against[i] = set(np.flatnonzero(upper[i] < 0.5).tolist())
        if not self.best_ones:
            self.best_ones, self.losses, self.against = set(range(n)), n, [set() for _ in range(n)]
        for i in front:
            if most[i] == least[i] and not (i in self.best_ones and not self.against[i] and self.losses == n - 1 - most[i]):
                self.best_ones.add(i)
                self.against[i], self.losses = set(), n - 1 - most[i]
                for j in range(n):
                    if len(self.against[j]) < self.losses + 1:
                        self.against[j] = set()
                    elif len(self.against[j]) > self.losses + 1:
                        self.against[j] = set(self.rng.permutation(sorted(self.against[j]))[:self.losses + 1].tolist())
        if self.rng.random() < 0.25:
            places = [i * n + j for i in range(n) for j in sorted(self.against[i]) if lower[i, j] <= 0.5 <= upper[i, j]]
            if places:
                return divmod(self.pick(places), n)
        both = [i for i in front if i in self.best_ones]
        c = self.pick(both if both and self.rng.random() < 2 / 3 else front)
        allowed = lower[:, c] <= 0.5
        held = np.isin(np.arange(n), list(self.against[c])) & allowed
        return c, self.largest(upper[:, c], held if self.rng.random() < 0.5 and held.any() else allowed, avoid=c)


class PlainMean(BeatTheMean):
    """Yue and Joachims (2011), from the list of what was compared."""

    def __init__(self, n_items, rng):
        super().__init__(n_items, rng, horizon=60)
        self.log, self.there = [], list(range(n_items))

    def of(self, b):
        found = [outcome for i, j, outcome in self.log if i == b and j in self.there]
        return len(found), sum(found)

    def choose(self):
        if len(self.there) == 1:
            return self.there[0], self.there[0]
        count = {b: self.of(b)[0] for b in self.there}
        fewest = [b for b in self.there if count[b] == min(count.values())]
        return fewest[int(self.rng.random() * len(fewest))], self.there[int(self.rng.random() * len(self.there))]

    def update(self, first, second, outcome):
        self.n_duels += 1
        if len(self.there) == 1 or first not in self.there or second not in self.there:
            return
        self.log.append((first, second, outcome))
        found = {b: self.of(b) for b in self.there}
        fewest = min(count for count, _ in found.values())
        if fewest:
            share = {b: won / count for b, (count, won) in found.items()}
            if min(share.values()) + self.reach(fewest) <= max(share.values()) - self.reach(fewest):
                self.there.remove(min(self.there, key=share.get))

    def reach(self, count):
        return self._constant / math.sqrt(count)

    def best(self):
        return self.there[0]


@pytest.mark.parametrize("fast, slow", [(RUCB, PlainRUCB), (DoubleThompsonSampling, PlainThompson),
                                        (CopelandConfidenceBound, PlainCopeland),
                                        (functools.partial(BeatTheMean, horizon=60), PlainMean)])
@pytest.mark.parametrize("strength", [[3.0, 0.0], [1.5, 0.5, 0.0, -0.5, -2.0], [0.0] * 4, "cycle"])
def test_the_same_seed_gives_the_same_duels_as_in_numpy(fast, slow, strength):
    p = cycle() if strength == "cycle" else bradley_terry(strength)
    for seed in range(3):
        one, other = fast(len(p), np.random.default_rng(seed)), slow(len(p), np.random.default_rng(seed))
        luck = np.random.default_rng(seed + 100)
        for at in range(700):
            pair = one.choose()
            assert pair == other.choose(), at
            outcome = float(luck.random() < p[pair])
            one.update(*pair, outcome)
            other.update(*pair, outcome)


@pytest.mark.parametrize("kind", BANDITS)
@pytest.mark.parametrize("again", [copy.deepcopy, lambda bandit: pickle.loads(pickle.dumps(bandit))])
def test_a_copy_of_a_bandit_goes_on_alike_and_alone(kind, again):
    bandit = played(kind, 4, 50, 5)
    other = again(bandit)
    for _ in range(30):
        pair = bandit.choose()
        assert pair == other.choose()
        bandit.update(*pair, 1.0)
        other.update(*pair, 1.0)
    np.testing.assert_array_equal(bandit.wins, other.wins)
    other.update(0, 1, 1)
    assert other.wins[0, 1] == bandit.wins[0, 1] + 1


def test_kernels_of_duels_refuse_what_is_outside():
    duels = RUCB(3, np.random.default_rng(0))._duels
    for call in (lambda: duels.add(0, 3, 1.0), lambda: duels.rivals(1.0, -1, False), lambda: duels.winners(1.0, np.zeros((2, 3))),
                 lambda: duels.counts(1.0, np.zeros((3, 2), np.uint8)), lambda: duels.likeliest(1.0, 0, np.zeros((2, 2))),
                 lambda: kernels.Duels(*np.zeros((3, 2, 2)), np.zeros((3, 3)))):
        with pytest.raises(ValueError, match="do not fit"):
            call()


def test_the_champion_of_rucb_is_the_only_one_that_may_win():
    bandit = RUCB(3, np.random.default_rng(0))
    for _ in range(500):
        for i, j, outcome in ((0, 1, 1), (0, 2, 1), (1, 2, 1)):
            bandit.update(i, j, outcome)
    # nobody has an upper bound above ½ against the champion, so it meets itself
    assert bandit.choose() == (0, 0)
    assert DoubleThompsonSampling(3, np.random.default_rng(0)).choose() is not None


def test_double_thompson_sampling_draws_from_beta_posteriors():
    bandit = DoubleThompsonSampling(2, np.random.default_rng(0))
    for _ in range(3):
        bandit.update(0, 1, 1)
    bandit.update(1, 0, 1)
    firsts = [bandit.choose()[0] for _ in range(4000)]
    # P(Beta(4, 2) > 1/2) = 13/16; both items are optimistic Copeland winners here
    assert abs(np.mean(np.array(firsts) == 0) - 13 / 16) < 4 * math.sqrt(13 / 16 * 3 / 16 / 4000)


def test_many_copeland_winners_are_all_right():
    found = simulate_duels({"CCB": CopelandConfidenceBound}, cycle(), 3000, 2, np.random.default_rng(9))
    assert found.share_best["copeland"]["CCB"] == 1.0


# --- wrong input ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("call, message", [
    (lambda rng: RUCB(1, rng), "`n_items`"),
    (lambda rng: RUCB(3, 0), "`rng` must be"),
    (lambda rng: RUCB(3, rng, alpha=0.5), "above 0.5"),
    (lambda rng: BeatTheMean(3, rng, 0), "`horizon`"),
    (lambda rng: BeatTheMean(3, rng, 10, gamma=0.5), "`gamma`"),
    (lambda rng: RUCB(3, rng).update(0, 3, 1), "got 3"),
    (lambda rng: RUCB(3, rng).update(-1, 0, 1), "got -1"),
    (lambda rng: RUCB(3, rng).update(0, 1, 2), "`outcome`"),
    (lambda rng: RUCB(3, rng).update(0, 1, "win"), "`outcome`"),
    (lambda rng: RUCB(3, rng).update("a", 1, 1), "`first`"),
    (lambda rng: simulate_duels({"btm": BeatTheMean}, bradley_terry([1, 0]), 10, 1, rng), "functools.partial"),
    (lambda rng: RUCB(3, rng).update(0, 1, float("nan")), "`outcome`"),
    (lambda rng: simulate_duels({}, bradley_terry([1, 0]), 10, 1, rng), "`bandits`"),
    (lambda rng: simulate_duels([RUCB], bradley_terry([1, 0]), 10, 1, rng), "`bandits`"),
    (lambda rng: simulate_duels({"a": RUCB}, bradley_terry([1, 0]), 10, 1), "`rng`"),
    (lambda rng: simulate_duels({"a": RUCB}, [[0.5, 0.7], [0.7, 0.5]], 10, 1, rng), "must be 1"),
    (lambda rng: simulate_duels({"a": RUCB}, [[0.5]], 10, 1, rng), "two items"),
    (lambda rng: simulate_duels({"a": RUCB}, bradley_terry([1, 0]), 0, 1, rng), "`horizon`"),
    (lambda rng: simulate_duels({"a": RUCB}, bradley_terry([1, 0]), 10, 0, rng), "`runs`"),
    (lambda rng: simulate_duels({"a": RUCB}, bradley_terry([1, 0]), 10, 1, rng).curves("weak"), "`kind`"),
    (lambda rng: simulate_duels({"a": RUCB}, PairwiseMatrix.from_counts([[0, 1, 0], [1, 0, 1], [0, 1, 0]]), 10, 1, rng),
     "not compared"),
])
def test_wrong_calls_are_refused(call, message):
    with pytest.raises(InvalidInputError, match=message):
        call(np.random.default_rng(0))


def test_a_bandit_without_a_choice_is_told_what_to_write():
    with pytest.raises(NotImplementedError, match="choose"):
        DuelingBandit(2, np.random.default_rng(0)).choose()


def test_what_is_printed():
    found = simulate_duels({"random": RandomDuels}, bradley_terry([1, 0]), 50, 1, np.random.default_rng(0), n_points=7)
    assert len(found.times) == 7 and found.times[-1] == 50
    assert "50 duels, 1 run" in str(found) and found.table()["bandit"].tolist() == ["random"]
    assert repr(RUCB(3, np.random.default_rng(0))) == "RUCB(3 items, 0 duels)"
