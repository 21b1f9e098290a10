"""One adapter per peer: the same Markov decision process, the same answer, each library's own best way.

An adapter is built once per problem: whatever turns the arrays into the library's own form is not timed. Then

    solve()  ->  values within 1e-6 (tasks "hard" and "soft"), or observed - expected features (task "gradient").

Times are CPU seconds of one thread. `can` says which problems a peer is given, and `why_not` why not the others.
"""

import os
import statistics
import subprocess
import sys
import time
from importlib.util import find_spec
from types import MappingProxyType

import mdp_problems
import numpy as np
import scipy.sparse as sp
from scipy.sparse.linalg import LinearOperator, bicgstab

import fastirl as fi

TOL = 1e-6
BOUND = 0.9 * TOL  # of what a peer promises itself, so that rounding does not cost it the answer


def cpu_seconds(function, rounds):
    """CPU seconds of each round."""
    spent = []
    for _ in range(rounds):
        begin = time.process_time()
        function()
        spent.append(time.process_time() - begin)
    return spent


class Adapter:
    """What a peer can do: by default every problem."""

    tasks = ()
    needs = ()  # modules
    why_not = ""

    def __init__(self, problem, task):
        self.problem, self.task = problem, task

    @classmethod
    def can(cls, problem, task):
        return True

    @classmethod
    def missing(cls):
        """The reason to skip, or nothing."""
        absent = [name for name in cls.needs if find_spec(name) is None]
        return f"{absent[0]} is not installed: pip install {absent[0]}" if absent else ""

    def solve(self):
        raise NotImplementedError

    def seconds(self, rounds):
        return cpu_seconds(self.solve, rounds)

    def details(self):
        """Extra columns for the table."""
        return {}


# -- ours


class Fastirl(Adapter):
    """fastirl on one thread."""

    name = "fastirl"
    tasks = ("hard", "soft", "gradient")
    n_threads = 1

    def __init__(self, problem, task):
        super().__init__(problem, task)
        self.mdp = model_of(problem)
        if task == "gradient":
            self.features, self.begin, self.observed = gradient_data(problem)

    @classmethod
    def missing(cls):
        return "" if find_spec("fastirl.planning") else "this fastirl has no planning yet"

    def solve(self):
        from fastirl import planning

        reward, options = self.problem.reward, {"tol": TOL, "n_threads": self.n_threads}
        if self.task == "hard":
            self._found = planning.value_iteration(self.mdp, reward, "pair", **options)
            return self._found.value
        self._found = planning.soft_value_iteration(self.mdp, reward, "pair", **options)
        if self.task == "soft":
            return self._found.value
        visits = planning.visitation_frequencies(self.mdp, self._found.policy, self.begin, tol=1e-6,
                                                 n_threads=self.n_threads)
        return self.observed - self.features.T @ visits.pair

    def details(self):
        return {"method": self._found.method, "n_iter": int(self._found.n_iter),
                "error_bound": float(self._found.error_bound)}


def model_of(problem, discount=None):
    """The problem as fastirl's MDP, without a copy of the tensor."""
    discount = problem.discount if discount is None else discount
    return fi.MDP.from_pairs(problem.transitions, problem.pair_state, problem.pair_action, discount)


def gradient_data(problem):
    return problem.features(), problem.initial_distribution(), problem.observed()


# -- SciPy


def hard_backup(q, n_actions):
    """(max_a q, argmax) by columns: NumPy's own max over an axis of four is several times slower."""
    q = q.reshape(-1, n_actions)
    best, chosen = q[:, 0].copy(), np.zeros(q.shape[0], dtype=np.int32)
    for action in range(1, n_actions):
        better = q[:, action] > best
        np.copyto(best, q[:, action], where=better)
        chosen[better] = action
    return best, chosen


def hard_values(q, n_actions):
    q = q.reshape(-1, n_actions)
    return np.maximum.reduce([q[:, action] for action in range(n_actions)])


def soft_backup(q, n_actions):
    """(log sum_a exp q, policy), in place."""
    best = hard_values(q, n_actions)
    q = q.reshape(-1, n_actions)
    q -= best[:, None]
    np.exp(q, out=q)
    total = q[:, 0].copy()
    for action in range(1, n_actions):
        total += q[:, action]
    q /= total[:, None]
    return best + np.log(total), q.ravel()


