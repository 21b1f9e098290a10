"""Learners side by side: the same folds, the same measures, one table."""

import copy
import time
import tracemalloc
from dataclasses import dataclass

import numpy as np

from ._validation import float_vector, whole_number
from .exceptions import DivergenceError, InvalidInputError, UndecidedError, UnreachableError
from .learner import Learner
from .mdp import MDP
from .planning import policy_evaluation, value_iteration, visitation_frequencies
from .process_likelihood import match_steps
from .receding_horizon import _OnRoads
from .road_network import RoadNetwork
from .tables import Table
from .trajectories import Trajectories

__all__ = ["LearnerComparison", "ShortestPath", "compare_learners"]

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
    notes : tuple of str, what could not be measured, and why
    """

    table: Table
    folds: Table
    notes: tuple

    def __str__(self):
        return str(self.table)


def compare_learners(learners, model, trajectories, *, folds=3, rng=None, length=None, true_reward=None, reward_on="auto",
                     memory=False):
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
    memory : also fit once more under ``tracemalloc``; it sees NumPy's arrays and Python's objects

    Returns
    -------
    LearnerComparison, whose table has for each learner the means over folds of

    - "log likelihood" of a held-out trajectory, Σ log π (−inf where a choice has probability 0);
    - on a road network with `length`: "exact match", "matched length", "90% matched" as in :meth:`Learner.evaluate`;
    - on an MDP: "feature gap", :math:`|\mu_{test} - \mu_\pi|_2` of discounted feature sums, where the model has features;
      "occupancy distance", the total variation :math:`\frac12 \sum |\rho_{test} - \rho_\pi|` of normalised discounted visits of pairs;
      "value gap", :math:`E V^*(s_0) - E V^\pi(s_0)` under the true reward; all from the starts of the test's trajectories;
    - "seconds" of CPU to fit, and "MB" at the peak of a fit.

    Raises
    ------
    InvalidInputError : no learners, a learner without fit and score, folds that cannot be cut

    Notes
    -----
    A learner that fails by name on a fold (a sum over paths that is infinite, say) has empty cells and a note; wrong input
    raises. Visits of the test's trajectories end with them, those of a policy do not: where trajectories are cut at a
    horizon, gap and distance are not 0 for the truth either; compare learners, not learners with 0.
    """
    road = isinstance(model, RoadNetwork)
    if not road and not isinstance(model, MDP):
        raise InvalidInputError(f"`model` must be an MDP or a RoadNetwork: got {type(model).__name__}; build one")
    if not isinstance(learners, dict) or not learners:
        raise InvalidInputError(f"`learners` must map names to learners: got {type(learners).__name__} of {len(learners)}; pass "
                                "{'MaxEnt': MaxEntIRL(), …}")
    for name, learner in learners.items():
        if isinstance(learner, type) or not (hasattr(learner, "fit") and hasattr(learner, "score")):
            raise InvalidInputError(f"each learner must have fit and score: {name!r} is a {type(learner).__name__}; pass an instance")
    if road and true_reward is not None:
        raise InvalidInputError("`true_reward` goes with an MDP: on a road network values are those of a pair; leave it out")
    if not road and length is not None:
        raise InvalidInputError("`length` goes with a road network: an MDP has no routes; leave it out")
    parts, rows, notes = _folds(trajectories, folds, rng), [], []
    for name, learner in learners.items():
        for at, (train, test) in enumerate(parts):
            fresh = copy.deepcopy(learner)
            row = {"learner": str(name), "fold": at}
            try:
                begin = time.process_time()
                fresh.fit(model, train)
                row["seconds"] = time.process_time() - begin
                row["log likelihood"] = fresh.score(test)
                row.update(_routes(fresh, test, length) if length is not None else {} if road else
                           _process(fresh, model, test, true_reward, reward_on))
                if memory:
                    row["MB"] = _peak(copy.deepcopy(learner), model, train)
            except (DivergenceError, UndecidedError, UnreachableError) as error:
                notes.append(f"{name}, fold {at}: {error}")
            rows.append(row)
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


def _folds(trajectories, folds, rng):
    if isinstance(trajectories, Trajectories):
        if rng is None:
            raise InvalidInputError("`rng` must be given where folds are to be cut: got None; pass numpy.random.default_rng(seed), "
                                    "or a list of (train, test) pairs")
        return list(trajectories.folds(whole_number("folds", folds, lower=2), rng))
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


def _process(learner, mdp, test, true_reward, reward_on):
    steps = match_steps(mdp, test)
    start = np.bincount(steps.start, steps.weight, minlength=mdp.n_states)
    start = start / start.sum()
    policy, horizon = learner.policy(), getattr(learner, "horizon", None)
    visits = visitation_frequencies(mdp, policy, start, horizon).pair
    seen = np.bincount(steps.pair, steps.weight[steps.trip] * mdp.discount**steps.time, minlength=mdp.n_pairs) / steps.weight.sum()
    found = {"occupancy distance": 0.5 * float(np.abs(seen / seen.sum() - visits / visits.sum()).sum())}
    if mdp.features is not None:
        found["feature gap"] = float(np.linalg.norm(np.asarray(mdp.features.T @ (seen - visits))))
    if true_reward is not None and np.ndim(policy) == 1:
        best = value_iteration(mdp, true_reward, reward_on).value
        own = policy_evaluation(mdp, policy, true_reward, reward_on).value
        found["value gap"] = max(float(start @ (best - own)), 0.0)
    return found


def _peak(learner, model, train):
    tracemalloc.start()
    try:
        learner.fit(model, train)
        return tracemalloc.get_traced_memory()[1] / 2**20
    finally:
        tracemalloc.stop()
