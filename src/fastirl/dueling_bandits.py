"""Dueling bandits: which two items to compare next, and what it costs to learn which is best."""

import math
import time
from dataclasses import dataclass

import numpy as np

from . import _comparisons as _k
from . import _validation as _v
from .exceptions import InvalidInputError
from .tables import Table
from .winners import PairwiseMatrix, _need_all, borda, condorcet_winner, copeland

__all__ = [
    "BeatTheMean", "CopelandConfidenceBound", "DoubleThompsonSampling", "DuelSimulation", "DuelingBandit", "RUCB", "RandomDuels",
    "simulate_duels",
]

_KINDS = ("condorcet", "copeland", "borda")


class DuelingBandit:
    """What dueling bandits share: counts of wins, and one way of being called.

    ``i, j = bandit.choose()``, then compare items i and j, then ``bandit.update(i, j, outcome)``; and again. This class
    itself chooses nothing: write your own `choose` in a subclass.

    Parameters
    ----------
    n_items : int, at least 2; items are 0 … n_items − 1
    rng : numpy.random.Generator; the same state gives the same choices for the same outcomes

    Attributes
    ----------
    n_items : int
    n_duels : int, updates so far
    wins : (n_items, n_items) float64, how often the item of the row was preferred to the item of the column, ties as half
    """

    def __init__(self, n_items, rng):
        self.n_items = _v.whole_number("n_items", n_items, lower=2)
        if not isinstance(rng, np.random.Generator):
            raise InvalidInputError(f"`rng` must be a numpy.random.Generator: got {type(rng).__name__}; pass "
                                    "numpy.random.default_rng(seed)")
        self.rng = rng
        self.n_duels = 0
        n = self.n_items
        self.wins = np.zeros((n, n))
        # shares and one over root counts, kept up to date by `_duels`; a pair never compared has bounds 0 and 1
        self._high, self._low, self._width = np.ones((n, n)), np.zeros((n, n)), np.zeros((n, n))
        for matrix in (self._high, self._low):
            np.fill_diagonal(matrix, 0.5)
        self._duels = _k.Duels(self.wins, self._high, self._low, self._width)

    def __repr__(self):
        return f"{type(self).__name__}({self.n_items} items, {self.n_duels:,} duels)"

    def choose(self):
        """(i, j): the two items to compare next; they may be equal once one is thought the best."""
        raise NotImplementedError("a dueling bandit must have a method choose(): write one that returns two items")

    def update(self, first, second, outcome):
        """Learn what became of a comparison, whether or not `choose` asked for it.

        Parameters
        ----------
        first, second : int, items
        outcome : 1 the first was preferred, 0 the second, ½ neither; any number between is a soft answer

        Raises
        ------
        InvalidInputError
            An unknown item, an outcome outside [0, 1].
        """
        n = self.n_items
        if type(first) is not int or type(second) is not int:
            first, second = _v.whole_number("first", first, lower=-n), _v.whole_number("second", second, lower=-n)
        if not (0 <= first < n and 0 <= second < n):
            bad = first if not 0 <= first < n else second
            raise InvalidInputError(f"items are 0 … {n - 1}: got {_v.shown(bad)}; pass what choose() returned")
        if not ((type(outcome) is float or isinstance(outcome, (int, np.number, np.bool_))) and 0 <= outcome <= 1):
            raise InvalidInputError(f"`outcome` must lie between 0 and 1: got {_v.shown(outcome)}; pass 1 where the first was "
                                    "preferred, 0 where the second was, 0.5 where neither")
        self.n_duels += 1
        if first != second:
            self._duels.add(first, second, outcome)

    def best(self):
        """int: the item that wins most pairs so far, by shares over ½; the lowest of several."""
        seen = self._width > 0
        return int(np.argmax(((self._high > 0.5) & seen).sum(axis=1)))

    def _any(self, items, avoid=-1):
        """One of a list of items at random; `avoid` only where it is alone."""
        if avoid >= 0 and len(items) > 1 and avoid in items:
            items = [item for item in items if item != avoid]
        return items[int(self.rng.random() * len(items))]


