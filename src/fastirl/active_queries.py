r"""Which two trajectories to ask about next, and the loop that asks, learns, plans, and finds new ones to ask about.

With the belief about d = R(τ¹) − R(τ²) that follows from the posterior of the reward, and p = σ(d)

    information   I = H(E p) − E H(p)                                 what an answer is expected to tell, in bits
    volume        min( E[1 − min(1, e^d)], E[1 − min(1, e^−d)] )      Sadigh et al. (2017): what either answer removes
    disagreement  Var p                                               Christiano et al. (2017), section 2.2.4
"""

import json
import math
import os
import sys
from dataclasses import dataclass

import numpy as np
from scipy import sparse
from scipy.special import log_ndtr, ndtr

from ._validation import LabelIndex, factorize, label_vector, one_of, plain, positive_number, shown, whole_number
from .ascent import checked_path, fingerprint
from .comparisons import Comparisons
from .exceptions import InvalidInputError
from .mdp import MDP
from .planning import sample_trajectories
from .road_network import RoadNetwork
from .tables import Table
from .trajectories import Trajectories
from .trajectory_preferences import PreferenceIRL, _numbers, discounted_visits

__all__ = ["ActiveLearning", "PromptLabeller", "QueryChoice", "SimulatedLabeller", "ask_and_learn", "choose_query",
           "query_values"]

METHODS = ("information", "volume", "disagreement", "random")
_LOG_2 = math.log(2.0)
_HERMITE = np.polynomial.hermite_e.hermegauss(48)
_LEGENDRE = np.polynomial.legendre.leggauss(64)
_REACH = 40.0  # beyond it the logistic is a step, to rounding
_CHUNK = 4_096


class _NoPairLeft(InvalidInputError):
    """Nothing new to ask."""


# -- what a query is worth ---------------------------------------------------------------------------


def _entropy(d):
    """H(σ(d)) in nats."""
    small = np.exp(-np.abs(d))
    return np.log1p(small) + np.abs(d) * small / (1.0 + small)


def _chance(d):
    small = np.exp(-np.abs(d))
    return np.where(d >= 0, 1.0, small) / (1.0 + small)


def _binary_entropy(p):
    q = 1.0 - p
    with np.errstate(divide="ignore", invalid="ignore"):
        return -(np.where(p > 0, p * np.log(p), 0.0) + np.where(q > 0, q * np.log(q), 0.0))


def _normal_moments(mean, spread):
    """(E σ, E σ², E H(σ)) of d ~ N(mean, spread²), to about ten digits at any mean and spread."""
    found = np.empty((3, mean.size))
    narrow = np.flatnonzero(spread <= 1.0)
    nodes, weights = _HERMITE
    weights = weights / weights.sum()
    for part in np.split(narrow, range(_CHUNK, narrow.size, _CHUNK)):
        d = mean[part, None] + spread[part, None] * nodes
        p = _chance(d)
        found[:, part] = p @ weights, p**2 @ weights, _entropy(d) @ weights
    # of a wide normal: a step at 0, and what is left of it on either side, which dies out
    nodes, weights = 0.5 * _REACH * (_LEGENDRE[0] + 1.0), 0.5 * _REACH * _LEGENDRE[1]
    rest = _chance(-nodes)  # 1 − σ
    wide = np.flatnonzero(spread > 1.0)
    for part in np.split(wide, range(_CHUNK, wide.size, _CHUNK)):
        m, s = mean[part, None], spread[part, None]
        above, below = (np.exp(-0.5 * ((side * nodes - m) / s)**2) / (s * math.sqrt(2 * math.pi)) * weights for side in (1, -1))
        step = ndtr(mean[part] / spread[part])
        found[:, part] = (step + (below - above) @ rest, step - above @ (rest * (2.0 - rest)) + below @ rest**2,
                          (above + below) @ _entropy(nodes))
    return found


def _normal_removed(mean, spread):
    """E[1 − min(1, e^d)] of d ~ N(mean, spread²)."""
    safe = np.where(spread > 0, spread, 1.0)
    kept = ndtr(mean / safe) + np.exp(mean + 0.5 * safe**2 + log_ndtr(-(mean + safe**2) / safe))
    return np.maximum(1.0 - np.where(spread > 0, kept, np.exp(np.minimum(mean, 0.0))), 0.0)


