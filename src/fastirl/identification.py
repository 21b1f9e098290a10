"""Which directions of a reward behaviour cannot tell apart: potential shaping, and constants as its special case."""

from dataclasses import dataclass, field

import numpy as np
from scipy import sparse
from scipy.sparse import csgraph
from scipy.sparse.linalg import lsmr

from .exceptions import InvalidInputError
from .mdp import MDP
from .rewards import FreeReward, LinearReward
from .road_network import RoadNetwork
from .tables import Table

__all__ = ["RewardAmbiguity", "reward_ambiguity"]

_MOST = 300  # features that are looked at one by one
_SMALL = 1e-7  # what is left of a unit direction that counts as nothing


@dataclass(frozen=True)
class RewardAmbiguity:
    """What :func:`reward_ambiguity` found.

    Attributes
    ----------
    n_directions : int, dimension of the changes of parameters that change no choice
    directions : (n_directions, k) an orthonormal basis in units of the features' root mean squares, or None where each arc or
        pair has a parameter of its own: there every potential is a direction
    potentials : (n_directions, n_states) h, the potential of each, or None likewise
    constant : bool, whether a constant added to every reward is among them
    names : (k,) of the parameters, or None
    table : Table, a row a direction: what kind, and the combination of parameters
    """

    n_directions: int
    directions: object
    potentials: object
    constant: bool
    names: object
    table: Table = field(repr=False)

    def __str__(self):
        return str(self.table)


def reward_ambiguity(model, reward=None):
    r"""The changes of a reward that leave every choice's probability as it is, whatever the data.

    Soft and hard policies are the same for r and

    .. math:: r(s, a) + \gamma \, E[h(s') \mid s, a] - h(s),

    for any potential h that is 0 where the process ends (Ng, Harada, Russell 1999); over an infinite horizon there are no others
    for soft choices (Cao, Cohen, Szpruch 2021). A constant c is the potential c / (γ − 1). On a road network each trip's sum
    changes by h(destination) − h(origin), the same for all its paths. Of these changes those count that the reward's
    parameters can make: Xθ in the range of the shaping.

    Parameters
    ----------
    model : MDP (at its discount, infinite horizon) or RoadNetwork (discount 1)
    reward : LinearReward (the default; held weights are no directions) or FreeReward

    Returns
    -------
    RewardAmbiguity

    Raises
    ------
    InvalidInputError : another model or reward, no features, more than 300 free weights

    Notes
    -----
    It looks at the model only. What besides these a data set leaves open (arcs that no trip could take, features that do not
    vary where people chose) is in the `unidentified_` of a fit. Penalties choose among the directions, they do not
    identify. Finite horizons and the learners' bounds are not looked at.

    References
    ----------
    Ng, Harada, Russell (1999), theorem 1; Cao, Cohen, Szpruch (2021), Identifiability in inverse reinforcement learning,
    theorem 1; Kim, Garg, Shiragur, Ermon (2021).
    """
    if not isinstance(model, (MDP, RoadNetwork)):
        raise InvalidInputError(f"`model` must be an MDP or a RoadNetwork: got {type(model).__name__}; build one")
    reward = LinearReward() if reward is None else reward
    if not isinstance(reward, (LinearReward, FreeReward)):
        raise InvalidInputError(f"`reward` must be a LinearReward or a FreeReward: got {reward!r}; of others ask part by part")
    shaping, open_states = _shaping(model)
    n_rows = shaping.shape[0]
    constant = _left(shaping, np.ones(n_rows))[0] <= _SMALL * np.sqrt(n_rows)
    if isinstance(reward, FreeReward):
        bound = reward.bind(model)
        if len(bound.names) == n_rows:
            count = _rank(model, open_states)
            text = f"potential shaping: a potential for each of {count:,} states" + (", constants among them" if constant else "")
            return RewardAmbiguity(count, None, None, bool(constant), None, Table({"direction": ["all"], "kind": [text]}))
        to = np.asarray(model.pair_state if isinstance(model, MDP) else model.head)
        features = sparse.csr_array((np.ones(n_rows), (np.arange(n_rows), to)), shape=(n_rows, model.n_states))
        names, free = list(bound.names), np.ones(model.n_states, bool)
    else:
        if getattr(model, "features", None) is None or callable(model.features):
            raise InvalidInputError("the features must be an array: the model has none, or a callable of a group; pass features")
        features, names = model.features, list(model.feature_names)
        free, _ = reward.layout(names)
    if free.sum() > _MOST:
        raise InvalidInputError(f"at most {_MOST} weights are looked at one by one: got {int(free.sum()):,}; hold some, or ask "
                                "about a FreeReward, of which all potentials are directions")
    columns = features[:, np.flatnonzero(free)]
    columns = columns.toarray() if sparse.issparse(columns) else np.asarray(columns, float)
    scale = np.sqrt((columns**2).mean(axis=0))
    unit = columns / np.where(scale > 0, scale, 1.0) / np.sqrt(n_rows)
    left, height = np.empty_like(unit), np.empty((shaping.shape[1], unit.shape[1]))
    for j in range(unit.shape[1]):
        _, height[:, j], left[:, j] = _left(shaping, unit[:, j])
    # the combinations of which nothing is left
    _, sizes, basis = np.linalg.svd(left, full_matrices=True) if left.shape[0] >= left.shape[1] else np.linalg.svd(
        np.vstack([left, np.zeros((left.shape[1] - left.shape[0], left.shape[1]))]))
    flat = basis[sizes <= _SMALL * np.sqrt(left.shape[1])]
    directions, potentials = np.zeros((len(flat), len(names))), np.zeros((len(flat), model.n_states))
    directions[:, free] = flat
    potentials[:, open_states] = flat @ height.T
    kinds, combinations = [], []
    for row in flat:
        made = unit @ row
        if np.abs(made).max(initial=0.0) <= _SMALL:
            kind = "no change of any reward: features are combinations of each other, or 0"
        elif np.ptp(made) <= _SMALL * np.abs(made).max():
            kind = "a constant"
        else:
            kind = "potential shaping"
        kinds.append(kind)
        combinations.append(_written(row / np.where(scale > 0, scale, 1.0), [name for name, ok in zip(names, free) if ok]))
    table = Table({"direction": list(range(1, len(flat) + 1)), "kind": kinds, "combination": combinations},
                  title=f"{len(flat)} of {int(free.sum())} directions that no data identify")
    return RewardAmbiguity(len(flat), directions, potentials, bool(constant), tuple(names), table)