def soft_values(q, n_actions):
    best = hard_values(q, n_actions)
    q = q.reshape(-1, n_actions)
    q -= best[:, None]
    np.exp(q, out=q)
    total = q[:, 0].copy()
    for action in range(1, n_actions):
        total += q[:, action]
    return best + np.log(total)


class SciPyNewton(Adapter):
    """Newton's method with BiCGStab inside: policy iteration where the task is hard, soft policy iteration else.

    What made it fast, each choice measured on the problems of this bench (`options`, the best found by family):

    - the middle of the change is taken out of the right side: on constants I - g P is 1 - g, and the rest is what mixes;
    - MacQueen's bounds of the outer sweep stop it, not a small step: the last solve is often spared;
    - `rtol` of the inner solves: too loose loops for ever on grids, too tight is wasted; 1e-3 mostly, 1e-2 with sweeps;
    - `sweeps` of the optimality operator before each solve: policy iteration alone moves a goal's news by few cells a step;
    - `merge`: P of a soft policy by a sparse product (a grid's 12 entries a state become 5), or else for nothing: the rows
      of a state follow each other, so the scaled tensor with every fourth row end is P, duplicates and all;
    - one matrix, no I - g P: the operator is x - g P x;
    - a solve that stalls or blows up (BiCGStab does) is replaced by twenty sweeps under the policy.
    """

    name = "scipy newton + bicgstab"
    tasks = ("hard", "soft", "gradient")
    single = False
    options = MappingProxyType({
        ("hard", "grid"): {"sweeps": 40, "rtol": 1e-2},
        ("hard", "local"): {"sweeps": 1, "rtol": 1e-3},
        ("hard", "random"): {"sweeps": 3, "rtol": 1e-3},
        ("soft", "grid"): {"sweeps": 0, "rtol": 1e-3, "merge": True},
        ("soft", "local"): {"sweeps": 3, "rtol": 1e-2},
        ("soft", "random"): {"sweeps": 10, "rtol": 1e-1},
    })

    def __init__(self, problem, task):
        super().__init__(problem, task)
        self._first = np.arange(problem.n_states, dtype=np.int32) * problem.n_actions
        self._counts = np.diff(problem.transitions.indptr)
        if task == "gradient":
            self.features, self.begin, self.observed = gradient_data(problem)

    def solve(self):
        chosen = self.options["hard" if self.task == "hard" else "soft", self.problem.family]
        with np.errstate(all="ignore"):  # what blows up is seen and replaced
            value, policy = self._values(**chosen)
            return value if self.task != "gradient" else self._gradient(policy, chosen.get("merge", False))

    def _q(self, value):
        q = self.problem.transitions @ value
        q *= self.problem.discount
        q += self.problem.reward
        return q

    def _values(self, sweeps, rtol, merge=False):
        problem, hard = self.problem, self.task == "hard"
        factor = problem.discount / (1 - problem.discount)
        plain, backup = (hard_values, hard_backup) if hard else (soft_values, soft_backup)
        value = np.zeros(problem.n_states)
        for _ in range(500):
            for _ in range(sweeps):
                value = plain(self._q(value), problem.n_actions)
            new, policy = backup(self._q(value), problem.n_actions)
            change = new - value
            least, most = change.min(), change.max()
            middle = (least + most) / 2
            if factor * (most - least) / 2 <= BOUND:
                return new + factor * middle, policy
            matrix = problem.transitions[self._first + policy] if hard else self._matrix(policy, merge)
            value += self._solve(matrix, change - middle, rtol) + middle / (1 - problem.discount)
        raise RuntimeError("no convergence")

    def _matrix(self, policy, merge):
        """P of a soft policy."""
        tensor, n, n_actions = self.problem.transitions, self.problem.n_states, self.problem.n_actions
        if merge:
            ends = np.arange(0, policy.size + 1, n_actions, dtype=np.int32)
            return sp.csr_array((policy, np.arange(policy.size, dtype=np.int32), ends), shape=(n, policy.size)) @ tensor
        data = tensor.data * np.repeat(policy, self._counts)
        return sp.csr_array((data, tensor.indices, tensor.indptr[::n_actions]), shape=(n, n))

    def _solve(self, matrix, right, rtol, maxiter=300):
        kind = np.float32 if self.single else np.float64
        matrix, right, discount = matrix.astype(kind, copy=False), right.astype(kind, copy=False), kind(0.99)
        operator = LinearOperator(matrix.shape, lambda x: x - discount * (matrix @ x), dtype=kind)
        found, _ = bicgstab(operator, right, rtol=rtol, atol=0, maxiter=maxiter)
        if np.linalg.norm(right - operator @ found) < np.linalg.norm(right):  # False where it is not finite
            return found
        found = right
        for _ in range(20):
            found = right + discount * (matrix @ found)
        return found

    def _gradient(self, policy, merge):
        """observed - expected features: the adjoint solve, scaled to the mass that visits must have."""
        discount = self.problem.discount
        matrix = self._matrix(policy, merge).T
        if self.problem.family != "random":  # there the conversion costs more than it saves
            matrix = matrix.tocsr()
        operator = LinearOperator(matrix.shape, lambda x: x - discount * (matrix @ x), dtype=float)
        visits = np.zeros(self.problem.n_states)
        for _ in range(20):
            rest = self.begin - operator @ visits
            size = abs(rest).sum()
            if size <= 1e-7:
                break
            step, _ = bicgstab(operator, rest, rtol=max(1e-7 / size / 30, 1e-9), atol=0, maxiter=300)
            if not abs(rest - operator @ step).sum() < size:
                step = sum_of_sweeps(matrix, rest, discount, 50)
            visits += step
        visits /= visits.sum() * (1 - discount)
        return self.observed - self.features.T @ (np.repeat(visits, self.problem.n_actions) * policy)


