"""Small worlds with a known truth, on which learners are compared: gridworld, Objectworld, a chain, a race-track, a kitchen."""

from dataclasses import dataclass

import numpy as np
from scipy import sparse

from ._validation import float_vector, one_of, positive_number, whole_number
from .exceptions import InvalidInputError
from .mdp import MDP

__all__ = ["Domain", "Kitchen", "gridworld", "kitchen", "objectworld", "racetrack", "worst_case_chain"]

_MOVES = np.array([(0, 0), (0, 1), (1, 0), (0, -1), (-1, 0)])


@dataclass(frozen=True)
class Domain:
    """A model, the reward that people in it have, and where they start.

    Attributes
    ----------
    mdp : MDP, with features
    reward : (n_states,) the true reward of a state
    initial_distribution : (n_states,)
    shape : (rows, columns) of the grid
    picture : tuple of str, the map of a race-track
    """

    mdp: MDP
    reward: np.ndarray
    initial_distribution: np.ndarray
    shape: tuple
    picture: tuple = ()

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
    reward[-1] = float_vector("goal_reward", [goal_reward])[0]
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


def worst_case_chain(length=32):
    """A tightrope on which cloning's regret grows with the square of the length (Ross and Bagnell 2010, Theorem 2.1).

    One starts on the track and makes `length` choices. On the track "straight" stays on it and "back" falls off; off it
    "straight" stays off, at a cost of 1 a step, and "back" returns. Whoever knows the way goes straight and, off the track,
    back; he never is off it, so that his demonstrations do not show the way back. The two features are "straight" and
    "straight, off": a learner who sees straight only takes it for a rule.

    Parameters
    ----------
    length : int, at least 2

    Returns
    -------
    Domain, of discount 1: it ends after `length` choices. States are ("on", 0), ("off", 0), ("on", 1), …, and the end

    Notes
    -----
    With a chance ε of the other action in either place, t steps off the start one is off the track with probability
    (1 − (1 − 2ε)^t) / 2 ≈ εt: the cost is about ε length² / 2. Who knows the way back is off it with probability ε, at a cost of
    about ε length.
    """
    length = whole_number("length", length, lower=2)
    n = 2 * length + 1
    at, off = np.divmod(np.arange(2 * length), 2)
    state, action = np.repeat(np.arange(2 * length), 2), np.tile([0, 1], 2 * length)
    place = off[state] ^ action
    to = np.where(at[state] + 1 == length, n - 1, 2 * (at[state] + 1) + place)
    matrix = sparse.csr_array((np.ones(to.size), (np.arange(to.size), to)), shape=(to.size, n))
    straight = (action == 0).astype(float)
    labels = [("off" if o else "on", int(t)) for t, o in zip(at, off)] + [("end", length)]
    mdp = MDP.from_pairs(matrix, state, action, 1.0, terminal=[n - 1],
                         features=np.column_stack([straight, straight * off[state]]),
                         feature_names=("straight", "straight, off"), state_ids=labels, action_ids=["straight", "back"])
    start = np.zeros(n)
    start[0] = 1.0
    return Domain(mdp, -np.append(off, 0.0), start, (2, length))


_TRACK = (
    "##################################",
    "##################################",
    "########......................FFFF",
    "########......................FFFF",
    "######........................FFFF",
    "######........................FFFF",
    "####..........................FFFF",
    "####..........................FFFF",
    "####..........................FFFF",
    "####..........................FFFF",
    "####..........................FFFF",
    "####..........................FFFF",
    "####............##################",
    "####............##################",
    "####..........####################",
    "####..........####################",
    "####..........####################",
    "####..........####################",
    "####..........####################",
    "####..........####################",
    "####..........####################",
    "####..........####################",
    "####..........####################",
    "####..........####################",
    "######........####################",
    "######........####################",
    "######........####################",
    "######........####################",
    "######........####################",
    "######SSSSSSSS####################",
)


