"""Learners side by side: measures against dense linear algebra and listed routes, folds held out once, failures told by name."""

import math

import numpy as np
import pytest
import small_networks as small
from scipy import sparse
from scipy.sparse.csgraph import dijkstra

import fastirl as fi
from fastirl.domains import gridworld
from fastirl.exceptions import DivergenceError, InvalidInputError
from fastirl.learner import Learner


@pytest.fixture(scope="module")
def world():
    made = gridworld(4, wind=0.2, discount=0.8)
    policy = fi.soft_value_iteration(made.mdp, 2.0 * made.reward, "state").policy
    trips = fi.sample_trajectories(made.mdp, policy, 90, np.random.default_rng(1), horizon=12,
                                   initial_distribution=made.initial_distribution)
    return made, trips


@pytest.fixture(scope="module")
def road():
    graph = small.grid(side=4, cost=1.5, noise=0.5, seed=3)
    net = graph.net(np.column_stack([-graph.utility]), feature_names=["cost"])
    return net, small.simulated(net, graph.utility, np.random.default_rng(0), 90, pairs=8)


class Failing(Learner):
    """Fails by name on the folds it is told to."""

    n_fits = 0

    def __init__(self, when):
        self.when = when

    def fit(self, model, trajectories):
        if len(trajectories) in self.when:
            raise DivergenceError("sums must be finite: one is not; start elsewhere")
        self._observe(model, trajectories)
        self._policy = np.ones(model.n_pairs) / np.bincount(model.pair_state)[model.pair_state]
        return self


def visits(mdp, policy, start):
    """(n_pairs,) discounted visits by a dense solve."""
    p = mdp.transitions.toarray()
    step = np.zeros((mdp.n_states, mdp.n_states))
    np.add.at(step, mdp.pair_state, policy[:, None] * p)
    return np.linalg.solve(np.eye(mdp.n_states) - mdp.discount * step.T, start)[mdp.pair_state] * policy


# --- measures


def test_measures_on_a_process_are_those_of_their_definitions(world):
    made, trips = world
    mdp = made.mdp
    train, test = trips[:60], trips[60:]
    learner = fi.BehaviorCloning(smoothing=0.5)
    found = fi.compare_learners({"cloning": learner}, mdp, [(train, test)], true_reward=made.reward, reward_on="state").table
    policy = fi.BehaviorCloning(smoothing=0.5).fit(mdp, train).policy()
    start = np.bincount([trip.states[0] for trip in test], minlength=mdp.n_states) / len(test)
    own = visits(mdp, policy, start)
    pair_of = {(int(s), int(a)): i for i, (s, a) in enumerate(zip(mdp.pair_state, mdp.pair_action))}
    seen, likelihood = np.zeros(mdp.n_pairs), 0.0
    for trip in test:
        for t, (s, a) in enumerate(zip(trip.states, trip.actions)):
            seen[pair_of[int(s), int(a)]] += mdp.discount**t / len(test)
            likelihood += np.log(policy[pair_of[int(s), int(a)]]) / len(test)
    assert found["log likelihood"][0] == pytest.approx(likelihood, rel=1e-12)
    assert found["occupancy distance"][0] == pytest.approx(0.5 * np.abs(seen / seen.sum() - own / own.sum()).sum(), abs=1e-8)
    assert found["feature gap"][0] == pytest.approx(np.linalg.norm(mdp.features.T @ (seen - own)), abs=1e-8)
    best = np.zeros(mdp.n_states)
    for _ in range(400):
        best = np.maximum.reduceat(made.pair_reward + mdp.discount * (mdp.transitions @ best), mdp.pair_ptr[:-1])
    assert found["value gap"][0] == pytest.approx(start @ best - own @ made.pair_reward, abs=1e-7)
    assert found["seconds"][0] >= 0 and not hasattr(learner, "counts_")  # a copy was fitted


