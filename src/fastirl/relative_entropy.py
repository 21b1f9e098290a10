r"""Inverse reinforcement learning from demonstrations and drawn trajectories, without the transition probabilities.

The distribution over trajectories closest to a base distribution Q that matches the expert's features is
P(τ | w) ∝ Q(τ) exp(w'f(τ)). Where τ was drawn by a policy π_b in the same world, the world's part of Q and of the draw
cancels, and sums over trajectories become sums over draws with weights U(τ) exp(w'f(τ)) / π_b(τ), U and π_b being the
products of the policies' probabilities along τ (Boularias, Kober, Peters 2011; Finn, Levine, Abbeel 2016).
"""


import numpy as np
from scipy import optimize, sparse
from scipy.special import logsumexp

from ._validation import float_vector, naming, one_of, plain, positive_number, warn, whole_number
from .exceptions import ConvergenceWarning, IdentificationWarning, InvalidInputError
from .learner import Learner
from .mdp import MDP
from .planning import sample_trajectories, soft_value_iteration
from .process_likelihood import match_steps
from .tables import Table
from .trajectories import Trajectories

__all__ = ["ImportanceDual", "RelativeEntropyIRL", "draw", "require_generator"]

_RIDGE = 1e-3  # in units of the features' spread: a guided round whose samples do not surround the demonstrations
_INSIDE = 1e-7  # HiGHS' own tolerance


class ImportanceDual:
    r"""The dual of relative-entropy IRL, estimated from weighted draws: concave in w, with exact derivatives.

    .. math:: J(w) = w^\top \hat f - \sum_g \sigma_g \log \frac{\sum_{i \in g} e^{\ell_i + w^\top f_i}}
              {\sum_{i \in g} e^{\ell_i}}, \qquad \nabla J = \hat f - \sum_i \omega_i f_i, \qquad
              \nabla^2 J = - \mathrm{Cov}_\omega(f)

    with self-normalised weights ω, which sum to σ_g in each group g of draws.

    Parameters
    ----------
    features : (n, k) f(τ_i)
    log_ratio : (n,) ℓ_i = log U(τ_i) / π_b(τ_i), plus the log of how often τ_i counts; −inf leaves a draw out
    observed : (k,) mean features of the demonstrations
    group, share : (n,) group of each draw, (n_groups,) σ; by default one group

    Notes
    -----
    All sums are formed about the largest term, so no exponential overflows. It holds no penalty and finds no optimum.
    """

    def __init__(self, features, log_ratio, observed, group=None, share=None):
        self.features, self.log_ratio, self.observed = features, log_ratio, observed
        self.group = np.zeros(len(features), np.int64) if group is None else group
        self.share = np.ones(1) if share is None else share
        self._base = self._sums(log_ratio)[0]

    def _sums(self, exponent):
        """(n_groups,) log-sums and (n,) weights."""
        top = np.full(self.share.size, -np.inf)
        np.maximum.at(top, self.group, exponent)
        part = np.exp(exponent - top[self.group])
        total = np.bincount(self.group, part, minlength=self.share.size)
        return top + np.log(total), self.share[self.group] * part / total[self.group]

    def weights(self, w):
        """(n,) self-normalised weights ω, which sum to 1."""
        return self._sums(self.log_ratio + self.features @ w)[1]

    def at(self, w):
        """(value, gradient (k,), Hessian (k, k))."""
        sums, omega = self._sums(self.log_ratio + self.features @ w)
        value = float(w @ self.observed - self.share @ (sums - self._base))
        mean = np.zeros((self.share.size, self.observed.size))
        np.add.at(mean, self.group, omega[:, None] * self.features)
        gradient = self.observed - mean.sum(axis=0)
        centred = self.features - (mean / self.share[:, None])[self.group]
        return value, gradient, -(centred * omega[:, None]).T @ centred

    def room(self, epsilon):
        """How far inside the hull of the draws' features the observed ones are: 0 on its border, −1 outside, at most 1.

        The largest t for which weights of at least t σ_g / n_g reproduce the observed features within ±ε. J has a maximum
        (without l2) if and only if t > 0.
        """
        rows = np.unique(np.column_stack([self.group, self.features])[np.isfinite(self.log_ratio)], axis=0)
        group, features = rows[:, 0].astype(np.int64), rows[:, 1:]
        size = np.bincount(group, minlength=self.share.size)
        least = (self.share / np.maximum(size, 1))[group]
        n = len(rows)
        member = sparse.csr_array((np.ones(n), (group, np.arange(n))), shape=(self.share.size, n))
        spread = np.ptp(features, axis=0)
        spread[spread <= 1e-12 * np.abs(features).max(axis=0)] = 1.0
        columns = (features / spread).T
        centre, slack = self.observed / spread, epsilon / spread + 1e-9
        both = np.column_stack([columns, columns @ least])
        found = optimize.linprog(
            np.append(np.zeros(n), -1.0), A_ub=np.vstack([both, -both]),
            b_ub=np.concatenate([centre + slack, slack - centre]),
            A_eq=sparse.hstack([member, sparse.csr_array(self.share[:, None])]), b_eq=self.share, bounds=(0, None),
            method="highs")
        return float(found.x[-1]) if found.status == 0 else -1.0


