r"""TAMER: a model of what a person thinks of each choice, from scalar feedback that comes late.

Feedback h at time t is about the step i that began at b_i and ended at e_i with probability (Knox and Stone 2009)

    c_i(t) = ∫_{t − e_i}^{t − b_i} f(x) dx = F(t − b_i) − F(t − e_i)

where f is the density of the delay; normalised over the steps that could be meant. H is linear, H = Xw, with
E[h | t] = Σ_i c_i(t) H(s_i, a_i), which is a regression of h on credited features.
"""

from collections import deque

import numpy as np
from scipy import sparse
from scipy.sparse import linalg

from ._validation import naming, one_of, positive_number, shown
from .exceptions import InvalidInputError, NotFittedError
from .learner import Learner
from .mdp import MDP
from .process_likelihood import match_steps
from .trainers import Delay

__all__ = ["TAMER"]

_DENSE = 2000  # weights up to which normal equations are dense


class TAMER(Learner):
    r"""Learn a person's judgement H(s, a) of choices from scalar feedback, and act greedily in it (Knox and Stone 2009).

    .. math:: \min_w \sum_j \Bigl(h_j - \sum_i c_{ij} H_w(s_i, a_i)\Bigr)^2 + l2\, |w|^2,
              \qquad c_{ij} \propto F(t_j - b_i) - F(t_j - e_i)

    where :math:`h_j` is said at :math:`t_j`, step i lasts from :math:`b_i` to :math:`e_i`, and F is the distribution of
    the delay. No environment reward, no planning: the person is taken to judge the whole value of a choice.

    Parameters
    ----------
    delay : ('uniform', lowest, highest), ('gamma', shape, scale) or a Delay, in the units of time; set it to the people
        and the interface at hand
    on : "pair", a number of its own for each state-action pair, or "features", linear in the model's features
    l2 : above 0; weighs like as many feedbacks of 0
    learning_rate : of :meth:`update`
    uncredited : what to do with feedback that no step can have caused: "error", or "drop", counted in `n_uncredited_`

    Attributes
    ----------
    human_reward_ : (n_pairs,) H
    coef_ : (k,) w
    credit_ : (n_pairs,) credit that each pair has received; what has none keeps H near 0 (or what features say)
    residual_ : float, root mean square of h − Σ c H
    n_feedback_, n_uncredited_ : int

    Raises
    ------
    InvalidInputError : a wrong argument

    Notes
    -----
    Online: :meth:`start`, then :meth:`update` at each step, which takes the gradient step of the paper,
    w += α (h − Σ c H) Σ c x; :meth:`refit` solves the least squares of all that was heard, which is what :meth:`fit` does with a
    log. Silence says nothing. It does not know the environment's reward: see InteractiveQLearning for both.

    References
    ----------
    Knox and Stone (2009), Interactively shaping agents via human reinforcement: the TAMER framework, K-CAP.
    """

    models = (MDP,)

    def __init__(self, delay=("uniform", 0.2, 0.8), *, on="pair", l2=0.01, learning_rate=0.2, uncredited="error"):
        self.delay = Delay.of(delay)
        self.on = one_of("on", on, ("pair", "features"))
        self.l2 = positive_number("l2", l2)
        self.learning_rate = positive_number("learning_rate", learning_rate)
        self.uncredited = one_of("uncredited", uncredited, ("error", "drop"))

    def __repr__(self):
        return f"TAMER({self.delay!r}, on={self.on!r}, l2={self.l2:g})"

    # -- a log

    def fit(self, model, trajectories, times, feedback):
        """Least squares on a log of trajectories and what was said about them.

        Parameters
        ----------
        model : MDP
        trajectories : Trajectories, each on a clock of its own
        times : sequence of arrays, for each trajectory when each of its choices began, and when the last ended
        feedback : sequence of (m, 2) arrays, or None, for each trajectory: times and values of what was said, m may be 0

        Returns
        -------
        self

        Raises
        ------
        InvalidInputError : times that do not rise or fit the choices, feedback that no step can have caused, no feedback at all
        InvalidTripError : a trajectory that the model cannot make
        """
        self.start(model)
        steps = match_steps(model, trajectories)
        self._starts = np.bincount(steps.start, steps.weight, minlength=model.n_states)
        ids = steps.ids.tolist()
        times, feedback = list(times), list(feedback)
        for name, given in (("times", times), ("feedback", feedback)):
            if len(given) != len(steps):
                raise InvalidInputError(f"`{name}` must have an entry for each trajectory: got {len(given)} for {len(steps)}; "
                                        "pass an array for each (feedback: None where nothing was said)")
        cut = np.concatenate([[0], np.cumsum(np.bincount(steps.trip, minlength=len(steps)))])
        for n, (clock, said) in enumerate(zip(times, feedback)):
            pair = steps.pair[cut[n]:cut[n + 1]]
            clock = _clock(clock, pair.size, ids[n])
            said = _said(said, ids[n])
            for when, value in said:
                # the steps that can be meant lie side by side
                a = max(int(np.searchsorted(clock, when - self.delay.longest, side="right")) - 1, 0)
                b = int(np.searchsorted(clock[:-1], when))
                credit = self.delay.cdf(when - clock[a:b]) - self.delay.cdf(when - clock[a + 1:b + 1])
                self._hear(pair[a:b], credit, when, value, ids[n])
        if not self.n_feedback_:
            raise InvalidInputError(f"there must be some feedback: none of the {len(steps)} trajectories has any; "
                                    "pass what was said")
        return self.refit()

    def refit(self):
        """H by least squares from all feedback so far; returns self.

        Raises
        ------
        NotFittedError : nothing was started
        """
        self._require_start()
        rows, values = self._credited()
        x = self._features
        z = rows if x is None else rows @ x
        k = z.shape[1]
        if sparse.issparse(z) and k <= _DENSE:
            z = z.toarray()
        if sparse.issparse(z):
            normal = (z.T @ z + self.l2 * sparse.eye_array(k)).tocsc()
            self.coef_ = linalg.splu(normal).solve(z.T @ values)
        else:
            self.coef_ = np.linalg.solve(z.T @ z + self.l2 * np.eye(k), z.T @ values)
        self._settle()
        self.residual_ = float(np.sqrt(np.mean((values - z @ self.coef_) ** 2))) if values.size else float("nan")
        return self

    # -- as it happens

    def start(self, model):
        """Begin to listen: H = 0 everywhere. Returns self.

        Parameters
        ----------
        model : MDP, with features where on="features"
        """
        if not isinstance(model, MDP):
            raise InvalidInputError(f"`model` must be an MDP: got {type(model).__name__}; build one with MDP(…)")
        if self.on == "features" and model.features is None:
            raise InvalidInputError("on='features' needs features: the model has none; pass them with "
                                    "with_features, or on='pair'")
        self._features = model.features if self.on == "features" else None
        self.model_, self._cache = model, {}
        self._recent, self._heard = deque(), []
        self._time = -np.inf
        self.credit_ = np.zeros(model.n_pairs)
        self.coef_ = np.zeros(model.n_pairs if self._features is None else model.n_features)
        self.n_feedback_ = self.n_uncredited_ = 0
        self.residual_ = float("nan")
        self._starts = np.bincount(model.pair_state, minlength=model.n_states).astype(float)
        self._settle()
        return self

    def update(self, time, state=None, action=None, feedback=()):
        """What happened since the last call, and the step that begins now.

        Parameters
        ----------
        time : float, now; it must not run backwards
        state, action : labels of the choice that begins now and ends with the next call; None at the end of an episode
        feedback : a number (said now), or (time, value) pairs said since the last call. Silence is not 0: leave it out

        Returns
        -------
        self

        Raises
        ------
        InvalidInputError : time runs backwards, feedback from before the last call, or that no step can have caused
        NotFittedError : :meth:`start` was not called
        """
        self._require_start()
        time = _number("time", time)
        if time < self._time:
            raise InvalidInputError(f"time must not run backwards: got {time:g} after {self._time:g}; pass a later "
                                    "time, or start again")
        if (state is None) != (action is None):
            raise InvalidInputError("`state` and `action` must come together: one is None; pass both, or none at the end")
        pair = None
        if state is not None:
            with naming(states="state", actions="action"):
                index = self.model_.state_index([state])
                pair = int(self.model_.pair_index(index, self.model_.action_index([action]))[0])
        said = [(time, feedback)] if feedback is not None and np.ndim(feedback) == 0 else _said(feedback, "online")
        for when, value in said:
            if not self._time <= when <= time:
                raise InvalidInputError(f"feedback must have come since the last call: its time {when:g} does not lie in "
                                        f"{self._time:g} … {time:g}; pass it in the call that follows it")
            self._learn(_number("time", when), _number("feedback", value))
        # the step under way ends here
        if self._recent and self._recent[-1][2] == np.inf:
            begin, at, _ = self._recent.pop()
            self._recent.append((begin, at, time))
        while self._recent and self._recent[0][2] < time - self.delay.longest:
            self._recent.popleft()
        if pair is not None:
            self._recent.append((time, pair, np.inf))
        self._time = time
        return self

    def choose(self, state, rng=None):
        """The label of the best judged action in a state: the lowest of several, or with `rng` any of them at random."""
        self._require_start()
        with naming(states="state"):
            s = int(self.model_.state_index([state])[0])
        a, b = self.model_.pair_ptr[s], self.model_.pair_ptr[s + 1]
        if a == b:
            raise InvalidInputError(f"a state must have actions to choose from: {shown(state)} is terminal; start a new episode")
        best = np.flatnonzero(self.human_reward_[a:b] == self.human_reward_[a:b].max())
        pick = best[0] if rng is None else best[rng.integers(best.size)]
        label = self.model_.action_ids[self.model_.pair_action[a + pick]]
        return label.item() if isinstance(label, np.generic) else label

    # -- inside

    def _require_start(self):
        if self.model_ is None:
            raise NotFittedError("this TAMER must know its model: it does not; call start(model), or fit")

    def _learn(self, when, value):
        pair = np.array([step[1] for step in self._recent], dtype=np.int64)
        begin, end = np.array([step[0] for step in self._recent]), np.array([step[2] for step in self._recent])
        credit = self.delay.cdf(when - begin) - self.delay.cdf(when - end) if pair.size else np.empty(0)
        share = self._hear(pair, credit, when, value, "online")
        if share is None:
            return
        if self._features is None:
            step = np.bincount(pair, share, minlength=self.coef_.size)
        else:
            step = np.asarray(share @ self._features[pair]).ravel()
        self.coef_ = self.coef_ + self.learning_rate * (value - step @ self.coef_) * step
        self._settle()

    def _hear(self, pair, credit, when, value, who):
        """Keep a feedback and its shares; None where no step can have caused it."""
        total = float(credit.sum())
        if not total > 1e-12:
            if self.uncredited == "error":
                raise InvalidInputError(f"each feedback must be about some step: {shown(who)} has one at time {when:g} which no "
                                        f"step precedes by {self.delay}; widen the delay, or pass uncredited='drop'")
            self.n_uncredited_ += 1
            return None
        share = credit / total
        kept = share > 0
        self._heard.append((pair[kept], share[kept], value))
        np.add.at(self.credit_, pair[kept], share[kept])
        self.n_feedback_ += 1
        return share

    def _credited(self):
        """(n_feedback, n_pairs) shares of the pairs in each feedback, and the values."""
        sizes = [part[0].size for part in self._heard]
        row = np.repeat(np.arange(len(sizes)), sizes)
        pair = np.concatenate([part[0] for part in self._heard]) if sizes else np.empty(0, np.int64)
        share = np.concatenate([part[1] for part in self._heard]) if sizes else np.empty(0)
        rows = sparse.coo_array((share, (row, pair)), (len(sizes), self.model_.n_pairs)).tocsr()
        return rows, np.array([part[2] for part in self._heard], dtype=float)

    def _settle(self):
        self.human_reward_ = self.coef_ if self._features is None else np.asarray(self._features @ self.coef_)

    @property
    def _policy(self):
        """Greedy in H, the lowest action of several."""
        model = self.model_
        order = np.lexsort((model.pair_action, -self.human_reward_, model.pair_state))
        policy = np.zeros(model.n_pairs)
        policy[order[model.pair_ptr[:-1][np.diff(model.pair_ptr) > 0]]] = 1.0
        return policy


