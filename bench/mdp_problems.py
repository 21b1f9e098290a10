"""Named Markov decision processes: seeded, in pair form, with references that are not ours.

    grid       slippery gridworld m × m: four moves; 0.8 goes as meant, 0.1 to either side; a wall bumps and the walker stays
    local      sparse random, locally connected ("p"): five successors within two rows and columns on a √n × √n board
    random     sparse random ("r"): five successors anywhere

Discount 0.99. Rewards of a grid are a state's own, uniform on [-1, 0], and 10 in the goal, which is not left out of the
game: it is a state like others. Those of the random ones are uniform on [0, 1], one a pair. Features of a gradient: the
reward itself, which its weight 1 brings back, and three columns of noise; trips begin in a hundred states.

A reference is Newton's method whose residual is taken in long double, until it is 1e-11 near: by residual / (1 - discount).
References of the large problems are kept in the folder that FASTIRL_BENCH_CACHE names (default: one in the temporary folder).
"""

import os
import tempfile
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy as np
import scipy.sparse as sp
from scipy.sparse.linalg import LinearOperator, bicgstab, gmres

DISCOUNT = 0.99
N_ACTIONS = 4
SMALL = ("grid20", "local400", "random400")
FULL = ("grid50", "grid200", "grid1000", "local1e5", "random1e5", "local1e6", "random1e6")
_CACHED_FROM = 2000  # states
_VERSION = 2  # of the references


@dataclass(frozen=True)
class Problem:
    """One Markov decision process, every state with the same number of actions; pairs sorted by state, then action."""

    name: str
    family: str
    transitions: sp.csr_array = field(repr=False)
    reward: np.ndarray = field(repr=False)
    seed: int

    discount = DISCOUNT
    n_actions = N_ACTIONS

    @property
    def n_states(self):
        return self.transitions.shape[1]

    @property
    def n_pairs(self):
        return self.transitions.shape[0]

    @property
    def nnz(self):
        return self.transitions.nnz

    @property
    def pair_state(self):
        return np.repeat(np.arange(self.n_states, dtype=np.int32), self.n_actions)

    @property
    def pair_action(self):
        return np.tile(np.arange(self.n_actions, dtype=np.int32), self.n_states)

    @lru_cache(maxsize=1)  # noqa: B019 (one problem lives at a time)
    def features(self):
        """(n_pairs, 4): the reward and three columns of noise."""
        noise = np.random.default_rng(self.seed + 1).uniform(0, 1, (self.n_pairs, 3))
        return np.column_stack([self.reward, noise])

    def initial_distribution(self):
        """Trips begin in a hundred states, equally often."""
        begin = np.zeros(self.n_states)
        chosen = np.random.default_rng(self.seed + 2).choice(self.n_states, min(100, self.n_states), replace=False)
        begin[chosen] = 1 / chosen.size
        return begin

    def observed(self):
        """Observed discounted feature counts: those of pairs drawn evenly."""
        return self.features().mean(0) / (1 - self.discount)

    __hash__ = object.__hash__


@lru_cache(maxsize=1)
def build(name):
    """The problem of that name: grid50, local1e5, random400."""
    family = name.rstrip("0123456789e")
    size = int(float(name[len(family):]))
    make = {"grid": _grid, "local": _local, "random": _random}[family]
    transitions, reward, seed = make(size)
    return Problem(name, family, transitions, reward, seed)


def _grid(side, slip=0.2, seed=1):
    n = side * side
    row, column = np.divmod(np.arange(n), side)
    moves = [np.clip(row + down, 0, side - 1) * side + np.clip(column + right, 0, side - 1)
             for down, right in ((-1, 0), (0, 1), (1, 0), (0, -1))]
    ways = ((0, 1 - slip), (1, slip / 2), (3, slip / 2))
    pair = np.arange(4 * n).reshape(n, 4)
    rows = np.concatenate([pair[:, action] for action in range(4) for _ in ways])
    heads = np.concatenate([moves[(action + turn) % 4] for action in range(4) for turn, _ in ways])
    probability = np.concatenate([np.full(n, p) for _ in range(4) for _, p in ways])
    transitions = _canonical(sp.csr_array((probability, (rows, heads)), shape=(4 * n, n)))
    reward = np.random.default_rng(seed).uniform(-1, 0, n)
    reward[-1] = 10.0
    return transitions, np.repeat(reward, 4), seed


def _local(n_states, radius=2, seed=2):
    side = int(np.sqrt(n_states))
    n = side * side
    rng = np.random.default_rng(seed)
    row, column = np.divmod(np.repeat(np.arange(n, dtype=np.int32), N_ACTIONS), side)
    near = [np.clip(place[:, None] + rng.integers(-radius, radius + 1, (4 * n, 5), dtype=np.int32), 0, side - 1)
            for place in (row, column)]
    return *_dirichlet(near[0] * side + near[1], n, rng), seed


def _random(n_states, seed=3):
    rng = np.random.default_rng(seed)
    return *_dirichlet(rng.integers(0, n_states, (4 * n_states, 5), dtype=np.int32), n_states, rng), seed


