r"""Direct preference optimisation in tables: a policy from comparisons, without a reward model in between.

With H(τ) = Σ_t log π(a_t | s_t) / π_ref(a_t | s_t) along what was compared, h = H(τ¹) − H(τ²), and μ the label

    sigmoid   −μ log σ(βh) − (1 − μ) log σ(−βh) = log(1 + e^{βh}) − μ βh
    ipo       μ (h − 1/2β)² + (1 − μ)(h + 1/2β)²

(Rafailov et al. 2023, equation 7; Azar et al. 2023). Both variants for noisy labels put another number in the
place of μ, so that all of them are convex in h. A ranking is a sequence of choices of the best among those that are left, each

    log Σ_j e^{βH_j} − βH_best = log(1 + Σ_j≠best e^{−β(H_best − H_j)})

(their appendix A.3), convex in the differences: a comparison is a choice among two.
"""

import numpy as np
from scipy import optimize, sparse
from scipy.sparse import csgraph, linalg

from ._validation import LabelIndex, label_vector, naming, one_of, positive_number, shown, warn, whole_number
from .comparisons import Comparisons
from .exceptions import ConvergenceWarning, InvalidInputError, NoFiniteOptimumError
from .learner import Learner
from .mdp import MDP
from .process_likelihood import match_steps
from .rankings import Rankings
from .tables import Table
from .trajectories import Trajectories

__all__ = ["DPO"]

LOSSES = ("sigmoid", "ipo")
SMOOTHINGS = ("conservative", "robust")

_RUNAWAY = 60.0  # βh beyond which no label of any data still pulls back
_STILL = 1e-6  # what the next step may still move βh by
_STRIDE = 10.0  # the longest change of a logit in one step, or of β times it
_DENSE = 400  # slots up to which the curvature at the end is looked at


