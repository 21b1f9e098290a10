r"""Bayesian inverse reinforcement learning: a posterior over rewards, given what was chosen.

Ramachandran and Amir (2007): choices are independent given the reward,

.. math:: P(D \mid w) = \prod_n \prod_t \frac{\exp(Q^*_w(s_t, a_t) / T)}{\sum_b \exp(Q^*_w(s_t, b) / T)},
          \qquad P(w \mid D) \propto P(D \mid w) \, P(w)

with Q* the optimal values of the rewards Xw ("hard"), or the soft values at temperature T, under which the choices are those
of maximum causal entropy ("soft").
"""

import math
from dataclasses import dataclass

import numpy as np
from scipy import optimize, sparse, stats
from scipy.sparse.linalg import splu

from ._quadratic import nearest_point
from ._validation import float_vector, one_of, positive_number, shown, warn, whole_number
from .exceptions import ConvergenceWarning, DivergenceError, InvalidInputError, UndecidedError
from .learner import Learner
from .mdp import MDP
from .planning import soft_value_iteration, value_iteration
from .process_likelihood import ProcessModel
from .rewards import LinearReward

__all__ = ["BayesianIRL", "PosteriorSample"]

_LARGE = 5_000  # weights beyond which no covariance is formed
_AGREED = 1.05  # chains whose R-hat is above have not come together
_NEAR, _FLAT = 1e-6, 1e-2  # of a kink, in posterior standard deviations: how near gradients are drawn, and what is level


