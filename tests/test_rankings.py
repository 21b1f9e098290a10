"""Rankings keep what they were given, in whatever form it came, and refuse what says two things at once."""

import numpy as np
import pytest

import fastirl as fi
from fastirl import Rankings
from fastirl.exceptions import InvalidInputError
from real_data import need


def as_lists(rankings):
    return [rankings[r] for r in range(len(rankings))]


def test_lists_come_back_as_they_were_given():
    orders = [["a", "b", "c"], ["c", ("a", "b")], ["b"], [("a", "b", "c")]]
    rankings = Rankings.from_lists(orders)
    assert as_lists(rankings) == orders
    assert rankings.labels.tolist() == ["a", "b", "c"] and rankings.n_items == 3 and len(rankings) == 4
    assert rankings.has_ties and not rankings.is_complete and rankings.n_votes == 4.0
    assert as_lists(Rankings.from_lists([["a", {"b"}, ["c"]]])) == [["a", "b", "c"]]


def test_one_ranking_in_five_forms():
    pandas = pytest.importorskip("pandas")
    want = Rankings.from_lists([["x", "z", "y"], ["y", "x"]], weight=[2, 1])
    frame = pandas.DataFrame({"voter": [7, 7, 7, 3, 3], "item": list("zxyxy"), "rank": [2.0, 1.0, 3.0, 9.0, 4.0],
                              "w": [2, 2, 2, 1, 1]})
    flat = np.array(["x", "z", "y", "y", "x"])
    for other in (
        Rankings.from_arrays(flat, [0, 3, 5], weight=[2, 1]),
        Rankings.from_frame(frame, ranking="voter", weight="w"),
        Rankings.from_ballots({("x", "z", "y"): 2, ("y", "x"): 1}),
        Rankings.from_ballots([(["x", "z", "y"], 2), (["y", "x"], 1)]),
    ):
        for name in ("item", "offsets", "level", "n_ranked", "weight", "labels"):
            np.testing.assert_array_equal(getattr(other, name), getattr(want, name))


def test_what_is_below_was_on_offer_and_lost():
    rankings = Rankings.from_lists([["a"], ["b", "c"]], below=[["b", "c"], []])
    assert as_lists(rankings) == [["a", ("b", "c")], ["b", "c"]]
    assert rankings.n_ranked.tolist() == [1, 2]
    everything = Rankings.from_lists([["a"], [("b", "c")]], below="all", labels=["a", "b", "c", "d"])
    assert as_lists(everything) == [["a", ("b", "c", "d")], [("b", "c"), ("a", "d")]]
    assert everything.is_complete and everything.level.tolist() == [0, 1, 1, 1, 0, 0, 1, 1]
    choices = Rankings.from_choices(["a", "b"], [["a", "b", "c"], ["c"]])
    assert as_lists(choices) == [["a", ("b", "c")], ["b", ("c",)]]
    frame = {"ranking": [0, 0, 0], "item": ["a", "b", "c"], "rank": [1.0, None, None]}
    assert as_lists(Rankings.from_frame(frame)) == [["a", ("b", "c")]]
    assert as_lists(Rankings.from_arrays([[2, 0, 1]], n_ranked=1)) == [[2, (0, 1)]]


def test_levels_tie_items_and_only_their_steps_count():
    rankings = Rankings.from_arrays([[0, 1, 2], [2, 1, 0]], level=[[5, 5, 9], [0, 1, 1]])
    assert as_lists(rankings) == [[(0, 1), 2], [2, (1, 0)]]
    assert rankings.level.tolist() == [0, 0, 1, 0, 1, 1]
    assert not Rankings.from_arrays([[0, 1, 2]], level=[[1, 2, 3]]).has_ties
    # below the ranked items nothing ties, whatever the levels say
    assert not Rankings.from_arrays([[0, 1, 2]], level=[[1, 2, 2]], n_ranked=1).has_ties


def test_reversal_and_subsets():
    rankings = Rankings.from_lists([["a", ("b", "c")], ["c", "a"]], cluster=["p", "q"])
    assert as_lists(rankings.reversed()) == [[("c", "b"), "a"], ["a", "c"]]
    assert as_lists(rankings.reversed().reversed()) == as_lists(rankings)
    assert as_lists(rankings.subset([1, 1, 0])) == [["c", "a"], ["c", "a"], ["a", ("b", "c")]]
    assert rankings.subset(np.array([False, True])).cluster.tolist() == [1]
    with pytest.raises(InvalidInputError, match="whole order"):
        Rankings.from_choices(["a"], [["a", "b"]]).reversed()