class SciPyNewtonPlain(SciPyNewton):
    """The textbook forty lines, not tuned to these problems: P by a sparse product, a tight inner tolerance, stop by residual."""

    name = "scipy newton + bicgstab, plain"

    def solve(self):
        problem, hard = self.problem, self.task == "hard"
        backup = hard_backup if hard else soft_backup
        value = np.zeros(problem.n_states)
        for _ in range(500):
            new, policy = backup(self._q(value), problem.n_actions)
            change = new - value
            if abs(change).max() <= BOUND * (1 - problem.discount):
                break
            matrix = problem.transitions[self._first + policy] if hard else self._matrix(policy, True)
            value = value + self._solve(matrix, change, 1e-4)
        return new if self.task != "gradient" else self._gradient(policy, True)


class SciPyJacobi(SciPyNewton):
    """Plain sweeps with MacQueen's bounds: V* = TV + g/(1 - g) [least, most] of TV - V; the middle is the answer.

    On well mixed models nothing that needs a linear solve can be much faster. A gradient ends with the same adjoint solve.
    """

    name = "scipy jacobi, span bounds"
    why_not = "the span shrinks too slowly: thousands of sweeps"

    @classmethod
    def can(cls, problem, task):
        return problem.family == "random" or (problem.n_states <= 40_000 and task != "gradient")

    def _values(self, sweeps, rtol, merge=False):
        problem, factor = self.problem, self.problem.discount / (1 - self.problem.discount)
        backup = hard_values if self.task == "hard" else soft_values
        value = np.zeros(problem.n_states)
        for _ in range(100_000):
            new = backup(self._q(value), problem.n_actions)
            value -= new
            least, most = -value.max(), -value.min()
            value = new
            if factor * (most - least) / 2 <= BOUND:
                policy = soft_backup(self._q(value), problem.n_actions)[1] if self.task == "gradient" else None
                return value + factor * (most + least) / 2, policy
        raise RuntimeError("no convergence")


class SciPyNewtonSingle(SciPyNewton):
    """The same with its inner solves in single precision: an inner tolerance of 1e-2 needs no more, and bytes are time."""

    name = "scipy newton + bicgstab, inner float32"
    single = True
    options = MappingProxyType({
        ("hard", "grid"): {"sweeps": 20, "rtol": 1e-2},
        ("hard", "local"): {"sweeps": 1, "rtol": 1e-3},
        ("hard", "random"): {"sweeps": 3, "rtol": 1e-3},
        ("soft", "grid"): {"sweeps": 0, "rtol": 1e-3, "merge": True},
        ("soft", "local"): {"sweeps": 1, "rtol": 1e-3},
        ("soft", "random"): {"sweeps": 1, "rtol": 1e-4},
    })


def sum_of_sweeps(matrix, right, discount, count):
    found = right.copy()
    for _ in range(count):
        found = right + discount * (matrix @ found)
    return found


# -- QuantEcon and mdpsolver: hard maxima only


