"""Planning on sparse tensors: hard values, soft values and a whole MaxEnt gradient, fastirl beside its peers, answers first.

    export OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1
    python -m pytest bench/bench_planning.py --benchmark-enable --size full --benchmark-json=bench/results/planning.json
    python bench/planning_table.py bench/results/planning.json

One problem alone: -k local1e5; one task: -k hard. Peers to install: pip install quantecon mdpsolver; peer_imitation.py says
how imitation and irl-maxent get a Python of their own. A peer that is absent is skipped with a reason.

What counts is `cpu_seconds` in extra_info, CPU seconds of each round by time.process_time: a machine's other work does not
count, and a peer in another process can say its own. pytest-benchmark's clock runs around all rounds of a test together.
"""

import time

import mdp_libraries
import mdp_problems
import numpy as np
import peer_imitation
import pytest
import scipy.sparse as sp

TASKS = ("hard", "soft", "gradient")
CASES = [(problem, task, item.name) for problem in (*mdp_problems.SMALL, *mdp_problems.FULL) for task in TASKS
         for item in mdp_libraries.ADAPTERS if task in item.tasks]
HORIZON = 100


@pytest.fixture
def size(request):
    return request.config.getoption("--size")


def chosen(name, size):
    """The problem, where the size asks for it."""
    if name not in (mdp_problems.SMALL if size == "small" else mdp_problems.FULL):
        pytest.skip(f"{name} is not of size {size}")
    return mdp_problems.build(name)


def needs_planning():
    reason = mdp_libraries.Fastirl.missing()
    if reason:
        pytest.skip(reason)


def record(benchmark, group, library, measure, rounds, **extra):
    """Run `measure(rounds)`, CPU seconds of each round, under pytest-benchmark; once, unrecorded, where that is disabled."""
    benchmark.group = group
    benchmark.extra_info.update(library=library, **extra)

    def run():
        benchmark.extra_info["cpu_seconds"] = [float(x) for x in measure(1 if benchmark.disabled else rounds)]

    benchmark.pedantic(run, rounds=1)


def rounds_for(seconds):
    return 7 if seconds < 0.2 else 5 if seconds < 1 else 3 if seconds < 5 else 1


@pytest.mark.parametrize("name, task, library", CASES)
def test_planning(benchmark, size, name, task, library):
    problem = chosen(name, size)
    adapter = mdp_libraries.find(library)
    if adapter.missing():
        pytest.skip(adapter.missing())
    if not adapter.can(problem, task):
        pytest.skip(f"{library} is not run on {name}: {adapter.why_not}")
    built = adapter(problem, task)
    begin = time.process_time()
    answer = built.solve()
    spent = time.process_time() - begin
    # a wrong answer gets no time
    error = check(problem, task, answer)
    record(benchmark, f"{task}: {name}", library, built.seconds, rounds_for(spent), task=task, **shape(problem), error=error,
           **built.details())


def check(problem, task, answer):
    if task == "gradient":
        expected = mdp_problems.reference(problem, task)["gradient"]
        # one in a million of the largest feature count that any policy could have
        allowed = 1e-6 * np.abs(problem.features()).max() / (1 - problem.discount)
    else:
        expected, allowed = mdp_problems.reference(problem, task)["value"], mdp_libraries.TOL
    error = float(np.abs(answer - expected).max())
    assert error <= allowed, f"the answer is {error:.1e} off"
    return error


def shape(problem):
    return {"problem": problem.name, "family": problem.family, "n_states": problem.n_states, "n_pairs": problem.n_pairs,
            "nnz": int(problem.nnz)}


# -- imitation at its own horizon, irl-maxent on its own terms


@pytest.mark.parametrize("library", ["fastirl", "imitation"])
@pytest.mark.parametrize("name", ["grid20", "grid50"])
def test_finite_horizon(benchmark, size, name, library):
    """Soft values over 100 steps without discount, and visits: state rewards; checked against SciPy's recursions."""
    problem = chosen(name, size)
    begin = problem.initial_distribution()
    if library == "imitation":
        if peer_imitation.missing("imitation"):
            pytest.skip(peer_imitation.missing("imitation"))
        arrays = {"horizon": HORIZON, "reward": problem.reward[::problem.n_actions], "begin": begin}
        found = peer_imitation.run("imitation", 3, **tensor_arrays(problem), **arrays)
        extra = {"peak_bytes": int(found["peak_bytes"])}

        def measure(_):
            return found["cpu_seconds"]
    else:
        needs_planning()
        from fastirl import planning

        mdp, found, extra = mdp_libraries.model_of(problem, discount=1.0), {}, {}

        def solve():
            plan = planning.soft_value_iteration(mdp, problem.reward, "pair", horizon=HORIZON, n_threads=1)
            visits = planning.visitation_frequencies(mdp, plan.policy, begin, horizon=HORIZON, n_threads=1)
            found.update(value=plan.value[0], visits=visits.state)

        def measure(rounds):
            return mdp_libraries.cpu_seconds(solve, rounds)

        solve()
    value, visits = finite_horizon(problem, begin)
    np.testing.assert_allclose(found["value"], value, rtol=1e-10)
    np.testing.assert_allclose(found["visits"], visits, rtol=1e-8, atol=1e-10)
    record(benchmark, f"soft, 100 steps, and visits: {name}", library, measure, 5, task="finite horizon", **shape(problem),
           **extra)


