"""Behaviour cloning: counts in closed form, the logit against plain loops, other optimisers and log odds; what it refuses."""

import math

import numpy as np
import pytest
import small_networks as small
from scipy import optimize
from scipy.sparse import csr_array

import fastirl as fi
from fastirl.exceptions import InvalidInputError, NotFittedError


def process(n_states=6, n_features=3, seed=0, n_trips=80, horizon=6, sparse=False):
    """A random MDP with features of its pairs, some actions missing, and trips of a logit."""
    rng = np.random.default_rng(seed)
    state, action = np.divmod(np.arange(n_states * 3), 3)
    keep = rng.random(state.size) < 0.8
    keep[action == 0] = True
    state, action = state[keep], action[keep]
    matrix = rng.dirichlet(np.ones(n_states), state.size)
    features = rng.normal(size=(state.size, n_features))
    theta = np.array([1.0, -0.5, 0.25])[:n_features]
    from scipy.sparse import csr_array
    mdp = fi.MDP.from_pairs(matrix, state, action, 0.9).with_features(
        csr_array(features) if sparse else features, [f"f{j}" for j in range(n_features)])
    share = np.exp(features @ theta)
    policy = share / np.bincount(state, share)[state]
    trips = fi.sample_trajectories(mdp, policy, n_trips, np.random.default_rng(seed + 1), horizon=horizon,
                                   initial_distribution=np.full(n_states, 1 / n_states))
    return mdp, trips, features


def choices(mdp, trips):
    """(state, pair, weight) of each choice, by plain loops over the sequences."""
    found = []
    pair_of = {(int(s), int(a)): i for i, (s, a) in enumerate(zip(mdp.pair_state, mdp.pair_action))}
    for trip in range(len(trips)):
        states, actions = list(trips[trip].states), list(trips[trip].actions)
        weight = 1.0 if trips.weight is None else float(trips.weight[trip])
        found += [(int(s), pair_of[int(s), int(a)], weight) for s, a in zip(states, actions)]
    return found


def loss(theta, features, seen, pair_state, l2=0.0):
    total = 0.5 * l2 * float(theta @ theta)
    for (state, pair), weight in gathered(seen).items():
        utility = features[pair_state == state] @ theta
        total -= weight * (features[pair] @ theta - np.log(np.exp(utility).sum()))
    return total


def slope(theta, features, seen, pair_state, l2=0.0):
    total = l2 * theta
    for (state, pair), weight in gathered(seen).items():
        own = features[pair_state == state]
        share = np.exp(own @ theta)
        total = total - weight * (features[pair] - share @ own / share.sum())
    return total


def gathered(seen):
    found = {}
    for state, pair, weight in seen:
        found[state, pair] = found.get((state, pair), 0.0) + weight
    return found


def other_optimiser(*problem):
    k = problem[0].shape[1]
    return optimize.minimize(loss, np.zeros(k), args=problem, jac=slope, method="BFGS", options={"gtol": 1e-8}).x


def road(seed=3, n_trips=120):
    graph = small.grid(side=4, cost=1.5, noise=0.5, seed=seed)
    rng = np.random.default_rng(seed)
    features = np.column_stack([-graph.utility, rng.random(graph.tail.size) < 0.3])
    net = graph.net(features, feature_names=["cost", "rough"])
    return net, small.simulated(net, features @ [-1.0, -0.5], rng, n_trips, pairs=8)


# --- counts


def test_counts_are_smoothed_shares():
    tensor = np.zeros((3, 2, 3))
    tensor[:, 0, 1] = tensor[:, 1, 2] = 1.0
    mdp = fi.MDP(tensor, 0.9)
    trips = fi.Trajectories.from_sequences([[0, 1, 2], [0, 2, 2], [0, 1, 1]], [[0, 1], [1, 1], [0, 0]], weight=[1, 1, 2])
    model = fi.BehaviorCloning(smoothing=0.5).fit(mdp, trips)
    # state 0: action 0 by weights 1 + 2, action 1 by 1; state 1: 2 and 1; state 2: action 1 by 1
    np.testing.assert_array_equal(model.counts_, [3, 1, 2, 1, 0, 1])
    np.testing.assert_allclose(model.policy(), [3.5 / 5, 1.5 / 5, 2.5 / 4, 1.5 / 4, 0.5 / 2, 1.5 / 2], rtol=1e-15)
    expected = 3 * np.log(0.7) + np.log(0.3) + 2 * np.log(0.625) + np.log(0.375) + np.log(0.75)
    assert model.log_likelihood_ == pytest.approx(expected, rel=1e-14)
    assert model.score(trips) == pytest.approx(expected / 4, rel=1e-14)
    assert model.converged_ and not hasattr(model, "reward_")  # it learns none


