"""People who watch a learner and judge it, simulated: how late they react, what they say, and guidance before a choice."""

from dataclasses import dataclass

import numpy as np
from scipy import special

from ._validation import float_vector, positive_number, shown
from .exceptions import InvalidInputError
from .mdp import MDP
from .planning import value_iteration

__all__ = ["Delay", "SimulatedTrainer"]


@dataclass(frozen=True)
class Delay:
    """How long a person takes from an event to the feedback about it: uniform or gamma, in units of time.

    Parameters
    ----------
    kind : "uniform", between the two numbers, or "gamma", with shape and scale (mean shape · scale)
    first, second : floats, lowest and highest, or shape and scale
    """

    kind: str = "uniform"
    first: float = 0.2
    second: float = 0.8

    def __post_init__(self):
        if self.kind not in ("uniform", "gamma"):
            raise InvalidInputError(f"a delay must be ('uniform', lowest, highest) or ('gamma', shape, scale): got {self.kind!r}"
                                    "; choose one of these")
        first = positive_number("delay", self.first, strict=self.kind == "gamma")
        second = positive_number("delay", self.second)
        if self.kind == "uniform" and first >= second:
            raise InvalidInputError(f"a uniform delay must have lowest < highest: got {first:g} and {second:g}; swap them")
        object.__setattr__(self, "first", first)
        object.__setattr__(self, "second", second)

    @classmethod
    def of(cls, delay):
        """A Delay of a Delay or a tuple (kind, first, second)."""
        if isinstance(delay, cls):
            return delay
        if not isinstance(delay, (tuple, list)) or len(delay) != 3:
            raise InvalidInputError(f"a delay must be ('uniform', lowest, highest) or ('gamma', shape, scale): got {shown(delay)}"
                                    "; pass ('uniform', 0.2, 0.8), say")
        return cls(*delay)

    def cdf(self, x):
        """Chance of a delay of at most x."""
        x = np.maximum(x, 0.0)
        if self.kind == "uniform":
            return np.clip((x - self.first) / (self.second - self.first), 0.0, 1.0)
        return special.gammainc(self.first, x / self.second)

    @property
    def longest(self):
        """A delay that is exceeded with a chance below 1e-9."""
        return self.second if self.kind == "uniform" else float(special.gammaincinv(self.first, 1 - 1e-9)) * self.second

    def draw(self, rng, n):
        """(n,) delays."""
        return rng.uniform(self.first, self.second, n) if self.kind == "uniform" else rng.gamma(self.first, self.second, n)


