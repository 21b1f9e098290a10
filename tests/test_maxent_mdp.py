"""Learning on decision processes: Rust's published table, the two objectives, and what each of them promises.

Oracles: Rust (1987), the twins of the likelihood and of the causal-entropy dual, central differences, all trajectories.
"""

from functools import cache

import numpy as np
import pytest
import real_data
import small_mdps as small
from scipy import optimize, sparse
from test_planning import trajectories

import fastirl as fi
from fastirl.domains import gridworld
from fastirl import _planning_reference as ref
from fastirl.mdp import MDP

OBJECTIVES = ("likelihood", "feature_matching")


# --- a published table under stochastic dynamics


@cache
def rust(discount=0.9999):
    """(model, one trip of one step for each decision): Rust's errors are over decisions, not over buses."""
    data = real_data.rust1987()
    mdp = MDP([sparse.csr_array(matrix) for matrix in data.transitions], discount, features=data.features,
              feature_names=data.feature_names)
    trips = fi.Trajectories.from_sequences(data.state[:, None].tolist(), actions=data.action[:, None].tolist(),
                                           cluster=data.bus.tolist())
    return mdp, trips


def rust_steps(mdp):
    data = real_data.rust1987()
    return data.state, mdp.pair_index(data.state, data.action), np.zeros(data.state.size, np.int64)


def test_the_bus_engines_are_those_that_are_described():
    data, known = real_data.rust1987(), real_data.RUST
    assert data.state.size == 4292 and np.unique(data.bus).size == 37 and data.action.sum() == 33
    np.testing.assert_allclose(data.increments, known.increments, atol=5e-5, rtol=0)
    np.testing.assert_allclose([matrix.sum(axis=1) for matrix in data.transitions], 1.0, rtol=1e-14)


def test_the_twin_finds_rust_s_table():
    known = real_data.RUST
    for discount, begin, estimate, value in ((0.9999, [5.0, 1.0], known.recomputed, known.log_likelihood),
                                             (0.0, [5.0, 50.0], known.myopic_estimate, known.myopic_log_likelihood)):
        mdp, _ = rust(discount)

        def loss(theta, mdp=mdp):
            found, scores = ref.log_likelihood(mdp, mdp.features, theta, rust_steps(mdp))
            return -found, -scores.sum(axis=0)

        best = optimize.minimize(loss, begin, jac=True, method="BFGS", options={"gtol": 1e-6})
        np.testing.assert_allclose(best.x, estimate, atol=1e-4, rtol=0)
        np.testing.assert_allclose(-best.fun, value, atol=5e-5, rtol=0)  # printed to 1e-4, and to 1e-5


def test_rust_s_table_nine_group_four():
    known = real_data.RUST
    mdp, trips = rust()
    model = fi.MaxEntIRL(objective="likelihood").fit(mdp, trips)
    assert model.converged_ and tuple(model.feature_names_) == known.names
    np.testing.assert_allclose(model.coef_, known.recomputed, atol=1e-4, rtol=0)
    np.testing.assert_allclose(model.coef_, known.estimate, atol=2e-4, rtol=0)  # as Rust printed them
    np.testing.assert_allclose(model.log_likelihood_, known.log_likelihood, atol=1e-5, rtol=0)
    np.testing.assert_allclose(model.standard_errors("bhhh"), known.std_error, atol=1e-3, rtol=0)
    for kind, printed in known.recomputed_std_error.items():
        # SOURCE.md cuts some of them off after three digits: the robust ones are 1.15478 and 0.48318
        np.testing.assert_allclose(model.standard_errors(kind), printed, atol=1e-3, rtol=0)


def test_rust_s_table_nine_without_a_future():
    known = real_data.RUST
    model = fi.MaxEntIRL(objective="likelihood").fit(*rust(0.0))
    assert model.converged_
    np.testing.assert_allclose(model.coef_, known.myopic_estimate, atol=1e-4, rtol=0)
    np.testing.assert_allclose(model.log_likelihood_, known.myopic_log_likelihood, atol=5e-5, rtol=0)


def test_rust_s_values_are_certified_although_the_horizon_is_ten_thousand_steps():
    mdp, _ = rust()
    reward = mdp.features @ np.array(real_data.RUST.estimate)
    exact = small.accurate_values(small.Problem(mdp, reward), 1.0)
    for method in ("auto", "jacobi", "gauss_seidel", "newton"):
        found = fi.soft_value_iteration(mdp, reward, "pair", method=method, tol=1e-6)
        assert found.converged and small.distance(found.value, exact) <= found.error_bound <= 1e-6


