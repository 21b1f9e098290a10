r"""Adversarial imitation on a decision process: a discriminator tells the expert's pairs from the policy's, and the policy
plans against it.

With occupancies ρ(s, a) = Σ_t γ^t Pr(s_t = s, a_t = a) the inner problem of GAIL (Ho and Ermon 2016, equation 14),
max_D E_π[log D] + E_E[log(1 − D)], has the closed form D* = ρ_π / (ρ_π + ρ_E) for tables and is a logistic regression for
features. AIRL (Fu, Luo, Levine 2018) gives D the form exp f / (exp f + π), from which a reward can be read.
"""


import numpy as np
from scipy import sparse
from scipy.special import expit, xlogy

from ._validation import float_vector, one_of, positive_number, warn, whole_number
from .exceptions import ConvergenceWarning, DivergenceError, InvalidInputError
from .learner import Learner
from .mdp import MDP
from .planning import soft_value_iteration, value_iteration, visitation_frequencies
from .process_likelihood import match_steps
from .relative_entropy import draw, require_callable, require_generator
from .tables import Table

__all__ = ["AIRL", "GAIL"]

_FLOOR = 1e-12  # share of the expert's mass that stands for an exact occupancy of 0 which the expert's is not
_LEAST_LOG = -600.0  # of a probability that underflowed: a pair is never lost for good
_SHORTEST, _LONGEST = 2.0**-20, 1e3  # of the steps tried, in units of the one given
_WINDOW = 10  # iterations averaged to see a trend in sampled divergences


