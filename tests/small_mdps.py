"""Small decision processes of every kind, textbook examples with their printed answers, accurate values; seeded."""

from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import pytest
from scipy import sparse

from fastirl import _planning_reference as ref
from fastirl.mdp import MDP


@dataclass(frozen=True)
class Problem:
    """A model and a reward for each of its pairs."""

    mdp: MDP
    reward: np.ndarray

    def at(self, discount):
        return Problem(self.mdp.with_discount(discount), self.reward)

    def with_reward(self, reward):
        return replace(self, reward=np.broadcast_to(np.asarray(reward, float), self.mdp.n_pairs).copy())


def problem(mdp, reward, reward_on="auto"):
    return Problem(mdp, mdp.reward_vector(reward, reward_on))


def random_reward(mdp, seed, low=-1.0, high=1.0):
    return np.random.default_rng(seed).uniform(low, high, mdp.n_pairs)


def some_policy(mdp, seed=0, zeros=False):
    """Random probabilities; with zeros, about half of the pairs are never taken."""
    rng = np.random.default_rng(seed)
    weight = rng.exponential(size=mdp.n_pairs)
    if zeros:
        weight[rng.random(mdp.n_pairs) < 0.5] = 0.0
        weight[mdp.pair_ptr[:-1][~mdp.terminal]] += 1.0  # the first pair of each state is taken
    return weight / ref.state_sum(mdp, weight)[mdp.pair_state]


def some_start(mdp, seed=0):
    weight = np.random.default_rng(seed).exponential(size=mdp.n_states)
    return weight / weight.sum()


# -- shapes


def chain(n=8, discount=0.9, seed=0, slip=0.0, ends=()):
    """Left and right along a line, which bounces at its ends; with `slip` one stays instead."""
    tensor = np.zeros((n, 2, n))
    at = np.arange(n)
    tensor[at, 0, np.maximum(at - 1, 0)] = 1 - slip
    tensor[at, 1, np.minimum(at + 1, n - 1)] = 1 - slip
    tensor[at, :, at] += slip
    mdp = MDP(tensor, discount=discount, terminal=list(ends))
    return Problem(mdp, random_reward(mdp, seed))


def grid(side=4, slip=0.2, discount=0.9, goals=(0,), step=-1.0, blocked=()):
    """Four moves that bounce at walls; with probability `slip` one of the two moves across is made instead."""
    n = side * side
    moves = np.array([(-1, 0), (0, 1), (1, 0), (0, -1)])
    tensor = np.zeros((n, 4, n))
    for s in range(n):
        for a in range(4):
            for turn, p in ((0, 1 - slip), (1, slip / 2), (3, slip / 2)):
                row, column = np.clip(np.array(divmod(s, side)) + moves[(a + turn) % 4], 0, side - 1)
                tensor[s, a, row * side + column] += p
    mdp = MDP(tensor, discount=discount, terminal=list(goals), normalize=True)
    return Problem(mdp, np.full(mdp.n_pairs, float(step)))


def random_dense(n=12, actions=3, discount=0.9, seed=1, low=-1.0, high=1.0):
    tensor = np.random.default_rng(seed).exponential(size=(n, actions, n))
    mdp = MDP(tensor, discount=discount, normalize=True)
    return Problem(mdp, random_reward(mdp, seed, low, high))


def random_sparse(n=30, actions=4, successors=3, discount=0.9, seed=2, terminal=None, leak=0.0, low=-1.0, high=1.0,
                  all_actions=False, reach=None):
    """Pairs that exist with probability 0.6, a few successors each; `leak`: rows that sum to 1 - leak to 1."""
    rng = np.random.default_rng(seed)
    mask = rng.random((n, actions)) < (1.1 if all_actions else 0.6)
    mask[np.arange(n), rng.integers(actions, size=n)] = True
    state, action = np.nonzero(mask)
    if reach is None:
        column = np.array([rng.choice(n, successors, replace=False) for _ in state])
    else:
        around = np.arange(-reach, reach + 1)
        column = np.array([(s + rng.choice(around, successors, replace=False)) % n for s in state])
    weight = rng.exponential(size=column.shape)
    weight /= weight.sum(axis=1, keepdims=True)
    weight *= 1 - leak * rng.random((state.size, 1))
    matrix = sparse.csr_array((weight.ravel(), column.ravel(), np.arange(state.size + 1) * successors),
                              shape=(state.size, n))
    mdp = MDP.from_pairs(matrix, state, action, discount, terminal, n_actions=actions, normalize=leak == 0,
                         allow_leak=leak > 0)
    return Problem(mdp, random_reward(mdp, seed, low, high))


