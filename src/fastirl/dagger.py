"""DAgger: the expert says what it would have done in the states that the learner visits."""

import copy

import numpy as np

from . import _planning
from ._validation import naming, one_of, plain, positive_number, shown, whole_number
from .cloning import BehaviorCloning
from .exceptions import ExpertError, InvalidInputError
from .learner import Learner
from .mdp import MDP
from .planning import start_distribution
from .tables import Table
from .trajectories import Trajectories

__all__ = ["DAgger"]

SCHEDULES = ("first", "exponential")
_LONGEST = 100_000  # choices of a rollout without max_steps


class DAgger(Learner):
    r"""Dataset aggregation (Ross, Gordon, Bagnell 2011): clone, act, ask the expert about what was met, clone again.

    In iteration i rollouts are drawn under :math:`\pi_i = \beta_i \pi^* + (1 - \beta_i) \hat\pi_i` (a coin for each choice), the
    expert names its action in each state that they visit, all that it ever said is kept, and :math:`\hat\pi_{i+1}` is fitted to
    it. Of the fitted policies the one is kept that the expert disagrees with least where that policy itself goes. Its
    regret grows with T, where cloning's may grow with T².

    Parameters
    ----------
    expert : what is asked. A callable of a state's label that returns an action's label (a person at a prompt:
        ``lambda state: int(input(f"{state}? "))``); a policy in any form that :meth:`MDP.policy_vector` takes, or (max_steps,
        n_pairs) by time, from which answers are drawn; or anything with a `policy`: a planning result, a fitted learner
    learner : what is fitted to the answers, by default ``BehaviorCloning()``; it is copied
    schedule : β_i: "first" (1 in the first iteration, then 0: parameter-free), "exponential" (decay^(i − 1)), or a callable
        of i = 1, 2, … that returns a number in [0, 1]
    decay : of the exponential schedule, in (0, 1)
    n_iterations : N. Demonstrations given to `fit` take the place of the first: the expert acted there
    rollouts : trajectories drawn in each iteration
    max_steps : choices of a rollout at most; None: until the process ends
    select : "validation", the least disagreement in the states that a policy visits itself; or "last", which asks less
    ask_once : ask only once about each state and take the answer from then on: for experts whose time is dear, and who do
        not draw lots
    rng : numpy.random.Generator
    initial_distribution : (n_states,) where rollouts start; None for the demonstrations' weighted starts, or the environment's
        own

    Attributes
    ----------
    data_ : Trajectories, all that the expert said: a state and its action each, the iteration in `cluster`; demonstrations
        are taken apart likewise
    learner_ : the fitted learner that was chosen; best_iteration_ : after which iteration it was fitted
    history_ : Table, for each iteration β, new answers, distinct states known so far, and the disagreement of the policy
        fitted after it, the mean of :math:`1 - \hat\pi(a^* \mid s)` over the states that it visits (None where not measured)
    n_queries_ : how often the expert was asked; the demonstrations are not counted
    counts_ : (n_pairs,) weighted answers of all iterations; log_likelihood_ : float, of these under the policy chosen
    converged_ : of the fit that was chosen; message_, n_iter_

    Raises
    ------
    InvalidInputError : a wrong argument
    ExpertError : an expert that returns no action, or one that its state does not have

    Notes
    -----
    The state is all that the expert is told, and it answers at once. Disagreement is measured on fresh rollouts of
    :math:`\hat\pi_i` that no fit has seen before; where β is 0 in the next iteration its rollouts are these, and only the
    last policy needs rollouts of its own. On a road network an action leads where it says and a trip has a
    destination: there ask a planner for routes, and clone these. Nothing is promised where the expert itself cannot
    recover from the learner's mistakes.

    References
    ----------
    Ross, Gordon, Bagnell (2011), A reduction of imitation learning and structured prediction to no-regret online
    learning, AISTATS, algorithm 3.1 and section 4; Ross and Bagnell (2010), Efficient reductions for imitation learning.
    """

    models = (MDP,)

    def __init__(self, expert, learner=None, *, schedule="first", decay=0.5, n_iterations=10, rollouts=20, max_steps=None,
                 select="validation", ask_once=False, rng=None, initial_distribution=None):
        self.expert = expert
        self.learner = BehaviorCloning() if learner is None else learner
        if not (hasattr(self.learner, "fit") and hasattr(self.learner, "policy")) or isinstance(self.learner, type):
            raise InvalidInputError(f"`learner` must have fit and policy: got {shown(learner)}; pass BehaviorCloning(…)")
        self.schedule = schedule if callable(schedule) else one_of("schedule", schedule, SCHEDULES)
        self.decay = positive_number("decay", decay, upper=1.0)
        self.n_iterations = whole_number("n_iterations", n_iterations, lower=1)
        self.rollouts = whole_number("rollouts", rollouts, lower=1)
        self.max_steps = None if max_steps is None else whole_number("max_steps", max_steps, lower=1)
        self.select = one_of("select", select, ("validation", "last"))
        self.ask_once = bool(ask_once)
        if not isinstance(rng, np.random.Generator):
            raise InvalidInputError(
                f"`rng` must be a numpy.random.Generator: got {type(rng).__name__}; pass rng=numpy.random.default_rng(seed)")
        self.rng, self.initial_distribution = rng, initial_distribution

    def __repr__(self):
        return f"DAgger({self.learner!r}, schedule={self.schedule!r}, n_iterations={self.n_iterations})"

    def __deepcopy__(self, memo):
        # the expert may be a person, or a plan that asks to be computed first: it is asked, not copied
        memo[id(self.expert)] = self.expert
        new = memo[id(self)] = type(self).__new__(type(self))
        new.__dict__.update({name: copy.deepcopy(value, memo) for name, value in self.__dict__.items()})
        return new

    def fit(self, model, trajectories=None):
        """Learn from an expert that is asked.

        Parameters
        ----------
        model : MDP; its dynamics draw the rollouts
        trajectories : Trajectories of the expert's to begin with, optional

        Returns
        -------
        self

        Raises
        ------
        InvalidInputError : another kind of model, nowhere to start, rollouts that never end
        InvalidTripError : a trajectory that the model cannot make
        ExpertError : an expert that returns no action, or one that its state does not have
        """
        seen = self._open(model, trajectories)
        expert = _Expert(model, self.expert, self.ask_once, self.rng)
        answers = _Answers(model)
        columns = {name: [] for name in ("iteration", "beta", "answers", "states", "disagreement")}
        fitted = []
        for i in range(1, self.n_iterations + 1):
            beta = self._beta(i)
            if i == 1 and seen is not None:
                beta = 1.0
                answers.add(i, seen.pair, seen.weight[seen.trip])
            else:
                pairs = self._roll(expert, fitted[-1][1] if fitted else None, beta)
                if beta == 0.0 and fitted:  # the last policy's own rollouts, which it was not fitted to
                    columns["disagreement"][-1] = _disagreement(fitted[-1][1], pairs)
                answers.add(i, pairs)
            learner = copy.deepcopy(self.learner).fit(model, answers.trajectories())
            fitted.append((learner, _stationary(learner, model)))
            if self.select == "validation" and (i == self.n_iterations or self._beta(i + 1) > 0):
                loss = _disagreement(fitted[-1][1], self._roll(expert, fitted[-1][1], 0.0))
            else:
                loss = None
            for name, value in zip(columns, (i, beta, answers.last, answers.n_states, loss)):
                columns[name].append(value)
        losses = [np.inf if loss is None else loss for loss in columns["disagreement"]]
        # of equals the one that has seen most
        best = len(fitted) - 1 if self.select == "last" else len(fitted) - 1 - int(np.argmin(losses[::-1]))
        self.learner_, self._policy = fitted[best]
        self.best_iteration_ = best + 1
        self.data_, self.counts_ = answers.trajectories(), answers.counts()
        self.history_ = Table(columns, formats={"beta": ".3g", "disagreement": ".4f"})
        self.n_queries_ = expert.n_queries
        self.converged_ = bool(getattr(self.learner_, "converged_", True))
        self.n_iter_ = self.n_iterations
        self.message_ = f"policy {best + 1} of {self.n_iterations} was chosen, after {self.n_queries_:,} questions"
        with np.errstate(divide="ignore", invalid="ignore"):
            said = self.counts_ > 0
            self.log_likelihood_ = float(self.counts_[said] @ np.log(self._policy[said]))
        return self

    def _open(self, model, trajectories):
        seen = None
        if trajectories is not None:
            seen = self._observe(model, trajectories)
            starts = self._starts / self._starts.sum()
        elif not isinstance(model, MDP):
            self._observe(model, trajectories)  # says what it learns on
        if trajectories is None or self.initial_distribution is not None:
            starts = start_distribution(model, self.initial_distribution)
        self.model_, self._cache, self._starts = model, {}, starts
        if self.max_steps is None and not model.terminal.any() and model.min_row_sum > 1.0 - 1e-8:
            raise InvalidInputError("rollouts must end: the model has no terminal state and max_steps is None; pass max_steps=")
        return seen

    def _beta(self, i):
        if self.schedule == "first":
            return 1.0 if i == 1 else 0.0
        if self.schedule == "exponential":
            return self.decay ** (i - 1)
        try:
            beta = float(self.schedule(i))
        except (TypeError, ValueError):
            beta = np.nan
        if not 0.0 <= beta <= 1.0:
            raise InvalidInputError(f"`schedule` must return a number in [0, 1]: for iteration {i} it returned {beta:g}; mend it")
        return beta

    def _roll(self, expert, policy, beta):
        """The pairs that the expert names in the states that rollouts of the mixture visit."""
        model, rng = self.model_, self.rng
        state = rng.choice(model.n_states, size=self.rollouts, p=self._starts).astype(np.int64)
        each, certain, found, time = np.arange(model.n_pairs + 1), np.ones(model.n_pairs), [], 0
        state = state[~model.terminal[state]]
        while state.size and (self.max_steps is None or time < self.max_steps):
            if time == _LONGEST:
                raise InvalidInputError(f"rollouts must end: one has made {_LONGEST:,} choices; pass max_steps=")
            named = expert.pairs(state, time)
            found.append(named)
            taken, there = named.copy(), np.empty(state.size, np.int64)
            if policy is not None and beta < 1.0:
                _planning.sample_steps(model.pair_ptr, policy, model.indptr, model.indices, model.probability, state,
                                       rng.random((2, state.size)), taken, there)
                leads = rng.random(state.size) < beta
                taken[leads] = named[leads]
            # each pair as a state with one choice: the kernel then draws where the pair leads
            _planning.sample_steps(each, certain, model.indptr, model.indices, model.probability, taken,
                                   rng.random((2, state.size)), np.empty(state.size, np.int64), there)
            state = there[(there >= 0) & ~model.terminal[there]]
            time += 1
        if not found:
            raise InvalidInputError("rollouts must choose something: all start in terminal states; pass initial_distribution=")
        return np.concatenate(found)


