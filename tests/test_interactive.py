"""Q-learning with a person: laws of shaping, the kitchen, and what feedback and guidance are worth in it."""

import runpy
from pathlib import Path

import numpy as np
import pytest

import fastirl as fi
from fastirl.domains import kitchen
from fastirl.exceptions import InvalidInputError, NotFittedError


def corridor(n=6):
    """Walk left or right from state 1; the right end pays 1, the left end nothing; both are the end."""
    tensor = np.zeros((n, 2, n))
    for s in range(1, n - 1):
        tensor[s, 0, s - 1] = tensor[s, 1, s + 1] = 1.0
    mdp = fi.MDP(tensor, 0.9, terminal=[0, n - 1])
    reward = np.where((mdp.pair_state == n - 2) & (mdp.pair_action == 1), 1.0, 0.0)
    return mdp, reward, np.eye(n)[1]


class Flatterer:
    """Praises whatever is done."""

    objects = None

    def judge(self, pair, rng):
        return 1.0

    def guide(self, state, rng):
        return None


@pytest.fixture(scope="module")
def cake():
    return kitchen()


def test_without_a_person_it_finds_the_optimal_values_of_a_deterministic_process():
    mdp, reward, start = corridor()
    model = fi.InteractiveQLearning("none", learning_rate=1.0, epsilon=1.0).fit(
        mdp, reward=reward, reward_on="pair", n_episodes=400, initial_distribution=start, rng=np.random.default_rng(0))
    np.testing.assert_allclose(model.q_, fi.value_iteration(mdp, reward, reward_on="pair").q, atol=1e-7)
    assert model.ended_.all() and not model.feedback_.any() and not model.converged_
    np.testing.assert_array_equal(model.policy()[1::2], 1)  # right everywhere


def test_with_chance_it_is_near_the_optimal_values():
    rng = np.random.default_rng(1)
    tensor = rng.dirichlet(np.ones(5), (5, 2))
    mdp, reward = fi.MDP(tensor, 0.8, terminal=[4]), rng.normal(size=8)
    model = fi.InteractiveQLearning("none", learning_rate=0.02, epsilon=0.5).fit(
        mdp, reward=reward, reward_on="pair", n_episodes=8000, initial_distribution=np.full(5, 0.2), rng=rng)
    np.testing.assert_allclose(model.q_, fi.value_iteration(mdp, reward, reward_on="pair").q, atol=0.15)


@pytest.mark.parametrize("kind", ["signal", "reward", "potential", "q_augmentation", "action_bias", "control_sharing"])
def test_a_weight_of_zero_is_no_person(kind):
    mdp, reward, start = corridor()

    def fit(*arguments):
        trainer = fi.SimulatedTrainer.of_reward(mdp, reward)
        return fi.InteractiveQLearning(*arguments).fit(mdp, trainer, reward=reward, reward_on="pair", n_episodes=50,
                                                       initial_distribution=start, rng=np.random.default_rng(5))

    if kind == "control_sharing":  # it draws a number to decide whose choice it is
        assert fit(kind, 0.0).return_.sum() > 0
    else:
        np.testing.assert_array_equal(fit(kind, 0.0).q_, fit("none", 0.0).q_)


def test_shaping_by_a_potential_is_a_start_at_that_potential():
    # Wiewiora 2003: the same choices from the same random numbers, and Q apart by the potential
    mdp, reward, start = corridor(8)
    human = np.random.default_rng(2).normal(size=mdp.n_pairs)
    potential = np.zeros(8)
    potential[1:7] = human.reshape(6, 2).max(axis=1)
    common = dict(reward=reward, reward_on="pair", n_episodes=60, initial_distribution=start)
    shaped = fi.InteractiveQLearning("potential", 0.7).fit(mdp, human_reward=human, rng=np.random.default_rng(9), **common)
    begun = fi.InteractiveQLearning("none", initial_value=0.7 * potential).fit(mdp, rng=np.random.default_rng(9), **common)
    np.testing.assert_array_equal(shaped.steps_, begun.steps_)
    np.testing.assert_allclose(shaped.q_ + 0.7 * potential[mdp.pair_state], begun.q_, atol=1e-12)


def test_augmented_values_are_a_start_at_the_judgement():
    mdp, reward, start = corridor()
    human = np.tile([-0.3, 0.2], 4)
    fit = dict(human_reward=human, reward=reward, reward_on="pair", n_episodes=300, initial_distribution=start)
    augmented = fi.InteractiveQLearning("q_augmentation", 0.5, learning_rate=1.0, epsilon=1.0).fit(
        mdp, rng=np.random.default_rng(3), **fit)
    # what is learned in the end is the optimum of the environment alone
    best = fi.value_iteration(mdp, reward, reward_on="pair").q
    np.testing.assert_allclose(augmented.q_ + 0.5 * human, best, atol=1e-6)