class _Posterior:
    """log P(θ | D) in the free weights, up to log P(D), with derivatives."""

    def __init__(self, mdp, steps, features, free, held, learner):
        self.mdp, self.steps, self.features, self.free, self.held = mdp, steps, features, free, held
        self.planner, self.horizon, self.temperature = learner.planner, learner.horizon, learner.temperature
        self.prior, self.scale = learner.prior, np.broadcast_to(learner.scale, held.shape)[free].astype(float)
        self.tol, self.n_threads = learner.value_tol, learner.n_threads
        self.n_evaluations, self._value = 0, None
        if self.planner == "soft":
            self.process = ProcessModel(mdp, steps, "likelihood", self.horizon, self.tol, self.n_threads)
        times = 1 if self.horizon is None else self.horizon
        time = steps.time if self.horizon is not None else np.zeros(steps.pair.size, np.int64)
        weight = steps.weight[steps.trip]
        self.counts = np.bincount(time * mdp.n_pairs + steps.pair, weight, minlength=times * mdp.n_pairs)
        self.counts = self.counts.reshape(times, mdp.n_pairs)
        self.seen = self._by_state(self.counts)[:, mdp.pair_state]  # choices made in the state of each pair

    def _by_state(self, rows):
        mdp = self.mdp
        return np.array([np.bincount(mdp.pair_state, row, minlength=mdp.n_states) for row in rows])

    def weights(self, theta):
        full = self.held.copy()
        full[self.free] = theta
        return full

    def reward(self, theta):
        return np.ascontiguousarray(self.features @ self.weights(theta))

    # the prior

    def log_prior(self, theta):
        ratio = theta / self.scale
        if self.prior == "gaussian":
            return float(-0.5 * (ratio @ ratio) - np.log(self.scale).sum() - 0.5 * theta.size * math.log(2 * math.pi))
        return float(-np.abs(ratio).sum() - np.log(2 * self.scale).sum())

    def prior_slope(self, theta):
        return -theta / self.scale**2 if self.prior == "gaussian" else -np.sign(theta) / self.scale

    @property
    def prior_precision(self):
        """Of the normal of the prior's variance."""
        return (1.0 if self.prior == "gaussian" else 0.5) / self.scale**2

    # the likelihood

    def _planned(self, theta):
        """(log P(a | s) (times, n_pairs), what the planner found)."""
        mdp, reward = self.mdp, self.reward(theta)
        steps = self.horizon if mdp.discount == 1 and self.horizon else 1.0 / (1.0 - min(mdp.discount, 0.999))
        most = float(np.abs(reward).max(initial=0.0))
        options = dict(horizon=self.horizon, n_threads=self.n_threads,
                       initial_value=None if self.horizon is not None else self._value)
        if self.planner == "soft":
            most += self.temperature
            found = soft_value_iteration(mdp, reward, "pair", temperature=self.temperature, tol=self.tol * most * steps,
                                         **options)
        else:
            found = value_iteration(mdp, reward, "pair", tol=self.tol * max(most * steps, 1e-300), **options)
        if self.horizon is None:
            self._value = found.value
        return self._log_choices(np.atleast_2d(found.q) / self.temperature), found

    def _log_choices(self, score):
        mdp = self.mdp
        starts = mdp.pair_ptr[:-1][~mdp.terminal]
        sizes = np.diff(mdp.pair_ptr)[~mdp.terminal]
        score = score - np.repeat(np.maximum.reduceat(score, starts, axis=1), sizes, axis=1)
        return score - np.repeat(np.log(np.add.reduceat(np.exp(score), starts, axis=1)), sizes, axis=1)

    def value(self, theta):
        """log P(D | θ) + log P(θ); −inf where the values do not exist (discount 1 only)."""
        return self._guarded(lambda: self._likelihood(theta, False)[0] + self.log_prior(theta))

    def at(self, theta):
        """(value, slope)."""
        def found():
            value, slope = self._likelihood(theta, True)
            return value + self.log_prior(theta), slope + self.prior_slope(theta)
        return self._guarded(found, (-math.inf, np.zeros_like(theta)))

    def _guarded(self, evaluate, failed=-math.inf):
        self.n_evaluations += 1
        try:
            return evaluate()
        except (DivergenceError, UndecidedError):
            if self._first:
                raise
            return failed

    _first = False  # an evaluation that must not fail: the start

    def _likelihood(self, theta, slope):
        if slope and self.planner == "soft":
            found = self.process.at(self.reward(theta) / self.temperature)
            return found["value"], (self.features.T @ found["gradient"] / self.temperature)[self.free]
        log, found = self._planned(theta)
        value = float((self.counts * log).sum())
        if not slope:
            return value, None
        greedy = np.atleast_2d(found.policy)
        push = (self.counts - self.seen * np.exp(log)) / self.temperature  # ∂L/∂Q
        return value, (self.features.T @ self._carried(push, greedy))[self.free]

    def _carried(self, push, greedy):
        """(n_pairs,) ∂L/∂r from ∂L/∂Q: Q = r + γ P V, and V earns what the greedy policy earns."""
        mdp = self.mdp
        if self.horizon is None:
            passing = self._system(greedy[0]).solve(mdp.discount * (mdp.transitions.T @ push[0]), trans="T")
            return push[0] + passing[mdp.pair_state] * greedy[0]
        total, passing = np.zeros(mdp.n_pairs), np.zeros(mdp.n_states)
        for t in range(self.horizon):
            moved = push[t] + passing[mdp.pair_state] * greedy[t]
            total += moved
            passing = mdp.discount * (mdp.transitions.T @ moved)
            passing[mdp.terminal] = 0.0
        return total

    def _system(self, greedy):
        """Factors of I − γ P_greedy."""
        mdp = self.mdp
        chosen = np.flatnonzero(greedy > 0)
        pick = sparse.csr_array((np.ones(chosen.size), (mdp.pair_state[chosen], np.arange(chosen.size))),
                                shape=(mdp.n_states, chosen.size))
        return splu(sparse.csc_array(sparse.eye_array(mdp.n_states) - mdp.discount * (pick @ mdp.transitions[chosen])))

    def curvature(self, theta):
        """(k, k) −∂² log P(D | θ): exact; of the hard planner where the greedy policy is unique."""
        mdp = self.mdp
        features = self.features.toarray() if sparse.issparse(self.features) else self.features
        if self.planner == "soft":
            found = self.process.at(self.reward(theta) / self.temperature, features / self.temperature)
            return found["hessian"][np.ix_(self.free, self.free)]
        features = features[:, self.free]
        log, found = self._planned(theta)
        greedy = np.atleast_2d(found.policy)
        policy, total = np.exp(log), np.zeros((self.free.sum(),) * 2)
        slopes = np.zeros((mdp.n_states, features.shape[1]))
        if self.horizon is None:
            chosen = np.flatnonzero(greedy[0] > 0)
            right = np.zeros_like(slopes)
            right[mdp.pair_state[chosen]] = features[chosen]
            slopes = self._system(greedy[0]).solve(right)
        for t in range(len(policy) - 1, -1, -1):
            ahead = features + mdp.discount * (mdp.transitions @ slopes)
            mix = sparse.csr_array((policy[t], np.arange(mdp.n_pairs), mdp.pair_ptr), shape=(mdp.n_states, mdp.n_pairs))
            centred = ahead - (mix @ ahead)[mdp.pair_state]
            total += (centred * (self.seen[t] * policy[t])[:, None]).T @ centred / self.temperature**2
            if self.horizon is not None:
                chosen = np.flatnonzero(greedy[t] > 0)
                slopes = np.zeros_like(slopes)
                slopes[mdp.pair_state[chosen]] = ahead[chosen]
        return total

    def covariance(self, theta):
        """(k, k) inverse of the curvature and the prior's precision; directions that curve the wrong way by their size."""
        matrix = self.curvature(theta)
        matrix = 0.5 * (matrix + matrix.T)
        root = np.sqrt(self.prior_precision)
        values, vectors = np.linalg.eigh(matrix / np.outer(root, root))
        vectors = vectors / root[:, None]
        return (vectors / np.maximum(np.abs(1.0 + values), 1e-6)) @ vectors.T

    def policy(self, theta):
        """(n_pairs,) or (horizon, n_pairs) probabilities of the choices."""
        policy = np.exp(self._planned(theta)[0])
        return policy[0] if self.horizon is None else policy


