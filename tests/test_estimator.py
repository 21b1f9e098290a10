"""What an estimator refuses, and what it says: found by using it."""

import numpy as np
import pytest

import fastirl as fi


@pytest.fixture
def parallel_net():
    """0 → 1 by two parallel arcs, 1 → 2, and a dear direct 0 → 2."""
    return fi.RoadNetwork.from_arcs(3, [0, 0, 1, 0], [1, 1, 2, 2], [[2.0, 0], [1.0, 0], [1.0, 0], [5.0, 1]], ["cost", "d"])


def fit(net, n=6, cluster=None, **options):
    trips = fi.Trajectories.from_sequences([[0, 1, 2]] * (n - 1) + [[0, 2]], cluster=cluster)
    return fi.MaxEntIRL(fi.LinearReward({"cost": -1.0}), parallel="sum", **options).fit(net, trips)


def test_parallel_arcs_are_one_when_routes_are_compared(parallel_net):
    table = fit(parallel_net).evaluate(fi.Trajectories.from_sequences([[0, 1, 2]] * 5), length="cost")
    assert table["exact match"].tolist() == [1.0, 1.0]


def test_numpy_scalars_can_be_saved(parallel_net, tmp_path):
    model = fit(parallel_net, max_steps=np.int64(5))
    model.save(tmp_path / "fit.json")
    assert fi.MaxEntIRL.load(tmp_path / "fit.json").max_steps == 5


def test_one_cluster_has_no_clustered_errors(parallel_net):
    with pytest.raises(fi.InvalidInputError, match="at least two clusters"):
        fit(parallel_net, cluster=[1] * 6).standard_errors("clustered")


def test_models_under_different_discounts_are_not_compared(parallel_net):
    trips = fi.Trajectories.from_sequences([[0, 1, 2]] * 5 + [[0, 2]])
    held = fi.MaxEntIRL(fi.LinearReward({"cost": -1.0}), parallel="sum")
    held = held.fit(parallel_net, trips)
    other = fi.MaxEntIRL(parallel="sum", discount=0.9).fit(parallel_net, trips)
    with pytest.raises(fi.InvalidInputError, match="same discount"):
        held.likelihood_ratio_test(other)


@pytest.mark.parametrize("reward", ["exit", {"u_turn": -20.0}])
def test_a_reward_that_is_none_is_refused_at_once(reward):
    with pytest.raises(fi.InvalidInputError, match="reward"):
        fi.MaxEntIRL(reward)
