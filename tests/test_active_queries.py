"""Which pair to ask about, and the loop that asks.

Oracles: mpmath's quadrature, the posterior on a grid of weights added up by brute force, enumeration of an ensemble.
"""

import json
import warnings
from pathlib import Path

import mpmath
import numpy as np
import pytest
import small_mdps as small

import fastirl as fi
from fastirl import active_queries as queries
from fastirl.exceptions import InvalidInputError

TRUTH = np.array([1.2, -0.8, 0.5])


def world(seed=0, n=7, k=3):
    mdp = small.random_dense(n, 3, seed=seed, discount=0.9).mdp
    return mdp.with_features(np.random.default_rng(seed).normal(size=(mdp.n_pairs, k)), features_on="pair")


def drawn(mdp, n, seed=0, horizon=6, ids=None):
    found = fi.sample_trajectories(mdp, None, n, np.random.default_rng(seed), horizon=horizon,
                                   initial_distribution=np.full(mdp.n_states, 1 / mdp.n_states))
    return found if ids is None else found.replace(ids=ids)


@pytest.fixture(scope="module")
def fitted():
    mdp = world()
    trips = drawn(mdp, 14)
    rng = np.random.default_rng(1)
    phi = np.asarray(queries.discounted_visits(mdp, trips) @ mdp.features)
    a = rng.integers(14, size=20)
    b = (a + rng.integers(1, 14, size=20)) % 14
    mu = (rng.random(20) < 1 / (1 + np.exp((phi[b] - phi[a]) @ TRUTH))).astype(float)
    learner = fi.PreferenceIRL(fi.LinearReward(l2=0.3)).fit(mdp, trips, fi.Comparisons.from_pairs(a, b, mu))
    return mdp, trips, phi, learner


# -- what a query is worth


@pytest.mark.parametrize("spread", [1e-3, 0.3, 1.0, 1.001, 3.0, 40.0, 3000.0])
def test_normal_integrals_are_those_of_high_precision(spread):
    with mpmath.workdps(20):
        for mean in (0.0, 0.4, -3.0, 25.0, -700.0):
            def over(f, mean=mean):
                def density(d):
                    return mpmath.exp(-((d - mean) / mpmath.mpf(spread))**2 / 2) / (spread * mpmath.sqrt(2 * mpmath.pi))

                marks = sorted({mean + j * spread for j in (-12, -4, 0, 4, 12)}
                               | {x for x in (-40, -5, 0, 5, 40) if abs(x - mean) < 12 * spread})
                return float(mpmath.quad(lambda d: density(d) * f(d), marks))

            def entropy(d):
                small_part = mpmath.exp(-abs(d))
                return mpmath.log(1 + small_part) + abs(d) * small_part / (1 + small_part)

            exact = [over(lambda d: 1 / (1 + mpmath.exp(-d))), over(lambda d: (1 + mpmath.exp(-d))**-2), over(entropy),
                     over(lambda d: 1 - mpmath.exp(min(d, 0)))]
            one = np.array([mean]), np.array([spread])
            found = [*queries._normal_moments(*one)[:, 0], queries._normal_removed(*one)[0]]
            np.testing.assert_allclose(found, exact, atol=1e-11)