def tensor_arrays(problem):
    tensor = problem.transitions
    return {"indptr": tensor.indptr, "indices": tensor.indices, "data": tensor.data, "n_states": problem.n_states}


def finite_horizon(problem, begin):
    """(value at the begin, expected visits over the horizon) by the two recursions of Ziebart (2008)."""
    value, policies = np.zeros(problem.n_states), []
    for _ in range(HORIZON):
        value, policy = mdp_libraries.soft_backup(problem.reward + problem.transitions @ value, problem.n_actions)
        policies.append(policy)
    here, visits = begin, np.zeros(problem.n_states)
    transposed = problem.transitions.T.tocsr()
    for policy in reversed(policies):
        visits += here
        here = transposed @ (np.repeat(here, problem.n_actions) * policy)
    return value, visits


@pytest.mark.parametrize("library", ["fastirl", "irl-maxent"])
def test_soft_policy_with_a_terminal_goal(benchmark, size, library):
    """irl-maxent's soft policy on a grid of 20 × 20 that ends in the goal; fastirl's policy must be the same."""
    if size == "small" and library == "irl-maxent":
        pytest.skip("irl-maxent is run at size full")
    needs_planning()
    import fastirl as fi
    from fastirl import planning

    problem = mdp_problems.build("grid20")
    goal, n_actions = problem.n_states - 1, problem.n_actions
    mdp = fi.MDP.from_pairs(problem.transitions, problem.pair_state, problem.pair_action, problem.discount, terminal=[goal])
    reward = problem.reward[mdp.pair_order]

    def solve():
        return planning.soft_value_iteration(mdp, reward, "pair", tol=mdp_libraries.TOL, n_threads=1).policy

    policy = solve().reshape(-1, n_actions)

    def measure(rounds):
        return mdp_libraries.cpu_seconds(solve, rounds)

    if library == "irl-maxent":
        if peer_imitation.missing("irl-maxent"):
            pytest.skip(peer_imitation.missing("irl-maxent"))
        own = problem.reward[::n_actions].copy()
        own[goal] = -1e6  # its terminal states go on acting: so dearly that they do not
        found = peer_imitation.run("irl-maxent", 1, **tensor_arrays(problem), reward=own, terminal=np.array([goal]))
        np.testing.assert_allclose(found["policy"][:goal], policy, atol=1e-5)

        def measure(_):
            return found["cpu_seconds"]

    record(benchmark, "soft policy, goal ends: grid20", library, measure, 5, task="terminal goal", **shape(problem))


# -- one sweep


SWEEPS = ("fastirl csr", "fastirl fixed width", "fastirl deterministic", "fastirl deterministic, rewards of states",
          "fastirl soft", "fastirl soft, fixed width", "scipy csr product", "plain copy", "plain read",
          "plain read of what deterministic reads")


