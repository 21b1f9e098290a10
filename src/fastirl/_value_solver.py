"""Solvers of Bellman equations: the problem as the kernels see it, the matrix of a policy, iterations, certificates.

Symbols (Puterman 1994): T the Bellman operator, V values, P_π transitions of a policy, γ the discount.
"""

import math
import sys
from dataclasses import dataclass

import numpy as np
from scipy import sparse
from scipy.sparse import csgraph
from scipy.sparse.linalg import splu

from . import _planning
from ._end_components import drain, end_components, ends_surely, gains, reaches_end
from ._parallel import thread_count
from ._validation import plain, shown, whole_number
from .exceptions import DivergenceError, InvalidInputError

__all__ = ["Problem", "PolicySolver", "Run", "solve_soft", "check_ends", "progress_of", "reachable_under"]

_U = 2.0**-53  # unit roundoff
_U_SINGLE = 2.0**-24  # that of single precision
_SMALL = 256  # states up to which a dense factorisation costs less than it risks
_PRECISE = 3_000  # states up to which a matrix that is nearly singular is factored in double precision
_DIRECT = 50_000  # states up to which a sparse factorisation stands in for a Krylov solver that stalls
_SOLVER_BLOCK = 32_768  # states of a block of the solver's matrix: fixed by the data, so the bits are
_HEADWAY = 100_000, 5_000  # sweeps without any after which a run is given up: plain ones, those of policy iteration and Newton
_INNER = 40  # sweeps of a policy between two choices
_WALK = 125_000  # states of a part of a sweep in place
_ROUGH = 250_000  # states from which values in single precision are gathered faster: fewer of them miss the caches
_ONE_THREAD = 1_000_000  # entries below which a second thread costs more than it saves


# -- the problem, as the kernels see it ---------------------------------------------------------------


class Problem:
    """Effective rewards, states whose value is fixed, the compiled model and the constants of the bounds.

    `kind` is "hard", "soft" or "policy" (then `policy` is given). Terminal states have value 0; dead states, which the
    rewards forbid, have value −inf. Both stand at 0 in the sweeps, and pairs that may lead to a dead state are
    forbidden. `idle` states are left out too.
    """

    def __init__(self, mdp, reward, kind, temperature=0.0, reference_policy=None, n_threads=None, policy=None,
                 idle=None):
        if n_threads is not None:
            whole_number("n_threads", n_threads, lower=1)
        self.mdp, self.kind, self.temperature, self.policy = mdp, kind, temperature, policy
        self.reward = reward if temperature == 0 else np.array(reward)  # entropy is added to a copy
        self.plain_reward = self.reward.copy() if temperature > 0 else self.reward
        if temperature > 0:
            self._add_entropy(reference_policy)
        self.own_reward = self.reward
        self.idle, self.asked_threads = idle, n_threads
        self.n_threads = thread_count(n_threads, openmp=True) if mdp.nnz >= _ONE_THREAD else 1
        self.reward, dead = self._for_ever()
        self._set_model(dead)

    def _set_model(self, dead):
        mdp = self.mdp
        self.dead = dead
        fixed = mdp.terminal | dead
        width, longest, choices = _facts(mdp)
        self.fixed = np.ascontiguousarray(fixed if self.idle is None else fixed | self.idle).view(np.uint8)
        self.free = self.fixed == 0
        self.any_free = bool(self.free.any())
        self.model = _planning.Model(
            mdp.pair_ptr, mdp.indptr, mdp.indices, mdp.probability, self.reward, self.fixed, mdp.discount,
            self.temperature if self.kind == "soft" else 1.0, width, longest=longest, actions=choices,
        )
        self._set_constants()

    def _twin(self, reward, dead):
        twin = Problem.__new__(Problem)
        twin.__dict__.update(self.__dict__)
        twin.reward = reward
        twin._set_model(dead)
        return twin

    def with_reward(self, reward):
        """The same with other rewards, for Q values."""
        return self._twin(np.ascontiguousarray(reward), self.dead)

    def before(self, dead_next):
        """The problem of one step whose next values are −inf in these states (0 stands for them)."""
        if not dead_next.any() and float(np.min(self.own_reward, initial=0.0)) > -math.inf:
            return self
        reward, dead = self._one_step(dead_next)
        if (dead == self.dead).all() and np.array_equal(reward, self.reward):
            return self
        twin = self._twin(reward, dead)
        # what is dead now need not be at the next time: its value counts
        twin.beta_least, twin.beta_most = 0.0, self.mdp.discount * self.mdp.max_row_sum * (1.0 + (self.entries + 2) * 2 * _U)
        return twin

    def _add_entropy(self, reference):
        """Rewards that carry T log π_ref, and for a given policy its own −T log π."""
        if reference is not None:
            with np.errstate(divide="ignore"):
                self.reward += self.temperature * np.log(reference)
        if self.policy is not None:
            chosen = self.policy > 0
            self.reward[chosen] -= self.temperature * np.log(self.policy[chosen])

    def _one_step(self, dead_next):
        """(reward, dead): pairs that may lead to these states are forbidden; states left without a pair are dead."""
        mdp = self.mdp
        reward = self.own_reward.copy()
        if dead_next.any() and mdp.discount > 0:  # at discount 0 the future does not count, not even −inf
            reward[(mdp.transitions @ dead_next.astype(float)) > 0] = -np.inf
        forbidden = np.isneginf(reward)
        if self.policy is None:
            dead = (np.bincount(mdp.pair_state[~forbidden], minlength=mdp.n_states) == 0) & ~mdp.terminal
        else:
            dead = np.zeros(mdp.n_states, bool)
            dead[mdp.pair_state[forbidden & (self.policy > 0)]] = True
        return reward, dead

    def _for_ever(self):
        """(reward, dead) of an infinite horizon: the same, until nothing changes."""
        dead = np.zeros(self.mdp.n_states, bool)
        if float(np.min(self.own_reward, initial=0.0)) > -math.inf:
            return self.own_reward, dead
        passes = 0
        while True:
            reward, now = self._one_step(dead)
            if (now == dead).all():
                return reward, dead
            passes += 1
            # what dies one state a pass is followed through the graph
            dead = drain(self.mdp, np.isfinite(reward), now) if passes > 30 and self.policy is None else now

    def _set_constants(self):
        """What bounds need: extremes of the mass that stays in play, sizes of rewards, entries, choices."""
        mdp = self.mdp
        _, self.entries, self.choices = _facts(mdp)
        least, most = mdp.min_row_sum, mdp.max_row_sum
        if self.fixed.any():
            least, most = _planning.row_extremes(self.model)
        least = min(least, most)
        slack = 1.0 + (self.entries + 2) * 2 * _U  # the sums are rounded too
        self.beta_least, self.beta_most = mdp.discount * least / slack, mdp.discount * most * slack
        low, high = float(np.min(self.reward, initial=0.0)), float(np.max(self.reward, initial=0.0))
        if low == -math.inf:
            low = float(np.min(self.reward, initial=0.0, where=self.reward > -math.inf))
        if self.temperature > 0:  # a reward and the logarithm that is added to it may cancel
            high = max(high, float(np.max(self.plain_reward, initial=0.0)))
        self.reward_size, self.most_reward = max(-low, high), high
        self.uneven = mdp.discount * (max(1.0 - mdp.min_row_sum, mdp.max_row_sum - 1.0, 0.0) + (self.entries + 2) * 2 * _U)
        # no mass is lost anywhere: a constant change of all values has a constant effect
        self.even = self.beta_least >= self.beta_most * (1 - 1e-9) and bool(self.free.all())

    @property
    def soft(self):
        return self.kind == "soft"

    @property
    def discounted(self):
        """Whether a sweep contracts by itself: below discount 1, or where every row loses mass."""
        return self.beta_most < 1.0 or not self.any_free

    def sweep(self, value, out, choice=None, silent=False, q=None, rough=None, middle=0.0):
        """out = T value; (least, most) change. `choice` gets the best pairs (hard) or the policy (soft), `q` all Q (hard).

        `silent` says that all of value is 0, which spares the transitions; `rough` is value − middle in single precision.
        """
        if self.kind == "hard":
            return self.model.hard(value, out, choice, self.n_threads, q, silent, rough, middle)
        if self.kind == "soft":
            return self.model.soft(value, out, choice, self.n_threads, silent, rough, middle)
        return self.model.expected(self.policy, value, out, self.n_threads)

    def rounding(self, value_size, both=False):
        """Bound on the rounding error of one sweep of values of this size: a sum of products, a maximum, log-sum-exp where
        soft. `both` says that the sweep's result is of this size at most too.

        Then a pair of a far lower reward than that is not the best, whatever its own rounding; in a log-sum-exp it weighs
        exp(−gap / T), and gap · exp(−gap / T) < T / 2.
        """
        ahead = max(self.beta_most, 1e-300) * value_size
        rewards = self.reward_size
        if both and self.kind != "policy":
            rewards = min(rewards, max(self.most_reward, 1.01 * (value_size + ahead)))
        error = (self.entries + 3) * ahead + 2 * rewards
        if self.soft:
            error += 2 * (rewards + ahead)
            error += self.temperature * (2 * self.choices + 16 + math.log(self.choices))
            if rewards < self.reward_size:
                error += self.temperature * 4 * self.choices
        elif self.kind == "policy":
            error += (self.choices + 2) * (rewards + ahead) + self.temperature * 2 * self.choices
        return 1.01 * _U * error

    def as_vector(self, best):
        """(n_pairs,) policy that takes the best[s]-th pair of each state."""
        policy = np.zeros(self.mdp.n_pairs)
        acts = np.flatnonzero(best >= 0)
        policy[self.mdp.pair_ptr[acts] + best[acts]] = 1.0
        return policy


