"""Rewards beyond Xθ: free parameters, penalties, bounds, sums, networks; conditions of optimality, differences, truth."""

import subprocess
import sys
import textwrap
import warnings

import numpy as np
import pytest
import small_networks as small

import fastirl as fi
from fastirl.ascent import Checkpoint, climb
from fastirl.domains import gridworld, objectworld
from fastirl.exceptions import InvalidInputError
from fastirl.objectives import ProcessObjective, RouteObjective
from fastirl.process_likelihood import match_steps
from fastirl.route_choice import RouteModel


@pytest.fixture(scope="module")
def road():
    """A grid of streets, two features, 120 trips simulated at (−1, −0.5)."""
    graph = small.grid(side=5, cost=1.5, noise=0.5, seed=3)
    rng = np.random.default_rng(0)
    features = np.column_stack([-graph.utility, rng.random(graph.tail.size) < 0.3])
    net = graph.net(features, feature_names=["cost", "rough"])
    trips = small.simulated(net, features @ [-1.0, -0.5], rng, 120, pairs=12)
    return net, trips


def route_slope(net, trips, reward, model):
    """∇L in the parameters of a reward at a fit's coefficients."""
    objective = RouteObjective(net, net.match(trips), reward, RouteModel())
    return objective.at(model.coef_[objective.free], 1).gradient


# --- conditions of optimality


def test_under_l2_the_slope_is_the_penalty(road):
    net, trips = road
    reward = fi.LinearReward(l2=30.0)
    model = fi.MaxEntIRL(reward).fit(net, trips)
    np.testing.assert_allclose(route_slope(net, trips, reward, model), 30.0 * model.coef_, atol=1e-3)
    assert model.converged_ and model.penalty_ == pytest.approx(15.0 * (model.coef_**2).sum())
    free = fi.MaxEntIRL().fit(net, trips)
    assert (np.abs(model.coef_) < np.abs(free.coef_)).all() and model.log_likelihood_ < free.log_likelihood_
    assert (model.standard_errors("hessian") < free.standard_errors("hessian")).all()
    assert "penalised" in str(model.summary())


def test_what_only_a_penalty_decides_is_said(road):
    net, trips = road
    twice = net.with_features(np.column_stack([net.features, net.features[:, 0] * 2.0, np.zeros(net.n_arcs)]),
                              ["cost", "rough", "again", "never"])
    with pytest.warns(fi.IdentificationWarning) as caught:
        model = fi.MaxEntIRL(fi.LinearReward(l2=0.5)).fit(twice, trips)
    assert set(model.unidentified_) == {("never",), ("cost", "again")} and model.converged_
    assert len(caught) == 2 and all(item.filename == __file__ for item in caught)
    assert "NOT identified" in str(model.summary())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert fi.MaxEntIRL(fi.LinearReward(l2=0.5)).fit(net, trips).unidentified_ == ()


def test_bounds_hold_and_push_only_where_they_bind(road):
    net, trips = road
    reward = fi.LinearReward(bounds={"rough": (0.0, None), "cost": (None, -0.2)})
    model = fi.MaxEntIRL(reward).fit(net, trips)
    slope = route_slope(net, trips, reward, model)
    assert model.coef_[1] == 0.0 and slope[1] < -1.0  # it would be negative, as the truth is
    assert model.coef_[0] < -0.2 and abs(slope[0]) < 1e-3
    with pytest.raises(InvalidInputError, match="at a bound"):
        model.standard_errors()


def test_under_l1_what_is_not_zero_pays_and_what_is_zero_would_not(road):
    net, trips = road
    reward = fi.LinearReward(fixed={"cost": -1.0}) + fi.FreeReward(l1=1.5)
    model = fi.MaxEntIRL(reward, max_iter=500).fit(net, trips)
    slope = route_slope(net, trips, reward, model)[1:]
    theta = model.coef_[2:]
    assert model.converged_ and model.coef_[0] == -1.0
    np.testing.assert_allclose(slope[theta != 0], 1.5 * np.sign(theta[theta != 0]), atol=1e-2)
    assert (np.abs(slope[theta == 0]) <= 1.5 + 1e-2).all()
    assert 3 < (theta != 0).sum() < theta.size // 2
    assert f"{(model.coef_ == 0).sum()}" and "l1" in str(model.summary())