def test_a_trip_for_each_bus_says_the_same_but_for_the_errors():
    data = real_data.rust1987()
    mdp, trips = rust()
    cuts = np.flatnonzero(np.diff(data.bus)) + 1
    buses = fi.Trajectories.from_sequences([part.tolist() for part in np.split(data.state, cuts)],
                                           actions=[part.tolist() for part in np.split(data.action, cuts)])
    one, other = (fi.MaxEntIRL(objective="likelihood").fit(mdp, given) for given in (trips, buses))
    np.testing.assert_allclose(other.coef_, one.coef_, rtol=1e-4)  # the optimiser's own tolerance is sqrt(2e-9) errors
    np.testing.assert_allclose(other.log_likelihood_, one.log_likelihood_, rtol=1e-10)
    np.testing.assert_allclose(other.standard_errors("hessian"), one.standard_errors("hessian"), rtol=1e-3)
    np.testing.assert_allclose(other.standard_errors("bhhh"), (1.5875, 0.6375), atol=1e-3, rtol=0)  # the twin's


# --- trips drawn from a known model


def simulated(mdp, weights, n_trips, horizon=None, longest=400, seed=0, starts=None):
    """Lists of pairs drawn from the soft policy, to a terminal state or the horizon; and the same as Trajectories."""
    rng = np.random.default_rng(seed)
    reward, p = mdp.features @ weights, mdp.transitions.toarray()
    if horizon is None:
        policy = np.broadcast_to(ref.soft_solution(mdp, reward)[2], (longest, mdp.n_pairs))
    else:
        policy = ref.finite_horizon(mdp, reward, horizon, 1.0)[2]
    acting = np.flatnonzero(~mdp.terminal) if starts is None else starts
    trips, states, actions = [], [], []
    for _ in range(n_trips):
        s, pairs, seen = int(rng.choice(acting)), [], []
        for t in range(len(policy)):
            if mdp.terminal[s]:
                break
            own = np.arange(mdp.pair_ptr[s], mdp.pair_ptr[s + 1])
            pair = int(rng.choice(own, p=policy[t, own] / policy[t, own].sum()))
            pairs.append(pair)
            seen.append(s)
            s = int(rng.choice(mdp.n_states, p=p[pair] / p[pair].sum()))
        trips.append(pairs)
        states.append([*seen, s])
        actions.append(mdp.pair_action[pairs].tolist())
    return trips, fi.Trajectories.from_sequences(states, actions=actions)


def steps_of(mdp, trips):
    pair = np.concatenate([np.asarray(trip, np.int64) for trip in trips])
    time = np.concatenate([np.arange(len(trip)) for trip in trips])
    return mdp.pair_state[pair], pair, time


def with_random_features(problem, k=2, seed=0):
    features = np.random.default_rng(seed).normal(size=(problem.mdp.n_pairs, k))
    return problem.mdp.with_features(features, features_on="pair")


def deterministic():
    """Every pair costs at least 1.5, with two choices a state: finite without a horizon."""
    problem = small.random_sparse(12, 2, 1, seed=60, discount=1.0, terminal=[0, 5], all_actions=True)
    features = np.random.default_rng(1).uniform(0.5, 2.0, (problem.mdp.n_pairs, 2))
    return problem.mdp.with_features(features, features_on="pair")


CASES = {
    "chance, discount 0.9, an end": (lambda: with_random_features(small.random_sparse(
        12, 3, 3, seed=61, terminal=[0, 1], all_actions=True)), [0.8, -0.5], None),
    "chance, discount 1, an end": (lambda: small.grid(4, 0.3, 1.0).mdp.with_features(
        1.0 + np.random.default_rng(2).random((60, 2)), features_on="pair"), [-1.0, -0.8], None),
    "chance, discount 0.9, horizon": (lambda: with_random_features(small.random_sparse(
        12, 3, 3, seed=62)), [0.8, -0.5], 6),
    "chance, discount 1, horizon": (lambda: with_random_features(small.random_dense(
        8, 3, seed=63, discount=1.0)), [0.8, -0.5], 5),
    "certainty, discount 1, an end": (deterministic, [-1.0, -1.2], None),
    "certainty, discount 1, horizon": (lambda: with_random_features(small.grid(
        3, 0.0, 1.0, goals=())), [0.8, -0.5], 6),
}