def _number(name, value):
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = np.nan
    if not np.isfinite(number):
        raise InvalidInputError(f"`{name}` must be a finite number: got {shown(value)}; pass one")
    return number


def _clock(times, n_steps, who):
    times = np.asarray(times, dtype=float)
    if times.shape != (n_steps + 1,):
        raise InvalidInputError(f"`times` must say when each choice began and when the last ended: trajectory {shown(who)} has "
                                f"{n_steps} choices and times of shape {times.shape}; pass {n_steps + 1} numbers")
    if not np.isfinite(times).all() or (np.diff(times) <= 0).any():
        bad = int(np.argmax(~np.isfinite(times))) if not np.isfinite(times).all() else int(np.argmax(np.diff(times) <= 0)) + 1
        raise InvalidInputError(f"`times` must be finite and rise: trajectory {shown(who)}, entry {bad} is {times[bad]:g}; "
                                "mend it")
    return times


def _said(feedback, who):
    if feedback is None or (np.ndim(feedback) == 1 and len(feedback) == 0):
        return []
    try:
        said = np.asarray(feedback, dtype=float)
    except (TypeError, ValueError):
        said = np.empty(0)
    if said.ndim == 1 and said.shape == (2,):
        said = said[None, :]
    if said.ndim != 2 or said.shape[1] != 2 or not np.isfinite(said).all():
        raise InvalidInputError(f"feedback must be finite (time, value) pairs: that of {shown(who)} is not; pass an (m, 2) array")
    return [tuple(row) for row in said.tolist()]
