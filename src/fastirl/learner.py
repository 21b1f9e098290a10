"""What all learners of behaviour share: one way of calling, and everything that follows from a policy."""

import functools
import inspect

import numpy as np

from . import _core
from ._validation import float_vector, whole_number
from .exceptions import InvalidInputError, NotFittedError
from .mdp import MDP
from .planning import visitation_frequencies
from .process_likelihood import match_steps
from .results import Route
from .road_network import RoadNetwork
from .route_choice import plain, refuse_unreachable
from .tables import Table

__all__ = ["Learner", "route_measures"]

_KINDS = {MDP: "an MDP", RoadNetwork: "a RoadNetwork"}


class Learner:
    """Base of the learners: ``fit(model, trajectories)`` sets a policy, the rest follows from it.

    A subclass names the kinds of model it learns on in `models`, calls :meth:`_observe` at the start of `fit`, and sets
    `_policy` ((n_pairs,), or (horizon, n_pairs)) on an :class:`MDP`, or defines `_chances(destination)` ((n_arcs,)
    probabilities of arcs at their tails, by the destination's index) on a :class:`RoadNetwork`. There a trip ends when it
    first reaches its destination.
    """

    models = (MDP, RoadNetwork)
    model_ = None
    horizon = None

    def __init_subclass__(cls, **options):
        super().__init_subclass__(**options)
        if "fit" in cls.__dict__:
            cls.fit = _all_or_nothing(cls.fit)

    def __repr__(self):
        """The settings that are not the defaults; arrays and generators are left out."""
        parts = []
        for name, parameter in inspect.signature(type(self).__init__).parameters.items():
            value = self.__dict__.get(name, parameter.default)
            plain_value = isinstance(value, (str, int, float, bool, np.number)) or hasattr(value, "bind")
            usual = repr(value) in (repr(parameter.default), "LinearReward()")
            if name != "self" and plain_value and not usual:
                parts.append(f"{name}={value!r}")
        return f"{type(self).__name__}({', '.join(parts)})"

    # -- for subclasses

    def _observe(self, model, trajectories, horizon=None):
        """Matched demonstrations: MatchedSteps on an MDP, MatchedTrips on a road network. Keeps the model and the starts."""
        if not isinstance(model, self.models):
            kinds = " or ".join(_KINDS[kind] for kind in self.models)
            raise InvalidInputError(f"`model` must be {kinds} for {type(self).__name__}: got {type(model).__name__}; see "
                                    "docs/methods.md for learners that take the other kind")
        if isinstance(model, MDP):
            seen = match_steps(model, trajectories, horizon)
            if seen.pair.size == 0:
                raise InvalidInputError(f"demonstrations must choose something: none of the {len(seen)} trajectories has a "
                                        "step; pass trajectories with actions")
            self._starts = np.bincount(seen.start, seen.weight, minlength=model.n_states)
        else:
            seen = model.match(trajectories, "first_arrival")
        if not seen.weight.sum() > 0:
            raise InvalidInputError(f"demonstrations must have some weight: all {len(seen)} have weight 0, the first is "
                                    f"{plain(seen.ids[0])!r}; pass weights above 0, or none")
        self.model_ = model
        self._cache = {}
        return seen

    def _require_fit(self):
        if self.model_ is None:
            raise NotFittedError(f"this {type(self).__name__} must be fitted first: it is not; call fit(model, trajectories)")

    def _chances(self, destination):
        raise NotImplementedError

    def _road(self, destination):
        """The index of a destination, after the checks that every use on a road network needs."""
        self._require_fit()
        if not isinstance(self.model_, RoadNetwork):
            raise InvalidInputError("routes need a road network: this learner was fitted to an MDP; use policy() and "
                                    "sample_trajectories")
        return int(self.model_.state_index(destination, "destination"))

    def _chances_of(self, target):
        """(n_arcs,) probabilities, the last few destinations kept."""
        if target not in self._cache:
            if len(self._cache) >= 8:
                self._cache.clear()
            self._cache[target] = self._chances(target)
        return self._cache[target]

    # -- what follows from a policy

    def policy(self, destination=None):
        """The learned policy.

        Parameters
        ----------
        destination : label of a state, on a road network only

        Returns
        -------
        (n_pairs,) probabilities of an MDP's pairs, or (horizon, n_pairs); on a road network (n_arcs,) probabilities of
        the arcs at their tails for travellers to the destination, 0 where it is out of reach

        Raises
        ------
        InvalidInputError : a destination on an MDP, none on a road network, or an unknown label
        NotFittedError
        """
        self._require_fit()
        if isinstance(self.model_, MDP):
            if destination is not None:
                raise InvalidInputError(f"`destination` goes with road networks: got {destination!r} on an MDP; leave it out")
            return self._policy.copy()
        if destination is None:
            raise InvalidInputError("`destination` must be given on a road network: its policy depends on it; pass a label")
        return self._chances_of(self._road(destination)).copy()

    def log_likelihoods(self, trajectories):
        """(n_trajectories,) Σ log π(a | s) over the choices of each; −inf where one has probability 0.

        Raises
        ------
        InvalidTripError : a trajectory that the model cannot make
        NotFittedError
        """
        return self._likelihoods(trajectories)[0]

    def _likelihoods(self, trajectories):
        self._require_fit()
        if isinstance(self.model_, MDP):
            steps = match_steps(self.model_, trajectories, self.horizon)
            chance = self._policy[steps.pair] if self._policy.ndim == 1 else self._policy[steps.time, steps.pair]
            with np.errstate(divide="ignore"):
                return np.bincount(steps.trip, np.log(chance), minlength=len(steps)), steps.weight
        trips = self.model_.match(trajectories, "first_arrival")
        log = np.empty(trips.arc.size)
        destination = np.repeat(trips.destination, trips.n_steps)
        order = np.argsort(destination, kind="stable")
        targets, first = np.unique(destination[order], return_index=True)
        with np.errstate(divide="ignore"):
            for target, part in zip(targets, np.split(order, first[1:])):
                log[part] = np.log(self._chances_of(int(target))[trips.arc[part]])
        trip = np.repeat(np.arange(len(trips)), trips.n_steps)
        return np.bincount(trip, log, minlength=len(trips)), trips.weight

    def score(self, trajectories):
        """Mean log likelihood per trajectory, Σ w_n Σ_t log π(a_t | s_t) / Σ w_n; −inf where a choice has probability 0.

        Raises
        ------
        InvalidInputError : all trajectories have weight 0
        InvalidTripError : a trajectory that the model cannot make
        NotFittedError
        """
        likelihood, weight = self._likelihoods(trajectories)
        if not weight.sum() > 0:
            raise InvalidInputError(f"trajectories must have some weight: all {weight.size} have weight 0; pass weights "
                                    "above 0, or none")
        counted = weight > 0
        return float(np.average(likelihood[counted], weights=weight[counted]))

    # -- on a decision process

    def visitation(self, initial_distribution=None, horizon=None):
        """How often the learned policy visits states and pairs, by :func:`visitation_frequencies`.

        Parameters
        ----------
        initial_distribution : (n_states,), by default the weighted starts of the demonstrations
        horizon : int or None, by default the learner's own

        Returns
        -------
        VisitationResult
        """
        self._require_fit()
        if not isinstance(self.model_, MDP):
            raise InvalidInputError("visits of one policy need an MDP: this learner was fitted to a road network, where "
                                    "they depend on the pair; use sample_routes")
        if initial_distribution is None:
            initial_distribution = self._starts / self._starts.sum()
        return visitation_frequencies(self.model_, self._policy, initial_distribution,
                                      self.horizon if horizon is None else horizon)

    # -- on a road network

    def predict_route(self, origin, destination):
        """The most likely route of a pair under the policy: the path of largest Σ log π.

        Parameters
        ----------
        origin, destination : labels of states

        Returns
        -------
        Route; its `utility` is its log probability

        Raises
        ------
        UnreachableError : no path of positive probability leads from the origin to the destination
        InvalidInputError, NotFittedError
        """
        target = self._road(destination)
        net, start = self.model_, int(self.model_.state_index(origin, "origin"))
        arcs = self._best(np.array([start], dtype=np.intc), target)[0]
        with np.errstate(divide="ignore"):
            chance = float(np.log(self._chances_of(target)[arcs]).sum())
        states = net.state_ids[np.concatenate([[start], net.head[arcs]]).astype(int)]
        return Route(states=states, arcs=arcs, utility=chance, log_probability=chance)

    def _best(self, starts, target):
        net = self.model_
        with np.errstate(divide="ignore"):
            score = np.minimum(np.log(self._chances_of(target)), 0.0)
        ptr, arcs, best = _core.best_routes(*net._topology.arrays, score, np.array([target], dtype=np.intc),
                                            np.array([0, starts.size], dtype=np.intc), starts)
        refuse_unreachable(net, starts, np.full(starts.size, target), best)
        return [arcs[a:b] for a, b in zip(ptr[:-1], ptr[1:])]

    def sample_routes(self, origin, destination, n, rng, max_length=100_000):
        """n routes of one pair drawn from the policy: a list of (m,) arrays of arcs.

        Parameters
        ----------
        origin, destination : labels of states
        n : int, at least 0
        rng : numpy.random.Generator
        max_length : a drawn route of more arcs is an error: nothing says that a policy ever arrives

        Raises
        ------
        UnreachableError : no path of positive probability leads from the origin to the destination
        InvalidInputError : a route of more than max_length arcs; NotFittedError
        """
        target, n = self._road(destination), whole_number("n", n)
        net, start = self.model_, int(self.model_.state_index(origin, "origin"))
        if not isinstance(rng, np.random.Generator):
            raise InvalidInputError(
                f"`rng` must be a numpy.random.Generator: got {type(rng).__name__}; pass numpy.random.default_rng(seed)")
        self._best(np.array([start], dtype=np.intc), target)
        with np.errstate(divide="ignore"):
            utility = np.log(self._chances_of(target))
        # where all values are 0 the kernel's exp(u + V − V) is the policy itself
        values = np.zeros((1, net.n_states))
        ptr, arcs, longest = _core.sample_routes(
            *net._topology.arrays[:3], utility, values, np.full(n, start, dtype=np.intc), target, False, 1.0,
            rng.integers(0, 2**64, n, dtype=np.uint64), max_length, 1)
        if longest > max_length:
            raise InvalidInputError(f"a drawn route must have at most max_length={max_length} arcs: one had more; raise "
                                    "max_length, or look at the policy: it may never arrive")
        return [arcs[a:b] for a, b in zip(ptr[:-1], ptr[1:])]

    def evaluate(self, trips, length):
        """Scores of Ziebart et al. (2008) on a road network.

        Parameters
        ----------
        trips : Trajectories
        length : (n_arcs,) lengths of the arcs, in which shares of a route are measured

        Returns
        -------
        Table of one row: log likelihood per trip, exact match (share of trips whose most likely route is the one taken),
        matched length (mean share of a trip's length that it covers), share of trips matched to 90% of their length
        """
        self._require_fit()
        net = self.model_
        lengths = float_vector("length", length, net.n_arcs, nonnegative=True)
        likelihood, weight = self._likelihoods(trips)
        matched = net.match(trips, "first_arrival")
        predicted = [None] * len(matched)
        for target in np.unique(matched.destination):
            part = np.flatnonzero(matched.destination == target)
            for n, route in zip(part, self._best(matched.origin[part].astype(np.intc), int(target))):
                predicted[n] = route
        exact, share, ninety = route_measures(matched, predicted, lengths, weight)
        counted = weight > 0  # −inf of weight 0 counts nothing
        return Table({
            "log likelihood per trip": [np.average(likelihood[counted], weights=weight[counted])], "exact match": [exact],
            "matched length": [share], "90% matched": [ninety],
        }, title=f"{len(matched):,} trips", formats={"log likelihood per trip": ".4f", "exact match": ".1%",
                                                     "matched length": ".1%", "90% matched": ".1%"})


def _all_or_nothing(fit):
    """A fit that fails leaves the learner as it was."""
    @functools.wraps(fit)
    def whole(self, *arguments, **options):
        before = dict(self.__dict__)
        try:
            return fit(self, *arguments, **options)
        except BaseException:
            self.__dict__.clear()
            self.__dict__.update(before)
            raise

    return whole


def route_measures(matched, routes, lengths, weight):
    """(exact, matched, ninety) shares of predicted routes, weighted."""
    exact, share = np.empty(len(routes)), np.empty(len(routes))
    for n, route in enumerate(routes):
        taken = matched.arc[matched.offsets[n]:matched.offsets[n + 1]]
        exact[n] = np.array_equal(taken, route)
        total = lengths[taken].sum()
        common = lengths[taken[np.isin(taken, route)]].sum()
        share[n] = common / total if total > 0 else exact[n]
    return (np.average(exact, weights=weight), np.average(share, weights=weight),
            np.average(share >= 0.9, weights=weight))
