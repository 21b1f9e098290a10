"""Behaviour cloning: the policy as a table of counts, or as a conditional logit on features of the actions at hand."""


import numpy as np
from scipy import optimize, sparse

from ._validation import float_matrix, one_of, positive_number, warn, whole_number
from .exceptions import ConvergenceWarning, InvalidInputError
from .learner import Learner
from .mdp import MDP

__all__ = ["BehaviorCloning"]

METHODS = ("counts", "logit")


class BehaviorCloning(Learner):
    r"""Supervised learning of state → action (Pomerleau 1989): no dynamics, no reward, no planning.

    ``"counts"`` is a table, :math:`\pi(a \mid s) = (n(s, a) + \alpha) / (n(s) + \alpha A_s)` with the smoothing α and the number
    of actions :math:`A_s`. ``"logit"`` is the conditional logit of McFadden (1974) on features of the available actions,

    .. math:: \pi(a \mid s) = \exp(\theta^\top x(s, a)) / \sum_b \exp(\theta^\top x(s, b)),

    the maximum of the concave :math:`\sum w \log \pi(a_t \mid s_t) - l2 / 2 \; |\theta|^2` by Newton steps with the exact
    Hessian.

    Parameters
    ----------
    method : "counts" or "logit"
    smoothing : α, at least 0 (counts). With 0 the table is the maximum of the likelihood; states that no demonstration acts in
        stay uniform, and a choice never seen in a state that was seen has probability 0
    l2 : penalty, at least 0 (logit)
    features_of : callable destination label -> (n_arcs, k') array, on a road network with "logit": columns that depend on where a
        traveller goes, e.g. how much nearer an arc brings him; they come after the network's own
    feature_names_of : k' names for these columns
    max_iter : limit of Newton steps

    Attributes
    ----------
    counts_ : (n_pairs,) or (n_arcs,) weighted counts of the choices
    coef_, feature_names_ : of the logit
    log_likelihood_ : float, Σ w log π of the choices
    converged_, message_, n_iter_ : of the logit; counts are always converged

    Raises
    ------
    InvalidInputError : a wrong argument; a logit without features

    Notes
    -----
    It knows nothing of what its choices lead to: where its own mistakes lead off the demonstrations it is a guess (Ross and
    Bagnell 2010). On a road network counts do not know the destination; a trip ends when it first arrives, and arcs out of
    its destination have probability 0. Where a combination of features separates the choices from the others there is no
    maximum: an error that says so, unless l2 > 0.

    References
    ----------
    Pomerleau (1989), ALVINN, NIPS; McFadden (1974), Conditional logit analysis of qualitative choice behavior.
    """

    def __init__(self, method="counts", smoothing=1.0, *, l2=0.0, features_of=None, feature_names_of=None, max_iter=100):
        self.method = one_of("method", method, METHODS)
        self.smoothing = positive_number("smoothing", smoothing, strict=False)
        self.l2 = positive_number("l2", l2, strict=False)
        if features_of is not None and not callable(features_of):
            raise InvalidInputError("`features_of` must be a callable of a destination's label: got "
                                    f"{type(features_of).__name__}; put features that are the same for all into the network")
        if features_of is not None and method == "counts":
            raise InvalidInputError("`features_of` goes with method='logit': counts have no features; leave it out")
        self.features_of, self.feature_names_of = features_of, feature_names_of
        self.max_iter = whole_number("max_iter", max_iter, lower=1)

    def __repr__(self):
        what = f"smoothing={self.smoothing:g}" if self.method == "counts" else f"l2={self.l2:g}"
        return f"BehaviorCloning({self.method!r}, {what})"

    def fit(self, model, trajectories):
        """Learn from demonstrations.

        Parameters
        ----------
        model : MDP or RoadNetwork; of its dynamics only which action exists is used
        trajectories : Trajectories

        Returns
        -------
        self

        Raises
        ------
        InvalidInputError : another kind of model, no features for a logit, or choices that features separate
        InvalidTripError : a trajectory that the model cannot make

        Warns
        -----
        ConvergenceWarning : max_iter was reached
        """
        seen = self._observe(model, trajectories)
        road = not isinstance(model, MDP)
        if road:
            choice, weight = seen.arc, np.repeat(seen.weight, seen.n_steps)
            target = np.repeat(seen.destination, seen.n_steps)
            size = model.n_arcs
        else:
            choice, weight, target, size = seen.pair, seen.weight[seen.trip], None, model.n_pairs
            if self.features_of is not None:
                raise InvalidInputError("`features_of` goes with road networks: got one on an MDP; leave it out")
        self.counts_ = np.bincount(choice, weight, minlength=size)
        if self.method == "logit":
            self._fit_logit(model, choice, weight, target)
        else:
            self.converged_, self.message_, self.n_iter_ = True, "counts are exact", 0
            if not road:
                self._policy = self._table(self.counts_, model.pair_state, model.n_states)
        if road:
            log = np.empty(choice.size)
            for end in np.unique(target):
                part = target == end
                with np.errstate(divide="ignore"):
                    log[part] = np.log(self._chances_of(int(end))[choice[part]])
        else:
            with np.errstate(divide="ignore"):
                log = np.log(self._policy[choice])
        counted = weight > 0
        self.log_likelihood_ = float(weight[counted] @ log[counted])
        if not self.converged_:
            warn(f"the fit did not converge: {self.message_}; raise max_iter", ConvergenceWarning)
        return self

    def _table(self, counts, state, n_states, possible=None):
        """Smoothed shares of the choices of each state, of those that are possible; uniform where nothing was seen."""
        possible = np.ones(state.size) if possible is None else possible.astype(float)
        mass = (counts + self.smoothing) * possible
        total = np.bincount(state, mass, minlength=n_states)[state]
        number = np.bincount(state, possible, minlength=n_states)[state]
        return np.divide(mass, total, out=np.divide(possible, number, out=np.zeros(state.size), where=number > 0),
                         where=total > 0)

    # -- logit

    def _fit_logit(self, model, choice, weight, target):
        if getattr(model, "features", None) is None:
            raise InvalidInputError("a logit needs features of the actions: the model has none; pass them with "
                                    "with_features(X, names), or use method='counts'")
        if callable(model.features):
            raise InvalidInputError("the network's features must be an array here: they are a callable; pass features_of=")
        road = target is not None
        state = model.tail if road else model.pair_state
        self.feature_names_ = tuple(model.feature_names)
        # one choice set for each state that was acted in; with features of the destination one for each state and destination
        key = state[choice].astype(np.int64) if self.features_of is None and not road else (
            state[choice].astype(np.int64) * model.n_states + target)
        sets, of = np.unique(key, return_inverse=True)
        of = of.reshape(-1)
        rows, owner = _rows_of(model, sets, road)
        order = np.lexsort((rows, owner))
        rows, owner = rows[order], owner[order]
        position = np.searchsorted(owner.astype(np.int64) * (len(state) + 1) + rows,
                                   of.astype(np.int64) * (len(state) + 1) + choice)
        features = self._features_of_rows(model, rows, owner, sets, road)
        chosen = np.bincount(position, weight, minlength=rows.size)
        total = np.bincount(of, weight, minlength=sets.size)
        first = np.concatenate([[0], np.flatnonzero(np.diff(owner)) + 1]) if rows.size else np.zeros(0, int)
        problem = _Logit(features, owner, first, chosen, total, self.l2)
        self.coef_, self.converged_, self.message_, self.n_iter_ = problem.solve(self.max_iter)
        self._information = problem.hessian(self.coef_)
        if not road:
            utility = np.asarray(model.features @ self.coef_)
            self._policy = _softmax(utility, model.pair_state, model.pair_ptr)

    def _features_of_rows(self, model, rows, owner, sets, road):
        own = model.features[rows]
        if self.features_of is None:
            return own
        ends = sets % model.n_states
        k = None
        for end in np.unique(ends):
            part = np.flatnonzero(ends[owner] == end)
            more = float_matrix("features_of(destination)", self.features_of(_label(model, end)), model.n_arcs)[rows[part]]
            if k is None:
                k = more.shape[1]
                extra = np.empty((rows.size, k))
            elif more.shape[1] != k:
                raise InvalidInputError(f"`features_of` must give as many columns for each destination: {more.shape[1]} for "
                                        f"{_label(model, end)!r}, {k} before; mend the callable")
            extra[part] = more
        names = tuple(f"d{j}" for j in range(k)) if self.feature_names_of is None else tuple(self.feature_names_of)
        if len(names) != k:
            raise InvalidInputError(f"`feature_names_of` must name the columns of features_of: {len(names)} names for {k} "
                                    "columns; pass one for each")
        self.feature_names_ = (*self.feature_names_, *names)
        return np.column_stack([own, extra])

    def _chances(self, destination):
        net = self.model_
        # what leaves the destination is no choice of anyone who goes there
        possible = net.tail != destination
        if self.method == "counts":
            return self._table(self.counts_, net.tail, net.n_states, possible)
        features = net.features
        if self.features_of is not None:
            features = np.column_stack([features, float_matrix("features_of(destination)", self.features_of(
                _label(net, destination)), net.n_arcs)])
        utility = np.asarray(features @ self.coef_)
        found = np.zeros(net.n_arcs)
        order = np.argsort(net.tail, kind="stable")
        ptr = np.concatenate([[0], np.cumsum(np.bincount(net.tail, minlength=net.n_states))])
        found[order] = _softmax(utility[order], net.tail[order], ptr)
        found[~possible] = 0.0
        return found

    def standard_errors(self):
        """(k,) of the logit: roots of the diagonal of the inverse Hessian; infinite for a weight that the choices do not
        identify.

        Raises
        ------
        InvalidInputError : the method is "counts"
        NotFittedError
        """
        self._require_fit()
        if self.method != "logit":
            raise InvalidInputError("standard errors are those of weights: a table of counts has none; use method='logit'")
        values, vectors = np.linalg.eigh(self._information)
        flat = values <= 1e-12 * max(values.max(initial=0.0), 1e-300)
        with np.errstate(divide="ignore"):
            variance = ((vectors**2)[:, ~flat] / values[~flat]).sum(axis=1)
        variance[(np.abs(vectors[:, flat]) > 1e-6).any(axis=1)] = np.inf
        return np.sqrt(variance)