def test_without_smoothing_it_is_the_most_likely_table_and_states_never_seen_stay_uniform():
    mdp, trips, _ = process()
    few = trips[:3]
    model = fi.BehaviorCloning(smoothing=0).fit(mdp, few)
    counts = np.zeros(mdp.n_pairs)
    for _, pair, weight in choices(mdp, few):
        counts[pair] += weight
    for s in range(mdp.n_states):
        own = mdp.pair_state == s
        total = counts[own].sum()
        np.testing.assert_allclose(model.policy()[own], counts[own] / total if total else 1 / own.sum(), rtol=1e-15)
    rng = np.random.default_rng(0)
    for _ in range(20):
        other = rng.dirichlet(np.ones(3), mdp.n_states)[mdp.pair_state, mdp.pair_action]
        other /= np.bincount(mdp.pair_state, other)[mdp.pair_state]
        with np.errstate(divide="ignore"):
            assert sum(w * np.log(other[p]) for _, p, w in choices(mdp, few)) <= model.log_likelihood_
    assert fi.BehaviorCloning(smoothing=0).fit(mdp, trips[:1]).score(trips) == -math.inf


def test_it_needs_no_dynamics_and_plans_nothing():
    """The same choices on the same pairs, other dynamics: the same policy."""
    mdp, trips, features = process()
    for options in ({}, {"method": "logit"}):
        one = fi.BehaviorCloning(**options).fit(mdp, trips)
        spread = fi.MDP.from_pairs(np.full((mdp.n_pairs, mdp.n_states), 1 / mdp.n_states), mdp.pair_state, mdp.pair_action,
                                   0.5).with_features(features)
        np.testing.assert_array_equal(fi.BehaviorCloning(**options).fit(spread, trips).policy(), one.policy())


# --- logit


@pytest.mark.parametrize("l2", (0.0, 2.0))
def test_the_logit_is_the_minimum_that_another_optimiser_finds_on_plain_loops(l2):
    mdp, trips, features = process()
    seen = choices(mdp, trips)
    model = fi.BehaviorCloning("logit", l2=l2).fit(mdp, trips)
    np.testing.assert_allclose(model.coef_, other_optimiser(features, seen, mdp.pair_state, l2), atol=1e-7)
    assert model.log_likelihood_ == pytest.approx(-loss(model.coef_, features, seen, mdp.pair_state), rel=1e-12)
    assert model.converged_ and model.feature_names_ == ("f0", "f1", "f2")
    np.testing.assert_allclose(np.bincount(mdp.pair_state, model.policy()), 1.0, rtol=1e-14)


def test_under_l2_the_errors_are_of_the_penalised_objective():
    """A penalty adds l2 to the information's diagonal: that of the fit without it, at the same weights."""
    mdp, trips, features = process()
    model = fi.BehaviorCloning("logit", l2=5.0).fit(mdp, trips)
    information = 5.0 * np.eye(3)
    for state, _, weight in choices(mdp, trips):
        own = np.flatnonzero(mdp.pair_state == state)
        share = np.exp(features[own] @ model.coef_)
        share /= share.sum()
        apart = features[own] - share @ features[own]
        information += weight * (apart.T * share) @ apart
    np.testing.assert_allclose(model.standard_errors(), np.sqrt(np.diag(np.linalg.inv(information))), rtol=1e-9)


def test_standard_errors_are_those_of_the_information_by_differences_and_by_mcfaddens_formula():
    mdp, trips, features = process()
    seen = choices(mdp, trips)
    model = fi.BehaviorCloning("logit").fit(mdp, trips)
    information = np.zeros((3, 3))
    for state, _, weight in seen:
        own = np.flatnonzero(mdp.pair_state == state)
        share = np.exp(features[own] @ model.coef_)
        share /= share.sum()
        apart = features[own] - share @ features[own]
        information += weight * (apart.T * share) @ apart
    np.testing.assert_allclose(model.standard_errors(), np.sqrt(np.diag(np.linalg.inv(information))), rtol=1e-9)
    step, differences = 1e-4, np.empty((3, 3))
    for i, j in np.ndindex(3, 3):
        a, b = step * np.eye(3)[i], step * np.eye(3)[j]
        at = [loss(model.coef_ + x, features, seen, mdp.pair_state) for x in (a + b, a - b, b - a, -a - b)]
        differences[i, j] = (at[0] - at[1] - at[2] + at[3]) / (4 * step**2)
    np.testing.assert_allclose(differences, information, rtol=1e-4, atol=1e-3)