class _Normal:
    """Returns that are jointly normal: of candidate i mean_i, covariances B B'."""

    def __init__(self, learner, candidates):
        self.mean = learner.returns(candidates)
        self.features = learner.return_features(candidates)
        self.root = self.features @ learner.posterior_root()

    def alike(self, first, second):
        # a weighted sum of the features tells most pairs apart
        marks = self.features @ np.sin(1.0 + np.arange(self.features.shape[1]))
        size = 1e-12 * float(np.abs(self.features).max(initial=0.0))
        found = np.abs(marks[first] - marks[second]) <= size * self.features.shape[1]
        doubt = np.flatnonzero(found)
        found[doubt] = (np.abs(self.features[first[doubt]] - self.features[second[doubt]]) <= size).all(axis=1)
        return found

    def _difference(self, first, second):
        mean = self.mean[first] - self.mean[second]
        spread = np.empty(mean.size)
        for part in np.split(np.arange(mean.size), range(_CHUNK, mean.size, _CHUNK)):
            spread[part] = np.linalg.norm(self.root[first[part]] - self.root[second[part]], axis=1)
        return mean, spread

    def values(self, first, second, method):
        mean, spread = self._difference(first, second)
        if method == "volume":
            return np.minimum(_normal_removed(mean, spread), _normal_removed(-mean, spread))
        p, square, entropy = _normal_moments(mean, spread)
        if method == "disagreement":
            return np.maximum(square - p**2, 0.0)
        return np.maximum(_binary_entropy(p) - entropy, 0.0) / _LOG_2

    def suppose_asked(self, i, j):
        """The belief after an answer, of which the expected curvature E[p (1 − p)] is all that counts."""
        mean, spread = self._difference(np.array([i]), np.array([j]))
        p, square, _ = _normal_moments(mean, spread)
        along = self.root[i] - self.root[j]
        size = float(along @ along)
        if size > 0:
            shrink = (1.0 - 1.0 / math.sqrt(1.0 + float(p[0] - square[0]) * size)) / size
            self.root = self.root - shrink * np.outer(self.root @ along, along)


class _Ensemble:
    """Returns by each of several fits, equally believed."""

    def __init__(self, learners, candidates):
        self.returns = np.array([learner.returns(candidates) for learner in learners])
        self.visits = discounted_visits(learners[0].model_, candidates, learners[0].discount)

    def alike(self, first, second):
        return np.diff((self.visits[first] - self.visits[second]).tocsr().indptr) == 0

    def values(self, first, second, method):
        found = np.empty(first.size)
        for part in np.split(np.arange(first.size), range(_CHUNK, first.size, _CHUNK)):
            d = self.returns[:, first[part]] - self.returns[:, second[part]]
            p = _chance(d)
            if method == "volume":
                found[part] = np.minimum(*((1.0 - np.exp(np.minimum(side * d, 0.0))).mean(axis=0) for side in (1, -1)))
            elif method == "disagreement":
                found[part] = p.var(axis=0)
            else:
                found[part] = np.maximum(_binary_entropy(p.mean(axis=0)) - _entropy(d).mean(axis=0), 0.0) / _LOG_2
        return found

    def suppose_asked(self, i, j):
        """Members are not weighed without an answer."""


def _belief(learner, candidates):
    if isinstance(learner, PreferenceIRL):
        return _Normal(learner, candidates)
    learners = list(learner) if isinstance(learner, (list, tuple)) else []
    if len(learners) < 2 or not all(isinstance(one, PreferenceIRL) for one in learners):
        raise InvalidInputError(f"`learner` must be a fitted PreferenceIRL, or a list of at least two: got {shown(learner)}; "
                                "make an ensemble by learner.bootstrap(n, rng)")
    return _Ensemble(learners, candidates)


