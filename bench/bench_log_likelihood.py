"""Log likelihood + gradient of all trips: fastirl (elimination, and sweeps) beside SciPy's sparse LU, answers first.

    python -m pytest bench/bench_log_likelihood.py --size full --benchmark-json=bench/results/log_likelihood.json
    python bench/table.py bench/results/log_likelihood.json

Run with OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1: the peers are one-thread implementations.
"""

import libraries
import numpy as np
import pytest

PROBLEMS = ("chain", "star", "grid", "random", "road", "porto", "porto_u_turns")


@pytest.fixture(scope="module")
def answers():
    """The reference answer of each problem, computed once: SciPy's direct solve, an oracle that is not ours."""
    return {}


@pytest.mark.parametrize("name", PROBLEMS)
@pytest.mark.parametrize("library", [item.name for item in libraries.LOG_LIKELIHOOD])
def test_log_likelihood(benchmark, problem_of, answers, name, library):
    problem = problem_of(name)
    adapter = next(item for item in libraries.LOG_LIKELIHOOD if item.name == library)
    if not adapter.can(problem):
        pytest.skip(f"{library} is not run on {name} at size {problem.size}: {adapter.why_not}")
    if name not in answers:
        answers[name] = libraries.SciPySplu(problem).evaluate(problem.theta)
    built = adapter(problem)
    value, gradient = built.evaluate(problem.theta)
    if adapter is not libraries.Null:
        # a wrong answer gets no time
        expected_value, expected_gradient = answers[name]
        np.testing.assert_allclose(value, expected_value, rtol=1e-9)
        np.testing.assert_allclose(gradient, expected_gradient, rtol=1e-7, atol=1e-7 * np.abs(expected_gradient).max())
    benchmark.group = f"log likelihood + gradient: {name}"
    benchmark.extra_info.update(
        library=library, problem=name, size=problem.size, n_states=problem.n_states, n_arcs=int(problem.tail.size),
        n_destinations=int(problem.destinations.size), n_trips=problem.n_trips, **built.details(),
    )
    benchmark.pedantic(built.evaluate, args=(problem.theta,), rounds=7, warmup_rounds=1)