def racetrack(track=_TRACK, top_speed=4, slip=0.1, crash="start", discount=1.0):
    """The race-track of Barto, Bradtke, Singh (1995), under the rules of Sutton and Barto (2018), exercise 5.12.

    One starts at rest in a cell S, drawn evenly, and changes the speed upwards and to the right by −1, 0 or 1 at each step; both
    stay between 0 and `top_speed`, and never both at 0. With chance `slip` the change is not made. Whoever leaves the
    track is back at the start, or stands where he was last on it; whoever reaches a cell F is done. Each step costs 1.

    Parameters
    ----------
    track : sequence of texts of one length: "#" is off the track, "." on it, "S" start, "F" finish
    top_speed : int, at least 1
    slip : chance that the change of speed is not made
    crash : "start" (at rest in a start cell, drawn evenly) or "stop" (at rest in the last cell on the track), for who leaves it
    discount : float

    Returns
    -------
    Domain, whose states are (row, column, speed up, speed right), of those that can be reached, and ("done", 0, 0, 0);
    actions are (change up, change right)
    """
    track = tuple(track)
    if not track or any(not isinstance(row, str) or len(row) != len(track[0]) or set(row) - set("#.SF") for row in track) or not (
            any("S" in row for row in track) and any("F" in row for row in track)):
        raise InvalidInputError("`track` must be texts of one length of '#', '.', 'S' and 'F', with a start and a finish: it is "
                                "not; see the default")
    top_speed = whole_number("top_speed", top_speed, lower=1)
    slip, crash = 0.0 if slip == 0 else positive_number("slip", slip, upper=1.0), one_of("crash", crash, ("start", "stop"))
    starts = [(r, c, 0, 0) for r, row in enumerate(track) for c, cell in enumerate(row) if cell == "S"]
    changes = [(up, right) for up in (-1, 0, 1) for right in (-1, 0, 1)]

    def moved(row, column, up, right):
        """Where a step leads: a state, or None for the start."""
        n, last = max(up, right, 1), (row, column)
        for k in range(1, n + 1):
            r, c = row - (2 * k * up + n) // (2 * n), column + (2 * k * right + n) // (2 * n)
            if not (0 <= r < len(track) and 0 <= c < len(track[0])) or track[r][c] == "#":
                return None if crash == "start" else (*last, 0, 0)
            if track[r][c] == "F":
                return ("done", 0, 0, 0)
            last = (r, c)
        return (row - up, column + right, up, right)

    number = {state: i for i, state in enumerate(starts)}
    order, rows, entries = list(starts), [], []
    at = 0
    while at < len(order):  # all that can be reached
        row, column, up, right = order[at]
        for a, (more_up, more_right) in enumerate(changes):
            speed = (up + more_up, right + more_right)
            if min(speed) < 0 or max(speed) > top_speed or speed == (0, 0):
                continue
            chances = {}
            for chance, (u, r) in ((1.0 - slip, speed), (slip, (up, right))):
                to = (row, column, 0, 0) if (u, r) == (0, 0) else moved(row, column, u, r)
                for state, share in ([(to, 1.0)] if to is not None else [(s, 1.0 / len(starts)) for s in starts]):
                    chances[state] = chances.get(state, 0.0) + chance * share
            for state, chance in chances.items():
                if state[0] != "done" and state not in number:
                    number[state] = len(order)
                    order.append(state)
                entries.append((len(rows), state, chance))
            rows.append((at, a))
        at += 1
    number[("done", 0, 0, 0)] = len(order)
    order.append(("done", 0, 0, 0))
    row, to, chance = [e[0] for e in entries], [number[e[1]] for e in entries], [e[2] for e in entries]
    matrix = sparse.csr_array((chance, (row, to)), shape=(len(rows), len(order)))
    state, action = np.array(rows).T
    mdp = MDP.from_pairs(matrix, state, action, discount, terminal=[len(order) - 1], state_ids=order, action_ids=changes,
                         n_actions=len(changes))
    start, reward = np.zeros(len(order)), np.full(len(order), -1.0)
    start[:len(starts)], reward[-1] = 1.0 / len(starts), 0.0
    return Domain(mdp, reward, start, (len(track), len(track[0])), track)


@dataclass(frozen=True)
class Kitchen:
    """A cake to bake, one step at a time.

    Attributes
    ----------
    mdp : MDP; states are labelled like "table, holds flour; bowl(shelf): eggs; tray(table): empty; spoon(shelf); eggs(table)",
        actions like "pick up bowl"
    reward : (n_pairs,) +1 for putting the tray with batter into the oven, −1 for a disaster, which ends the episode too; else 0
    initial_distribution : (n_states,) everything on the shelf, in front of which the agent stands
    object_names : the five objects
    objects : (n_pairs,) the object that a choice has to do with, −1 where it only walks: what guidance names
    """

    mdp: MDP
    reward: np.ndarray
    initial_distribution: np.ndarray
    object_names: tuple
    objects: np.ndarray

    @property
    def pair_reward(self):
        """(n_pairs,) the same as `reward`."""
        return self.reward


