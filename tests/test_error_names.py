"""Errors name what the user typed: names in backticks are parameters of the function called, the offender's among them."""

import inspect
import re

import numpy as np
import pytest

import fastirl as fi
from fastirl.domains import gridworld
from fastirl.exceptions import InvalidInputError
from fastirl.preference_plots import plot_regret, plot_strengths, plot_win_matrix

NAN = float("nan")
COMPARED = fi.Comparisons.from_pairs(list("abca"), list("bcab"), [1, 1, 1, 0])
STRENGTHS = fi.bradley_terry(COMPARED)
BY_CONTEST = fi.bradley_terry(COMPARED, contest_features=[1.0, 2.0, 3.0, 5.0])
RANKED = fi.Rankings.from_lists([["a", "b", "c"], ["b", "c", "a"], ["c", "a", "b"]])
WORTHS = fi.plackett_luce(RANKED)
JOKES = fi.MDP.one_step([("joke", "pun"), ("joke", "riddle"), ("joke", "story")])
ASKED = fi.Comparisons.from_pairs([("joke", "pun"), ("joke", "riddle")], [("joke", "riddle"), ("joke", "pun")], [0.75, 0.5])
WORLD = gridworld(3)
TRIPS = fi.sample_trajectories(WORLD.mdp, None, 8, np.random.default_rng(0), horizon=4,
                               initial_distribution=WORLD.initial_distribution)
LEARNED = fi.PreferenceIRL(fi.LinearReward(l2=0.1)).fit(
    WORLD.mdp, TRIPS, fi.Comparisons.from_pairs([0, 1, 2, 3], [1, 2, 3, 0], [1, 0.5, 1, 0.5]))
FRAME = {"left": ["a"], "right": ["b"]}
LONG = {"r": [0, 0], "i": ["a", "b"], "k": [1, 2]}

