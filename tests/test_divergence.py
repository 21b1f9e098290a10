"""Where the sum over paths is infinite an error says so, and only there: the oracle is a dense spectral radius."""

import numpy as np
import pytest
import real_data
import small_networks as small

import fastirl as fi
from fastirl import _reference as ref

stoppings = pytest.mark.parametrize("stopping", small.STOPPING)


def assert_names_a_real_cycle(error, net, utility, destination):
    """The destination as asked, states that arcs connect in turn, and the utility of those arcs."""
    assert error.destination == destination and repr(destination) in str(error)
    assert error.n_states == len(error.cycle) >= 1
    total = 0.0
    for here, there in zip(error.cycle, error.cycle[1:] + error.cycle[:1]):
        arcs = (net.tail == net.state_index(here)) & (net.head == net.state_index(there)) & np.isfinite(utility)
        assert arcs.any(), f"no arc {here} → {there}"
        total += utility[arcs].max()
    # no network here has parallel arcs on its cycles, so that the total is theirs
    assert error.cycle_utility == pytest.approx(total, rel=1e-12, abs=1e-12)


def without_parallels(graph):
    _, first = np.unique(graph.tail * graph.n + graph.head, return_index=True)
    return small.Graph(graph.n, graph.tail[first], graph.head[first], graph.utility[first])


def flows_of_pair(net, utility, origin, destination, stopping):
    """What asks for one pair alone, without a walk between them at hand."""
    return fi.expected_flows(net, utility, [origin], [destination], 1.0, stopping=stopping)