class DPO(Learner):
    r"""A policy whose log ratios to a reference explain comparisons (direct preference optimisation, Rafailov et al. 2023).

    .. math:: \min_\pi \sum_n w_n\, \ell(\mu_n, h_n), \qquad
              h_n = \sum_{t \in \tau^1_n} \log \frac{\pi(a_t | s_t)}{\pi_{ref}(a_t | s_t)}
                  - \sum_{t \in \tau^2_n} \log \frac{\pi(a_t | s_t)}{\pi_{ref}(a_t | s_t)}

    with :math:`\ell = -\mu \log \sigma(\beta h) - (1 - \mu) \log \sigma(-\beta h)` ("sigmoid") or
    :math:`\mu (h - 1/2\beta)^2 + (1 - \mu)(h + 1/2\beta)^2` ("ipo"). What is compared are choices in one state (answers to a
    prompt) or whole trajectories. A ranking adds
    :math:`-\sum_k \log [e^{\beta H(\tau^k)} / \sum_{j \ge k} e^{\beta H(\tau^j)}]`, H the sum of log ratios, the best first.

    Parameters
    ----------
    beta : float above 0, the temperature of the KL term that the loss stands for, in units of the reward
    reference : any form that :meth:`MDP.policy_vector` takes; None for the uniform policy
    loss : "sigmoid" or "ipo"
    label_smoothing : ε in [0, ½), the share of labels believed to be flipped; sigmoid only
    smoothing : what ε means
        "conservative" fits labels (1 − ε) μ + ε (1 − μ), so that log ratios stay bounded (cDPO). "robust" fits
        (μ − ε) / (1 − 2ε), the loss whose mean over flipped labels is the loss of the true ones (Chowdhury et al. 2024).
    tol : float, asked of `slope_`
    max_iter : int, limit of Newton steps

    Attributes
    ----------
    implicit_reward_ : (n_pairs,) β log π / π_ref, 0 for choices that were never compared where their state's mass is kept
    loss_ : float, mean loss of a comparison or ranking
    slope_ : float, the largest derivative of the loss, per weight of the comparisons that it belongs to: in the log ratio of a
        choice (convex problems), or in the logits of a state
    decrement_ : float, of the loss sum at the end; nan for trajectories
    last_move_ : float, what the next Newton step would move a margin βh by, at most 1e-6 where converged; nan for trajectories
    convex_ : bool, True where all comparisons and rankings are of choices in one state each: then the answer is the global
        optimum. Otherwise it is a stationary point that is reached from the reference
    least_curvature_ : float, smallest eigenvalue of the Hessian in the logits: not below 0 (up to rounding) at a local minimum;
        nan where it was not computed (convex, or more than 400 logits)
    component_ : (n_pairs,) int, which choices are linked by comparisons, −1 where never compared; None for trajectories
    converged_, n_iter_, message_ : of the fit

    Raises
    ------
    InvalidInputError : a wrong argument

    Notes
    -----
    *Choices.* In β log π / π_ref the sigmoid loss is Bradley-Terry, that of rankings Plackett-Luce. On infinite data from
    rewards r the policy is :math:`\pi \propto \pi_{ref} \exp(r / \beta)` among linked choices. The loss depends on log ratios
    within a component only. How much of a state's mass each component gets is our convention: as much as in the reference.
    Choices never compared keep theirs. Of all minimisers this is the one nearest to the reference in
    :math:`KL(\pi_{ref} \| \pi)`.

    *Trajectories.* One logit a choice that was compared; choices of a visited state that no compared trajectory takes keep
    their proportions, states that none visits keep the reference. Not convex in the logits. Under deterministic dynamics at
    discount 1, compared trajectories starting alike, its minimum is that of a free reward for each pair, and on infinite data
    the policy is that of planning with a KL penalty; under stochastic dynamics the loss takes luck for choice. A minimum may
    lie at the edge, where a choice has probability 0: `message_` says so.

    *No finite optimum.* Where a choice wins all its comparisons (or loses them all) the sigmoid loss falls for ever, and the
    fit is an error that names choices, not a policy at an arbitrary iteration. On choices "conservative" smoothing and "ipo"
    always have one. The "robust" loss falls without any bound where labels are more one-sided than ε allows.

    It learns no reward for other states or other dynamics: see the learners of rewards, and
    ``soft_value_iteration(..., reference_policy=...)`` for the optimum that reinforcement learning with a KL penalty aims at.

    References
    ----------
    Rafailov et al. (2023), Direct preference optimization, equation 7 and appendix A.3; Azar et al. (2023), A general
    theoretical paradigm to understand learning from human preferences; Chowdhury, Kini, Natarajan (2024), Provably robust DPO.

    Examples
    --------
    >>> mdp = MDP.one_step([("joke", "pun"), ("joke", "riddle"), ("joke", "story")])
    >>> asked = Comparisons.from_pairs([("joke", "pun")], [("joke", "riddle")], [0.75])
    >>> DPO(beta=0.5).fit(mdp, None, asked).policy().round(3)
    array([0.6  , 0.067, 0.333])
    """

    models = (MDP,)

    def __init__(self, beta=1.0, reference=None, *, loss="sigmoid", label_smoothing=0.0, smoothing="conservative", tol=1e-9,
                 max_iter=500):
        self.beta = positive_number("beta", beta)
        self.reference = reference
        self.loss = one_of("loss", loss, LOSSES)
        self.label_smoothing = positive_number("label_smoothing", label_smoothing, strict=False)
        if self.label_smoothing >= 0.5:
            raise InvalidInputError(f"`label_smoothing` must lie below 0.5: got {self.label_smoothing:g}; at a half labels say "
                                    "nothing, and beyond it turn the outcomes round")
        self.smoothing = one_of("smoothing", smoothing, SMOOTHINGS)
        if self.loss == "ipo" and self.label_smoothing:
            raise InvalidInputError(f"`label_smoothing` goes with loss='sigmoid': got {self.label_smoothing:g} with 'ipo', whose "
                                    "optimum is finite without; leave it out")
        self.tol = positive_number("tol", tol)
        self.max_iter = whole_number("max_iter", max_iter, lower=1)

    def __repr__(self):
        smoothing = f", label_smoothing={self.label_smoothing:g}, smoothing={self.smoothing!r}" if self.label_smoothing else ""
        return f"DPO(beta={self.beta:g}, loss={self.loss!r}{smoothing})"

    def fit(self, model, choices, comparisons=None, *, rankings=None):
        """Learn from comparisons of two, from rankings of several, or from both.

        Parameters
        ----------
        model : MDP; of its dynamics only what is possible is used
        choices : what the labels of the comparisons and rankings mean
            Trajectories, whose ids are the labels; a mapping from label to (state, action), labels of the model; or None where
            the labels are such tuples themselves.
        comparisons : Comparisons; ties and soft labels count as labels between 0 and 1
        rankings : Rankings without ties, or a sequence of sequences of labels, the best first; loss="sigmoid" only, without
            label_smoothing. Items below lost to those that are ranked: a choice of the best answer is a ranking of one

        Returns
        -------
        self

        Raises
        ------
        NoFiniteOptimumError : the loss has no minimum; it names what wins or loses all comparisons
        InvalidInputError : a label that means nothing, a choice to which the reference gives 0
        InvalidTripError : a trajectory that the model cannot make

        Warns
        -----
        ConvergenceWarning : `tol` was not met
        """
        if not isinstance(model, MDP):
            raise InvalidInputError(f"`model` must be an MDP: got {type(model).__name__}; for routes learn a reward")
        with naming(policy="reference"):
            reference = model.policy_vector(self.reference)
        labels, first, second, loss, asked = self._asked(comparisons, self._checked(rankings))
        items, start = _resolve(model, choices, labels)
        _refuse_impossible(model, reference, items, labels)
        self._starts = np.bincount(start, asked, model.n_states)
        self.model_, self._cache = model, {}
        self._table = labels, *_by_pair(first, second, loss, len(labels))
        single = np.diff(items.indptr) == 1
        state = model.pair_state[items.indices[items.indptr[:-1]]] if single.all() else None
        self.convex_ = bool(single.all() and (items.data == 1).all() and (state[first] == state[second]).all())
        solve = self._fit_choices if self.convex_ else self._fit_trajectories
        log_ratio, note = solve(model, reference, items, first, second, loss, labels)
        with np.errstate(divide="ignore"):
            self._policy = np.where(reference > 0, reference * np.exp(log_ratio), 0.0)
        self.implicit_reward_ = self.beta * log_ratio
        self._height = items @ log_ratio
        self.loss_ = float(loss.value(self._height[first] - self._height[second]) / loss.total)
        self.converged_ = bool(self.slope_ <= self.tol and not self.last_move_ > _STILL)
        self.message_ = f"the largest slope left is {self.slope_:.1e} (at most {self.tol:.1e} is converged){note}"
        if self.last_move_ > _STILL:
            self.message_ += f"; the next step would still move a margin by {self.last_move_:.1e}"
        if not self.converged_:
            warn(f"the fit did not converge: {self.message_}; raise max_iter or tol", ConvergenceWarning)
        return self

    def _checked(self, rankings):
        """Rankings without ties, of a loss that has a meaning for them; None where there are none."""
        if rankings is None:
            return None
        if self.loss == "ipo" or self.label_smoothing:
            name = "loss" if self.loss == "ipo" else "label_smoothing"
            raise InvalidInputError(f"`rankings` go with loss='sigmoid' without label_smoothing: got "
                                    f"{name}={getattr(self, name)!r}; pass the pairs of each ranking as comparisons")
        if not isinstance(rankings, Rankings):
            rankings = _read_rankings(rankings)
        if rankings.has_ties:
            raise InvalidInputError("`rankings` must have no ties: these have; say it by comparisons with outcome 0.5")
        return rankings

    def _asked(self, comparisons, rankings):
        """(labels, first, second, loss of the rows H_first − H_second, weight with which each label was asked about)."""
        parts, known = [], []
        if comparisons is not None:
            if not isinstance(comparisons, Comparisons):
                raise InvalidInputError(f"`comparisons` must be Comparisons: got {type(comparisons).__name__}; build them with "
                                        "Comparisons.from_pairs, or pass rankings=")
            counts = comparisons.pairs()
            if len(counts):
                weight = counts.weight
                target, rest = self._target(counts.wins_first / weight, counts.wins_second / weight)
                loss = _Loss(self.loss, self.beta, weight, target, rest, counts.wins_first / weight)
                parts.append((counts.first, counts.second, loss, np.append(counts.first, counts.second), np.tile(weight, 2)))
                known.append(comparisons.labels)
        if rankings is not None:
            first, second, stage, weight, counted = _stages(rankings)
            if first.size:
                parts.append((first, second, _Stages(self.beta, weight, stage, float(counted.sum())), rankings.item,
                              np.repeat(counted, np.diff(rankings.offsets))))
                known.append(rankings.labels)
        if not parts:
            raise InvalidInputError("comparisons must have some weight: there is none; pass at least one of weight above 0, or a "
                                    "ranking of two or more")
        labels, places = (known[0], [np.arange(len(known[0]))]) if len(parts) == 1 else _joined(*known)
        first, second, item = (np.concatenate([place[part[at]] for part, place in zip(parts, places)]) for at in (0, 1, 3))
        asked = np.bincount(item, np.concatenate([part[4] for part in parts]), len(labels))
        used, row = np.flatnonzero(asked > 0), np.cumsum(asked > 0) - 1
        first, second = row[first], row[second]
        loss = parts[0][2] if len(parts) == 1 else _Sum([part[2] for part in parts])
        if loss.grouped.any():
            loss.look_across(first, second, used.size)
        return labels[used], first, second, loss, asked[used]

    def _target(self, share, other):
        """What stands in the place of μ and of 1 − μ, which near 1 would lose its digits."""
        noise = self.label_smoothing
        if self.smoothing == "robust":
            return (share - noise) / (1 - 2 * noise), (other - noise) / (1 - 2 * noise)
        return (1 - noise) * share + noise * other, (1 - noise) * other + noise * share

    def summary(self):
        """Table of the compared pairs: weight, share of the first among the labels, σ(βh) of the fit, and βh.

        Of a ranking every pair counts whose order it tells.

        Raises
        ------
        NotFittedError
        """
        self._require_fit()
        labels, first, second, weight, share = self._table
        names = [shown(label) if not isinstance(label, str) else label for label in labels.tolist()]
        margin = self.beta * (self._height[first] - self._height[second])
        return Table({
            "first": [names[i] for i in first], "second": [names[j] for j in second], "weight": weight, "preferred": share,
            "fitted": 1 / (1 + np.exp(-np.clip(margin, -700, 700))), "margin": margin,
        }, title=f"{self!r}, loss {self.loss_:.4f}" + ("" if self.converged_ else ", not converged"),
            formats={"weight": ".4g", "preferred": ".3f", "fitted": ".3f", "margin": ".3f"})

    # -- choices in one state: convex

    def _fit_choices(self, model, reference, items, first, second, loss, labels):
        """Newton steps on the log ratios of linked choices; the mass of each component stays."""
        pairs, of = np.unique(items.indices, return_inverse=True)
        i, j = of.reshape(-1)[first], of.reshape(-1)[second]
        apart = (i != j) | loss.grouped
        loss = loss.part(apart)
        i, j = i[apart], j[apart]
        graph = sparse.coo_array((np.ones(i.size), (i, j)), (pairs.size,) * 2)
        n, component = csgraph.connected_components(graph, directed=False)
        loss.refuse_no_optimum(i, j, component, n, [labels[k] for k in np.unique(of.reshape(-1), return_index=True)[1]])
        h, self.slope_, self.decrement_, self.last_move_, self.n_iter_ = _newton(loss, i, j, component, pairs.size, self.max_iter)
        self.least_curvature_ = float("nan")
        self.component_ = np.full(model.n_pairs, -1)
        self.component_[pairs] = component
        # π ∝ π_ref e^h in each component, which keeps its mass
        top = np.full(n, -np.inf)
        np.maximum.at(top, component, h)
        mass = np.bincount(component, reference[pairs] * np.exp(h - top[component]), n)
        kept = np.bincount(component, reference[pairs], n)
        log_ratio = np.zeros(model.n_pairs)
        log_ratio[pairs] = h - top[component] + np.log(kept / mass)[component]
        return log_ratio, ""

    # -- trajectories: a softmax in each state

    def _fit_trajectories(self, model, reference, items, first, second, loss, labels):
        slots = _Slots(model, reference, items)
        apart = _differences(first, second, items.shape[0])
        problem = _Softmax(slots, apart @ slots.items, loss)
        per_slot = np.maximum(problem.weight_of_state()[slots.state], 1e-300)
        z, self.n_iter_ = problem.solve(self.tol, per_slot, self.max_iter)
        margin = self.beta * problem.margin(z)
        self.slope_ = float(np.max(np.abs(problem.gradient(z)) / per_slot, initial=0.0))
        # at a finite optimum a label that is met to 1e-6 has another that pulls the other way
        sure = problem.met(z, _RUNAWAY / 4 if self.slope_ <= self.tol else _RUNAWAY / 8)
        if sure.any():
            at = int(np.argmax(np.where(sure, np.abs(margin), 0.0)))
            a, b = (first, second) if margin[at] > 0 else (second, first)
            raise NoFiniteOptimumError(
                f"the loss must have a minimum: it falls for ever as the log ratios of {shown(labels[a[at]])} and "
                f"{shown(labels[b[at]])} part, since no label speaks for the second; "
                f"{loss.way_out}", items=(labels[a[at]],))
        self.decrement_ = self.last_move_ = float("nan")
        self.component_ = None
        self.least_curvature_ = float("nan")
        if slots.size <= _DENSE:
            self.least_curvature_ = float(np.linalg.eigvalsh(problem.hessian(z) / loss.weight.sum()).min(initial=0.0))
        # a state whose loss still falls with its whole mass while a choice has next to none: the minimum is where it has none
        log = z - slots.log_mass(z)
        falling = np.abs(slots.sums(problem.apart.T @ loss.slope(problem.margin(z)))) > 1e-6 * per_slot
        edge = int(np.count_nonzero(falling & (log < -18.0)))
        note = f"; {edge} choices go to probability 0: the minimum lies at the edge of what policies can be" if edge else ""
        return slots.spread(log), note