def test_values_are_those_of_the_posterior_added_up_on_a_grid(fitted):
    """The normal posterior of two weights on a grid: mutual information, volume and variance by their definitions."""
    mdp, trips, phi, _ = fitted
    learner = fi.PreferenceIRL(fi.LinearReward(l2=0.5, fixed={"x2": 0.4}))
    learner.fit(mdp, trips, fi.Comparisons.from_pairs([0, 1, 2, 3], [4, 5, 6, 7], [1, 0, 1, 0.5]))
    spread = np.linalg.cholesky(learner.covariance()[:2, :2])
    side = np.linspace(-8, 8, 401)
    z = np.stack(np.meshgrid(side, side), axis=-1).reshape(-1, 2)
    mass = np.exp(-0.5 * (z**2).sum(axis=1))
    mass /= mass.sum()
    theta = np.column_stack([learner.coef_[:2] + z @ spread.T, np.full(len(z), 0.4)])
    first, second = [0, 3, 5, 9], [8, 10, 2, 13]
    for i, j, info, volume, variance in zip(first, second, *(fi.query_values(learner, trips, first, second, method) for method in
                                                            ("information", "volume", "disagreement"))):
        d = theta @ (phi[i] - phi[j])
        p = 1 / (1 + np.exp(-d))
        mean = mass @ p
        joint = 0.0
        for chance, overall in ((p, mean), (1 - p, 1 - mean)):
            # Σ p(θ, answer) log p(θ, answer) / (p(θ) p(answer))
            joint += mass @ (chance * np.log2(np.maximum(chance, 1e-300) / overall))
        np.testing.assert_allclose(info, joint, atol=1e-8)
        np.testing.assert_allclose(volume, min(mass @ (1 - np.exp(np.minimum(side * d, 0))) for side in (1, -1)), atol=1e-5)
        np.testing.assert_allclose(variance, mass @ (p - mean)**2, atol=1e-8)


def test_an_ensemble_is_a_posterior_of_few_points(fitted):
    mdp, trips, phi, learner = fitted
    fits = learner.bootstrap(5, np.random.default_rng(0))
    p = np.array([1 / (1 + np.exp(-(phi[0] - phi[3]) @ fit.coef_)) for fit in fits])
    d = np.log(p / (1 - p))
    log2 = np.log2(np.stack([p, 1 - p]) / np.stack([p, 1 - p]).mean(axis=1, keepdims=True))
    expected = {"information": (np.stack([p, 1 - p]) * log2).sum() / 5, "disagreement": p.var(),
                "volume": min((1 - np.minimum(1, np.exp(d))).mean(), (1 - np.minimum(1, np.exp(-d))).mean())}
    for method, value in expected.items():
        np.testing.assert_allclose(fi.query_values(fits, trips, 0, 3, method), [value], rtol=1e-10)


def test_information_is_at_most_a_bit_symmetric_and_nothing_of_what_is_known(fitted):
    mdp, trips, _, learner = fitted
    a, b = np.triu_indices(14, 1)
    for method in ("information", "volume", "disagreement"):
        value = fi.query_values(learner, trips, a, b, method)
        np.testing.assert_allclose(value, fi.query_values(learner, trips, b, a, method), atol=1e-12)
        assert (value >= 0).all() and value.max() <= 1
        np.testing.assert_allclose(fi.query_values(learner, trips, a, a, method), 0.0, atol=1e-12)
    sure = fi.PreferenceIRL(fi.LinearReward(l2=1e9)).fit(mdp, trips, fi.Comparisons.from_pairs([0], [1], [1]))
    assert fi.query_values(sure, trips, a, b).max() < 1e-6


def test_the_best_pair_is_chosen_and_those_asked_are_left_out(fitted):
    mdp, trips, _, learner = fitted
    a, b = np.triu_indices(14, 1)
    value = fi.query_values(learner, trips, a, b)
    found = fi.choose_query(learner, trips)
    assert isinstance(found, fi.QueryChoice) and found.n_considered == a.size
    best = int(np.argmax(value))
    assert {found.first[0], found.second[0]} == {a[best], b[best]} and found.value[0] == value.max()
    again = fi.choose_query(learner, trips, asked=[(found.second[0], found.first[0])])
    np.testing.assert_allclose(again.value, np.sort(value)[-2])
    everything = list(zip(a, b))
    with pytest.raises(InvalidInputError, match="left to ask about"):
        fi.choose_query(learner, trips, asked=everything)