def test_free_arcs_fit_at_least_as_well_as_what_they_contain(road):
    net, trips = road
    linear = fi.MaxEntIRL().fit(net, trips)
    start = np.concatenate([linear.coef_, np.zeros(net.n_arcs)])
    both = fi.MaxEntIRL(fi.LinearReward() + fi.FreeReward(l2=1.0), start=start).fit(net, trips)
    assert both.log_likelihood_ - both.penalty_ > linear.log_likelihood_
    assert both.reward_.shape == (net.n_arcs,) and len(both.parameter_names_) == 2 + net.n_arcs
    assert both.parameter_names_[2] == "arc 0" and len(both.summary().to_dict()["parameter" if net.n_arcs > 98 else "feature"])


def test_one_parameter_a_state_is_the_linear_reward_of_indicators():
    """FreeReward on states is LinearReward on one indicator a state."""
    world = objectworld(side=4, n_objects=4, rng=np.random.default_rng(1))
    policy = fi.soft_value_iteration(world.mdp, world.reward, "state").policy
    trips = fi.sample_trajectories(world.mdp, policy, 60, np.random.default_rng(2), horizon=8,
                                   initial_distribution=world.initial_distribution)
    free = fi.MaxEntIRL(fi.FreeReward(l2=2.0)).fit(world.mdp, trips)
    indicators = world.mdp.with_features(np.eye(16), features_on="state")
    linear = fi.MaxEntIRL(fi.LinearReward(l2=2.0)).fit(indicators, trips)
    np.testing.assert_allclose(free.coef_, linear.coef_, atol=1e-4)
    assert free.log_likelihood_ == pytest.approx(linear.log_likelihood_, abs=1e-4)
    pairs = fi.MaxEntIRL(fi.FreeReward("pair", l2=2.0)).fit(world.mdp, trips)
    assert pairs.coef_.size == world.mdp.n_pairs and pairs.log_likelihood_ > free.log_likelihood_


@pytest.mark.parametrize("low, high", [(-np.inf, np.inf), (-0.5, 0.5), (0.25, np.inf), (-np.inf, -0.25)])
def test_a_climb_of_a_concave_quadratic_finds_its_proximal_point(low, high):
    """max −½ Σ h (θ − c)² − l1 |θ| has the soft threshold of c, cut to the bounds, whatever the scale."""
    rng = np.random.default_rng(3)
    c, h, scale = rng.normal(size=40), rng.uniform(0.5, 20.0, 40), rng.uniform(0.1, 10.0, 40)
    l1 = np.where(np.arange(40) % 3 == 0, 0.0, rng.uniform(0.0, 3.0, 40))
    found = climb(lambda t: (-0.5 * float(h @ (t - c) ** 2), -h * (t - c)), np.clip(np.zeros(40), low, high), l1=l1,
                  lower=np.full(40, low), upper=np.full(40, high), scale=scale, tol=1e-8, max_iter=500)
    exact = np.clip(np.sign(c) * np.maximum(np.abs(c) - l1 / h, 0.0), low, high)
    # a slope of at most tol · max(1, |L|) in scaled parameters is what was promised
    limit = 1e-8 * max(1.0, abs(found.objective))
    assert (np.abs(found.theta - exact) * h / scale <= limit * 1.001).all()
    assert found.converged and (found.theta[exact == 0] == 0.0).all()


@pytest.mark.parametrize("l1", (0.0, 0.01))
def test_a_climb_that_ends_at_a_bound_knows_it_whatever_the_scale(l1):
    rng = np.random.default_rng(0)
    for bound, scale in zip(-rng.uniform(0.05, 3.0, 40), rng.uniform(0.1, 5.0, 40)):
        found = climb(lambda t: (-0.5 * float(t @ t), -t), np.array([bound - 1.0]), upper=np.array([bound]),
                      l1=np.array([l1]), scale=np.array([scale]))
        assert found.theta[0] == bound and found.converged and found.slope == 0.0