class QuantEcon(Adapter):
    """QuantEcon's DiscreteDP in state-action-pair form: SciPy's products, Numba's maxima; k is the best of 5, 20, 50, 100,
    200."""

    tasks = ("hard",)
    needs = ("quantecon",)
    method = "modified_policy_iteration"
    name = "quantecon modified policy iteration"
    options = MappingProxyType({"grid": {"k": 20}, "local": {"k": 100}, "random": {"k": 20}})

    def __init__(self, problem, task):
        from quantecon.markov import DiscreteDP

        super().__init__(problem, task)
        tensor = sp.csr_matrix(problem.transitions)
        self.model = DiscreteDP(problem.reward, tensor, problem.discount, problem.pair_state, problem.pair_action)

    def solve(self):
        found = self.model.solve(method=self.method, epsilon=TOL, max_iter=10**6, **self.options.get(self.problem.family, {}))
        return found.v


class QuantEconValueIteration(QuantEcon):
    name, method, options = "quantecon value iteration", "value_iteration", MappingProxyType({})
    why_not = "about 2,000 sweeps without a span bound"

    @classmethod
    def can(cls, problem, task):
        return problem.n_states <= 40_000


class QuantEconPolicyIteration(QuantEcon):
    name, method, options = "quantecon policy iteration", "policy_iteration", MappingProxyType({})
    why_not = "its sparse LU fills in"

    @classmethod
    def can(cls, problem, task):
        return problem.n_states <= 2500


class MDPSolver(Adapter):
    """mdpsolver's modified policy iteration in C++ on one thread; its tolerance is chosen so that the answer is right."""

    name = "mdpsolver"
    tasks = ("hard",)
    needs = ("mdpsolver",)
    why_not = "it takes nested lists of Python numbers, and was 5 to 20 times slower than others at 10^5 states"

    @classmethod
    def can(cls, problem, task):
        return problem.n_states <= 40_000

    def __init__(self, problem, task):
        super().__init__(problem, task)
        import mdpsolver

        ends, k = problem.transitions.indptr, problem.n_actions
        data, heads = problem.transitions.data.tolist(), problem.transitions.indices.tolist()
        self.model = mdpsolver.model()
        self.model.mdp(
            discount=problem.discount, rewards=problem.reward.reshape(-1, k).tolist(),
            tranMatProbs=[[data[ends[i]:ends[i + 1]] for i in range(s, s + k)] for s in range(0, problem.n_pairs, k)],
            tranMatColumns=[[heads[ends[i]:ends[i + 1]] for i in range(s, s + k)] for s in range(0, problem.n_pairs, k)],
        )

    def solve(self):
        self.model.solve(algorithm="mpi", tolerance=TOL, parallel=False, verbose=False, makeFinalCheck=False,
                         initValueVector=[0.0] * self.problem.n_states)
        return np.asarray(self.model.getValueVector())


ADAPTERS = (Fastirl, SciPyNewton, SciPyNewtonSingle, SciPyNewtonPlain, SciPyJacobi, QuantEcon, QuantEconValueIteration,
            QuantEconPolicyIteration, MDPSolver)


def find(name):
    return next(item for item in ADAPTERS if item.name == name)


# -- memory: python mdp_libraries.py PROBLEM TASK LIBRARY prints bytes at the peak beyond the user's arrays


def _status(key):
    with open("/proc/self/status", encoding="ascii") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith(key))


def peak_bytes(problem, task, library):
    """Measured in a process of its own: conversion to the library's form, solve and result, beyond the arrays given."""
    command = [sys.executable, __file__, problem, task, library]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    return int(subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout)


def _main(name, task, library):
    import gc

    adapter = find(library)
    adapter(mdp_problems.build("grid20"), task).solve()  # what imports and compilers take is not the solver's
    problem = mdp_problems.build(name)
    if task == "gradient":
        gradient_data(problem)
    gc.collect()
    with open("/proc/self/clear_refs", "w", encoding="ascii") as file:
        file.write("5")  # the high-water mark starts anew
    before = _status("VmRSS")
    built = adapter(problem, task)
    kept = [built.solve()]
    if library == Fastirl.name:
        kept += [built._found.policy, built._found.q]  # whatever is put off until it is asked for
    print(_status("VmHWM") - before)


def median(seconds):
    return statistics.median(seconds) if seconds else float("nan")


if __name__ == "__main__":
    _main(*sys.argv[1:])