def _shaping(model):
    """(matrix, states): h of those states -> what it adds to the reward of each row."""
    if isinstance(model, RoadNetwork):
        n, rows = model.n_states, np.arange(model.n_arcs)
        ones = np.ones(rows.size)
        matrix = sparse.csr_array((ones, (rows, model.head)), shape=(rows.size, n)) - sparse.csr_array(
            (ones, (rows, model.tail)), shape=(rows.size, n))
        return sparse.csr_array(matrix), np.arange(n)
    own = sparse.csr_array((np.ones(model.n_pairs), (np.arange(model.n_pairs), model.pair_state)), shape=model.transitions.shape)
    open_states = np.flatnonzero(~model.terminal)
    return sparse.csr_array((model.discount * model.transitions - own)[:, open_states]), open_states


def _left(shaping, wanted):
    """(norm, h, what is left) of the nearest shaping to a change of reward."""
    height = lsmr(shaping, wanted, atol=1e-13, btol=1e-13, conlim=0.0, maxiter=20 * max(shaping.shape))[0]
    left = wanted - shaping @ height
    return float(np.linalg.norm(left)), height, left


def _rank(model, open_states):
    """Dimension of the shapings: below discount 1 and where all ends, one a state; on roads one less for each part."""
    if isinstance(model, RoadNetwork):
        graph = sparse.csr_array((np.ones(model.n_arcs), (model.tail, model.head)), shape=(model.n_states,) * 2)
        return int(model.n_states - csgraph.connected_components(graph, directed=False)[0])
    if model.discount < 1.0 or model.terminal.any():
        return int(open_states.size)
    return int(np.linalg.matrix_rank(_shaping(model)[0].toarray()))


def _written(weights, names):
    """2 a − 0.5 b, the largest first."""
    weights = weights / np.abs(weights).max(initial=1e-300)
    order = [j for j in np.argsort(-np.abs(weights), kind="stable") if abs(weights[j]) > 1e-4]
    parts = [f"{'−' if weights[j] < 0 else '+'} {abs(weights[j]):.4g} {names[j]}" for j in order[:8]]
    text = " ".join(parts) + (f" and {len(order) - 8} more" if len(order) > 8 else "")
    return text.removeprefix("+ ")