def _facts(mdp):
    """(width, entries, choices), kept on the model: entries of every pair (0 where they differ, −1 where each has one and
    it is 1), the most entries of a pair, the most pairs of a state.
    """
    found = mdp.__dict__.get("_solver_facts")
    if found is None:
        sizes = np.diff(mdp.indptr)
        most = int(sizes.max(initial=1))
        same = bool(sizes.size) and int(sizes.min()) == most
        width = 0 if not same else -1 if most == 1 and mdp.deterministic else most
        found = mdp.__dict__["_solver_facts"] = width, most, int(np.diff(mdp.pair_ptr).max(initial=1))
    return found


def _pattern(problem, begin):
    """(where a policy's matrix has its entries, place of each entry of the tensor), kept on the model for rewards that forbid
    the same; (None, None) where a row has too many columns.

    Takes 2 bytes an entry of the tensor and about 2 a merged one; learning, and visits after values, need it again and again.
    """
    mdp = problem.mdp
    found = mdp.__dict__.get("_solver_pattern")
    if found is None or not np.array_equal(found[0], problem.fixed):
        slot, system = np.empty(mdp.nnz, np.uint16), _planning.System(mdp.n_states, begin)
        if not system.set_pattern(problem.model, slot):
            return None, None
        found = mdp.__dict__["_solver_pattern"] = problem.fixed, system.pattern(), slot
    return found[1:]


@dataclass
class _Bound:
    """V* lies within `half` of TV + shift."""

    shift: float
    half: float
    floor: float

    @property
    def total(self):
        return self.half + self.floor


def _discounted_bound(problem, least, most, value_size):
    """MacQueen-Porteus bounds from the extremes of TV − V (Puterman 1994, 6.6.3), rows that lose mass included.

    A change that is positive everywhere grows at most like the largest row sum and at least like the smallest.
    """
    high, low = problem.beta_most, problem.beta_least
    upper = most * (high / (1 - high) if most > 0 else low / (1 - low))
    lower = least * (high / (1 - high) if least < 0 else low / (1 - low))
    floor = problem.rounding(value_size, True) / (1 - high) + 2 * _U * (value_size + abs(upper) + abs(lower))
    return _Bound(0.5 * (lower + upper), 0.5 * (upper - lower), floor)