class _Adversarial(Learner):
    """The loop that GAIL and AIRL share: judge, plan with a KL term to the policy before, keep the best."""

    models = (MDP,)

    def _settings(self, step, n_iter, dynamics, n_trajectories, horizon, simulator, rng, initial_distribution, smoothing,
                  tol):
        self.step = positive_number("step", step)
        self.n_iter = whole_number("n_iter", n_iter, lower=1)
        self.dynamics = one_of("dynamics", dynamics, ("known", "sampled"))
        self.n_trajectories = whole_number("n_trajectories", n_trajectories, lower=1)
        self.rollout_horizon = None if horizon is None else whole_number("horizon", horizon, lower=1)
        self.simulator = require_callable("simulator", simulator)
        self.rng = rng
        self.initial_distribution = initial_distribution
        self.smoothing = positive_number("smoothing", smoothing, upper=1.0, strict=False)
        if self.smoothing == 1.0:
            raise InvalidInputError("`smoothing` must be below 1: got 1, which leaves nothing of the occupancies to compare; "
                                    "pass 0.01, say")
        self.tol = None if tol is None else positive_number("tol", tol)
        if dynamics == "sampled":
            require_generator(rng, "dynamics='sampled' draws trajectories")
        for name, value in (("horizon", horizon), ("simulator", simulator)):
            if dynamics == "known" and value is not None:
                raise InvalidInputError(f"`{name}` goes with dynamics='sampled': got {name}={value!r} with exact "
                                        "occupancies; leave it out")

    def _begin(self, model, trajectories):
        seen = self._observe(model, trajectories)
        start = self._starts if self.initial_distribution is None else \
            float_vector("initial_distribution", self.initial_distribution, model.n_states, nonnegative=True)
        if not start.sum() > 0:
            raise InvalidInputError("`initial_distribution` must have some mass: it sums to 0; pass probabilities")
        self._starts = start
        # a process that never ends has mass 1 / (1 − γ), of which trajectories of finite length show the beginning
        ends = model.terminal.any() or model.min_row_sum < 1 - 1e-8
        self._mass = None if ends or model.discount == 1 else 1.0 / (1.0 - model.discount)
        self.expert_occupancy_ = self._counted(seen)
        if not self.expert_occupancy_.sum() > 0:
            raise InvalidInputError("demonstrations must have a choice that counts: at discount 0 only first choices do, "
                                    "and there is none; pass a larger discount")

    def _counted(self, steps):
        """(n_pairs,) Σ γ^t of the choices a trajectory makes, on average over trajectories."""
        mdp, use = self.model_, slice(None)
        if self.rollout_horizon is not None:
            use = steps.time < self.rollout_horizon
        weight = steps.weight[steps.trip[use]] * mdp.discount**steps.time[use].astype(float)
        found = np.bincount(steps.pair[use], weight, minlength=mdp.n_pairs) / steps.weight.sum()
        return self._smoothed(found)

    def _smoothed(self, occupancy):
        total = occupancy.sum()
        if self._mass is not None and total > 0:
            occupancy, total = occupancy * (self._mass / total), self._mass
        return (1.0 - self.smoothing) * occupancy + self.smoothing * total / occupancy.size

    def _occupancy(self, policy):
        mdp = self.model_
        if self.dynamics == "known":
            return self._smoothed(visitation_frequencies(mdp, policy, self._starts / self._starts.sum()).pair)
        drawn = draw(self.simulator, mdp, policy, self.n_trajectories, self.rng, self.rollout_horizon, self._starts)
        return self._counted(match_steps(mdp, drawn))

    def _improved(self, reward, log_policy, step, entropy):
        """argmax_π of Σ ρ_π (r − λ log π − (1 / η) log(π / π_k)): log probabilities of pairs."""
        kept = 1.0 / step
        found = soft_value_iteration(self.model_, reward + kept * log_policy, "pair", temperature=entropy + kept)
        with np.errstate(divide="ignore"):
            return np.maximum(np.log(found.policy), _LEAST_LOG)

    def _normal(self, log_policy):
        policy = np.exp(log_policy)
        return policy / np.bincount(self.model_.pair_state, policy, minlength=self.model_.n_states)[self.model_.pair_state]

    def _settled(self, history, column):
        """Whether the mean of a sampled quantity still falls: (change of the means of two windows, is it small)."""
        past = np.array([row[column] for row in history[-2 * _WINDOW:]])
        if past.size < 2 * _WINDOW:
            return np.inf, False
        change = float(past[:_WINDOW].mean() - past[_WINDOW:].mean())
        return change, abs(change) <= (1e-3 if self.tol is None else self.tol)

    def _finish(self, history, best):
        names = ("iteration", "objective", "Jensen-Shannon", "total variation", "step")
        self.history_ = Table(dict(zip(names, map(list, zip(*history)))))
        self.best_iteration_ = best
        self.n_iter_ = len(history) - 1
        self.jensen_shannon_, self.total_variation_ = history[best][2], history[best][3]
        if not self.converged_:
            warn(f"the fit did not converge: {self.message_}; raise n_iter or tol, or change step",
                 ConvergenceWarning)

    def _distances(self, occupancy):
        """Jensen–Shannon divergence (nats, at most log 2) and total variation distance of normalised occupancies."""
        one, other = occupancy / max(occupancy.sum(), 1e-300), self.expert_occupancy_ / self.expert_occupancy_.sum()
        return _jensen_shannon(one, other), 0.5 * float(np.abs(one - other).sum())