@pytest.mark.parametrize("layout", SWEEPS)
def test_one_sweep(benchmark, size, layout):
    """CPU seconds of one sweep over a local graph; the table divides by the nonzero entries.

    "csr" has rows of unequal length; "fixed width" five entries in each, "deterministic" one; every pair has a reward of its
    own unless said. "plain copy" copies the bytes of the CSR: values, indices and row ends; "plain read" adds them up as if they
    were whole numbers, and so does the other with a deterministic tensor's indices, rewards and values of states, once each.
    """
    side = 20 if size == "small" else 1000
    tensor, reward = sweep_problem(side, layout)
    n_states, rounds = tensor.shape[1], 3 if size == "small" else 15
    value = np.random.default_rng(0).uniform(0, 1, n_states)
    expected = reward + 0.99 * (tensor @ value)
    if layout == "plain copy":
        arrays = [tensor.data, tensor.indices, tensor.indptr]
        copies = [np.empty_like(array) for array in arrays]

        def sweep():
            for array, copy in zip(arrays, copies):
                np.copyto(copy, array)
    elif "plain read" in layout:
        arrays = [tensor.indices, reward, value] if "deterministic" in layout else [tensor.data, tensor.indices, tensor.indptr]
        words = [array[:array.size // 2 * 2].view(np.int64) for array in arrays]

        def sweep():
            return sum(int(array.sum()) for array in words)
    elif layout == "scipy csr product":
        def sweep():
            return tensor @ value
    else:
        needs_planning()
        sweep, out = fastirl_sweep(tensor, reward, value, "soft" in layout)
        sweep()
        answer = mdp_libraries.soft_values if "soft" in layout else mdp_libraries.hard_values
        np.testing.assert_allclose(out, answer(expected, 4), rtol=1e-12)
    sweep()
    record(benchmark, "one sweep", layout, lambda count: mdp_libraries.cpu_seconds(sweep, count), rounds, task="sweep",
           n_states=n_states, nnz=int(tensor.nnz))


def sweep_problem(side, layout):
    """A local graph: rows of unequal length where the layout is csr, else of five or of one."""
    if "fixed" not in layout and "deterministic" not in layout:
        problem = mdp_problems.build(f"local{side * side}")
        return problem.transitions, problem.reward
    rng, n, width = np.random.default_rng(4), side * side, 1 if "deterministic" in layout else 5
    row, column = np.divmod(np.repeat(np.arange(n, dtype=np.int32), 4), side)
    # five different successors near by: a column apart each, two rows up or down
    down = rng.integers(-2, 3, (4 * n, width), dtype=np.int32)
    left = np.clip(column, 2, side - 3) - 2 + (rng.integers(0, 5, 4 * n, dtype=np.int32) if width == 1 else 0)
    heads = np.clip(row[:, None] + down, 0, side - 1) * side + left[:, None] + np.arange(width, dtype=np.int32)
    heads = np.sort(heads, 1).astype(np.int32)
    probability = np.ones((4 * n, 1)) if width == 1 else rng.standard_exponential((4 * n, width))
    probability /= probability.sum(1, keepdims=True)
    ends = np.arange(0, 4 * n * width + 1, width, dtype=np.int32)
    reward = np.repeat(rng.uniform(0, 1, n), 4) if "rewards of states" in layout else rng.uniform(0, 1, 4 * n)
    return sp.csr_array((probability.ravel(), heads.ravel(), ends), shape=(4 * n, n)), reward


def fastirl_sweep(tensor, reward, value, soft):
    """(a function that sweeps once on one thread, the array that it fills)."""
    import fastirl as fi
    from fastirl._value_solver import Problem

    n = tensor.shape[1]
    mdp = fi.MDP.from_pairs(tensor, np.repeat(np.arange(n), 4), np.tile(np.arange(4), n), 0.99)
    problem = Problem(mdp, mdp.reward_vector(reward, "pair"), "soft" if soft else "hard", float(soft), None, 1)
    out = np.empty(n)
    return lambda: problem.sweep(value, out), out


# -- memory and threads


@pytest.mark.parametrize("library", ["fastirl", "scipy newton + bicgstab"])
@pytest.mark.parametrize("name, task", [("grid20", "hard"), ("local1e6", "hard"), ("local1e6", "soft"),
                                        ("random1e6", "hard"), ("random1e6", "soft")])
def test_peak_memory(benchmark, size, name, task, library):
    """Bytes at the peak beyond the user's arrays, in a process of its own; the table subtracts the result."""
    problem = chosen(name, size)
    if library == "fastirl":
        needs_planning()
    try:
        peak = mdp_libraries.peak_bytes(name, task, library)
    except OSError as error:
        pytest.skip(f"the peak cannot be measured here: {error}")
    result = 8 * (problem.n_states + 2 * problem.n_pairs)  # value, policy, q
    allowed = 16 * problem.nnz + 24 * problem.n_pairs + 100 * problem.n_states
    if library == "fastirl" and size == "full":
        assert peak - result <= allowed, f"{peak - result:,} bytes beyond arrays and result, {allowed:,} allowed"
    record(benchmark, f"memory, {task}: {name}", library, lambda _: [0.0], 1, **shape(problem), task="memory",
           peak_bytes=peak, result_bytes=result, allowed_bytes=allowed)


@pytest.mark.parametrize("task", ["hard", "soft"])
@pytest.mark.parametrize("name", ["grid20", "local1e6", "random1e6"])
def test_two_threads(benchmark, size, name, task):
    """Wall time on one thread over that on two, taken in turns; the same bits."""
    problem = chosen(name, size)
    needs_planning()
    one, two = mdp_libraries.Fastirl(problem, task), mdp_libraries.Fastirl(problem, task)
    two.n_threads = 2
    assert np.array_equal(one.solve(), two.solve()), "two threads gave other bits"
    wall = {1: [], 2: []}

    def measure(rounds):
        for _ in range(rounds):
            for built in (one, two):
                begin = time.perf_counter()
                built.solve()
                wall[built.n_threads].append(time.perf_counter() - begin)
        return wall[2]

    record(benchmark, f"threads, {task}: {name}", "fastirl", measure, 3, task="threads", **shape(problem))
    benchmark.extra_info["speedup"] = mdp_libraries.median(wall[1]) / mdp_libraries.median(wall[2])