def query_values(learner, candidates, first, second, method="information"):
    r"""What it is worth to ask which of two trajectories is preferred, for many pairs.

    Parameters
    ----------
    learner : fitted PreferenceIRL, whose Laplace posterior is the belief, or a list of fits (an ensemble, such as
        :meth:`PreferenceIRL.bootstrap`), equally believed
    candidates : Trajectories on the fitted model
    first, second : (n,) ids of candidates
    method : str
        "information": :math:`H(E\,p) - E\,H(p)` in bits, the mutual information of the answer and the reward.
        "volume": :math:`\min_\pm E[1 - \min(1, e^{\pm d})]`, how much of the posterior either answer removes at least, under the
        noise of Sadigh et al., for which a pair that nobody can tell apart removes nothing.
        "disagreement": :math:`\mathrm{Var}\,p`.

    Returns
    -------
    (n,) values, larger is better

    Raises
    ------
    InvalidInputError : an unknown id, a posterior that some direction lacks (pass a prior), a reward that is not linear in its
        parameters (pass an ensemble)

    Notes
    -----
    Under a normal posterior the difference d of two returns is normal, so that each value is an integral over one number,
    found to about ten digits; no draws are made. Only the mean of d and its spread matter: how a person's noise depends on
    anything else than d is not modelled.

    References
    ----------
    Sadigh, Dragan, Sastry, Seshia (2017), Active preference-based learning of reward functions, RSS; Christiano
    et al. (2017), NIPS; Houlsby, Huszár, Ghahramani, Lengyel (2011), Bayesian active learning for classification and
    preference learning.
    """
    one_of("method", method, METHODS[:-1])
    if not isinstance(candidates, Trajectories):
        raise InvalidInputError(f"`candidates` must be Trajectories: got {type(candidates).__name__}; draw some with "
                                "sample_trajectories")
    ids = LabelIndex(candidates.ids, "candidates")
    a, b = (np.atleast_1d(ids.locate(name, labels, "the id of a candidate", "candidates.ids")) for name, labels in
            (("first", first), ("second", second)))
    if a.size != b.size:
        raise InvalidInputError(f"each pair must have a first and a second: got {a.size} and {b.size} ids; pass as many of both")
    return _belief(learner, candidates).values(a, b, method)


@dataclass(frozen=True)
class QueryChoice:
    """Pairs to ask about, the best first.

    Attributes
    ----------
    first, second : (n,) ids of the candidates
    value : (n,) what each was worth when it was chosen; 0 of those chosen at random
    method : str
    n_considered : int, pairs among which they were chosen
    """

    first: np.ndarray
    second: np.ndarray
    value: np.ndarray
    method: str
    n_considered: int


def choose_query(learner, candidates, method="information", *, n=1, asked=(), max_pairs=20_000, rng=None):
    """The pairs of candidates that are best to ask about.

    Parameters
    ----------
    learner : as of :func:`query_values`
    candidates : Trajectories; where they have a group (an origin and a destination, a task), pairs are of one group
    method : "information", "volume", "disagreement" or "random"
    n : int, how many pairs. Of a posterior each further one is chosen as though those before had been answered, by the
        curvature that their answers are expected to add; of an ensemble the further ones share no trajectory with those before
    asked : iterable of (id, id), pairs that are not asked again, in either order
    max_pairs : int; where there are more, as many are drawn at random
    rng : numpy.random.Generator, for "random" and where pairs are drawn

    Returns
    -------
    QueryChoice, of fewer than n pairs where no more are left

    Raises
    ------
    InvalidInputError : no pair that is left to ask about, and as of :func:`query_values`

    Notes
    -----
    Pairs that the features cannot tell apart teach nothing and are never chosen, at random neither.
    """
    one_of("method", method, METHODS)
    n, max_pairs = whole_number("n", n, lower=1), whole_number("max_pairs", max_pairs, lower=1)
    if not isinstance(candidates, Trajectories) or len(candidates) < 2:
        raise InvalidInputError(f"`candidates` must be at least two Trajectories: got {shown(candidates)}; draw some with "
                                "sample_trajectories")
    belief = _belief(learner, candidates)
    first, second, total = _pairs(candidates, max_pairs, rng, method == "random")
    keep = ~belief.alike(first, second)
    keep &= _new(candidates, first, second, asked)
    first, second = first[keep], second[keep]
    if not first.size:
        raise _NoPairLeft(f"a pair must be left to ask about: none of {total:,} is new and differs in its features; pass more "
                          "candidates")
    chosen, values, considered = [], [], first.size
    if method == "random":
        chosen = list(rng.permutation(first.size)[:n])
        values = [0.0] * len(chosen)
    left = np.ones(first.size, bool)
    while len(chosen) < min(n, first.size) and left.any():
        value = np.where(left, belief.values(first, second, method), -1.0)
        best = int(np.argmax(value))
        chosen.append(best)
        values.append(float(value[best]))
        left[best] = False
        if len(chosen) == n:
            break
        belief.suppose_asked(int(first[best]), int(second[best]))
        if isinstance(belief, _Ensemble):
            ends = (first[best], second[best])
            left &= ~(np.isin(first, ends) | np.isin(second, ends))
    return QueryChoice(candidates.ids[first[chosen]], candidates.ids[second[chosen]], np.array(values), method, considered)