def test_of_two_actions_and_one_dummy_it_is_the_log_odds():
    tensor = np.ones((1, 2, 1))
    mdp = fi.MDP(tensor, 0.5).with_features([[0.0], [1.0]])
    actions = [1] * 30 + [0] * 10
    trips = fi.Trajectories.from_sequences([[0] * 41], [actions])
    model = fi.BehaviorCloning("logit").fit(mdp, trips)
    assert model.coef_[0] == pytest.approx(np.log(3.0), abs=1e-8)
    assert model.standard_errors()[0] == pytest.approx(np.sqrt(1 / 30 + 1 / 10), rel=1e-7)


def test_sparse_features_change_nothing():
    (mdp, trips, _), (other, _, _) = process(), process(sparse=True)
    one, two = (fi.BehaviorCloning("logit").fit(m, trips) for m in (mdp, other))
    np.testing.assert_allclose(one.coef_, two.coef_, atol=1e-9)
    np.testing.assert_allclose(one.standard_errors(), two.standard_errors(), rtol=1e-9)


def test_weights_are_frequencies():
    mdp, trips, _ = process(n_trips=10)
    twice = fi.Trajectories.concatenate([trips, trips[:4]], ids=np.arange(14))
    weighted = fi.Trajectories.from_sequences([trips[i].states for i in range(10)], [trips[i].actions for i in range(10)],
                                              weight=[2] * 4 + [1] * 6)
    for options in ({}, {"method": "logit", "l2": 0.1}):
        one, two = (fi.BehaviorCloning(**options).fit(mdp, x) for x in (twice, weighted))
        np.testing.assert_allclose(one.policy(), two.policy(), atol=1e-9)


def test_a_weight_that_the_choices_do_not_identify_has_an_infinite_error():
    mdp, trips, features = process()
    same = mdp.with_features(np.column_stack([features[:, 0], mdp.pair_state]), ["f0", "of the state"])
    errors = fi.BehaviorCloning("logit").fit(same, trips).standard_errors()
    assert np.isfinite(errors[0]) and errors[1] == math.inf


def test_choices_that_features_separate_have_no_maximum_and_are_named():
    mdp, trips, features = process()
    taken = np.zeros(mdp.n_pairs)
    for s in range(mdp.n_states):
        taken[np.flatnonzero(mdp.pair_state == s)[0]] = 1.0
    marked = mdp.with_features(np.column_stack([features, taken]), ["f0", "f1", "f2", "taken"])
    always = fi.sample_trajectories(mdp, taken, 20, np.random.default_rng(0), horizon=4,
                                    initial_distribution=np.full(mdp.n_states, 1 / mdp.n_states))
    with pytest.raises(InvalidInputError, match="separated"):
        fi.BehaviorCloning("logit").fit(marked, always)
    fitted = fi.BehaviorCloning("logit", l2=0.1).fit(marked, always)
    assert fitted.coef_[3] > 1.0 and fitted.converged_
    # separation of one set of states only is one as well: "f3" is 1 for what was chosen wherever it differs
    part = mdp.with_features(np.column_stack([features[:, 0], taken * (mdp.pair_state == 0)]), ["f0", "f3"])
    with pytest.raises(InvalidInputError, match="separated"):
        fi.BehaviorCloning("logit").fit(part, always)
    assert fi.BehaviorCloning("logit").fit(marked, trips).converged_  # where choices overlap it is none


def test_reaching_the_limit_is_told():
    mdp, trips, _ = process()
    with pytest.warns(fi.ConvergenceWarning, match="max_iter=1 reached"):
        model = fi.BehaviorCloning("logit", max_iter=1).fit(mdp, trips)
    assert not model.converged_


# --- road networks


def test_on_roads_the_destination_takes_nobody_on():
    net, trips = road()
    for options in ({}, {"method": "logit"}):
        model = fi.BehaviorCloning(**options).fit(net, trips)
        for destination in map(int, np.unique(trips.destinations)):
            policy = model.policy(destination)
            assert (policy[net.tail == destination] == 0).all()
            total = np.bincount(net.tail, policy, minlength=net.n_states)
            np.testing.assert_allclose(np.delete(total, destination), 1.0, rtol=1e-12)


def test_on_roads_the_logit_is_the_minimum_on_plain_loops():
    net, trips = road()
    seen = [(int(net.tail[arc]), int(arc), 1.0) for arc in net.match(trips, "first_arrival").arc]
    model = fi.BehaviorCloning("logit").fit(net, trips)
    np.testing.assert_allclose(model.coef_, other_optimiser(net.features, seen, net.tail), atol=1e-7)
    assert model.score(trips) * len(trips) == pytest.approx(model.log_likelihood_, rel=1e-12)