class GAIL(_Adversarial):
    r"""Generative adversarial imitation learning in its exact tabular form: match the expert's occupancy measure.

    .. math:: \min_\pi \; \max_D \left\{ \sum_{s,a} \rho_\pi \log 2 D + \rho_E \log 2 (1 - D) \right\}
              - \lambda H(\pi), \qquad D^* = \frac{\rho_\pi}{\rho_\pi + \rho_E}

    with the causal entropy H(π) = −Σ ρ_π log π (Ho and Ermon 2016, equations 14–16). At D* the maximum is twice the
    Jensen–Shannon divergence. ρ_E are the demonstrations' Σ γ^t counts, ρ_π the exact occupancy of the policy or that of
    rollouts. The policy step (equation 18, there by TRPO) is exact: the reward −log 2D is planned for with a KL term,

    .. math:: \pi_{k+1} = \arg\max_\pi \sum_{s,a} \rho_\pi(s, a) \left[ -\log 2 D_k - \lambda \log \pi
              - \frac{1}{\eta} \log \frac{\pi}{\pi_k} \right],

    which is mirror descent on the policy: soft value iteration with π_k as the reference.

    Parameters
    ----------
    discriminator : "tabular" (a number for each pair: D*) or "features" (logistic regression on the model's features)
    entropy : λ of at least 0, the weight of the policy's causal entropy; log 2D is between −∞ and log 2
    step : η above 0, the inverse of the weight of the KL term; with known dynamics it is halved where the objective would
        rise, and grows by half after a step that was taken
    n_iter : int, most policy steps
    dynamics : "known" (occupancies by :func:`visitation_frequencies`) or "sampled" (from rollouts)
    n_trajectories : int, rollouts of each iteration, with dynamics="sampled"
    horizon : int, choices of a rollout after which it is cut; demonstrations are cut there as well
    simulator : callable (policy, n, rng) -> Trajectories that draws rollouts in the world; None:
        :func:`sample_trajectories` on the model
    rng : numpy.random.Generator, with dynamics="sampled"
    initial_distribution : (n_states,) where the policy starts; None for the demonstrations' weighted starts
    smoothing : in [0, 1), share of each occupancy that is spread evenly over all pairs before they are compared
    l2 : above 0, ridge of the logistic regression on its weights, not its constant, where Σ ρ_E is scaled to 1
    tol : decrement of the objective, divided by Σ ρ_E, below which the fit has converged (None: 1e-7); with sampled
        dynamics, difference of its means over the last ten iterations and the ten before (None: 1e-3)

    Attributes
    ----------
    occupancy_, expert_occupancy_ : (n_pairs,) discounted visits, as of :func:`visitation_frequencies`; where nothing ends
        the expert's are scaled to 1 / (1 − γ), since demonstrations show only their beginning
    reward_ : (n_pairs,) −log 2D of the iterate that is kept, 0 where both visit alike
    jensen_shannon_ : float, in nats, of the normalised occupancies; total_variation_ : float
    gap_ : float, proven bound on objective − its least value, up to rounding (by convexity: what the best policy for
        the slope of the objective, r = −log 2D with λ · entropy, earns beyond the one kept), divided by Σ ρ_E; None with
        sampled dynamics or smoothing
    history_ : Table: iteration, objective (divided by Σ ρ_E), Jensen-Shannon, total variation, step; iteration 0
        is the uniform policy
    best_iteration_ : the iteration of lowest objective, which is kept
    converged_ : bool; message_ : str; n_iter_ : int

    Notes
    -----
    Where the expert's occupancy is 0 and the policy's is not, D* = 1 and the reward is −log 2: bounded, no smoothing is
    needed. Where the policy's is 0 and the expert's is not the reward would be infinite; there the policy's is taken as
    1e-12 of the mass with known dynamics and as half a visit (0.5 / n_trajectories) of a rollout with sampled ones. Where
    both are 0 the reward is 0. Where nothing ends the constant log 2 changes nothing; where processes end it takes away the
    bias of −log D towards long trajectories, so that the expert's own occupancy is the optimum.

    It plans in the model, known or estimated (:meth:`MDP.from_counts`), and "sampled" says only where occupancies come
    from. The policy is stationary. The objective is convex in ρ_π and falls with each step; a small decrement does not
    bound the distance to the optimum, `gap_` does. The discriminator's reward is no reward of the expert's: at the optimum
    it is 0 everywhere; see :class:`AIRL`. It has no advantage over cloning where demonstrations cover what the expert meets.

    References
    ----------
    Ho and Ermon (2016), Generative Adversarial Imitation Learning, NIPS; Kostrikov et al. (2019), Discriminator-Actor-
    Critic (the bias of rewards where episodes end); Geist, Scherrer, Pietquin (2019), A theory of regularized MDPs.
    """

    def __init__(self, *, discriminator="tabular", entropy=0.0, step=1.0, n_iter=500, dynamics="known", n_trajectories=200,
                 horizon=None, simulator=None, rng=None, initial_distribution=None, smoothing=0.0, l2=1e-3, tol=None):
        self.discriminator = one_of("discriminator", discriminator, ("tabular", "features"))
        self.entropy = positive_number("entropy", entropy, strict=False)
        self.l2 = positive_number("l2", l2)
        self._settings(step, n_iter, dynamics, n_trajectories, horizon, simulator, rng, initial_distribution, smoothing, tol)

    def fit(self, model, trajectories):
        """Learn the policy.

        Parameters
        ----------
        model : MDP, with features where the discriminator uses them
        trajectories : Trajectories of the expert

        Returns
        -------
        self

        Raises
        ------
        InvalidInputError : a model without features for discriminator="features"; no horizon for rollouts that never end
        InvalidTripError : a trajectory that the model cannot make

        Warns
        -----
        ConvergenceWarning : n_iter was reached before `tol`
        """
        self._begin(model, trajectories)
        if self.discriminator == "features" and model.features is None:
            raise InvalidInputError("a discriminator of features needs them: the model has none; use mdp.with_features(X, "
                                    "names), or discriminator='tabular'")
        self._weights = None
        exact = self.dynamics == "known"
        log_policy = np.log(model.policy_vector(None))
        now = self._judged(log_policy)
        kept, best, history, step = (log_policy, now), 0, [(0, now["objective"], *now["distances"], 0.0)], self.step
        self.converged_, self.message_ = False, f"n_iter={self.n_iter} was reached"
        for k in range(1, self.n_iter + 1):
            taken = None
            while step > self.step * _SHORTEST:
                try:
                    trial = self._improved(now["reward"], log_policy, step, self.entropy)
                    found = self._judged(trial)
                except DivergenceError:  # at discount 1 the planned policy need not end: stay nearer the last one
                    step *= 0.5
                    continue
                if not exact or found["objective"] <= now["objective"]:
                    taken = trial
                    break
                step *= 0.5
            if taken is None:
                self.converged_, self.message_ = True, "converged: no step lowers the objective"
                break
            decrement = now["objective"] - found["objective"]
            log_policy, now = taken, found
            history.append((k, now["objective"], *now["distances"], step))
            if now["objective"] < history[best][1]:
                kept, best = (log_policy, now), k
            if exact:
                # a short step lowers it little wherever it stands
                done = decrement <= (1e-7 if self.tol is None else self.tol) * min(1.0, step / self.step)
                step = min(1.5 * step, _LONGEST * self.step)
            else:
                decrement, done = self._settled(history, 1)
            if done:
                self.converged_, self.message_ = True, f"converged: the objective fell by {decrement:.2g}"
                break
        log_policy, now = kept
        self._policy, self.occupancy_, self.reward_ = self._normal(log_policy), now["occupancy"], now["reward"]
        self.gap_ = self._gap(log_policy, now) if exact and not self.smoothing else None
        self._finish(history, best)
        return self

    def _gap(self, log_policy, now):
        """The objective is convex in ρ: it is above its least value by at most what planning for its slope still gains."""
        start, lam = self._starts / self._starts.sum(), self.entropy
        try:
            best = value_iteration(self.model_, now["reward"], "pair") if lam == 0 else \
                soft_value_iteration(self.model_, now["reward"], "pair", temperature=lam)
        except DivergenceError:
            return np.inf
        here = float(now["occupancy"] @ (now["reward"] - lam * log_policy))
        return max(float(start @ best.value) + best.error_bound - here, 0.0) / self._size

    @property
    def _size(self):
        return self.expert_occupancy_.sum()

    def _judged(self, log_policy):
        policy = self._normal(log_policy)
        rho = self._occupancy(policy)
        if self.discriminator == "tabular":
            value, reward = self._table(rho)
        else:
            value, reward = self._regression(rho)
        entropy = -float(rho @ log_policy) / self._size
        return {"occupancy": rho, "reward": reward, "objective": value - self.entropy * entropy,
                "distances": self._distances(rho)}

    def _table(self, rho):
        """Twice the Jensen–Shannon divergence of two measures, and −log 2D*."""
        expert, size = self.expert_occupancy_, self._size
        value = 2.0 * _jensen_shannon(rho / size, expert / size)
        floor = _FLOOR * size if self.dynamics == "known" else 0.5 / self.n_trajectories
        rho = np.where((rho == 0) & (expert > 0), np.minimum(floor, expert), rho)
        reward = np.zeros(rho.size)
        some = rho + expert > 0
        reward[some] = -np.log(2.0 * rho[some] / (rho[some] + expert[some]))
        return value, reward

    def _regression(self, rho):
        features, size = self.model_.features, self._size
        if sparse.issparse(features):
            design = sparse.hstack([features, sparse.csr_array(np.ones((features.shape[0], 1)))], format="csr")
        else:
            design = np.column_stack([features, np.ones(len(features))])
        ridge = np.full(design.shape[1], self.l2)
        # the constant is all but free: one that is not would diverge where one side has no mass
        ridge[-1] = 1e-9
        loss, self._weights = _logistic(design, rho / size, self.expert_occupancy_ / size, 0.0, ridge, self._weights)
        both = (rho.sum() + size) / size
        logit = np.asarray(design @ self._weights)
        return float(np.log(2.0) * both - loss), np.logaddexp(0.0, -logit) - np.log(2.0)