class _Bounded(DuelingBandit):
    """Bounds of P(i ≻ j) around its share, √(α ln t / (w_ij + w_ji)) wide each side."""

    def __init__(self, n_items, rng, alpha=0.51):
        super().__init__(n_items, rng)
        self.alpha = _v.positive_number("alpha", alpha)
        if self.alpha <= 0.5:
            raise InvalidInputError(f"`alpha` must be above 0.5: got {alpha:g}; narrower bounds fail, pass 0.51")

    def _scale(self):
        """√(α ln t) before this duel."""
        return math.sqrt(self.alpha * math.log(self.n_duels + 1))


class RandomDuels(DuelingBandit):
    """The baseline that learns nothing: two different items at random.

    Parameters
    ----------
    n_items, rng : as in `DuelingBandit`
    """

    def choose(self):
        """Two different items, every pair alike."""
        i = int(self.rng.random() * self.n_items)
        j = int(self.rng.random() * (self.n_items - 1))
        return i, j + (j >= i)


class BeatTheMean(DuelingBandit):
    r"""Beat the Mean: items below the mean of those left are dropped, one after the other.

    The item with the fewest comparisons meets a random one of those left. With :math:`\hat P_b` the share of comparisons that b
    won and :math:`n_*` the smallest number of comparisons, the worst item goes when

    .. math:: \min_b \hat P_b + c \le \max_b \hat P_b - c, \qquad c = 3 \gamma^2 \sqrt{\log(1/\delta) / n_*},
       \quad \delta = 1 / (2 T K),

    and so do all comparisons against it. The last one meets itself.

    Parameters
    ----------
    n_items, rng : as in `DuelingBandit`
    horizon : int, T, how many duels there will be
    gamma : float, at least 1: how far preferences may break stochastic transitivity (1: not at all)

    Notes
    -----
    Its guarantee supposes a total order with (relaxed) transitivity. It is cautious: nothing is dropped in short runs.

    References
    ----------
    Yue, Joachims (2011), Beat the Mean Bandit, ICML, algorithms 1 and 2.
    """

    def __init__(self, n_items, rng, horizon, gamma=1.0):
        super().__init__(n_items, rng)
        self.horizon = _v.whole_number("horizon", horizon, lower=1)
        self.gamma = _v.positive_number("gamma", gamma)
        if self.gamma < 1:
            raise InvalidInputError(f"`gamma` must be at least 1: got {gamma}; 1 is strong stochastic transitivity")
        self._constant = 3 * self.gamma**2 * math.sqrt(math.log(2 * self.horizon * self.n_items))
        n = self.n_items
        # of the items left: their comparisons, the share that they won; of pairs what is taken off when one is dropped
        self._left, self._n, self._w, self._share = list(range(n)), [0] * n, [0.0] * n, [0.0] * n
        self._place = {item: item for item in range(n)}  # where in these lists
        # comparisons of the row with the column as its opponent, and how many the row won; [i, i] counts too
        self._tries, self._won = np.zeros((n, n)), np.zeros((n, n))

    @property
    def left(self):
        """tuple of the items not yet dropped."""
        return tuple(self._left)

    def choose(self):
        """The item with the fewest comparisons, and a random one of those left."""
        left, fewest = self._left, min(self._n)
        if len(left) == 1:
            return left[0], left[0]
        random = self.rng.random
        if self._n.count(fewest) == 1:
            random()  # as many draws whether or not items tie
            b = left[self._n.index(fewest)]
        else:
            b = self._any([item for item, count in zip(left, self._n) if count == fewest])
        return b, left[int(random() * len(left))]

    def update(self, first, second, outcome):
        """As `DuelingBandit.update`; it counts for the first item only, as its opponent was the random one."""
        super().update(first, second, outcome)
        at = self._place.get(first)
        if len(self._left) == 1 or at is None or second not in self._place:
            return
        self._tries[first, second] += 1
        self._won[first, second] += outcome
        self._n[at] += 1
        self._w[at] += outcome
        self._share[at] = self._w[at] / self._n[at]
        fewest = min(self._n)
        if fewest == 0:
            return
        low = min(self._share)
        if max(self._share) - low >= 2 * self._constant / math.sqrt(fewest):
            self._drop(self._share.index(low))

    def _drop(self, at):
        worst = self._left[at]
        for items in (self._left, self._n, self._w, self._share):
            del items[at]
        self._place = {item: k for k, item in enumerate(self._left)}
        for k, b in enumerate(self._left):
            self._n[k] -= int(self._tries[b, worst])
            self._w[k] -= float(self._won[b, worst])
            self._share[k] = self._w[k] / self._n[k] if self._n[k] else 0.0

    def best(self):
        """int: of the items left the one with the largest share of wins."""
        shares = [share if count else 0.5 for share, count in zip(self._share, self._n)]
        return self._left[shares.index(max(shares))]