def test_a_climb_that_runs_out_of_iterations_says_so():
    found = climb(lambda t: (-float((t**4).sum()), -4 * t**3), np.full(5, 3.0), tol=1e-14, max_iter=2)
    assert not found.converged and "max_iter=2" in found.message


def test_a_climb_walks_back_from_where_nothing_exists():
    def evaluate(t):
        if t[0] > 1.0:
            raise fi.DivergenceError("beyond 1")
        return float(5 * t[0] + np.log1p(1e-3 - (t[0] - 1.0))), np.array([5.0 - 1.0 / (1e-3 + 2.0 - t[0])])

    found = climb(evaluate, np.zeros(1), max_iter=200)
    assert 0.99 < found.theta[0] <= 1.0 and not found.converged


# --- what is said of bad input


@pytest.mark.parametrize("make, match", [
    (lambda: fi.LinearReward(l1=-1), "l1"), (lambda: fi.LinearReward(l2=np.nan), "l2"),
    (lambda: fi.LinearReward(bounds={"cost": (1, 0)}), "lowest < highest"), (lambda: fi.FreeReward(on="arcs"), "`on`"),
    (lambda: fi.LinearReward(bounds={"cost": 3}), "lowest"), (lambda: fi.FreeReward(lowest=0, highest=0), "lowest"),
    (lambda: fi.LinearReward("u_turn"), "`fixed` must map"), (lambda: fi.LinearReward(0.5), "`fixed` must map"),
    (lambda: fi.LinearReward(fixed=["u_turn"]), "`fixed` must map"),
    (lambda: fi.LinearReward(bounds=(None, 0)), "`bounds` must map"),
    (lambda: fi.LinearReward(l1=np.ones(2)), "`l1` must be"),
    (lambda: fi.FreeReward(on=np.array(["arc", "pair"])), "`on` must be"),
    (lambda: fi.LinearReward({"cost": -1.0}, bounds={"cost": (0, None)}), "held or bounded, not both"),
    (lambda: fi.SumReward(()), "at least one"), (lambda: fi.SumReward((fi.LinearReward(), 3)), "must be rewards.*3"),
    (lambda: fi.MaxEntIRL(fi.LinearReward), r"LinearReward\(\)"),
    (lambda: fi.RecedingHorizonIRL(3, fi.LinearReward), r"LinearReward\(\)"),
    (lambda: fi.MaxEntIRL(checkpoint=3), "path of a file"), (lambda: fi.MaxEntIRL(checkpoint="."), "is a folder"),
])
def test_a_wrong_reward_is_named(make, match):
    with pytest.raises(InvalidInputError, match=match):
        make()


def test_rewards_that_do_not_fit_the_model_are_named(road):
    net, trips = road
    with pytest.raises(InvalidInputError, match="on='arc'"):
        fi.MaxEntIRL(fi.FreeReward("pair", l2=1.0)).fit(net, trips)
    with pytest.raises(InvalidInputError, match="bounded weight must name a feature: 'lenght'"):
        fi.MaxEntIRL(fi.LinearReward(bounds={"lenght": (None, 0)})).fit(net, trips)
    with pytest.raises(InvalidInputError, match="free parameters"):
        fi.MaxEntIRL(fi.FreeReward(l2=1.0) + fi.LinearReward(), start={"arc x": 1.0}).fit(net, trips)
    for learner in (fi.MaxEntIRL(fi.LinearReward(l2=1.0), start={"cost": "dear"}),
                    fi.RecedingHorizonIRL(2, start={"cost": "dear"})):
        with pytest.raises(InvalidInputError, match="`start` must hold numbers"):
            learner.fit(net, trips)
    with pytest.raises(TypeError):
        fi.LinearReward() + 3
    assert fi.SumReward([fi.LinearReward(), fi.FreeReward()]) == fi.LinearReward() + fi.FreeReward()


def test_free_parameters_belong_to_their_network(road):
    net, trips = road
    model = fi.MaxEntIRL(fi.LinearReward() + fi.FreeReward(l2=1.0)).fit(net, trips)
    other = small.grid(side=4).net(np.ones((small.grid(side=4).tail.size, 2)), feature_names=["cost", "rough"])
    with pytest.raises(InvalidInputError, match="belong to the model"):
        model.utility(other)