# -- what is compared


def _resolve(model, choices, labels):
    """(items × pairs counts, (n_items,) first states) of what the labels mean."""
    if isinstance(choices, Trajectories):
        where = LabelIndex(choices.ids, "trajectory").find(labels)
        if (where < 0).any():
            bad = labels[int(np.argmax(where < 0))]
            raise InvalidInputError(f"each compared label must be the id of a trajectory: {shown(bad)} is none; "
                                    "see trajectories.ids")
        steps = match_steps(model, choices[where])
        if steps.pair.size == 0:
            raise InvalidInputError(f"compared trajectories must choose something: none of the {len(steps)} has a step; "
                                    "pass actions")
        items = sparse.coo_array((np.ones(steps.pair.size), (steps.trip, steps.pair)), (labels.size, model.n_pairs)).tocsr()
        return items, steps.start
    if choices is None:
        named = labels.tolist()
        way_out = "pass trajectories, or a mapping from label to (state, action)"
    elif hasattr(choices, "keys") and hasattr(choices, "__getitem__"):
        missing = next((label for label in labels.tolist() if label not in choices.keys()), None)
        if missing is not None:
            raise InvalidInputError(f"`choices` must hold every compared label: {shown(missing)} is absent; add it")
        named, way_out = [choices[label] for label in labels.tolist()], "mend the mapping"
    else:
        raise InvalidInputError(f"`choices` must be Trajectories, a mapping from label to (state, action), or None: got "
                                f"{type(choices).__name__}; see DPO.fit")
    for label, choice in zip(labels.tolist(), named):
        if not isinstance(choice, (tuple, list, np.ndarray)) or len(choice) != 2:
            raise InvalidInputError(f"each compared label must mean a (state, action): {shown(label)} is "
                                    f"{'none' if choices is None else shown(choice)}; {way_out}")
    try:
        state = model.state_index([choice[0] for choice in named])
        pair = model.pair_index(state, model.action_index([choice[1] for choice in named]))
    except InvalidInputError:
        for label, choice in zip(labels.tolist(), named):
            _refuse_choice(model, label, choice, "check the labels" if choices is None else way_out)
        raise
    n = labels.size
    return sparse.csr_array((np.ones(n), pair.astype(np.int32), np.arange(n + 1)), (n, model.n_pairs)), state


