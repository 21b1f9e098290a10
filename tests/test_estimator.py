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


@pytest.mark.parametrize("options, engine", [({}, "elimination"), ({"method": "sweep"}, "sweep"), ({"max_steps": 5}, "sweep"),
                                            ({"discount": 0.9}, "sweep")])
def test_a_fit_says_which_engine_found_its_values(parallel_net, tmp_path, options, engine):
    model = fit(parallel_net, **options)
    assert model.engine_ == engine
    model.save(tmp_path / "fit.json")
    assert fi.MaxEntIRL.load(tmp_path / "fit.json").engine_ == engine


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


def two_ways():
    """Two ways from 0 to 3, by 1 or by 2, with the features "cost" and "zero", which is 0 on every arc."""
    features = [[1.0, 0.0], [1.0, 0.0], [2.0, 0.0], [1.0, 0.0]]
    return fi.RoadNetwork.from_arcs(4, [0, 1, 0, 2], [1, 3, 2, 3], features, ["cost", "zero"])


TRIPS = [[0, 1, 3]] * 5 + [[0, 2, 3]] * 2


def test_a_feature_that_is_nowhere_stays_at_0_and_is_named_in_the_summary(tmp_path):
    for start in (None, {"cost": -1.0, "zero": 7.0}):
        with pytest.warns(fi.IdentificationWarning, match="'zero'"):
            model = fi.MaxEntIRL(start=start).fit(two_ways(), fi.Trajectories.from_sequences(TRIPS))
        assert model.coef_[1] == 0.0 and model.converged_
        assert model.unidentified_ == (("zero",),)
        assert "NOT identified by the data: zero" in str(model.summary("hessian"))
    model.save(tmp_path / "fit.json")
    again = fi.MaxEntIRL.load(tmp_path / "fit.json")
    assert again.unidentified_ == model.unidentified_
    assert str(again.summary("hessian")) == str(model.summary("hessian"))


def test_a_combination_that_is_not_identified_is_named_in_the_summary():
    net = two_ways().with_features(np.array([[1, 2], [1, 2], [2, 4], [1, 2.0]]), ["cost", "twice"])
    with pytest.warns(fi.IdentificationWarning, match="'cost', 'twice'"):
        model = fi.MaxEntIRL().fit(net, fi.Trajectories.from_sequences(TRIPS))
    assert "NOT identified by the data apart from each other: cost, twice" in str(model.summary("bhhh"))


def test_all_is_identified_nothing_is_said():
    net = two_ways().with_features(np.array([[1.0], [1], [2], [1]]), ["cost"])
    model = fi.MaxEntIRL().fit(net, fi.Trajectories.from_sequences(TRIPS))
    assert model.unidentified_ == () and "identified" not in str(model.summary())


def test_trips_without_weight_are_refused():
    net = two_ways().with_features(np.array([[1.0], [1], [2], [1]]), ["cost"])
    trips = fi.Trajectories.from_sequences(TRIPS, ids=[f"t{i}" for i in range(7)])
    model, none = fi.MaxEntIRL().fit(net, trips), trips.replace(weight=np.zeros(7))
    for call in (lambda: model.score(none), lambda: model.evaluate(none), lambda: fi.MaxEntIRL().fit(net, none)):
        with pytest.raises(fi.InvalidInputError, match="all 7 have weight 0, the first is 't0'; pass"):
            call()


def test_the_summary_has_the_sum_of_weights_where_trips_have_any():
    net = two_ways().with_features(np.array([[1.0], [1], [2], [1]]), ["cost"])
    trips = fi.Trajectories.from_sequences(TRIPS)
    assert "weights sum" not in str(fi.MaxEntIRL().fit(net, trips).summary())
    heavy = fi.MaxEntIRL().fit(net, trips.replace(weight=np.full(7, 2.5)))
    assert "7 trips, 14 steps, weights sum to 17.5" in str(heavy.summary())


def test_a_null_of_0_hides_no_criterion():
    # no state offers a choice
    net = fi.RoadNetwork.from_arcs(3, [0, 1], [1, 2], [[1.0], [1.0]], ["cost"])
    with pytest.warns(fi.IdentificationWarning, match="'cost'"):
        model = fi.MaxEntIRL().fit(net, fi.Trajectories.from_sequences([[0, 1, 2]] * 3))
    text = str(model.summary("hessian"))
    assert model.null_log_likelihood_ == 0.0
    assert "no rho²" in text and "AIC 2.000" in text and "BIC 1.099" in text


@pytest.mark.parametrize("content", [
    b"not json", b"\xff\xfe\x00", b"[]", b'{"format": "fastirl.MaxEntIRL", "version": 1}'])
def test_a_file_that_is_no_saved_fit_is_refused(tmp_path, content):
    path = tmp_path / "fit.json"
    path.write_bytes(content)
    with pytest.raises(fi.InvalidInputError, match="fit.json.*pass a file that MaxEntIRL.save wrote"):
        fi.MaxEntIRL.load(path)


def test_utilities_of_a_group_are_refused_where_they_cannot_be_served():
    net = two_ways()
    for call in (lambda u: fi.route_values(net, u, 3), lambda u: fi.choice_probabilities(net, u, 3),
                 lambda u: fi.expected_flows(net, u, [0], [3], 1.0), lambda u: fi.predict_routes(net, u, [0], [3]),
                 lambda u: fi.sample_routes(net, u, 0, 3, 2, np.random.default_rng(0))):
        with pytest.raises(fi.InvalidInputError, match="got a callable of the group.*call it for one group"):
            call(lambda group: np.zeros(4))


def test_messages_show_plain_values():
    net = two_ways()
    model = fi.MaxEntIRL(fi.LinearReward({"zero": 0.0})).fit(net, fi.Trajectories.from_sequences(TRIPS))
    trips = fi.Trajectories.from_sequences(TRIPS, ids=np.arange(7))
    for call in (lambda: model.ratio(np.str_("time"), "cost"),
                 lambda: fi.LinearReward({np.str_("cost"): np.float64("nan")}),
                 lambda: fi.MaxEntIRL(start={np.str_("time"): 1.0}).fit(net, trips),
                 lambda: model.ratio("cost", np.str_("zero")),
                 lambda: fi.route_log_likelihood(net, np.array([-np.inf, 0, 0, 0]), trips)):
        with pytest.raises(fi.InvalidInputError) as caught:
            call()
        assert "np." not in str(caught.value)


@pytest.mark.filterwarnings("ignore:values are certified")
@pytest.mark.parametrize("rounds", (100, 2000, 20000))
def test_errors_at_the_edge_of_finite_sums_are_those_of_the_closed_form(rounds):
    """Rounds 0 → 1 → 0 before 1 → 2: log L = θ (2 r + 2) + log(1 − e^2θ) a trip, whose optimum lies 1 / (2 r) from the edge."""
    net = fi.RoadNetwork.from_arcs(3, [0, 1, 1], [1, 0, 2], np.ones((3, 1)), ["cost"])
    trips = fi.Trajectories.from_sequences([[0, 1] * (rounds + 1) + [2], [0, 1] * (rounds // 2 + 1) + [2]])
    model = fi.MaxEntIRL().fit(net, trips)
    mean = 0.75 * rounds
    assert model.converged_ and model.coef_[0] == pytest.approx(0.5 * np.log(mean / (mean + 1.0)), rel=1e-4)
    # −∂² log L = 4 e^2θ / (1 − e^2θ)² a trip, mean (mean + 1) at the optimum
    assert model.standard_errors("hessian")[0] == pytest.approx(1.0 / np.sqrt(2 * 4.0 * mean * (mean + 1.0)), rel=1e-3)
