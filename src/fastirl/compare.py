"""Learners side by side: the same folds, the same measures, one table."""

import copy
import time
import tracemalloc
from dataclasses import dataclass

import numpy as np

from ._validation import float_vector, naming, whole_number
from .exceptions import DivergenceError, InvalidInputError, UndecidedError, UnreachableError
from .learner import Learner
from .mdp import MDP
from .planning import value_iteration, visitation_frequencies
from .process_likelihood import match_steps
from .receding_horizon import _OnRoads
from .road_network import RoadNetwork
from .tables import Table
from .trajectories import Trajectories

__all__ = ["CrossValidation", "LearnerComparison", "ShortestPath", "compare_learners", "cross_validate"]

_MEASURES = {
    "log likelihood": ".4f", "exact match": ".1%", "matched length": ".1%", "90% matched": ".1%", "feature gap": ".4g",
    "occupancy distance": ".4f", "value gap": ".4g", "seconds": ".3f", "MB": ".1f",
}


class ShortestPath(Learner):
    """The baseline that learns nothing: everyone takes a shortest path.

    Parameters
    ----------
    length : (n_arcs,) lengths, at least 0; or the name of a feature

    Notes
    -----
    Its log likelihood is −inf as soon as somebody did not.
    """

    models = (RoadNetwork,)

    def __init__(self, length):
        self.length = length

    def __repr__(self):
        return f"ShortestPath({self.length!r})" if isinstance(self.length, str) else "ShortestPath()"

    def fit(self, model, trajectories):
        """Look at the network and the trips, learn nothing.

        Parameters
        ----------
        model : RoadNetwork
        trajectories : Trajectories

        Returns
        -------
        self
        """
        self._observe(model, trajectories)
        length = self.length
        if isinstance(length, str):
            if length not in model.feature_names:
                raise InvalidInputError(f"`length` must be one of the features: {length!r} is none; they are "
                                        f"{', '.join(model.feature_names)}")
            length = model.features[:, model.feature_names.index(length)]
        self.reward_ = -float_vector("length", length, model.n_arcs, nonnegative=True)
        return self

    def _chances(self, destination):
        return _OnRoads.chances(self.model_, self.reward_, 0, destination)


@dataclass(frozen=True)
class LearnerComparison:
    """What :func:`compare_learners` found.

    Attributes
    ----------
    table : Table, a row a learner: means over the folds
    folds : Table, a row a learner and fold
    notes : tuple of str, what could not be measured, and why; over how many decisions, where not without end
    """

    table: Table
    folds: Table
    notes: tuple

    def __str__(self):
        return str(self.table)


