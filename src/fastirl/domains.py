"""Small worlds with a known truth, on which learners are compared: gridworld and Objectworld."""

from dataclasses import dataclass

import numpy as np
from scipy import sparse

from ._validation import positive_number, whole_number
from .exceptions import InvalidInputError
from .mdp import MDP

__all__ = ["Domain", "gridworld", "objectworld"]

_MOVES = np.array([(0, 0), (0, 1), (1, 0), (0, -1), (-1, 0)])


@dataclass(frozen=True)
class Domain:
    """A model, the reward that people in it have, and where they start.

    Attributes
    ----------
    mdp : MDP, with features
    reward : (n_states,) the true reward of a state
    initial_distribution : (n_states,), uniform
    shape : (rows, columns) of the grid
    """

    mdp: MDP
    reward: np.ndarray
    initial_distribution: np.ndarray
    shape: tuple

    @property
    def pair_reward(self):
        """(n_pairs,) the true reward of each state-action pair."""
        return self.reward[self.mdp.pair_state]


def _windy_moves(side, wind):
    """A list of five sparse matrices: stay, right, down, left, up; with chance `wind` a move drawn evenly instead."""
    row, column = np.divmod(np.arange(side * side), side)
    sure = []
    for dr, dc in _MOVES:
        to = np.clip(row + dr, 0, side - 1) * side + np.clip(column + dc, 0, side - 1)
        sure.append(sparse.csr_array((np.ones(to.size), (np.arange(to.size), to)), shape=(to.size,) * 2))
    mean = sum(sure) / len(sure)
    return [(1.0 - wind) * move + wind * mean for move in sure]


def _rng(rng):
    if not isinstance(rng, np.random.Generator):
        raise InvalidInputError(
            f"`rng` must be a numpy.random.Generator: got {type(rng).__name__}; pass numpy.random.default_rng(seed)")
    return rng


def gridworld(side=8, wind=0.3, discount=0.9, goal_reward=1.0):
    """The gridworld of Ng and Russell (2000): five moves, wind, a reward in one corner; one indicator feature a state.

    Parameters
    ----------
    side : int, at least 2
    wind : chance that a move is drawn evenly instead of chosen
    discount : float
    goal_reward : reward of the last state, the lower right corner; all others have 0

    Returns
    -------
    Domain
    """
    side = whole_number("side", side, lower=2)
    wind = 0.0 if wind == 0 else positive_number("wind", wind, upper=1.0)
    n = side * side
    mdp = MDP(_windy_moves(side, wind), discount).with_features(sparse.eye_array(n, format="csr"), features_on="state")
    reward = np.zeros(n)
    reward[-1] = goal_reward
    return Domain(mdp, reward, np.full(n, 1.0 / n), (side, side))


def objectworld(side=16, n_objects=30, n_colors=2, wind=0.3, discount=0.9, rng=None):
    """Objectworld of Levine, Popović, Koltun (2010): a reward that is not linear in its features.

    Objects of random inner and outer colour are strewn over a grid. A state within 3 cells of outer colour 0 has reward
    +1 if it is also within 2 cells of outer colour 1, else −1; all others have 0. Features are the Euclidean distances to the
    nearest object of each outer and each inner colour, divided by the side.

    Parameters
    ----------
    side, n_objects : int
    n_colors : int, at least 2
    wind, discount : as of :func:`gridworld`
    rng : numpy.random.Generator

    Returns
    -------
    Domain
    """
    side, n_objects = whole_number("side", side, lower=2), whole_number("n_objects", n_objects, lower=1)
    n_colors = whole_number("n_colors", n_colors, lower=2)
    wind = 0.0 if wind == 0 else positive_number("wind", wind, upper=1.0)
    rng, n = _rng(rng), side * side
    if n_objects > n:
        raise InvalidInputError(f"objects must fit on the grid: {n_objects} are more than {n} cells; pass fewer")
    place = rng.choice(n, n_objects, replace=False)
    outer, inner = rng.integers(0, n_colors, (2, n_objects))
    here = np.stack(np.divmod(np.arange(n), side), axis=1)
    away = np.sqrt(((here[:, None, :] - here[place][None, :, :]) ** 2).sum(axis=2))
    # a colour that no object has is as far as the grid is wide
    nearest = np.column_stack([np.min(away[:, of == c], axis=1, initial=2.0 * side)
                               for of in (outer, inner) for c in range(n_colors)])
    reward = np.where(nearest[:, 0] <= 3.0, np.where(nearest[:, 1] <= 2.0, 1.0, -1.0), 0.0)
    names = [f"{ring} {c}" for ring in ("outer", "inner") for c in range(n_colors)]
    mdp = MDP(_windy_moves(side, wind), discount).with_features(nearest / side, names, features_on="state")
    return Domain(mdp, reward, np.full(n, 1.0 / n), (side, side))