def test_each_trajectory_is_held_out_once_and_all_learners_see_the_same_folds(world):
    made, trips = world
    seen = []

    class Noting(Failing):
        def score(self, trajectories):
            seen.append(sorted(map(int, trajectories.ids)))
            return super().score(trajectories)

    result = fi.compare_learners({"a": Noting(()), "b": Noting(())}, made.mdp, trips, folds=3, rng=np.random.default_rng(0))
    assert seen[:3] == seen[3:] and sorted(sum(seen[:3], [])) == sorted(map(int, trips.ids))
    assert list(result.folds["learner"]) == ["a"] * 3 + ["b"] * 3 and list(result.folds["fold"]) == [0, 1, 2] * 2
    for name in ("a", "b"):
        row = list(result.table["learner"]).index(name)
        own = np.array(result.folds["log likelihood"])[np.array(result.folds["learner"]) == name].astype(float)
        assert result.table["log likelihood"][row] == pytest.approx(own.mean(), rel=1e-14)
    again = fi.compare_learners({"a": Noting(())}, made.mdp, trips, folds=3, rng=np.random.default_rng(0))
    assert again.table["log likelihood"][0] == result.table["log likelihood"][0]


def test_the_truth_itself_has_no_value_gap_and_planners_beat_cloning_with_few_demonstrations(world):
    made, trips = world

    class Best(Failing):
        def fit(self, model, trajectories):
            super().fit(model, trajectories)
            self._policy = fi.value_iteration(model, made.reward, "state").policy
            return self

    learners = {"best": Best(()), "cloning": fi.BehaviorCloning(), "MaxEnt": fi.MaxEntIRL(fi.LinearReward(l2=0.5))}
    table = fi.compare_learners(learners, made.mdp, [(trips[:10], trips[10:])], true_reward=made.reward, reward_on="state").table
    gap = dict(zip(table["learner"], table["value gap"]))
    assert gap["best"] == pytest.approx(0.0, abs=1e-8) and gap["MaxEnt"] < gap["cloning"]
    assert dict(zip(table["learner"], table["log likelihood"]))["best"] == -math.inf


def test_policies_by_time_are_measured_over_their_own_horizon(world):
    made, trips = world
    mdp, horizon = made.mdp, 12
    train, test = trips[:60], trips[60:]
    found = fi.compare_learners({"MaxEnt": fi.MaxEntIRL(fi.LinearReward(l2=0.5), horizon=horizon)}, mdp, [(train, test)],
                                true_reward=made.reward, reward_on="state")
    policy = fi.MaxEntIRL(fi.LinearReward(l2=0.5), horizon=horizon).fit(mdp, train).policy()
    at = np.bincount([trip.states[0] for trip in test], minlength=mdp.n_states) / len(test)
    step, own = mdp.transitions.toarray(), np.zeros(mdp.n_pairs)
    for t in range(horizon):
        chosen = at[mdp.pair_state] * policy[t]
        own += mdp.discount**t * chosen
        at = chosen @ step
    best = np.zeros(mdp.n_states)
    for _ in range(horizon):
        best = np.maximum.reduceat(made.pair_reward + mdp.discount * (step @ best), mdp.pair_ptr[:-1])
    start = np.bincount([trip.states[0] for trip in test], minlength=mdp.n_states) / len(test)
    pair_of = {(int(s), int(a)): i for i, (s, a) in enumerate(zip(mdp.pair_state, mdp.pair_action))}
    seen = np.zeros(mdp.n_pairs)
    for trip in test:
        for t, (s, a) in enumerate(zip(trip.states, trip.actions)):
            seen[pair_of[int(s), int(a)]] += mdp.discount**t / len(test)
    assert found.table["value gap"][0] == pytest.approx(start @ best - own @ made.pair_reward, abs=1e-9)
    assert found.table["feature gap"][0] == pytest.approx(np.linalg.norm(mdp.features.T @ (seen - own)), abs=1e-9)
    distance = 0.5 * np.abs(seen / seen.sum() - own / own.sum()).sum()
    assert found.table["occupancy distance"][0] == pytest.approx(distance, abs=1e-9)
    assert found.notes == ("MaxEnt: measured over 12 decisions",) and "12 decisions" in str(found)