class BayesianIRL(Learner):
    r"""A posterior over rewards: the most probable one, its uncertainty, and draws.

    P(a | s) ∝ exp(Q*(s, a) / T) with Q* the optimal values of the rewards Xw (Ramachandran and Amir 2007, section 3.1),
    independent priors on the weights, and the posterior's maximum found with exact gradients, ∇Q* = x + γ P ∇V with ∇V that of
    the greedy policy's value. The Laplace approximation describes it by a normal; :meth:`sample_posterior` checks that.

    Parameters
    ----------
    prior : "gaussian" (normal, standard deviation `scale`) or "laplace" (double exponential, mean size `scale`), mean 0
    scale : float above 0, or (k,), in the units of the weights
    temperature : float above 0, T, in units of reward
    planner : "hard" (Q* of the best policy) or "soft" (Q of maximum causal entropy at T, as :class:`MaxEntIRL`)
    reward : LinearReward (default; some weights may be held), "state" or "pair" (one reward for each, no features needed)
    horizon : int, number of decisions, None for an infinite horizon
    start : (k_free,) free weights to begin at; by default the soft planner's answer, and draws from the prior
    n_starts : int, of the hard planner: how many draws from the prior are tried too, for its posterior has several hills
    seed : int, of these draws
    max_iter : int, most iterations from each start
    tol : float, gain in log posterior that the quadratic model still promises at the answer
    value_tol : float, of the values, relative to the largest that the rewards can add up to
    n_threads : as of :func:`value_iteration`

    Attributes
    ----------
    coef_ : (k,) the posterior's maximum, held weights included; feature_names_ : tuple
    covariance_ : (k, k) of the Laplace approximation, 0 for held weights
    reward_ : (n_pairs,) Xw at the maximum
    log_posterior_ : float, log P(D | w) + log P(w), not divided by P(D); log_likelihood_ : float, its first part
    converged_ : bool; message_ : why it stopped; kink_ : bool, the maximum is where the greedy policy (or a weight's sign)
        changes, so that the posterior has an edge there; gain_ : float, what the quadratic model promised last
    n_evaluations_ : int, plans made at the weights that were tried, those of the soft planner's start aside
    posterior_ : PosteriorSample of the last :meth:`sample_posterior`, or None

    Notes
    -----
    It needs the dynamics, no expert at hand. Weights of trajectories are frequencies. A constant added to all rewards
    changes no choice (without terminal states): such directions keep the prior's spread.

    The hard planner's log posterior is smooth except where the greedy policy changes, and it need not be concave: what is
    found is the best of several local maxima, none of which is proven global. At a kink the covariance is that of one side.
    Under the laplace prior the covariance takes the normal of the prior's variance, 2 scale², for the prior; where a weight
    is exactly 0 at the maximum, or data are few, trust the draws instead. At discount 1 without a horizon weights
    without finite values have posterior 0. It does not learn T: only w / T is identified apart from the prior. The
    likelihood is of choices, not of transitions, and knows no reward on arrival other than through the pairs' features.

    References
    ----------
    Ramachandran and Amir (2007), Bayesian inverse reinforcement learning, IJCAI; Choi and Kim (2011), MAP inference for
    Bayesian inverse reinforcement learning, NIPS (the gradient); Burke, Lewis, Overton (2005), SIAM J. Optim. 15
    (gradients drawn near a kink).
    """

    models = (MDP,)

    def __init__(self, prior="gaussian", scale=1.0, temperature=1.0, planner="hard", *, reward=None, horizon=None, start=None,
                 n_starts=4, seed=0, max_iter=500, tol=1e-8, value_tol=1e-11, n_threads=None):
        self.prior = one_of("prior", prior, ("gaussian", "laplace"))
        if np.ndim(scale):
            self.scale = float_vector("scale", scale)
            if not (self.scale > 0).all():
                raise InvalidInputError(f"`scale` must be above 0: entry {int(np.argmin(self.scale))} is "
                                        f"{self.scale.min():g}; pass a positive number for each weight")
        else:
            self.scale = positive_number("scale", scale)
        self.temperature = positive_number("temperature", temperature)
        self.planner = one_of("planner", planner, ("hard", "soft"))
        self.reward = LinearReward() if reward is None else reward
        if not isinstance(self.reward, LinearReward) and not (isinstance(reward, str) and reward in ("state", "pair")):
            raise InvalidInputError(f"`reward` must be a LinearReward, 'state' or 'pair': got {shown(reward)}; pass one "
                                    "of these")
        if isinstance(self.reward, LinearReward):
            self.reward.refuse_penalties("BayesianIRL", "say it by prior= and scale=")
        self.horizon = None if horizon is None else whole_number("horizon", horizon, lower=1)
        self.start = start
        self.n_starts = whole_number("n_starts", n_starts)
        self.seed = whole_number("seed", seed)
        self.max_iter = whole_number("max_iter", max_iter, lower=1)
        self.tol = positive_number("tol", tol)
        self.value_tol = positive_number("value_tol", value_tol)
        self.n_threads = n_threads

    # -- fit

    def fit(self, model, trajectories):
        """Find the posterior's maximum and its Laplace approximation.

        Parameters
        ----------
        model : MDP, with features unless `reward` is "state" or "pair"
        trajectories : Trajectories of states and actions

        Returns
        -------
        self

        Raises
        ------
        InvalidInputError : no features, no step, no weight, a `scale` or `start` of the wrong size
        InvalidTripError : a trajectory that the model cannot make, or longer than the horizon
        DivergenceError : at discount 1 without a horizon, no start has finite values

        Warns
        -----
        ConvergenceWarning : the iteration stopped before `tol`
        """
        steps = self._observe(model, trajectories, self.horizon)
        features, names = self._described(model)
        reward = self.reward if isinstance(self.reward, LinearReward) else LinearReward()
        free, held = reward.layout(names)
        if np.ndim(self.scale) and self.scale.size != held.size:
            raise InvalidInputError(f"`scale` must have one entry for each weight: got {self.scale.size} for {held.size}; "
                                    "pass a number, or one for each")
        if free.sum() > _LARGE:
            raise InvalidInputError(f"a posterior covariance needs at most {_LARGE:,} free weights: there are "
                                    f"{int(free.sum()):,}; use features, or MaxEntIRL")
        self.feature_names_ = tuple(names)
        self._posterior = posterior = _Posterior(model, steps, features, free, held, self)
        self.posterior_ = None
        theta = self._climbed(posterior, self._begin(posterior))
        self.coef_ = posterior.weights(theta)
        self._theta, self._spread = theta, posterior.covariance(theta)
        self.covariance_ = np.zeros((held.size,) * 2)
        self.covariance_[np.ix_(free, free)] = self._spread
        self.log_posterior_ = posterior.value(theta)
        self.n_evaluations_ = posterior.n_evaluations
        self.log_likelihood_ = self.log_posterior_ - posterior.log_prior(theta)
        self.reward_ = posterior.reward(theta)
        self._policy = posterior.policy(theta)
        if not self.converged_:
            warn(f"the posterior's maximum must be found to tol={self.tol:g}: {self.message_}; raise max_iter, "
                 "n_starts or tol, or pass start=", ConvergenceWarning)
        return self

    def _described(self, mdp):
        if isinstance(self.reward, LinearReward):
            if mdp.features is None:
                raise InvalidInputError("a linear reward needs features: this MDP has none; pass features= when it is built, "
                                        "mdp.with_features(X, names), or reward='state'")
            return mdp.features, mdp.feature_names
        if self.reward == "pair":
            return sparse.eye_array(mdp.n_pairs, format="csr"), [f"pair {i}" for i in range(mdp.n_pairs)]
        acting = np.flatnonzero(~mdp.terminal)
        column = np.searchsorted(acting, mdp.pair_state)
        features = sparse.csr_array((np.ones(mdp.n_pairs), (np.arange(mdp.n_pairs), column)), shape=(mdp.n_pairs, acting.size))
        return features, [f"state {mdp.state_ids[s]}" for s in acting]

    def _begin(self, posterior):
        """Free weights to begin at, a list."""
        n = int(posterior.free.sum())
        if self.start is not None:
            starts = [float_vector("start", self.start, n)]
        else:
            starts = [np.zeros(n)]
            if self.planner == "hard":
                rng = np.random.default_rng(self.seed)
                starts = [posterior.scale * rng.normal(size=n) for _ in range(self.n_starts)]
                # smooth, and close by at low temperatures
                twin = _Posterior.__new__(_Posterior)
                twin.__dict__.update(posterior.__dict__, planner="soft", _value=None)
                twin.process = ProcessModel(posterior.mdp, posterior.steps, "likelihood", self.horizon, self.value_tol,
                                            self.n_threads)
                starts.insert(0, self._lbfgs(twin, np.zeros(n)))
        usable = [start for start in starts if math.isfinite(posterior.value(start))]
        if not usable:
            posterior._first = True
            posterior.value(starts[0])  # raises by name
        return usable

    def _lbfgs(self, posterior, start):
        """Where L-BFGS ends; under the laplace prior in the positive and the negative parts of the weights."""
        scale = posterior.scale

        def loss(u, laplace=posterior.prior == "laplace"):
            theta = scale * (u[:scale.size] - u[scale.size:]) if laplace else scale * u
            value, slope = posterior.at(theta)
            if not math.isfinite(value):
                return 1e10 * (1.0 + abs(first)), np.zeros_like(u)
            if laplace:  # the prior in the parts has no edge
                value += np.abs(theta / scale).sum() - u.sum()
                slope = (slope - posterior.prior_slope(theta)) * scale
                return -value, np.concatenate([1.0 - slope, 1.0 + slope])
            return -value, -scale * slope

        first = posterior.value(start)
        if not math.isfinite(first):
            return start
        bounds = None
        u = start / scale
        if posterior.prior == "laplace":
            u, bounds = np.concatenate([np.maximum(u, 0), np.maximum(-u, 0)]), [(0, None)] * (2 * u.size)
        found = optimize.minimize(loss, u, jac=True, method="L-BFGS-B", bounds=bounds,
                                  options={"maxiter": self.max_iter, "maxfun": 20 * self.max_iter, "ftol": 1e-13,
                                           "gtol": 1e-8})
        if posterior.prior == "laplace":
            return scale * (found.x[:scale.size] - found.x[scale.size:])
        return scale * found.x

    def _climbed(self, posterior, starts):
        best = max((self._lbfgs(posterior, start) for start in starts), key=posterior.value)
        self.converged_, self.kink_, self.message_ = False, False, f"max_iter={self.max_iter} iterations were made"
        best = self._newton(posterior, best)
        if not self.converged_ and (posterior.planner == "hard" or posterior.prior == "laplace"):
            best = self._along_kinks(posterior, best)
        return best

    def _newton(self, posterior, theta):
        """Steps with the exact curvature in the weights that are not held at 0 by the laplace prior."""
        value, slope = posterior.at(theta)
        self.gain_ = math.inf
        for _ in range(min(self.max_iter, 50)):
            laplace = posterior.prior == "laplace"
            moving = np.abs(theta) > 1e-9 * posterior.scale if laplace else np.ones(theta.size, bool)
            if laplace and (np.abs(slope[~moving]) * posterior.scale[~moving] > 1 + 1e-6).any():
                self.message_ = "a weight at 0 wants to move"
                break
            if not moving.any():
                self.gain_, self.converged_ = 0.0, True
                break
            matrix = posterior.curvature(theta)
            matrix = 0.5 * (matrix + matrix.T)
            if not laplace:
                matrix = matrix + np.diag(posterior.prior_precision)
            root = np.sqrt(posterior.prior_precision[moving])
            values, vectors = np.linalg.eigh(matrix[np.ix_(moving, moving)] / np.outer(root, root))
            vectors = vectors / root[:, None]
            step = np.zeros_like(theta)
            step[moving] = vectors @ ((vectors.T @ slope[moving]) / np.maximum(np.abs(values), 1e-9))
            gain = 0.5 * float(slope[moving] @ step[moving])
            self.gain_ = gain
            if gain <= self.tol:
                self.converged_ = True
                break
            size = 1.0
            if laplace:  # no weight passes through 0
                across = moving & (theta * (theta + step) < 0)
                size = min(1.0, float(np.min(-theta[across] / step[across], initial=1.0)))
            while size > 1e-10:
                new_value, new_slope = posterior.at(theta + size * step)
                if new_value >= value + 0.1 * size * gain:
                    break
                size /= 2
            else:
                self.message_ = f"no step gains although {gain:.2g} is promised: an edge of the posterior"
                break
            theta, value, slope = theta + size * step, new_value, new_slope
        if self.converged_:
            self.message_ = f"the quadratic model promises a gain of {self.gain_:.2g}, at most tol"
            self.kink_ = bool(posterior.prior == "laplace" and (np.abs(theta) <= 1e-9 * posterior.scale).any())
        return theta

    def _along_kinks(self, posterior, theta):
        """Gradients drawn nearby: a step along the least vector of their hull, until it vanishes close to a point."""
        rng = np.random.default_rng(self.seed)
        root = np.linalg.cholesky(posterior.covariance(theta))
        value, radius, k = posterior.value(theta), 0.1, theta.size
        for _ in range(self.max_iter):
            points = rng.normal(size=(2 * k + 2, k))
            points *= radius * rng.random((len(points), 1))**(1 / k) / np.linalg.norm(points, axis=1)[:, None]
            slopes = np.array([root.T @ posterior.at(theta + root @ point)[1] for point in [np.zeros(k), *points]])
            weights, _ = nearest_point(slopes)
            upward = weights @ slopes
            steep = float(np.linalg.norm(upward))
            if steep <= _FLAT:
                if radius <= _NEAR:
                    self.converged_ = self.kink_ = True
                    self.gain_ = steep * radius
                    self.message_ = (f"a kink: slopes within {_NEAR:g} standard deviations cancel to {steep:.2g} per standard "
                                     "deviation")
                    break
                radius /= 10
                continue
            size = 1.0 / steep
            while size * steep > 1e-3 * radius:
                new = theta + size * (root @ upward)
                new_value = posterior.value(new)
                if new_value > value + 1e-4 * size * steep**2:
                    theta, value = new, new_value
                    break
                size /= 2
            else:
                if radius <= _NEAR:
                    self.message_ = f"slopes near the answer do not cancel: {steep:.2g} per standard deviation is left"
                    break
                radius /= 10
        return theta

    # -- what follows from the posterior

    def standard_deviations(self):
        """(k,) posterior standard deviations by the Laplace approximation, 0 for held weights."""
        self._require_fit()
        return np.sqrt(np.diag(self.covariance_))

    def credible_intervals(self, level=0.95):
        """(k, 2) central intervals of the weights by the Laplace approximation; for those of the draws see `posterior_`.

        Parameters
        ----------
        level : float in (0, 1)
        """
        self._require_fit()
        reach = stats.norm.ppf(0.5 + 0.5 * _level(level)) * self.standard_deviations()
        return np.column_stack([self.coef_ - reach, self.coef_ + reach])

    def policy(self, which="map", n=200):
        """Probabilities of choices, exp(Q / T) normalised in each state.

        Parameters
        ----------
        which : "map" (at the posterior's maximum), "posterior_mean" (at the mean of the drawn weights, the reward of least
            expected squared error, section 4.1 of the paper) or "predictive" (the mean of the policies of the draws)
        n : int, of how many draws, evenly spread, "predictive" takes the mean

        Returns
        -------
        (n_pairs,) or (horizon, n_pairs)

        Raises
        ------
        InvalidInputError : no draws yet; NotFittedError
        """
        self._require_fit()
        one_of("which", which, ("map", "posterior_mean", "predictive"))
        if which == "map":
            return self._policy.copy()
        n = whole_number("n", n, lower=1)
        if self.posterior_ is None:
            raise InvalidInputError(f"the {which} policy needs draws: there are none; call sample_posterior(n, rng) first")
        free = self._posterior.free
        if which == "posterior_mean":
            return self._posterior.policy(self.posterior_.mean[free])
        draws = self.posterior_.draws.reshape(-1, free.size)[:, free]
        draws = draws[np.unique(np.linspace(0, len(draws) - 1, n).astype(int))]
        return sum(self._posterior.policy(theta) for theta in draws) / len(draws)

    def sample_posterior(self, n, rng, *, chains=4, burn_in=None, thin=1):
        """Draw weights from the posterior by random-walk Metropolis whose steps have the Laplace covariance.

        Parameters
        ----------
        n : int, draws kept of each chain
        rng : numpy.random.Generator
        chains : int of at least 2; each starts at the maximum plus twice a draw of the Laplace approximation
        burn_in : int, steps before, which also set the step's size; default n // 2, at least 200
        thin : int, steps for each draw kept

        Returns
        -------
        PosteriorSample, also kept as `posterior_`

        Warns
        -----
        ConvergenceWarning : some R-hat is above 1.05: the chains have not come together

        Notes
        -----
        Steps are normal with covariance c² Σ, c adapted during the burn-in towards an acceptance of 0.44 in one dimension
        and 0.234 in many (Roberts, Gelman, Gilks 1997), then fixed. Chains that agree may all miss a hill far away.
        """
        self._require_fit()
        n, chains, thin = (whole_number(name, given, lower=low) for name, given, low in
                           (("n", n, 4), ("chains", chains, 2), ("thin", thin, 1)))
        burn_in = max(n // 2, 200) if burn_in is None else whole_number("burn_in", burn_in)
        if not isinstance(rng, np.random.Generator):
            raise InvalidInputError(
                f"`rng` must be a numpy.random.Generator: got {type(rng).__name__}; pass numpy.random.default_rng(seed)")
        posterior, k = self._posterior, self._theta.size
        root = np.linalg.cholesky(self._spread)
        draws = np.empty((chains, n, self.coef_.size))
        draws[:] = self.coef_
        accepted = np.zeros(chains)
        for chain in range(chains):
            theta, value = self._scattered(root, rng)
            step, wanted = 2.38 / math.sqrt(k), 0.44 if k == 1 else 0.234 + 0.2 / k
            late = 0.0  # the step kept is the geometric mean of the burn-in's second half
            for t in range(-burn_in, n * thin):
                proposal = theta + step * (root @ rng.normal(size=k))
                there = posterior.value(proposal)
                chance = math.exp(min(there - value, 0.0))
                if rng.random() < chance:
                    theta, value = proposal, there
                    accepted[chain] += t >= 0
                if t < 0:
                    step *= math.exp((chance - wanted) / (1.0 + 0.1 * (t + burn_in))**0.6)
                    late += math.log(step) if t >= -(burn_in // 2) else 0.0
                    if t == -1 and burn_in > 1:
                        step = math.exp(late / (burn_in // 2))
                elif t % thin == thin - 1:
                    draws[chain, t // thin, posterior.free] = theta
        r_hat, size = np.ones(self.coef_.size), np.full(self.coef_.size, float(chains * n))
        for j in np.flatnonzero(posterior.free):
            r_hat[j], size[j] = split_r_hat(draws[:, :, j]), effective_sample_size(draws[:, :, j])
        converged = bool((r_hat <= _AGREED).all())
        self.posterior_ = PosteriorSample(draws, self.feature_names_, accepted / (n * thin), size, r_hat, converged)
        if not converged:
            worst = int(np.argmax(r_hat))
            warn(f"chains must agree, R-hat at most {_AGREED}: that of {self.feature_names_[worst]!r} is "
                 f"{r_hat[worst]:.3g}; raise n, burn_in or thin", ConvergenceWarning)
        return self.posterior_

    def _scattered(self, root, rng):
        """A start wider than the posterior."""
        away = 2.0 * (root @ rng.normal(size=self._theta.size))
        while True:
            value = self._posterior.value(self._theta + away)
            if math.isfinite(value):
                return self._theta + away, value
            away = away / 2


def _level(level):
    level = positive_number("level", level, upper=1.0)
    if level == 1.0:
        raise InvalidInputError("`level` must be below 1: got 1, whose interval is without bounds; pass 0.95, say")
    return level


@dataclass(frozen=True)
class PosteriorSample:
    """Draws from a posterior, and whether the chains that made them agree.

    Attributes
    ----------
    draws : (n_chains, n, k), held weights as they are held
    feature_names : tuple of str
    acceptance_rate : (n_chains,) share of accepted steps after the burn-in
    effective_sample_size : (k,) how many independent draws tell the mean as well
    r_hat : (k,) of the chains cut in halves (Gelman and others 2013, section 11.4); 1 where they agree
    converged : bool, every r_hat is at most 1.05
    """

    draws: np.ndarray
    feature_names: tuple
    acceptance_rate: np.ndarray
    effective_sample_size: np.ndarray
    r_hat: np.ndarray
    converged: bool

    @property
    def mean(self):
        """(k,)"""
        return self.draws.mean(axis=(0, 1))

    @property
    def standard_deviation(self):
        """(k,)"""
        return self.draws.std(axis=(0, 1))

    @property
    def monte_carlo_error(self):
        """(k,) standard error of `mean`."""
        return self.standard_deviation / np.sqrt(self.effective_sample_size)

    def credible_intervals(self, level=0.95):
        """(k, 2) intervals between quantiles of the draws."""
        tail = 0.5 * (1.0 - _level(level))
        return np.quantile(self.draws.reshape(-1, self.draws.shape[2]), [tail, 1.0 - tail], axis=0).T


def _halves(chains):
    """(2m, n // 2): a chain that drifts differs from itself."""
    half = chains.shape[1] // 2
    return np.concatenate([chains[:, :half], chains[:, -half:]])


def split_r_hat(chains):
    """Potential scale reduction of (m, n) draws of one number, chains cut in halves; inf where all chains stand still."""
    halves = _halves(chains)
    within = float(halves.var(axis=1, ddof=1).mean())
    between = float(halves.mean(axis=1).var(ddof=1))
    if within == 0.0:
        return math.inf
    n = halves.shape[1]
    return math.sqrt((n - 1) / n + between / within)


def effective_sample_size(chains):
    """Effective number of (m, n) draws of one number, by Geyer's initial monotone sequence of autocorrelations.

    Vehtari and others (2021), Bayesian Analysis 16; 1 where all chains stand still.
    """
    halves = _halves(chains)
    m, n = halves.shape
    centred = halves - halves.mean(axis=1, keepdims=True)
    power = np.abs(np.fft.rfft(centred, 2 * n, axis=1))**2
    auto = np.fft.irfft(power, axis=1)[:, :n].mean(axis=0) / (n - 1)
    within = auto[0]
    total = within * (n - 1) / n + halves.mean(axis=1).var(ddof=1)
    if total <= 0:
        return 1.0
    rho = 1.0 - (within - auto) / total
    rho[0] = 1.0
    pairs = rho[:n // 2 * 2].reshape(-1, 2).sum(axis=1)
    stop = int(np.argmax(pairs <= 0)) if (pairs <= 0).any() else pairs.size
    time = 2.0 * float(np.minimum.accumulate(pairs[:max(stop, 1)]).sum()) - 1.0
    return float(m * n / max(time, 1.0 / math.log10(max(m * n, 11))))