def forbidden(seed=3):
    """A third of the pairs are forbidden, but none of those that come first in their state."""
    base = random_sparse(seed=seed, all_actions=True)
    banned = np.random.default_rng(seed).random(base.mdp.n_pairs) < 0.33
    banned[base.mdp.pair_ptr[:-1]] = False
    return base.with_reward(np.where(banned, -np.inf, base.reward))


def dead_ends():
    """0 leads to 4 or to 1, which is forbidden altogether; 2 to 1 or to 3; 3 to 1 by a very small chance; 4 stays."""
    tensor = np.zeros((5, 2, 5))
    tensor[0, 0, 4] = tensor[0, 1, 1] = 1.0
    tensor[1, :, 4] = 1.0
    tensor[2, 0, 1] = tensor[2, 1, 3] = 1.0
    tensor[3, :, 1], tensor[3, :, 4] = 1e-300, 1.0
    tensor[4, :, 4] = 1.0
    mdp = MDP(tensor, discount=0.9)
    reward = random_reward(mdp, 5)
    reward[2:4] = -np.inf  # the pairs of state 1
    return Problem(mdp, reward)


def explicit_zeros(seed=6):
    """Stored zeros, one of them towards a state of value -inf, which must not count."""
    base = random_dense(6, 2, seed=seed).mdp.to_dense()
    base[:, :, 5] = 0.0
    base[5] = np.eye(6)[5]
    base /= base.sum(axis=2, keepdims=True)
    data = base.reshape(12, 6)
    matrix = sparse.csr_array((data.ravel(), np.tile(np.arange(6), 12), np.arange(13) * 6), shape=(12, 6))
    mdp = MDP.from_pairs(matrix, np.arange(12) // 2, np.arange(12) % 2, 0.9)
    assert mdp.nnz == 72
    reward = random_reward(mdp, seed)
    reward[10:] = -np.inf  # state 5, which nothing else can reach
    return Problem(mdp, reward)


def self_loops(seed=7):
    n = 6
    tensor = np.zeros((n, 2, n))
    tensor[:, 0] = np.eye(n)
    tensor[:, 1] = 0.999 * np.eye(n) + 0.001 * np.roll(np.eye(n), 1, axis=1)
    mdp = MDP(tensor, discount=0.95)
    return Problem(mdp, random_reward(mdp, seed))


def unreachable(seed=8):
    """Two parts without a way from one to the other, of very different rewards."""
    first, second = random_dense(5, 2, seed=seed).mdp.to_dense(), random_dense(4, 2, seed=seed + 1).mdp.to_dense()
    tensor = np.zeros((9, 2, 9))
    tensor[:5, :, :5], tensor[5:, :, 5:] = first, second
    mdp = MDP(tensor, discount=0.9)
    return Problem(mdp, random_reward(mdp, seed) * np.where(mdp.pair_state < 5, 1.0, 1e5))


def all_equal():
    """Every pair is worth the same: ties everywhere, which the lowest action wins."""
    base = grid(4, 0.0, 0.9, goals=())
    return base.with_reward(1.0)


def nothing_but_ends():
    mdp = MDP(np.zeros((3, 2, 3)), discount=0.9, terminal=[0, 1, 2])
    return Problem(mdp, np.zeros(0))


def one_state(actions=1):
    mdp = MDP(np.ones((1, actions, 1)), discount=0.9)
    return Problem(mdp, np.linspace(-0.5, 1.0, actions))


# all at discount below 1
ZOO = {
    "one state": one_state,
    "one state, three actions": lambda: one_state(3),
    "nothing but ends": nothing_but_ends,
    "chain": chain,
    "chain with an end": lambda: chain(ends=[7], slip=0.3),
    "grid with slip": grid,
    "grid, deterministic": lambda: grid(5, 0.0, 0.95, goals=(12,)),
    "ties": all_equal,
    "random dense": random_dense,
    "random sparse": random_sparse,
    "terminal states": lambda: random_sparse(seed=10, terminal=[0, 7, 29]),
    "leaks": lambda: random_sparse(seed=11, leak=0.3),
    "leaks and terminal states": lambda: random_sparse(seed=12, leak=0.1, terminal=[3]),
    "forbidden pairs": forbidden,
    "dead ends": dead_ends,
    "explicit zeros": explicit_zeros,
    "self-loops": self_loops,
    "unreachable parts": unreachable,
    "rewards of 1e6": lambda: random_sparse(seed=13, low=-1e6, high=1e6),
    "rewards of 1e-6": lambda: random_sparse(seed=14, low=-1e-6, high=1e-6),
    "all rewards 0": lambda: random_sparse(seed=15).with_reward(0.0),
    "discount 0": lambda: random_sparse(seed=16, discount=0.0),
    "discount 0.999": lambda: random_sparse(seed=17, discount=0.999),
    "300 states": lambda: random_sparse(300, seed=18, reach=6),
    "300 states with ends and leaks": lambda: random_sparse(300, seed=19, leak=0.2, terminal=[5, 250]),
}

# at discount 1, each with an end that some policy reaches for certain, and steps that cost
EPISODIC = {
    "chain": lambda: chain(6, 1.0, slip=0.2, ends=[5]).with_reward(-1.0),
    "grid": lambda: grid(4, 0.2, 1.0, goals=(0,), step=-2.0),
    "grid, two goals": lambda: grid(5, 0.0, 1.0, goals=(0, 24), step=-2.0),
    "one step": lambda: problem(MDP(np.array([[[0.0, 1.0]] * 2, [[0.0, 0.0]] * 2]), 1.0, terminal=[1]), [-1.0, -2.0],
                                "pair"),
    "random sparse": lambda: random_sparse(seed=20, discount=1.0, terminal=[0, 9], low=-4.0, high=-2.0),
    "leaks only": lambda: random_sparse(seed=21, discount=1.0, leak=0.4, low=-4.0, high=-2.0),
    "forbidden pairs": lambda: _mostly_allowed(random_sparse(seed=22, discount=1.0, terminal=[4], all_actions=True,
                                                             low=-4.0, high=-2.0)),
    "no way back, any reward": lambda: one_way(),
    "300 states": lambda: random_sparse(300, seed=23, discount=1.0, terminal=[0, 150], reach=6, low=-4.0, high=-2.0),
}


def _mostly_allowed(base):
    banned = np.random.default_rng(0).random(base.mdp.n_pairs) < 0.2
    banned[base.mdp.pair_ptr[:-1][~base.mdp.terminal]] = False
    return base.with_reward(np.where(banned, -np.inf, base.reward))


def one_way(n=8, actions=3, seed=24):
    """Every pair leads to later states only, by chance: no loop, so that rewards may have any sign."""
    rng = np.random.default_rng(seed)
    tensor = np.triu(rng.exponential(size=(actions, n, n)), 1).transpose(1, 0, 2)
    tensor[n - 1] = 1.0
    mdp = MDP(tensor, discount=1.0, terminal=[n - 1], normalize=True)
    return Problem(mdp, random_reward(mdp, seed, -3.0, 3.0))


def deterministic_tree(horizon=4, seed=25):
    """No slip, no loop: every trajectory from state 0 can be listed. State 6 is the end."""
    head = np.array([[1, 2], [3, 4], [4, 5], [6, 4], [6, 5], [6, 6], [6, 6]])
    tensor = np.zeros((7, 2, 7))
    tensor[np.arange(7)[:, None], np.arange(2), head] = 1.0
    mdp = MDP(tensor, discount=1.0, terminal=[6])
    return Problem(mdp, random_reward(mdp, seed))


# -- gymnasium


GYMNASIUM = ("FrozenLake", "FrozenLake8x8", "CliffWalking", "Taxi")


@cache
def environment(name):
    gymnasium = pytest.importorskip("gymnasium", reason="this test needs gymnasium: pip install gymnasium")
    newest = max(spec.version for spec in gymnasium.registry.values() if spec.name == name)
    return gymnasium.make(f"{name}-v{newest}")


@cache
def from_gymnasium(name, discount=0.99):
    mdp = MDP.from_gymnasium(environment(name), discount=discount)
    return Problem(mdp, np.array(mdp.reward))


# -- textbooks


def puterman_two_states():
    """Puterman (1994), section 3.1, at discount 0.95: V* = (-60/7, -20); table 6.3.1 lists value iteration from 0.

    r(s1, a11) = 5, p = (1/2, 1/2); r(s1, a12) = 10, to s2; r(s2, a21) = -1, stays.
    """
    matrix = np.array([[0.5, 0.5], [0.0, 1.0], [0.0, 1.0]])
    mdp = MDP.from_pairs(matrix, [0, 0, 1], [0, 1, 0], 0.95)
    return Problem(mdp, np.array([5.0, 10.0, -1.0]))


def sutton_barto_gridworld(discount=0.9):
    """Sutton & Barto (2018), example 3.5: north, south, east, west on 5 x 5; moves off the grid cost 1.

    Every action in A (row 0, column 1) earns 10 and leads to row 4; in B (row 0, column 3) 5 and to row 2.
    """
    tensor, reward = np.zeros((25, 4, 25)), np.zeros((25, 4))
    for s in range(25):
        for a, move in enumerate(((-1, 0), (1, 0), (0, 1), (0, -1))):
            to = np.array(divmod(s, 5)) + move
            if s in (1, 3):
                to, reward[s, a] = ((4, 1), 10.0) if s == 1 else ((2, 3), 5.0)
            elif (to < 0).any() or (to > 4).any():
                to, reward[s, a] = divmod(s, 5), -1.0
            tensor[s, a, to[0] * 5 + to[1]] = 1.0
    return problem(MDP(tensor, discount=discount), reward)


SUTTON_BARTO_RANDOM = np.array([  # example 3.5, figure 3.2, as printed
    [3.3, 8.8, 4.4, 5.3, 1.5], [1.5, 3.0, 2.3, 1.9, 0.5], [0.1, 0.7, 0.7, 0.4, -0.4], [-1.0, -0.4, -0.4, -0.6, -1.2],
    [-1.9, -1.3, -1.2, -1.4, -2.0]]).ravel()
SUTTON_BARTO_OPTIMAL = np.array([  # example 3.8, figure 3.5
    [22.0, 24.4, 22.0, 19.4, 17.5], [19.8, 22.0, 19.8, 17.8, 16.0], [17.8, 19.8, 17.8, 16.0, 14.4],
    [16.0, 17.8, 16.0, 14.4, 13.0], [14.4, 16.0, 14.4, 13.0, 11.7]]).ravel()


def sutton_barto_episodic():
    """Example 4.1: 4 x 4, ends in two corners, every step costs 1, discount 1."""
    return grid(4, 0.0, 1.0, goals=(0, 15), step=-1.0)


SUTTON_BARTO_EPISODIC = {  # figure 4.1: k steps of the random policy, as printed, and their limit
    1: [0, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, 0],
    2: [0, -1.7, -2, -2, -1.7, -2, -2, -2, -2, -2, -2, -1.7, -2, -2, -1.7, 0],
    3: [0, -2.4, -2.9, -3, -2.4, -2.9, -3, -2.9, -2.9, -3, -2.9, -2.4, -3, -2.9, -2.4, 0],
    10: [0, -6.1, -8.4, -9, -6.1, -7.7, -8.4, -8.4, -8.4, -8.4, -7.7, -6.1, -9, -8.4, -6.1, 0],
    None: [0, -14, -20, -22, -14, -18, -20, -20, -20, -20, -18, -14, -22, -20, -14, 0],
}


def recycling_robot(discount=0.9, alpha=0.8, beta=0.6, search=2.0, wait=1.0):
    """Sutton & Barto (2018), example 3.3: high (0) may search and wait, low (1) may search, wait and recharge."""
    matrix = np.array([[alpha, 1 - alpha], [1.0, 0.0], [1 - beta, beta], [0.0, 1.0], [1.0, 0.0]])
    mdp = MDP.from_pairs(matrix, [0, 0, 1, 1, 1], [0, 1, 0, 1, 2], discount)
    return Problem(mdp, np.array([search, wait, beta * search - 3 * (1 - beta), wait, 0.0]))


def gambler(heads=0.4, least=1):
    """Sutton & Barto (2018), example 4.3: stakes at least `least` on a coin, 1 for reaching 100, discount 1.

    Fortunes come back to themselves by chance, at no cost, but with a least stake of 1 every policy ends.
    """
    rows, state, action, reward = [], [], [], []
    for s in range(1, 100):
        for stake in range(least, min(s, 100 - s) + 1):
            row = np.zeros(101)
            row[s + stake] += heads
            row[s - stake] += 1 - heads
            rows.append(row)
            state.append(s)
            action.append(stake)
            reward.append(heads * (s + stake == 100))
    mdp = MDP.from_pairs(np.array(rows), state, action, 1.0, terminal=[0, 100])
    return Problem(mdp, np.array(reward))


# -- answers


class _Rows:
    """p @ x in long double, which SciPy's sparse matrices do not know."""

    def __init__(self, mdp):
        self.pair = np.repeat(np.arange(mdp.n_pairs), np.diff(mdp.indptr))
        self.column, self.p, self.n = mdp.indices, mdp.probability.astype(np.longdouble), mdp.n_pairs

    def __matmul__(self, x):
        total = np.zeros(self.n, np.longdouble)
        np.add.at(total, self.pair, self.p * x[self.column])
        return total


def accurate_values(problem, temperature=0.0, log_reference=None, policy=None):
    """(n_states,) values to about 1e-17 of their size: policy iteration whose residual is taken in long double.

    Where Q ties, any choice will do: a correction is solved for the residual of TV itself, which ties do not move.
    """
    mdp, long = problem.mdp, np.longdouble
    p = _Rows(mdp)
    reward = problem.reward.astype(long)
    if policy is not None:
        with np.errstate(divide="ignore"):
            reward = ref.policy_reward(mdp, policy, problem.reward, temperature, log_reference).astype(long)
        if temperature > 0:  # once more in long double
            taken = policy > 0
            reward[taken] = problem.reward[taken] - long(temperature) * np.log(policy[taken].astype(long))
            if log_reference is not None:
                reward[taken] += long(temperature) * np.asarray(log_reference, dtype=long)[taken]
    weight = None if log_reference is None or temperature == 0 else np.asarray(log_reference, dtype=long)
    open_pairs = ~np.isneginf(reward)
    if weight is not None:
        open_pairs &= np.isfinite(weight)
    if policy is not None:
        open_pairs &= policy > 0
    dead = np.zeros(mdp.n_states, bool)
    while True:
        if policy is None:
            now = (np.bincount(mdp.pair_state[open_pairs], minlength=mdp.n_states) == 0) & ~mdp.terminal
        else:
            now = np.zeros(mdp.n_states, bool)
            now[mdp.pair_state[(policy > 0) & ~open_pairs]] = True
        if mdp.discount == 0 or np.array_equal(now, dead):
            break
        dead = now
        open_pairs &= (p @ dead) == 0
    dead = now
    counts = np.maximum(np.bincount(mdp.pair_state[open_pairs], minlength=mdp.n_states), 1)
    start = open_pairs / counts[mdp.pair_state] if policy is None else policy * open_pairs
    value = np.zeros(mdp.n_states, long)
    eye = np.eye(mdp.n_states)
    last = np.inf
    for turn in range(200):
        q = np.where(open_pairs, reward + long(mdp.discount) * (p @ value), -np.inf)
        new, choice = np.zeros(mdp.n_states, long), np.zeros(mdp.n_pairs)
        for s, own in ref.by_state(mdp, q):
            if dead[s]:
                continue
            if policy is not None:
                new[s] = (policy[own].astype(long) * np.where(open_pairs[own], q[own], 0)).sum()
                choice[own] = start[own]
            elif temperature == 0:
                new[s] = q[own].max()
                choice[own.start + int(np.argmax(q[own]))] = 1.0
            else:
                score = q[own] / long(temperature) + (0 if weight is None else weight[own])
                top = score.max()
                mass = np.exp(score - top)
                new[s] = long(temperature) * (top + np.log(mass.sum()))
                choice[own] = (mass / mass.sum()).astype(float)
        if turn == 0:
            choice = start  # the policy that takes all pairs comes to an end wherever any does
            new = np.zeros(mdp.n_states, long)
            np.add.at(new, mdp.pair_state, choice * np.where(open_pairs, q, 0))
            if temperature > 0 and policy is None:
                taken = choice > 0
                np.add.at(new, mdp.pair_state[taken], -temperature * choice[taken] * (
                    np.log(choice[taken]) - (0 if weight is None else weight[taken])))
        mix = sparse.csr_array((choice, np.arange(mdp.n_pairs), mdp.pair_ptr), shape=(mdp.n_states, mdp.n_pairs))
        matrix = (mix @ mdp.transitions).toarray()
        matrix[:, dead] = 0.0
        step = np.linalg.solve(eye - mdp.discount * matrix, np.asarray(new - value, dtype=float))
        value = value + step
        size = np.abs(step).max(initial=0.0)
        if turn > 2 and (size <= 1e-18 * np.abs(value).max(initial=1e-300) or size >= last > 0
                         and last <= 1e-15 * np.abs(value).max(initial=1e-300)):
            break
        last = size
    else:
        raise ArithmeticError("no fixed point within 200 steps")
    value[dead] = -np.inf
    return value


def distance(value, exact):
    """Largest |V - V*| over all states, inf where only one of them is -inf."""
    lost = np.isneginf(np.asarray(exact, dtype=float))
    if not np.array_equal(np.isneginf(value), lost):
        return np.inf
    return float(np.abs(value[~lost] - exact[~lost]).max(initial=0.0))