def test_all_may_be_measured_over_one_horizon(world):
    """Also at discount 1, where a cloned policy that never ends has no other meaning; one of another horizon is told."""
    trips = world[1]
    made = gridworld(4, wind=0.2, discount=1.0)
    learners = {"cloning": fi.BehaviorCloning(), "MaxEnt": fi.MaxEntIRL(fi.LinearReward(l2=0.5), horizon=12),
                "MaxEnt 15": fi.MaxEntIRL(fi.LinearReward(l2=0.5), horizon=15)}
    options = {"true_reward": made.reward, "reward_on": "state"}
    parts = [(trips[:60], trips[60:]), (trips[:70], trips[70:])]
    found = fi.compare_learners(learners, made.mdp, parts, **options, horizon=12)
    gap = found.table["value gap"]
    assert 0 < gap[1] < gap[0] and gap[2] is None and found.table["log likelihood"][2] < 0
    assert found.notes[0] == "cloning, MaxEnt: measured over 12 decisions" and "not for horizon=12" in found.notes[1]
    alone = fi.compare_learners(learners, made.mdp, parts, **options)
    assert alone.table["value gap"][0] is None and alone.table["value gap"][1] == pytest.approx(gap[1], rel=1e-12)
    assert "every state must be able to end" in alone.notes[0] and "MaxEnt 15: measured over 15 decisions" in alone.notes


def test_a_pair_that_nobody_takes_may_be_forbidden_by_the_true_reward(world):
    made, trips = world
    reward = made.pair_reward.copy()
    policy = fi.BehaviorCloning(smoothing=0).fit(made.mdp, trips).policy()
    never = np.flatnonzero(policy == 0)
    assert never.size

    class Cloned(Failing):
        def fit(self, model, trajectories):
            super().fit(model, trajectories)
            self._policy = policy
            return self

    reward[never[0]] = -np.inf
    gap = fi.compare_learners({"cloning": Cloned(())}, made.mdp, [(trips, trips)], true_reward=reward, reward_on="pair")
    assert np.isfinite(gap.table["value gap"][0])


def test_measures_on_roads_are_those_of_evaluate(road):
    net, trips = road
    length = net.features[:, 0]
    folds = list(trips.folds(3, np.random.default_rng(0)))
    result = fi.compare_learners({"MaxEnt": fi.MaxEntIRL(), "cloning": fi.BehaviorCloning(), "shortest": fi.ShortestPath("cost")},
                                 net, folds, length=length)
    for at, (train, test) in enumerate(folds):
        own = fi.MaxEntIRL().fit(net, train)
        row = own.evaluate(test, length=length)
        for name in ("exact match", "matched length", "90% matched"):
            assert result.folds[name][at] == pytest.approx(float(row[name][0]), rel=1e-12)
        assert result.folds["log likelihood"][at] == pytest.approx(own.score(test), rel=1e-12)
    likelihood = dict(zip(result.table["learner"], result.table["log likelihood"]))
    assert likelihood["MaxEnt"] > likelihood["cloning"] > likelihood["shortest"] == -math.inf
    assert "MaxEnt" in str(result) and result.notes == ()


def test_a_learner_that_fails_by_name_leaves_empty_cells_and_a_note(world):
    made, trips = world
    parts = [(trips[:40], trips[40:]), (trips[:30], trips[30:])]
    result = fi.compare_learners({"sound": Failing(()), "fails": Failing((30,))}, made.mdp, parts)
    assert result.notes == ("fails, fold 1: sums must be finite: one is not; start elsewhere",)
    assert result.table["log likelihood"][1] is None and result.table["log likelihood"][0] < 0
    assert result.folds["log likelihood"][2] < 0 and result.folds["log likelihood"][3] is None
    assert "start elsewhere" in str(result)
    with pytest.raises(fi.InvalidTripError):  # wrong input is no failure of a learner
        fi.compare_learners({"sound": Failing(())}, made.mdp, [(trips, fi.Trajectories.from_sequences([[0, 99]], [[0]]))])


def test_memory_is_that_of_the_arrays_of_a_fit(world):
    made, trips = world

    class Hungry(Failing):
        def fit(self, model, trajectories):
            np.ones(2_000_000).sum()
            return super().fit(model, trajectories)

    table = fi.compare_learners({"hungry": Hungry(()), "modest": Failing(())}, made.mdp, [(trips[:40], trips[40:])],
                                memory=True).table
    assert 15 < table["MB"][0] < 30 and table["MB"][1] < 5