def random_case(seed):
    """A random network whose arcs need not connect it, at a spectral radius set to be near or far from 1."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(2, 14))
    arcs = rng.integers(0, n, (int(rng.integers(1, 3 * n)), 2))
    graph = without_parallels(small.graph(n, arcs, -rng.uniform(0, 3, len(arcs))))
    if rng.random() < 0.3:
        graph = small.shaped(graph, rng.normal(0, 2, n))
    if rng.random() < 0.2:
        graph = graph.with_utility(np.where(rng.random(graph.utility.size) < 0.2, -np.inf, graph.utility))
    destination = int(rng.integers(n))
    return graph, destination, int(rng.integers(n)), rng


# near a radius of 1 rounding may leave a bound above the default tolerance, and that is said
@pytest.mark.filterwarnings("ignore::fastirl.ConvergenceWarning")
@pytest.mark.parametrize("block", range(8))
@stoppings
def test_divergence_error_if_and_only_if_the_spectral_radius_is_above_one(stopping, block):
    raised = finite = 0
    for seed in range(25 * block, 25 * block + 25):
        graph, destination, origin, rng = random_case(seed)
        radius = ref.spectral_radius(*graph.tuple(), destination, stopping)
        if radius > 0:
            # constants on all arcs scale the radius: far from 1, near it, very near it
            target = 1 + rng.choice([-1, 1]) * rng.choice([0.5, 0.1, 1e-2, 1e-4, 2e-6])
            graph = graph.with_utility(graph.utility + np.log(target / radius))
        net = graph.net()
        possible = np.isfinite(graph.utility)
        connected = ref.reached(graph.n, graph.tail[possible], graph.head[possible], [origin])[destination]
        checks = [(None, lambda: fi.route_values(net, graph.utility, destination, stopping=stopping))]
        if connected:
            checks.append(([origin], lambda: flows_of_pair(net, graph.utility, origin, destination, stopping)))
        else:
            # no walk, no sum: whatever loops there are elsewhere, the destination's own included
            with pytest.raises(fi.UnreachableError):
                flows_of_pair(net, graph.utility, origin, destination, stopping)
        for origins, call in checks:
            radius = ref.spectral_radius(*graph.tuple(), destination, stopping, origins)
            assert abs(radius - 1) > 1e-6
            if radius > 1:
                with pytest.raises(fi.DivergenceError) as caught:
                    call()
                assert_names_a_real_cycle(caught.value, net, graph.utility, destination)
                raised += 1
                continue
            try:
                call()
            except fi.UndecidedError:
                # 200,000 sweeps bring the error to 1e-11 down to a gap of 1.3e-4: nearer, that is said
                assert radius > 1 - 2e-4
            finite += 1
    assert raised >= 5 and finite >= 10


@stoppings
@pytest.mark.parametrize("gap", (0.5, 0.1, 1e-2, 1e-3))
def test_values_are_right_up_to_the_edge_and_an_error_beyond_it(stopping, gap):
    graph = without_parallels(small.random(14, 3, seed=70))
    radius = ref.spectral_radius(*graph.tuple(), 3, stopping)
    net = graph.net()
    below, above = (graph.with_utility(graph.utility + np.log((1 + sign * gap) / radius)) for sign in (-1, 1))
    found = fi.route_values(net, below.utility, 3, stopping=stopping, tol=1e-8)
    matrix = ref.transition_matrix(*below.tuple()[:3], np.exp(below.utility))
    if stopping == "first_arrival":
        matrix[3] = 0.0
    exact = np.log(np.linalg.solve(np.eye(graph.n) - matrix, np.eye(graph.n)[3]))
    np.testing.assert_allclose(found.value, exact, rtol=1e-8, atol=1e-8)
    with pytest.raises(fi.DivergenceError) as caught:
        fi.route_values(net, above.utility, 3, stopping=stopping)
    assert_names_a_real_cycle(caught.value, net, above.utility, 3)


# --- which walks count


def detour():
    """0 → 1 → 2 is the walk; 3 ⇄ 4 is a divergent loop, tied to it by arcs that each test chooses."""
    return small.graph(5, [(0, 1), (1, 2), (3, 4), (4, 3)], [-1.0, -1.0, 0.5, 0.5])


@stoppings
@pytest.mark.parametrize("where", ("apart", "only reached", "only reaches"))
def test_a_divergent_loop_off_every_walk_is_no_error(stopping, where):
    graph = detour()
    extra = {"apart": None, "only reached": (1, 3), "only reaches": (4, 1)}[where]
    if extra is not None:
        graph = small.Graph(5, np.append(graph.tail, extra[0]), np.append(graph.head, extra[1]),
                            np.append(graph.utility, -1.0))
    net = graph.net()
    trips = fi.Trajectories.from_sequences([[0, 1, 2]])
    found = fi.route_log_likelihood(net, graph.utility, trips, stopping=stopping)
    assert found.value == pytest.approx(0.0, abs=1e-10)
    assert flows_of_pair(net, graph.utility, 0, 2, stopping) == pytest.approx(
        [1, 1, 0, 0] + [0] * (extra is not None), abs=1e-10)
    ptr, arcs = fi.sample_routes(net, graph.utility, 0, 2, 5, np.random.default_rng(0), stopping=stopping)
    assert arcs.tolist() == [0, 1] * 5
    if where == "only reaches":
        # asked for every state, the loop's own are among them
        with pytest.raises(fi.DivergenceError) as caught:
            fi.route_values(net, graph.utility, 2, stopping=stopping)
        assert sorted(caught.value.cycle) == [3, 4]
    else:
        assert fi.route_values(net, graph.utility, 2, stopping=stopping).value[0] == pytest.approx(-2.0)


@stoppings
def test_a_divergent_loop_on_a_walk_is_an_error_for_that_pair_only(stopping):
    graph = detour()
    graph = small.Graph(5, np.append(graph.tail, [1, 4]), np.append(graph.head, [3, 2]),
                        np.append(graph.utility, [-1.0, -1.0]))
    net = graph.net()
    with pytest.raises(fi.DivergenceError) as caught:
        flows_of_pair(net, graph.utility, 0, 2, stopping)
    assert_names_a_real_cycle(caught.value, net, graph.utility, 2)
    assert sorted(caught.value.cycle) == [3, 4] and caught.value.cycle_utility == pytest.approx(1.0)
    # to state 1 the loop is off the way
    assert flows_of_pair(net, graph.utility, 0, 1, stopping)[0] == pytest.approx(1.0)


def test_a_loop_through_the_destination_counts_under_exit_only():
    graph = small.graph(3, [(0, 1), (1, 2), (2, 1)], [-1.0, 0.3, 0.3])
    net = graph.net()
    trips = fi.Trajectories.from_sequences([[0, 1, 2]])
    found = fi.route_log_likelihood(net, graph.utility, trips, stopping="first_arrival")
    assert found.value == pytest.approx(0.0, abs=1e-10)
    assert fi.route_values(net, graph.utility, 2).value.tolist() == pytest.approx([-0.7, 0.3, 0.0])
    for call in (lambda: fi.route_log_likelihood(net, graph.utility, trips, stopping="exit"),
                 lambda: fi.route_values(net, graph.utility, 2, stopping="exit"),
                 lambda: fi.sample_routes(net, graph.utility, 0, 2, 3, np.random.default_rng(0), stopping="exit")):
        with pytest.raises(fi.DivergenceError) as caught:
            call()
        assert_names_a_real_cycle(caught.value, net, graph.utility, 2)
        assert sorted(caught.value.cycle) == [1, 2]


# --- cycles of zero and of positive utility


@stoppings
@pytest.mark.parametrize("utility", ([0.0, 0.0], [1.0, -1.0], [0.5, 0.5], [3.0, -1.0], [1e-9, 0.0]))
def test_a_cycle_of_zero_or_positive_utility_diverges(stopping, utility):
    graph = small.graph(4, [(0, 1), (1, 2), (2, 1), (2, 3)], [-1.0, *utility, -1.0])
    net = graph.net()
    for call in (lambda: fi.route_values(net, graph.utility, 3, stopping=stopping),
                 lambda: fi.expected_flows(net, graph.utility, [0], [3], 1.0, stopping=stopping),
                 lambda: fi.choice_probabilities(net, graph.utility, 3, stopping=stopping)):
        with pytest.raises(fi.DivergenceError) as caught:
            call()
        assert sorted(caught.value.cycle) == [1, 2]
        assert_names_a_real_cycle(caught.value, net, graph.utility, 3)


@stoppings
@pytest.mark.parametrize("utility", (0.0, 2.0))
def test_a_loop_of_one_state(stopping, utility):
    graph = small.graph(2, [(0, 0), (0, 1)], [utility, -1.0])
    with pytest.raises(fi.DivergenceError) as caught:
        fi.route_values(graph.net(), graph.utility, 1, stopping=stopping)
    assert caught.value.cycle == (0,) and caught.value.cycle_utility == utility


@stoppings
def test_positive_utilities_without_such_a_cycle_are_fine(stopping):
    for name in ("some positive", "some positive, one way", "some forbidden, some positive"):
        graph = small.ZOO[name]()
        assert (graph.utility > 0).any()
        for destination in graph.destinations():
            found = fi.route_values(graph.net(), graph.utility, destination, stopping=stopping).value
            expected = ref.soft_values(*graph.tuple(), destination, stopping)
            np.testing.assert_allclose(found, expected, rtol=2e-11, atol=2e-11)


def test_many_cheap_paths_diverge_though_every_cycle_has_a_cost():
    # each cycle costs 2, but a square has enough of them: spectral radius 4 e^-1 = 1.47 on a large grid
    graph = small.grid(12, 1.0, 0.0)
    with pytest.raises(fi.DivergenceError) as caught:
        fi.route_values(graph.net(), graph.utility, 0)
    assert caught.value.cycle_utility < 0
    assert_names_a_real_cycle(caught.value, graph.net(), graph.utility, 0)


def test_the_error_speaks_in_labels_and_three_clauses():
    graph = small.graph(3, [(0, 1), (1, 0), (1, 2)], [0.5, 0.25, -1.0])
    net = graph.net(state_ids=["A1", "B2", "C3"])
    with pytest.raises(fi.DivergenceError, match="must be finite.*'C3'.*total utility 0.75.*max_steps") as caught:
        fi.route_values(net, graph.utility, "C3")
    assert sorted(caught.value.cycle) == ["A1", "B2"]
    assert isinstance(caught.value, fi.FastIRLError)


def test_a_long_loop_is_shortened_in_the_text_only():
    n = 40
    graph = small.graph(n + 1, [(i, (i + 1) % n) for i in range(n)] + [(0, n)], 0.0)
    with pytest.raises(fi.DivergenceError, match="more") as caught:
        fi.route_values(graph.net(), graph.utility, n)
    assert sorted(caught.value.cycle) == list(range(n))
    assert len(str(caught.value)) < 600


# --- what is said where nothing was decided


@stoppings
def test_too_few_sweeps_are_undecided_never_a_number(stopping):
    graph = small.random(20, 3, seed=71).scaled_to(0.99)
    net = graph.net()
    trips = small.simulated(net, graph.utility, np.random.default_rng(0), 8, pairs=4, stopping=stopping)
    options = dict(stopping=stopping, max_sweeps=3, method="sweep")
    for call in (lambda: fi.route_values(net, graph.utility, 3, **options),
                 lambda: fi.route_log_likelihood(net, graph.utility, trips, **options),
                 lambda: fi.expected_flows(net, graph.utility, [0], [3], 1.0, **options),
                 lambda: fi.route_values(net, graph.utility, 3, discount=0.999, **options)):
        with pytest.raises(fi.UndecidedError, match="max_sweeps"):
            call()
    # under a discount every value is finite, so that no word is said of infinite sums
    with pytest.raises(fi.UndecidedError, match="under a discount.*raise max_sweeps") as caught:
        fi.route_values(net, graph.utility, 3, discount=0.999, **options)
    assert "infinite" not in str(caught.value)


@pytest.mark.filterwarnings("ignore:values are certified")
@stoppings
@pytest.mark.parametrize("known", (False, True))
def test_where_sweeps_cannot_tell_elimination_answers_whether_its_order_is_known_or_not(stopping, known):
    """Rounds 0 → 1 → 0 of weight 1 − 1e-5: V(0) = log(e^-1.5 / 1e-5); a share of 1e-5 of those at 1 leave."""
    graph = small.graph(4, [(0, 1), (1, 0), (1, 2), (3, 3)], [-0.5, np.log1p(-1e-5) + 0.5, -1.0, 0.5])
    net = graph.net()
    if known:
        net.elimination_order()
    value = -0.5 - 1.0 - np.log(1e-5)
    assert fi.route_values(net, graph.utility, 2, stopping=stopping).value[:2] == pytest.approx([value, value + 0.5], rel=1e-9)
    chances = fi.choice_probabilities(net, graph.utility, 2, stopping=stopping)
    assert chances == pytest.approx([1.0, 1.0 - 1e-5, 1e-5, 0.0], rel=1e-9)
    ptr, _ = fi.sample_routes(net, graph.utility, 0, 2, 60, np.random.default_rng(0), stopping=stopping, max_length=10**8)
    assert (np.diff(ptr) / 2).mean() == pytest.approx(1e5, rel=0.4)
    with pytest.raises(fi.UndecidedError):
        fi.route_values(net, graph.utility, 2, stopping=stopping, method="sweep")


@stoppings
def test_flows_that_rounding_blurs_are_said_to_be(stopping):
    graph = small.graph(3, [(0, 1), (1, 0), (1, 2)], [-0.5, np.log1p(-1e-9) + 0.5, -1.0])
    for call in (fi.expected_flows, lambda net, u, o, d, n, stopping: fi.choice_probabilities(net, u, 2, stopping=stopping)):
        with pytest.warns(fi.ConvergenceWarning, match="certified to"):
            call(graph.net(), graph.utility, [0], [2], 1.0, stopping=stopping)


# --- models whose likelihood exists at every parameter


@stoppings
@pytest.mark.parametrize("options", ({"discount": 0.9}, {"max_steps": 12}), ids=str)
def test_a_discount_or_a_bound_on_length_is_finite_where_the_sum_is_not(stopping, options):
    graph = small.random(10, 3, 0.2, 0.5, seed=72)
    net = graph.net()
    with pytest.raises(fi.DivergenceError):
        fi.route_values(net, graph.utility, 4, stopping=stopping)
    found = fi.route_values(net, graph.utility, 4, stopping=stopping, **options).value
    np.testing.assert_allclose(found, ref.soft_values(*graph.tuple(), 4, stopping, **options), rtol=1e-10, atol=1e-10)
    trips = small.simulated(net, graph.utility, np.random.default_rng(0), 12, pairs=4, stopping=stopping, **options)
    likelihood = fi.route_log_likelihood(net, graph.utility, trips, stopping=stopping, **options)
    assert np.isfinite(likelihood.value) and likelihood.value < 0 and np.isfinite(likelihood.gradient).all()


def test_flows_of_choices_that_never_arrive_diverge():
    # at a discount of 0.5 the loop is worth more than the way out by 1060, whose exp is 0: who enters never leaves
    graph = small.graph(3, [(0, 1), (1, 0), (1, 2)], [30.0, 30.0, -1000.0])
    assert np.isfinite(fi.route_values(graph.net(), graph.utility, 2, discount=0.5).value).all()
    with pytest.raises((fi.DivergenceError, fi.UnreachableError)):
        fi.expected_flows(graph.net(), graph.utility, [0], [2], 1.0, discount=0.5)


# --- the estimator


def test_a_start_that_is_not_feasible_is_refused_and_a_search_steps_back_from_the_edge():
    graph = small.grid(5, 1.0, 1.0)
    features = np.column_stack([-graph.utility, np.ones(graph.tail.size)])
    net = graph.net(features, feature_names=["length", "constant"])
    truth = np.array([-0.7, -0.6])
    trips = small.simulated(net, features @ truth, np.random.default_rng(73), 200, pairs=20)
    with pytest.raises(fi.DivergenceError):
        fi.MaxEntIRL(start=[0.0, 0.0]).fit(net, trips)
    with pytest.raises(fi.DivergenceError):
        fi.route_log_likelihood(net, features @ [0.1, -0.1], trips)
    # radius 0.96 at the truth: whole steps of any optimiser leave the region
    models = [fi.MaxEntIRL(optimizer=optimizer, start=[-5.0, -5.0]).fit(net, trips)
              for optimizer in ("newton", "bhhh", "lbfgs")]
    for model in models:
        assert model.converged_
        assert (np.abs(model.coef_ - truth) <= 3 * model.standard_errors()).all()
        np.testing.assert_allclose(model.coef_, models[0].coef_, rtol=1e-3)


# --- real roads


@pytest.fixture(scope="module")
def porto():
    data = real_data.porto_taxi()
    links = data.links
    order = np.argsort(links.from_node, kind="stable")
    starts = np.searchsorted(links.from_node[order], np.arange(links.from_node.max() + 2))
    many = np.diff(starts)[links.to_node]
    tail = np.repeat(np.arange(data.n_states), many)
    head = order[starts[links.to_node[tail]] + np.arange(many.sum()) - np.repeat(np.cumsum(many) - many, many)]
    net = fi.RoadNetwork.from_arcs(data.n_states, tail, head, links.length_m[head][:, None] / 100, ["length"])
    passes_its_end = [trip[-1] in trip[:-1] for trip in data.trips]
    trips = fi.Trajectories.from_sequences([t for t, bad in zip(data.trips, passes_its_end) if not bad][:4])
    return net, trips


@stoppings
def test_weights_too_flat_for_porto_with_u_turns_are_an_error_never_a_number(porto, stopping):
    # 0.1 a hundred metres: links of 5 m and back make loops of nearly no cost
    net, trips = porto
    utility = -0.1 * net.features[:, 0]
    with pytest.raises(fi.DivergenceError) as caught:
        fi.route_log_likelihood(net, utility, trips, stopping=stopping)
    assert caught.value.destination in {int(t.states[-1]) for t in trips}
    assert_names_a_real_cycle(caught.value, net, utility, caught.value.destination)


@stoppings
@pytest.mark.parametrize("options", ({"discount": 0.9}, {"max_steps": 160}), ids=str)
def test_the_same_weights_are_finite_with_a_discount_or_a_bound_on_length(porto, stopping, options):
    net, trips = porto
    found = fi.route_log_likelihood(net, -0.1 * net.features[:, 0], trips[:1], stopping=stopping, **options)
    assert np.isfinite(found.value) and found.value < 0 and np.isfinite(found.gradient).all()
    # observed minus expected: at most as many passages as the trip and its alternatives have arcs
    assert np.abs(found.gradient).max() < 1e3