def test_arrays_are_copies_and_read_only():
    items, weight = np.array([[0, 1], [1, 0]]), np.ones(2)
    rankings = Rankings.from_arrays(items, weight=weight)
    items[:] = 0
    weight[:] = 9
    assert rankings.item.tolist() == [0, 1, 1, 0] and rankings.weight.tolist() == [1, 1]
    with pytest.raises(ValueError):
        rankings.item[0] = 1
    assert Rankings.from_arrays(np.array([[10**15, 5]])).labels.tolist() == [5, 10**15]


@pytest.mark.parametrize("make, message", [
    (lambda: Rankings.from_lists([["a", "b", "a"]]), r"ranking 0 has 'a' twice"),
    (lambda: Rankings.from_lists([["a", ("b", "a")]]), r"ranking 0 has 'a' twice"),
    (lambda: Rankings.from_lists([["a"], []]), "ranking 1 is empty"),
    (lambda: Rankings.from_lists([["a", ()]]), "entry 1 of ranking 0 is empty"),
    (lambda: Rankings.from_lists(["ab"]), "ranking 0 is 'ab'"),
    (lambda: Rankings.from_lists("ab"), "got str"),
    (lambda: Rankings.from_lists([["a", None]]), "ranking 0, entry 1"),
    (lambda: Rankings.from_lists([[1, "a"]]), "of kind"),
    (lambda: Rankings.from_lists([["a", "b"]], weight=[-1]), "negative"),
    (lambda: Rankings.from_lists([["a", "b"]], weight=[np.nan]), "NaN"),
    (lambda: Rankings.from_lists([["a", "b"]], weight=[1, 2]), "1 entries"),
    (lambda: Rankings.from_lists([["a", "b"]], labels=["a"]), "'b'"),
    (lambda: Rankings.from_lists([["a", "b"]], labels=["a", "b", "a"]), "unique"),
    (lambda: Rankings.from_lists([["a"]], below=[["a"]]), "twice"),
    (lambda: Rankings.from_lists([["a"]], below="al"), "'all'"),
    (lambda: Rankings.from_lists([["a"]], below=[]), "one sequence for each ranking"),
    (lambda: Rankings.from_choices(["a"], [["b"], ["c"]]), "one sequence for each choice"),
    (lambda: Rankings.from_arrays([0, 1]), "two dimensions"),
    (lambda: Rankings.from_arrays([0, 1], [0, 3]), "`offsets` must rise"),
    (lambda: Rankings.from_arrays([[0, 1]], n_ranked=3), "`n_ranked`"),
    (lambda: Rankings.from_arrays([[0, 1]], n_ranked=[0]), "`n_ranked`"),
    (lambda: Rankings.from_arrays([[0, 1]], level=[[2, 1]]), "must not fall"),
    (lambda: Rankings.from_ballots({"abc": 3}), "count"),
    (lambda: Rankings.from_frame({"ranking": [0], "item": ["a"], "ranks": [1]}), "did you mean 'ranks'"),
    (lambda: Rankings.from_frame({"ranking": [0], "item": ["a"], "rank": [None]}), "has no rank"),
    (lambda: Rankings.from_frame({"ranking": [0, 0], "item": ["a", "b"], "rank": [1, 2], "w": [1, 2]}, weight="w"),
     "the same on all"),
    (lambda: Rankings.from_frame({"ranking": [0], "item": ["a"], "rank": ["first"]}), "must hold numbers"),
    (lambda: Rankings.from_lists([["a", "b"]]).index("c"), "'c'"),
    (lambda: Rankings.from_lists([["a", "b"]]).subset([1]), "`rows`"),
])
def test_what_cannot_be_a_ranking_is_refused(make, message):
    with pytest.raises(InvalidInputError, match=message):
        make()


def test_preflib_files(tmp_path):
    path = tmp_path / "ballots.toi"
    path.write_text("# FILE NAME: x\n# ALTERNATIVE NAME 1: Ann\n# ALTERNATIVE NAME 2: Bob\n# ALTERNATIVE NAME 3: Cy\n"
                    "3: 1,{2,3}\n2: 2\n1: {1,3},2\n")
    rankings = Rankings.read_preflib(path)
    assert as_lists(rankings) == [["Ann", ("Bob", "Cy")], ["Bob"], [("Ann", "Cy"), "Bob"]]
    assert rankings.weight.tolist() == [3, 2, 1]
    assert as_lists(Rankings.read_preflib(path, below="all"))[1] == ["Bob", ("Ann", "Cy")]
    path.write_text("3: 1;2\n")
    with pytest.raises(InvalidInputError, match="line 1"):
        Rankings.read_preflib(path)


def test_published_ballots_are_read():
    sushi = Rankings.read_preflib(need("ranking") / "sushi10" / "sushi.soc")
    assert (sushi.n_items, sushi.n_votes, sushi.is_complete) == (10, 5000.0, True)
    assert fi.Rankings is Rankings