# --- ShortestPath


def test_everybody_takes_a_shortest_path(road):
    net, trips = road
    length = net.features[:, 0]
    away = dijkstra(sparse.csr_array((length, (net.tail, net.head)), shape=(net.n_states,) * 2))
    model = fi.ShortestPath(length).fit(net, trips)
    for origin, destination in {(int(a), int(b)) for a, b in zip(trips.origins, trips.destinations)}:
        route = model.predict_route(origin, destination)
        assert length[route.arcs].sum() == pytest.approx(away[origin, destination], rel=1e-9) and route.log_probability == 0.0
        assert set(np.unique(model.policy(destination))) <= {0.0, 1.0}
    sequences = [model.predict_route(int(a), int(b)).states for a, b in zip(trips.origins[:5], trips.destinations[:5])]
    assert model.score(fi.Trajectories.from_sequences(sequences)) == 0.0
    assert model.score(trips) == -math.inf
    named = fi.ShortestPath("cost").fit(net, trips)
    np.testing.assert_array_equal(named.reward_, model.reward_)


@pytest.mark.parametrize("length, match", [
    ("coast", "'coast' is none"), ([1.0, 2.0], "entries"), (np.full(48, -1.0), "negative"), (np.full(48, np.nan), "NaN"),
])
def test_wrong_lengths_are_named(road, length, match):
    net, trips = road
    with pytest.raises(InvalidInputError, match=match):
        fi.ShortestPath(length).fit(net, trips)


# --- bad input


def test_wrong_comparisons_are_named(world, road):
    (made, trips), (net, walks) = world, road
    cloning, rng = {"cloning": fi.BehaviorCloning()}, np.random.default_rng(0)
    for match, arguments, options in [
        ("MDP or a RoadNetwork", (cloning, np.eye(2), trips), {"rng": rng}),
        ("map names", ([fi.BehaviorCloning()], made.mdp, trips), {"rng": rng}),
        ("map names", ({}, made.mdp, trips), {"rng": rng}),
        ("fit and score", ({"x": "MaxEnt"}, made.mdp, trips), {"rng": rng}),
        ("fit and score", ({"x": fi.BehaviorCloning}, made.mdp, trips), {"rng": rng}),
        ("`rng`.*got None;", (cloning, made.mdp, trips), {}),
        ("pairs of them", (cloning, made.mdp, 3), {}),
        ("folds", (cloning, made.mdp, trips), {"rng": rng, "folds": 1}),
        ("pairs of them", (cloning, made.mdp, [trips, trips]), {}),
        ("at least one fold", (cloning, made.mdp, []), {}),
        ("true_reward", (cloning, net, walks), {"rng": rng, "true_reward": np.zeros(net.n_arcs)}),
        ("length", (cloning, made.mdp, trips), {"rng": rng, "length": np.zeros(3)}),
        ("`horizon` goes with an MDP", (cloning, net, walks), {"rng": rng, "horizon": 3}),
        ("`horizon` must be a whole", (cloning, made.mdp, trips), {"rng": rng, "horizon": "long"}),
        ("`true_reward", (cloning, made.mdp, trips), {"rng": rng, "true_reward": [1.0]}),
        ("`true_reward", (cloning, made.mdp, trips), {"rng": rng, "true_reward": [[1.0]]}),
        ("each start something", (cloning, made.mdp, trips),
         {"rng": rng, "true_reward": np.full(made.mdp.n_states, -np.inf), "reward_on": "state"}),
        ("RoadNetwork for ShortestPath", ({"s": fi.ShortestPath([1.0])}, made.mdp, trips), {"rng": rng}),
    ]:
        with pytest.raises(InvalidInputError, match=match):
            fi.compare_learners(*arguments, **options)


def test_a_comparison_is_its_tables():
    made = gridworld(2)
    trips = fi.sample_trajectories(made.mdp, None, 6, np.random.default_rng(0), horizon=3,
                                   initial_distribution=made.initial_distribution)
    result = fi.compare_learners({"cloning": fi.BehaviorCloning()}, made.mdp, trips, rng=np.random.default_rng(1))
    assert isinstance(result, fi.LearnerComparison) and isinstance(result.table, fi.Table) and len(result.folds) == 3