_OBJECTS = ("flour", "eggs", "spoon", "bowl", "tray")
_PLACES = ("shelf", "table", "oven")
_HELD = 2  # where an object is that the agent holds


def kitchen(discount=0.95):
    """A compact form of Sophie's Kitchen, in which Thomaz and Breazeal (2006) let people teach an agent to bake.

    The agent walks between shelf, table and oven, picks up, puts down, and uses what it holds on something at the same place.
    Flour and eggs go into the bowl, the spoon mixes what holds both, the mixed bowl is used on the tray, the tray with
    batter is put into the oven. Anything else in the oven, and flour or eggs on the tray, is a disaster.

    Parameters
    ----------
    discount : float

    Returns
    -------
    Kitchen

    Notes
    -----
    Deterministic; actions that would change nothing do not exist. The shortest way takes 16 steps. The original has more places
    for things, more states and no published table of transitions: results are comparable in kind only.
    """
    discount = positive_number("discount", discount, upper=1.0, strict=False)
    start = (0, (0,) * 5, "empty", "empty")
    number, queue = {start: 2}, [start]  # 0 baked, 1 spoiled
    rows, names = [], {}
    for state in queue:
        for name, about, there in _kitchen_moves(state):
            if there not in ("baked", "spoiled") and there not in number:
                number[there] = len(number) + 2
                queue.append(there)
            to = {"baked": 0, "spoiled": 1}.get(there)
            rows.append((number[state], names.setdefault(name, len(names)), number[there] if to is None else to, about))
    n = len(number) + 2
    tail, action, head, about = np.array(rows).T
    matrix = sparse.csr_array((np.ones(tail.size), head, np.arange(tail.size + 1)), shape=(tail.size, n))
    labels = ["baked", "spoiled", *map(_kitchen_label, number)]
    mdp = MDP.from_pairs(matrix, tail, action, discount, terminal=[0, 1], state_ids=labels, action_ids=list(names))
    order = mdp.pair_order
    reward = np.select([head == 0, head == 1], [1.0, -1.0])[order]
    return Kitchen(mdp, reward, np.bincount([2], minlength=n).astype(float), _OBJECTS, about[order])


def _kitchen_moves(state):
    """(name, object or −1, next state) of what can be done."""
    agent, where, bowl, tray = state
    held = where.index(_HELD) if _HELD in where else None
    for step, name in ((-1, "go left"), (1, "go right")):
        if 0 <= agent + step < len(_PLACES):
            yield name, -1, (agent + step, where, bowl, tray)

    def moved(which, to):
        return agent, (*where[:which], to, *where[which + 1:]), bowl, tray

    if held is None:
        for which in range(5):
            if where[which] == agent:
                yield f"pick up {_OBJECTS[which]}", which, moved(which, _HELD)
        return
    if agent == 2:  # the oven: nothing lies there
        yield f"put down {_OBJECTS[held]}", held, "baked" if (held, tray) == (4, "batter") else "spoiled"
        return
    yield f"put down {_OBJECTS[held]}", held, moved(held, agent)
    if where[3] == agent:
        then = {(0, "empty"): "flour", (0, "eggs"): "both", (1, "empty"): "eggs", (1, "flour"): "both", (2, "both"): "mixed"}
        if (held, bowl) in then:
            yield f"use {_OBJECTS[held]} on bowl", held, (agent, where, then[held, bowl], tray)
    if where[4] == agent and tray == "empty":
        if (held, bowl) == (3, "mixed"):
            yield "use bowl on tray", 3, (agent, where, "empty", "batter")
        if held in (0, 1):
            yield f"use {_OBJECTS[held]} on tray", held, "spoiled"


def _kitchen_label(state):
    agent, where, bowl, tray = state
    held = where.index(_HELD) if _HELD in where else None
    inside = ("", "", "", f": {bowl}", f": {tray}")
    parts = [_PLACES[agent] + ("" if held is None else f", holds {_OBJECTS[held]}{inside[held]}")]
    parts += [f"{name}({_PLACES[where[k]]}){inside[k]}" for k, name in enumerate(_OBJECTS) if k != held]
    return "; ".join(parts)