CASES = [
    (fi.Comparisons.from_pairs, (["a"], ["b"], [1]), {"labels": ["a"]}, "second"),
    (fi.Comparisons.from_frame, (FRAME, "left", "right", None), {"labels": ["a"]}, "second"),
    (fi.Comparisons.from_frame, ({"left": [1.5], "right": [1]}, "left", "right", None), {}, "first"),
    (fi.Comparisons.from_matrix, ([[1, 1], [1, 0]],), {}, "wins"),
    (COMPARED.index, ("z",), {}, "label"),
    (COMPARED.subset, (["z"],), {}, "items"),
    (fi.bradley_terry, (COMPARED,), {"fixed": {"z": 0}}, "fixed"),
    (fi.bradley_terry, (COMPARED,), {"fixed": {("a", "b"): 0}}, "fixed"),
    (fi.bradley_terry, (COMPARED,), {"home": "yes"}, "home"),
    (fi.bradley_terry, (COMPARED,), {"contest_names": ["a"]}, "contest_names"),
    (fi.bradley_terry, (COMPARED,), {"contest_features": [1.0, 2.0, 3.0, 5.0], "contest_names": ["a", "b"]}, "contest_names"),
    (fi.bradley_terry, (COMPARED,), {"contest_features": [1.0, 2.0, 3.0, 5.0], "contest_names": [3]}, "contest_names"),
    (STRENGTHS.contrast, ("a", "z"), {}, "second"),
    (STRENGTHS.contrast, (["a", "b"], "c"), {}, "first"),
    (STRENGTHS.probability, ("z", "a"), {}, "first"),
    (STRENGTHS.probability, (["a", "b"], ["b", "z"]), {}, "second"),
    (STRENGTHS.probability, (["a", "b", "c"], ["b", "c"]), {}, "second"),
    (STRENGTHS.probability, ("a", "b"), {"contest_features": [[1.0]]}, "contest_features"),
    (STRENGTHS.tie_probability, ("a", "z"), {}, "second"),
    (BY_CONTEST.probability, ("a", "b"), {"contest_features": [[1.0, 2.0]]}, "contest_features"),
    (STRENGTHS.intervals, (), {"rng": "x"}, "rng"),
    (STRENGTHS.rank_sets, (), {"rng": -1}, "rng"),
    (fi.bootstrap_strengths, (STRENGTHS,), {"rng": "x"}, "rng"),
    (fi.Rankings.from_lists, ([["a", 1]],), {}, "orders"),
    (fi.Rankings.from_lists, ([["a", "b"]],), {"labels": ["a"]}, "orders"),
    (fi.Rankings.from_arrays, ([[1.5, 2]],), {}, "items"),
    (fi.Rankings.from_choices, (["a"], [["b"]]), {"labels": ["a"]}, "offered"),
    (fi.Rankings.from_choices, ([None], [["b"]]), {}, "chosen"),
    (fi.Rankings.from_frame, (LONG, "r", "i", "k"), {"labels": ["a"]}, "item"),
    (fi.Rankings.from_ballots, ({("a", "b"): -1},), {}, "ballots"),
    (fi.Rankings.from_ballots, ({("a", None): 1},), {}, "ballots"),
    (fi.plackett_luce, (3,), {}, "rankings"),
    (fi.plackett_luce, ([["a", 1]],), {}, "rankings"),
    (WORTHS.contrast, ("a", "z"), {}, "second"),
    (WORTHS.choice_probabilities, ([],), {}, "items"),
    (WORTHS.probability, ("z", "a"), {}, "first"),
    (WORTHS.tie_probability, (["a", "b", "c"], ["b", "c"]), {}, "second"),
    (WORTHS.choice_probabilities, (["a", "z"],), {}, "items"),
    (WORTHS.summary, (), {"level": "x"}, "level"),
    (fi.PairwiseMatrix.from_probabilities, ([[0.5, 0.7]],), {}, "probability"),
    (fi.simulate_duels, ({"R": fi.RUCB}, [[0.5, 0.9]], 10), {"rng": np.random.default_rng(0)}, "preference"),
    (fi.simulate_duels, ({"R": fi.RUCB}, [[0.5, NAN], [0.1, 0.5]], 10), {"rng": np.random.default_rng(0)}, "preference"),
    (fi.simulate_duels, ({"R": fi.RUCB}, fi.PairwiseMatrix.from_counts(np.diag([1.0, 1.0], 1)), 10),
     {"rng": np.random.default_rng(0)}, "preference"),
    (fi.RUCB(3, np.random.default_rng(0)).update, (0, 1, None), {}, "outcome"),
    (fi.PreferenceIRL().fit, (WORLD.mdp, TRIPS), {"rankings": 3}, "rankings"),
    (fi.PreferenceIRL().fit, (WORLD.mdp, TRIPS), {"rankings": [[0, 1]], "ranking_weight": ["x"]}, "ranking_weight"),
    (LEARNED.score, (), {"rankings": 3}, "rankings"),
    (LEARNED.probability, ([0, 1], [1, 2, 3]), {}, "second"),
    (plot_win_matrix, (3,), {}, "c"),
    (plot_strengths, (3,), {}, "fit"),
    (plot_regret, (3,), {}, "simulation"),
    (fi.MDP.one_step, (3,), {}, "choices"),
    (fi.query_values, (LEARNED, 3, [0], [1]), {}, "candidates"),
    (fi.query_values, (LEARNED, TRIPS, [0], [99]), {}, "second"),
    (fi.choose_query, (LEARNED, TRIPS), {"asked": [(0,)]}, "asked"),
    (fi.choose_query, (LEARNED, TRIPS), {"asked": 3}, "asked"),
    (fi.SimulatedLabeller, (3, [1.0]), {}, "model"),
    (fi.SimulatedLabeller, (WORLD.mdp, "x"), {}, "reward"),
    (fi.ask_and_learn, (fi.PreferenceIRL(fi.LinearReward(l2=0.1)), 3, max, 3, 0), {}, "model"),
    (fi.compare_learners, ({"c": fi.BehaviorCloning()}, WORLD.mdp, TRIPS),
     {"rng": np.random.default_rng(0), "true_reward": [1.0]}, "true_reward"),
]