@cache
def drawn(case):
    make, truth, horizon = CASES[case]
    mdp = make()
    return mdp, np.array(truth), horizon, *simulated(mdp, np.array(truth), 150, horizon)


def twin(objective, mdp, weights, trips, horizon):
    """(value, gradient) of an objective."""
    if objective == "likelihood":
        value, scores = ref.log_likelihood(mdp, mdp.features, weights, steps_of(mdp, trips), horizon)
        return value, scores.sum(axis=0)
    return ref.feature_matching(mdp, mdp.features, weights, trips, horizon)


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("case", CASES)
def test_the_twins_gradients_are_those_of_central_differences(case, objective):
    mdp, truth, horizon, trips, _ = drawn(case)
    weights = 1.1 * truth
    _, gradient = twin(objective, mdp, weights, trips, horizon)
    numeric = [(twin(objective, mdp, weights + h, trips, horizon)[0]
                - twin(objective, mdp, weights - h, trips, horizon)[0]) / 2e-5 for h in 1e-5 * np.eye(2)]
    np.testing.assert_allclose(gradient, numeric, rtol=1e-6, atol=1e-5)  # h^2, and eps |L| / h


@pytest.mark.parametrize("case", [case for case in CASES if case.startswith("certainty")])
def test_the_twins_of_both_objectives_agree_on_deterministic_dynamics_at_discount_1(case):
    mdp, truth, horizon, trips, _ = drawn(case)
    for weights in (truth, 1.2 * truth):
        one, other = (twin(objective, mdp, weights, trips, horizon) for objective in OBJECTIVES)
        np.testing.assert_allclose(one[0], other[0], rtol=1e-11)
        np.testing.assert_allclose(one[1], other[1], rtol=1e-9, atol=1e-8)


def test_the_twin_of_the_likelihood_is_that_of_all_trajectories():
    """On deterministic dynamics at discount 1: log P(path) = reward - log of the sum over all paths."""
    problem = small.deterministic_tree()
    mdp = problem.mdp.with_features(problem.reward[:, None], features_on="pair")
    paths = [[pair for pair, _ in path] for path in trajectories(mdp, 0, 99)]
    total = np.array([problem.reward[path].sum() for path in paths])
    for objective in OBJECTIVES:
        found = [twin(objective, mdp, np.array([1.3]), [path], None)[0] for path in paths]
        np.testing.assert_allclose(found, 1.3 * total - np.log(np.exp(1.3 * total).sum()), rtol=1e-12)


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("case", CASES)
def test_a_fit_is_where_the_twin_s_gradient_is_zero(case, objective):
    mdp, truth, horizon, trips, given = drawn(case)
    model = fi.MaxEntIRL(objective=objective, horizon=horizon).fit(mdp, given)
    assert model.converged_
    value, gradient = twin(objective, mdp, model.coef_, trips, horizon)
    curvature = [(twin(objective, mdp, model.coef_ - h, trips, horizon)[1]
                  - twin(objective, mdp, model.coef_ + h, trips, horizon)[1]) / 2e-4 for h in 1e-4 * np.eye(2)]
    # what is still to be gained, g' H^-1 g / 2, is within a hundred times the optimiser's tolerance of 1e-9
    assert 0 <= gradient @ np.linalg.solve(curvature, gradient) / 2 <= 1e-7
    if objective == "likelihood":
        np.testing.assert_allclose(model.log_likelihood_, value, rtol=1e-8)
        error = np.sqrt(np.diag(np.linalg.inv(curvature)))
        np.testing.assert_allclose(model.standard_errors("hessian"), error, rtol=1e-3)
        assert (np.abs(model.coef_ - truth) <= 4 * error).all()  # what drew the trips is found again


@pytest.mark.parametrize("case", CASES)
def test_matched_features_are_those_that_are_expected(case):
    mdp, _, horizon, trips, given = drawn(case)
    model = fi.MaxEntIRL(objective="feature_matching", horizon=horizon).fit(mdp, given)
    start = np.bincount([mdp.pair_state[trip[0]] for trip in trips], minlength=mdp.n_states) / len(trips)
    found = fi.soft_value_iteration(mdp, mdp.features @ model.coef_, "pair", horizon=horizon, tol=1e-10)
    visits = fi.visitation_frequencies(mdp, found.policy, start, horizon)
    if horizon is None:
        expected = visits.pair @ mdp.features
    else:
        expected = mdp.discount ** np.arange(horizon) @ visits.pair_by_time @ mdp.features
    observed = sum(mdp.discount ** np.arange(len(trip)) @ mdp.features[trip] for trip in trips) / len(trips)
    np.testing.assert_allclose(expected, observed, rtol=1e-4, atol=1e-4)  # gain 1e-9 over 150 trips