def test_a_fit_with_free_parameters_is_saved_and_loaded(road, tmp_path):
    net, trips = road
    reward = fi.LinearReward(bounds={"cost": (None, 0.0)}, l2=0.5) + fi.FreeReward(l1=2.0)
    model = fi.MaxEntIRL(reward).fit(net, trips)
    model.save(tmp_path / "fit.json")
    again = fi.MaxEntIRL.load(tmp_path / "fit.json", net)
    assert again.reward == reward and isinstance(again.reward, fi.SumReward)
    np.testing.assert_array_equal(again.reward_, model.reward_)
    assert again.score(trips) == model.score(trips) and str(again.summary()) == str(model.summary())


def test_a_fit_on_an_mdp_is_loaded_with_its_model(tmp_path):
    world = gridworld(3, 0.2, 0.9)
    trips = fi.sample_trajectories(world.mdp, None, 20, np.random.default_rng(2), horizon=6,
                                   initial_distribution=world.initial_distribution)
    # a bound of −inf is none, in JSON too
    model = fi.MaxEntIRL(fi.FreeReward(l2=0.5, lowest=-np.inf, highest=np.float64(2.0))).fit(world.mdp, trips)
    model.save(tmp_path / "fit.json")
    again = fi.MaxEntIRL.load(tmp_path / "fit.json", world.mdp)
    assert again.score(trips) == model.score(trips) and again.reward.highest == 2.0
    np.testing.assert_array_equal(again.policy(), model.policy())
    for wrong in (world.mdp.with_features(np.ones((45, 1)), ["one"], features_on="pair"), "net"):
        with pytest.raises(InvalidInputError):
            fi.MaxEntIRL.load(tmp_path / "fit.json", wrong)
    with pytest.raises(InvalidInputError, match="`general` must be a MaxEntIRL"):
        model.likelihood_ratio_test(3)
    for wrong in ("much", np.nan, None):
        with pytest.raises(InvalidInputError, match="`goal_reward`"):
            gridworld(3, goal_reward=wrong)


# --- networks of PyTorch


def deep(torch, k, seed):
    torch.manual_seed(seed)
    return torch.nn.Sequential(torch.nn.Linear(k, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1))


def test_the_gradient_through_module_and_planner_is_that_of_differences(road):
    torch = pytest.importorskip("torch")
    world = objectworld(side=4, n_objects=5, rng=np.random.default_rng(1))
    trips = fi.sample_trajectories(world.mdp, None, 20, np.random.default_rng(2), horizon=6,
                                   initial_distribution=world.initial_distribution)
    process = ProcessObjective(world.mdp, match_steps(world.mdp, trips), fi.TorchReward(deep(torch, 4, 0)), "likelihood", None,
                               1e-12, 1)
    net, routes = road
    costs = torch.nn.Sequential(deep(torch, 2, 1), torch.nn.Softplus(), torch.nn.Linear(1, 1, bias=False))
    with torch.no_grad():
        costs[2].weight.fill_(-2.0)
    streets = RouteObjective(net, net.match(routes), fi.TorchReward(costs) + fi.LinearReward(fixed={"cost": -1.0}), RouteModel())
    for objective in (process, streets):
        theta = objective.bound.start.copy()
        theta[np.isnan(theta)] = -0.3
        theta = theta[objective.free]
        gradient = objective.at(theta, 1).gradient
        rng = np.random.default_rng(3)
        for _ in range(4):
            step = rng.normal(size=theta.size) * 1e-4
            near, far = (objective.at(theta + s * step, 1).value - objective.at(theta - s * step, 1).value for s in (1, 2))
            assert (8 * near - far) / 12 == pytest.approx(gradient @ step, rel=1e-6, abs=1e-10)