# -- the matrix of a policy ---------------------------------------------------------------------------


class PolicyMatrix:
    """I − γ P_π of the policy at hand and how to solve with it: BiCGStab, or a factorisation where that stalls."""

    def __init__(self, problem):
        self.problem = problem
        n = problem.mdp.n_states
        blocks = max(1, -(-n // _SOLVER_BLOCK))
        self.begin = np.linspace(0, n, blocks + 1).astype(np.int64)
        self.system = self.slot = self.policy = self.turned = None
        self.work = np.zeros(_planning.workspace(n))  # zeros: entries that fill rows up read them
        self.dense = None
        self.n_krylov, self.changed = 0, 1.0  # the share of rows that the last policy changed

    def set_mixed(self, policy):
        """Rows of a policy that mixes actions. False where a row has too many columns for the merged form."""
        problem, n = self.problem, self.problem.mdp.n_states
        self.policy = policy
        if n <= _SMALL:
            self.dense = self._dense_matrix(policy)
            return True
        if self.slot is None:
            pattern, self.slot = _pattern(problem, self.begin)
            if pattern is None:
                return False
            self.system = _planning.System(n, self.begin)
            self.system.use_pattern(pattern)
        self.system.set_merged(problem.model, self.slot, policy, problem.n_threads)
        return True

    def set_rows(self, best):
        """Rows of a policy that picks the best[s]-th pair of each state."""
        problem, mdp = self.problem, self.problem.mdp
        self.policy = best
        if mdp.n_states <= _SMALL:
            self.dense = self._dense_matrix(self.problem.as_vector(best))
            return
        if self.system is None:
            self.system = _planning.System(mdp.n_states, self.begin)
            self.system.make_room(problem.model)
            self.previous = np.full(mdp.n_states, -2, np.int32)
        self.changed = self.system.set_rows(problem.model, best, self.previous, problem.n_threads) / mdp.n_states

    def _dense_matrix(self, policy):
        return np.eye(self.problem.mdp.n_states) - self._exact(policy).toarray()

    def _exact(self, policy):
        """γ P_π between states that are free, in double precision."""
        problem, mdp = self.problem, self.problem.mdp
        weight = mdp.discount * policy
        weight[problem.fixed[mdp.pair_state] == 1] = 0.0
        mix = sparse.csr_array((weight, np.arange(mdp.n_pairs), mdp.pair_ptr), shape=(mdp.n_states, mdp.n_pairs))
        matrix = sparse.csr_array(mix @ mdp.transitions)
        matrix.data[problem.fixed[matrix.indices] == 1] = 0.0
        return matrix

    def solve(self, right, out, rtol, transposed=False):
        """out ≈ (I − γ P_π)^-1 right; the relative residual that the solver reports."""
        if self.dense is not None:
            matrix = self.dense.T if transposed else self.dense
            try:
                out[:] = np.linalg.solve(matrix, right)
            except np.linalg.LinAlgError:
                return math.inf
            return 0.0 if np.isfinite(out).all() else math.inf
        if self.problem.mdp.n_states <= _PRECISE and self.problem.beta_most > 1 - 1e-5:
            found = self._direct(right, out, transposed)  # too close to singular for single precision
            if found < math.inf:
                return found
        system = self.turned if transposed else self.system
        iterations, residual = system.solve(right, out, self.work, rtol, 400, self.problem.n_threads)
        self.n_krylov += iterations
        if not (residual <= max(0.5, rtol) and np.isfinite(out).all()):
            self.work[:] = 0.0  # nothing that is not a number may be left there
            return self._direct(right, out, transposed)
        return residual

    def transpose(self, keep=True):
        """Make ready for transposed solves; without `keep` the transposed matrix takes the place of the matrix."""
        if self.dense is None and self.turned is None:
            self.turned = self.system.transposed(self.problem.n_threads)
            if not keep:
                self.system = self.slot = None

    def _direct(self, right, out, transposed):
        """A sparse factorisation where Krylov stalled; inf where it would be too large."""
        n = self.problem.mdp.n_states
        if n > _DIRECT:
            return math.inf
        policy = self.policy
        if policy.dtype == np.int32:
            policy = self.problem.as_vector(policy)
        matrix = sparse.csc_array(sparse.eye_array(n) - self._exact(policy))
        try:
            out[:] = splu(matrix).solve(right, trans="T" if transposed else "N")
        except RuntimeError:
            return math.inf
        return 0.0 if np.isfinite(out).all() else math.inf


class PolicySolver:
    """Solutions of (I − γ P_π) x = b and of its transpose, refined in double precision; `problem` is of kind "policy".

    `matrix`, of the same model and fixed states, is used again; its pattern need not be found anew.
    """

    def __init__(self, problem, adjoint_only=False, matrix=None):
        self.problem, self.policy, self.adjoint_only = problem, problem.policy, adjoint_only
        self.silent = problem.with_reward(np.zeros(problem.mdp.n_pairs))
        self.matrix, self.ready = matrix, False
        self.n_iter = 0

    def _prepare(self, transposed):
        if not self.ready:
            self.matrix = self.matrix or PolicyMatrix(self.problem)
            self.matrix.problem, self.matrix.turned = self.problem, None
            if _is_sure(self.policy) and self.matrix.slot is None:
                self.matrix.set_rows(_places(self.problem.mdp, self.policy))
            elif not self.matrix.set_mixed(self.policy):
                raise InvalidInputError("a policy's matrix must have fewer than 65,535 next states in each row: this model "
                                        "is denser; split its states")
            self.ready = True
        if transposed:
            self.matrix.transpose(keep=not self.adjoint_only)

    def forward(self, right):
        """x = (I − γ P_π)^-1 right; 0 in fixed states."""
        right = np.where(self.problem.free, right, 0.0)

        def residual(x, out):
            self.silent.sweep(x, out)
            np.subtract(out, x, out=out)
            out += right
            out[~self.problem.free] = 0.0

        return self._refined(np.zeros_like(right), right.copy(), residual, False, False, 0.0)

    def adjoint(self, right, nonnegative=False, wanted=0.0):
        """x = (I − γ P_π')^-1 right; 0 in fixed states. Ends when Σ |residual| is at most `wanted`, or is rounding."""
        right, mdp = np.where(self.problem.free, right, 0.0), self.problem.mdp

        def step(x, out):
            _planning.push(self.problem.model, self.policy, x, None, out)
            out *= mdp.discount
            out[~self.problem.free] = 0.0
            self.n_iter += 1

        def residual(x, out):
            step(x, out)
            np.subtract(out, x, out=out)
            out += right
            out[~self.problem.free] = 0.0

        start, rest = np.zeros_like(right), right.copy()
        if mdp.n_states > _SMALL:
            start, rest = self._summed(right, step, residual, wanted)
            if self.rest <= wanted:
                return start
        return self._refined(start, rest, residual, True, nonnegative, wanted)

    def _summed(self, right, step, residual, wanted):
        """The series Σ (γP')^k b as far as it settles fast: once d_k+1 ≈ g d_k the rest is geometric. (x, residual)"""
        total, term, next_term = np.zeros_like(right), right.copy(), np.empty_like(right)
        spans = []
        for _ in range(60):
            step(term, next_term)
            size = float(term.sum())
            g = float(next_term.sum()) / size if size != 0.0 else 0.0
            if not 0.0 <= g < 1.0:
                break
            spans.append(float(np.abs(next_term - g * term).sum()) / (1.0 - g))
            if spans[-1] <= wanted:
                break
            if len(spans) >= 10:  # visits that begin in few states take that long to spread
                rate = max(spans[-1] / spans[-2], spans[-2] / spans[-3])
                if rate >= 1.0 or math.log(max(wanted, 1e-13 * spans[0]) / spans[-1]) / math.log(rate) > 40:
                    break
            total += term
            term, next_term = next_term, term
        size = float(term.sum())
        if 0.0 <= g < 1.0:
            total += term / (1.0 - g)
        residual(total, next_term)
        self.rest = float(np.abs(next_term).sum())
        if self.rest > float(np.abs(right).sum()):
            self.rest = float(np.abs(right).sum())
            return np.zeros_like(right), right.copy()
        return total, next_term

    def _refined(self, x, rest, residual, transposed, nonnegative, wanted):
        self._prepare(transposed)
        best, delta = math.inf, np.empty_like(rest)
        for _ in range(60):
            # single precision inside: a step gains several digits, until rounding is left
            size = float(np.abs(rest).sum())
            rtol = min(max(0.2 * wanted / size, 1e-6), 0.1) if size > 0 else 1e-6
            if self.matrix.solve(rest, delta, rtol, transposed=transposed) == math.inf:
                delta[:] = rest
            delta[~self.problem.free] = 0.0
            new = x + delta
            if nonnegative:
                np.maximum(new, 0.0, out=new)
            residual(new, rest)
            size = float(np.abs(rest).sum())
            if size < best:
                x = new
            if size <= wanted or size > 0.3 * best or size == 0.0:
                break
            best = size
        if x is not new:
            residual(x, rest)
        self.rest = float(np.abs(rest).sum() if transposed else np.abs(rest).max(initial=0.0))
        return x


def _is_sure(policy):
    """Whether each state takes one pair only."""
    return bool(((policy == 0) | (policy == 1)).all())


def _places(mdp, policy):
    """(n_states,) int32: the place of the pair taken among its state's."""
    best = np.full(mdp.n_states, -1, np.int32)
    taken = np.flatnonzero(policy == 1)
    best[mdp.pair_state[taken]] = taken - mdp.pair_ptr[mdp.pair_state[taken]]
    return best


# -- solving an infinite horizon ----------------------------------------------------------------------


class Run:
    """Iterates of one solve: a value, one sweep ahead of it, the bound, and when to stop.

    After a method has run, `value` is the answer and `bound` says how far off it can be.
    """

    def __init__(self, problem, tol, max_iter, value, progress, matrix=None):
        self.problem, self.tol, self.max_iter, self.progress = problem, tol, max_iter, progress_of(progress)
        self.value, self.ahead = value, np.empty_like(value)
        self.n_iter, self.message, self.matrix, self.method = 0, "", matrix, ""
        if matrix is not None:
            matrix.problem = problem
        self.best, self.stale, self.gained_at, self.proper, self.far = math.inf, 0, 0, None, False
        self.steps = _Steps(problem)
        n, n_pairs = problem.mdp.n_states, problem.mdp.n_pairs
        self.choice = {"hard": lambda: np.empty(n, np.int32), "soft": lambda: np.empty(n_pairs),
                       "policy": lambda: problem.policy}[problem.kind]()

    # one sweep

    def sweep(self, choose=False, q=None, rough=None):
        """One Jacobi sweep and its bound; True where the run has to end, with `value` the answer.

        `rough` is room for the values in single precision, from which the sweep is computed then; the bound counts that.
        """
        problem = self.problem
        choice = self.choice if choose and problem.kind != "policy" else None
        silent = self.n_iter == 0 and not self.value.any()
        middle = off = 0.0
        if rough is not None:
            low, high = float(self.value.min()), float(self.value.max())
            if 1e-30 < high - low < 1e30:  # else beyond the range of single precision
                middle = 0.5 * (low + high)
                # what is taken out comes back whole, but a row may sum to 1 only nearly
                off = problem.beta_most * _U_SINGLE * (high - low) + abs(middle) * problem.uneven
                np.subtract(self.value, middle, out=rough, casting="same_kind")
            else:
                rough = None
        self.least, self.most = problem.sweep(self.value, self.ahead, choice, silent, q, rough, middle)
        if not problem.any_free:
            self.least = self.most = 0.0
        self.residual = max(abs(self.least), abs(self.most))
        if not self.residual < math.inf:
            raise InvalidInputError(
                f"values must not overflow double precision: in sweep {self.n_iter + 1} they do; scale the rewards down, "
                "or lower the discount"
            )
        size = _size(self.ahead) + self.residual  # of the value swept too
        self.n_iter += 1
        if problem.discounted:
            self.bound = _discounted_bound(problem, self.least, self.most, size)
            self.bound.floor += off / (1 - problem.beta_most)
        else:
            self.bound = self.steps.bound(self, size)
        if self.progress is not None:
            self.progress(self.n_iter, self.bound.total)
        self.left = self.residual
        if self._ends(off > 0):
            if problem.discounted:
                self.left = (1 + problem.beta_most) * self.bound.half
                self.value = self.ahead
                if self.bound.shift:
                    self.value[problem.free] += self.bound.shift
            return True
        return False

    def _ends(self, rough=False):
        bound = self.bound
        if bound.total <= self.tol:
            return True
        if rough:
            return self._used_up()
        measure = bound.half if math.isfinite(bound.half) else self.residual
        if measure < 0.97 * self.best:
            self.best, self.stale, self.gained_at = measure, 0, self.n_iter
        else:
            self.stale += 1
        # below the rounding floor no sweep can gain anything, and near it they may go in circles
        still = self.problem.discounted or self.steps.still
        floored = bound.half <= bound.floor and (bound.floor >= self.tol or self.stale > 20)
        near = self.stale > 60 and bound.half <= 20 * bound.floor
        if (floored or near) and self.problem.discounted and self._begun_far_off():
            return self._used_up()
        # at discount 1 a check may fail for good: nothing is proven where ties or rounding stand against it
        over = self.steps.still and self.n_iter - self.gained_at > 150
        if still and (floored or near or over):
            self.message = f"rounding leaves a bound of {bound.total:.2g}"
            return True
        # a policy that all but never ends has a value that no sweep comes near
        slow = 1.0 / (1.0 - self.problem.beta_most) if self.problem.discounted else 0.0
        if self.n_iter - self.gained_at > max(slow, _HEADWAY[self.method in ("newton", "policy_iteration")]):
            self.message = f"{self.n_iter - self.gained_at} sweeps made no headway"
            return True
        return self._used_up()

    def _begun_far_off(self):
        """Whether the floor is that of values far larger than the answer, where a run began: then the next one is the answer."""
        size, shift = _size(self.ahead), self.bound.shift
        self.far = bool(self.problem.any_free and np.abs(self.ahead[self.problem.free] + shift).max() < 0.5 * size)
        return self.far

    def _used_up(self):
        if self.max_iter is not None and self.n_iter >= self.max_iter:
            self.message = f"max_iter={self.max_iter} sweeps are used up"
            return True
        return False

    def advance(self):
        self.value, self.ahead = self.ahead, self.value
        if self.far:
            self.value[self.problem.free] += self.bound.shift
            self.far = False

    def start_from(self, best):
        """Start at the value of a policy that ends: from there, policy iteration meets none that does not."""
        problem = self.problem
        if not problem.any_free:
            return
        matrix, right = PolicyMatrix(problem), np.empty_like(self.value)
        matrix.set_rows(best)
        problem.model.chosen(best, np.zeros_like(self.value), right)
        right[~problem.free] = 0.0
        if matrix.solve(right, self.ahead, 1e-6) < 1e-3:
            self.value[:] = self.ahead

    # methods

    def run(self, method):
        self.method = method
        getattr(self, {"policy_iteration": "newton"}.get(method, method))()
        return self

    def jacobi(self):
        while not self.sweep():
            self.advance()

    def gauss_seidel(self):
        """In-place sweeps forth and back over states ordered by value, a Jacobi sweep every few for the bound."""
        problem = self.problem
        free = np.flatnonzero(problem.free).astype(np.int32)
        rounds = 1
        while not self.sweep():
            self.advance()
            if rounds <= 16:
                # the best values first: what they are worth reaches the others in one sweep
                order = free[np.argsort(-self.value[free], kind="stable")]
            for k in range(rounds):
                problem.model.gauss_seidel(self.value, order, problem.soft, bool(k % 2))
            rounds = min(2 * rounds, 32)

    def modified_policy_iteration(self):
        """A sweep that chooses, then sweeps of the chosen policy alone (Puterman 1994, 6.5).

        They run on the correction V_new − V, so that the single precision of the policy's matrix does no harm.
        """
        problem = self.problem
        n = problem.mdp.n_states
        change, delta, other = np.empty(n), np.empty(n), np.empty(n)
        while not self.sweep(choose=True):
            matrix = self._matrix_of_choice()
            if matrix.system is None:  # few states: all the sweeps of a policy at once, by its factors
                np.subtract(self.ahead, self.value, out=change)
                if matrix.solve(change, delta, 0.0) == math.inf:
                    self.advance()
                else:
                    self.value += delta
                continue
            np.subtract(self.ahead, self.value, out=change)
            lift = self._lift(change)
            delta[:] = change
            for _ in range(_INNER):
                least, most = matrix.system.sweep(delta, change, other, problem.n_threads)
                delta, other = other, delta
                # as far as the next choice can make use of
                if most - least < 0.02 * (self.most - self.least):
                    break
            self.value += delta
            if lift:
                self.value += lift / (1 - problem.beta_most)

    def newton(self):
        """Policy iteration with an inexact solve: V ← V + (I − γ P_π)^-1 (TV − V), π the choice at V.

        For the soft problem this is Newton's method, for the hard one policy iteration (Puterman and Brumelle 1979), for
        a given policy iterative refinement. Where a solve fails, sweeps take its place; where nothing has improved for
        long, it is made tighter and sweeps go between.
        """
        problem = self.problem
        n = problem.mdp.n_states
        change, delta = np.empty(n), np.empty(n)
        rtol = {"hard": 0.1, "soft": 0.02, "policy": 1e-5}[problem.kind]
        if not problem.discounted:
            rtol = min(rtol, 1e-3)
        half = math.inf
        # by the data, so that any number of threads does the same
        parts = np.linspace(0, n, min(max(n // _WALK, 1), 8) + 1).astype(np.int64)
        patience = 60 if problem.kind == "hard" else 20
        last, kept, proper, trust = math.inf, None, self.proper, 1.0
        while not self.sweep(choose=True):
            if not problem.discounted and problem.kind != "policy":
                # a policy that all but never ends has a value that says nothing: begin at one that ends, then go slowly
                wild = kept is not None and _size(self.value) > 1e4 * trust * max(1.0, _size(kept))
                if wild or (problem.soft and self.residual > 4 * trust * last):
                    trust *= 64.0  # what comes again and again is right: values may be that large
                    if proper is not None:
                        self.start_from(proper)
                        proper, last, kept = None, math.inf, None
                        continue
                    self.value[:] = kept
                    self.sweep(choose=True)
                    if self._sweeps(20):
                        return
                last, kept = self.residual, self.value.copy()
            if self.stale > patience:
                rtol, self.stale, patience = max(rtol * 1e-2, 1e-6), 0, 2 * patience
                if self._sweeps(20):
                    return
            matrix = self._matrix_of_choice()
            if matrix is None:
                self.jacobi()
                return
            np.subtract(self.ahead, self.value, out=change)
            need = lift = 0.0
            if problem.discounted:  # no tighter than the answer needs
                need = 0.2 * self.tol / max(self.bound.half, 1e-300)
                lift = self._lift(change)
            # a policy that hardly changes any more is worth a closer solve
            close = min(rtol, 1e-3 if matrix.changed < 1e-3 else 1e-2 if matrix.changed < 1e-2 else 1.0)
            if matrix.solve(change, delta, min(max(close, need), 0.3)) == math.inf:
                if proper is not None:
                    self.start_from(proper)
                    proper, last, kept = None, math.inf, None
                elif self._sweeps(20):
                    return
                continue
            self.value += delta
            if lift:
                self.value += lift / (1 - problem.beta_most)
            if problem.kind == "hard" and self.bound.half > 0.15 * half:
                # far from the best policy: news travels along the order of the states in a sweep in place
                for backward in (False, True):
                    change[:] = self.value
                    problem.model.walk(self.value, change, parts, backward, problem.n_threads)
            half = self.bound.half

    def _lift(self, change):
        """Take the mean out of a change where that makes it smaller; returns it.

        Where no mass is lost, a constant change has a constant solution, and only the rest needs the solver.
        """
        if not self.problem.even:
            return 0.0
        with np.errstate(over="ignore"):
            # not by BLAS, whose threads may cost a busy machine more than the sum
            mean, size = float(change.mean()), float(np.einsum("i,i->", change, change))
        if not size < math.inf or size <= 1.7 * (size - mean * mean * change.size):
            return 0.0
        change -= mean
        return mean

    def _sweeps(self, count):
        """Plain sweeps; True where the run has to end. The last leaves `value` to be chosen from."""
        for _ in range(count):
            self.advance()
            if self.sweep(choose=True):
                return True
        return False

    def _matrix_of_choice(self):
        """The matrix of the policy just chosen; None where its rows have too many columns."""
        self.matrix = self.matrix or PolicyMatrix(self.problem)
        if self.problem.kind == "hard":
            self.matrix.set_rows(self.choice)
        elif self.matrix.policy is not self.choice or self.problem.kind == "soft":
            if not self.matrix.set_mixed(self.choice):
                return None
        return self.matrix

    def few_actions(self, rough):
        """Sweeps over the pairs that are within reach of the best, a sweep over all of them to judge (Puterman 1994, 6.7).

        A pair is dropped for a while where its Q falls short by more than the span of the last change allows for. The few
        pairs serve a correction of the value, in place and in single precision. `rough` is room as in :meth:`sweep`,
        or None. True where the run has ended, False where the sweeps have turned slow.
        """
        problem = self.problem
        n = problem.mdp.n_states
        q, delta, fresh = np.empty(problem.mdp.n_pairs), np.empty(n, np.float32), np.empty(n, np.float32)
        half, slow = math.inf, 0
        while not self.sweep(q=q, rough=rough):
            rough = None  # a judge needs all digits
            slow += self.bound.half > 0.3 * half
            if slow > 3:
                return False
            half, span = self.bound.half, self.most - self.least
            middle = 0.5 * (self.least + self.most) if problem.even else 0.0
            margin = 0.5 * span + 8.0 * problem.rounding(_size(self.value))
            few = _planning.Few(problem.model, self.value, self.ahead, q, middle, margin, problem.n_threads)
            # half of what is asked, so that the judging sweep agrees
            wanted = 0.5 * max(self.tol, 2 * self.bound.floor) * (1 - problem.beta_most) / max(problem.beta_most, 0.5)
            if few.n_pairs > 0.6 * problem.mdp.n_pairs and slow < 3:
                self.advance()
                continue
            delta[:] = 0.0
            shift, best = 0.0, math.inf
            wanted = max(wanted, 1e-3 * span)
            for k in range(40):
                least, most, mean = few.sweep(delta, fresh, shift, problem.n_threads)
                # single precision ends somewhere
                if most - least <= wanted or (k > 5 and most - least > 0.9 * best):
                    break
                best = min(best, most - least)
                if problem.even:
                    shift += 0.6 * mean
            if np.isfinite(delta).all():
                self.value += delta
            else:
                self.advance()
        return True

    def auto(self):
        """Sweeps while they contract fast, as on well mixed models; else policy iteration or Newton."""
        problem = self.problem
        self.method = "jacobi"
        spans = []
        rough = np.empty_like(self.value, np.float32) if problem.mdp.n_states >= _ROUGH and problem.even else None
        while problem.mdp.n_states > _SMALL and problem.discounted:
            # the first, of values that are 0, reads no transitions; the last ones need all digits
            if self.sweep(rough=rough if spans else None):
                return
            if spans and self.bound.half < 10 * self.bound.floor:
                rough = None
            spans.append(self.bound.half)
            self.advance()
            if len(spans) >= 4 or (len(spans) == 3 and spans[-1] > 0.9 * spans[-2]):
                rate = spans[-1] / spans[-2]
                left = math.log(max(self.tol, 2 * self.bound.floor) / spans[-1]) / math.log(rate) if rate < 1 else 1e9
                if left > 45:
                    break
                if problem.kind == "hard" and left > 8 and self.few_actions(rough):
                    return
                if problem.kind == "hard" and left > 8:
                    break
        self.method = {"hard": "policy_iteration", "soft": "newton", "policy": "newton"}[problem.kind]
        self.newton()


class _Steps:
    """Bounds at discount 1, where no sweep contracts: U ≥ TU and L ≤ TL hold V* between them (Bertsekas 1991).

    U = V + ε w and L = V − ε w with w about the expected number of steps to the end. Both are tried, and the bound is
    given only where the sweep of U and that of L pass by more than their rounding. Needs every policy that never ends to
    lose for ever: `check_ends` sees to that.
    """

    def __init__(self, problem):
        self.problem, self.weight, self.worst = problem, None, math.inf
        self.floor, self.still, self.found_at, self.next_try = 0.0, False, 0, 0

    def bound(self, run, size):
        """No bound until the change of a sweep, times the steps there are left, is about what is asked."""
        problem = self.problem
        rounding = problem.rounding(size, True)
        self.floor = rounding * (self.worst if self.weight is not None else 1.0)
        self.still = run.residual <= 4 * rounding
        settled = self.still or run.stale > 20
        if run.residual > run.tol and not settled:
            return _Bound(0.0, math.inf, self.floor)
        if self.still and self.found_at < run.n_iter - 1:
            self.weight = None  # of an earlier policy
        if self.weight is None or settled or run.residual * self.worst <= run.tol:
            if run.n_iter >= self.next_try or run.n_iter == run.max_iter:
                half = self._verified(run, size)
                if math.isfinite(half):
                    return _Bound(0.0, half, 0.0 if half <= run.tol else self.floor)
                self.next_try = run.n_iter + run.n_iter // 16  # a check costs tens of sweeps
        return _Bound(0.0, math.inf, self.floor)

    def _verified(self, run, size):
        """A proven bound on |V* − V|, or inf."""
        value, upper, ahead = run.value, np.empty_like(run.value), np.empty_like(run.value)
        if not self._find_weight(run, size):
            return math.inf
        half = math.inf
        step = 1.5 * (run.residual + 3 * self.problem.rounding(size, True))
        for _ in range(8):
            np.multiply(self.weight, step, out=upper)
            upper += value
            _, most = self.problem.sweep(upper, ahead)
            if most <= -2 * self.problem.rounding(size + step * self.worst, True):
                half = step * self.worst
                break
            step *= 2.0
        if half == math.inf:
            self.weight = None  # of another policy than the one that counts
            return half
        for _ in range(8):
            np.multiply(self.weight, -step, out=upper)
            upper += value
            least, _ = self.problem.sweep(upper, ahead)
            if least >= 2 * self.problem.rounding(size + step * self.worst, True):
                return max(half, step * self.worst) * (1 + 1e-12) + 4 * _U * _size(value)
            step *= 2.0
        return math.inf

    def _find_weight(self, run, size):
        """w with w ≥ 1 + P w for the pairs that matter: the chosen ones, and of a hard problem those about as good."""
        if self.weight is not None:
            return True
        problem, n = self.problem, self.problem.mdp.n_states
        run.ahead, kept = np.empty(n), run.ahead
        problem.sweep(run.value, run.ahead, run.choice if problem.kind != "policy" else None)
        run.ahead = kept
        matrix = run._matrix_of_choice()
        if matrix is None:
            return False
        weight = self._steps_of_choice(matrix, run.choice)
        if weight is None:
            return False
        if problem.kind == "hard":
            weight = self._longest(run, weight, size)
        weight[~problem.free] = 0.0
        if not (np.isfinite(weight).all() and (weight[problem.free] > 0).all()):
            return False
        self.weight, self.worst, self.found_at = weight, float(weight.max(initial=0.0)), run.n_iter
        return True

    def _steps_of_choice(self, matrix, choice):
        """w = 1 + P w of the choice, refined until it holds to a half: that of a long way may need it. None if no solve does."""
        problem = self.problem
        rest, weight = problem.free.astype(float), np.zeros(problem.mdp.n_states)
        delta, ahead = np.empty_like(weight), np.empty_like(weight)
        silent = problem.with_reward(np.zeros(problem.mdp.n_pairs)).model
        for _ in range(6):
            if matrix.solve(rest, delta, 1e-3) == math.inf:
                return None
            weight += delta
            weight[~problem.free] = 0.0
            if problem.kind == "hard":
                silent.chosen(choice, weight, ahead)
            else:
                silent.expected(choice, weight, ahead, problem.n_threads)
            rest = np.where(problem.free, 1.0 + ahead - weight, 0.0)
            if not rest.max(initial=0.0) > 0.5:
                break
        return weight

    def _longest(self, run, weight, size):
        """w made the longest expected way over the pairs within a hair of the best, by sweeps."""
        problem, mdp = self.problem, self.problem.mdp
        q = np.empty(mdp.n_pairs)
        problem.model.q(run.value, q, problem.n_threads)
        close = q >= run.value[mdp.pair_state] - 1e3 * (run.residual + problem.rounding(size, True))
        if not (np.bincount(mdp.pair_state[close], minlength=mdp.n_states) > 1).any():
            return weight
        reward = np.where(close, 1.0, -np.inf)
        model = _planning.Model(mdp.pair_ptr, mdp.indptr, mdp.indices, mdp.probability, reward, problem.fixed, 1.0, 1.0,
                                _facts(mdp)[0])
        ahead = np.empty_like(weight)
        for _ in range(2000):
            _, most = model.hard(weight, ahead, None, problem.n_threads)
            if most <= 0.2:
                return weight
            weight, ahead = ahead, weight
            weight *= 1.02
        return weight


def solve_soft(mdp, reward, value=None, tol=1e-11, n_threads=None, matrix=None):
    """(problem, value, policy, bound, matrix) of a soft problem at temperature 1, as closely as rounding lets it.

    For learning: starts at `value`, and uses the pattern of `matrix` again where the rewards forbid the same.
    """
    problem = Problem(mdp, reward, "soft", 1.0, n_threads=n_threads)
    start = np.zeros(mdp.n_states) if value is None else np.where(problem.free, value, 0.0)
    proper = None if problem.discounted else check_ends(problem)
    if matrix is not None and not np.array_equal(matrix.problem.fixed, problem.fixed):
        matrix = None
    run = Run(problem, tol, 5000, start, None, matrix)
    if proper is not None and value is None:
        run.start_from(proper)
    run.proper = proper
    run.run("auto")
    policy, ahead = np.empty(mdp.n_pairs), np.empty(mdp.n_states)
    problem.sweep(run.value, ahead, policy)
    return problem, run.value, policy, run.bound.total, run.matrix


def longest(problem):
    """At least the expected number of steps to the end from any free state, checked; for a problem of a policy."""
    n = problem.mdp.n_states
    matrix = PolicyMatrix(problem)
    exact = matrix._exact(problem.policy)
    right, guess = problem.free.astype(float), np.empty(n)
    if n <= _DIRECT:
        try:
            guess[:] = splu(sparse.csc_array(sparse.eye_array(n) - exact)).solve(right)
        except RuntimeError:  # a policy that all but never ends
            return math.inf
    elif not matrix.set_mixed(problem.policy) or matrix.solve(right, guess, 1e-4) == math.inf:
        return math.inf
    guess[~problem.free] = 0.0
    slack = (guess - exact @ guess)[problem.free].min(initial=1.0) - 1e-12 * guess.max(initial=1.0)
    return float(guess.max(initial=1.0) / slack) if slack > 0 and (guess >= 0).all() else math.inf


def most_entering(mdp):
    """The most entries that lead into a state, kept on the model: terms of a sum when visits go forward."""
    found = mdp.__dict__.get("_most_entering")
    if found is None:
        found = mdp.__dict__["_most_entering"] = int(np.bincount(mdp.indices, minlength=1).max(initial=1))
    return found


def reachable_under(mdp, policy, start):
    """(n_states,) bool: states that the policy can come to from these."""
    matrix = mdp.transition_matrix(policy)
    matrix.eliminate_zeros()
    n = mdp.n_states
    sources = np.flatnonzero(start)
    rows = np.concatenate([np.repeat(np.arange(n), np.diff(matrix.indptr)), np.full(sources.size, n)])
    heads = np.concatenate([matrix.indices, sources])
    graph = sparse.csr_array((np.ones(rows.size, np.int8), (rows, heads)), shape=(n + 1, n + 1))
    found = np.zeros(n + 1, bool)
    found[csgraph.breadth_first_order(graph, n, return_predecessors=False)] = True
    return found[:n]


def check_ends(problem):
    """At discount 1: every state can end, and whatever never ends loses for ever; else the named error. A policy that ends.

    Returns
    -------
    (n_states,) int32, the place of the pair a proper policy takes in each state
    """
    mdp, free = problem.mdp, problem.free
    open_pairs = np.isfinite(problem.reward)
    if problem.kind == "policy":
        open_pairs = problem.policy > 0
        stuck = free & ~reaches_end(mdp, open_pairs)
        best = None
    else:
        sure, best = ends_surely(mdp, open_pairs, free)
        stuck = free & ~sure
    if stuck.any():
        what = "under this policy" if problem.kind == "policy" else "with certainty under some policy"
        raise InvalidInputError(
            f"at discount 1 every state must be able to end, {what}: state {shown(mdp.state_ids[np.argmax(stuck)])} cannot "
            f"({int(stuck.sum())} such states); name terminal states, or use a discount below 1 or a horizon"
        )
    if problem.kind == "policy":
        return None
    label, pairs = end_components(mdp, open_pairs, free)
    if pairs.any():
        _, high = gains(mdp, problem.reward, label, pairs, problem.temperature if problem.soft else 0.0)
        if not (high < 0).all():
            component = int(np.argmax(~(high < 0)))
            states = np.flatnonzero(label == component)
            names = [shown(mdp.state_ids[s]) for s in states[:4]] + (["…"] if states.size > 4 else [])
            raise DivergenceError(
                "at discount 1 a process that never ends must lose reward for ever"
                f"{', its entropy counted' if problem.soft else ''}: among the states {', '.join(names)} it can stay and "
                f"gains up to {max(float(high[component]), 0.0):.6g} a step; make rewards there negative, or use a "
                "discount below 1 or a horizon",
                cycle=tuple(plain(mdp.state_ids[s]) for s in states[:100]), n_states=int(states.size),
            )
    return best


def _size(value):
    return max(float(np.max(value, initial=0.0)), -float(np.min(value, initial=0.0)))


def progress_of(progress):
    """A callable of (sweep, bound), or None; True writes lines to stderr."""
    if progress is None or progress is False:
        return None
    if callable(progress):
        return progress
    if progress is not True:
        raise InvalidInputError(f"`progress` must be a callable of (sweep, bound), True or None: got {progress!r}; "
                                "pass one of these")
    return lambda n_iter, bound: print(f"sweep {n_iter:5d}   error at most {bound:.2e}", file=sys.stderr)