class RUCB(_Bounded):
    r"""Relative upper confidence bounds: the champion is an item that may beat everybody, its opponent the likeliest to beat it.

    .. math:: u_{ij} = \frac{w_{ij}}{w_{ij} + w_{ji}} + \sqrt{\frac{\alpha \ln t}{w_{ij} + w_{ji}}}, \qquad u_{ii} = \tfrac12

    Champion: one of the items c with u_cj ≥ ½ for all j, the one of the past duels with probability ½. Opponent:
    argmax_j u_jc.

    Parameters
    ----------
    n_items, rng : as in `DuelingBandit`
    alpha : float above ½, width of the bounds

    Notes
    -----
    Its regret grows with log t where a Condorcet winner exists; without one it need not.

    References
    ----------
    Zoghi, Whiteson, Munos, de Rijke (2014), Relative Upper Confidence Bound for the K-armed dueling bandit problem, ICML,
    algorithm 1.
    """

    _champion = None

    def choose(self):
        """A possible champion and the item that is likeliest to beat it."""
        scale = self._scale()
        possible = self._duels.unbeaten(scale)
        if self._champion not in possible:
            self._champion = None
        if not possible:
            c = self._any(range(self.n_items))
        elif len(possible) == 1:
            c = self._champion = possible[0]
        elif self._champion is not None:
            c = self._champion if self.rng.random() < 0.5 else self._any(possible, self._champion)
        else:
            c = self._any(possible)
        return c, self._any(self._duels.rivals(scale, c, False), avoid=c)


class DoubleThompsonSampling(_Bounded):
    r"""Double Thompson sampling: both items are drawn from posteriors, among those that bounds do not rule out.

    First: of the items with the largest optimistic Copeland score :math:`\#\{j : u_{ij} > ½\}` the one that wins most pairs in a
    draw θ_ij ~ Beta(w_ij + 1, w_ji + 1). Second: of the items with lower bound l_j,first ≤ ½ the one with the largest of new
    draws θ_j,first, where θ_first,first = ½.

    Parameters
    ----------
    n_items, rng : as in `DuelingBandit`
    alpha : float above ½, width of the bounds, as in `RUCB`

    Notes
    -----
    It seeks a Copeland winner, so a Condorcet winner is not needed. Where it is sure, an item meets itself.

    References
    ----------
    Wu, Liu (2016), Double Thompson Sampling for dueling bandits, NeurIPS, algorithm 1.
    """

    def choose(self):
        """Two draws, as the class says."""
        scale, draw, duels = self._scale(), self.rng.standard_gamma, self._duels
        # a beta variable is above ½ where the first of its two gammas is the larger one
        first = self._any(duels.winners(scale, draw(self.wins + 1)))
        return first, self._any(duels.likeliest(scale, first, draw(np.array((self.wins[:, first], self.wins[first])) + 1)))