def _pairs(candidates, max_pairs, rng, drawn):
    """(first, second, how many there are) of pairs of one group, all or as many as asked for."""
    size = len(candidates)
    code = np.zeros(size, np.int64) if candidates.group is None else factorize(candidates.group)[0]
    order, sizes = np.argsort(code, kind="stable"), np.bincount(code)
    counts = sizes * (sizes - 1) // 2
    ends, total = np.cumsum(counts), int(counts.sum())
    if (total > max_pairs or drawn) and not isinstance(rng, np.random.Generator):
        raise InvalidInputError(f"`rng` must be a numpy.random.Generator where pairs are drawn: got {type(rng).__name__}; pass "
                                "numpy.random.default_rng(seed)")
    rank = np.arange(total) if total <= max_pairs else rng.choice(total, max_pairs, replace=False)
    group = np.searchsorted(ends, rank, side="right")
    i, j = _unranked(rank - (ends - counts)[group], sizes[group])
    begin = (np.cumsum(sizes) - sizes)[group]
    i, j = order[begin + i], order[begin + j]
    return np.minimum(i, j), np.maximum(i, j), total


def _new(candidates, first, second, asked):
    """Which pairs are not among those asked."""
    pairs, size = list(asked) if np.iterable(asked) else [asked], len(candidates)
    for at, pair in enumerate(pairs):
        if not isinstance(pair, (tuple, list, np.ndarray)) or len(pair) != 2:
            raise InvalidInputError(f"`asked` must hold pairs (id, id): entry {at} is {shown(pair)}; pass a list of such pairs")
    if not pairs:
        return np.ones(first.size, bool)
    ids = LabelIndex(candidates.ids, "candidates")
    one, other = (ids.find(label_vector("asked", [pair[side] for pair in pairs])) for side in (0, 1))
    known = (one >= 0) & (other >= 0)
    return ~np.isin(first * size + second, (np.minimum(one, other) * size + np.maximum(one, other))[known])


def _unranked(rank, size):
    """(i, j) of pairs i < j numbered row by row."""
    before = 2 * size - 1
    i = np.floor((before - np.sqrt(before**2 - 8.0 * rank)) / 2).astype(np.int64)
    i -= i * (before - i) // 2 > rank  # the root's rounding
    i += (i + 1) * (before - i - 1) // 2 <= rank
    return i, rank - i * (before - i) // 2 + i + 1


# -- who answers ---------------------------------------------------------------------------------------


class SimulatedLabeller:
    r"""A person who knows the true reward: P(first) = σ((R(first) − R(second)) / temperature).

    Parameters
    ----------
    model : MDP or RoadNetwork
    reward : (n_pairs,) or (n_arcs,) true rewards
    discount : γ of the returns that this person compares; None: plain sums
    temperature : float of at least 0, in units of return; 0: never wrong
    indifference : float of at least 0: returns that differ by at most as much are "can't say", ½
    seed : int; the answer to a question is a function of it and of the two trajectories: asked again, in either order, this
        person says the same

    Notes
    -----
    Returns are compared, not features: what the learner's reward cannot express is noise to it. It is never tired.
    """

    def __init__(self, model, reward, discount=None, *, temperature=1.0, indifference=0.0, seed=0):
        _need_model(model)
        size = model.n_pairs if isinstance(model, MDP) else model.n_arcs
        self.model, self.reward = model, _numbers(reward)
        if self.reward.shape != (size,) or not np.isfinite(self.reward).all():
            raise InvalidInputError(f"`reward` must have a finite number for each of {size:,} pairs or arcs: got shape "
                                    f"{self.reward.shape}; pass mdp.reward_vector(reward)")
        self.discount = None if discount is None else positive_number("discount", discount, upper=1.0)
        self.temperature = positive_number("temperature", temperature, strict=False)
        self.indifference = positive_number("indifference", indifference, strict=False)
        self.seed = whole_number("seed", seed)

    def __call__(self, first, second):
        """μ of a comparison of two trajectories: 1, 0 or ½."""
        both = Trajectories.from_sequences([first.states, second.states],
                                           None if first.actions is None else [first.actions, second.actions])
        one, other = discounted_visits(self.model, both, self.discount) @ self.reward
        gap = float(one - other)
        if abs(gap) <= self.indifference:
            return 0.5
        if self.temperature == 0:
            return float(gap > 0)
        marks = sorted(fingerprint(*[np.asarray(x) for x in (trip.states, trip.actions) if x is not None])
                       for trip in (first, second))
        swapped = marks[0] != fingerprint(*[np.asarray(x) for x in (first.states, first.actions) if x is not None])
        draw = np.random.default_rng([self.seed, *(int(mark[:15], 16) for mark in marks)]).random()
        draw = 1.0 - draw if swapped else draw
        return float(draw < _chance(np.array(gap / self.temperature)))