def compare_learners(learners, model, trajectories, *, folds=3, rng=None, length=None, true_reward=None, reward_on="auto",
                     horizon=None, memory=False):
    r"""Fit learners on the same folds of demonstrations and measure each on what was held out.

    Parameters
    ----------
    learners : mapping of name to learner, not yet fitted; each is copied for each fold
    model : MDP or RoadNetwork
    trajectories : Trajectories, or a list of (train, test) pairs of them, which are then the folds
    folds : int, how many folds; each is held out once
    rng : numpy.random.Generator that cuts the folds; needed where they are not given
    length : on a road network, (n_arcs,) lengths: then routes are predicted and compared
    true_reward, reward_on : on an MDP, the reward by which people act, as of :func:`value_iteration`
    horizon : on an MDP, over how many decisions policies are measured; by default each learner's own, else without end
    memory : also fit once more under ``tracemalloc``; it sees NumPy's arrays and Python's objects

    Returns
    -------
    LearnerComparison, whose table has for each learner the means over folds of

    - "log likelihood" of a held-out trajectory, Σ log π (−inf where a choice has probability 0);
    - on a road network with `length`: "exact match", "matched length", "90% matched" as in :meth:`Learner.evaluate`;
    - on an MDP: "feature gap", :math:`|\mu_{test} - \mu_\pi|_2` of discounted feature sums, where the model has features;
      "occupancy distance", the total variation :math:`\frac12 \sum |\rho_{test} - \rho_\pi|` of normalised discounted visits of
      pairs; "value gap", :math:`E V^*(s_0) - E V^\pi(s_0)` under the true reward; all from the starts of the test's trajectories
      and, for a policy by time, over its horizon T: :math:`V^*` is then the best of T decisions, and a note says T;
    - "seconds" of CPU to fit, and "MB" at the peak of a fit.

    Raises
    ------
    InvalidInputError : no learners, a learner without fit and score, folds that cannot be cut

    Notes
    -----
    A learner that fails by name on a fold (a sum over paths that is infinite, say) has empty cells and a note, as has a policy
    that never ends at discount 1, and one planned for another horizon than `horizon`; wrong input raises. Visits of the
    test's trajectories end with them, those of a policy without a horizon do not: where trajectories are cut, gap and distance
    are not 0 for the truth either; pass `horizon`, or compare learners, not learners with 0.
    """
    road = isinstance(model, RoadNetwork)
    if not road and not isinstance(model, MDP):
        raise InvalidInputError(f"`model` must be an MDP or a RoadNetwork: got {type(model).__name__}; build one")
    if not isinstance(learners, dict) or not learners:
        raise InvalidInputError(f"`learners` must map names to learners: got {type(learners).__name__} of {len(learners)}; pass "
                                "{'MaxEnt': MaxEntIRL(), …}")
    for name, learner in learners.items():
        if isinstance(learner, type) or not (hasattr(learner, "fit") and hasattr(learner, "score")):
            raise InvalidInputError(f"each learner must have fit and score: {name!r} is a "
                                    f"{type(learner).__name__}; pass an instance")
    if road and true_reward is not None:
        raise InvalidInputError("`true_reward` goes with an MDP: on a road network values are those of a pair; leave it out")
    if not road and length is not None:
        raise InvalidInputError("`length` goes with a road network: an MDP has no routes; leave it out")
    if road and horizon is not None:
        raise InvalidInputError(f"`horizon` goes with an MDP: got {horizon!r} on a road network; leave it out")
    horizon = None if horizon is None else whole_number("horizon", horizon, lower=1)
    with naming(reward="true_reward"):
        reward = None if true_reward is None else model.reward_vector(true_reward, reward_on)
    parts, rows, notes, remarks, best = _folds(trajectories, folds, rng), [], [], {}, {}
    for name, learner in learners.items():
        for at, (train, test) in enumerate(parts):
            fresh = copy.deepcopy(learner)
            row = {"learner": str(name), "fold": at}
            try:
                begin = time.process_time()
                fresh.fit(model, train)
                row["seconds"] = time.process_time() - begin
                row["log likelihood"] = fresh.score(test)
                if road:
                    row.update(_routes(fresh, test, length) if length is not None else {})
                else:
                    measures, said = _process(fresh, model, test, reward, horizon, best)
                    row.update(measures)
                    if said:
                        remarks.setdefault(said, {}).setdefault(str(name), []).append(str(at))
                if memory:
                    row["MB"] = _peak(copy.deepcopy(learner), model, train)
            except (DivergenceError, UndecidedError, UnreachableError) as error:
                notes.append(f"{name}, fold {at}: {error}")
            rows.append(row)
    for said, of in remarks.items():
        who = (name if len(at) == len(parts) else f"{name} (fold {', '.join(at)})" for name, at in of.items())
        notes.append(f"{', '.join(who)}: {said}")
    present = [measure for measure in _MEASURES if any(measure in row for row in rows)]
    per_fold = Table({"learner": [row["learner"] for row in rows], "fold": [row["fold"] for row in rows],
                      **{measure: [row.get(measure) for row in rows] for measure in present}},
                     formats={measure: _MEASURES[measure] for measure in present})
    mean = {measure: [_mean([row.get(measure) for row in rows if row["learner"] == str(name)]) for name in learners]
            for measure in present}
    table = Table({"learner": [str(name) for name in learners], **mean}, title=f"{len(parts)} folds, means of what was held out",
                  notes=tuple(notes), formats={measure: _MEASURES[measure] for measure in present})
    return LearnerComparison(table, per_fold, tuple(notes))


def _mean(values):
    """None where a fold has none: a mean over other folds than the others' would mislead."""
    return None if any(value is None for value in values) else float(np.mean(values))