class CopelandConfidenceBound(_Bounded):
    r"""Copeland confidence bounds: an optimist about who wins most pairs, a pessimist about whom it meets.

    An item's Copeland score lies between #{j : l_ij ≥ ½} and #{j : u_ij ≥ ½}. Champions are items with the largest upper
    count; remembered champions and their likely losses (B and Bⁱ in the paper) direct most duels to pairs that can change
    the answer. No Condorcet winner is needed, and several Copeland winners are allowed.

    Parameters
    ----------
    n_items, rng : as in `DuelingBandit`
    alpha : float above ½, width of the bounds, as in `RUCB`

    References
    ----------
    Zoghi, Karnin, Whiteson, de Rijke (2015), Copeland dueling bandits, NeurIPS, algorithm 1 (CCB).
    """

    def __init__(self, n_items, rng, alpha=0.51):
        super().__init__(n_items, rng, alpha)
        self._reset()

    def _reset(self):
        n = self.n_items
        self._champions, self._most_losses = [True] * n, n
        self._beaters = np.zeros((n, n), np.uint8)  # row i: who is thought to beat i
        self._n_beaters = [0] * n

    def choose(self):
        """Steps 2 to 9 of the algorithm."""
        scale, rng, duels = self._scale(), self.rng, self._duels
        most, least, wrong = duels.counts(scale, self._beaters)  # both with the diagonal
        top = max(most)
        candidates = [i for i, count in enumerate(most) if count == top]
        self._revise(scale, most, least, wrong, candidates)
        if rng.random() < 0.25:
            places = duels.undecided(scale, self._beaters)
            if places:
                return divmod(self._any(places), self.n_items)
        both = [i for i in candidates if self._champions[i]]
        if both and rng.random() < 2 / 3:
            candidates = both
        c = self._any(candidates)
        rivals = duels.rivals(scale, c, True, self._beaters[c]) if rng.random() < 0.5 else []
        return c, self._any(rivals or duels.rivals(scale, c, True), avoid=c)

    def _revise(self, scale, most, least, wrong, candidates):
        """Step 4: hypotheses that were disproved, champions that cannot be, champions that are certain."""
        if wrong:
            self._reset()
        floor = max(least)
        for i in [i for i, count in enumerate(most) if count < floor and self._champions[i]]:
            self._champions[i] = False
            if self._n_beaters[i] != self._most_losses + 1:
                self._beaters[i] = self._high[i] + scale * self._width[i] < 0.5
                self._n_beaters[i] = int(self._beaters[i].sum())
        if not any(self._champions):
            self._reset()
        for i in candidates:
            losses = self.n_items - most[i]
            if most[i] > least[i] or self._champions[i] and not self._n_beaters[i] and self._most_losses == losses:
                continue  # it is not certain, or stands as it would be set
            self._champions[i], self._most_losses = True, losses
            self._beaters[i] = False
            keep = losses + 1
            counts = self._beaters.sum(axis=1)
            self._beaters[counts < keep] = False
            for j in np.flatnonzero(counts > keep):
                places = self.rng.permutation(np.flatnonzero(self._beaters[j]))
                self._beaters[j, places[keep:]] = False
            self._n_beaters = self._beaters.sum(axis=1).tolist()


# -------------------------------------------------------------------- simulation