class PromptLabeller:
    """A person at a prompt: shows two trajectories and reads which is better.

    Parameters
    ----------
    describe : callable Trajectory -> str; by default its states and actions
    ask : callable prompt -> str, by default ``input``
    show : callable text, by default ``print``

    Notes
    -----
    Answers are 1 or 2 (that one is better), = (can't say, ½), s (skip: no answer), q (stop asking: StopIteration).
    """

    def __init__(self, describe=None, *, ask=input, show=print):
        self.describe = _described if describe is None else describe
        self.ask, self.show = ask, show

    def __call__(self, first, second):
        """μ, or None where the question is skipped."""
        for number, trip in ((1, first), (2, second)):
            self.show(f"{number}: {self.describe(trip)}")
        while True:
            said = self.ask("which is better? 1, 2, = (can't say), s (skip), q (stop): ").strip().lower()
            if said in ("1", "2", "="):
                return {"1": 1.0, "2": 0.0, "=": 0.5}[said]
            if said in ("s", "skip"):
                return None
            if said in ("q", "quit", "stop"):
                raise StopIteration
            self.show(f"1, 2, =, s or q, please: got {said!r}")


def _need_model(model):
    if not isinstance(model, (MDP, RoadNetwork)):
        raise InvalidInputError(f"`model` must be an MDP or a RoadNetwork: got {type(model).__name__}; build one")


def _described(trip):
    if trip.actions is None:
        return " → ".join(str(plain(s)) for s in trip.states)
    parts = [f"{plain(s)} ({plain(a)})" for s, a in zip(trip.states, trip.actions)]
    return " → ".join([*parts, *(str(plain(s)) for s in trip.states[len(parts):])])


# -- the loop ------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class ActiveLearning:
    """What a loop of questions learned, and how.

    Attributes
    ----------
    learner : PreferenceIRL, fitted to all answers
    trajectories : Trajectories, candidates of all rounds
    comparisons : Comparisons, the answers
    queries : Table with a row for each question: first, second, outcome (None: skipped), value when it was chosen, and the
        probability that the learner gave to `first` before (None for the first ones, which are random)
    curve : Table with a row for each evaluation: answers, log likelihood and accuracy of the fit, and what `evaluate` measured
    stopped : str, why it ended: "n_queries", "labeller" or "no pair left"
    """

    learner: object
    trajectories: Trajectories
    comparisons: Comparisons
    queries: Table
    curve: Table
    stopped: str


