"""Imports go one way: a module may use lower ranks only. The picture is in CONTRIBUTING.md."""

import ast
import sys
from pathlib import Path

import pytest

from fastirl._validation import require
from fastirl.exceptions import MissingExtraError

SOURCE = Path(__file__).resolve().parents[1] / "src" / "fastirl"

RANKS = {
    "exceptions": 0, "results": 0, "_core": 0, "_planning": 0, "_elimination": 0, "_symbolic": 0,
    "_comparisons": 0, "_comparisons_reference": 0,
    "_reference": 0, "_planning_reference": 0, "_elimination_reference": 0, "_parallel": 0, "_quadratic": 0,
    "_validation": 1, "_end_components": 1,
    "elimination_order": 2, "link_tables": 2, "trip_parsing": 2, "tables": 2, "_drawing": 2,
    "elimination": 3, "link_features": 3, "turn_bans": 3, "trajectories": 3, "comparisons": 3, "rankings": 3,
    "turns": 4, "matching": 4, "_laplacian": 4, "_intervals": 4,
    "road_network": 5, "mdp": 5, "rewards": 5, "_value_solver": 5, "ascent": 5, "_pair_likelihood": 5,
    "route_choice": 6, "tntp": 6, "planning": 6, "process_likelihood": 6,
    "bradley_terry": 6, "plackett_luce": 6, "winners": 6, "dueling_bandits": 8, "_rankings": 0, "_rankings_reference": 0,
    "objectives": 7, "learner": 7, "trainers": 7, "domains": 6, "identification": 6,
    "maxent": 8, "cloning": 8, "dpo": 8, "tamer": 8, "interactive": 8, "dagger": 9, "apprenticeship": 8, "bayesian": 8,
    "relative_entropy": 8, "trajectory_preferences": 8, "active_queries": 9,
    "adversarial": 9, "receding_horizon": 9,
    "plotting": 10, "preference_plots": 10, "datasets": 10, "compare": 10,
    "__init__": 11,
    "__main__": 12,
}
MODULES = sorted(path.stem for path in SOURCE.glob("*.py"))


def imported_modules(text, names=frozenset(RANKS)):
    """Modules of the package that a source text imports, anywhere in it, each with its line.

    `from . import name` is the module of that name, or the package itself where there is none. What
    `_validation.require` imports by name at run time is meant to be left out.
    """
    found = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            dotted = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = ("fastirl." if node.level else "") + (node.module or "")
            base = base.rstrip(".")
            dotted = [f"{base}.{alias.name}" for alias in node.names] if base == "fastirl" else [base]
        else:
            continue
        for name in dotted:
            package, _, rest = name.partition(".")
            if package == "fastirl":
                module = rest.split(".")[0]
                found.append((module if module in names else "__init__", node.lineno))
    return found


@pytest.mark.parametrize("text, expected", [
    ("from .tables import Table", ["tables"]),
    ("from . import _core, turns as t", ["_core", "turns"]),
    ("from . import __version__", ["__init__"]),
    ("import fastirl.maxent", ["maxent"]),
    ("import fastirl", ["__init__"]),
    ("from fastirl.maxent import MaxEntIRL", ["maxent"]),
    ("from fastirl import MaxEntIRL", ["__init__"]),
    ("def f():\n    from .plotting import draw", ["plotting"]),
    ("import numpy\nfrom scipy import sparse", []),
])
def test_imports_are_read_in_every_form(text, expected):
    assert [module for module, _ in imported_modules(text)] == expected


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_lower_ranks_only(module):
    assert module in RANKS, f"{module}.py has no rank: give it one here and in CONTRIBUTING.md"
    text = (SOURCE / f"{module}.py").read_text(encoding="utf-8")
    wrong = [f"line {line}: {module} (rank {RANKS[module]}) imports {other} (rank {RANKS[other]})"
             for other, line in imported_modules(text) if RANKS[other] >= RANKS[module]]
    assert not wrong, "; ".join(wrong)


@pytest.mark.parametrize("module", MODULES)
def test_the_slow_twins_serve_tests_and_benchmarks_only(module):
    text = (SOURCE / f"{module}.py").read_text(encoding="utf-8")
    assert "_reference" not in [other for other, _ in imported_modules(text)]


def test_these_modules_are_compiled():
    assert sorted(path.name for path in SOURCE.glob("*.pyx")) == ["_comparisons.pyx", "_core.pyx", "_elimination.pyx",
                                                                  "_planning.pyx", "_rankings.pyx", "_symbolic.pyx"]


def test_an_absent_library_is_an_error_that_names_the_extra(monkeypatch):
    # None in sys.modules is how Python marks a module that cannot be imported
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingExtraError, match=r"'matplotlib'.*pip install 'fastirl\[plot\]'"):
        require("matplotlib")
    assert issubclass(MissingExtraError, ImportError)