def _dirichlet(heads, n, rng):
    """Rows of Dirichlet(1) probabilities on the given successors, and a reward for each row."""
    n_pairs, width = heads.shape
    probability = rng.standard_exponential((n_pairs, width))
    probability /= probability.sum(1, keepdims=True)
    ends = np.arange(0, n_pairs * width + 1, width, dtype=np.int32)
    transitions = sp.csr_array((probability.ravel(), heads.ravel(), ends), shape=(n_pairs, n))
    return _canonical(transitions), rng.uniform(0, 1, n_pairs)


def _canonical(matrix):
    matrix.sum_duplicates()
    return sp.csr_array((matrix.data, matrix.indices.astype(np.int32), matrix.indptr.astype(np.int32)), shape=matrix.shape)


# -- references


def reference(problem, task):
    """{"value": V*, "gradient": …}: V* of the task "hard" or "soft" within 1e-11; the gradient with the task "gradient"."""
    folder = Path(os.environ.get("FASTIRL_BENCH_CACHE", Path(tempfile.gettempdir(), "fastirl-bench")))
    kind = "hard" if task == "hard" else "soft"
    path = folder / f"{problem.name}-{task}-{_VERSION}.npz"
    if path.exists():
        with np.load(path) as kept:
            return dict(kept)
    if task == "gradient":
        answer = {"gradient": _gradient(problem, reference(problem, "soft")["value"])}
    else:
        value, bound = _solve(problem, kind == "soft")
        assert bound <= 1e-11, f"the reference of {problem.name}, {task}, is only {bound:.1e} near"
        answer = {"value": value, "bound": bound}
    if problem.n_states >= _CACHED_FROM:
        folder.mkdir(parents=True, exist_ok=True)
        np.savez(path.with_suffix(f".{os.getpid()}.npz"), **answer)
        path.with_suffix(f".{os.getpid()}.npz").rename(path)
    return answer


def _backup(problem, q, soft):
    """(V, policy) of pair values q, in q's own precision."""
    q = q.reshape(problem.n_states, -1)
    best = q.max(1)
    if not soft:
        return best, (q.argmax(1)[:, None] == np.arange(q.shape[1])).astype(float).ravel()
    weight = np.exp(q - best[:, None])
    total = weight.sum(1)
    return best + np.log(total), (weight / total[:, None]).astype(float).ravel()


def _pair_values(problem, value, block=2**19):
    """reward + discount P V, in the precision of `value`."""
    matrix, q = problem.transitions, np.empty(problem.n_pairs, dtype=value.dtype)
    for begin in range(0, problem.n_pairs, block):
        ends = matrix.indptr[begin:begin + block + 1]
        terms = matrix.data[ends[0]:ends[-1]] * value[matrix.indices[ends[0]:ends[-1]]]
        q[begin:begin + block] = np.add.reduceat(terms, ends[:-1] - ends[0])
    return problem.reward + q * value.dtype.type(problem.discount)


def policy_matrix(problem, policy):
    """P of a policy: the rows of a state follow each other, so its CSR is that of the tensor with fewer row ends."""
    matrix = problem.transitions
    data = matrix.data * np.repeat(policy, np.diff(matrix.indptr))
    merged = sp.csr_array((data, matrix.indices, matrix.indptr[::problem.n_actions]), shape=(problem.n_states,) * 2)
    return merged


def _solve(problem, soft, max_steps=100):
    value = np.zeros(problem.n_states, dtype=np.longdouble)
    best = np.inf
    for _ in range(max_steps):
        new, policy = _backup(problem, _pair_values(problem, value), soft)
        residual = new - value
        bound = float(abs(residual).max()) / (1 - problem.discount)
        if bound <= 5e-12:
            return value.astype(float), np.float64(bound + np.spacing(float(abs(value).max())))
        best = min(best, bound)
        value = value + solve_linear(policy_matrix(problem, policy), residual.astype(float), problem.discount,
                                     1e-3 if bound > 1e-3 else 1e-6)
    raise RuntimeError(f"the reference of {problem.name} came only {best:.1e} near after {max_steps} steps")


def solve_linear(matrix, right, discount, rtol, transposed=False):
    """x with (I - discount M) x = right, by BiCGStab; restarted, then by GMRES, where it stalls."""
    if transposed:
        matrix = matrix.T.tocsr()
    operator = LinearOperator(matrix.shape, lambda x: x - discount * (matrix @ x), dtype=float)
    x, goal = np.zeros(right.size), rtol * np.linalg.norm(right)
    for trial in range(30):
        rest = right - operator @ x
        size = np.linalg.norm(rest)
        if size <= goal:
            return x
        solver = bicgstab if trial < 20 else gmres
        step, _ = solver(operator, rest, rtol=min(0.5, goal / size), atol=0, maxiter=300)
        if np.linalg.norm(rest - operator @ step) < size:
            x = x + step
        else:  # stalled: some plain sweeps move on
            for _ in range(50):
                x = right + discount * (matrix @ x)
    raise RuntimeError("no Krylov solver came to the end")


def _gradient(problem, value):
    """observed - expected features at the soft policy, by the adjoint solve to 1e-12."""
    _, policy = _backup(problem, _pair_values(problem, value), True)
    visits = solve_linear(policy_matrix(problem, policy), problem.initial_distribution(), problem.discount, 1e-12, True)
    pair = np.repeat(visits, problem.n_actions) * policy
    return problem.observed() - problem.features().T @ pair