def test_a_batch_looks_ahead_by_the_curvature_of_an_answer(fitted):
    """Two pairs with the same difference: after the first is asked the second tells less."""
    mdp, trips, phi, learner = fitted
    found = fi.choose_query(learner, trips, n=3)
    covariance = learner.covariance()
    for i, j, value in zip(found.first, found.second, found.value):
        f = phi[i] - phi[j]
        mean, spread = np.array([f @ learner.coef_]), np.array([np.sqrt(f @ covariance @ f)])
        p, square, entropy = queries._normal_moments(mean, spread)
        np.testing.assert_allclose(value, (queries._binary_entropy(p) - entropy) / np.log(2), rtol=1e-8)
        covariance = np.linalg.inv(np.linalg.inv(covariance) + (p - square) * np.outer(f, f))
    fits = learner.bootstrap(4, np.random.default_rng(0))
    batch = fi.choose_query(fits, trips, "disagreement", n=3)
    assert len(set(batch.first) | set(batch.second)) == 6


def test_pairs_that_features_cannot_tell_apart_are_never_asked():
    mdp = world()
    some = drawn(mdp, 3)
    trips = fi.Trajectories.concatenate([some, some], ids=list("abcdef"))
    learner = fi.PreferenceIRL(fi.LinearReward(l2=1.0)).fit(mdp, trips, fi.Comparisons.from_pairs(["a"], ["b"], [1]))
    twins = {("a", "d"), ("b", "e"), ("c", "f")}
    for method in ("information", "random"):
        found = fi.choose_query(learner, trips, method, n=15, rng=np.random.default_rng(0))
        assert len(found.first) == 12 and not twins & set(zip(found.first, found.second))