class SimulatedTrainer:
    r"""A person who judges what a learner does, and names what it should work on next.

    Parameters
    ----------
    mdp : MDP
    judgement : (n_pairs,) what this person thinks of each choice; nan where nothing is said. :meth:`of_reward` makes it
    rate : how often something is said. Per step (:meth:`judge`) a chance in [0, 1]; on a clock (:meth:`feedback`) events per unit
        of time
    delay : ('uniform', lowest, highest), ('gamma', shape, scale) or a Delay, from event to feedback, on a clock
    noise : standard deviation of what is added to each judgement
    guidance_rate : chance in [0, 1] that before a choice the person names an object
    objects : (n_pairs,) integers, the object that a choice has to do with, −1 for none; needed for guidance
    wanted : (n_pairs,) bool, choices this person would make, from which guidance takes its object; by default the best judged
        ones of each state

    Attributes
    ----------
    judgement, rate, noise, guidance_rate : as given

    Raises
    ------
    InvalidInputError : a wrong argument

    Notes
    -----
    On a clock the person watches all the time: events come at `rate` per unit of time, each about the step that is under way,
    and the feedback arrives a delay later. Under this model TAMER's credit is the chance that a step is what a feedback is about.
    It does not tire, and it does not react to how the learner changes, as people do.

    References
    ----------
    Knox and Stone (2009), Interactively shaping agents via human reinforcement; Thomaz and Breazeal (2006), Reinforcement
    learning with human teachers: evidence of feedback and guidance.
    """

    def __init__(self, mdp, judgement, *, rate=1.0, delay=("uniform", 0.2, 0.8), noise=0.0, guidance_rate=0.0, objects=None,
                 wanted=None):
        if not isinstance(mdp, MDP):
            raise InvalidInputError(f"`mdp` must be an MDP: got {type(mdp).__name__}; build one with MDP(…)")
        given = np.asarray(judgement, dtype=float)
        silent = np.isnan(given) if given.ndim == 1 else False
        self.judgement = float_vector("judgement", np.where(silent, 0.0, given), mdp.n_pairs)
        self.judgement[silent] = np.nan
        self.rate = positive_number("rate", rate, strict=False)
        self.delay = Delay.of(delay)
        self.noise = positive_number("noise", noise, strict=False)
        self.guidance_rate = positive_number("guidance_rate", guidance_rate, strict=False, upper=1.0)
        if self.guidance_rate and objects is None:
            raise InvalidInputError("guidance must name objects: `objects` is None; pass the object of each pair, or "
                                    "guidance_rate=0")
        self.mdp = mdp
        self.objects = None if objects is None else _whole(objects, mdp.n_pairs)
        if wanted is None:
            best = np.full(mdp.n_states, -np.inf)
            np.maximum.at(best, mdp.pair_state, np.where(silent, -np.inf, self.judgement))
            wanted = self.judgement == best[mdp.pair_state]
        wanted = np.asarray(wanted, bool)
        if wanted.shape != (mdp.n_pairs,):
            raise InvalidInputError(f"`wanted` must have {mdp.n_pairs} entries: got shape {wanted.shape}; pass one for each pair")
        self._wanted = {}
        if self.objects is not None:
            for pair in np.flatnonzero(wanted & (self.objects >= 0)):
                self._wanted.setdefault(int(mdp.pair_state[pair]), []).append(int(self.objects[pair]))
        self._spoken = self.judgement.tolist()

    @classmethod
    def of_reward(cls, mdp, reward=None, *, tolerance=1e-6, **options):
        """A person who knows the reward: +1 on choices that are best, −1 on those that lose more than `tolerance`.

        Parameters
        ----------
        mdp : MDP
        reward : as of :meth:`MDP.reward_vector`
        tolerance : float, of Q, in units of reward
        options : of :class:`SimulatedTrainer`

        Returns
        -------
        SimulatedTrainer
        """
        found = value_iteration(mdp, reward, tol=min(tolerance / 4, 1e-8))
        best = found.q >= found.value[mdp.pair_state] - tolerance
        return cls(mdp, np.where(best, 1.0, -1.0), wanted=best, **options)

    def judge(self, pair, rng):
        """What is said about a choice just made: a float, or None for nothing."""
        if rng.random() >= self.rate:
            return None
        value = self._spoken[pair]
        if value != value:
            return None
        return value + self.noise * rng.standard_normal() if self.noise else value

    def guide(self, state, rng):
        """The object that is named before a choice in the state of this index, or None."""
        if not self.guidance_rate or rng.random() >= self.guidance_rate:
            return None
        objects = self._wanted.get(state)
        return objects[int(rng.integers(len(objects)))] if objects else None

    def feedback(self, times, pairs, rng):
        """Feedback on a clock about one trajectory.

        Parameters
        ----------
        times : (n_steps + 1,) when each step begins, and when the last ends
        pairs : (n_steps,) indices of the pairs chosen
        rng : numpy.random.Generator

        Returns
        -------
        (m, 2) array of times and values, by time
        """
        times = float_vector("times", times, len(pairs) + 1)
        event = np.sort(rng.uniform(times[0], times[-1], rng.poisson(self.rate * (times[-1] - times[0]))))
        at = np.asarray(pairs)[np.minimum(np.searchsorted(times, event, side="right") - 1, len(pairs) - 1)]
        value = self.judgement[at] + self.noise * rng.standard_normal(at.size)
        said = ~np.isnan(value)
        when = event[said] + self.delay.draw(rng, int(said.sum()))
        order = np.argsort(when, kind="stable")
        return np.column_stack([when, value[said]])[order]


def _whole(values, n):
    found = np.asarray(values)
    if found.shape != (n,) or found.dtype.kind not in "iu":
        raise InvalidInputError(f"`objects` must be {n} integers, −1 for none: got {found.dtype} of shape {found.shape}; pass "
                                "one for each pair")
    return found.astype(np.int64)
