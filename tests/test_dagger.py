"""DAgger: whose states are visited, who answers, what is kept, which policy is chosen; the tightrope and the race-track."""

import runpy
from pathlib import Path

import numpy as np
import pytest

import fastirl as fi
from fastirl.domains import gridworld, racetrack, worst_case_chain
from fastirl.exceptions import InvalidInputError

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


@pytest.fixture(scope="module")
def world():
    made = gridworld(4, wind=0.2, discount=0.9)
    return made, fi.value_iteration(made.mdp, made.reward, "state")


def options(made, **more):
    return {"max_steps": 12, "rng": np.random.default_rng(0), **more}


def fitted(made, expert, **more):
    return fi.DAgger(expert, **options(made, initial_distribution=made.initial_distribution, **more)).fit(made.mdp)


def said(model):
    """(states, actions, iterations) of all answers."""
    return np.asarray(model.data_.states), np.asarray(model.data_.actions), np.asarray(model.data_.cluster)


# --- what is asked and kept


def test_every_answer_is_the_experts_and_all_of_them_are_kept(world):
    made, best = world
    asked = []

    def expert(state):
        asked.append(state)
        return int(action_of[state])

    action_of = made.mdp.pair_action[np.flatnonzero(best.policy)]
    model = fitted(made, expert, n_iterations=4, rollouts=5)
    states, actions, iterations = said(model)
    np.testing.assert_array_equal(actions, action_of[states])
    np.testing.assert_array_equal(np.unique(iterations), [1, 2, 3, 4])
    assert model.n_queries_ == len(asked) == len(states) + 60  # the last policy's validation is no data
    assert list(model.history_["answers"]) == [60] * 4 and list(model.history_["beta"]) == [1.0, 0.0, 0.0, 0.0]
    assert model.counts_.sum() == len(states) == 240
    # what it learned from all is what cloning learns from the same answers
    chosen = fi.BehaviorCloning().fit(made.mdp, model.data_[np.flatnonzero(iterations <= model.best_iteration_)])
    np.testing.assert_array_equal(model.policy(), chosen.policy())


def test_demonstrations_take_the_place_of_the_first_iteration(world):
    made, best = world
    trips = fi.sample_trajectories(made.mdp, best.policy, 15, np.random.default_rng(3), horizon=9,
                                   initial_distribution=made.initial_distribution)
    model = fi.DAgger(best, **options(made, n_iterations=1, select="last")).fit(made.mdp, trips)
    np.testing.assert_array_equal(model.policy(), fi.BehaviorCloning().fit(made.mdp, trips).policy())
    assert model.n_queries_ == 0 and list(model.history_["disagreement"]) == [None]
    more = fi.DAgger(best, **options(made, n_iterations=3, rollouts=4, select="last")).fit(made.mdp, trips)
    assert more.n_queries_ == 2 * 4 * 12 and list(more.history_["answers"]) == [15 * 9, 48, 48]
    weighted = trips.replace(weight=np.full(15, 2.0))
    heavy = fi.DAgger(best, **options(made, n_iterations=1, select="last")).fit(made.mdp, weighted)
    np.testing.assert_array_equal(heavy.counts_, 2 * model.counts_)


def test_asked_once_it_remembers(world):
    made, best = world
    action_of = made.mdp.pair_action[np.flatnonzero(best.policy)]
    seen = []
    model = fitted(made, lambda state: seen.append(state) or action_of[state], ask_once=True, n_iterations=3, rollouts=8)
    assert len(seen) == len(set(seen)) == model.n_queries_ == len(np.unique(said(model)[0]))
    each = fitted(made, lambda state: action_of[state], n_iterations=3, rollouts=8)
    np.testing.assert_array_equal(model.policy(), each.policy())


def test_an_expert_may_be_a_policy_a_plan_a_learner_or_a_callable(world):
    made, best = world
    action_of = made.mdp.pair_action[np.flatnonzero(best.policy)].astype(int)
    planner = fi.BehaviorCloning(smoothing=0).fit(made.mdp, fi.Trajectories.from_sequences(
        [[s] for s in range(16)], [[a] for a in action_of]))
    kinds = (best, best.policy, action_of, planner, np.tile(best.policy, (12, 1)))
    counts = [fitted(made, kind, n_iterations=2, rollouts=6).counts_ for kind in kinds]
    for other in counts[1:]:
        np.testing.assert_array_equal(other, counts[0])