@pytest.mark.parametrize("case", CASES)
def test_the_objectives_agree_on_deterministic_dynamics_at_discount_1_and_only_there(case):
    mdp, _, horizon, _, given = drawn(case)
    one, other = (fi.MaxEntIRL(objective=objective, horizon=horizon).fit(mdp, given) for objective in OBJECTIVES)
    apart = np.abs(one.coef_ - other.coef_) / one.standard_errors("hessian")
    assert (apart.max() < 1e-3) == case.startswith("certainty")


def test_trips_of_states_of_an_undiscounted_horizon_are_matched_state_by_state():
    """As `imitation` has it: features of states, a horizon, no discount; visits of the plan = visits seen."""
    problem = small.random_dense(5, 3, seed=64, discount=1.0)
    mdp = problem.mdp.with_features(np.eye(5)[:, 1:], features_on="state")
    trips, given = simulated(mdp, np.array([1.0, -1.0, 0.5, 0.0]), 200, horizon=8)
    model = fi.MaxEntIRL(objective="feature_matching", horizon=8).fit(mdp, given)
    seen = np.bincount(np.concatenate([mdp.pair_state[trip] for trip in trips]), minlength=5) / len(trips)
    start = np.bincount([mdp.pair_state[trip[0]] for trip in trips], minlength=5) / len(trips)
    plan = fi.soft_value_iteration(mdp, mdp.features @ model.coef_, "pair", horizon=8)
    visits = fi.visitation_frequencies(mdp, plan.policy, start, 8)
    np.testing.assert_allclose(visits.state, seen, rtol=1e-4)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_features_may_be_given_to_fit_dense_or_sparse(objective):
    mdp, _, horizon, _, given = drawn("chance, discount 0.9, horizon")
    own = fi.MaxEntIRL(objective=objective, horizon=horizon).fit(mdp, given)
    bare = mdp.with_features(None)
    for features in (mdp.features, sparse.csr_array(mdp.features)):
        other = fi.MaxEntIRL(objective=objective, horizon=horizon).fit(bare, given, features)
        np.testing.assert_allclose(other.coef_, own.coef_, rtol=1e-8)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_a_weight_of_two_is_the_trip_twice(objective):
    mdp, _, horizon, _, given = drawn("chance, discount 0.9, an end")
    half = given[:40]
    twice = fi.Trajectories.concatenate([half, half], ids=range(80))
    weighted = half.replace(weight=np.full(40, 2.0))
    one, other = (fi.MaxEntIRL(objective=objective, horizon=horizon).fit(mdp, trips) for trips in (twice, weighted))
    np.testing.assert_allclose(one.coef_, other.coef_, rtol=1e-6)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_a_held_weight_stays_where_it_is_held(objective):
    mdp, _, horizon, trips, given = drawn("chance, discount 0.9, an end")
    reward = fi.LinearReward(fixed={mdp.feature_names[1]: -0.5})
    model = fi.MaxEntIRL(reward, objective=objective, horizon=horizon).fit(mdp, given)
    assert model.coef_[1] == -0.5
    _, gradient = twin(objective, mdp, model.coef_, trips, horizon)
    assert abs(gradient[0]) <= 1e-2 < abs(gradient[1])  # gain 1e-9 at a curvature of some hundreds


def test_an_objective_that_does_not_exist_is_refused():
    with pytest.raises(fi.InvalidInputError, match="objective"):
        fi.MaxEntIRL(objective="likelyhood")


def test_a_trip_that_the_model_cannot_make_is_named():
    mdp, *_ = drawn("certainty, discount 1, an end")
    p = mdp.transitions.toarray()
    state = int(mdp.pair_state[0])
    wrong = int(np.flatnonzero(p[0] == 0)[0])
    trips = fi.Trajectories.from_sequences([[state, wrong]], actions=[[int(mdp.pair_action[0])]], ids=["odd"])
    with pytest.raises(fi.InvalidInputError, match="odd"):
        fi.MaxEntIRL(objective="likelihood").fit(mdp, trips)


