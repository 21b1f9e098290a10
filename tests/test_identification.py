"""Directions that behaviour cannot tell apart: policies stay as they are along them, and along no others."""

import numpy as np
import pytest
import small_networks as small

import fastirl as fi
from fastirl.domains import gridworld, worst_case_chain
from fastirl.exceptions import InvalidInputError


def policy_of(mdp, reward):
    return fi.soft_value_iteration(mdp, reward, "pair", tol=1e-11).policy


def changes_nothing(mdp, theta, directions):
    base = policy_of(mdp, mdp.features @ theta)
    scale = np.sqrt(np.asarray((mdp.features.multiply(mdp.features) if hasattr(mdp.features, "multiply") else mdp.features**2
                                ).mean(axis=0))).ravel()
    return all(np.abs(policy_of(mdp, mdp.features @ (theta + row / scale)) - base).max() < 1e-8 for row in directions)


def test_of_one_reward_a_state_a_constant_is_all_that_is_open():
    mdp = gridworld(3, wind=0.2, discount=0.8).mdp
    found = fi.reward_ambiguity(mdp)
    assert found.n_directions == 1 and found.constant and found.table["kind"][0] == "a constant"
    rng = np.random.default_rng(0)
    theta = rng.normal(size=9)
    assert changes_nothing(mdp, theta, 3 * found.directions)
    assert not changes_nothing(mdp, theta, 3 * rng.normal(size=(1, 9)))
    np.testing.assert_allclose(found.potentials, found.potentials[0, 0], atol=1e-6)  # a constant potential
    same = fi.reward_ambiguity(mdp, fi.FreeReward(on="state"))
    assert same.n_directions == 1


def test_shaping_hidden_in_features_is_found_and_named():
    mdp = gridworld(3, wind=0.2, discount=0.8).mdp
    rng = np.random.default_rng(1)
    potential = rng.normal(size=(9, 2))
    shaping = 0.8 * (mdp.transitions @ potential) - potential[mdp.pair_state]
    honest = rng.normal(size=(mdp.n_pairs, 2))
    features = np.column_stack([honest, honest[:, 0] + shaping[:, 0], shaping[:, 1], 2 * honest[:, 1]])
    mixed = mdp.with_features(features, ["a", "b", "a shaped", "pure", "b again"])
    found = fi.reward_ambiguity(mixed)
    assert found.n_directions == 3 and not (np.abs(found.directions @ found.directions.T - np.eye(3)) > 1e-9).any()
    assert changes_nothing(mixed, rng.normal(size=5), found.directions)
    assert fi.reward_ambiguity(mixed, fi.LinearReward(fixed={"a": 1.0, "pure": 0.0})).n_directions == 1
    plain = fi.reward_ambiguity(mdp.with_features(honest, ["a", "b"]))
    assert plain.n_directions == 0 and len(plain.table) == 0
    assert "potential shaping" in str(found) or "no change" in str(found)


def test_where_the_process_ends_potentials_are_zero_and_constants_matter():
    rng = np.random.default_rng(2)
    tensor = rng.dirichlet(np.ones(5), size=(5, 3))
    mdp = fi.MDP(tensor, 0.9, terminal=[4]).with_features(np.ones((12, 1)), ["one"])
    found = fi.reward_ambiguity(mdp)
    # a constant is shaping only with a potential that is not 0 at the end
    assert found.n_directions == 0 and not found.constant
    one, two = (policy_of(mdp, np.zeros(12) + c) for c in (0.0, 1.0))
    assert np.abs(one - two).max() > 1e-3
    chain = worst_case_chain(5).mdp  # every way has as many steps: there a constant is open
    assert fi.reward_ambiguity(chain).constant


def test_each_pairs_own_reward_has_a_potential_a_state():
    mdp = gridworld(3, wind=0.2, discount=0.8).mdp
    found = fi.reward_ambiguity(mdp, fi.FreeReward(on="pair"))
    own = np.zeros((mdp.n_pairs, 9))
    own[np.arange(mdp.n_pairs), mdp.pair_state] = 1.0
    assert found.n_directions == np.linalg.matrix_rank(0.8 * mdp.transitions.toarray() - own) == 9
    graph = small.join(small.grid(side=3), small.chain(n=4))
    net = graph.net()
    matrix = np.zeros((net.n_arcs, net.n_states))
    np.add.at(matrix, (np.arange(net.n_arcs), net.head), 1.0)
    np.add.at(matrix, (np.arange(net.n_arcs), net.tail), -1.0)
    assert fi.reward_ambiguity(net, fi.FreeReward()).n_directions == np.linalg.matrix_rank(matrix) == 11


def test_on_roads_a_slope_costs_every_path_the_same():
    graph = small.grid(side=4, cost=1.5, noise=0.5, seed=3)
    height = np.random.default_rng(0).normal(size=graph.n)
    climb = height[graph.head] - height[graph.tail]
    net = graph.net(np.column_stack([-graph.utility, climb]), feature_names=["cost", "climb"])
    found = fi.reward_ambiguity(net)
    assert found.n_directions == 1 and found.table["combination"][0] in ("1 climb", "− 1 climb") and not found.constant
    one, two = (fi.choice_probabilities(net, net.features @ [-1.0, w], 5) for w in (0.0, 0.3))
    np.testing.assert_allclose(getattr(one, "probability", one), getattr(two, "probability", two), atol=1e-9)
    trips = small.simulated(net, graph.utility, np.random.default_rng(1), 80, pairs=6)
    with pytest.warns(fi.IdentificationWarning, match="climb"):  # the fit on data says so too
        fi.MaxEntIRL().fit(net, trips)


@pytest.mark.parametrize("make, match", [
    (lambda m: fi.reward_ambiguity(np.eye(2)), "MDP or a RoadNetwork"),
    (lambda m: fi.reward_ambiguity(m, "linear"), "LinearReward"),
    (lambda m: fi.reward_ambiguity(fi.MDP(np.ones((1, 2, 1)), 0.5)), "features"),
    (lambda m: fi.reward_ambiguity(m, fi.LinearReward() + fi.FreeReward()), "part by part"),
    (lambda m: fi.reward_ambiguity(gridworld(18).mdp), "300"),
    (lambda m: fi.reward_ambiguity(m, fi.LinearReward({"x99": 0.0})), "x99"),
])
def test_wrong_questions_are_named(make, match):
    with pytest.raises(InvalidInputError, match=match):
        make(gridworld(2).mdp)


def test_an_ambiguity_prints_its_table():
    found = fi.reward_ambiguity(gridworld(2).mdp)
    assert isinstance(found, fi.RewardAmbiguity) and str(found) == str(found.table)