def _refuse_choice(model, label, choice, way_out):
    """Raise where a compared label means a state or an action that the model lacks."""
    what = shown(label) if isinstance(label, tuple) else f"{shown(label)}, {shown(tuple(choice))},"
    at = []
    for name, known, part in (("state", model.state_ids, choice[0]), ("action", model.action_ids, choice[1])):
        found = LabelIndex(known, "model").find(label_vector(name, [part], mixed=True))
        if found[0] < 0:
            raise InvalidInputError(f"what is compared must be choices of the model: {what} has an unknown {name}; see "
                                    f"mdp.{name}_ids, and {way_out}")
        at.append(found)
    if model._find_pairs(*at)[0] < 0:
        raise InvalidInputError(f"what is compared must be choices of the model: {what} is none, as the state lacks the action; "
                                f"see mdp.pair_state, and {way_out}")


def _refuse_impossible(model, reference, items, labels):
    bad = reference[items.indices] <= 0
    if bad.any():
        entry = int(np.argmax(bad))
        item = int(np.searchsorted(items.indptr, entry, side="right")) - 1
        raise InvalidInputError(f"the reference must give every compared choice a chance: {model._pair(items.indices[entry])} of "
                                f"{shown(labels[item])} has probability 0; pass a reference that is positive there")


# -- losses


