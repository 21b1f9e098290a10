"""Every public name is documented in numpydoc's shape and appears in a test."""

import inspect
import re
from pathlib import Path

import pytest

import fastirl

TESTS = Path(__file__).resolve().parent
CLASSES = [name for name in fastirl.__all__ if inspect.isclass(getattr(fastirl, name))]
FAILURES = [name for name in CLASSES if issubclass(getattr(fastirl, name), (Exception, Warning))]
FUNCTIONS = [name for name in fastirl.__all__ if inspect.isfunction(getattr(fastirl, name))]

SECTIONS = ("Parameters", "Attributes", "Returns", "Yields", "Raises", "Warns", "Notes", "Examples", "References",
            "See Also")


def sections(text):
    """{title: body} of numpydoc sections; the text before the first is ''."""
    lines, title, body = inspect.cleandoc(text).splitlines(), "", {"": []}
    for line, below in zip(lines, [*lines[1:], ""]):
        if re.fullmatch(r"-{3,}", below.strip()) and line.strip():
            assert len(line) == len(below), f"the rule under {line!r} is as long as the title"
            title = line.strip()
            body[title] = []
        elif not (body[title] == [] and re.fullmatch(r"-{3,}", line.strip())):
            body[title].append(line)
    return {title: "\n".join(lines) for title, lines in body.items()}


def documented(body):
    """Names that head the entries of a section: 'a, b : text' at the margin."""
    names = []
    for line in body.splitlines():
        if line and not line.startswith(" ") and " : " in line:
            names += [name.strip().lstrip("*") for name in line.split(" : ")[0].split(",")]
    return names


def parameters(function):
    return [name for name in inspect.signature(function).parameters if name not in ("self", "cls")]


def test_all_names_exist_and_are_of_a_kind_that_is_checked():
    assert len(set(fastirl.__all__)) == len(fastirl.__all__)
    assert sorted(CLASSES + FUNCTIONS) == sorted(fastirl.__all__)


@pytest.mark.parametrize("name", fastirl.__all__)
def test_a_public_name_has_a_docstring_that_begins_with_a_sentence(name):
    parts = sections(getattr(fastirl, name).__doc__ or "")
    assert parts[""].strip(), f"{name} has no docstring"
    assert re.search(r"\.(\s|$)", parts[""]), f"{name}'s docstring begins with a sentence"
    assert set(parts) - {""} <= set(SECTIONS), f"{name} has a section that numpydoc does not know"


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_public_function_documents_its_parameters_and_what_it_returns(name):
    function = getattr(fastirl, name)
    parts = sections(function.__doc__)
    missing = [p for p in parameters(function) if p not in documented(parts.get("Parameters", ""))]
    assert not missing, f"{name} does not document {', '.join(missing)} under Parameters"
    assert "Returns" in parts, f"{name} does not say what it returns"


@pytest.mark.parametrize("name", [name for name in CLASSES if name not in FAILURES])
def test_a_public_class_documents_its_parameters_or_attributes_and_its_methods(name):
    kind = getattr(fastirl, name)
    parts = sections(kind.__doc__)
    assert {"Parameters", "Attributes"} & set(parts), f"{name} lists neither parameters nor attributes"
    if "Parameters" in parts:
        missing = [p for p in parameters(kind) if p not in documented(parts["Parameters"])]
        assert not missing, f"{name} does not document {', '.join(missing)} under Parameters"
    bare = [method for method, found in vars(kind).items()
            if not method.startswith("_") and not inspect.getdoc(found)
            and (inspect.isroutine(found) or isinstance(found, property)) and method not in documented(
                parts.get("Attributes", ""))]
    assert not bare, f"{name}: no docstring for {', '.join(bare)}"


@pytest.mark.parametrize("name", FAILURES)
def test_failures_descend_from_the_packages_own(name):
    kind = getattr(fastirl, name)
    assert issubclass(kind, (fastirl.FastIRLError, fastirl.FastIRLWarning))


@pytest.mark.parametrize("name", fastirl.__all__)
def test_a_public_name_appears_in_a_test(name):
    files = [path for path in TESTS.glob("test_*.py") if path.name != Path(__file__).name]
    assert any(re.search(rf"\b{name}\b", path.read_text(encoding="utf-8")) for path in files), f"no test names {name}"


# --- the guard itself


def test_sections_are_found():
    parts = sections("Add numbers.\n\n    Parameters\n    ----------\n    a, b : float\n    *rest : more\n\n"
                     "    Returns\n    -------\n    float\n    ")
    assert list(parts) == ["", "Parameters", "Returns"]
    assert documented(parts["Parameters"]) == ["a", "b", "rest"]