def _folds(trajectories, folds, rng, by="trip"):
    if isinstance(trajectories, Trajectories):
        if rng is None:
            raise InvalidInputError("`rng` must be given where folds are to be cut: got None; pass "
                                    "numpy.random.default_rng(seed), or a list of (train, test) pairs")
        return list(trajectories.folds(whole_number("folds", folds, lower=2), rng, by))
    parts = list(trajectories) if isinstance(trajectories, (list, tuple)) else [trajectories]
    for at, part in enumerate(parts):
        if not (isinstance(part, (tuple, list)) and len(part) == 2 and all(isinstance(x, Trajectories) for x in part)):
            raise InvalidInputError(f"`trajectories` must be Trajectories or (train, test) pairs of them: entry {at} is neither; "
                                    "pass [(train, test), …]")
    if not parts:
        raise InvalidInputError("at least one fold is needed: the list of (train, test) pairs is empty; pass some")
    return parts


def _routes(learner, test, length):
    found = learner.evaluate(test, length=length).to_dict()
    return {name: float(found[name][0]) for name in ("exact match", "matched length", "90% matched")}


def _process(learner, mdp, test, reward, horizon, best):
    """(measures, what to say of them) on a decision process; `best` keeps the optimal values by horizon."""
    policy = learner.policy()
    own = len(policy) if np.ndim(policy) == 2 else getattr(learner, "horizon", None)  # a policy by time knows its own
    if horizon is not None and own not in (None, horizon):
        return {}, f"planned for {own} decisions and not for horizon={horizon}: not measured beyond log likelihood"
    horizon = own if horizon is None else horizon
    steps = match_steps(mdp, test)
    start = np.bincount(steps.start, steps.weight, minlength=mdp.n_states)
    start = start / start.sum()
    if horizon is not None:
        visits = mdp.discount ** np.arange(horizon) @ visitation_frequencies(mdp, policy, start, horizon).pair_by_time
    else:
        try:
            visits = visitation_frequencies(mdp, policy, start).pair
        except InvalidInputError as error:
            if mdp.discount < 1:
                raise
            return {}, str(error)  # a policy that never ends is what was learned, not wrong input
    seen = (np.bincount(steps.pair, steps.weight[steps.trip] * mdp.discount**steps.time, minlength=mdp.n_pairs)
            / steps.weight.sum())
    found = {"occupancy distance": 0.5 * float(np.abs(seen / seen.sum() - visits / visits.sum()).sum())}
    if mdp.features is not None:
        found["feature gap"] = float(np.linalg.norm(np.asarray(mdp.features.T @ (seen - visits))))
    if reward is not None:
        if horizon not in best:
            value = value_iteration(mdp, reward, "pair", horizon=horizon).value
            best[horizon] = value if horizon is None else value[0]
        if np.isneginf(best[horizon][start > 0]).any():
            raise InvalidInputError("`true_reward` must leave each start something to do: in some every action is forbidden "
                                    "(−inf); allow one")
        found["value gap"] = max(_dot(start, best[horizon]) - _dot(visits, reward), 0.0)
    return found, "" if horizon is None else f"measured over {horizon} decisions"


def _dot(weight, values):
    """Σ w v; what never happens counts nothing, however bad."""
    there = weight > 0
    return float(weight[there] @ values[there])


def _peak(learner, model, train):
    tracemalloc.start()
    try:
        learner.fit(model, train)
        return tracemalloc.get_traced_memory()[1] / 2**20
    finally:
        tracemalloc.stop()


@dataclass(frozen=True)
class CrossValidation:
    """What :func:`cross_validate` found.

    Attributes
    ----------
    table : Table, a row a strength: mean held-out log likelihood, its standard error over the folds, that of the training trips
    strengths : (m,) in the order fitted, the strongest first
    scores : (m, n_folds) held-out log likelihoods, NaN where a fit failed by name
    best : the strength of the largest mean
    sparest : the largest strength whose mean is within one standard error of the best
    learner : fitted with `best` to all trajectories
    notes : tuple of str, what failed, and why
    """

    table: Table
    strengths: np.ndarray
    scores: np.ndarray
    best: float
    sparest: float
    learner: object
    notes: tuple

    def __str__(self):
        return str(self.table)