# --- any reward


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("case", CASES)
def test_the_gradient_in_every_pair_s_reward_is_that_of_central_differences(case, objective):
    mdp, truth, horizon, trips, given = drawn(case)
    reward = mdp.features @ truth
    found = fi.process_log_likelihood(mdp, reward, given, reward_on="pair", objective=objective, horizon=horizon)
    value, gradient = twin(objective, mdp, truth, trips, horizon)
    np.testing.assert_allclose(found.value, value, rtol=1e-9)
    np.testing.assert_allclose(found.gradient @ mdp.features, gradient, rtol=1e-7, atol=1e-6)
    np.testing.assert_allclose(found.per_trip.sum(), found.value, rtol=1e-12)
    for pair in (0, mdp.n_pairs // 2, mdp.n_pairs - 1):
        step = np.zeros(mdp.n_pairs)
        step[pair] = 1e-5
        up, down = (fi.process_log_likelihood(mdp, reward + h, given, reward_on="pair", objective=objective,
                                              horizon=horizon, gradient=False).value for h in (step, -step))
        np.testing.assert_allclose(found.gradient[pair], (up - down) / 2e-5, rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("horizon", (None, 2))
def test_a_trip_through_a_forbidden_state_is_named(horizon):
    """State 0 may lead to state 1, from which nothing is allowed."""
    mdp = MDP.from_pairs(np.array([[0, 0.5, 0.5], [0, 0, 1.0], [0, 0, 1.0]]), [0, 0, 1], [0, 1, 0], 0.9, terminal=[2])
    trips = fi.Trajectories.from_sequences([[0, 1]], actions=[[0]], ids=["odd"])
    with pytest.raises(fi.InvalidTripError, match="odd"):
        fi.process_log_likelihood(mdp, np.array([0.0, 0.0, -np.inf]), trips, reward_on="pair", horizon=horizon)


def test_with_one_choice_left_the_state_after_it_does_not_matter():
    mdp = MDP.from_pairs(np.array([[0, 0.5, 0.5], [0, 0, 1.0], [0, 0, 1.0]]), [0, 0, 1], [0, 1, 0], 0.9, terminal=[2])
    trips = fi.Trajectories.from_sequences([[0, 1]], actions=[[0]])
    found = fi.process_log_likelihood(mdp, np.array([0.0, 0.0, -np.inf]), trips, reward_on="pair", horizon=1)
    np.testing.assert_allclose(found.value, np.log(0.5), rtol=1e-14)


def test_thousands_of_weights_are_fitted_without_standard_errors():
    """One weight for each state: visits are matched state by state, and no Hessian of 2,400 squared is formed."""
    problem = small.random_sparse(2401, 3, 4, seed=70, discount=0.9, reach=5)
    mdp = problem.mdp.with_features(sparse.eye_array(2401, format="csr"), features_on="state")
    rng = np.random.default_rng(0)
    pairs = rng.integers(0, mdp.n_pairs, 400)
    trips = fi.Trajectories.from_sequences(mdp.pair_state[pairs][:, None].tolist(),
                                           actions=mdp.pair_action[pairs][:, None].tolist())
    with pytest.warns(fi.ConvergenceWarning):
        model = fi.MaxEntIRL(max_iter=3).fit(mdp, trips)
    assert model.log_likelihood_ > model.null_log_likelihood_ and not model.converged_
    assert "no standard errors" in str(model.summary())
    with pytest.raises(fi.InvalidInputError, match="2,401"):
        model.standard_errors()


def test_policies_over_time_that_are_not_kept_are_computed_again_to_the_bit(monkeypatch):
    world = gridworld(4, discount=0.95)
    trips = fi.sample_trajectories(world.mdp, None, 20, np.random.default_rng(0), horizon=6,
                                   initial_distribution=world.initial_distribution)
    for objective in ("likelihood", "feature_matching"):
        kept = fi.process_log_likelihood(world.mdp, world.reward, trips, reward_on="state", objective=objective, horizon=6)
        with monkeypatch.context() as patch:
            patch.setattr("fastirl.process_likelihood._KEPT", 1)
            again = fi.process_log_likelihood(world.mdp, world.reward, trips, reward_on="state", objective=objective, horizon=6)
        np.testing.assert_array_equal(kept.gradient, again.gradient)
        assert kept.value == again.value