@pytest.mark.parametrize("call, arguments, options, name", CASES,
                         ids=[f"{call.__qualname__}-{name}-{at}" for at, (call, _, _, name) in enumerate(CASES)])
def test_an_error_names_the_argument_that_was_typed(call, arguments, options, name):
    with pytest.raises(InvalidInputError) as error:
        call(*arguments, **options)
    named = set(re.findall(r"`(\w+)`", str(error.value)))
    assert name in named
    assert named <= set(inspect.signature(call).parameters) | {"labels"}  # what labels there are may be said by anything


@pytest.mark.parametrize("reference", [[1.0], [1.0, 1.0, 1.0], "x", [NAN, 0.5, 0.5]])
def test_a_reference_is_called_one(reference):
    with pytest.raises(InvalidInputError, match="`reference`"):
        fi.DPO(reference=reference).fit(JOKES, None, ASKED)


def test_policies_and_labels_that_learners_take_are_called_as_they_are_there():
    wrong, mdp = [1.0], WORLD.mdp
    starts = WORLD.initial_distribution
    with pytest.raises(InvalidInputError, match="`base_policy`"):
        fi.RelativeEntropyIRL(base_policy=wrong).fit(mdp, TRIPS, TRIPS)
    with pytest.raises(InvalidInputError, match="`behavior_policy`"):
        fi.RelativeEntropyIRL().fit(mdp, TRIPS, TRIPS, behavior_policy=wrong)
    with pytest.raises(InvalidInputError, match="`expert`"):
        fi.DAgger(wrong, rng=np.random.default_rng(0), max_steps=3, initial_distribution=starts).fit(mdp, TRIPS)
    judged = fi.TAMER()
    judged.start(mdp)
    with pytest.raises(InvalidInputError, match="`state`"):
        judged.update(0.0, "nowhere", mdp.action_ids[0])
    with pytest.raises(InvalidInputError, match="`action`"):
        judged.update(0.0, mdp.state_ids[0], "nothing")
    with pytest.raises(InvalidInputError, match="`state`"):
        judged.choose("nowhere")


@pytest.mark.parametrize("choice, match", [
    (("joke", "xx"), "'b'.*'xx'.*unknown action"), (("jok", "pun"), "'b'.*'jok'.*unknown state"),
    (("there", "tell"), "lacks the action"),
])
def test_a_compared_label_that_is_no_choice_is_named(choice, match):
    mdp = fi.MDP.from_pairs(np.eye(2)[[0, 0, 1]], [0, 0, 1], [0, 1, 2], discount=0.5, state_ids=["joke", "there"],
                            action_ids=["pun", "tell", "riddle"])
    choices = {"a": ("joke", "pun"), "b": choice, "c": ("joke", "tell")}
    with pytest.raises(InvalidInputError, match=match):
        fi.DPO().fit(mdp, choices, COMPARED)


def test_labels_that_are_tuples_can_be_held_and_contrasted():
    pairs = [("x", 1), ("x", 2), ("y", 1)]
    c = fi.Comparisons.from_pairs(pairs, pairs[1:] + pairs[:1], [0.5, 0.7, 0.6])
    fit = fi.bradley_terry(c, fixed={("x", 2): 0.0})
    assert fit.strength[c.index(("x", 2))] == 0.0
    assert fit.contrast(("x", 1), ("x", 2)).estimate == fit.strength[c.index(("x", 1))]
    assert fit.probability(("x", 1), ("x", 2)) == pytest.approx(1 / (1 + np.exp(-fit.strength[c.index(("x", 1))])))


def test_one_item_may_be_compared_with_several():
    together = STRENGTHS.probability("a", ["b", "c"])
    assert together.tolist() == [STRENGTHS.probability("a", "b"), STRENGTHS.probability("a", "c")]