def test_a_potential_leaves_the_optimum_and_praise_as_reward_does_not():
    # Ng, Harada, Russell 1999: who is praised for every step walks in circles
    mdp, reward, start = corridor()
    best = fi.value_iteration(mdp, reward, reward_on="pair")
    common = dict(reward=reward, reward_on="pair", n_episodes=300, max_steps=60, initial_distribution=start)
    for kind, arrives in (("potential", True), ("signal", False), ("reward", False)):
        model = fi.InteractiveQLearning(kind, epsilon=0.3).fit(mdp, Flatterer(), rng=np.random.default_rng(4), **common)
        visits = model.visitation(start, horizon=200)
        assert (visits.state_by_time[-1][5] > 0.99) == arrives
    # on the level of planning, exactly
    potential = np.random.default_rng(5).normal(size=6) * ~mdp.terminal
    shaped = fi.value_iteration(mdp, reward + 0.9 * (mdp.transitions @ potential) - potential[mdp.pair_state], reward_on="pair")
    np.testing.assert_array_equal(shaped.policy, best.policy)
    np.testing.assert_allclose(shaped.value[~mdp.terminal], (best.value - potential)[~mdp.terminal], atol=1e-7)


# -- the kitchen


def test_the_kitchen_is_baked_in_sixteen_steps_and_rarely_by_chance(cake):
    mdp = cake.mdp
    assert mdp.deterministic and mdp.n_states == 3362
    found = fi.value_iteration(mdp, cake.reward, reward_on="pair")
    start = int(cake.initial_distribution.argmax())
    assert found.value[start] == pytest.approx(0.95**15, rel=1e-9)
    begin = cake.initial_distribution
    way = fi.sample_trajectories(mdp, found.policy, 1, np.random.default_rng(0), initial_distribution=begin)[0]
    assert way.states[-1] == "baked" and len(way.actions) == 16
    assert way.actions[-1] == "put down tray" and "use spoon on bowl" in way.actions and "use bowl on tray" in way.actions
    tries = fi.sample_trajectories(mdp, None, 500, np.random.default_rng(0), initial_distribution=begin)
    assert (tries.destinations == "baked").mean() < 0.02 < 0.98 < (tries.destinations == "spoiled").mean()


def test_choices_of_the_kitchen_name_their_object(cake):
    labels = cake.mdp.action_ids[cake.mdp.pair_action]
    for name, about in zip(labels[:500], cake.objects[:500]):
        place = {"go": None, "use": 1}.get(name.split()[0], 2)
        assert about == -1 if place is None else cake.object_names[about] == name.split()[place]


def taught(cake, kind, rate, guidance, seed, n_episodes=100):
    trainer = fi.SimulatedTrainer.of_reward(cake.mdp, cake.reward, rate=rate, guidance_rate=guidance, objects=cake.objects)
    return fi.InteractiveQLearning(kind).fit(
        cake.mdp, trainer, reward=cake.reward, reward_on="pair", n_episodes=n_episodes, max_steps=300,
        initial_distribution=cake.initial_distribution, rng=np.random.default_rng(seed))


def test_feedback_speeds_up_learning_and_guidance_more(cake):
    # Thomaz and Breazeal 2006, with a simulated person who speaks up in one of twenty steps
    baked, first = [], []
    for rate, guidance in ((0.0, 0.0), (0.05, 0.0), (0.05, 0.5)):
        runs = [taught(cake, "signal", rate, guidance, seed) for seed in range(10)]
        baked.append(np.mean([(run.return_ > 0).sum() for run in runs]))
        first.append(np.mean([np.argmax(np.r_[run.return_ > 0, True]) for run in runs]))
    alone, told, guided = baked
    assert alone < 5 < 20 < told and guided > told + 15  # of 100 cakes; measured: 0.3, 33, 65
    assert first[2] < 0.7 * first[1] < first[0]
    # fewer disasters on the way
    assert (taught(cake, "signal", 0.05, 0.5, 0).return_ < 0).sum() < (taught(cake, "signal", 0.05, 0.0, 0).return_ < 0).sum()


@pytest.mark.parametrize("kind", ["reward", "action_bias", "control_sharing"])
def test_a_model_of_the_judgement_speeds_up_learning(kind, cake):
    baked = [(taught(cake, kind, 0.3, 0.0, seed).return_ > 0).sum() for seed in range(3)]
    assert min(baked) > 25 and np.mean(baked) > 40