@dataclass(frozen=True, eq=False)
class DuelSimulation:
    """Cumulative regret of dueling bandits over simulated runs.

    Attributes
    ----------
    times : (n_points,) int64, numbers of duels after which regret was noted; the last is the horizon
    regret : dict from "condorcet", "copeland" and "borda" to a dict from name to (n_runs, n_points) cumulative regret
        "condorcet" is absent where no item wins against all others.
    winners : dict from the same words to the tuple of the best items
    share_best : dict from the same words to a dict from name to the share of runs whose final `best` is one of these
    seconds : dict from name to CPU seconds of a run, on average
    horizon, n_runs : int
    """

    times: np.ndarray
    regret: dict
    winners: dict
    share_best: dict
    seconds: dict
    horizon: int
    n_runs: int

    def curves(self, kind="condorcet"):
        """dict from name to (times, runs), as `preference_plots.plot_curves` draws it.

        Parameters
        ----------
        kind : "condorcet", "copeland" or "borda"
        """
        if kind == "condorcet" and kind not in self.regret:
            raise InvalidInputError("Condorcet regret needs a Condorcet winner: here no item wins against all others; ask for "
                                    "'copeland' or 'borda'")
        _v.one_of("kind", kind, _KINDS)
        return {name: (self.times, runs) for name, runs in self.regret[kind].items()}

    def table(self):
        """Table of final regrets, means over runs with their standard errors."""
        names = list(self.seconds)
        data = {"bandit": names}
        for kind, runs in self.regret.items():
            data[f"{kind} regret"] = [float(runs[name][:, -1].mean()) for name in names]
            data[f"s.e. ({kind})"] = [float(runs[name][:, -1].std(ddof=1) / math.sqrt(self.n_runs)) if self.n_runs > 1 else None
                                      for name in names]
        first = next(iter(self.regret))
        data["best found"] = [float(self.share_best[first][name]) for name in names]
        formats = {name: ".1f" for name in data if name != "bandit"}
        return Table(data, title=f"{self.horizon:,} duels, {self.n_runs} run{'s' if self.n_runs != 1 else ''}",
                     notes=f"best found: share of runs that end with a {first.capitalize()} winner in front",
                     formats={**formats, "best found": ".0%"})

    def __str__(self):
        return str(self.table())