def test_only_trajectories_of_one_group_are_compared(fitted):
    mdp, trips, _, learner = fitted
    group = np.array(list("abbcacbabccbaa"))
    grouped = trips.replace(group=group)
    for options in (dict(n=91), dict(n=5, max_pairs=9, rng=np.random.default_rng(0)),
                    dict(n=7, method="random", rng=np.random.default_rng(0))):
        found = fi.choose_query(learner, grouped, **options)
        assert (group[found.first] == group[found.second]).all()
    whole = fi.choose_query(learner, grouped, n=91)
    sizes = np.unique(group, return_counts=True)[1]
    assert len(whole.first) == (sizes * (sizes - 1) // 2).sum() == len(set(zip(whole.first, whole.second)))
    asked = loop(mdp, 12, candidates=grouped, refresh=0).queries
    assert (group[asked["first"].astype(int)] == group[asked["second"].astype(int)]).all()


def test_pairs_are_numbered_without_a_list():
    for size in (2, 3, 10, 1001):
        i, j = queries._unranked(np.arange(size * (size - 1) // 2), size)
        np.testing.assert_array_equal((i, j), np.triu_indices(size, 1))
    i, j = queries._unranked(np.array([0, 10**6 * (10**6 - 1) // 2 - 1]), 10**6)
    assert (i[0], j[0], i[1], j[1]) == (0, 1, 10**6 - 2, 10**6 - 1)


# -- who answers


def test_the_simulated_labeller_answers_by_bradley_terry_and_always_the_same():
    mdp = world()
    trips = drawn(mdp, 60, seed=3)
    reward = 0.5 * mdp.features @ TRUTH
    returns = queries.discounted_visits(mdp, trips) @ reward
    a, b = np.triu_indices(60, 1)
    person = fi.SimulatedLabeller(mdp, reward, seed=4)
    said = np.array([person(trips[i], trips[j]) for i, j in zip(a, b)])
    p = 1 / (1 + np.exp(returns[b] - returns[a]))
    for low in np.arange(0, 1, 0.2):
        part = (p >= low) & (p < low + 0.2)
        assert abs(said[part].mean() - p[part].mean()) <= 4 * np.sqrt(0.25 / part.sum())
    for i, j in ((0, 1), (5, 9), (30, 2)):
        assert person(trips[i], trips[j]) == 1 - person(trips[j], trips[i]) == person(trips[i], trips[j])
    sure = fi.SimulatedLabeller(mdp, reward, temperature=0)
    assert all(sure(trips[i], trips[j]) == float(returns[i] > returns[j]) for i, j in ((0, 1), (7, 3)))
    near = fi.SimulatedLabeller(mdp, reward, temperature=0, indifference=0.3)
    gap = np.abs(returns[a] - returns[b])
    assert all((near(trips[i], trips[j]) == 0.5) == (g <= 0.3) for i, j, g in list(zip(a, b, gap))[:100])


def test_a_person_at_a_prompt():
    mdp = world()
    trips = drawn(mdp, 2, horizon=1)
    said, shown = iter(["first", "1", "2", " = ", "s", "Q"]), []
    person = fi.PromptLabeller(ask=lambda prompt: next(said), show=shown.append)
    assert [person(trips[0], trips[1]) for _ in range(4)] == [1.0, 0.0, 0.5, None]
    assert shown[0] == f"1: {trips[0].states[0]} ({trips[0].actions[0]}) → {trips[0].states[1]}" and "'first'" in shown[2]
    with pytest.raises(StopIteration):
        person(trips[0], trips[1])


# -- the loop


def loop(mdp, n=24, seed=0, labeller=None, learner=None, **options):
    start = np.full(mdp.n_states, 1 / mdp.n_states)
    learner = fi.PreferenceIRL(fi.LinearReward(l2=0.2)) if learner is None else learner
    labeller = fi.SimulatedLabeller(mdp, mdp.features @ TRUTH, seed=seed) if labeller is None else labeller
    settings = dict(n_candidates=12, horizon=6, initial_distribution=start, refresh=6)
    return fi.ask_and_learn(learner, mdp, labeller, n, seed, **{**settings, **options})


@pytest.mark.parametrize("method", ["information", "volume", "disagreement", "random"])
def test_the_loop_learns_what_the_labeller_wants(method):
    mdp = world()
    truth = fi.value_iteration(mdp, mdp.features @ TRUTH, "pair").value.mean()

    def regret(learner):
        policy = fi.value_iteration(mdp, learner.reward_, "pair").policy
        return {"regret": truth - fi.policy_evaluation(mdp, policy, mdp.features @ TRUTH, "pair").value.mean()}

    found = loop(mdp, 60, method=method, evaluate=regret)
    assert isinstance(found, fi.ActiveLearning) and found.stopped == "n_queries"
    assert len(found.queries) == 60 == len(found.comparisons) and len(found.trajectories) > 12
    blind = fi.policy_evaluation(mdp, mdp.policy_vector(None), mdp.features @ TRUTH, "pair").value.mean()
    assert found.curve["regret"][-1] < 0.05 * (truth - blind)
    cosine = found.learner.coef_ @ TRUTH / np.linalg.norm(found.learner.coef_) / np.linalg.norm(TRUTH)
    assert cosine > 0.9
    again = loop(mdp, 60, method=method, evaluate=regret)
    assert again.queries.to_dict() == found.queries.to_dict()
    np.testing.assert_array_equal(again.learner.coef_, found.learner.coef_)


def test_no_question_is_asked_twice_and_all_answers_are_in_the_fit():
    found = loop(world(), 40, batch=4)
    pairs = [frozenset(pair) for pair in zip(found.queries["first"], found.queries["second"])]
    assert len(set(pairs)) == 40
    fresh = fi.PreferenceIRL(fi.LinearReward(l2=0.2)).fit(world(), found.trajectories, found.comparisons)
    np.testing.assert_allclose(found.learner.coef_, fresh.coef_, atol=1e-8)
    assert found.curve["answers"][-1] == 40


class Tired:
    """Stops after some answers; counts them."""

    def __init__(self, person, limit):
        self.person, self.limit, self.count = person, limit, 0

    def __call__(self, first, second):
        if self.count == self.limit:
            raise StopIteration
        self.count += 1
        return self.person(first, second)


@pytest.mark.parametrize("cut", [2, 9, 17])
def test_a_loop_that_was_stopped_goes_on_as_though_it_had_not_been(tmp_path, cut):
    mdp = world()
    whole = loop(mdp, 24)
    person = Tired(fi.SimulatedLabeller(mdp, mdp.features @ TRUTH, seed=0), cut)
    path = tmp_path / "answers.jsonl"
    part = loop(mdp, 24, labeller=person, checkpoint=path)
    assert part.stopped == "labeller" and len(part.comparisons) == cut
    lines = path.read_text().splitlines()
    assert len(lines) == cut + 1 and set(json.loads(lines[1])) == {"first", "second", "outcome"}
    path.write_text("\n".join(lines) + '\n{"first": 1, "seco')  # a kill in the middle of a line
    rest = Tired(fi.SimulatedLabeller(mdp, mdp.features @ TRUTH, seed=0), 1000)
    found = loop(mdp, 24, labeller=rest, checkpoint=path)
    assert rest.count == 24 - cut
    assert found.queries.to_dict() == whole.queries.to_dict()
    np.testing.assert_array_equal(found.learner.coef_, whole.learner.coef_)
    with pytest.raises(InvalidInputError, match="same loop"):
        loop(mdp, 24, seed=1, checkpoint=path)
    other = tmp_path / "notes.txt"
    other.write_text("milk, eggs\n")
    with pytest.raises(InvalidInputError, match="name one that does not exist"):
        loop(mdp, 24, checkpoint=other)
    assert other.read_text() == "milk, eggs\n"


def test_skipped_questions_are_kept_and_not_asked_again():
    mdp = world()
    person = fi.SimulatedLabeller(mdp, mdp.features @ TRUTH)
    asked = []

    def shy(first, second):
        asked.append(frozenset((first.id, second.id)))
        return None if len(asked) % 3 == 0 else person(first, second)

    found = loop(mdp, 30, labeller=shy)
    assert len(set(asked)) == 30 and len(found.comparisons) == 20
    assert found.queries["outcome"].tolist().count(None) == 10


def test_the_loop_ends_where_no_pair_is_left():
    mdp = world()
    found = loop(mdp, 50, candidates=drawn(mdp, 4, ids=["w", "x", "y", "z"]), refresh=0)
    assert found.stopped == "no pair left" and len(found.comparisons) == 6


def test_users_candidates_and_proposals_keep_their_kind_of_names():
    mdp = world()

    def propose(learner, n, rng):
        return fi.sample_trajectories(mdp, learner.policy(), n, rng, horizon=4, initial_distribution=np.full(7, 1 / 7))

    found = loop(mdp, 20, candidates=drawn(mdp, 6, ids=list("abcdef")), propose=propose)
    assert set("abcdef") < set(found.trajectories.ids.tolist()) and len(found.trajectories) > 6


def test_names_may_be_tuples(tmp_path):
    mdp = world()
    names = [("ride", i) for i in range(5)]
    for _ in range(2):
        found = loop(mdp, 6, candidates=drawn(mdp, 5, ids=names), refresh=0, checkpoint=tmp_path / "answers.jsonl")
        assert len(found.comparisons) == 6 and found.queries["first"][0] in names


def test_a_taxi_is_driven_by_what_answers_say(monkeypatch):
    """The example, cut short: enough that what it says of its pieces is true."""
    pytest.importorskip("gymnasium")
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[1] / "examples"))
    taxi = pytest.importorskip("active_taxi")
    monkeypatch.setattr(taxi, "WAYS", {"chosen by information": ("information", 10)})
    curves, judge = taxi.main(90, 1)
    assert judge.best["arrived"] > 1 - 1e-9
    assert curves["chosen by information"][0, 1, -1] > 0.95


def test_routes_in_porto_are_found_by_what_answers_say(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[1] / "examples"))
    curves = pytest.importorskip("route_preferences").main(40, 1)
    answers, regret = curves["information"]
    assert answers[-1] == 40 and -1e-6 <= regret[0, -1] < 100.0 < regret[0, 0]


def test_a_module_is_asked_about_by_an_ensemble():
    torch = pytest.importorskip("torch")
    mdp = world()
    torch.manual_seed(1)
    module = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 1))
    with pytest.raises(InvalidInputError, match="ensemble"):
        loop(mdp, 8, learner=fi.PreferenceIRL(fi.TorchReward(module, l2=0.1)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", fi.ConvergenceWarning)  # fifteen steps do for what is tested here
        found = loop(mdp, 8, learner=fi.PreferenceIRL(fi.TorchReward(module, l2=0.1), max_iter=15), ensemble=2, refresh=5,
                     batch=2, method="disagreement", n_plans=2)
    assert len(found.comparisons) == 8 and len(found.trajectories) > 12


def test_routes_are_asked_about_too():
    arcs = np.array([(i, j) for i in range(5) for j in (i + 1, i + 2) if j < 6])
    features = np.random.default_rng(0).uniform(0.5, 2, size=(len(arcs), 2))
    net = fi.RoadNetwork.from_arcs(6, arcs[:, 0], arcs[:, 1], features, ["length", "noise"])
    ptr, taken = fi.sample_routes(net, -features[:, 0], 0, 5, 40, np.random.default_rng(1))
    routes = {tuple([0, *net.head[taken[i:j]].tolist()]) for i, j in zip(ptr[:-1], ptr[1:])}
    trips = fi.Trajectories.from_sequences([list(route) for route in sorted(routes)])
    person = fi.SimulatedLabeller(net, features @ [-1.0, -3.0], temperature=0.5)
    learner = fi.PreferenceIRL(fi.LinearReward(l2=0.1), planner="hard")
    found = fi.ask_and_learn(learner, net, person, 15, 0, candidates=trips)
    ratio = found.learner.coef_[1] / found.learner.coef_[0]
    assert 1.0 < ratio < 9.0
    with pytest.raises(InvalidInputError, match="road network"):
        fi.ask_and_learn(learner, net, person, 15, 0)


@pytest.mark.parametrize("options, message", [
    (dict(learner=fi.MaxEntIRL()), "PreferenceIRL"),
    (dict(learner=fi.PreferenceIRL()), "prior"),
    (dict(labeller="me"), "callable"),
    (dict(labeller=lambda a, b: 2), r"\[0, 1\]"),
    (dict(labeller=lambda a, b: "left"), "'left'"),
    (dict(labeller=lambda a, b: float("nan")), r"\[0, 1\]"),
    (dict(labeller=lambda a, b: None), "at least one question"),
    (dict(method="entropy"), "'information'"),
    (dict(n=0), "n_queries"),
    (dict(candidates=[[0, 1]]), "Trajectories"),
    (dict(propose=lambda learner, n, rng: []), "propose"),
    (dict(evaluate=3), "evaluate"),
])
def test_wrong_input_is_named(options, message):
    with pytest.raises(InvalidInputError, match=message):
        loop(world(), **options)


def test_wrong_queries_are_named(fitted):
    mdp, trips, _, learner = fitted
    for call, message in ((lambda: fi.choose_query("learner", trips), "fitted PreferenceIRL"),
                          (lambda: fi.choose_query([learner], trips), "at least two"),
                          (lambda: fi.choose_query(learner, trips[:1]), "two Trajectories"),
                          (lambda: fi.choose_query(learner, trips, max_pairs=3), "Generator"),
                          (lambda: fi.query_values(learner, trips, 0, 99), "99"),
                          (lambda: fi.query_values(learner, trips, 0, 1, "random"), "method"),
                          (lambda: fi.query_values(learner, trips, [0, 1], [2]), "as many of both"),
                          (lambda: fi.SimulatedLabeller(mdp, [1.0]), "reward")):
        with pytest.raises(InvalidInputError, match=message):
            call()