def test_columns_of_the_destination_help_and_are_fitted_as_others_are():
    net, trips = road()
    side = 4
    row, column = np.divmod(np.arange(net.n_states), side)

    def nearer(destination):
        away = np.abs(row - row[destination]) + np.abs(column - column[destination])
        return (away[net.tail] - away[net.head])[:, None]

    plain = fi.BehaviorCloning("logit").fit(net, trips)
    aimed = fi.BehaviorCloning("logit", features_of=nearer, feature_names_of=["nearer"]).fit(net, trips)
    assert aimed.feature_names_ == ("cost", "rough", "nearer") and aimed.coef_[2] > 0.5
    assert aimed.log_likelihood_ > plain.log_likelihood_ + 20
    matched = net.match(trips, "first_arrival")
    total = 0.0
    for arc, destination in zip(matched.arc, np.repeat(matched.destination, matched.n_steps)):
        utility = np.column_stack([net.features, nearer(destination)]) @ aimed.coef_
        total += utility[arc] - np.log(np.exp(utility[net.tail == net.tail[arc]]).sum())
    assert aimed.log_likelihood_ == pytest.approx(total, rel=1e-12)


def test_a_route_of_a_clone_arrives():
    net, trips = road()
    model = fi.BehaviorCloning().fit(net, trips)
    origin, destination = int(trips.origins[0]), int(trips.destinations[0])
    route = model.predict_route(origin, destination)
    assert route.states[0] == origin and route.states[-1] == destination and route.log_probability < 0
    drawn = model.sample_routes(origin, destination, 3, np.random.default_rng(0))
    assert all(net.head[arcs[-1]] == destination and (net.head[arcs[:-1]] != destination).all() for arcs in drawn)


# --- bad input


@pytest.mark.parametrize("options, match", [
    ({"method": "count"}, "method"), ({"smoothing": -1}, "smoothing"), ({"smoothing": "some"}, "smoothing"),
    ({"method": "logit", "l2": -0.1}, "l2"), ({"method": "logit", "features_of": [1, 2]}, "callable"),
    ({"features_of": lambda d: None}, "logit"), ({"max_iter": 0}, "max_iter"), ({"smoothing": np.ones(2)}, "smoothing"),
    ({"method": "logit", "l2": np.ones(2)}, "l2"),
])
def test_wrong_settings_are_named(options, match):
    with pytest.raises(InvalidInputError, match=match):
        fi.BehaviorCloning(**options)


def test_wrong_models_and_demonstrations_are_named():
    mdp, trips, _ = process()
    net, walks = road()
    bare = fi.MDP(np.full((3, 2, 3), 1 / 3), 0.9)
    with pytest.raises(NotFittedError):
        fi.BehaviorCloning().policy()
    with pytest.raises(InvalidInputError, match="features"):
        fi.BehaviorCloning("logit").fit(bare, fi.Trajectories.from_sequences([[0, 1]], [[0]]))
    with pytest.raises(InvalidInputError, match="on an MDP"):
        fi.BehaviorCloning("logit", features_of=lambda d: np.zeros((2, 1))).fit(mdp, trips)
    with pytest.raises(InvalidInputError, match="n_arcs|rows"):
        fi.BehaviorCloning("logit", features_of=lambda d: np.zeros((2, 1))).fit(net, walks)
    with pytest.raises(InvalidInputError, match="must be a dense array"):
        fi.BehaviorCloning("logit", features_of=lambda d: csr_array(np.ones((net.n_arcs, 1)))).fit(net, walks)
    with pytest.raises(InvalidInputError, match="names for 1 columns"):
        fi.BehaviorCloning("logit", l2=1.0, features_of=lambda d: np.zeros((net.n_arcs, 1)),
                           feature_names_of=["a", "b"]).fit(net, walks)
    with pytest.raises(fi.InvalidTripError):
        fi.BehaviorCloning().fit(mdp, fi.Trajectories.from_sequences([[0, 99]], [[0]]))
    with pytest.raises(fi.InvalidTripError):
        fi.BehaviorCloning().fit(net, fi.Trajectories.from_sequences([[0, 15]]))
    with pytest.raises(InvalidInputError, match="MDP or a RoadNetwork"):
        fi.BehaviorCloning().fit(np.eye(3), trips)
    with pytest.raises(InvalidInputError, match="logit"):
        fi.BehaviorCloning().fit(mdp, trips).standard_errors()
