"""The compiled kernels of planning alone, called as the solver calls them: sweeps against their slow twin, exp and log
against mpmath, the matrix of a policy and its solution against dense ones, on every width of vectors; and the same bits
for any number of threads."""

import subprocess
import sys
from dataclasses import dataclass, replace
from functools import cache, cached_property
from itertools import pairwise

import numpy as np
import pytest
import small_mdps as small
from scipy import sparse

from fastirl import _planning
from fastirl import _planning_reference as ref

ULP = np.finfo(float).eps
SINGLE = float(np.finfo(np.float32).eps)


@pytest.fixture(params=[64, 256, 512])
def bits(request):
    """Each width of vectors that this machine has; that 0 is the widest of them stands in a test of its own."""
    try:
        model(ONE, bits=request.param)
    except ValueError:
        pytest.skip(f"this machine has no vectors of {request.param} bits")
    return request.param


# --- cases: a tensor, and what the twins ask of a model ---------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """The arrays of a model; answers to the names that the twins read."""

    pair_ptr: np.ndarray
    indptr: np.ndarray
    indices: np.ndarray
    probability: np.ndarray
    reward: np.ndarray
    fixed: np.ndarray
    discount: float = 0.9
    width: int = 0

    @property
    def n_states(self):
        return self.pair_ptr.size - 1

    @property
    def n_pairs(self):
        return self.reward.size

    @property
    def free(self):
        return self.fixed == 0

    @cached_property
    def pair_state(self):
        return np.repeat(np.arange(self.n_states), np.diff(self.pair_ptr))

    @cached_property
    def transitions(self):
        return sparse.csr_array((self.probability, self.indices, self.indptr), shape=(self.n_pairs, self.n_states))


def model(case, temperature=0.7, bits=0, width=None):
    return _planning.Model(case.pair_ptr, case.indptr, case.indices, case.probability, case.reward, case.fixed,
                           case.discount, temperature, case.width if width is None else width, bits)


def from_rows(n, actions, rows, reward=None, fixed=(), discount=0.9, width=0):
    """`actions[s]` pairs of state s; `rows`: a dict {next state: probability} for each pair."""
    indices = [c for row in rows for c in sorted(row)]
    probability = [row[c] for row in rows for c in sorted(row)]
    marks = np.zeros(n, np.uint8)
    marks[list(fixed)] = 1
    reward = np.zeros(len(rows)) if reward is None else np.array(reward, float)
    return Case(np.concatenate([[0], np.cumsum(actions)]).astype(np.int64),
                np.concatenate([[0], np.cumsum([len(row) for row in rows])]).astype(np.int64),
                np.array(indices, np.int32), np.array(probability, float), reward, marks, discount, width)


def random_case(n=40, actions=(1, 2, 3, 4, 5), width=0, seed=0, fixed=0.0, forbidden=0.0, own=0.0, discount=0.9,
                empty=0.0, reach=None):
    """Action sets of these sizes, rows of `width` entries (0: 0 or 1 to 7; or one of several); `own`: rows that come back to
    their state.

    A share `fixed` of the states is fixed, every second of them without pairs; the first pair is never `forbidden`.
    """
    rng = np.random.default_rng(seed)
    marks = np.flatnonzero(rng.random(n) < fixed)
    count = rng.choice(actions, n)
    count[marks[::2]] = 0
    state = np.repeat(np.arange(n), count)
    rows, sizes = [], width if isinstance(width, tuple) else None
    width = 0 if sizes else width
    for s in state:
        size = int(rng.choice(sizes)) if sizes else width or (0 if rng.random() < empty else int(rng.integers(1, min(n, 7) + 1)))
        near = np.arange(n) if reach is None else np.unique((s + np.arange(-reach, reach + 1)) % n)
        columns = rng.choice(near, size, replace=False)
        if size and s not in columns and rng.random() < own:
            columns[0] = s
        weight = rng.exponential(size=size) + 1e-3
        rows.append(dict(zip(columns.tolist(), weight / max(1e-300, weight.sum()))))
    reward = rng.normal(size=state.size)
    bad = rng.random(state.size) < forbidden
    bad[np.concatenate([[0], np.cumsum(count)])[:-1][count > 0]] = False
    reward[bad] = -np.inf
    return from_rows(n, count, rows, reward, marks, discount, width)


def from_problem(problem):
    """As the solver hands a model over: states that are ends or have nothing but forbidden pairs are fixed."""
    mdp = problem.mdp
    dead = np.bincount(mdp.pair_state[np.isfinite(problem.reward)], minlength=mdp.n_states) == 0
    sizes = np.diff(mdp.indptr)
    width = int(sizes[0]) if sizes.size and (sizes == sizes[0]).all() else 0
    width = -1 if width == 1 and (mdp.probability == 1).all() else width
    return Case(mdp.pair_ptr, mdp.indptr, mdp.indices, mdp.probability, problem.reward, dead.astype(np.uint8),
                mdp.discount, width)


def deterministic(n=37, seed=1, actions=(1, 2, 3, 4), fixed=(3,)):
    rng = np.random.default_rng(seed)
    count = rng.choice(actions, n)
    rows = [{int(c): 1.0} for c in rng.integers(n, size=count.sum())]
    return from_rows(n, count, rows, rng.normal(size=len(rows)), fixed, 0.95, -1)


def alike(actions, width, seed=0, **options):
    """A block of states with as many actions each, and some more."""
    if width == -1:
        return deterministic(BLOCK + 20, seed, (actions,), ())
    return random_case(BLOCK + 20, (actions,), width, seed, reach=9, **options)


def by_state(case):
    """The same with one reward for all pairs of a state."""
    return replace(case, reward=np.random.default_rng(5).normal(size=case.n_states)[case.pair_state])


def with_fixed(case, state):
    """The same where this state, pairs and all, is fixed."""
    fixed = case.fixed.copy()
    fixed[state] = 1
    return replace(case, fixed=fixed)


ONE = from_rows(1, [1], [{0: 1.0}], [0.5], width=-1)
BLOCK = _planning.SWEEP_BLOCK
CASES = {
    "one state": lambda: ONE,
    "one state, fixed": lambda: from_rows(1, [1], [{0: 1.0}], [0.5], [0]),
    "one state without pairs": lambda: from_rows(1, [0], [], [], [0]),
    "no pairs at all": lambda: from_rows(300, [0] * 300, [], [], range(300)),
    "one row, empty": lambda: from_rows(2, [1, 0], [{}], [2.0], [1]),
    "all rows empty": lambda: from_rows(5, [2] * 5, [{}] * 10, np.arange(10.0)),
    "deterministic": deterministic,
    **{f"width {w}": (lambda w=w: random_case(width=w, seed=w, fixed=0.1)) for w in range(1, 10)},
    "rows of different lengths": lambda: random_case(seed=11, fixed=0.2, empty=0.1, own=0.5),
    "forbidden pairs": lambda: random_case(seed=12, forbidden=0.5, fixed=0.1),
    "many actions": lambda: random_case(20, (1, 40), 3, seed=13),
    "one block": lambda: random_case(BLOCK, width=4, seed=14, reach=9),
    "one block and one state": lambda: random_case(BLOCK + 1, seed=15, reach=9),
    "three blocks": lambda: random_case(2 * BLOCK + 188, seed=16, fixed=0.1, forbidden=0.2, reach=9),
    "a block of fixed states": lambda: from_rows(
        BLOCK + 3, [0] * BLOCK + [1] * 3, [{0: 0.5, BLOCK: 0.5}] * 3, [1.0, 2.0, 3.0], range(BLOCK), width=2),
    "discount 0": lambda: random_case(seed=17, discount=0.0),
    "discount 1": lambda: random_case(seed=18, discount=1.0, fixed=0.1),
    **{f"MDP: {name}": (lambda build=build: from_problem(build())) for name, build in small.ZOO.items()},
}
# states with as many actions each, for what only sweeps: large
ALIKE = {
    **{f"alike: {a} actions, rows of {w}": (lambda a=a, w=w: alike(a, w)) for a, w in (
        (4, -1), (3, 1), (2, 2), (5, 3), (4, 4), (4, 5), (6, 6), (3, 0), (2, (1, 2)), (4, (2, 3)), (1, (3, 4)), (4, (4, 5)),
        (3, (6, 7, 8)))},
    "alike: rewards of states": lambda: by_state(alike(4, (4, 5))),
    "alike: rewards of states, deterministic": lambda: by_state(alike(4, -1)),
    "alike: forbidden pairs": lambda: alike(4, 3, forbidden=0.5),
    "alike, one fixed in the first block": lambda: with_fixed(alike(4, (4, 5)), 7),
    "alike, one fixed in the second block": lambda: with_fixed(by_state(alike(2, -1)), BLOCK + 3),
}
cases = pytest.mark.parametrize("name", CASES)
swept = pytest.mark.parametrize("name", [*CASES, *ALIKE])


@cache
def take(name):
    return {**CASES, **ALIKE}[name]()


def some_values(case, seed=0):
    return np.random.default_rng(seed).normal(scale=3.0, size=case.n_states)