def ask_and_learn(learner, model, labeller, n_queries, seed, *, candidates=None, method="information", batch=1, n_initial=4,
                  n_candidates=40, refresh=10, n_plans=4, propose=None, horizon=None, initial_distribution=None, ensemble=None,
                  max_pairs=5_000, evaluate=None, evaluate_every=10, checkpoint=None, progress=None):
    """Ask, learn, plan, find new trajectories to ask about, and again.

    Parameters
    ----------
    learner : PreferenceIRL with a penalty l2 (a prior: a few answers are always separated); it is fitted in place
    model : MDP or RoadNetwork
    labeller : callable (Trajectory, Trajectory) -> μ in [0, 1] (1: the first is better), or None for no answer; StopIteration
        ends the loop. See :class:`SimulatedLabeller` and :class:`PromptLabeller`
    n_queries : int, questions in all
    seed : int, of everything that is drawn here
    candidates : Trajectories to begin with, compared within their group where they have one; on an MDP by default
        `n_candidates` of the uniform policy
    method : as of :func:`choose_query`
    batch : int, questions between two fits
    n_initial : int, questions that are chosen at random before the first fit
    n_candidates : int, new candidates at each renewal
    refresh : int, answers after which candidates are renewed; 0: never
    n_plans : int; renewed candidates follow plans for as many rewards drawn from the posterior (Thompson 1933)
    propose : callable (learner, n, rng) -> Trajectories that makes them instead; on a road network there is no default
    horizon : int, choices of a candidate that is drawn; None: each goes on until the process ends
    initial_distribution : (n_states,) where candidates that are drawn start; None for the environment's own
    ensemble : int, bootstrap fits that are the belief instead of Laplace's posterior; needed where the reward is not linear
    max_pairs : as of :func:`choose_query`
    evaluate : callable (learner) -> dict of numbers, for the curve
    evaluate_every : int; the curve has a row for the first fit, for each multiple of this many answers, and for the last
    checkpoint : path of a file to which each answer is written, a line of JSON. Run again with the same settings and seed, the
        answers are read back, nobody is asked twice, and the loop goes on: the same result, to the bit
    progress : True prints a line a fit to stderr; or a callable (n_answers, row of the curve or None)

    Returns
    -------
    ActiveLearning

    Raises
    ------
    InvalidInputError : a learner without a prior, no candidates on a road network, an answer that is none, a checkpoint of other
        settings

    Notes
    -----
    All candidates of earlier rounds stay eligible. Plans that fail at discount 1 (rewards under which it pays to go on for
    ever) raise: plan with a discount below 1 or a horizon. It does not decide when enough was asked: look at the curve.
    """
    loop = _Loop(learner, model, labeller, seed, method, batch, n_initial, n_candidates, refresh, n_plans, propose, horizon,
                 initial_distribution, ensemble, max_pairs, evaluate, evaluate_every, progress)
    return loop.run(whole_number("n_queries", n_queries, lower=1), candidates, checkpoint)