class RelativeEntropyIRL(Learner):
    r"""Relative-entropy inverse reinforcement learning, and its guided form: linear rewards from draws, no tensor needed.

    .. math:: \max_w \; w^\top \hat f_E - \log \sum_i \omega_i e^{w^\top f(\tau_i)} - \tfrac{l_2}{2} \|w\|^2
              - \sum_j \varepsilon_j |w_j|, \qquad \omega_i \propto \frac{U(\tau_i)}{\pi_b(\tau_i)}, \qquad
              f(\tau) = \sum_t \gamma^t x(s_t, a_t)

    over draws τ_i of a known behaviour policy π_b (Boularias, Kober, Peters 2011, equations 8–10). With ``resample=R`` the
    draws are renewed R times where they matter (Finn, Levine, Abbeel 2016): the soft policy of the weights so far is
    planned for, new trajectories are drawn with it, and all draws are weighted against the mixture of their policies,
    Σ_κ (n_κ / n) π_κ(τ) (equation 5).

    Parameters
    ----------
    base_policy : U, "uniform" (Boularias et al.), "paths" (U = 1, every path counts alike: Ziebart 2008 and Finn et al.), or
        any form of a policy that :meth:`MDP.policy_vector` takes. Where all trajectories have equally many choices between
        equally many actions the first two are the same
    normalization : "joint" (the papers': one sum over all trajectories, in which w may shift where they start) or "start"
        (a sum for each start of a demonstration, as :class:`MaxEntIRL`; each needs draws that start there)
    l2 : float of at least 0
    epsilon : float or (k,) of at least 0; how far features may stay from the expert's, an L1 penalty in the dual
    horizon : int, most choices of a trajectory, and the horizon that is planned for; None for an infinite one
    resample : int, rounds of guided sampling
    n_samples : int, draws of each guided round, and of the first where no samples are given
    simulator : callable (policy, n, rng) -> Trajectories that draws in the world; None: :func:`sample_trajectories` on the
        model that is passed to `fit`, from the demonstrations' starts
    rng : numpy.random.Generator, needed where something is drawn
    min_effective_samples : a warning below this many effective draws; None: 10 for each weight, at least 30
    max_iter : limit of Newton steps (with epsilon, of L-BFGS iterations times 10)
    tol : what the quadratic model may still promise in the objective, per demonstration; with epsilon, the largest
        violation of the optimality conditions, features in units of their spread, is at most its square root

    Attributes
    ----------
    coef_ : (k,) w in units of the features; feature_names_ : tuple
    reward_ : (n_pairs,) Xw
    objective_value_ : float, the penalised objective, 0 at w = 0
    weights_ : (n_draws,) self-normalised importance weights at w, in the order of `samples_`
    effective_sample_size_ : float, 1 / Σ ω² (Kish), at most the number of draws
    samples_ : list of Trajectories, given and drawn
    observed_features_, expected_features_ : (k,) of demonstrations, and of the weighted draws
    history_ : Table with a row for each round of sampling
    converged_ : bool; message_ : str; n_iter_ : int, Newton steps or L-BFGS iterations of the last round
    model_ : the model

    Notes
    -----
    The model gives features, labels, discount and terminal states; weights never look at its probabilities, which only
    have to allow the steps (see :meth:`MDP.from_counts` with a prior). They matter for :meth:`policy` and `resample`,
    which plan: there the true tensor or an estimated one is needed. Under deterministic dynamics at discount 1 the soft
    policy has exactly the path distribution P(τ | w). Otherwise P(τ | w) is not the law of any policy, since w bends the
    world's chances too, and the policy is that of maximum causal entropy for the reward found.

    It does not estimate π_b, does not correct draws and demonstrations that start differently (see `normalization`), and
    gives no standard errors. Its error is that of importance sampling: watch `effective_sample_size_`.

    References
    ----------
    Boularias, Kober, Peters (2011), Relative Entropy Inverse Reinforcement Learning, AISTATS; Finn, Levine, Abbeel (2016),
    Guided Cost Learning, ICML; Owen and Zhou (2000), Safe and effective importance sampling (the mixture).
    """

    models = (MDP,)
    _plan_found = None

    def __init__(self, *, base_policy="uniform", normalization="joint", l2=0.0, epsilon=0.0, horizon=None, resample=0,
                 n_samples=500, simulator=None, rng=None, min_effective_samples=None, max_iter=100, tol=1e-12):
        self.base_policy = base_policy
        if isinstance(base_policy, str):
            one_of("base_policy", base_policy, ("uniform", "paths"))
        self.normalization = one_of("normalization", normalization, ("joint", "start"))
        self.l2 = positive_number("l2", l2, strict=False)
        if np.ndim(epsilon):
            self.epsilon = float_vector("epsilon", epsilon, nonnegative=True)
        else:
            self.epsilon = positive_number("epsilon", epsilon, strict=False)
        self.horizon = None if horizon is None else whole_number("horizon", horizon, lower=1)
        self.resample = whole_number("resample", resample)
        self.n_samples = whole_number("n_samples", n_samples, lower=1)
        self.simulator = require_callable("simulator", simulator)
        self.rng = rng
        if min_effective_samples is not None:
            min_effective_samples = positive_number("min_effective_samples", min_effective_samples, strict=False)
        self.min_effective_samples = min_effective_samples
        self.max_iter = whole_number("max_iter", max_iter, lower=1)
        self.tol = positive_number("tol", tol)

    def fit(self, model, demonstrations, samples=None, behavior_policy=None):
        """Learn the weights.

        Parameters
        ----------
        model : MDP with features
        demonstrations : Trajectories of the expert, with actions
        samples : Trajectories drawn by the behaviour policy; None (with `resample`): `n_samples` are drawn
        behavior_policy : π_b, any form that :meth:`MDP.policy_vector` takes (None: uniform), with a horizon also (horizon,
            n_pairs)

        Returns
        -------
        self

        Raises
        ------
        InvalidInputError
            A model without features; no samples and no `resample`; without l2, demonstrations whose mean features lie
            outside the hull of the samples' (then no maximum exists); with normalization="start", a demonstration that
            starts where no sample does
        InvalidTripError : a trajectory that the model cannot make, or a sample that the behaviour policy cannot

        Warns
        -----
        ConvergenceWarning : the optimiser stopped before `tol`
        IdentificationWarning : fewer effective samples than `min_effective_samples`
        """
        seen = self._observe(model, demonstrations, self.horizon)
        if model.features is None:
            raise InvalidInputError("an MDP needs features to learn a linear reward: this one has none; use "
                                    "mdp.with_features(X, names)")
        epsilon = np.broadcast_to(np.asarray(self.epsilon, float), (model.n_features,)) if not np.ndim(self.epsilon) \
            else float_vector("epsilon", self.epsilon, model.n_features, nonnegative=True)
        if samples is None and not self.resample:
            raise InvalidInputError("samples must be given where none are drawn: got neither samples nor resample; pass "
                                    "trajectories of the behaviour policy, or RelativeEntropyIRL(resample=…)")
        if self.resample:
            require_generator(self.rng, "resample draws trajectories")
        with naming(policy="base_policy"):
            self._base = model.policy_vector(None if isinstance(self.base_policy, str) else self.base_policy)
        with naming(policy="behavior_policy"):
            behavior = self._behavior(behavior_policy)
        if samples is None:
            samples = self._draw(behavior)
        rounds, policies, history = [samples], [behavior], []
        for k in range(self.resample + 1):
            dual, count = self._dual(seen, rounds, policies)
            self._solve(dual, epsilon, last=k == self.resample)
            omega = dual.weights(self.coef_)
            self.effective_sample_size_ = float(1.0 / np.sum(omega**2 / count))
            history.append((k, int(count.size), self.effective_sample_size_, self.objective_value_,
                            float(np.abs(dual.observed - omega @ dual.features).max(initial=0.0)), self.converged_))
            if k < self.resample:
                policies.append(self._planned(model).policy)
                rounds.append(self._draw(policies[-1]))
        self.samples_, self.weights_ = rounds, np.zeros(self._kept.size)
        self.weights_[self._kept] = omega
        self.observed_features_, self.expected_features_ = dual.observed, omega @ dual.features
        self.feature_names_, self.reward_ = model.feature_names, np.asarray(model.features @ self.coef_)
        names = ("round", "draws", "effective draws", "objective", "largest feature gap", "converged")
        self.history_ = Table(dict(zip(names, map(list, zip(*history)))))
        self._plan_found = None
        self._warn(dual)
        return self

    @property
    def _by_paths(self):
        return isinstance(self.base_policy, str) and self.base_policy == "paths"

    # -- draws

    def _draw(self, policy):
        return draw(self.simulator, self.model_, policy, self.n_samples, self.rng, self.horizon, self._starts)

    def _behavior(self, policy):
        mdp, given = self.model_, None if policy is None else np.asarray(policy)
        if given is not None and self.horizon is not None and given.shape == (self.horizon, mdp.n_pairs):
            return np.array([mdp.policy_vector(row) for row in given])
        return mdp.policy_vector(policy)

    def _dual(self, seen, rounds, policies):
        """The dual over all draws so far, and how often each counts; a draw of weight 0 is left out."""
        mdp = self.model_
        steps = [match_steps(mdp, drawn, self.horizon) for drawn in rounds]
        size = np.array([part.weight.sum() for part in steps])
        if not size[0] > 0:
            raise InvalidInputError(f"samples must have some weight: all {len(steps[0])} have weight 0; pass weights "
                                    "above 0, or none")
        with np.errstate(divide="ignore"):
            portion = np.log(size / size.sum())
            logs = [np.log(policy) for policy in policies]
        features, ratio = [], []
        for own, part in enumerate(steps):
            chance = np.array([_along(part, log) for log in logs])
            bad = np.isneginf(chance[own]) & (part.weight > 0)
            if bad.any():
                raise InvalidInputError(f"each sample must be possible under the policy that drew it: trip "
                                        f"{plain(part.ids[np.argmax(bad)])!r} has probability 0; pass the policy that drew "
                                        "the samples as behavior_policy")
            base = 0.0
            if not self._by_paths:
                with np.errstate(divide="ignore"):
                    base = _along(part, np.log(self._base))
            with np.errstate(divide="ignore", invalid="ignore"):
                ratio.append(np.where(part.weight > 0, np.log(part.weight) + base - logsumexp(chance.T + portion, axis=1),
                                      -np.inf))
            features.append(_trip_features(mdp, part))
        features, ratio = np.concatenate(features), np.concatenate(ratio)
        count, start = np.concatenate([p.weight for p in steps]), np.concatenate([p.start for p in steps])
        observed = np.average(_trip_features(mdp, seen), axis=0, weights=seen.weight)
        keep, group, share = np.isfinite(ratio), None, None
        if self.normalization == "start":
            begins = np.flatnonzero(self._starts > 0)
            share = self._starts[begins] / self._starts.sum()
            keep &= np.isin(start, begins)
            group = np.searchsorted(begins, start[keep])
            missing = np.bincount(group, minlength=begins.size) == 0
            if missing.any():
                raise InvalidInputError(
                    "each start of a demonstration must have samples with normalization='start': state "
                    f"{plain(mdp.state_ids[begins[np.argmax(missing)]])!r} has none; draw some there, or use 'joint'")
        if not keep.any():
            raise InvalidInputError(f"some sample must be possible under `base_policy`: none of {keep.size} is; pass "
                                    "another")
        self._kept = keep
        return ImportanceDual(features[keep], ratio[keep], observed, group, share), count[keep]

    # -- the optimum

    def _solve(self, dual, epsilon, last):
        """Sets the weights, in units of the features' spread inside; see `last` in the guided form."""
        scale = np.sqrt(np.maximum(np.mean((dual.features - dual.observed)**2, axis=0), 0.0))
        scale[scale <= 1e-12 * np.abs(dual.features).max(axis=0, initial=0.0)] = 1.0
        scaled = ImportanceDual(dual.features / scale, dual.log_ratio, dual.observed / scale, dual.group, dual.share)
        ridge, box = self.l2 / scale**2, epsilon / scale
        if self.l2 == 0 and not dual.room(epsilon) > _INSIDE:
            if last:
                raise InvalidInputError(
                    "the demonstrations' mean features must lie inside the hull of the samples', or the weights grow without "
                    f"bound: {self._outside(dual)}; draw more samples, or from a policy nearer the expert's, or pass l2= or "
                    "epsilon=")
            # a round in between needs weights to plan for, not the optimum, which does not exist
            ridge = np.full(scale.size, _RIDGE)
        self.n_iter_ = 0
        v = np.zeros(scale.size)
        if box.any():
            v = self._box(scaled, ridge, box)
            active, sign = v != 0, np.sign(v)
            self._newton(scaled, ridge, box, v, active, sign)
        else:
            self._newton(scaled, ridge, box, v, np.ones(v.size, bool), np.zeros(v.size))
        self.coef_ = v / scale
        self.objective_value_ = dual.at(self.coef_)[0] - 0.5 * self.l2 * float(self.coef_ @ self.coef_) \
            - float(epsilon @ np.abs(self.coef_))

    def _outside(self, dual):
        low, high = dual.features.min(axis=0), dual.features.max(axis=0)
        beyond = np.flatnonzero((dual.observed <= low) | (dual.observed >= high))
        if beyond.size:
            j = int(beyond[0])
            return (f"feature {self.model_.feature_names[j]!r} has mean {dual.observed[j]:.6g} in the demonstrations and "
                    f"runs from {low[j]:.6g} to {high[j]:.6g} in the samples")
        return "a combination of features is outside, though each one alone is not"

    def _newton(self, dual, ridge, box, v, active, sign):
        """Damped Newton steps on the active weights, in place; keeps their signs where there is a box."""
        def at(x):
            value, gradient, hessian = dual.at(x)
            return (value - 0.5 * ridge @ x**2 - box @ np.abs(x), gradient - ridge * x - box * sign,
                    hessian - np.diag(ridge))

        value, gradient, hessian = at(v)
        on = np.flatnonzero(active)
        gain, why = np.inf, "max_iter was reached"
        for _ in range(self.max_iter):
            # features that do not vary among the draws leave the Hessian singular, and take no step
            step = np.zeros(v.size)
            if on.size:
                step[on] = np.linalg.lstsq(-hessian[np.ix_(on, on)], gradient[on], rcond=1e-13)[0]
            gain = 0.5 * float(gradient @ step)
            if gain <= self.tol:
                break
            length = 1.0
            while length > 1e-10:
                trial = v + length * step
                if not (sign * trial < 0).any():
                    found = at(trial)
                    if found[0] >= value + 1e-4 * length * 2 * gain or (length < 1e-3 and found[0] >= value):
                        break
                length *= 0.5
            else:
                why = "no step along Newton's direction gains"
                break
            v[:] = trial
            value, gradient, hessian = found
            self.n_iter_ += 1
        left = np.where(active, np.abs(gradient), np.maximum(np.abs(dual.at(v)[1]) - box, 0.0)).max(initial=0.0)
        self.converged_ = bool(gain <= self.tol and (not box.any() or left <= np.sqrt(self.tol)))
        self.message_ = f"converged: at most {max(gain, 0.0):.2g} can be gained" if self.converged_ else \
            f"{why}; {max(gain, 0.0):.2g} may be gained, the largest violation is {left:.2g}"

    def _box(self, dual, ridge, box):
        """The L1-penalised optimum as one with bounds, w = p − q with p, q ≥ 0."""
        k = box.size

        def loss(x):
            w = x[:k] - x[k:]
            value, gradient, _ = dual.at(w)
            slope = gradient - ridge * w
            return (-value + 0.5 * ridge @ w**2 + box @ (x[:k] + x[k:]), np.concatenate([box - slope, box + slope]))

        found = optimize.minimize(loss, np.zeros(2 * k), jac=True, method="L-BFGS-B", bounds=[(0, None)] * (2 * k),
                                  options={"maxiter": 10 * self.max_iter, "ftol": 1e-15, "gtol": 0.1 * np.sqrt(self.tol)})
        self.n_iter_ = int(found.nit)
        return found.x[:k] - found.x[k:]

    def _warn(self, dual):
        if not self.converged_:
            warn(f"the fit did not converge: {self.message_}; raise max_iter, or pass l2", ConvergenceWarning)
        wanted = self.min_effective_samples
        wanted = max(30, 10 * dual.observed.size) if wanted is None else wanted
        if self.effective_sample_size_ < wanted:
            warn(f"the weights rest on {self.effective_sample_size_:.1f} effective samples of "
                 f"{len(dual.features)}, asked were {wanted:g}: few draws are like the demonstrations; draw more, "
                 "from a policy nearer the expert's, or use resample=", IdentificationWarning)

    # -- planning

    def _planned(self, model):
        reference = None
        if not self._by_paths:
            reference = model.policy_vector(None if isinstance(self.base_policy, str) else self.base_policy)
        return soft_value_iteration(model, np.asarray(model.features @ self.coef_), "pair", reference_policy=reference,
                                    horizon=self.horizon)

    def plan(self, model=None):
        """Soft values and policy of the learned reward, in the fitted model or in another one.

        Parameters
        ----------
        model : MDP with the same features; None for the fitted one. Pass the true dynamics, or better estimates, here

        Returns
        -------
        PlanningResult

        Raises
        ------
        InvalidInputError : a model without these features; NotFittedError
        DivergenceError : at discount 1 without a horizon, rewards under which staying costs nothing
        """
        self._require_fit()
        model = self.model_ if model is None else model
        if not isinstance(model, MDP) or model.features is None or model.n_features != self.coef_.size:
            raise InvalidInputError(f"`model` must be an MDP with the {self.coef_.size} features that were fitted: got "
                                    f"{type(model).__name__}; use mdp.with_features(X, names)")
        return self._planned(model)

    @property
    def _policy(self):
        # only when asked for: where the tensor is made up, or nothing ends, the weights are still of use
        if self._plan_found is None:
            self._plan_found = self._planned(self.model_).policy
        return self._plan_found