class AIRL(_Adversarial):
    r"""Adversarial inverse reinforcement learning: a reward that is told apart from the shaping which dynamics add to it.

    .. math:: D(s, a, s') = \frac{e^{f(s, a, s')}}{e^{f(s, a, s')} + \pi(a \mid s)}, \qquad
              f(s, a, s') = g(s) + \gamma h(s') - h(s)

    (Fu, Luo, Levine 2018, sections 4 and 6) with tables g and h, h = 0 in terminal states. Each iteration fits D between
    the expert's and the policy's transitions by penalised logistic regression, to its optimum, and plans the
    entropy-regularised policy of the reward log D − log(1 − D) = f − log π, with a KL term to the last policy:
    π_{k+1} = argmax_π Σ ρ_π [f − log π − (1 / η) log(π / π_k)].

    Parameters
    ----------
    state_only : True for g(s), which can be told apart from shaping; False for g(s, a), which cannot
    discriminator : "transition" (Fu et al.'s D(s, a, s')) or "pair" (D(s, a), with the mean of f over s' in the model). On
        deterministic dynamics they are the same. Under chance log π of the expert is a mean of f, but no f: there
        "transition" has no fixed point at the expert, and "pair" has
    step : η above 0, in units of reward; large values plan afresh at each iteration. It is halved where ten iterations did
        not halve the change of the policy
    n_iter, dynamics, n_trajectories, horizon, simulator, rng, initial_distribution, smoothing : as of :class:`GAIL`
    l2 : above 0, ridge on g and h; the occupancies are normalised to 1. It also picks the constants of g and h
    tol : mean change of the policy's probabilities where it goes, per unit of η / (1 + η), below which the fit has converged
        (None: 1e-6); with sampled dynamics, of the Jensen–Shannon divergence as in :class:`GAIL` (None: 1e-3)

    Attributes
    ----------
    state_reward_ : (n_states,) g, NaN-free: 0 in terminal states; None with state_only=False
    shaping_ : (n_states,) h
    reward_ : (n_pairs,) g for each pair
    occupancy_, expert_occupancy_, jensen_shannon_, total_variation_ : as of :class:`GAIL`
    history_, best_iteration_, converged_, message_, n_iter_ :
        as of :class:`GAIL`; the objective is the discriminator's log loss below log 4, 0 where it cannot tell

    Notes
    -----
    Fu et al. (section 6 and its appendix): if the reward depends on the state only, the dynamics are deterministic and
    decomposable, and the expert is the soft-optimal policy of reward + entropy, then at the optimum g is the reward up to a
    constant and h the soft value up to a constant. Decomposable means that all states are linked, where two are linked that
    one state can both lead to in a step, and links chain. Where states fall apart into classes, g may have a
    constant for each class (a shift of h by class moves it). The reward is in units of the temperature, 1.

    Transitions of both sides are averaged over the model's probabilities, also where occupancies are sampled: only
    counts of pairs are taken from trajectories. The last iterate is kept where the policy came to rest with known
    dynamics, which `converged_` says, else that of lowest Jensen–Shannon divergence; there is no guarantee of descent.
    g where neither side goes is held by l2 only, and so small l2 fits the noise of few demonstrations.

    References
    ----------
    Fu, Luo, Levine (2018), Learning Robust Rewards with Adversarial Inverse Reinforcement Learning, ICLR.
    """

    def __init__(self, *, state_only=True, discriminator="pair", step=1.0, n_iter=500, dynamics="known", n_trajectories=200,
                 horizon=None, simulator=None, rng=None, initial_distribution=None, smoothing=0.0, l2=1e-5, tol=None):
        self.state_only = bool(state_only)
        self.discriminator = one_of("discriminator", discriminator, ("pair", "transition"))
        self.l2 = positive_number("l2", l2)
        self._settings(step, n_iter, dynamics, n_trajectories, horizon, simulator, rng, initial_distribution, smoothing, tol)

    def fit(self, model, trajectories):
        """Learn policy and reward.

        Parameters
        ----------
        model : MDP; its features are not used
        trajectories : Trajectories of the expert

        Returns
        -------
        self

        Raises
        ------
        InvalidInputError : no horizon for rollouts that never end
        InvalidTripError : a trajectory that the model cannot make

        Warns
        -----
        ConvergenceWarning : n_iter was reached before `tol`
        """
        self._begin(model, trajectories)
        design, mean = self._design()
        entry, chance = np.repeat(np.arange(model.n_pairs), np.diff(model.indptr)), model.probability
        if self.discriminator == "pair":
            design, entry, chance = mean, np.arange(model.n_pairs), 1.0
        expert = self.expert_occupancy_ / self.expert_occupancy_.sum()
        weights = np.zeros(design.shape[1])
        ridge = np.full(weights.size, self.l2)
        log_policy = np.log(model.policy_vector(None))
        history, best, kept, step, changes = [], 0, None, self.step, []
        self.converged_, self.message_ = False, f"n_iter={self.n_iter} was reached"
        for k in range(self.n_iter + 1):
            policy = self._normal(log_policy)
            rho = self._occupancy(policy)
            normal = rho / max(rho.sum(), 1e-300)
            loss, weights = _logistic(design, expert[entry] * chance, normal[entry] * chance,
                                      -log_policy[entry], ridge, weights)
            history.append((k, 2 * np.log(2.0) - loss, *self._distances(rho), step if k else 0.0))
            # a policy at rest is the fixed point that the theory speaks of; else the one nearest the expert
            at_rest = self.converged_ and self.dynamics == "known"
            if kept is None or at_rest or history[-1][2] < history[best][2]:
                kept, best = (policy, rho, weights), k
            if self.converged_ or k == self.n_iter:
                break
            while True:
                try:
                    log_policy = self._improved(np.asarray(mean @ weights), log_policy, step, 1.0)
                    break
                except DivergenceError:
                    step *= 0.5
                    if step < self.step * _SHORTEST:
                        raise
            if self.dynamics == "sampled":
                change, self.converged_ = self._settled(history, 2)
                if self.converged_:
                    self.message_ = f"converged: the mean divergence changed by {change:.2g}"
                continue
            here = np.bincount(model.pair_state, normal, minlength=model.n_states)[model.pair_state]
            change = float(here @ np.abs(self._normal(log_policy) - policy)) * (1.0 + step) / step
            changes.append(change)
            if change <= (1e-6 if self.tol is None else self.tol):
                self.converged_, self.message_ = True, f"converged: the policy changed by {change:.2g}"
            elif len(changes) > _WINDOW and change > 0.5 * changes[-1 - _WINDOW]:
                step, changes = 0.5 * step, []  # it goes round in circles
        self._policy, self.occupancy_, weights = kept
        n_g = weights.size - model.n_states
        self.shaping_ = weights[n_g:]
        self.state_reward_ = weights[:n_g].copy() if self.state_only else None
        self.reward_ = weights[:n_g][model.pair_state] if self.state_only else weights[:n_g].copy()
        self._finish(history, best)
        return self

    def _design(self):
        """(nnz, n_g + n_states) rows of f by transition, and (n_pairs, …) its mean by pair."""
        mdp = self.model_
        entry = np.repeat(np.arange(mdp.n_pairs), np.diff(mdp.indptr))
        n_g = mdp.n_states if self.state_only else mdp.n_pairs
        own = mdp.pair_state[entry] if self.state_only else entry
        row, n = np.arange(mdp.nnz), mdp.n_states
        goes = ~mdp.terminal[mdp.indices]
        design = sparse.csr_array((
            np.concatenate([np.ones(mdp.nnz), np.full(goes.sum(), mdp.discount), np.full(mdp.nnz, -1.0)]),
            (np.concatenate([row, row[goes], row]),
             np.concatenate([own, n_g + mdp.indices[goes], n_g + mdp.pair_state[entry]]))), shape=(mdp.nnz, n_g + n))
        average = sparse.csr_array((mdp.probability, row, mdp.indptr), shape=(mdp.n_pairs, mdp.nnz))
        return design, (average @ design).tocsr()