def test_an_expert_that_draws_lots_is_learned_with_its_chances(world):
    made, _ = world
    soft = fi.soft_value_iteration(made.mdp, 2 * made.reward, "state")
    model = fitted(made, soft.policy, n_iterations=8, rollouts=400, learner=fi.BehaviorCloning(smoothing=0))
    np.testing.assert_allclose(model.policy(), soft.policy, atol=0.05)


def test_an_expert_of_time_answers_by_the_clock():
    mdp = fi.MDP(np.ones((1, 2, 1)), 0.9)
    model = fi.DAgger(np.array([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]]), max_steps=3, rollouts=5, n_iterations=1, select="last",
                      rng=np.random.default_rng(0), initial_distribution=[1.0]).fit(mdp)
    np.testing.assert_array_equal(model.counts_, [5, 10])


# --- whose states are visited


@pytest.mark.parametrize("beta", (0.0, 0.4, 1.0))
def test_rollouts_visit_what_the_mixture_visits(world, beta):
    """Answers of the second iteration lie where β π* + (1 − β) π̂ goes, computed by pushing distributions."""
    made, best = world
    n = 4000
    model = fitted(made, best, n_iterations=2, rollouts=n, schedule=lambda i: 1.0 if i == 1 else beta, select="last",
                   learner=fi.BehaviorCloning(smoothing=1000.0))
    states, _, iterations = said(model)
    first = fi.BehaviorCloning(smoothing=1000.0).fit(made.mdp, model.data_[np.flatnonzero(iterations == 1)]).policy()
    mixture = beta * best.policy + (1 - beta) * first
    wanted = fi.visitation_frequencies(made.mdp, mixture, made.initial_distribution, horizon=12).state
    found = np.bincount(states[iterations == 2], minlength=16) / n
    # visits of one rollout are correlated: at most 12 of them, so that the variance of a mean is at most 12 visits / n
    assert (np.abs(found - wanted) < 5 * np.sqrt(12 * wanted / n)).all()
    other = fi.visitation_frequencies(made.mdp, best.policy if beta < 1 else first, made.initial_distribution, horizon=12).state
    assert (np.abs(found - other) > 5 * np.sqrt(12 * other / n)).any()


def test_schedules_are_what_they_say(world):
    made, best = world
    for schedule, decay, wanted in (("first", 0.5, [1, 0, 0]), ("exponential", 0.3, [1, 0.3, 0.09]),
                                    (lambda i: 1 / i, 0.5, [1, 1 / 2, 1 / 3])):
        model = fitted(made, best, n_iterations=3, rollouts=2, schedule=schedule, decay=decay)
        np.testing.assert_allclose(list(model.history_["beta"]), wanted)


def test_the_policy_chosen_is_the_one_the_expert_disagrees_with_least(world):
    made, best = world
    model = fitted(made, best, n_iterations=6, rollouts=10)
    loss = [float(x) for x in model.history_["disagreement"]]
    assert model.best_iteration_ == 1 + max(i for i, x in enumerate(loss) if x == min(loss)) and model.n_iter_ == 6

    class Forgetful(fi.BehaviorCloning):
        """Learns for two iterations, then goes astray."""

        def fit(self, mdp, trajectories):
            super().fit(mdp, trajectories)
            if np.max(np.asarray(trajectories.cluster)) > 2:
                self._policy = np.full(mdp.n_pairs, 0.2)
            return self

    assert fitted(made, best, n_iterations=5, learner=Forgetful()).best_iteration_ <= 2
    assert fitted(made, best, n_iterations=5, learner=Forgetful(), select="last").best_iteration_ == 5


def test_disagreement_is_that_of_the_policys_own_visits():
    """Against the exact expectation on the tightrope, where cloning is right on the track and wrong off it."""
    chain = worst_case_chain(12)
    expert = fi.value_iteration(chain.mdp, chain.reward, "state")
    model = fi.DAgger(expert, fi.BehaviorCloning("logit", l2=0.05 * 4000 * 12), n_iterations=1, rollouts=4000,
                      rng=np.random.default_rng(1),
                      initial_distribution=chain.initial_distribution).fit(chain.mdp)
    visits = fi.visitation_frequencies(chain.mdp, model.policy(), chain.initial_distribution).state[:-1]
    wrong = 1 - model.policy()[np.flatnonzero(expert.policy)]
    assert model.history_["disagreement"][0] == pytest.approx(visits @ wrong / 12, abs=0.01)