def _stationary(learner, model):
    policy = np.asarray(learner.policy(), dtype=float)
    if policy.shape != (model.n_pairs,):
        raise InvalidInputError(f"`learner` must give one policy for all times: {type(learner).__name__} gave shape "
                                f"{policy.shape}; leave out its horizon")
    return np.ascontiguousarray(policy)


def _disagreement(policy, pairs):
    return float(1.0 - policy[pairs].mean())


class _Answers:
    """What the expert said: pairs, their weights, and the iteration of each."""

    def __init__(self, model):
        self.model, self.pairs, self.weights, self.of = model, [], [], []

    def add(self, iteration, pairs, weights=None):
        self.pairs.append(pairs)
        self.weights.append(np.ones(pairs.size) if weights is None else weights)
        self.of.append(np.full(pairs.size, iteration))

    @property
    def last(self):
        return int(self.pairs[-1].size)

    @property
    def n_states(self):
        return int(np.unique(self.model.pair_state[np.concatenate(self.pairs)]).size)

    def counts(self):
        return np.bincount(np.concatenate(self.pairs), np.concatenate(self.weights), minlength=self.model.n_pairs)

    def trajectories(self):
        """A trajectory of one choice for each answer: where the rollout went next is not where the expert's action leads."""
        model, pairs = self.model, np.concatenate(self.pairs)
        each = np.arange(pairs.size + 1)
        return Trajectories.from_arrays(model.state_ids[model.pair_state[pairs]], each,
                                        model.action_ids[model.pair_action[pairs]], each,
                                        weight=np.concatenate(self.weights), cluster=np.concatenate(self.of))