def cross_validate(make, strengths, model, trajectories, *, folds=5, rng=None, by="trip", warm_start=True):
    r"""Choose the strength of a penalty by what is held out:
    :math:`\arg\max_\lambda \sum_k \log P(D_k \mid \hat\theta_\lambda(D \setminus D_k))`.

    Parameters
    ----------
    make : callable of a strength that returns a learner, not fitted: ``lambda l2: MaxEntIRL(LinearReward(l2=l2))``
    strengths : (m,) different numbers of at least 0, in any order
    model : MDP or RoadNetwork
    trajectories : Trajectories, or a list of (train, test) pairs of them, which are then the folds
    folds : int, how many folds; each is held out once
    rng : numpy.random.Generator that cuts the folds
    by : "trip", or "cluster": the trips of a driver are held out together
    warm_start : whether a fit starts at the last, stronger one's parameters, where the learner has a `start` (MaxEntIRL)

    Returns
    -------
    CrossValidation

    Raises
    ------
    InvalidInputError : no strengths, a `make` that returns no learner, folds that cannot be cut, or none that could be fitted

    Notes
    -----
    Penalties weigh against a sum over trips: the learner of all trajectories has more of them than the fits of the folds,
    by folds / (folds − 1), which is left as it is. A held-out trajectory of probability 0 makes a strength's mean −inf.

    References
    ----------
    Hastie, Tibshirani, Friedman (2009), The elements of statistical learning, 7.10 (one-standard-error rule).
    """
    if not callable(make):
        raise InvalidInputError(f"`make` must be a callable of a strength that returns a learner: got {type(make).__name__}; "
                                "pass lambda l2: MaxEntIRL(LinearReward(l2=l2))")
    strengths = np.sort(float_vector("strengths", strengths, nonnegative=True))[::-1]
    if not strengths.size or np.unique(strengths).size != strengths.size:
        raise InvalidInputError(f"`strengths` must be different numbers, at least one: got {strengths.tolist()}; pass such as "
                                "[0.1, 1.0, 10.0]")
    parts, notes = _folds(trajectories, folds, rng, by), []
    scores, train_scores = np.full((strengths.size, len(parts)), np.nan), np.full((strengths.size, len(parts)), np.nan)
    for k, (train, test) in enumerate(parts):
        last = None
        for i, strength in enumerate(strengths):
            learner = _made(make, strength)
            try:
                last = _warm(learner, last if warm_start else None, model, train)
                scores[i, k], train_scores[i, k] = last.score(test), last.score(train)
            except (DivergenceError, UndecidedError, UnreachableError) as error:
                notes.append(f"strength {strength:g}, fold {k}: {error}")
                last = None
    with np.errstate(invalid="ignore"):
        mean = scores.mean(axis=1)
        error = scores.std(axis=1, ddof=1) / np.sqrt(len(parts)) if len(parts) > 1 else np.full(len(mean), np.nan)
    if np.isnan(mean).all():
        raise InvalidInputError(f"some strength must be fitted on all folds: none is ({notes[0]}); pass larger ones, or "
                                "mend the model")
    best = int(np.nanargmax(mean))
    room = error[best] if np.isfinite(error[best]) else 0.0
    sparest = int(np.flatnonzero(mean >= mean[best] - room)[0])
    everything = trajectories if isinstance(trajectories, Trajectories) else _all_of(parts)
    learner = _made(make, strengths[best]).fit(model, everything)

    def cells(values):
        return [None if np.isnan(value) else float(value) for value in values]

    table = Table({"strength": strengths, "held out": cells(mean), "s.e.": cells(error),
                   "training": cells(train_scores.mean(axis=1))},
                  title=f"log likelihood per trajectory, {len(parts)} folds",
                  formats={"strength": ".4g", "held out": ".4f", "s.e.": ".4f", "training": ".4f"},
                  notes=(f"best: {strengths[best]:g}; within one standard error: {strengths[sparest]:g}", *notes))
    return CrossValidation(table, strengths, scores, float(strengths[best]), float(strengths[sparest]), learner, tuple(notes))


def _made(make, strength):
    learner = make(float(strength))
    if not (hasattr(learner, "fit") and hasattr(learner, "score")) or isinstance(learner, type):
        raise InvalidInputError(f"`make` must return a learner: for {strength:g} it returned a {type(learner).__name__}; return "
                                "an instance with fit and score")
    return learner


def _warm(learner, last, model, train):
    """Fitted, from the parameters of the last fit where the learner takes a start and none was given."""
    if last is not None and hasattr(learner, "start") and learner.start is None and hasattr(last, "free_"):
        learner.start = np.array(last.coef_)[np.asarray(last.free_)]
    return learner.fit(model, train)


def _all_of(parts):
    """Each trajectory of (train, test) pairs once: the tests, and if these are not all, the first pair."""
    tests = [test for _, test in parts]
    whole = tests if len(parts) > 1 else list(parts[0])
    return Trajectories.concatenate(whole, ids=np.arange(sum(map(len, whole))))