def some_policy(case, seed=0, zeros=0.3):
    """Random probabilities, some 0 but never all of a state's; forbidden pairs are never taken."""
    rng = np.random.default_rng(seed)
    weight = rng.exponential(size=case.n_pairs) + 1e-3
    weight[rng.random(case.n_pairs) < zeros] = 0.0
    weight[case.pair_ptr[:-1][np.diff(case.pair_ptr) > 0]] = 1.0
    weight[np.isneginf(case.reward)] = 0.0
    total = ref.state_sum(case, weight)[case.pair_state]
    return weight / np.where(total > 0, total, 1.0)


def some_choice(case, seed=0, none=0.0):
    rng = np.random.default_rng(seed)
    best = (rng.random(case.n_states) * np.diff(case.pair_ptr)).astype(np.int32)
    best[(np.diff(case.pair_ptr) == 0) | (rng.random(case.n_states) < none)] = -1
    return best


def as_policy(case, best):
    policy = np.zeros(case.n_pairs)
    some = best >= 0
    policy[case.pair_ptr[:-1][some] + best[some]] = 1.0
    return policy


def frozen(*arrays):
    for array in arrays:
        array.flags.writeable = False
    return arrays


def kept(case, found, value):
    """What a sweep leaves: fixed states keep their value."""
    return np.where(case.free, found, value)


def assert_close(found, expected, ulps=40):
    expected = np.asarray(expected, float)
    assert not np.isnan(found).any()
    finite = np.isfinite(expected)
    np.testing.assert_array_equal(found[~finite], expected[~finite])
    scale = np.maximum(1.0, np.abs(expected[finite]).max(initial=0.0))
    np.testing.assert_allclose(found[finite], expected[finite], rtol=0, atol=ulps * ULP * scale)


def assert_change(case, change, out, value):
    """The least and the greatest change of a free state, exactly; (inf, -inf) without any."""
    moved = (out - value)[case.free]
    assert change == (moved.min(initial=np.inf), moved.max(initial=-np.inf))


# --- sweeps -----------------------------------------------------------------------------------------------------------


@swept
def test_q_equals_its_twin(name, bits):
    case, q = take(name), np.full(take(name).n_pairs, np.nan)
    value = some_values(case)
    model(case, bits=bits).q(value, q)
    assert_close(q, ref.q_values(case, case.reward, value))


@swept
def test_hard_sweeps_equal_their_twin(name, bits):
    case, value = take(name), some_values(take(name))
    out, best, q = np.full(case.n_states, np.nan), np.full(case.n_states, 99, np.int32), np.empty(case.n_pairs)
    change = model(case, bits=bits).hard(value, out, best)
    expected, _, _ = ref.bellman(case, case.reward, value)
    assert_close(out, kept(case, expected, value))
    assert_change(case, change, out, value)
    # the first of the best by the kernel's own Q, whose last bits decide
    model(case, bits=bits).q(value, q)
    for s in range(case.n_states):
        own = q[case.pair_ptr[s]:case.pair_ptr[s + 1]]
        assert best[s] == (int(np.argmax(own)) if case.free[s] and own.max(initial=-np.inf) > -np.inf else -1)
    again = np.empty_like(out)
    assert model(case, bits=bits).hard(value, again) == change
    assert again.tobytes() == out.tobytes()


@swept
@pytest.mark.parametrize("temperature", (0.01, 1.0, 30.0))
def test_soft_sweeps_equal_their_twin(name, temperature, bits):
    case, value = take(name), some_values(take(name))
    out, policy = np.full(case.n_states, np.nan), np.full(case.n_pairs, np.nan)
    change = model(case, temperature, bits).soft(value, out, policy)
    expected, q, choice = ref.soft_bellman(case, case.reward, value, temperature)
    assert_close(out, kept(case, expected, value))
    assert_change(case, change, out, value)
    choice[~case.free[case.pair_state]] = 0.0
    # a probability is exp of a difference of Q over T, whose rounding is its relative error
    size = np.abs(q[np.isfinite(q)]).max(initial=1.0)
    np.testing.assert_allclose(policy, choice, rtol=40 * ULP * max(1.0, size / temperature), atol=1e-300)
    again = np.empty_like(out)
    assert model(case, temperature, bits).soft(value, again) == change
    assert again.tobytes() == out.tobytes()


@swept
def test_expectations_equal_their_twin(name, bits):
    case, value, policy = take(name), some_values(take(name)), some_policy(take(name))
    out = np.full(case.n_states, np.nan)
    change = model(case, bits=bits).expected(policy, value, out)
    q = ref.q_values(case, case.reward, value)
    worth = np.multiply(policy, q, out=np.zeros(case.n_pairs), where=policy > 0)
    assert_close(out, kept(case, ref.state_sum(case, worth), value))
    assert_change(case, change, out, value)


@cases
def test_the_chosen_pair_counts_alone(name, bits):
    case, value, best = take(name), some_values(take(name)), some_choice(take(name), none=0.2)
    out = np.full(case.n_states, np.nan)
    model(case, bits=bits).chosen(best, value, out)
    q, expected = ref.q_values(case, case.reward, value), value.copy()
    some = case.free & (best >= 0)
    expected[some] = q[case.pair_ptr[:-1][some] + best[some]]
    assert_close(out, expected)


@pytest.mark.parametrize("width", [-1, *range(1, 10)])
def test_the_path_of_a_width_is_the_general_one(width, bits):
    case = deterministic() if width == -1 else take(f"width {width}")
    value, policy = some_values(case), some_policy(case)
    found = []
    for m in (model(case, bits=bits), model(case, bits=bits, width=0)):
        q, out = np.empty(case.n_pairs), np.empty((3, case.n_states))
        m.q(value, q)
        m.hard(value, out[0])
        m.soft(value, out[1])
        m.expected(policy, value, out[2])
        found.append((q, out))
    assert_close(found[0][0], found[1][0])
    assert_close(found[0][1], found[1][1])


def test_states_that_are_alike_are_swept_as_any_others(bits):
    """What a sweep leaves out where all states have as many pairs changes nothing: one more state, without pairs, undoes it."""
    for case in (alike(4, (4, 5)), alike(4, -1), alike(3, 2), by_state(alike(5, 5)), by_state(alike(2, -1))):
        n = case.n_states
        mixed = replace(case, pair_ptr=np.insert(case.pair_ptr, 3, case.pair_ptr[3]), fixed=np.insert(case.fixed, 3, 1),
                        indices=case.indices + (case.indices >= 3).astype(np.int32))
        rest, value = np.arange(n + 1) != 3, some_values(case)
        out, other, best = np.empty((2, n)), np.empty((2, n + 1)), np.empty((2, n + 1), np.int32)
        longer = np.insert(value, 3, 0.0)
        model(case, bits=bits).hard(value, out[0], best[0, :n])
        model(mixed, bits=bits).hard(longer, other[0], best[1])
        model(case, bits=bits).soft(value, out[1])
        model(mixed, bits=bits).soft(longer, other[1])
        assert_close(out, other[:, rest], 4)
        np.testing.assert_array_equal(best[0, :n], best[1, rest])


def test_what_is_counted_for_a_model_is_what_it_is_told(bits):
    case, out = alike(4, (4, 5)), np.empty((2, BLOCK + 20))
    told = _planning.Model(case.pair_ptr, case.indptr, case.indices, case.probability, case.reward, case.fixed, 0.9, 1.0, 0,
                           bits, longest=5, actions=4)
    told.hard(some_values(case), out[0])
    model(case, bits=bits).hard(some_values(case), out[1])
    assert out[0].tobytes() == out[1].tobytes()


def test_the_first_of_equal_pairs_wins(bits):
    for actions in (1, 2, 7, 8, 9, 33):
        for first in range(actions):
            reward = np.r_[np.full(first, -np.inf), np.full(actions - first, 1.0)]
            case = from_rows(1, [actions], [{0: 1.0}] * actions, reward)
            best, out = np.empty(1, np.int32), np.empty(1)
            model(case, bits=bits).hard(np.zeros(1), out, best)
            assert best[0] == first and out[0] == 1.0


def test_a_free_state_of_forbidden_pairs_alone_is_worth_minus_infinity(bits):
    case = from_rows(2, [2, 1], [{0: 1.0}, {1: 1.0}, {1: 1.0}], [-np.inf, -np.inf, 1.0])
    best, out = np.empty(2, np.int32), np.empty(2)
    change = model(case, bits=bits).hard(np.zeros(2), out, best)
    assert out.tolist() == [-np.inf, 1.0] and best.tolist() == [-1, 0] and change == (-np.inf, 1.0)


@pytest.mark.parametrize("name", ["three blocks", "one block and one state", "deterministic", "no pairs at all",
                                  "alike: 4 actions, rows of (4, 5)", "alike: rewards of states, deterministic",
                                  "MDP: 300 states"])
def test_threads_do_not_change_the_bits_of_sweeps(name, bits):
    case, value, policy = take(name), some_values(take(name)), some_policy(take(name))
    m = model(case, bits=bits)

    def everything(n_threads):
        q, out, share = np.empty(case.n_pairs), np.empty((3, case.n_states)), np.empty(case.n_pairs)
        best = np.empty(case.n_states, np.int32)
        m.q(value, q, n_threads)
        change = [m.hard(value, out[0], best, n_threads), m.soft(value, out[1], share, n_threads),
                  m.expected(policy, value, out[2], n_threads)]
        return b"".join(a.tobytes() for a in (q, out, share, best)), change

    first = everything(1)
    assert first == everything(2) == everything(3)