def _along(steps, log):
    """(n_trips,) sums over the choices of each trip, of (n_pairs,) or (horizon, n_pairs) logs."""
    each = log[steps.pair] if log.ndim == 1 else log[steps.time, steps.pair]
    return np.bincount(steps.trip, each, minlength=len(steps))


def _trip_features(mdp, steps):
    """(n_trips, k) Σ γ^t x."""
    often = sparse.csr_array((mdp.discount**steps.time.astype(float), (steps.trip, steps.pair)),
                             shape=(len(steps), mdp.n_pairs))
    found = often @ mdp.features
    return found.toarray() if sparse.issparse(found) else found


def require_generator(rng, why):
    """The generator, or an error that says what it is needed for."""
    if not isinstance(rng, np.random.Generator):
        raise InvalidInputError(f"`rng` must be a numpy.random.Generator where {why}: got {type(rng).__name__}; pass "
                                "numpy.random.default_rng(seed)")
    return rng


def require_callable(name, value):
    if value is not None and not callable(value):
        raise InvalidInputError(f"`{name}` must be callable as {name}(policy, n, rng) -> Trajectories: got "
                                f"{type(value).__name__}; pass a function, or None to draw on the model")
    return value


def draw(simulator, model, policy, n, rng, horizon, starts):
    """Trajectories of a policy, by the user's simulator or on the model."""
    if simulator is None:
        return sample_trajectories(model, policy, n, rng, horizon=horizon, initial_distribution=starts / starts.sum())
    drawn = simulator(policy, n, rng)
    if not isinstance(drawn, Trajectories) or not len(drawn):
        raise InvalidInputError(f"`simulator` must return Trajectories: it returned {type(drawn).__name__}, of "
                                f"{len(drawn) if isinstance(drawn, Trajectories) else 0} trips; build them with "
                                "Trajectories.from_sequences")
    return drawn