def simulate_duels(bandits, preference, horizon, runs=10, rng=None, n_points=200):
    r"""Let dueling bandits play against known preferences, and add up their regret.

    A duel of i and j is won by i with probability P(i ≻ j), and costs, with the best item a* of each kind,

    .. math::
       \tfrac12 \left[ P(a^* \succ i) + P(a^* \succ j) \right] - \tfrac12 \text{ (Condorcet)}, \qquad
       s(a^*) - \tfrac12 \left[ s(i) + s(j) \right] \text{ (Copeland, Borda)},

    where s is the Copeland score (wins + ½ ties) divided by n − 1, or the Borda score, the chance against a random
    opponent. The cost is 0 when the best item meets itself.

    Parameters
    ----------
    bandits : mapping from name to a factory, called with (n_items, rng)
        Such as ``{"RUCB": RUCB, "D-TS": lambda n, rng: DoubleThompsonSampling(n, rng, alpha=0.6)}``.
    preference : (n_items, n_items) array of P(row ≻ column), or PairwiseMatrix with every pair observed
    horizon : int, duels a run
    runs : int
    rng : numpy.random.Generator; needed
    n_points : int, at most so many times at which regret is noted, evenly spaced; all where the horizon is shorter

    Returns
    -------
    DuelSimulation

    Raises
    ------
    InvalidInputError
        No bandits, preferences that are none, an `rng` that is missing; a bandit that chooses an unknown item.

    Notes
    -----
    Each run of each bandit has generators of its own, one for its choices and one for the outcomes, spawned from `rng`: the
    same state of `rng` gives the same answer, whatever the order of runs. Bandits do not share outcomes.

    Examples
    --------
    >>> P = np.array([[0.5, 0.9], [0.1, 0.5]])
    >>> simulate_duels({"random": RandomDuels}, P, 100, 2, np.random.default_rng(0)).regret["condorcet"]["random"][:, -1]
    array([20., 20.])
    """
    if not isinstance(bandits, dict) or not bandits or not all(map(callable, bandits.values())):
        raise InvalidInputError("`bandits` must map names to factories that take (n_items, rng): got "
                                f"{bandits!r:.80}; pass {{'RUCB': RUCB}}")
    if not isinstance(rng, np.random.Generator):
        raise InvalidInputError(f"`rng` must be a numpy.random.Generator: got {type(rng).__name__}; pass "
                                "numpy.random.default_rng(seed)")
    horizon, runs = _v.whole_number("horizon", horizon, lower=1), _v.whole_number("runs", runs, lower=1)
    n_points = _v.whole_number("n_points", n_points, lower=1)
    with _v.naming(probability="preference"):
        pairs = preference if isinstance(preference, PairwiseMatrix) else PairwiseMatrix.from_probabilities(preference)
    _need_all(pairs, "fill `preference`")
    probability = pairs.dense()
    n = pairs.n_items
    costs, winners = _costs(pairs, probability)
    times = np.unique(np.linspace(horizon / min(n_points, horizon), horizon, min(n_points, horizon)).round().astype(np.int64))
    regret = {kind: {} for kind in costs}
    share_best = {kind: {} for kind in costs}
    seconds = {}
    for name, factory in bandits.items():
        found = {kind: np.empty((runs, len(times))) for kind in costs}
        right = {kind: 0 for kind in costs}
        begin = time.process_time()
        for run, (own, nature) in enumerate(zip(*[iter(rng.spawn(2 * runs))] * 2)):
            try:
                bandit = factory(n, own)
            except TypeError as error:
                raise InvalidInputError(f"each factory must take (n_items, rng): that of {name!r} failed ({error}); pass a "
                                        "class, or functools.partial(BeatTheMean, horizon=…)") from error
            played = _play(bandit, probability, horizon, nature)
            if played.min() < 0 or played.max() >= n * n:
                raise InvalidInputError(f"items are 0 … {n - 1}: {name!r} chose another one; correct its choose()")
            for kind, cost in costs.items():
                found[kind][run] = np.cumsum(cost.ravel()[played])[times - 1]
                right[kind] += bandit.best() in winners[kind]
        seconds[str(name)] = (time.process_time() - begin) / runs
        for kind in costs:
            regret[kind][str(name)] = _v.freeze(found[kind])
            share_best[kind][str(name)] = right[kind] / runs
    labels = {kind: tuple(pairs.labels[list(places)].tolist()) for kind, places in winners.items()}
    return DuelSimulation(_v.freeze(times), regret, labels, share_best, seconds, horizon, runs)


def _play(bandit, probability, horizon, nature, block=65_536):
    """(horizon,) first · n + second of each duel."""
    n, played, chance = len(probability), np.empty(horizon, np.int64), probability.tolist()
    choose, update = bandit.choose, bandit.update
    for begin in range(0, horizon, block):
        luck = nature.random(min(block, horizon - begin)).tolist()
        for at, u in enumerate(luck, begin):
            i, j = choose()
            update(i, j, 1.0 if u < chance[i][j] else 0.0)
            played[at] = i * n + j
    return played


def _costs(pairs, probability):
    """({kind: (n, n) regret of a duel}, {kind: set of the best items})."""
    n, costs, winners = pairs.n_items, {}, {}
    if n < 2:
        raise InvalidInputError(f"a duel needs two items: `preference` has {n}; pass a larger matrix")
    places = {label: at for at, label in enumerate(pairs.labels.tolist())}
    champion = condorcet_winner(pairs).winners
    if champion:
        winners["condorcet"] = {places[champion[0]]}
        gap = probability[places[champion[0]]] - 0.5
        costs["condorcet"] = 0.5 * (gap[:, None] + gap)
    for kind, rule in (("copeland", copeland), ("borda", borda)):
        found = rule(pairs)
        score = found.score / (n - 1) if kind == "copeland" else found.score
        winners[kind] = {places[label] for label in found.winners}
        gap = score.max() - score
        costs[kind] = 0.5 * (gap[:, None] + gap)
    return costs, winners