def _label(model, state):
    label = model.state_ids[state]
    return label.item() if isinstance(label, np.generic) else label


def _rows_of(model, sets, road):
    """(rows, owner): the choices of each set, pairs of its state or arcs out of it."""
    if not road:
        begin, end = model.pair_ptr[sets], model.pair_ptr[sets + 1]
        number = end - begin
        owner = np.repeat(np.arange(sets.size), number)
        return np.arange(number.sum()) - np.repeat(np.cumsum(number) - number, number) + np.repeat(begin, number), owner
    topology = model._topology
    state = sets // model.n_states
    begin, end = topology.indptr[state].astype(np.int64), topology.indptr[state + 1].astype(np.int64)
    number = end - begin
    owner = np.repeat(np.arange(sets.size), number)
    at = np.arange(number.sum()) - np.repeat(np.cumsum(number) - number, number) + np.repeat(begin, number)
    return topology.arc[at].astype(np.int64), owner


def _softmax(utility, state, ptr):
    top = np.full(ptr.size - 1, -np.inf)
    np.maximum.at(top, state, utility)
    share = np.exp(utility - top[state])
    return share / np.bincount(state, share, minlength=ptr.size - 1)[state]


class _Logit:
    """−Σ w log π and derivatives over choice sets, rows sorted by set."""

    def __init__(self, features, owner, first, chosen, total, l2):
        self.features, self.owner, self.first, self.chosen, self.total, self.l2 = features, owner, first, chosen, total, l2

    def _chances(self, theta):
        utility = np.asarray(self.features @ theta)
        top = np.maximum.reduceat(utility, self.first)
        share = np.exp(utility - top[self.owner])
        mass = np.add.reduceat(share, self.first)
        return utility, top + np.log(mass), share / mass[self.owner]

    def value(self, theta):
        utility, log, _ = self._chances(theta)
        return float(self.total @ log - self.chosen @ utility + 0.5 * self.l2 * theta @ theta)

    def gradient(self, theta):
        chances = self._chances(theta)[2]
        return np.asarray(self.features.T @ (self.total[self.owner] * chances - self.chosen)) + self.l2 * theta

    def hessian(self, theta):
        chances = self._chances(theta)[2]
        weight = self.total[self.owner] * chances
        x = self.features
        rows = sparse.csr_array((chances, (self.owner, np.arange(self.owner.size))), shape=(self.first.size, self.owner.size))
        mean = rows @ x
        if sparse.issparse(x):
            second = ((x.T @ (x.multiply(weight[:, None])).tocsr()).toarray()
                      - (mean.T @ mean.multiply(self.total[:, None]).tocsr()).toarray())
        else:
            second = x.T @ (x * weight[:, None]) - mean.T @ (mean * self.total[:, None])
        return second + self.l2 * np.eye(x.shape[1])

    def solve(self, max_iter):
        """(θ, converged, message, iterations)."""
        k = self.features.shape[1]
        if self.l2 == 0.0:
            self._refuse_separation()
        found = optimize.minimize(self.value, np.zeros(k), jac=self.gradient, hess=self.hessian, method="trust-exact",
                                  options={"maxiter": max_iter, "gtol": 1e-9 * max(1.0, float(self.total.sum()))})
        slope = float(np.abs(self.gradient(found.x)).max(initial=0.0))
        limit = 1e-7 * max(1.0, float(self.total.sum()))
        message = f"the largest slope left is {slope:.1e} (at most {limit:.1e} is converged)"
        return (found.x, bool(slope <= limit), message + ("" if slope <= limit else f"; max_iter={max_iter} reached"),
                int(found.nit))

    def _refuse_separation(self):
        """A maximum exists unless some v has v'(x_chosen − x_other) ≥ 0 for all, and > 0 for one (Albert and Anderson 1984)."""
        taken = np.flatnonzero(self.chosen > 0)
        number = np.bincount(self.owner, minlength=self.first.size)
        # each chosen row against all rows of its set
        many = number[self.owner[taken]]
        a = np.repeat(taken, many)
        b = np.arange(many.sum()) - np.repeat(np.cumsum(many) - many, many) + np.repeat(self.first[self.owner[taken]], many)
        x = self.features
        apart = x[a[a != b]] - x[b[a != b]]
        if not apart.shape[0]:
            return
        if not sparse.issparse(apart):
            apart = np.unique(apart, axis=0)
        scale = np.sqrt(np.asarray((apart.multiply(apart) if sparse.issparse(apart) else apart**2).sum(axis=0)).ravel())
        scale[scale == 0] = 1.0
        apart = apart @ sparse.diags_array(1.0 / scale) if sparse.issparse(apart) else apart / scale
        gain = np.asarray(apart.sum(axis=0)).ravel()
        result = optimize.linprog(-gain, A_ub=-apart, b_ub=np.zeros(apart.shape[0]), bounds=(-1, 1), method="highs")
        if result.status == 0 and -result.fun > 1e-7 * max(1.0, np.abs(gain).max()):
            worst = int(np.argmax(np.abs(result.x)))
            raise InvalidInputError("choices must not be separated by their features: some combination of them, feature "
                                    f"{worst} among them, is never smaller for what was chosen than for what was not, so that "
                                    "larger weights always fit better; pass l2 > 0, leave the feature out, or gather more "
                                    "choices")