class _Loop:
    def __init__(self, learner, model, labeller, seed, method, batch, n_initial, n_candidates, refresh, n_plans, propose, horizon,
                 initial_distribution, ensemble, max_pairs, evaluate, evaluate_every, progress):
        if not isinstance(learner, PreferenceIRL):
            raise InvalidInputError(f"`learner` must be a PreferenceIRL: got {type(learner).__name__}; pass "
                                    "PreferenceIRL(LinearReward(l2=0.1)), say")
        _need_model(model)
        bound = learner.reward.bind(model)
        if not (bound.l2[bound.free] > 0).all():
            raise InvalidInputError("the learner's reward must have a prior on every weight, as a few answers are always "
                                    f"separated: {learner.reward!r} has not; pass l2=0.1, say")
        for name, function in (("labeller", labeller), ("propose", propose), ("evaluate", evaluate)):
            if not (callable(function) or function is None and name != "labeller"):
                raise InvalidInputError(f"`{name}` must be callable: got {type(function).__name__}; pass a function")
        self.learner, self.model, self.labeller = learner, model, labeller
        self.seed, self.method = whole_number("seed", seed), one_of("method", method, METHODS)
        for name, value, lower in (("batch", batch, 1), ("n_initial", n_initial, 1), ("n_candidates", n_candidates, 2),
                                   ("refresh", refresh, 0), ("n_plans", n_plans, 1), ("max_pairs", max_pairs, 1),
                                   ("evaluate_every", evaluate_every, 1)):
            setattr(self, name, whole_number(name, value, lower=lower))
        self.ensemble = None if ensemble is None else whole_number("ensemble", ensemble, lower=2)
        if self.ensemble is None and bound.design is None:
            raise InvalidInputError("a reward that is not linear in its parameters has no posterior here: pass ensemble=5, say")
        self.propose, self.horizon, self.start = propose, horizon, initial_distribution
        self.evaluate, self.progress = evaluate, progress
        self.rng = np.random.default_rng(self.seed)
        self.answers, self.rows, self.curve, self.fitted = [], [], [], 0

    # trajectories

    def _ids(self, n, pool):
        """Labels for n new candidates, of the kind of those that are there."""
        if pool is None or pool.ids.dtype.kind in "iu":
            first = 0 if pool is None else int(pool.ids.max()) + 1
            return np.arange(first, first + n)
        taken, found, i = set(pool.ids.tolist()), [], len(pool)
        while len(found) < n:
            name = f"candidate {i}"
            i += 1
            if name not in taken:
                found.append(name)
        return found

    def _drawn(self, policies, n):
        share = np.diff(np.linspace(0, n, len(policies) + 1).astype(int))
        parts = [sample_trajectories(self.model, policy, k, self.rng, horizon=self.horizon, initial_distribution=self.start)
                 for policy, k in zip(policies, share) if k]
        return Trajectories.concatenate(parts, ids=np.arange(n))

    def _first(self, candidates):
        if candidates is not None:
            if not isinstance(candidates, Trajectories):
                raise InvalidInputError(f"`candidates` must be Trajectories: got {type(candidates).__name__}; build them with "
                                        "Trajectories.from_sequences")
            return candidates.replace(weight=np.ones(len(candidates)))
        if not isinstance(self.model, MDP):
            raise InvalidInputError("`candidates` must be given on a road network: there is no uniform policy to draw from; pass "
                                    "routes, such as of sample_routes")
        return self._drawn([None], self.n_candidates)

    def _renewed(self, pool, believed):
        if self.propose is not None:
            new = self.propose(self.learner, self.n_candidates, self.rng)
            if not isinstance(new, Trajectories):
                raise InvalidInputError(f"`propose` must return Trajectories: it returned {type(new).__name__}; build them with "
                                        "Trajectories.from_sequences")
        elif isinstance(self.model, MDP):
            if isinstance(believed, list):
                rewards = [believed[i].reward_ for i in self.rng.permutation(len(believed))[:self.n_plans]]
            else:
                rewards = [self.learner.reward_of(coef) for coef in self.learner.sample_posterior(self.n_plans, self.rng)]
            new = self._drawn([self.learner.plan(reward=reward).policy for reward in rewards], self.n_candidates)
        else:
            return pool
        if not len(new):
            return pool
        return Trajectories.concatenate([pool, new], ids=np.concatenate([pool.ids, self._ids(len(new), pool)]))

    # the loop

    def run(self, n_queries, candidates, checkpoint):
        pool = self._first(candidates)
        log = None if checkpoint is None else _Answers(checkpoint, self._identity(pool))
        believed, stopped, asked, since_plan = None, "n_queries", [], 0
        while len(self.rows) < n_queries:
            n = min(self.batch, n_queries - len(self.rows))
            try:
                if believed is None:
                    n = min(self.n_initial - len(self.rows), n_queries - len(self.rows))
                    query = self._at_random(pool, asked, max(n, 1))
                else:
                    query = choose_query(believed, pool, self.method, n=n, asked=asked, max_pairs=self.max_pairs, rng=self.rng)
            except _NoPairLeft:
                stopped = "no pair left"
                break
            try:
                for first, second, value in zip(query.first, query.second, query.value):
                    asked.append((plain(first), plain(second)))
                    self._ask(pool, plain(first), plain(second), float(value), believed is not None, log)
            except StopIteration:
                stopped = "labeller"
                break
            if not self.answers:
                continue
            believed = self._fit(pool)
            since_plan += len(query.first)
            if self.refresh and since_plan >= self.refresh and len(self.rows) < n_queries:
                since_plan = 0
                pool = self._renewed(pool, believed)
        if not self.answers:
            raise InvalidInputError(f"at least one question must be answered: none of {len(self.rows)} was ({stopped}); ask "
                                    "more, or pass candidates that differ")
        self._fit(pool, last=True)
        return self._result(pool, stopped)

    def _at_random(self, pool, asked, n):
        """Pairs that differ in what they visit, before there is a fit."""
        first, second, total = _pairs(pool, self.max_pairs, self.rng, True)
        some = self.rng.permutation(first.size)
        first, second = first[some], second[some]
        visits = discounted_visits(self.model, pool, self.learner.discount)
        new = _new(pool, first, second, asked) & (np.diff(sparse.csr_array(visits[first] - visits[second]).indptr) > 0)
        found = np.flatnonzero(new)[:n]
        if not found.size:
            raise _NoPairLeft(f"a pair must be left to ask about: none of {total:,} is new and differs; pass more candidates")
        first, second = first[found], second[found]
        return QueryChoice(pool.ids[first], pool.ids[second], np.zeros(found.size), "random", total)

    def _ask(self, pool, first, second, value, known, log):
        before = self.learner.probability(first, second, pool) if known else None
        found = None if log is None else log.next(first, second)
        if found is None:
            said = self.labeller(_trip(pool, first), _trip(pool, second))
            said = None if said is None else _outcome(said, first, second)
            if log is not None:
                log.put(first, second, said)
        else:
            said = found["outcome"]
        self.rows.append((first, second, said, value, before))
        if said is not None:
            self.answers.append((first, second, said))

    def _fit(self, pool, last=False):
        n = len(self.answers)
        if n != self.fitted:
            first, second, said = zip(*self.answers)
            self.comparisons = Comparisons.from_pairs(list(first), list(second), said)
            self.learner.fit(self.model, pool, self.comparisons)
            self.fitted = n
        before = self.curve[-1]["answers"] if self.curve else -1
        due = before < 0 or n // self.evaluate_every > before // self.evaluate_every or last and n > before
        row = None
        if due:
            row = {"answers": n, "log likelihood": self.learner.log_likelihood_, "accuracy": self.learner.accuracy_}
            if self.evaluate is not None:
                row.update(self.evaluate(self.learner))
            self.curve.append(row)
        if callable(self.progress):
            self.progress(n, row)
        elif self.progress:
            print(f"{n:4d} answers   log likelihood {self.learner.log_likelihood_:.3f}", file=sys.stderr)
        if last:
            return None
        return self.learner if self.ensemble is None else self.learner.bootstrap(self.ensemble, self.rng)

    def _result(self, pool, stopped):
        names = ("first", "second", "outcome", "value", "probability")
        queries = Table({name: [row[at] for row in self.rows] for at, name in enumerate(names)}, title=f"asked by {self.method}")
        measures = list(dict.fromkeys(name for row in self.curve for name in row))
        curve = Table({name: [row.get(name) for row in self.curve] for name in measures})
        return ActiveLearning(self.learner, pool, self.comparisons, queries, curve, stopped)

    def _identity(self, pool):
        model = self.model
        shape = (model.pair_state, model.indptr, model.indices, model.probability) if isinstance(model, MDP) else (
            model.tail, model.head)
        states = pool.states if pool.states.dtype != object else repr(pool.states.tolist())
        return fingerprint(*shape, states, pool.offsets, repr(pool.ids.tolist()), repr(self.learner), self.seed, self.method,
                           self.batch, self.n_initial, self.n_candidates, self.refresh, self.n_plans, self.horizon,
                           self.ensemble, self.max_pairs)