class _Expert:
    """States in, the pairs that the expert names out."""

    def __init__(self, model, expert, ask_once, rng):
        self.model, self.n_queries, self._rng = model, 0, rng
        self._known = {} if ask_once else None
        self._ask = self._policies = None
        if not callable(expert):
            policy = getattr(expert, "policy", expert)
            policy = policy() if callable(policy) else policy
            if policy is None or isinstance(policy, str):
                raise InvalidInputError(f"`expert` must be a callable of a state, a policy, or have one: got {shown(expert)}; "
                                        "pass one of these")
            many = np.ndim(policy) == 2 and np.shape(policy)[1] == model.n_pairs and np.shape(policy)[0] != model.n_states
            with naming(policy="expert"):
                self._policies = [model.policy_vector(row) for row in policy] if many else [model.policy_vector(policy)]
        else:
            self._ask = expert

    def pairs(self, state, time):
        if self._known is None:
            self.n_queries += state.size
            return self._answer(state, time)
        new = np.array([s for s in np.unique(state).tolist() if s not in self._known], dtype=np.int64)
        self.n_queries += new.size
        if new.size:
            self._known.update(zip(new.tolist(), self._answer(new, time).tolist()))
        return np.array([self._known[s] for s in state.tolist()], dtype=np.int64)

    def _answer(self, state, time):
        model = self.model
        if self._policies is not None:
            pair = np.empty(state.size, np.int64)
            _planning.sample_steps(model.pair_ptr, self._policies[min(time, len(self._policies) - 1)], model.indptr,
                                   model.indices, model.probability, state, self._rng.random((2, state.size)),
                                   pair, np.empty_like(pair))
            return pair
        return np.array([self._one(s) for s in state.tolist()], dtype=np.int64)

    def _one(self, s):
        model = self.model
        label = plain(model.state_ids[s])
        action = plain(self._ask(label))
        own = slice(int(model.pair_ptr[s]), int(model.pair_ptr[s + 1]))
        names = [plain(name) for name in model.action_ids[model.pair_action[own]]]
        try:
            at = -1 if isinstance(action, bool) else names.index(action)
        except (ValueError, TypeError):  # none of them, or nothing that compares
            at = -1
        if at < 0:
            found = "no action" if action is None else shown(action)
            offered = ", ".join(map(shown, names[:12])) + (", …" if len(names) > 12 else "")
            raise ExpertError(f"the expert must name an action of the state it is asked about: in state {shown(label)} it "
                              f"returned {found}; return one of {offered}", state=label, action=action)
        return own.start + at