def test_the_same_seed_gives_the_same_answer(world):
    made, best = world
    one, two = (fitted(made, best, rng=np.random.default_rng(5)) for _ in range(2))
    np.testing.assert_array_equal(one.policy(), two.policy())
    np.testing.assert_array_equal(one.data_.states, two.data_.states)


def test_it_is_a_learner_like_the_others(world):
    made, best = world
    model = fitted(made, best, n_iterations=3, rollouts=40)
    trips = fi.sample_trajectories(made.mdp, best.policy, 20, np.random.default_rng(2), horizon=8,
                                   initial_distribution=made.initial_distribution)
    assert -8 * np.log(5) < model.score(trips) < 0 and model.converged_
    assert model.visitation().state.sum() == pytest.approx(10.0)
    table = fi.compare_learners({"cloning": fi.BehaviorCloning(), "DAgger": fi.DAgger(best, **options(made, n_iterations=4))},
                                made.mdp, trips, rng=np.random.default_rng(0), true_reward=made.reward, reward_on="state").table
    assert table["value gap"][1] < table["value gap"][0]


# --- the example


def test_on_the_tightrope_cloning_is_quadratic_and_dagger_linear():
    example = runpy.run_path(str(EXAMPLES / "compounding_errors.py"))
    lengths = example["LENGTHS"]
    regret = example["chain_regrets"]()
    assert 1.9 < example["exponent"](lengths, regret["cloning"]) < 2.1
    assert 0.85 < example["exponent"](lengths, regret["DAgger"]) < 1.15
    # cloning's by hand: the chance of the other action is ε wherever it is, the features off the track were never seen
    world = worst_case_chain(32)
    trips = fi.Trajectories.from_sequences([[("on", t) for t in range(32)]] * 5, [["straight"] * 32] * 5)
    clone = fi.BehaviorCloning("logit", l2=0.1 * 160).fit(world.mdp, trips)
    epsilon = clone.policy()[1]
    assert epsilon == pytest.approx(0.1 * clone.coef_[0], rel=1e-6)  # the slope of the penalised likelihood is 0
    cost = ((1 - (1 - 2 * epsilon) ** np.arange(32)) / 2).sum()
    assert example["cost"](world, clone.policy()) == pytest.approx(cost, rel=1e-9)


# --- domains


def test_the_tightrope_is_as_described():
    world = worst_case_chain(4)
    best = fi.value_iteration(world.mdp, world.reward, "state")
    np.testing.assert_array_equal(best.value, [0, -1, 0, -1, 0, -1, 0, -1, 0])
    chosen = {tuple(world.mdp.state_ids[s]): world.mdp.action_ids[a] for s, a in zip(
        world.mdp.pair_state[best.policy == 1], world.mdp.pair_action[best.policy == 1])}
    assert chosen["on", 1] == "straight" and chosen["off", 1] == "back"
    with pytest.raises(InvalidInputError, match="length"):
        worst_case_chain(1)


def test_races_on_small_tracks_take_what_they_must():
    def steps(track, **rules):
        made = racetrack(track, **rules)
        return -made.initial_distribution @ fi.value_iteration(made.mdp, made.reward, "state").value

    straight = ["F", ".", ".", ".", ".", "S"]
    assert steps(straight, slip=0.0, top_speed=3) == pytest.approx(3)  # 1 + 2 + 3 cells
    assert steps(straight, slip=0.0, top_speed=1) == pytest.approx(5)
    assert steps(["F", "S"], slip=0.25, top_speed=1) == pytest.approx(1 / 0.75)  # until it moves at all
    corner = ["#...F", "S####"]
    assert steps(corner, slip=0.0, top_speed=1) == pytest.approx(4)
    # at speed (0, 1) from rest the wall; at (1, 1) around the corner
    made = racetrack(corner, slip=0.0, top_speed=2)
    right = made.mdp.action_index([(0, 1)])
    assert made.mdp.transitions[made.mdp.pair_index([0], right)].toarray().ravel()[0] == 1.0
    stop = racetrack(["#..F", "S#.#"], slip=0.0, top_speed=2, crash="stop")
    off = stop.mdp.pair_index(stop.mdp.state_index([(0, 1, 1, 1)]), stop.mdp.action_index([(0, 0)]))
    assert tuple(stop.mdp.state_ids[np.argmax(stop.mdp.transitions[off].toarray())]) == (0, 1, 0, 0)