def test_a_nonlinear_reward_is_found_where_a_linear_one_cannot():
    """Objectworld: the module comes near the truth's behaviour, the linear reward does not; the same seed, the same fit."""
    torch = pytest.importorskip("torch")
    torch.set_num_threads(1)  # on a busy machine threads that wait for each other take ten times as long
    world = objectworld(side=10, n_objects=12, rng=np.random.default_rng(4))
    policy = fi.soft_value_iteration(world.mdp, 3.0 * world.reward, "state").policy
    trips = fi.sample_trajectories(world.mdp, policy, 400, np.random.default_rng(5), horizon=16,
                                   initial_distribution=world.initial_distribution)
    truth = fi.process_log_likelihood(world.mdp, 3.0 * world.reward, trips, reward_on="state", gradient=False).value

    def fit():
        torch.manual_seed(7)
        module = torch.nn.Sequential(torch.nn.Linear(4, 24), torch.nn.Tanh(), torch.nn.Linear(24, 24), torch.nn.Tanh(),
                                     torch.nn.Linear(24, 1))
        with pytest.warns(fi.ConvergenceWarning):
            return fi.MaxEntIRL(fi.TorchReward(module, l2=0.01), max_iter=200).fit(world.mdp, trips)

    linear, one, two = fi.MaxEntIRL().fit(world.mdp, trips), fit(), fit()
    np.testing.assert_array_equal(one.coef_, two.coef_)
    gap = [truth - model.log_likelihood_ for model in (linear, one)]
    assert gap[0] > 500.0 and gap[1] < 0.05 * gap[0]
    shape = [np.corrcoef(model.reward_, world.pair_reward)[0, 1] for model in (linear, one)]
    assert shape[0] < 0.6 and shape[1] > 0.9


def test_the_module_is_left_with_the_answer(road, tmp_path):
    """Also where the fit was read from a checkpoint, so that the module was hardly asked."""
    torch = pytest.importorskip("torch")
    net, trips = road
    for _ in range(2):
        costs = torch.nn.Sequential(deep(torch, 2, 1), torch.nn.Softplus(), torch.nn.Linear(1, 1, bias=False))
        with torch.no_grad():
            costs[2].weight.fill_(-2.0)
        with pytest.warns(fi.ConvergenceWarning):
            model = fi.MaxEntIRL(fi.TorchReward(costs), max_iter=3, checkpoint=tmp_path / "log").fit(net, trips)
        left = torch.nn.utils.parameters_to_vector(costs.parameters()).detach().numpy()
        np.testing.assert_array_equal(left, model.coef_)


def test_wrong_modules_are_named():
    torch = pytest.importorskip("torch")
    world = objectworld(side=3, n_objects=2, rng=np.random.default_rng(1))
    trips = fi.sample_trajectories(world.mdp, None, 3, np.random.default_rng(2), horizon=2,
                                   initial_distribution=world.initial_distribution)
    with pytest.raises(InvalidInputError, match="torch.nn.Module"):
        fi.TorchReward(lambda x: x)
    with pytest.raises(InvalidInputError, match="one reward a row"):
        fi.MaxEntIRL(fi.TorchReward(torch.nn.Linear(4, 2))).fit(world.mdp, trips)
    with pytest.raises(InvalidInputError, match="parameters to learn"):
        fi.MaxEntIRL(fi.TorchReward(torch.nn.Tanh())).fit(world.mdp, trips)


# --- checkpoints

KILLED = """
    import os, sys
    import numpy as np
    sys.path.insert(0, {tests!r})
    import small_networks as small
    import fastirl as fi
    graph = small.grid(side=5, cost=1.5, noise=0.5, seed=3)
    rng = np.random.default_rng(0)
    features = np.column_stack([-graph.utility, rng.random(graph.tail.size) < 0.3])
    net = graph.net(features, feature_names=["cost", "rough"])
    trips = small.simulated(net, features @ [-1.0, -0.5], rng, 120, pairs=12)
    count = 0
    def tell(*_):
        global count
        count += 1
        if count == {stop}:
            os.kill(os.getpid(), 9)
    fi.MaxEntIRL({reward}, optimizer={optimizer!r}, checkpoint={path!r}, progress=tell).fit(net, trips)
"""


