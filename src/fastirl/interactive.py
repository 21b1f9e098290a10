r"""Q-learning with a person beside it: what the environment pays and what the person says, and guidance before a choice.

    Q(s, a) ← Q(s, a) + α [r + γ max_b Q(s', b) − Q(s, a)]                                          (Watkins 1989)

What the person says enters as reward (Thomaz and Breazeal 2006), or through H, what it said about each choice on the mean, in
one of the ways that Knox and Stone (2010) compare.
"""

from bisect import bisect_right

import numpy as np

from ._validation import float_vector, one_of, positive_number, whole_number
from .exceptions import InvalidInputError
from .learner import Learner
from .mdp import MDP

__all__ = ["InteractiveQLearning"]

COMBINATIONS = ("none", "signal", "reward", "potential", "q_augmentation", "action_bias", "control_sharing")


class InteractiveQLearning(Learner):
    r"""Q-learning from an environment and a person: interactive reward shaping, guidance, and TAMER + RL.

    Parameters
    ----------
    combination : how what the person says enters, with weight w
        "none": not at all. "signal": r + w h, as reward of the step that it is said about (Thomaz and Breazeal 2006). With
        H(s, a), the mean of what was said about a choice, or `human_reward` (Knox and Stone 2010): "reward": r + w H(s, a).
        "potential": r + w (γ Φ(s') − Φ(s)) with Φ(s) = max_a H(s, a), 0 at the end, which leaves the optimum where it is (Ng,
        Harada, Russell 1999). "q_augmentation": Q + w H in place of Q, in choices and in the values that are backed up.
        "action_bias": Q + w H in choices only. "control_sharing": with chance min(w, 1) the choice of largest H.
    weight : w, at least 0
    decay : factor of w from one episode to the next, in (0, 1]
    learning_rate : α in (0, 1]
    epsilon : chance of a choice at random in [0, 1]
    initial_value : (n_states,) potential with which Q(s, ·) starts, default 0

    Attributes
    ----------
    q_ : (n_pairs,) Q as learned; with "q_augmentation" without w H
    human_reward_ : (n_pairs,) H, 0 where nothing was said
    steps_, return_ : (n_episodes,) choices of each episode and what the environment paid, not discounted
    feedback_, guidance_ : (n_episodes,) int, how often something was said, and an object named
    ended_ : (n_episodes,) bool, False where an episode was cut at `max_steps`
    converged_ : bool, always False: Q-learning says nothing about how far it is from an optimum

    Raises
    ------
    InvalidInputError : a wrong argument

    Notes
    -----
    :meth:`policy` is greedy in Q (in Q + w H where that is what acts, with the last w). "signal" and "reward" change what is
    optimal: a person who praises for its own sake makes a learner that collects praise, in a circle if there is one (Ng, Harada,
    Russell 1999). For an H that stays as it is and w that does not decay, "potential" is plain Q-learning that starts at
    Q = w Φ (Wiewiora 2003), and "q_augmentation" one that starts at Q = w H: neither changes what is learned in the end.
    Guidance narrows a choice to actions that have to do with the object named; exploration stays within them.
    Plain Python, about 10 µs a step: it is meant for the hundreds of episodes for which a person has patience.

    References
    ----------
    Thomaz and Breazeal (2006), Reinforcement learning with human teachers, AAAI; Knox and Stone (2010), Combining manual feedback
    with subsequent MDP reward signals, AAMAS; Ng, Harada, Russell (1999), Policy invariance under reward transformations, ICML;
    Wiewiora (2003), Potential-based shaping and Q-value initialization are equivalent, JAIR.
    """

    models = (MDP,)

    def __init__(self, combination="signal", weight=1.0, *, decay=1.0, learning_rate=0.2, epsilon=0.1, initial_value=None):
        self.combination = one_of("combination", combination, COMBINATIONS)
        self.weight = positive_number("weight", weight, strict=False)
        self.decay = positive_number("decay", decay, upper=1.0)
        self.learning_rate = positive_number("learning_rate", learning_rate, upper=1.0)
        self.epsilon = positive_number("epsilon", epsilon, strict=False, upper=1.0)
        self.initial_value = initial_value

    def __repr__(self):
        return f"InteractiveQLearning({self.combination!r}, weight={self.weight:g})"

    def fit(self, model, trainer=None, *, reward=None, reward_on="auto", human_reward=None, n_episodes=100, max_steps=1000,
            initial_distribution=None, rng=None):
        """Learn by doing, while a person watches.

        Parameters
        ----------
        model : MDP, in which the learner acts; it does not see its probabilities
        trainer : object with ``judge(pair, rng)``, what is said about the choice just made, a float or None, and
            ``guide(state, rng)``, the object named before a choice, or None; such as a SimulatedTrainer. ``objects``, the object
            of each pair, where it guides. None: nobody watches
        reward, reward_on : the environment's, as of :meth:`MDP.reward_vector`
        human_reward : (n_pairs,) a model of the person's judgement that stays as it is, e.g. ``TAMER(...).human_reward_``
        n_episodes, max_steps : int; a longer episode is cut
        initial_distribution : (n_states,) where episodes begin; None for the environment's own
        rng : numpy.random.Generator

        Returns
        -------
        self

        Raises
        ------
        InvalidInputError : a wrong argument, or a person who names objects without `objects`
        """
        if not isinstance(model, MDP):
            raise InvalidInputError(f"`model` must be an MDP: got {type(model).__name__}; build one with MDP(…)")
        if not isinstance(rng, np.random.Generator):
            raise InvalidInputError(
                f"`rng` must be a numpy.random.Generator: got {type(rng).__name__}; pass numpy.random.default_rng(seed)")
        n_episodes, max_steps = whole_number("n_episodes", n_episodes, lower=1), whole_number("max_steps", max_steps, lower=1)
        paid = float_vector("reward", model.reward_vector(reward, reward_on))
        if initial_distribution is None:
            initial_distribution = model.initial_distribution
        if initial_distribution is None:
            raise InvalidInputError("`initial_distribution` must say where episodes begin: the model carries none; pass one")
        begin = float_vector("initial_distribution", initial_distribution, model.n_states, nonnegative=True)
        if not begin.sum() > 0:
            raise InvalidInputError("`initial_distribution` must have some mass: all is 0; pass chances")
        known = None if human_reward is None else float_vector("human_reward", human_reward, model.n_pairs)
        start = np.zeros(model.n_states) if self.initial_value is None else float_vector("initial_value", self.initial_value,
                                                                                         model.n_states)
        self.model_, self._cache, self._starts = model, {}, begin.copy()
        run = _Run(self, model, paid, start, known, trainer, rng)
        starts = rng.choice(model.n_states, n_episodes, p=begin / begin.sum())
        record = [run.episode(int(s), max_steps, e) for e, s in enumerate(starts)]
        self.steps_, self.return_, self.feedback_, self.guidance_, self.ended_ = (
            np.array(column) for column in zip(*record))
        self.q_, self.human_reward_ = np.array(run.q), np.array(run.human)
        self.converged_ = False
        acting = self.q_
        if self.combination in ("q_augmentation", "action_bias"):
            acting = acting + self.weight * self.decay ** (n_episodes - 1) * self.human_reward_
        order = np.lexsort((model.pair_action, -acting, model.pair_state))
        self._policy = np.zeros(model.n_pairs)
        self._policy[order[model.pair_ptr[:-1][np.diff(model.pair_ptr) > 0]]] = 1.0
        return self