def _jensen_shannon(one, other):
    """½ Σ [p log(2p / (p + q)) + q log(2q / (p + q))], of measures of any mass: at least 0, and 0 only where they agree."""
    middle = 0.5 * (one + other)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = [np.where(part > 0, part / middle, 1.0) for part in (one, other)]
    return max(0.5 * float(np.sum(xlogy(one, ratio[0])) + np.sum(xlogy(other, ratio[1]))), 0.0)


def _logistic(design, positive, negative, offset, ridge, start=None, max_iter=100, tol=1e-14):
    """Weighted logistic regression by damped Newton steps: (log loss + penalty, weights).

    Minimises Σ p log(1 + e^−z) + q log(1 + e^z) + ½ Σ ridge x², z = Xx + offset; strictly convex for ridge > 0.
    """
    x = np.zeros(design.shape[1]) if start is None else start
    solve = sparse.linalg.spsolve if sparse.issparse(design) else np.linalg.solve

    def loss(x):
        z = np.asarray(design @ x) + offset
        return positive @ np.logaddexp(0.0, -z) + negative @ np.logaddexp(0.0, z) + 0.5 * float(ridge @ x**2), z

    value, z = loss(x)
    for _ in range(max_iter):
        chance = expit(z)
        gradient = np.asarray(design.T @ (negative * chance - positive * (1.0 - chance))) + ridge * x
        curvature = (positive + negative) * chance * (1.0 - chance)
        if sparse.issparse(design):
            hessian = (design.T @ sparse.diags_array(curvature) @ design + sparse.diags_array(ridge)).tocsc()
        else:
            hessian = (design * curvature[:, None]).T @ design + np.diag(ridge)
        step = -solve(hessian, gradient)
        gain = -float(gradient @ step)
        if gain <= tol:
            break
        length = 1.0
        while length > 1e-10:
            trial = x + length * step
            found, there = loss(trial)
            if found <= value - 1e-4 * length * gain:
                break
            length *= 0.5
        else:
            break
        x, value, z = trial, found, there
    return float(value), x
