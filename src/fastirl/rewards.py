"""Rewards: parameters in, utilities out, and the gradient back.

A reward is a description; :meth:`bind` ties it to a model and gives a :class:`BoundReward`, which the learners use: a
parameter vector θ, r(θ) on the model's rows (arcs of a road network, pairs of a decision process), the vector-Jacobian
product gᵀ ∂r/∂θ, and what is asked of θ besides: held values, bounds, −l1 |θ|₁ − l2/2 |θ|₂² in the objective.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from scipy import sparse

from ._validation import one_of, positive_number, require, shown
from .exceptions import InvalidInputError

__all__ = ["BoundReward", "FreeReward", "LinearReward", "SumReward", "TorchReward"]


@dataclass(frozen=True)
class BoundReward:
    """A reward on a model.

    Attributes
    ----------
    names : sequence of the parameters' names, (k,)
    free : (k,) bool; held : (k,) values, 0 where free
    start : (k,) where a search begins, or None: the learner decides
    l1, l2 : (k,) penalties; lower, upper : (k,) bounds
    linear : whether r = Xθ with the model's features X
    utility : callable (features, θ) -> (n_rows,)
    pull_back : callable (features, θ, g) -> (k,) = gᵀ ∂r/∂θ
    design : callable features -> (n_rows, k) matrix A, dense or sparse, where r = Aθ; None where r is not linear in θ
    """

    names: object
    free: np.ndarray
    held: np.ndarray
    start: object
    l1: np.ndarray
    l2: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    linear: bool
    utility: object
    pull_back: object
    design: object = None

    @property
    def plain(self):
        """Whether nothing but held values is asked of a linear reward: then second derivatives serve."""
        return self.linear and not (self.l1.any() or self.l2.any() or np.isfinite(self.lower).any()
                                    or np.isfinite(self.upper).any())


def _penalty(name, value):
    try:
        return positive_number(name, value, strict=False)
    except InvalidInputError:
        raise InvalidInputError(f"`{name}` must be a finite number of at least 0: got {shown(value)}; it multiplies "
                                "the penalty, 0 is none") from None


def _mapping(name, value, example):
    if not isinstance(value, Mapping):
        raise InvalidInputError(f"`{name}` must map names of features: got {shown(value)}; pass {name}={example}")
    return dict(value)


class _Reward:
    def __add__(self, other):
        if not isinstance(other, _Reward):
            return NotImplemented
        return SumReward((*_parts(self), *_parts(other)))


@dataclass(frozen=True)
class LinearReward(_Reward):
    """r = Xθ: a weight for each feature, some of them held.

    Parameters
    ----------
    fixed : mapping of feature name to the value at which its weight is held, e.g. ``{"u_turn": -20.0}``
    l1, l2 : penalties, at least 0: −l1 Σ|θ| − l2/2 Σθ² over the free weights, in the units of the features, is added to
        the objective, which is a sum over trips
    bounds : mapping of feature name to (lowest, highest), None for none: ``{"length": (None, 0.0)}`` keeps a cost a cost
    """

    fixed: dict = field(default_factory=dict)
    l1: float = 0.0
    l2: float = 0.0
    bounds: dict = field(default_factory=dict)

    def __post_init__(self):
        # plain names, as they are shown and saved
        fixed = _mapping("fixed", {} if self.fixed is None else self.fixed, "{'u_turn': -20.0}")
        fixed = {name.item() if isinstance(name, np.generic) else name: value for name, value in fixed.items()}
        for name, value in fixed.items():
            try:
                fixed[name] = float(value)
            except (TypeError, ValueError):
                fixed[name] = np.nan
            if not np.isfinite(fixed[name]):
                value = value.item() if isinstance(value, np.generic) else value
                raise InvalidInputError(
                    f"each held weight must be a finite number: {name!r} is {value!r}; pass fixed={{{name!r}: number}}"
                )
        object.__setattr__(self, "fixed", fixed)
        for name in ("l1", "l2"):
            object.__setattr__(self, name, _penalty(name, getattr(self, name)))
        bounds = _mapping("bounds", {} if self.bounds is None else self.bounds, "{'length': (None, 0.0)}")
        object.__setattr__(self, "bounds", {name: _interval(name, pair) for name, pair in bounds.items()})
        for name in self.bounds:
            if name in fixed:
                raise InvalidInputError(f"a weight must be held or bounded, not both: {name!r} is in `fixed` and in `bounds`; "
                                        "leave it out of one")

    def __repr__(self):
        parts = [f"{name}={getattr(self, name)!r}" for name in ("fixed", "l1", "l2", "bounds") if getattr(self, name)]
        return f"LinearReward({', '.join(parts)})"

    def refuse_penalties(self, learner, instead):
        """For learners that take nothing of a linear reward but held weights."""
        for name in ("l1", "l2", "bounds"):
            if getattr(self, name):
                raise InvalidInputError(f"a LinearReward may only hold weights in {learner}: this one has {name}="
                                        f"{getattr(self, name)!r}; {instead}")

    def layout(self, feature_names):
        """(free, weights): which features are free, and a full weight vector with the held values in place."""
        names = list(feature_names)
        for name in (*self.fixed, *self.bounds):
            if name not in names:
                raise InvalidInputError(
                    f"each {'held' if name in self.fixed else 'bounded'} weight must name a feature: {name!r} is none; the "
                    f"features are {', '.join(names)}"
                )
        free = np.array([name not in self.fixed for name in names], dtype=bool)
        if not free.any():
            raise InvalidInputError(
                "at least one weight must be free to be learned: all "
                f"{len(names)} are held; leave one out of `fixed`, or use route_log_likelihood"
            )
        return free, np.array([self.fixed.get(name, 0.0) for name in names])

    def bind(self, model):
        """The reward on a model with features."""
        names = model.feature_names
        if getattr(model, "features", None) is None:
            raise InvalidInputError("a linear reward needs features: the model has none; pass features, or use FreeReward")
        free, held = self.layout(names)
        intervals = [self.bounds.get(name, (-np.inf, np.inf)) for name in names]
        ones = free.astype(float)
        return BoundReward(tuple(names), free, held, None, self.l1 * ones, self.l2 * ones,
                           np.array([low for low, _ in intervals]), np.array([high for _, high in intervals]), True,
                           self.utility, lambda features, weights, gradient: self.pull_back(features, gradient),
                           lambda features: features)

    def utility(self, features, weights):
        """Xθ, the utility of each row of features."""
        return features @ weights

    def pull_back(self, features, gradient):
        """Xᵀg: the gradient in θ of a function whose gradient in the utilities is g."""
        return features.T @ gradient


def _interval(name, pair):
    try:
        low, high = pair
        low, high = (-np.inf if low is None else float(low)), (np.inf if high is None else float(high))
        ok = low < high
    except (TypeError, ValueError):
        ok = False
    if not ok:
        raise InvalidInputError(f"each bound must be (lowest, highest) with lowest < highest, None for none: {name!r} has "
                                f"{pair!r}; to hold a weight use fixed=")
    return low, high


class _Numbered:
    """Names of many parameters, made when asked for."""

    def __init__(self, what, labels):
        self._what, self._labels = what, labels

    def __len__(self):
        return len(self._labels)

    def __getitem__(self, i):
        return f"{self._what} {self._labels[i]}"

    def __iter__(self):
        return (f"{self._what} {label}" for label in self._labels)


@dataclass(frozen=True)
class FreeReward(_Reward):
    """A parameter of its own for each arc or state: r_a = θ_a, or r_a = θ of the state.

    Parameters
    ----------
    on : "arc" (of a road network), "pair" (of a decision process), "state" (of a road network: the state that an arc
        leads to; of a decision process: the state of the pair), or "auto": "arc" and "state"
    l1, l2 : penalties, at least 0: −l1 Σ|θ| − l2/2 Σθ² is added to the objective. Without one most parameters are not
        identified: arcs that no trip could take, and potentials added along the way
    lowest, highest : bounds of every parameter, e.g. highest=0.0: nothing is a gain. The defaults leave them open

    Notes
    -----
    With l1 the solution is sparse: parameters are exactly 0 where the data do not pay for them. Sums with other rewards,
    ``LinearReward() + FreeReward(l1=2.0)``, are the usual case: features for all, corrections where trips ask for them
    (Barnes et al. 2024, "sparse reward").
    """

    on: str = "auto"
    l1: float = 0.0
    l2: float = 0.0
    lowest: object = None
    highest: object = None

    def __post_init__(self):
        one_of("on", self.on, ("auto", "arc", "pair", "state"))
        for name in ("l1", "l2"):
            object.__setattr__(self, name, _penalty(name, getattr(self, name)))
        _interval("every parameter", (self.lowest, self.highest))

    def bind(self, model):
        """The reward on a model."""
        road = hasattr(model, "n_arcs")
        on = self.on if self.on != "auto" else "arc" if road else "state"
        if on == ("pair" if road else "arc"):
            raise InvalidInputError(f"`on` must fit the model: {on!r} goes with {'an MDP' if road else 'a road network'}; pass "
                                    f"on={'arc' if road else 'pair'!r} or on='state'")
        if on == "state":
            k, of = model.n_states, model.head if road else model.pair_state
            names = _Numbered("state", model.state_ids)
        else:
            k, of = (model.n_arcs if road else model.n_pairs), None
            names = _Numbered(on, range(k))
        low, high = _interval("every parameter", (self.lowest, self.highest))

        def utility(features, weights):
            return weights.copy() if of is None else weights[of]

        def pull_back(features, weights, gradient):
            return np.asarray(gradient, float) if of is None else np.bincount(of, gradient, minlength=k)

        def design(features):
            column = np.arange(k) if of is None else of
            return sparse.csr_array((np.ones(column.size), (np.arange(column.size), column)), shape=(column.size, k))

        full = np.full
        return BoundReward(names, np.ones(k, bool), np.zeros(k), np.clip(np.zeros(k), low, high), full(k, self.l1),
                           full(k, self.l2), full(k, low), full(k, high), False, utility, pull_back, design)


class TorchReward(_Reward):
    """r = f_θ(X) by a PyTorch module, differentiated by autograd: deep maximum-entropy IRL (Wulfmeier et al. 2015).

    Parameters
    ----------
    module : torch.nn.Module, (n_rows, k) features to (n_rows,) or (n_rows, 1) rewards; it is computed in double precision.
        On a road network at discount 1 rewards must be such that sums over paths are finite: end with a negative softplus,
        or add a linear reward with a held cost
    l2 : penalty, at least 0

    Notes
    -----
    Parameters start where the module's are: seed torch before it is made, and the fit is reproducible. The module is
    left with the fitted parameters, in double precision. Dropout, batch norm and other randomness are refused by putting
    it in eval mode; a likelihood of a network is not concave: the answer is a local maximum. No standard errors.
    """

    def __init__(self, module, l2=0.0):
        self.torch = require("torch")
        if not isinstance(module, self.torch.nn.Module):
            raise InvalidInputError(f"`module` must be a torch.nn.Module: got {type(module).__name__}; wrap the function in one")
        self.module, self.l2 = module.double().eval(), _penalty("l2", l2)

    def __repr__(self):
        return f"TorchReward({type(self.module).__name__}, l2={self.l2})"

    def bind(self, model):
        """The reward on a model with features."""
        torch = self.torch
        if getattr(model, "features", None) is None:
            raise InvalidInputError("a TorchReward needs features: the model has none; pass features, or use FreeReward")
        parameters = [p for p in self.module.parameters() if p.requires_grad]
        if not parameters:
            raise InvalidInputError("the module must have parameters to learn: it has none that require a gradient")
        names = [f"{name}[{i}]" if p.numel() > 1 else name for name, p in self.module.named_parameters() if p.requires_grad
                 for i in range(p.numel())]
        flatten = torch.nn.utils.parameters_to_vector
        k, zeros = len(names), np.zeros(len(names))
        seen = {}

        def rows_of(features):
            # the tensor of the last features is kept: they are the same at every evaluation
            if seen.get("features") is not features:
                dense = features.toarray() if hasattr(features, "toarray") else features
                seen.update(features=features, rows=torch.as_tensor(np.array(dense, dtype=float)))
            return seen["rows"]

        def forward(features, weights):
            torch.nn.utils.vector_to_parameters(torch.as_tensor(np.array(weights, dtype=float)), parameters)
            rows = rows_of(features)
            out = self.module(rows)
            if out.numel() != rows.shape[0]:
                raise InvalidInputError(f"the module must give one reward a row: it gave shape {tuple(out.shape)} for "
                                        f"{rows.shape[0]} rows; end it with one output")
            return out.reshape(-1)

        def utility(features, weights):
            with torch.no_grad():
                out = forward(features, weights).numpy()
            if not np.isfinite(out).all():
                raise InvalidInputError(f"the module's rewards must be finite: row {int(np.argmax(~np.isfinite(out)))} is not; "
                                        "scale the features, or lower the start's weights")
            return out.astype(float)

        def pull_back(features, weights, gradient):
            out = forward(features, weights)
            found = torch.autograd.grad(out, parameters, torch.as_tensor(np.array(gradient, dtype=float)), allow_unused=True)
            return np.concatenate([np.zeros(p.numel()) if g is None else g.detach().numpy().ravel()
                                   for p, g in zip(parameters, found)])

        start = flatten(parameters).detach().numpy().astype(float).copy()
        return BoundReward(tuple(names), np.ones(k, bool), zeros, start, zeros, np.full(k, self.l2), np.full(k, -np.inf),
                           np.full(k, np.inf), False, utility, pull_back)


@dataclass(frozen=True)
class SumReward(_Reward):
    """A sum of rewards, each with parameters of its own: write it with +.

    Parameters
    ----------
    parts : tuple of rewards; the parameters of a fit are theirs, one part after the other
    """

    parts: tuple

    def __post_init__(self):
        parts = tuple(self.parts) if isinstance(self.parts, (tuple, list)) else (self.parts,)
        bad = [part for part in parts if not isinstance(part, _Reward)]
        if bad or not parts:
            raise InvalidInputError(f"`parts` must be rewards, at least one: {shown(bad[0]) if bad else 'there'} is none; write "
                                    "a sum with +, LinearReward() + FreeReward(l1=1.0)")
        object.__setattr__(self, "parts", sum(map(_parts, parts), ()))

    def __repr__(self):
        return " + ".join(map(repr, self.parts))

    def bind(self, model):
        """The sum on a model: parameters one after the other."""
        parts = [part.bind(model) for part in self.parts]
        ends = np.cumsum([0] + [part.free.size for part in parts])
        slices = [slice(a, b) for a, b in zip(ends[:-1], ends[1:])]

        def joined(name):
            return np.concatenate([getattr(part, name) for part in parts])

        def utility(features, weights):
            return sum(part.utility(features, weights[at]) for part, at in zip(parts, slices))

        def pull_back(features, weights, gradient):
            return np.concatenate([part.pull_back(features, weights[at], gradient) for part, at in zip(parts, slices)])

        def design(features):
            return sparse.hstack([sparse.csr_array(part.design(features)) for part in parts], format="csr")

        return BoundReward(_Chained([part.names for part in parts]), joined("free"), joined("held"),
                           _joined_start(parts), joined("l1"), joined("l2"), joined("lower"), joined("upper"),
                           False, utility, pull_back, design if all(part.design for part in parts) else None)


class _Chained:
    def __init__(self, sequences):
        self._sequences = sequences

    def __len__(self):
        return sum(map(len, self._sequences))

    def __iter__(self):
        for names in self._sequences:
            yield from names

    def __getitem__(self, i):
        for names in self._sequences:
            if i < len(names):
                return names[i]
            i -= len(names)
        raise IndexError(i)


def _joined_start(parts):
    """NaN where a part leaves its start to the learner."""
    return np.concatenate([np.full(part.free.size, np.nan) if part.start is None else part.start for part in parts])


def _parts(reward):
    return reward.parts if isinstance(reward, SumReward) else (reward,)


_SAVED = {"linear": LinearReward, "free": FreeReward}


def to_saved(reward):
    """A reward as plain values, for JSON. A module of PyTorch is named only."""
    if isinstance(reward, SumReward):
        return {"kind": "sum", "parts": [to_saved(part) for part in reward.parts]}
    for kind, cls in _SAVED.items():
        if isinstance(reward, cls):
            values = {name: getattr(reward, name) for name in cls.__dataclass_fields__}
            for name in ("lowest", "highest"):
                if name in values and values[name] is not None:
                    values[name] = float(values[name]) if np.isfinite(values[name]) else None
            if "bounds" in values:
                values["bounds"] = {name: [None if np.isinf(x) else x for x in pair] for name, pair in reward.bounds.items()}
            return {"kind": kind, **values}
    return {"kind": "torch", "module": repr(reward)}


def from_saved(data):
    """The reward that :func:`to_saved` described."""
    kind = data.get("kind", "linear")
    if kind == "sum":
        return SumReward(tuple(from_saved(part) for part in data["parts"]))
    if kind not in _SAVED:
        raise InvalidInputError("the reward of a saved fit must be given where the file cannot hold it: it was "
                                f"{data.get('module')}; pass reward= with a module of the same shape")
    return _SAVED[kind](**{name: value for name, value in data.items() if name != "kind"})