class _Loss:
    """Σ n ℓ(h) of margins h = H_i − H_j, convex for every target: log(1 + e^{βh}) − target · βh, or (h − t)²."""

    way_out = "pass label_smoothing=0.1 with smoothing='conservative', loss='ipo', or gather more comparisons"

    def __init__(self, kind, beta, weight, target, rest, share=None):
        self.kind, self.beta, self.weight, self.target, self.rest = kind, beta, weight, target, rest
        self.goal = (target - rest) / (2 * beta)
        self.total, self.share = float(weight.sum()), share  # of the labels as they came, those of the first
        self.grouped = np.zeros(weight.size, bool)  # margins that belong to a choice among several
        self.for_first, self.for_second = target, rest  # what speaks for either of a row's two
        # what rounding does to a sum of these terms
        self.noise = 1e-15 * float(weight @ (1 + np.abs(target))) * (1.0 if kind == "sigmoid" else 1 / beta**2)

    def part(self, keep):
        return _Loss(self.kind, self.beta, self.weight[keep], self.target[keep], self.rest[keep], self.share[keep])

    def value(self, h):
        if self.kind == "ipo":
            return float(self.weight @ ((h - self.goal) ** 2 + 0.25 / self.beta**2 - self.goal**2))
        m = self.beta * h
        return float(self.weight @ (np.logaddexp(0.0, m) - self.target * m))

    def slope(self, h):
        if self.kind == "ipo":
            return 2 * self.weight * (h - self.goal)
        m = self.beta * h
        return self.weight * self.beta * np.where(m > 0, self.rest - _sigmoid(-m), _sigmoid(m) - self.target)

    def curvature(self, h):
        if self.kind == "ipo":
            return 2 * self.weight
        p = _sigmoid(self.beta * h)
        return self.weight * self.beta**2 * p * _sigmoid(-self.beta * h)

    def bend(self, h, rows):
        """The matrix of second derivatives in the margins, times rows (m,) or (m, k), dense or sparse."""
        c = self.curvature(h)
        return rows * (c if rows.ndim == 1 else c[:, None])

    def look_across(self, i, j, size):
        """What speaks for a row's second may stand in another row, the other way round."""
        gain, loss = self.weight * self.target, self.weight * self.rest
        low, high = np.minimum(i, j), np.maximum(i, j)
        _, pair = np.unique(low.astype(np.int64) * size + high, return_inverse=True)
        pair, turned = pair.reshape(-1), i > j
        up = np.bincount(pair, np.where(turned, loss, gain))[pair]
        down = np.bincount(pair, np.where(turned, gain, loss))[pair]
        self.for_first, self.for_second = np.where(turned, down, up), np.where(turned, up, down)

    def refuse_no_optimum(self, i, j, component, n_components, names):
        """Every set of choices must lose something to the rest of its component, in labels as the loss sees them."""
        if self.kind == "ipo" or not i.size:
            return
        lost = self._never_losing(i, j, component, n_components)
        if lost is not None:
            inside, more = lost
            some = ", ".join(shown(names[k]) for k in inside[:3]) + (", …" if len(inside) > 3 else "")
            one = len(inside) == 1
            raise NoFiniteOptimumError(
                f"the loss must have a minimum: {some} {'loses' if one else 'lose'} {more} to the other choices that "
                f"{'it is' if one else 'they are'} compared with, so that a larger log ratio always fits better; {self.way_out}",
                items=tuple(names[k] for k in inside))

    def _never_losing(self, i, j, component, n_components):
        gain, loss = self.weight * self.target, self.weight * self.rest
        size = component.size
        if gain.min() >= 0 and loss.min() >= 0:
            # an edge from each choice to those it lost to: then all of a component reach each other
            tail, head = np.concatenate([j[gain > 0], i[loss > 0]]), np.concatenate([i[gain > 0], j[loss > 0]])
            n, strong = csgraph.connected_components(
                sparse.coo_array((np.ones(tail.size), (tail, head)), (size, size)), connection="strong")
            if n == n_components:
                return None
            leaves = np.ones(n, bool)
            leaves[strong[tail[strong[tail] != strong[head]]]] = False
            of = component[np.unique(strong, return_index=True)[1]]
            return np.flatnonzero(strong == np.argmax(leaves & (np.bincount(of, minlength=n_components)[of] > 1))), "nothing"
        # some labels are beyond 0 or 1: min Σ n max(d_i − d_j, 0) − n target (d_i − d_j) over 0 ≤ d ≤ 1 is a set's
        m, apart = i.size, _differences(i, j, size)
        cost = np.concatenate([-(apart.T @ gain), self.weight])
        found = optimize.linprog(cost, A_ub=sparse.hstack([apart, -sparse.eye_array(m)]).tocsr(), b_ub=np.zeros(m),
                                 bounds=[(0, 1)] * size + [(0, None)] * m, method="highs")
        if found.fun < -1e-9 * self.weight.sum():
            return np.flatnonzero(found.x[:size] > 0.5), "less than nothing, once label_smoothing is taken off,"
        return None