def test_0_bits_are_the_widest_vectors_of_the_machine():
    case, x = take("three blocks"), accurate("exp")[0]
    policy, value, begin = some_policy(case), some_values(case), np.array([0, 300, case.n_states])

    def everything(bits):
        m, q, out, share = model(case, bits=bits), np.empty(case.n_pairs), np.empty((4, case.n_states)), policy.copy()
        m.q(value, q)
        m.hard(value, out[0])
        m.soft(value, out[1], share)
        m.expected(policy, value, out[2])
        merged(case, policy, begin).solve(value, out[3], workspace(case.n_states), 1e-6, 100, bits=bits)
        return [a.tobytes() for a in (q, out, share, applied("exp", x, bits))]

    def exists(bits):
        try:
            return model(ONE, bits=bits) is not None
        except ValueError:
            return False

    assert everything(0) == everything(next(bits for bits in (512, 256, 64) if exists(bits)))


def test_arrays_that_are_only_read_may_be_read_only(bits):
    case = random_case(30, seed=3, fixed=0.2)
    frozen(case.pair_ptr, case.indptr, case.indices, case.probability, case.reward, case.fixed)
    value, policy, best, order, mu = frozen(some_values(case), some_policy(case), some_choice(case),
                                            np.arange(30, dtype=np.int32), np.full(30, 1 / 30))
    m, out, q = model(case, bits=bits), np.empty(30), np.empty(case.n_pairs)
    m.q(value, q)
    m.hard(value, out)
    m.soft(value, out)
    m.expected(policy, value, out)
    m.chosen(best, value, out)
    m.gauss_seidel(out, order, True, False)
    few = _planning.Few(m, value, *frozen(out.copy(), q.copy()), 0.0, 0.1)
    few.sweep(np.zeros(30, np.float32), np.zeros(30, np.float32), 0.0)
    m.hard(value, out, None, 1, None, False, *frozen(np.zeros(30, np.float32)))
    _planning.push(m, policy, mu, q, out)
    system, slot = pattern(m, case, *frozen(np.array([0, 11, 30])))
    system.set_merged(m, *frozen(slot), policy)
    rows_of(m, case, best, np.array([0, 30]))
    system.product(value, out)
    system.sweep(value, mu, out)
    system.solve(mu, out, workspace(30), 1e-6, 50, bits=bits)
    system.transposed()


def test_arrays_that_do_not_fit_make_no_model():
    case = random_case(6, seed=4)
    names = ("pair_ptr", "indptr", "indices", "probability", "reward", "fixed")
    arrays = {name: getattr(case, name) for name in names}
    for name, array in arrays.items():
        for wrong in (array[:-1], np.append(array, array[-1:])):
            if wrong.size > array.size and name in ("indices", "probability", "pair_ptr"):
                continue  # more entries than are used do no harm; another pair_ptr is another state
            with pytest.raises(ValueError, match="fit"):
                _planning.Model(*{**arrays, name: wrong}.values(), 0.9, 1.0, 0)


