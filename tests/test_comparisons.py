"""Comparisons: reading, counting by pair, and what is refused."""

import numpy as np
import pytest
from scipy import sparse

from fastirl import Comparisons, InvalidInputError


def counts(c, ordered=False):
    p = c.pairs(ordered)
    return {(c.labels[i].item(), c.labels[j].item()): (w, v, t)
            for i, j, w, v, t in zip(p.first, p.second, p.wins_first, p.wins_second, p.ties)}


def test_counts_by_hand():
    c = Comparisons.from_pairs(["b", "a", "b", "c", "a"], ["a", "b", "a", "a", "c"], [1, 1, 0.5, 0.25, 0], weight=[2, 1, 4, 8, 0])
    assert counts(c) == {("a", "b"): (3.0, 4.0, 4.0), ("a", "c"): (6.0, 2.0, 0.0)}
    assert counts(c, ordered=True) == {("a", "b"): (1.0, 0.0, 0.0), ("b", "a"): (4.0, 2.0, 4.0), ("c", "a"): (2.0, 6.0, 0.0)}
    assert c.n_items == 3 and c.n_comparisons == len(c) == 5 and c.n_pairs == 2
    assert c.pairs().first.dtype == np.int32 and c.pairs() is c.pairs()
    np.testing.assert_array_equal(c.pairs().weight, [7, 8])


@pytest.mark.parametrize("how", ["strings", "integers", "sparse integers", "floats", "objects", "given", "pandas"])
def test_labels_of_every_kind_give_the_same_counts(how):
    rng = np.random.default_rng(3)
    first = rng.integers(0, 30, 400)
    second = (first + rng.integers(1, 30, 400)) % 30
    outcome, weight = rng.choice([0, 0.25, 0.5, 1], 400), rng.integers(1, 4, 400).astype(float)
    dense = np.zeros((30, 30))
    np.add.at(dense, (first, second), weight * outcome)
    np.add.at(dense, (second, first), weight * (1 - outcome))
    names = {"strings": np.array([f"i{k:02}" for k in range(30)]), "integers": np.arange(30),
             "sparse integers": np.arange(30) * 10**12 - 5, "floats": np.arange(30.0), "given": np.arange(30)[::-1] + 7}.get(how)
    if how == "objects":
        names = np.fromiter([("x", k) for k in range(30)], object, 30)
    if how == "pandas":
        pandas = pytest.importorskip("pandas")
        frame = pandas.DataFrame({"first": pandas.Categorical(first), "second": second, "outcome": outcome, "weight": weight})
        c = Comparisons.from_frame(frame, weight="weight")
        names = np.arange(30)
    else:
        c = Comparisons.from_pairs(names[first], names[second], outcome, weight, labels=names if how == "given" else None)
    place = c.index(list(names) if how == "objects" else names)
    p = c.pairs()
    found = sparse.coo_array((p.wins_first, (p.first, p.second)), (30, 30)) + sparse.coo_array(
        (p.wins_second, (p.second, p.first)), (30, 30))
    np.testing.assert_allclose(found.toarray()[np.ix_(place, place)], dense, rtol=1e-14)
    assert (p.first < p.second).all() and (np.diff(p.first.astype(np.int64) * 30 + p.second) > 0).all()


def test_winners_matrix_and_pairs_agree():
    a = Comparisons.from_winners(["x", "x", "y"], ["y", "y", "z"])
    b = Comparisons.from_matrix(sparse.csr_array([[0, 2, 0], [0, 0, 1], [0, 0, 0]]), labels=["x", "y", "z"])
    c = Comparisons.from_pairs(["x", "y", "y"], ["y", "x", "z"], [1, 0, 1])
    assert counts(a) == counts(b) == counts(c)
    for d in (a, b):
        with pytest.raises(InvalidInputError, match="named first"):
            d.pairs(ordered=True)


def test_flipping_subsets_and_components():
    c = Comparisons.from_pairs([0, 1, 3, 0], [1, 2, 4, 1], [1, 0, 0.5, 0.5], labels=range(6))
    assert c.components().tolist() == [0, 0, 0, 1, 1, 2]
    assert counts(c.flipped()) == {k: (v, w, t) for k, (w, v, t) in counts(c).items()}
    part = c.subset(items=[1, 0, 5])
    assert part.labels.tolist() == [0, 1, 5] and counts(part) == {(0, 1): (1.5, 0.5, 1.0)}
    assert counts(c.subset(rows=[0, 0, 3])) == {(0, 1): (2.5, 0.5, 1.0)}
    assert len(c.subset(rows=np.arange(4) < 2)) == 2


def test_a_million_labels_with_three_comparisons():
    c = Comparisons.from_winners([0, 5, 999_999], [5, 999_999, 0], labels=range(10**6))
    assert c.n_items == 10**6 and c.n_pairs == 3


def test_nothing_and_one_item():
    c = Comparisons.from_pairs([], [], [])
    assert c.n_items == c.n_comparisons == c.n_pairs == 0
    assert Comparisons.from_pairs([], [], [], labels=["a"]).n_items == 1


@pytest.mark.parametrize("arguments, message", [
    (([1, 2], [2, 2], [1, 0]), "itself: entry 1 compares 2"),
    (([1, 2], [2, 3], [1, 1.5]), "between 0 and 1: entry 1 is 1.5"),
    (([1, 2], [2, 3], [-0.1, 1]), "between 0 and 1: entry 0"),
    (([1, 2], [2, 3], [1, np.nan]), "NaN: entry 1"),
    (([1, 2], [2, 3], ["A", "tie"]), "must be numbers: entry 0 is 'A'"),
    (([1, 2], [2, 3], [1]), "2 entries: got 1"),
    (([1, 2], [2, 3], [1, 0], [1, -1]), "negative: entry 1"),
    (([1, 2], [2, 3], [1, 0], [np.nan, 1]), "NaN: entry 0"),
    (([1, 2], [2, 3], [1, 0], [1, np.inf]), "inf: entry 1"),
    (([1, 2], [2, 3], [1, 0], None, [1, 2]), "entry 1 is 3"),
    (([1, 2], [2, 3], [1, 0], None, [1, 2, 3, 3]), "unique: 3 occurs 2 times"),
    (([1, 2], ["a", "b"], [1, 0]), "one kind"),
    (([1, None], [2, 3], [1, 0]), "missing labels: entry 1"),
    (([1, 2], [2], [1, 0]), "entries: got 1"),
])
def test_bad_input_is_an_error_that_names_the_first_offender(arguments, message):
    with pytest.raises(InvalidInputError, match=message):
        Comparisons.from_pairs(*arguments)


@pytest.mark.parametrize("wins, message", [
    ([[0, 1], [-1, 0]], "negative: row 1, column 0"),
    ([[1, 1], [1, 0]], "itself"),
    ([[0, 1, 2], [1, 0, 2]], "square"),
    ([[0, np.nan], [1, 0]], "finite"),
])
def test_bad_matrices(wins, message):
    with pytest.raises(InvalidInputError, match=message):
        Comparisons.from_matrix(wins)


def test_unknown_labels_and_columns():
    c = Comparisons.from_winners(["a"], ["b"])
    with pytest.raises(InvalidInputError, match="'z'"):
        c.index("z")
    with pytest.raises(InvalidInputError, match="did you mean 'first'"):
        Comparisons.from_frame({"first": [1], "second": [2], "outcome": [1]}, first="frist")