class _Stages(_Loss):
    """Choices of the best: Σ n log(1 + Σ_j e^{−βh_j}) over the margins h_j = H_best − H_j of each, rows in a row."""

    way_out = "gather more rankings, or pass their pairs as comparisons with label_smoothing=0.1, smoothing='conservative'"

    def __init__(self, beta, weight, stage, total):
        super().__init__("sigmoid", beta, weight, np.ones(weight.size), np.zeros(weight.size))
        self.stage, self.begin = stage, np.flatnonzero(np.append(True, stage[1:] != stage[:-1]))
        self.total = total
        self.grouped = np.ones(weight.size, bool)

    def part(self, keep):
        return self  # a choice is among all that were there

    def _odds(self, h):
        """(log(1 + Σ e^{−βh}) of each choice, probability of each other one)."""
        m = -self.beta * h
        top = np.maximum(np.maximum.reduceat(m, self.begin), 0.0)
        total = top + np.log(np.exp(-top) + np.add.reduceat(np.exp(m - top[self.stage]), self.begin))
        return total, np.exp(m - total[self.stage])

    def value(self, h):
        return float(self.weight[self.begin] @ self._odds(h)[0])

    def slope(self, h):
        return -self.weight * self.beta * self._odds(h)[1]

    def bend(self, h, rows):
        p = self._odds(h)[1]
        scale = self.weight * self.beta**2
        share = sparse.csr_array((p, np.arange(p.size), np.append(self.begin, p.size)), (self.begin.size, p.size))
        own, mean = scale * p, share @ rows
        if rows.ndim == 1:
            return own * rows - share.T @ (scale[self.begin] * mean)
        return rows * own[:, None] - share.T @ (mean * scale[self.begin, None])


class _Sum(_Loss):
    """The losses of comparisons and of rankings, one after the other."""

    way_out = _Stages.way_out

    def __init__(self, parts):
        weight, target, rest = (np.concatenate([getattr(part, name) for part in parts]) for name in ("weight", "target", "rest"))
        super().__init__("sigmoid", parts[0].beta, weight, target, rest)
        self.parts, self.cut = parts, np.cumsum([part.weight.size for part in parts])[:-1]
        self.total = sum(part.total for part in parts)
        self.grouped = np.concatenate([part.grouped for part in parts])

    def part(self, keep):
        return _Sum([part.part(mask) for part, mask in zip(self.parts, np.split(keep, self.cut))])

    def value(self, h):
        return sum(part.value(own) for part, own in zip(self.parts, np.split(h, self.cut)))

    def slope(self, h):
        return np.concatenate([part.slope(own) for part, own in zip(self.parts, np.split(h, self.cut))])

    def bend(self, h, rows):
        ends = [0, *self.cut, h.size]
        found = [part.bend(h[a:b], rows[a:b]) for part, a, b in zip(self.parts, ends, ends[1:])]
        return sparse.vstack(found, format="csr") if sparse.issparse(rows) else np.concatenate(found)


def _read_rankings(orders):
    """Rankings of a sequence of sequences, in which a tuple is a label."""
    if isinstance(orders, (str, bytes)) or hasattr(orders, "keys") or not np.iterable(orders):
        raise InvalidInputError(f"`rankings` must be Rankings or a sequence of sequences of labels: got {type(orders).__name__}; "
                                "pass a list of lists, the best first")
    orders = list(orders)
    for n, order in enumerate(orders):
        if isinstance(order, (str, bytes)) or not np.iterable(order):
            raise InvalidInputError(f"each ranking must be a sequence of labels, the best first: ranking {n} is {shown(order)}; "
                                    "pass a list of lists")
    flat = [label for order in orders for label in order]
    offsets = np.append(0, np.cumsum([len(order) for order in orders])).astype(np.int64)
    with naming(items="rankings"):
        return Rankings.from_arrays(np.fromiter(flat, object, len(flat)), offsets)


def _stages(rankings):
    """(best, another one that was there, number of the choice, its weight) of each choice among several in rankings; weights of
    the rankings that have any."""
    sizes, n_ranked = np.diff(rankings.offsets), rankings.n_ranked
    n_stages = np.where(rankings.weight > 0, np.minimum(n_ranked, sizes - 1), 0)
    ranking = np.repeat(np.arange(len(rankings)), n_stages)
    place = np.arange(ranking.size) - np.repeat(np.cumsum(n_stages) - n_stages, n_stages)
    others = sizes[ranking] - 1 - place
    best = rankings.offsets[ranking] + place
    stage = np.repeat(np.arange(ranking.size), others)
    at = best[stage] + 1 + np.arange(stage.size) - np.repeat(np.cumsum(others) - others, others)
    counted = np.where(n_stages > 0, rankings.weight, 0.0)
    return rankings.item[best][stage], rankings.item[at], stage, rankings.weight[ranking][stage], counted