def test_guidance_narrows_a_choice_to_the_object_named(cake):
    told, done = [], []

    class Watcher:
        objects = cake.objects

        def guide(self, state, rng):
            told.append((state, int(rng.integers(5))))
            return told[-1][1]

        def judge(self, pair, rng):
            done.append(pair)

    model = fi.InteractiveQLearning("none", epsilon=0.5).fit(
        cake.mdp, Watcher(), reward=cake.reward, reward_on="pair", n_episodes=20, initial_distribution=cake.initial_distribution,
        rng=np.random.default_rng(0))
    assert len(told) == len(done) == model.steps_.sum() == model.guidance_.sum()
    narrowed = 0
    for (state, named), pair in zip(told, done):
        possible = np.arange(*cake.mdp.pair_ptr[state:state + 2])
        assert pair in possible
        if named in cake.objects[possible]:  # else nothing could be done with it there
            narrowed += 1
            assert cake.objects[pair] == named
    assert narrowed > 100


def test_what_was_said_on_the_mean_is_the_judgement():
    mdp, reward, start = corridor()
    trainer = fi.SimulatedTrainer(mdp, np.arange(8.0), noise=0.5)
    model = fi.InteractiveQLearning("none", epsilon=1.0).fit(mdp, trainer, reward=reward, reward_on="pair", n_episodes=3000,
                                                             initial_distribution=np.full(6, 1 / 6), rng=np.random.default_rng(0))
    np.testing.assert_allclose(model.human_reward_, np.arange(8.0), atol=0.08)
    assert model.feedback_.sum() == model.steps_.sum()


def test_lost_probability_ends_an_episode():
    mdp = fi.MDP(np.array([[[0.5]]]), 0.9, allow_leak=True)
    model = fi.InteractiveQLearning("none", learning_rate=0.02).fit(
        mdp, reward=[1.0], reward_on="pair", n_episodes=4000, initial_distribution=[1.0], rng=np.random.default_rng(0))
    assert model.ended_.all() and model.steps_.mean() == pytest.approx(2, abs=0.15)
    assert model.q_[0] == pytest.approx(1 / (1 - 0.45), abs=0.3)


def test_a_long_episode_is_cut_and_said_so():
    mdp, reward, start = corridor()
    model = fi.InteractiveQLearning("none").fit(mdp, reward=reward, reward_on="pair", n_episodes=5, max_steps=1,
                                                initial_distribution=np.eye(6)[3], rng=np.random.default_rng(0))
    assert not model.ended_.any() and (model.steps_ == 1).all()


def test_wrong_input_is_named():
    mdp, reward, start = corridor()
    rng = np.random.default_rng(0)
    for options, message in (({"combination": "shaping"}, "'signal'"), ({"weight": -1}, "weight"), ({"decay": 0}, "decay"),
                             ({"learning_rate": 1.5}, "learning_rate"), ({"epsilon": 2}, "epsilon")):
        with pytest.raises(InvalidInputError, match=message):
            fi.InteractiveQLearning(**options)
    model = fi.InteractiveQLearning()
    with pytest.raises(NotFittedError):
        model.policy()
    good = dict(reward=reward, reward_on="pair", initial_distribution=start, rng=rng)
    for change, message in (({"rng": 3}, "numpy.random.Generator: got int"),
                            ({"initial_distribution": None}, "where episodes begin"),
                            ({"initial_distribution": np.zeros(6)}, "some mass"), ({"n_episodes": 0}, "n_episodes"),
                            ({"human_reward": [1.0]}, "`human_reward` must have 8"), ({"reward": reward - np.inf}, "finite")):
        with pytest.raises(InvalidInputError, match=message):
            model.fit(mdp, **{**good, **change})
    with pytest.raises(InvalidInputError, match="must be an MDP"):
        model.fit("kitchen", **good)

    class Pointer(Flatterer):
        def guide(self, state, rng):
            return 0

    with pytest.raises(InvalidInputError, match="needs `objects`"):
        model.fit(mdp, Pointer(), **good)


def test_the_example_of_a_taught_cook_shows_what_it_says():
    example = runpy.run_path(str(Path(__file__).resolve().parents[1] / "examples" / "tamer_kitchen.py"))
    counts, errors = example["errors_of_judgement"](counts=(50, 400), n_seeds=3)
    right, prompt = (rows.mean(axis=0) for rows in errors.values())
    assert right[1] < 0.4 * right[0] and prompt[1] > 2 * right[1]
    places, blocks = example["share"](np.tile([0.0, 1.0], (2, 15)))
    assert places.tolist() == [15, 30] and blocks.shape == (2, 2) and blocks.mean() == 0.5
