"""Puts the tests' data loaders in reach, and lets a run choose its size: pytest bench/bench_*.py --size full."""

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parents[1] / "tests"))


def pytest_addoption(parser):
    parser.addoption("--size", choices=("small", "full"), default="small", help="size of the benchmark problems")


@pytest.fixture
def problem_of(request):
    """problem_of(name): that problem at the chosen size; skips with a reason where its data is absent."""
    import problems

    def problem(name):
        try:
            return problems.build(name, request.config.getoption("--size"))
        except FileNotFoundError as error:
            pytest.skip(str(error))

    return problem