def _joined(ours, theirs):
    """(labels of both, [places of ours, places of theirs])."""
    if (ours.dtype.kind in "iu") != (theirs.dtype.kind in "iu"):
        raise InvalidInputError(f"`comparisons` and `rankings` must have labels of one kind: they have {shown(ours[0])} and "
                                f"{shown(theirs[0])}; convert one of them")
    place = LabelIndex(ours, "comparison").find(theirs)
    new = place < 0
    place[new] = ours.size + np.arange(np.count_nonzero(new))
    return np.concatenate([ours, theirs[new]]), [np.arange(ours.size), place]


def _by_pair(first, second, loss, size):
    """(first, second, weight, share of the first) of rows added up by pair, as named where all name it alike."""
    low, high = np.minimum(first, second), np.maximum(first, second)
    if not loss.grouped.any():
        return first, second, loss.weight, loss.share
    apart = first != second
    key, pair = np.unique((low.astype(np.int64) * size + high)[apart], return_inverse=True)
    turned, pair = (first > second)[apart], pair.reshape(-1)
    weight = np.bincount(pair, loss.weight[apart])
    won = np.bincount(pair, loss.weight[apart] * np.where(turned, loss.rest, loss.target)[apart])
    return key // size, key % size, weight, won / weight


def _sigmoid(x):
    e = np.exp(-np.abs(x))
    return np.where(x >= 0, 1.0, e) / (1.0 + e)


def _differences(i, j, size):
    """(m, size) rows e_i − e_j."""
    m = i.size
    found = sparse.csr_array((np.tile([1.0, -1.0], m), np.column_stack([i, j]).reshape(-1), 2 * np.arange(m + 1)), (m, size))
    found.sum_duplicates()
    return found


def _newton(loss, i, j, component, size, max_iter):
    """(h, slope, decrement, last move, steps): the minimum of a convex function of differences, one of each component at 0."""
    free = np.ones(size, bool)
    free[np.unique(component, return_index=True)[1]] = False
    place = np.flatnonzero(free)
    m, apart = i.size, _differences(i, j, size)
    # what a slope can be: w β, or about w / β
    scale = loss.beta if loss.kind == "sigmoid" else max(loss.beta, 1 / loss.beta)
    weight = np.maximum(np.bincount(i, loss.weight, size) + np.bincount(j, loss.weight, size), 1e-300) * scale
    h, value, decrement, before, stalled = np.zeros(size), loss.value(np.zeros(m)), float("nan"), float("inf"), 0
    for step in range(max_iter + 1):
        margin = h[i] - h[j]
        slope = apart.T @ loss.slope(margin)
        worst = float(np.max(np.abs(slope) / weight, initial=0.0))
        if not place.size:
            return h, worst, 0.0, 0.0, step
        hessian = (apart.T @ loss.bend(margin, apart)).tocsr()[place][:, place].tocsc()
        move = np.zeros(size)
        move[place] = linalg.splu(hessian).solve(-slope[place])
        decrement = float(np.sqrt(max(-(slope @ move), 0.0)))
        along = move[i] - move[j]
        still = np.abs(along).max() <= 1e-11 * (1 / loss.beta + np.abs(margin).max())
        # rounding may be all that still moves
        stalled = stalled + 1 if before <= worst <= 1e-12 else 0
        if step == max_iter or still or stalled == 5:
            break
        before = min(worst, before)
        length = 1.0
        while length > 1e-12:
            there = loss.value(margin + length * along)
            if there <= value + 0.25 * length * float(slope @ move) + loss.noise:
                break
            length *= 0.5
        else:
            break
        h, value = h + length * move, there
        if loss.kind == "sigmoid" and loss.beta * np.abs(h[i] - h[j]).max() > _RUNAWAY:
            at = int(np.argmax(np.abs(h[i] - h[j])))
            raise NoFiniteOptimumError(
                f"the loss must have a minimum: a margin has grown to {loss.beta * abs(h[i[at]] - h[j[at]]):.0f} and the loss "
                f"still falls; {loss.way_out}")
    return h, worst, decrement, float(loss.beta * np.abs(along).max()), step


class _Slots:
    """One slot for each compared choice, and one for all other choices of its state."""

    def __init__(self, model, reference, items):
        self.model, self.reference = model, reference
        pairs = np.unique(items.indices)
        states = np.unique(model.pair_state[pairs])
        own = np.zeros(model.n_pairs, bool)
        own[pairs] = True
        rest = np.bincount(model.pair_state, np.where(own, 0.0, reference), model.n_states)[states]
        number = np.full(model.n_states, -1)
        number[states] = np.arange(states.size)
        others = states[rest > 0]
        self.n_states = states.size
        self.state = np.concatenate([number[model.pair_state[pairs]], number[others]])
        self.mass = np.concatenate([reference[pairs], rest[rest > 0]])
        self.size = self.state.size
        # where nothing was left over the masses sum to 1 up to rounding: make it exact
        self.mass = self.mass / np.bincount(self.state, self.mass, self.n_states)[self.state]
        self.of_pair = np.full(model.n_pairs, -1)
        self.of_pair[pairs] = np.arange(pairs.size)
        slot_of_rest = np.full(model.n_states, -1)
        slot_of_rest[others] = pairs.size + np.arange(others.size)
        loose = (self.of_pair < 0) & (number[model.pair_state] >= 0)
        self.of_pair[loose] = slot_of_rest[model.pair_state[loose]]
        self.items = sparse.csr_array((items.data, self.of_pair[items.indices], items.indptr), (items.shape[0], self.size))

    def log_mass(self, z):
        """(size,) log Σ π_ref e^z of each slot's state."""
        top = np.full(self.n_states, -np.inf)
        np.maximum.at(top, self.state, z)
        total = np.bincount(self.state, self.mass * np.exp(z - top[self.state]), self.n_states)
        return (top + np.log(total))[self.state]

    def sums(self, values):
        """(size,) sum over the slots of each slot's state."""
        return np.bincount(self.state, values, self.n_states)[self.state]

    def spread(self, log_ratio):
        """(n_pairs,) log ratios, 0 in states that were never visited."""
        found = np.zeros(self.model.n_pairs)
        known = self.of_pair >= 0
        found[known] = log_ratio[self.of_pair[known]]
        return found