@pytest.mark.parametrize("track", ([], ["S.F", "##"], ["S.X"], ["..F"], ["S.."], [1, 2]))
def test_tracks_that_are_none_are_named(track):
    with pytest.raises(InvalidInputError, match="`track`"):
        racetrack(track)


def test_a_race_is_learned_from_an_expert_that_is_asked():
    world = racetrack(["###....F", "##.....F", "#...####", "#...####", "#SSS####"], top_speed=2, crash="stop")
    expert = fi.value_iteration(world.mdp, world.reward, "state")
    model = fi.DAgger(expert, fi.BehaviorCloning(smoothing=0.01), rollouts=30, max_steps=60, rng=np.random.default_rng(0),
                      initial_distribution=world.initial_distribution).fit(world.mdp)
    taken = -world.initial_distribution @ fi.policy_evaluation(world.mdp, model.policy(), world.reward, "state").value
    assert taken < 1.1 * -world.initial_distribution @ expert.value


# --- bad input


@pytest.mark.parametrize("answer, match", [
    (None, "returned no action"), (9, "returned 9"), ("left", "returned 'left'"), ("1", "returned '1'"), (float("nan"), "nan"),
    (True, "True"), ([1], r"\[1\]"), (np.array([0, 1]), "array"), (1.5, "1.5"),
])
def test_an_expert_without_a_sound_answer_is_named(world, answer, match):
    made, _ = world
    model = fi.DAgger(lambda state: answer, **options(made, initial_distribution=made.initial_distribution))
    with pytest.raises(fi.ExpertError, match=match) as caught:
        model.fit(made.mdp)
    assert "return one of 0, 1, 2, 3, 4" in str(caught.value) and 0 <= caught.value.state < 16
    assert isinstance(caught.value, InvalidInputError)
    with pytest.raises(fi.NotFittedError):
        model.policy()


def test_an_expert_is_asked_in_the_words_of_the_model():
    world = worst_case_chain(3)
    words = []

    def expert(state):
        words.append(state)
        return np.str_("straight" if state[0] == "on" else "back")

    model = fi.DAgger(expert, n_iterations=2, rollouts=3, rng=np.random.default_rng(0),
                      initial_distribution=world.initial_distribution).fit(world.mdp)
    assert words[0] == ("on", 0) and set(model.data_.actions) <= {"straight", "back"}
    with pytest.raises(fi.ExpertError, match="state .*'on', 0.* returned 'strait'; return one of 'straight', 'back'"):
        fi.DAgger(lambda s: "strait", rng=np.random.default_rng(0),
                      initial_distribution=world.initial_distribution).fit(world.mdp)


@pytest.mark.parametrize("more, match", [
    ({"learner": "cloning"}, "learner"), ({"learner": fi.BehaviorCloning}, "learner"), ({"schedule": "linear"}, "schedule"),
    ({"decay": 1.5}, "decay"), ({"n_iterations": 0}, "n_iterations"), ({"rollouts": 2.5}, "rollouts"),
    ({"max_steps": 0}, "max_steps"), ({"select": "best"}, "select"), ({"rng": 3}, "rng"),
    ({"schedule": lambda i: 2.0}, "schedule"), ({"schedule": lambda i: None}, "schedule"),
    ({"max_steps": None}, "max_steps"), ({"learner": fi.MaxEntIRL(fi.FreeReward(l2=1.0), horizon=3)}, "one policy for all times"),
])
def test_wrong_settings_are_named(world, more, match):
    made, best = world
    with pytest.raises(InvalidInputError, match=match):
        fitted(made, best, **more)


def test_wrong_models_experts_and_starts_are_named(world):
    made, best = world
    for match, expert, model, start in [
        ("MDP for DAgger", best, np.eye(3), None), ("initial_distribution", best, made.mdp, None),
        ("initial_distribution", best, made.mdp, [1.0]), ("callable of a state", None, made.mdp, made.initial_distribution),
        ("callable of a state", "me", made.mdp, made.initial_distribution),
        ("`expert` must fit", np.ones(7), made.mdp, made.initial_distribution),
    ]:
        with pytest.raises(InvalidInputError, match=match):
            fi.DAgger(expert, **options(made, initial_distribution=start)).fit(model)
    ended = np.zeros(9)
    ended[-1] = 1.0
    chain = worst_case_chain(4)
    with pytest.raises(InvalidInputError, match="terminal"):
        fi.DAgger(lambda s: "back", rng=np.random.default_rng(0),
                      initial_distribution=ended).fit(chain.mdp)