# --- the strength of a penalty


def test_the_strength_is_chosen_by_what_is_held_out(road):
    net, trips = road
    parts = list(trips[:40].folds(2, np.random.default_rng(0)))
    noise = np.random.default_rng(0).random((net.n_arcs, 4)) < 0.3
    wide = net.with_features(np.column_stack([net.features, noise]), ["cost", "a", "b", "c", "d"])

    def make(l2):
        return fi.MaxEntIRL(fi.LinearReward(l2=l2))

    found = fi.cross_validate(make, [0.01, 100.0, 2.0], wide, parts)
    np.testing.assert_array_equal(found.strengths, [100.0, 2.0, 0.01])
    for i, strength in enumerate(found.strengths):  # cold fits end at the same place: the penalised likelihood is concave
        cold = [make(strength).fit(wide, train).score(test) for train, test in parts]
        np.testing.assert_allclose(found.scores[i], cold, atol=1e-4)
    mean = found.scores.mean(axis=1)
    assert found.best == found.strengths[mean.argmax()] and found.sparest >= found.best
    assert mean[found.strengths == found.sparest] >= mean.max() - found.scores[mean.argmax()].std(ddof=1) / np.sqrt(2)
    training = [float(x) for x in found.table["training"]]
    assert training == sorted(training)  # the weaker the penalty the closer the fit
    assert found.best < 100.0
    whole = make(found.best).fit(wide, trips[:40])
    np.testing.assert_allclose(np.sort(found.learner.reward_), np.sort(whole.reward_), atol=1e-4)
    assert "best" in str(found) and isinstance(found, fi.CrossValidation)


def test_a_warm_start_takes_fewer_evaluations_to_the_same_answer(road):
    net, trips = road
    strong = fi.MaxEntIRL(fi.LinearReward(l2=5.0)).fit(net, trips)
    cold = fi.MaxEntIRL(fi.LinearReward(l2=1.0)).fit(net, trips)
    warm = fi.MaxEntIRL(fi.LinearReward(l2=1.0), start=strong.coef_).fit(net, trips)
    np.testing.assert_allclose(warm.coef_, cold.coef_, atol=1e-5)
    assert warm.n_evaluations_ <= cold.n_evaluations_


def test_clusters_are_held_out_together_and_failures_are_told(world):
    made, trips = world
    driver = trips.replace(cluster=np.arange(90) % 6)
    seen = []

    class Noting(Failing):
        def score(self, trajectories):
            seen.append(set(np.asarray(trajectories.cluster).tolist()))
            return super().score(trajectories)

    found = fi.cross_validate(lambda s: Noting((75,) if s == 0 else ()), [1.0, 0.0], made.mdp, driver, folds=6,
                              rng=np.random.default_rng(0), by="cluster")
    assert all(len(part) in (1, 5) for part in seen) and found.best == 1.0 and np.isnan(found.scores[1]).all()
    assert len(found.notes) == 6 and "start elsewhere" in found.notes[0] and found.table["held out"][1] is None


@pytest.mark.parametrize("make, strengths, options, match", [
    (fi.BehaviorCloning(), [1.0], {}, "callable"), (lambda s: None, [1.0], {}, "return a learner"),
    (lambda s: fi.BehaviorCloning, [1.0], {}, "return a learner"),
    (lambda s: fi.BehaviorCloning(smoothing=s), [], {}, "at least one"),
    (lambda s: fi.BehaviorCloning(smoothing=s), [1.0, 1.0], {}, "different"),
    (lambda s: fi.BehaviorCloning(smoothing=s), [-1.0], {}, "negative"),
    (lambda s: fi.BehaviorCloning(smoothing=s), [1.0], {"rng": None}, "rng"),
    (lambda s: Failing(range(1000)), [1.0], {}, "fitted on all folds"),
])
def test_wrong_validations_are_named(world, make, strengths, options, match):
    made, trips = world
    with pytest.raises(InvalidInputError, match=match):
        fi.cross_validate(make, strengths, made.mdp, trips, **{"rng": np.random.default_rng(0), **options})