@pytest.mark.parametrize("reward, optimizer", [
    ("fi.LinearReward(fixed={'cost': -1.0}) + fi.FreeReward(l1=1.5)", "auto"), ("None", "newton"), ("None", "lbfgs"),
])
def test_a_fit_that_was_killed_goes_on_to_the_same_answer(road, tmp_path, reward, optimizer):
    net, trips = road
    path = str(tmp_path / "log")
    script = textwrap.dedent(KILLED).format(tests=str(__import__("pathlib").Path(__file__).parent), stop=3, path=path,
                                            reward=reward, optimizer=optimizer)
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == -9
    made = eval(reward)
    resumed = fi.MaxEntIRL(made, optimizer=optimizer, checkpoint=path).fit(net, trips)
    whole = fi.MaxEntIRL(made, optimizer=optimizer).fit(net, trips)
    np.testing.assert_array_equal(resumed.coef_, whole.coef_)
    assert (resumed.n_iter_, resumed.log_likelihood_) == (whole.n_iter_, whole.log_likelihood_)
    # the log was read, not only written
    objective = fi.MaxEntIRL(made, optimizer=optimizer, checkpoint=path)
    replayed = Checkpoint(path, _identity(path))
    assert len(replayed.found) > 3 and objective.fit(net, trips).log_likelihood_ == whole.log_likelihood_


def _identity(path):
    with open(path, "rb") as file:
        return file.read().split(b"\n")[1].decode()


def test_a_log_cut_in_the_middle_of_a_record_loses_that_record_only(tmp_path):
    path = tmp_path / "log"
    log = Checkpoint(path, "a")
    log.put(b"1", value=np.array(1.0))
    size = path.stat().st_size
    log.put(b"2", value=np.array(2.0))
    data = path.read_bytes()
    path.write_bytes(data[:-5])
    again = Checkpoint(path, "a")
    assert again.get(b"1")["value"] == 1.0 and again.get(b"2") is None and path.stat().st_size == size
    damaged = bytearray(data)
    damaged[size + 20] ^= 1
    path.write_bytes(bytes(damaged))
    assert list(Checkpoint(path, "a").found) == [b"1"]


def test_a_checkpoint_of_another_module_or_callable_is_refused(road, tmp_path):
    torch = pytest.importorskip("torch")
    world = objectworld(side=3, n_objects=4, rng=np.random.default_rng(1))
    trips = fi.sample_trajectories(world.mdp, None, 20, np.random.default_rng(2), horizon=6,
                                   initial_distribution=world.initial_distribution)

    class Bent(torch.nn.Module):
        def __init__(self, bend):
            super().__init__()
            torch.manual_seed(0)
            self.line, self.bend = torch.nn.Linear(4, 1), bend

        def forward(self, x):
            return self.bend(self.line(x))

    def fit(bend):
        return fi.MaxEntIRL(fi.TorchReward(Bent(bend)), max_iter=200, checkpoint=tmp_path / "log").fit(world.mdp, trips)

    once = fit(torch.tanh)
    np.testing.assert_array_equal(fit(torch.tanh).coef_, once.coef_)
    with pytest.raises(InvalidInputError, match="must belong to the same fit.*first point"):
        fit(torch.sigmoid)
    net, routes = road

    def by_group(factor):
        features = lambda group: net.features * factor  # noqa: E731
        return fi.MaxEntIRL(checkpoint=tmp_path / "roads").fit(net.with_features(features, net.feature_names), routes)

    assert by_group(1.0).coef_.tolist() == by_group(1.0).coef_.tolist()
    with pytest.raises(InvalidInputError, match="first point"):
        by_group(2.0)


def test_a_checkpoint_of_another_fit_or_another_file_is_refused(road, tmp_path):
    net, trips = road
    path = tmp_path / "log"
    fi.MaxEntIRL(checkpoint=path).fit(net, trips)
    with pytest.raises(InvalidInputError, match="other data or settings"):
        fi.MaxEntIRL(checkpoint=path).fit(net, trips[:50])
    (tmp_path / "notes").write_text("my notes")
    with pytest.raises(InvalidInputError, match="another file"):
        fi.MaxEntIRL(checkpoint=tmp_path / "notes").fit(net, trips)
    assert (tmp_path / "notes").read_text() == "my notes"
    with pytest.raises(InvalidInputError, match="folder"):
        fi.MaxEntIRL(checkpoint=tmp_path / "absent" / "log")