class _Run:
    """Lists in place of arrays: a step reads a handful of numbers."""

    def __init__(self, learner, model, reward, start, known, trainer, rng):
        self.kind, self.first_weight, self.decay = learner.combination, learner.weight, learner.decay
        self.alpha, self.epsilon, self.gamma = learner.learning_rate, learner.epsilon, model.discount
        self.rng, self.trainer, self.fixed = rng, trainer, known is not None
        self.pairs_of = [range(a, b) for a, b in zip(model.pair_ptr[:-1].tolist(), model.pair_ptr[1:].tolist())]
        self.reward, self.q = reward.tolist(), start[model.pair_state].tolist()
        self.human = [0.0] * model.n_pairs if known is None else known.tolist()
        self.said = [0] * model.n_pairs
        self.next = [model.indices[a:b].tolist() for a, b in zip(model.indptr[:-1], model.indptr[1:])]
        self.chance = [np.cumsum(model.probability[a:b]).tolist() for a, b in zip(model.indptr[:-1], model.indptr[1:])]
        self.ends = model.terminal.tolist()
        self.objects = getattr(trainer, "objects", None)
        self.objects = None if self.objects is None else np.asarray(self.objects).tolist()
        self.numbers, self.at = rng.random(4096).tolist(), 0

    def uniform(self):
        if self.at == 4096:
            self.numbers, self.at = self.rng.random(4096).tolist(), 0
        self.at += 1
        return self.numbers[self.at - 1]

    def best(self, pairs, values, weight=0.0):
        """One of the best pairs, at random; with a weight of Q + w H."""
        if weight:
            human = self.human
            scores = [values[i] + weight * human[i] for i in pairs]
        else:
            scores = [values[i] for i in pairs]
        top = max(scores)
        ties = [i for i, score in zip(pairs, scores) if score == top]
        return ties[0] if len(ties) == 1 else ties[int(self.uniform() * len(ties))]

    def choose(self, state, weight):
        pairs, guided = self.pairs_of[state], 0
        if self.trainer is not None:
            named = self.trainer.guide(state, self.rng)
            if named is not None:
                if self.objects is None:
                    raise InvalidInputError("a person who names objects needs `objects`, the object of each pair: the trainer "
                                            "has none; set trainer.objects")
                narrowed = [i for i in pairs if self.objects[i] == named]
                pairs, guided = narrowed or pairs, 1
        if self.uniform() < self.epsilon:
            return pairs[int(self.uniform() * len(pairs))], guided
        if self.kind == "control_sharing" and self.uniform() < weight:
            return self.best(pairs, self.human), guided
        return self.best(pairs, self.q, weight if self.kind in ("q_augmentation", "action_bias") else 0.0), guided

    def value(self, state, weight):
        if self.ends[state]:
            return 0.0
        if self.kind == "q_augmentation" and weight:
            return max([self.q[i] + weight * self.human[i] for i in self.pairs_of[state]])
        return max([self.q[i] for i in self.pairs_of[state]])

    def potential(self, state):
        return 0.0 if self.ends[state] else max([self.human[i] for i in self.pairs_of[state]])

    def episode(self, state, max_steps, number):
        """(steps, return, feedback, guidance, ended)."""
        weight, kind = self.first_weight * self.decay**number, self.kind
        steps, total, heard, guidance = 0, 0.0, 0, 0
        while steps < max_steps and not self.ends[state]:
            pair, guided = self.choose(state, weight)
            u = self.uniform()
            # what leaks ends the episode
            at = bisect_right(self.chance[pair], u) if len(self.next[pair]) > 1 or self.chance[pair][-1] < 1 else 0
            over = at >= len(self.next[pair]) and self.chance[pair][-1] < 1 - 1e-8
            there = None if over else self.next[pair][min(at, len(self.next[pair]) - 1)]
            target = self.reward[pair]
            total, steps, guidance = total + target, steps + 1, guidance + guided
            said = None if self.trainer is None else self.trainer.judge(pair, self.rng)
            if said is not None:
                heard += 1
                if not self.fixed:
                    self.said[pair] += 1
                    self.human[pair] += (said - self.human[pair]) / self.said[pair]
                if kind == "signal":
                    target += weight * said
            if kind == "reward":
                target += weight * self.human[pair]
            elif kind == "potential":
                target += weight * ((0.0 if over else self.gamma * self.potential(there)) - self.potential(state))
            if not over:
                target += self.gamma * self.value(there, weight)
            now = self.q[pair] + (weight * self.human[pair] if kind == "q_augmentation" else 0.0)
            self.q[pair] += self.alpha * (target - now)
            if over:
                return steps, total, heard, guidance, True
            state = there
        return steps, total, heard, guidance, self.ends[state]