class _Softmax:
    """The loss in logits z relative to the reference: log π / π_ref = z − log Σ π_ref e^z."""

    def __init__(self, slots, apart, loss):
        self.slots, self.apart, self.loss = slots, sparse.csr_array(apart), loss

    def weight_of_state(self):
        touched = abs(self.apart).T @ self.loss.weight
        return np.bincount(self.slots.state, touched, self.slots.n_states)

    def margin(self, z):
        return self.apart @ (z - self.slots.log_mass(z))

    def value(self, z):
        return self.loss.value(self.margin(z))

    def gradient(self, z):
        log = z - self.slots.log_mass(z)
        chance = self.slots.mass * np.exp(log)
        pull = self.apart.T @ self.loss.slope(self.apart @ log)
        return pull - chance * self.slots.sums(pull)

    def met(self, z, far):
        """(n,) bool: which margins are beyond `far` on the side for which all labels speak."""
        margin = self.loss.beta * self.margin(z)
        against = np.where(margin > 0, self.loss.for_second, self.loss.for_first)
        return (np.abs(margin) > far) & (against <= 0) if self.loss.kind == "sigmoid" else np.zeros(margin.size, bool)

    def hessian_times(self, z, v):
        slots = self.slots
        log = z - slots.log_mass(z)
        chance = slots.mass * np.exp(log)
        margin = self.apart @ log
        mean = slots.sums(chance * v)
        pull = self.apart.T @ self.loss.slope(margin)
        bend = self.apart.T @ self.loss.bend(margin, self.apart @ (v - mean))
        return bend - chance * slots.sums(bend) - slots.sums(pull) * chance * (v - mean)

    def hessian(self, z):
        slots = self.slots
        log = z - slots.log_mass(z)
        chance = slots.mass * np.exp(log)
        margin = self.apart @ log
        # J = I − 1 π' in each state
        same = slots.state[:, None] == slots.state[None, :]
        jacobian = np.eye(slots.size) - same * chance[None, :]
        rows = self.apart @ jacobian
        pull = slots.sums(self.apart.T @ self.loss.slope(margin))
        spread = np.diag(chance) - same * np.outer(chance, chance)
        return rows.T @ self.loss.bend(margin, rows) - pull[:, None] * spread

    def solve(self, tol, per_slot, max_iter):
        """(z, steps): Newton steps from the reference, along |eigenvalues| where the loss is not convex."""
        z, n_iter, away = np.zeros(self.slots.size), 0, 0

        def runs_away(z):
            # five steps in a row: one may only overshoot
            nonlocal away
            away = away + 1 if self.met(z, _RUNAWAY / 4).any() else 0
            return away == 5

        def look(z):
            if runs_away(z):
                raise StopIteration

        if self.slots.size > _DENSE:
            found = optimize.minimize(self.value, z, jac=self.gradient, hessp=self.hessian_times, method="trust-ncg",
                                      callback=look,
                                      options={"gtol": 1e-7 * float(np.median(per_slot)), "maxiter": max_iter})
            z, n_iter = found.x, int(found.nit)
        value, stalled = self.value(z), 0
        while True:
            slope = self.gradient(z)
            done = np.max(np.abs(slope) / per_slot, initial=0.0) <= 1e-3 * tol
            if done or n_iter >= max_iter or away >= 5 or runs_away(z):
                return z, n_iter
            move = self._step(z, slope, float(per_slot.max(initial=0.0)))
            move *= min(1.0, _STRIDE * max(1.0, 1 / self.loss.beta) / max(float(np.abs(move).max()), 1e-300))
            length, fall = 1.0, float(slope @ move)
            while length > 1e-10:
                there = self.value(z + length * move)
                if there <= value + 0.1 * length * fall + self.loss.noise:
                    break
                length *= 0.5
            else:
                return z, n_iter
            steeper = np.abs(self.gradient(z + length * move)).max() >= np.abs(slope).max()
            # rounding may be all that still moves
            stalled = stalled + 1 if there >= value - 10 * self.loss.noise and steeper else 0
            if stalled == 10:
                return z, n_iter
            z, value, n_iter = z + length * move, there, n_iter + 1

    def _step(self, z, slope, scale):
        if self.slots.size <= _DENSE:
            values, vectors = np.linalg.eigh(self.hessian(z))
            # curvature may vanish where the slope does not: then a long step down it
            return -(vectors / np.maximum(np.abs(values), 1e-9 * scale)) @ (vectors.T @ slope)
        operator = linalg.LinearOperator((z.size, z.size), matvec=lambda v: self.hessian_times(z, v))
        move = linalg.minres(operator, -slope, rtol=1e-8)[0]
        return move if slope @ move < 0 else -slope / max(float(np.abs(slope).max()), 1e-300)