def _trip(pool, label):
    return pool[int(LabelIndex(pool.ids, "candidates").find(label_vector("ids", [label]))[0])]


def _outcome(said, first, second):
    try:
        number = float(said)
    except (TypeError, ValueError):
        number = math.nan
    if not 0.0 <= number <= 1.0:
        raise InvalidInputError(f"an answer must be a number in [0, 1], or None: for {first!r} and {second!r} the labeller said "
                                f"{said!r}; return 1 (the first), 0 (the second), 0.5 (can't say)")
    return number


class _Answers:
    """Answers in a file, a line of JSON each; those that are there are given back in their order."""

    def __init__(self, path, identity):
        self.path, self.at, self.found = checked_path(path), 0, []
        head = {"format": "fastirl answers 1", "settings": identity}
        if not (os.path.exists(self.path) and os.path.getsize(self.path)):
            self._append(head, "w")
            return
        with open(self.path, encoding="utf-8") as file:
            lines = file.read().split("\n")
        try:
            kept = [json.loads(line) for line in lines[:-1]]
        except ValueError:
            kept = [{}]
        if not kept or not isinstance(kept[0], dict) or kept[0].get("format") != head["format"]:
            raise InvalidInputError(f"`checkpoint` must be a file of answers: {self.path!r} is another; name one that does "
                                    "not exist yet")
        if kept[0] != head:
            raise InvalidInputError(f"a checkpoint must belong to the same loop: {self.path!r} is of another model, seed or "
                                    "settings; use those, or name another file")
        if lines[-1]:  # cut short by a kill
            with open(self.path, "w", encoding="utf-8") as file:
                file.write("\n".join([*lines[:-1], ""]))
        self.found = kept[1:]

    def next(self, first, second):
        """The answer that was given to this question, or None."""
        if self.at >= len(self.found):
            return None
        row = self.found[self.at]
        if [row["first"], row["second"]] != json.loads(json.dumps([first, second])):
            raise InvalidInputError(f"answers must be to the questions of this loop: answer {self.at} is about {row['first']!r} "
                                    f"and {row['second']!r}, asked was {first!r} and {second!r} (another version, or another "
                                    "machine); fit to them with PreferenceIRL, and begin a new file")
        self.at += 1
        return row

    def put(self, first, second, outcome):
        self._append({"first": first, "second": second, "outcome": outcome}, "a")

    def _append(self, row, mode):
        with open(self.path, mode, encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
            file.flush()
            os.fsync(file.fileno())