def test_a_width_of_vectors_that_no_machine_has_is_a_value_error():
    for wrong in (1, 128, 1024, -1):
        with pytest.raises(ValueError, match="bits"):
            model(ONE, bits=wrong)
    # in a process of its own: what is not checked here is a call of NULL
    code = """
import numpy as np
from fastirl import _planning
n = 2
system = _planning.System(n, np.array([0, n]))
try:
    system.solve(np.ones(n), np.empty(n), np.zeros(_planning.workspace(n)), 1e-6, 5, bits=128)
except ValueError:
    print("refused")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, "refused\n"), done.stderr


# arrays too long rather than too short: a missing check is then no access out of bounds
N, PAIRS = 6, 13


def forward(m, **changed):
    fitting = {"policy": np.zeros((1, PAIRS)), "stays": np.zeros(N, np.uint8), "ptr": np.zeros(N + 1, np.int64),
               "source": np.zeros(0, np.int32), "share": np.zeros(0), "state": np.zeros((3, N)), "pair": np.zeros(PAIRS)}
    _planning.forward(m, *{**fitting, **changed}.values())


LONG = {
    "q, value": lambda m, s: m.q(np.zeros(N + 1), np.zeros(PAIRS)),
    "q, q": lambda m, s: m.q(np.zeros(N), np.zeros(PAIRS + 1)),
    "hard, value": lambda m, s: m.hard(np.zeros(N + 1), np.zeros(N)),
    "hard, out": lambda m, s: m.hard(np.zeros(N), np.zeros(N + 1)),
    "hard, best": lambda m, s: m.hard(np.zeros(N), np.zeros(N), np.zeros(N + 1, np.int32)),
    "soft, value": lambda m, s: m.soft(np.zeros(N + 1), np.zeros(N)),
    "soft, out": lambda m, s: m.soft(np.zeros(N), np.zeros(N + 1)),
    "soft, policy": lambda m, s: m.soft(np.zeros(N), np.zeros(N), np.zeros(PAIRS + 1)),
    "expected, policy": lambda m, s: m.expected(np.zeros(PAIRS + 1), np.zeros(N), np.zeros(N)),
    "expected, value": lambda m, s: m.expected(np.zeros(PAIRS), np.zeros(N + 1), np.zeros(N)),
    "expected, out": lambda m, s: m.expected(np.zeros(PAIRS), np.zeros(N), np.zeros(N + 1)),
    "chosen, best": lambda m, s: m.chosen(np.zeros(N + 1, np.int32), np.zeros(N), np.zeros(N)),
    "chosen, value": lambda m, s: m.chosen(np.zeros(N, np.int32), np.zeros(N + 1), np.zeros(N)),
    "chosen, out": lambda m, s: m.chosen(np.zeros(N, np.int32), np.zeros(N), np.zeros(N + 1)),
    "hard, q": lambda m, s: m.hard(np.zeros(N), np.zeros(N), None, 1, np.zeros(PAIRS + 1)),
    "hard, rough": lambda m, s: m.hard(np.zeros(N), np.zeros(N), None, 1, None, False, np.zeros(N + 1, np.float32)),
    "soft, rough": lambda m, s: m.soft(np.zeros(N), np.zeros(N), None, 1, False, np.zeros(N + 1, np.float32)),
    "few, value": lambda m, s: _planning.Few(m, np.zeros(N + 1), np.zeros(N), np.zeros(PAIRS), 0.0, 0.0),
    "few, ahead": lambda m, s: _planning.Few(m, np.zeros(N), np.zeros(N + 1), np.zeros(PAIRS), 0.0, 0.0),
    "few, q": lambda m, s: _planning.Few(m, np.zeros(N), np.zeros(N), np.zeros(PAIRS + 1), 0.0, 0.0),
    "few, delta": lambda m, s: few_zeros(m).sweep(np.zeros(N + 1, np.float32), np.zeros(N, np.float32), 0.0),
    "few, fresh": lambda m, s: few_zeros(m).sweep(np.zeros(N, np.float32), np.zeros(N + 1, np.float32), 0.0),
    "gauss_seidel": lambda m, s: m.gauss_seidel(np.zeros(N + 1), np.zeros(0, np.int32), False, False),
    "walk, value": lambda m, s: m.walk(np.zeros(N + 1), np.zeros(N), np.array([0, N]), False),
    "walk, before": lambda m, s: m.walk(np.zeros(N), np.zeros(N + 1), np.array([0, N]), False),
    "push, policy": lambda m, s: _planning.push(m, np.zeros(PAIRS + 1), np.zeros(N), np.zeros(PAIRS), np.zeros(N)),
    "push, here": lambda m, s: _planning.push(m, np.zeros(PAIRS), np.zeros(N + 1), np.zeros(PAIRS), np.zeros(N)),
    "push, pair": lambda m, s: _planning.push(m, np.zeros(PAIRS), np.zeros(N), np.zeros(PAIRS + 1), np.zeros(N)),
    "push, there": lambda m, s: _planning.push(m, np.zeros(PAIRS), np.zeros(N), np.zeros(PAIRS), np.zeros(N + 1)),
    "backward, value": lambda m, s: m.backward(np.zeros((3, N + 1)), None, 0, 2, True, np.zeros((2, 3))),
    "backward, policy": lambda m, s: m.backward(np.zeros((3, N)), np.zeros((2, PAIRS + 1)), 0, 2, True, np.zeros((2, 3))),
    "backward, policies": lambda m, s: m.backward(np.zeros((3, N)), np.zeros((3, PAIRS)), 0, 2, True, np.zeros((2, 3))),
    "backward, steps": lambda m, s: m.backward(np.zeros((3, N)), None, 0, 3, True, np.zeros((3, 3))),
    "backward, found": lambda m, s: m.backward(np.zeros((3, N)), None, 0, 2, True, np.zeros((1, 3))),
    "forward, policy": lambda m, s: forward(m, policy=np.zeros((1, PAIRS + 1))),
    "forward, policies": lambda m, s: forward(m, policy=np.zeros((3, PAIRS))),
    "forward, stays": lambda m, s: forward(m, stays=np.zeros(N + 1, np.uint8)),
    "forward, ptr": lambda m, s: forward(m, ptr=np.zeros(N, np.int64)),
    "forward, source": lambda m, s: forward(m, source=np.zeros(1, np.int32)),
    "forward, share": lambda m, s: forward(m, share=np.zeros(1)),
    "forward, state": lambda m, s: forward(m, state=np.zeros((3, N - 1))),
    "forward, pair": lambda m, s: forward(m, pair=np.zeros(PAIRS + 1)),
    "policy extremes": lambda m, s: _planning.policy_extremes(m.arrays[0], np.zeros((2, PAIRS + 1))),
    "set_pattern, slot": lambda m, s: s.set_pattern(m, np.zeros(2 * PAIRS + 1, np.uint16)),
    "set_pattern, model": lambda m, s: s.set_pattern(wide(), np.zeros(2 * PAIRS + 2, np.uint16)),
    "set_merged, slot": lambda m, s: s.set_merged(m, np.zeros(2 * PAIRS + 1, np.uint16), np.zeros(PAIRS)),
    "set_merged, policy": lambda m, s: s.set_merged(m, np.zeros(2 * PAIRS, np.uint16), np.zeros(PAIRS + 1)),
    "set_rows, best": lambda m, s: roomy(m, s).set_rows(m, np.full(N + 1, -1, np.int32), np.full(N, -2, np.int32)),
    "set_rows, previous": lambda m, s: roomy(m, s).set_rows(m, np.full(N, -1, np.int32), np.full(N + 1, -2, np.int32)),
    "set_rows, model": lambda m, s: roomy(m, s).set_rows(wide(), np.full(N, -1, np.int32), np.full(N, -2, np.int32)),
    "set_rows, no room": lambda m, s: s.set_rows(m, np.full(N, -1, np.int32), np.full(N, -2, np.int32)),
    "make_room, model": lambda m, s: s.make_room(wide()),
    **{f"use_pattern, part {part}": lambda m, s, part=part: s.use_pattern(
        [np.append(x, x[-1:]) if i == part else x for i, x in enumerate(s.pattern())]) for part in range(8)},
    "product, x": lambda m, s: s.product(np.zeros(N + 1), np.zeros(N)),
    "product, out": lambda m, s: s.product(np.zeros(N), np.zeros(N + 1)),
    "sweep, x": lambda m, s: s.sweep(np.zeros(N + 1), np.zeros(N), np.zeros(N)),
    "sweep, b": lambda m, s: s.sweep(np.zeros(N), np.zeros(N + 1), np.zeros(N)),
    "sweep, out": lambda m, s: s.sweep(np.zeros(N), np.zeros(N), np.zeros(N + 1)),
    "solve, right": lambda m, s: s.solve(np.zeros(N + 1), np.zeros(N), workspace(N), 0.1, 5),
    "solve, x": lambda m, s: s.solve(np.zeros(N), np.zeros(N + 1), workspace(N), 0.1, 5),
    "solve, work": lambda m, s: s.solve(np.zeros(N), np.zeros(N), np.append(workspace(N), 0.0), 0.1, 5),
}


def of_six_states(n=N):
    return from_rows(n, [2, 2, 2, 2, 2, 3] + [1] * (n - N), [{0: 0.5, 3: 0.5}] * (PAIRS + n - N), width=2)


def few_zeros(m):
    return _planning.Few(m, np.zeros(N), np.zeros(N), np.zeros(PAIRS), 0.0, 0.0)


def workspace(n):
    return np.zeros(_planning.workspace(n))


def roomy(m, system):
    system.make_room(m)
    return system


def wide():
    """A model of one more state."""
    return model(of_six_states(N + 1))


@pytest.mark.parametrize("name", LONG)
def test_arrays_of_a_wrong_size_are_value_errors(name):
    case = of_six_states()
    m = model(case)
    system, _ = pattern(m, case, np.array([0, 2, N]))
    with pytest.raises(ValueError):
        LONG[name](m, system)


def test_a_sweep_over_the_values_that_it_reads_is_refused():
    case = random_case(9, seed=5)
    m, value = model(case), np.zeros(9)
    before = value.copy()
    for call in (lambda: m.hard(value, value), lambda: m.soft(value, value),
                 lambda: m.expected(some_policy(case), value, value),
                 lambda: m.chosen(some_choice(case), value, value)):
        with pytest.raises(ValueError, match="what is written"):
            call()
        assert value.tobytes() == before.tobytes()


# --- exp and log ------------------------------------------------------------------------------------------------------


@cache
def accurate(what, seed=0):
    """(x, high, low): points, dense and extreme, and exp or log of them as a sum of two doubles."""
    mpmath = pytest.importorskip("mpmath")
    rng = np.random.default_rng(seed)
    if what == "exp":
        x = np.concatenate([[0.0, -0.0, -1e-300, -5e-324, -ULP, -ULP / 2, -707.999999999, np.nextafter(-708.0, 0)],
                            -np.linspace(0, 708, 4000)[:-1], -np.linspace(0, 2, 2000), -np.geomspace(1e-20, 700, 1000),
                            -rng.uniform(0, 40, 2000), -(np.arange(1, 2041, 2) / 2) * np.log(2.0) % 708])
        x = x[x > -708]
    else:
        whole = np.arange(1.0, 300.0)
        x = np.concatenate([[1.0, 1 + ULP, 1 + 2 * ULP, np.sqrt(2.0), np.nextafter(np.sqrt(2.0), 0), 2.0, 1e308,
                             np.nextafter(2.0, 0), np.finfo(float).max], whole, np.linspace(1, 2, 3000),
                            1 + np.geomspace(ULP, 1, 1000), np.geomspace(1, 1e308, 3000), rng.uniform(1, 64, 2000),
                            2.0 ** np.arange(1, 1024), np.sqrt(2.0) * 2.0 ** np.arange(1023)])
    with mpmath.workdps(40):
        exact = [getattr(mpmath, what)(mpmath.mpf(v)) for v in x.tolist()]
        high = np.array([float(v) for v in exact])
        return x, high, np.array([float(v - h) for v, h in zip(exact, high.tolist())])


def applied(what, x, bits):
    x = np.array(x, float)
    model(ONE, bits=bits).apply(what, x)
    return x


@pytest.mark.parametrize("what", ("exp", "log"))
def test_exp_and_log_are_within_two_ulp(what, bits):
    x, high, low = accurate(what)
    error = np.abs((applied(what, x, bits) - high) - low) / np.spacing(np.abs(high))
    error[high == 0] = np.abs(applied(what, x, bits))[high == 0]
    assert error.max() <= 2.0, (x[error.argmax()], error.max())


def test_exp_ends_in_0_and_log_starts_at_0(bits):
    assert applied("exp", [0.0, -0.0, -1e-300], bits).tolist() == [1.0, 1.0, 1.0]
    assert applied("exp", [-708.0, -708.4, -745.0, -746.0, -1e4, -1e300, -np.finfo(float).max, -np.inf],
                   bits).tolist() == [0.0] * 8
    assert applied("exp", [np.nextafter(-708.0, 0)], bits)[0] > 0
    assert applied("log", [1.0, 1 + ULP], bits).tolist() == [0.0, ULP]


@pytest.mark.parametrize("what", ("exp", "log"))
def test_exp_and_log_of_any_number_of_numbers(what, bits):
    x, high, _ = accurate(what)
    for n in range(40):
        room = np.concatenate([x[100:100 + n], [7.0]])
        model(ONE, bits=bits).apply(what, room[:n])
        np.testing.assert_allclose(room[:n], high[100:100 + n], rtol=4 * ULP)
        assert room[n] == 7.0


def test_exp_never_decreases_by_more_than_rounding(bits):
    found = applied("exp", -np.linspace(708, 0, 20_001), bits)
    assert (np.diff(found) >= -2 * np.spacing(found[1:])).all()


# --- Gauss-Seidel -----------------------------------------------------------------------------------------------------


def in_turn(case, value, order, temperature):
    """One state after another, each from the present values of the others; the greatest change."""
    p, change = ref.tensor(case), 0.0
    for s in order:
        if not case.free[s]:
            continue
        own = slice(case.pair_ptr[s], case.pair_ptr[s + 1])
        q = case.reward[own] + case.discount * (p[own] @ value)
        new = q.max()
        if temperature:
            new += temperature * np.log(np.exp((q - new) / temperature).sum())
        change = max(change, abs(new - value[s]))
        value[s] = new
    return change


@pytest.mark.parametrize("backward", (False, True))
@pytest.mark.parametrize("temperature", (0.0, 0.05, 1.0))
@cases
def test_gauss_seidel_equals_a_loop(name, temperature, backward):
    case = take(name)
    if case.n_states > 300:
        pytest.skip("a loop of Python over 700 states")
    rng = np.random.default_rng(0)
    for order in (np.arange(case.n_states), rng.permutation(case.n_states), rng.permutation(case.n_states)[::3]):
        found, expected = some_values(case), some_values(case)
        change = model(case, temperature or 1.0).gauss_seidel(found, order.astype(np.int32), temperature > 0, backward)
        wanted = in_turn(case, expected, order[::-1] if backward else order, temperature)
        assert_close(found, expected, 200)
        np.testing.assert_allclose(change, wanted, rtol=1e-11, atol=1e-12)
    assert model(case).gauss_seidel(found, np.empty(0, np.int32), False, backward) == 0.0


@pytest.mark.parametrize("backward", (False, True))
@cases
def test_a_walk_is_gauss_seidel_in_each_part_alone(name, backward):
    case = take(name)
    if case.n_states > 300:
        pytest.skip("a loop of Python over 700 states")
    for begin in cuts(case.n_states):
        start, found, expected = some_values(case), some_values(case), some_values(case)
        for first, last in pairwise(begin):
            own, order = start.copy(), np.arange(first, last)
            in_turn(case, own, order[::-1] if backward else order, 0.0)
            expected[first:last] = own[first:last]
        m = model(case)
        m.walk(found, start, begin, backward)
        assert_close(found, expected, 200)
        for n_threads in (2, 3):
            again = some_values(case)
            m.walk(again, start, begin, backward, n_threads)
            assert again.tobytes() == found.tobytes()
    for begin in ([0, case.n_states + 1], [1, case.n_states], [0], [0, case.n_states, 0, case.n_states]):
        with pytest.raises(ValueError, match="parts"):
            m.walk(found, start, np.array(begin), backward)


# --- the matrix of a policy -------------------------------------------------------------------------------------------


def pattern(m, case, begin):
    """A system with the pattern of all policies; the places of the entries."""
    slot = np.full(case.indices.size, 12345, np.uint16)
    system = _planning.System(case.n_states, begin)
    assert system.set_pattern(m, slot)
    other = _planning.System(case.n_states, begin)
    other.use_pattern(system.pattern())
    return other, slot


def merged(case, policy, begin, n_threads=1, **options):
    m = model(case, **options)
    system, slot = pattern(m, case, begin)
    system.set_merged(m, slot, policy, n_threads)
    return system


def room_for_rows(case, begin):
    return roomy(model(case), _planning.System(case.n_states, begin))


def rows_of(m, case, best, begin, n_threads=1):
    system, previous = room_for_rows(case, begin), np.full(case.n_states, -2, np.int32)
    assert system.set_rows(m, best, previous, n_threads) == case.n_states
    np.testing.assert_array_equal(previous, best)
    return system


def exact(case, policy):
    """gamma P of the policy, dense; rows of fixed states are 0."""
    return case.discount * ref.policy_matrix(case, np.where(case.free[case.pair_state], policy, 0.0))


def as_matrix(system, n_threads=1):
    """gamma P as the system holds it, by its products with the unit vectors."""
    columns = np.full((system.n, system.n), np.nan)
    for j, unit in enumerate(np.eye(system.n)):
        system.product(unit, columns[j], n_threads)
    return columns.T


def rows(system):
    """Of each state: [(columns, values) of L, of U, of C], columns of the whole matrix, values as held, times the gain."""
    begin, found = np.asarray(system.begin), []
    for block, (first, last) in enumerate(pairwise(begin)):
        at = [int(part[block]) for part in (system.low_at, system.high_at, system.far_at)]
        for s in range(first, last):
            found.append([])
            for part, (columns, values, size, base) in enumerate((
                    (system.low_column, system.low, _planning.QUAD * int(system.low_size[s]), first),
                    (system.high_column, system.high, _planning.QUAD * int(system.high_size[s]), first),
                    (system.far_column, system.far, int(system.far_size[s]), 0))):
                here = slice(at[part], at[part] + size)
                found[-1].append((np.asarray(columns)[here].astype(int) + base, np.asarray(values)[here].astype(float)))
                at[part] += size
        assert all(end <= int(part[block + 1]) for end, part in zip(at, (system.low_at, system.high_at, system.far_at)))
    return found


def as_bytes(row):
    return [part.tobytes() for pair in row for part in pair]


def triangles(system):
    """(L, U, C, D) in the notation of _sweeps.h, dense."""
    parts = np.zeros((3, system.n, system.n))
    for s, row in enumerate(rows(system)):
        for part, (columns, values) in zip(parts, row):
            np.add.at(part[s], columns, values / float(system.gain[s]))
    return *parts, np.array(system.diagonal)


def assert_laid_out(system, begin):
    """Within the block filled up to quads, the states just before and after in places of their own (_sweeps.h)."""
    found = rows(system)
    for first, last in pairwise(begin):
        for i in range(first, last):
            (low, low_value), (high, high_value), (far, _) = found[i]
            assert low.size % _planning.QUAD == high.size % _planning.QUAD == 0
            for columns, values, place, beside in ((low, low_value, -1, i - 1), (high, high_value, 0, i + 1)):
                real = columns[columns != i]
                assert (values[columns == i] == 0).all()
                assert not columns.size or (columns[place] == beside) == (beside in real)
                wanted = -(-(real.size + (beside not in real)) // _planning.QUAD) * _planning.QUAD
                assert columns.size == (wanted if real.size else 0)
                assert (np.diff(real) > 0).all()
            real_low, real_high = low[low != i], high[high != i]
            assert ((first <= real_low) & (real_low < i)).all() and ((i < real_high) & (real_high < last)).all()
            assert ((far < first) | (far >= last)).all() and (np.diff(far) > 0).all()


MATRICES = {
    "one state": lambda: ONE,
    "one state, fixed": lambda: from_rows(1, [1], [{0: 1.0}], [0.5], [0]),
    "no pairs at all": lambda: from_rows(5, [0] * 5, [], [], range(5)),
    "diagonal alone": lambda: from_rows(4, [2] * 4, [{i // 2: 1.0} for i in range(8)]),
    "all rows empty": lambda: from_rows(5, [2] * 5, [{}] * 10),
    "deterministic": deterministic,
    "random": lambda: random_case(seed=21),
    "diagonal entries, fixed states, empty rows": lambda: random_case(60, seed=22, fixed=0.2, own=0.8, empty=0.2),
    "one pair a state": lambda: random_case(50, (1,), 7, seed=23),
    "most states' pairs have more than 64 entries": lambda: random_case(90, (1, 9, 12, 20), 8, seed=24, own=0.3,
                                                                        fixed=0.1),
    "64 entries": lambda: random_case(70, (8,), 8, seed=25, own=0.5),
    "65 entries": lambda: random_case(70, (13,), 5, seed=26, own=0.5),
    "the same columns for every action": lambda: from_rows(
        30, [30] * 30, [{c: 0.1 for c in range(s % 7, 30, 3)} for s in range(30) for _ in range(30)]),
    "dense": lambda: random_case(40, (3,), 40, seed=27),
    "banded": lambda: random_case(80, (4,), 5, seed=28, reach=4),
    "small probabilities": lambda: from_rows(3, [1] * 3, [{0: 0.5, 1: 1e-30, 2: 0.5}] * 3),
    "discount 1, ends": lambda: random_case(40, seed=29, discount=1.0, fixed=0.15),
    "discount 0": lambda: random_case(40, seed=30, discount=0.0),
}
matrices = pytest.mark.parametrize("name", MATRICES)


@cache
def take_matrix(name):
    return MATRICES[name]()


def cuts(n):
    """One block; several of uneven sizes; one of no states among them; one a state."""
    return [np.array(c) for c in ([0, n], [0, n // 3, n // 2, n], [0, n // 4, n // 4, n], list(range(n + 1)))]


def assert_single(found, wanted):
    np.testing.assert_allclose(found, wanted, rtol=1.5 * SINGLE, atol=1e-15)


@matrices
def test_merged_rows_are_the_matrix_of_the_policy(name):
    case = take_matrix(name)
    for begin in cuts(case.n_states):
        for seed in range(2):
            policy = some_policy(case, seed)
            system = merged(case, policy, begin)
            assert_single(as_matrix(system), exact(case, policy))
            assert_laid_out(system, begin)


@matrices
def test_a_pattern_serves_every_policy(name):
    case = take_matrix(name)
    m, begin = model(case), cuts(case.n_states)[1]
    system, slot = pattern(m, case, begin)
    for seed in range(4):
        policy = some_policy(case, seed, zeros=0.2 * seed)
        system.set_merged(m, slot, policy)
        assert_single(as_matrix(system), exact(case, policy))
    # an entry's place: the column that it leads to, or the row's length for the state itself
    for s, row in enumerate(rows(system)):
        columns = np.concatenate([columns for columns, _ in row] + [[s]])
        for k in range(case.indptr[case.pair_ptr[s]], case.indptr[case.pair_ptr[s + 1]]):
            assert case.fixed[s] or columns[slot[k]] == case.indices[k]
            assert (slot[k] == columns.size - 1) == (case.indices[k] == s) or case.fixed[s]


@matrices
def test_rows_of_one_action_are_the_matrix_of_the_policy(name):
    case = take_matrix(name)
    for begin in cuts(case.n_states):
        best = some_choice(case, 1, none=0.1)
        system = rows_of(model(case), case, best, begin)
        assert_single(as_matrix(system), exact(case, as_policy(case, best)))
        assert_laid_out(system, begin)


def test_without_room_for_an_entry_the_rows_are_those_of_the_identity():
    for case in (take_matrix("no pairs at all"), take_matrix("all rows empty")):
        system = room_for_rows(case, np.array([0, 2, 5]))
        system.set_rows(model(case), some_choice(case), np.full(5, -2, np.int32))
        np.testing.assert_array_equal(system.diagonal, np.ones(5))


@matrices
@pytest.mark.parametrize("n_threads", (1, 3))
def test_only_what_changes_is_written(name, n_threads):
    case = take_matrix(name)
    rng = np.random.default_rng(3)
    for begin in cuts(case.n_states):
        m, best = model(case), some_choice(case, 2)
        system, previous = room_for_rows(case, begin), np.full(case.n_states, -2, np.int32)
        system.set_rows(m, best, previous, n_threads)
        assert system.set_rows(m, best, previous, n_threads) == 0
        block = np.searchsorted(begin, np.arange(case.n_states), side="right")
        for turn in range(6):
            new = some_choice(case, 10 + turn, none=0.2)
            some = rng.random(case.n_states) < (0.5, 0.08)[turn % 2]  # of most blocks many rows, or few
            new = np.where((rng.random(begin.size) < 0.7)[block - 1] & some, new, best)
            changed = new != best
            # spoilt where few rows change or none: a row that is not written stays spoilt
            many = 4 * np.bincount(block[changed], minlength=begin.size) > np.bincount(block, minlength=begin.size)
            spoilt = np.flatnonzero(~changed & ~many[block])
            system.diagonal[spoilt] += 77.0
            held = rows(system)
            before = [as_bytes(held[i]) for i in spoilt]
            assert system.set_rows(m, new, previous, n_threads) == changed.sum()
            assert (np.asarray(system.diagonal)[spoilt] > 70).all() or not case.indices.size
            held = rows(system)
            assert before == [as_bytes(held[i]) for i in spoilt]
            system.diagonal[spoilt] -= 77.0
            np.testing.assert_array_equal(previous, new)
            afresh = room_for_rows(case, begin)
            afresh.set_rows(m, new, np.full(case.n_states, -2, np.int32))
            assert [as_bytes(row) for row in rows(system)] == [as_bytes(row) for row in rows(afresh)]
            best = new


@matrices
def test_the_transposed_system_is_the_transposed_matrix(name):
    case = take_matrix(name)
    policy, best = some_policy(case, 5), some_choice(case, 5)
    for begin in cuts(case.n_states):
        for system, wanted in ((merged(case, policy, begin), exact(case, policy)),
                               (filled(case, best, begin), exact(case, as_policy(case, best)))):
            turned = system.transposed()
            # two roundings to single precision
            np.testing.assert_allclose(as_matrix(turned), wanted.T, rtol=3 * SINGLE, atol=1e-15)
            assert_laid_out(turned, begin)
            np.testing.assert_allclose(as_matrix(turned.transposed()), wanted, rtol=4.5 * SINGLE, atol=1e-15)


def filled(case, best, begin):
    """Rows of one action; where the model has no entry at all, the pattern, which is empty as well."""
    return rows_of(model(case), case, best, begin) if case.indices.size else merged(case, as_policy(case, best), begin)


def test_a_sweep_of_the_system_is_right_plus_product():
    case = take_matrix("diagonal entries, fixed states, empty rows")
    x, right = some_values(case, 1), some_values(case, 2)
    for begin in cuts(case.n_states):
        system, out, product = merged(case, some_policy(case), begin), np.empty(60), np.empty(60)
        change = system.sweep(x, right, out)
        system.product(x, product)
        np.testing.assert_array_equal(out, product + right)
        assert change == ((out - x).min(), (out - x).max())


def test_rows_of_more_places_than_16_bits_count_have_no_pattern():
    n = 65_600
    for count, fits in ((65_526, True), (65_527, False), (65_599, False)):
        # one state's two pairs share a middle third of `count` columns; itself is one of them
        third = count // 3
        first, second = np.arange(2 * third), np.arange(third, count)
        indices = np.concatenate([first, second]).astype(np.int32)
        probability = np.concatenate([np.full(first.size, 1 / first.size), np.full(second.size, 1 / second.size)])
        pairs = np.zeros(n + 1, np.int64)
        pairs[8:] = 2
        fixed = np.ones(n, np.uint8)
        fixed[7] = 0
        case = Case(pairs, np.array([0, first.size, indices.size]), indices, probability, np.zeros(2), fixed)
        slot, system = np.empty(indices.size, np.uint16), _planning.System(n, np.array([0, 32_800, n]))
        assert system.set_pattern(model(case), slot) == fits
        if fits:
            system.set_merged(model(case), slot, np.array([0.25, 0.75]))
            out, x = np.empty(n), np.random.default_rng(0).normal(size=n)
            system.product(x, out)
            wanted = 0.9 * (0.25 * x[first].mean() + 0.75 * x[second].mean())
            assert abs(out[7] - wanted) <= SINGLE and not np.delete(out, 7).any()


@matrices
def test_the_gain_gives_back_what_the_triangular_factors_lose(name):
    case = take_matrix(name)
    for begin in cuts(case.n_states):
        system = merged(case, some_policy(case, 6), begin)
        lower, upper, _, _ = triangles(system)
        gain, near = np.asarray(system.gain).astype(float), np.zeros_like(upper)
        short = np.zeros(system.n, bool)
        for j, ((low, _), (high, values), _) in enumerate(rows(system)):
            short[j] = low.size == _planning.QUAD
            real = high[:_planning.QUAD] != j
            near[j, high[:_planning.QUAD][real]] = values[:_planning.QUAD][real] / gain[j]
        lost = lower @ (gain * upper.sum(1))
        wanted = 1 - _planning.GIVEN_BACK * lost
        wanted -= (1 - _planning.GIVEN_BACK) * np.where(short, np.diag(lower @ (gain[:, None] * near)), 0)
        np.testing.assert_allclose(1 / gain, wanted, rtol=1e-5)
        # factors that are M-matrices
        assert (1 / gain >= 0.2).all() and (gain * upper.sum(1) <= 1 + 1e-5).all()
        np.testing.assert_array_equal(system.transposed().gain, system.gain)
        assert not case.indices.size or (np.asarray(filled(case, some_choice(case), begin).gain) == 1).all()


# --- its solution -----------------------------------------------------------------------------------------------------


def solved(system, right, rtol=1e-6, max_iter=200, **options):
    x = np.full(system.n, np.nan)
    iterations, residual = system.solve(right, x, workspace(system.n), rtol, max_iter, **options)
    return x, iterations, residual


def preconditioned(system, rest):
    """(I - GL)^-1 G D^-1 rest: what the solver measures."""
    lower, _, _, diagonal = triangles(system)
    gain = np.asarray(system.gain).astype(float)
    return np.linalg.solve(np.eye(system.n) - gain[:, None] * lower, gain * rest / diagonal)


@matrices
def test_solutions_equal_dense_ones(name, bits):
    case = take_matrix(name)
    policy, best, right = some_policy(case, 7), some_choice(case, 7), some_values(case, 7)
    for begin in cuts(case.n_states):
        for system, chosen in ((merged(case, policy, begin), policy),
                               (filled(case, best, begin), as_policy(case, best))):
            wanted = np.eye(case.n_states) - exact(case, chosen)
            for kind, matrix in ((system, wanted), (system.transposed(), wanted.T)):
                if np.linalg.cond(matrix) > 1e5:
                    continue  # a policy that never ends, at discount 1: what singular systems do stands below
                x, iterations, residual = solved(kind, right, bits=bits)
                assert residual <= 1e-6 and iterations <= 60
                # the condition multiplies the residual and the rounding of the entries
                size = np.linalg.norm(np.linalg.inv(matrix), 2) * np.linalg.norm(right)
                assert np.linalg.norm(x - np.linalg.solve(matrix, right)) <= 1e-5 * max(1.0, size)


@pytest.mark.parametrize("rtol", (1e-1, 1e-3, 1e-6, 1e-10))
def test_the_residual_is_that_of_the_preconditioned_system(rtol, bits):
    case = random_case(90, (1, 5, 12), 6, seed=31, own=0.3, fixed=0.1, discount=0.99, reach=8)
    right = some_values(case, 8)
    for begin in cuts(case.n_states)[:3]:
        system = merged(case, some_policy(case), begin)
        for kind in (system, system.transposed()):
            x, iterations, residual = solved(kind, right, rtol, bits=bits)
            product = np.empty(kind.n)
            kind.product(x, product)
            rest = preconditioned(kind, right - (x - product))
            true = np.linalg.norm(rest) / np.linalg.norm(preconditioned(kind, right))
            assert 0 < residual <= rtol and 0 < iterations < 100
            assert abs(true - residual) <= 1e-6 * residual + 1e-12


def test_a_solution_to_no_tolerance_is_that_of_the_single_precision_matrix(bits):
    case = random_case(90, (1, 5, 12), 6, seed=32, own=0.3, discount=0.95)
    right = some_values(case, 9)
    system = merged(case, some_policy(case), np.array([0, 30, 90]))
    x, _, residual = solved(system, right, 0.0, 100, bits=bits)
    assert residual < 1e-13
    assert_close(x, np.linalg.solve(np.eye(90) - as_matrix(system), right), 1e4)


def test_widths_of_vectors_agree(bits):
    case = random_case(90, (1, 5, 12), 6, seed=33, own=0.3)
    right = some_values(case, 10)
    for begin in cuts(90):
        system = merged(case, some_policy(case), begin)
        x, n, _ = solved(system, right, 1e-12, bits=bits)
        y, m, _ = solved(system, right, 1e-12, bits=64)
        assert n == m
        np.testing.assert_allclose(x, y, rtol=1e-10, atol=1e-10)


def test_threads_do_not_change_the_bits_of_systems(bits):
    case = random_case(700, (1, 3, 12), 6, seed=34, own=0.3, fixed=0.1, reach=20)
    m, policy, best, right = model(case), some_policy(case), some_choice(case), some_values(case, 11)
    for begin in (np.array([0, 100, 350, 351, 600, 700]), np.arange(0, 701, 70)):

        def everything(n_threads, begin=begin):
            mixed, slot = pattern(m, case, begin)
            mixed.set_merged(m, slot, policy, n_threads)
            found = []
            for system in (mixed, mixed.transposed(n_threads), rows_of(m, case, best, begin, n_threads)):
                out = np.empty((2, 700))
                system.product(right, out[0], n_threads)
                found.append(system.sweep(right, right, out[1], n_threads))
                x, *rest = solved(system, right, 1e-3, n_threads=n_threads, bits=bits)
                found += [out.tobytes(), x.tobytes(), rest]
            return found

        first = everything(1)
        assert first == everything(2) == everything(3)


def test_a_right_side_of_zeros_has_the_solution_0(bits):
    case = random_case(20, seed=35)
    x, iterations, residual = solved(merged(case, some_policy(case), np.array([0, 20])), np.zeros(20), bits=bits)
    assert not x.any() and (iterations, residual) == (0, 0.0)


def test_a_limit_of_iterations_is_kept_to(bits):
    case = random_case(90, (1, 5, 12), 6, seed=36, discount=0.99, reach=5)
    system, right = merged(case, some_policy(case), np.array([0, 40, 90])), some_values(case)
    for limit in (0, 1, 2, 5):
        x, iterations, residual = solved(system, right, 1e-14, limit, bits=bits)
        assert iterations == limit and residual > 1e-14 and np.isfinite(x).all()
        assert limit or (residual == 1.0 and not x.any())
    assert residual < 0.1


SINGULAR = {
    "a state that stays for ever": from_rows(3, [1] * 3, [{0: 1.0}, {0: 0.5, 2: 0.5}, {1: 1.0}], discount=1.0),
    "one state that stays for ever": from_rows(1, [1], [{0: 1.0}], discount=1.0),
    "two states that change places": from_rows(2, [1] * 2, [{1: 1.0}, {0: 1.0}], discount=1.0),
    "a ring": from_rows(40, [1] * 40, [{(s + 1) % 40: 1.0} for s in range(40)], discount=1.0),
    "a walk": from_rows(40, [1] * 40, [{(s + 1) % 40: 0.5, (s - 1) % 40: 0.5} for s in range(40)], discount=1.0),
    "a ring and a way out of nothing": from_rows(
        6, [1] * 6, [{1: 1.0}, {2: 1.0}, {0: 1.0}, {4: 1.0}, {3: 0.5, 5: 0.5}, {}], discount=1.0),
    "dense": random_case(30, (2,), 30, seed=37, discount=1.0),
    "all but singular": from_rows(40, [1] * 40, [{(s + 1) % 40: 1.0} for s in range(40)], discount=1 - 1e-15),
}


@pytest.mark.parametrize("name", SINGULAR)
@pytest.mark.parametrize("right", ("ones", "balanced", "first", "all but the first"))
def test_a_singular_system_ends_and_does_not_pass_for_solved(name, right, bits):
    case = SINGULAR[name]
    n = case.n_states
    right = {"ones": np.ones(n), "balanced": np.cos(np.arange(n) * np.pi), "first": np.eye(n)[0],
             "all but the first": 1 - np.eye(n)[0]}[right]
    policy = some_policy(case, zeros=0.0)
    for begin in cuts(n):
        system = merged(case, policy, begin)
        for kind in (system, system.transposed()):
            x, iterations, residual = solved(kind, right, 1e-6, 400, bits=bits)
            assert iterations <= 400 and not np.isnan(residual) and residual >= 0
            if residual <= 1e-6:  # the system has solutions, and this is one, or as good as one
                product = np.empty(n)
                kind.product(x, product)
                assert np.isfinite(x).all()
                assert np.linalg.norm(right - (x - product)) <= 1e-4 * np.linalg.norm(right) * max(
                    1.0, SINGLE * np.abs(x).max())


@pytest.mark.parametrize("where", ("right", "work"))
def test_what_is_not_a_number_does_not_pass_for_solved(where, bits):
    case = random_case(9, seed=38)
    right, work, x = np.ones(9), workspace(9), np.empty(9)
    if where == "right":
        right[4] = np.nan
    else:
        work[:] = np.nan
    system = merged(case, some_policy(case), np.array([0, 4, 9]))
    _, residual = system.solve(right, x, work, 1e-6, 50, bits=bits)
    product = np.empty(9)
    system.product(x, product)
    assert not residual <= 1e-6 or np.abs(right - (x - product)).max() <= 1e-5


# --- few pairs --------------------------------------------------------------------------------------------------------


def few_of(case, margin, middle=0.25, n_threads=1):
    """(few, value, ahead, q): few pairs as they stand after one sweep of some values."""
    value, ahead, q = some_values(case), np.empty(case.n_states), np.empty(case.n_pairs)
    m = model(case)
    m.hard(value, ahead, None, n_threads, q)
    return _planning.Few(m, value, ahead, q, middle, margin, n_threads), value, ahead, q


def test_the_room_of_a_block_holds_any_pairs_of_its_states():
    case = take_matrix("diagonal entries, fixed states, empty rows")
    sizes = np.zeros(case.n_states, int)
    np.maximum.at(sizes, case.pair_state, np.diff(case.indptr))
    for begin in cuts(case.n_states):
        system = room_for_rows(case, begin)
        for block, (first, last) in enumerate(pairwise(begin)):
            here = sizes[first:last]
            quads = -(-(here + 1) // _planning.QUAD) * _planning.QUAD * (here > 0)  # all of them on one side
            for at in (system.low_at, system.high_at):
                assert quads.sum() <= at[block + 1] - at[block] <= (here + _planning.QUAD).sum()
            assert system.far_at[block + 1] - system.far_at[block] == here.sum()


def test_blocks_that_do_not_cover_the_states_are_refused():
    for begin in ([0, 5], [1, 6], [0], [0, 4, 3, 6], [0, 7, 6]):
        with pytest.raises(ValueError, match="block"):
            _planning.System(6, np.array(begin))
    _planning.System(_planning.MOST, np.array([0, _planning.MOST]))
    with pytest.raises(ValueError, match="0 to 65536 states"):
        _planning.System(_planning.MOST + 1, np.array([0, _planning.MOST + 1]))


@cases
@pytest.mark.parametrize("margin", (0.0, 0.5, np.inf))
def test_few_pairs_are_those_whose_q_is_within_the_margin(name, margin):
    case = take(name)
    few, _, ahead, q = few_of(case, margin)
    near = case.free[case.pair_state] & np.isfinite(q) & (q >= ahead[case.pair_state] - margin)
    np.testing.assert_array_equal(few.count, ref.state_sum(case, near.astype(float)))
    assert few.n_pairs == near.sum()
    back = case.indices == np.repeat(case.pair_state, np.diff(case.indptr))
    entries = near[np.repeat(np.arange(case.n_pairs), np.diff(case.indptr))]
    assert few.n_entries == entries.sum() and np.sum(few.size[:-1]) == (entries & ~back).sum()
    if margin == 0:  # the best pair of each state is close to itself
        able = case.free & (ref.state_sum(case, np.isfinite(q).astype(float)) > 0)
        assert (np.asarray(few.count)[able] >= 1).all()


@cases
@pytest.mark.parametrize("margin", (0.0, 0.5, np.inf))
def test_a_sweep_over_few_pairs_is_the_step_of_the_twin_less_the_shift(name, margin):
    case = take(name)
    if case.discount == 1:
        pytest.skip("a state that stays where it is for ever has no correction")
    few, value, ahead, q = few_of(case, margin)
    delta = np.random.default_rng(6).normal(size=case.n_states).astype(np.float32)
    want = delta.astype(float)
    acts = np.asarray(few.count) > 0
    for begin in range(0, case.n_states, _planning.FEW_STATES):
        part = slice(begin, begin + _planning.FEW_STATES)
        want[part] = ref.corrected(case, value, ahead, q, want, 0.25 + 0.125, margin)[part]
    found = delta.copy()
    least, most, mean = few.sweep(found, np.empty_like(found), 0.125)
    np.testing.assert_allclose(found, want, rtol=1e-5, atol=1e-5)
    change = (found - delta)[acts].astype(float)
    np.testing.assert_allclose((least, most), (change.min(initial=np.inf), change.max(initial=-np.inf)), atol=1e-6)
    np.testing.assert_allclose(mean, change.sum() / case.n_states, atol=1e-6)


def test_sweeps_over_few_pairs_come_to_the_fixed_point():
    case = random_case(300, seed=8, own=0.5)
    few, value, _, _ = few_of(case, np.inf, middle=0.0)
    delta, fresh = np.zeros(300, np.float32), np.empty(300, np.float32)
    for _ in range(200):
        few.sweep(delta, fresh, 0.0)
    new = np.empty(300)
    model(case).hard(value + delta, new)
    np.testing.assert_allclose(new, value + delta, atol=1e-5)


def test_each_part_of_few_pairs_sees_the_parts_before_it_and_threads_do_not_change_the_bits():
    n = 2 * _planning.FEW_STATES + 100
    case = random_case(n, actions=(1, 2), width=2, seed=9)
    state = np.arange(n)
    chain = from_rows(n, [1] * n, [{max(s - _planning.FEW_STATES, 0): 1.0} for s in state], np.zeros(n))
    few, value, ahead, q = few_of(chain, 0.0, middle=0.0)
    found = np.zeros(n, np.float32)
    few.sweep(found, np.empty_like(found), 0.0)
    want = np.zeros(n)
    for s in state:
        back = max(s - _planning.FEW_STATES, 0)
        want[s] = (ahead[s] - value[s] + 0.9 * (want[back] if back != s else 0.0)) / (1 - 0.9 * (back == s))
        if back // _planning.FEW_STATES == s // _planning.FEW_STATES and back != s:
            want[s] = ahead[s] - value[s]
    np.testing.assert_allclose(found, want, rtol=1e-5, atol=1e-5)
    bits = []
    for n_threads in (1, 2, 3):
        few = few_of(case, 0.5, n_threads=n_threads)[0]
        delta, fresh = np.zeros(n, np.float32), np.empty(n, np.float32)
        changes = [few.sweep(delta, fresh, 0.1, n_threads) for _ in range(3)]
        bits.append((changes, delta.tobytes(), *(np.asarray(getattr(few, what)).tobytes() for what in ("base", "count"))))
    assert bits[0] == bits[1] == bits[2]


# --- sweeps from values in single precision, and from values that are 0 ----------------------------------------------


@cases
def test_a_rough_sweep_is_that_of_the_rounded_values(name, bits):
    case = take(name)
    value = some_values(case)
    rough = (value - 2.0).astype(np.float32)
    m, whole = model(case, bits=bits), value.copy()
    matrix = ref.tensor(case)
    # rows that do not sum to 1 count the middle as if they did
    q = case.reward + case.discount * (2.0 + matrix @ rough.astype(float))
    found, out = np.full(case.n_pairs, np.nan), np.empty(case.n_states)
    m.hard(value, out, None, 1, found, False, rough, 2.0)
    assert_close(found, q)
    soft = np.empty(case.n_states)
    m.soft(value, soft, None, 1, False, rough, 2.0)
    for s in np.flatnonzero(case.free & (np.diff(case.pair_ptr) > 0)):
        own = q[case.pair_ptr[s]:case.pair_ptr[s + 1]]
        assert out[s] == found[case.pair_ptr[s]:case.pair_ptr[s + 1]].max()
        top = own.max()
        np.testing.assert_allclose(soft[s], top + 0.7 * np.log(np.exp((own - top) / 0.7).sum()), rtol=1e-12, atol=1e-12)
    np.testing.assert_array_equal(value, whole)


@cases
def test_a_silent_sweep_is_that_of_values_that_are_0(name, bits):
    case = take(name)
    m, value = model(case, bits=bits), np.zeros(case.n_states)
    outs, qs = np.full((4, case.n_states), np.nan), np.full((2, case.n_pairs), np.nan)
    changes = [m.hard(value, outs[0], None, 1, qs[0], False), m.hard(value, outs[1], None, 1, qs[1], True)]
    changes += [m.soft(value, outs[2], None, 1, False), m.soft(value, outs[3], None, 1, True)]
    assert changes[0] == changes[1] and changes[2] == changes[3]
    np.testing.assert_array_equal(outs[::2], outs[1::2])
    np.testing.assert_array_equal(*qs)
    np.testing.assert_array_equal(qs[0], case.reward)


# --- visitation, mass ------------------------------------------------------------------------------------


@swept
@pytest.mark.parametrize("n_threads", (1, 3))
def test_steps_forward_are_steps_one_by_one(name, n_threads):
    case = take(name)
    policy = np.array([some_policy(case, seed) for seed in range(3)]).reshape(3, case.n_pairs)
    state, pair, stays = np.full((4, case.n_states), np.nan), np.full(case.n_pairs, np.nan), case.fixed
    state[0] = np.random.default_rng(4).exponential(size=case.n_states)
    if not case.indices.size:
        return
    by_next = case.transitions.tocsc()
    columns = by_next.indptr.astype(np.int64), by_next.indices.astype(np.int32), by_next.data
    for given in (policy, policy[:1]):
        _planning.forward(model(case), given, stays, *columns, state, pair, n_threads)
        here, total = state[0].copy(), np.zeros(case.n_pairs)
        for t in range(3):
            now = here[case.pair_state] * given[min(t, len(given) - 1)]
            total += now
            here = ref.tensor(case).T @ now + here * stays
            assert_close(state[t + 1], here)
        assert_close(pair, total)


@swept
@pytest.mark.parametrize("soft", (False, True))
def test_steps_backward_are_sweeps_one_by_one(name, soft):
    case, n_steps = take(name), 3
    value, policy, found = np.full((4, case.n_states), np.nan), np.full((3, case.n_pairs), np.nan), np.full((3, 3), np.nan)
    value[3] = some_values(case)
    m, expected, choice = model(case), value.copy(), np.empty(case.n_pairs)
    m.backward(value, policy if soft else None, 1, n_steps, soft, found, 2)
    m.backward(value, policy if soft else None, 0, 1, soft, found)
    for t in (2, 1, 0):
        change = (m.soft(expected[t + 1], expected[t], choice) if soft else m.hard(expected[t + 1], expected[t]))
        assert found[t].tolist() == [*change, np.abs(expected[t + 1]).max()]
        if soft:
            np.testing.assert_array_equal(policy[t], choice)
    np.testing.assert_array_equal(value, expected)


def test_steps_backward_end_where_values_overflow():
    case = from_rows(3, [1, 1, 1], [{0: 1.0}, {1: 1.0}, {2: 1.0}], [1e308, 0.0, 1.0], discount=1.0)
    value, found = np.zeros((6, 3)), np.full((5, 3), np.nan)
    model(case).backward(value, None, 0, 5, False, found)
    assert np.isfinite(found[4]).all() and np.isinf(found[3, 1]) and np.isnan(found[:3]).all()


@swept
def test_the_extremes_of_policies_are_the_least_entry_and_the_sum_furthest_off_1(name):
    case = take(name)
    policy = np.array([some_policy(case, seed) for seed in range(2)]).reshape(2, case.n_pairs)
    policy[1] *= 1.25
    some = np.diff(case.pair_ptr) > 0
    least, off = _planning.policy_extremes(case.pair_ptr, policy)
    sums = np.array([ref.state_sum(case, row) for row in policy])[:, some]
    assert least == 0.0
    np.testing.assert_allclose(off, np.abs(sums - 1.0).max(initial=0.0), rtol=1e-14)
    if case.n_pairs:
        policy[0, -1] = -0.5
        assert _planning.policy_extremes(case.pair_ptr, policy)[0] == -0.5
        policy[0, -1] = np.nan
        assert _planning.policy_extremes(case.pair_ptr, policy)[1] == np.inf


@cases
def test_a_step_forward_is_the_transposed_tensor_times_what_each_pair_gets(name):
    case, policy = take(name), some_policy(take(name), 4)
    here = np.random.default_rng(4).exponential(size=case.n_states)
    here[::3] = 0.0
    pair, there = np.full(case.n_pairs, np.nan), np.full(case.n_states, np.nan)
    _planning.push(model(case), policy, here, pair, there)
    np.testing.assert_array_equal(pair, here[case.pair_state] * policy)
    assert_close(there, ref.tensor(case).T @ pair)
    alone = np.full_like(there, np.nan)
    _planning.push(model(case), policy, here, None, alone)
    assert alone.tobytes() == there.tobytes()


@cases
def test_extreme_rows_are_the_least_and_the_most_mass_that_stays_in_play(name):
    case = take(name)
    counts = case.free[case.pair_state] & np.isfinite(case.reward)
    sums = (ref.tensor(case) @ case.free)[counts]
    np.testing.assert_allclose(_planning.row_extremes(model(case)), (sums.min(initial=np.inf), sums.max(initial=0.0)),
                               rtol=1e-14)


def test_a_model_keeps_its_arrays_alive():
    case = random_case(50, seed=6)
    m, value, q, again = model(case), some_values(case), np.empty(case.n_pairs), np.empty(case.n_pairs)
    m.q(value, q)
    del case
    junk = [np.full(200, np.nan) for _ in range(50)]
    m.q(value, again)
    assert again.tobytes() == q.tobytes() and len(junk) == 50
