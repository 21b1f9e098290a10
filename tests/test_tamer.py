"""TAMER: credit over time against densities and by hand, recovery of a simulated trainer's judgement, online against batch."""

import numpy as np
import pytest
from scipy import stats

import fastirl as fi
from fastirl.domains import gridworld
from fastirl.exceptions import InvalidInputError, NotFittedError
from fastirl.trainers import Delay


@pytest.fixture
def rng():
    return np.random.default_rng(3)


@pytest.fixture
def world(rng):
    """Six states, three actions; what a person thinks of each choice; trajectories of half-second steps."""
    mdp = fi.MDP(rng.dirichlet(np.ones(6), (6, 3)), 0.9)
    return mdp, rng.normal(size=mdp.n_pairs), fi.sample_trajectories(mdp, None, 40, rng, horizon=60,
                                                                     initial_distribution=np.full(6, 1 / 6))


def pairs_of(mdp, trip):
    return mdp.pair_index(trip.states[:len(trip.actions)], trip.actions)


@pytest.mark.parametrize("delay, law", [(("uniform", 0.2, 0.8), stats.uniform(0.2, 0.6)),
                                        (("gamma", 2.0, 0.28), stats.gamma(2.0, scale=0.28))])
def test_delays_have_their_distribution(delay, law, rng):
    ours, x = Delay.of(delay), np.linspace(-1, 5, 61)
    np.testing.assert_allclose(ours.cdf(x), law.cdf(x), atol=1e-14)
    assert law.sf(ours.longest) < 2e-9
    assert stats.kstest(ours.draw(rng, 4000), law.cdf).pvalue > 1e-3


def test_credit_is_the_mass_of_the_delay_over_each_step():
    # at 1.5 a delay of 0.2 … 0.8 points at 0.7 … 1.3: 0.3 s of the step 0 … 1, 0.3 s of the step 1 … 2
    mdp = fi.MDP(np.ones((2, 2, 2)) / 2, 0.9)
    trips = fi.Trajectories.from_sequences([[0, 1, 0]], [[1, 0]])
    model = fi.TAMER(l2=1e-9).fit(mdp, trips, [[0, 1, 2]], [[(1.5, 4.0)]])
    np.testing.assert_allclose(model.credit_, [0, 0.5, 0.5, 0], atol=1e-12)
    # the least-norm answer shares the feedback
    np.testing.assert_allclose(model.human_reward_, [0, 4, 4, 0], rtol=1e-6)
    # at 2.6, after the end, only 1.8 … 2 of the last step can be meant
    late = fi.TAMER(l2=1e-9).fit(mdp, trips, [[0, 1, 2]], [[(2.6, -1.0)]])
    np.testing.assert_allclose(late.credit_, [0, 0, 1, 0])


def test_what_was_credited_exactly_is_recovered_exactly(world, rng):
    mdp, truth, trips = world
    delay, clock = Delay.of(("gamma", 2.0, 0.28)), 0.5 * np.arange(61)
    said = []
    for t in trips:
        when = np.sort(rng.uniform(1, 31, 20))
        credit = delay.cdf(when[:, None] - clock[:-1]) - delay.cdf(when[:, None] - clock[1:])
        said.append(np.column_stack([when, credit @ truth[pairs_of(mdp, t)] / credit.sum(axis=1)]))
    model = fi.TAMER(delay, l2=1e-10).fit(mdp, trips, [clock] * 40, said)
    np.testing.assert_allclose(model.human_reward_, truth, atol=1e-7)
    assert model.residual_ < 1e-7 and model.n_feedback_ == 800


@pytest.mark.parametrize("delay", [("uniform", 0.2, 0.8), ("gamma", 2.0, 0.28)])
def test_the_judgement_of_a_person_who_reacts_late_is_recovered(delay, world, rng):
    mdp, truth, trips = world
    clock = np.cumsum(np.r_[0.0, rng.uniform(0.2, 0.6, 60)])  # steps are no longer than people take
    trainer = fi.SimulatedTrainer(mdp, truth, rate=6.0, delay=delay, noise=0.1)
    said = [trainer.feedback(clock, pairs_of(mdp, t), rng) for t in trips]
    right = fi.TAMER(delay).fit(mdp, trips, [clock] * 40, said)
    prompt = fi.TAMER(("uniform", 0.0, 1e-6), uncredited="drop").fit(mdp, trips, [clock] * 40, said)

    def error(model):
        return np.sqrt(np.mean((model.human_reward_ - truth) ** 2))

    assert error(right) < 0.2
    assert error(prompt) > 3 * error(right)  # who takes feedback for prompt learns little
    assert np.mean(right.policy() == fi.MDP.policy_vector(mdp, greedy(mdp, truth))) > 0.8
    assert right.credit_.sum() == pytest.approx(right.n_feedback_)


def greedy(mdp, values):
    return np.array([values[mdp.pair_ptr[s]:mdp.pair_ptr[s + 1]].argmax() for s in range(mdp.n_states)])


def test_listening_as_it_happens_and_then_refitting_is_the_fit_of_the_log(world, rng):
    mdp, truth, trips = world
    clock, pairs = 0.5 * np.arange(61), pairs_of(mdp, trips[0])
    said = fi.SimulatedTrainer(mdp, truth, rate=3.0).feedback(clock, pairs, rng)
    said = said[said[:, 0] < 30]
    online = fi.TAMER().start(mdp)
    for t, (state, action) in enumerate(zip(trips[0].states, trips[0].actions)):
        new = said[(said[:, 0] > clock[t] - 0.5) & (said[:, 0] <= clock[t])]
        online.update(clock[t], state, action, new)
    online.update(clock[-1], feedback=said[said[:, 0] > clock[-2]])
    assert online.n_feedback_ == len(said)
    log = fi.TAMER().fit(mdp, trips[:1], [clock], [said])
    np.testing.assert_allclose(online.credit_, log.credit_, atol=1e-12)
    np.testing.assert_allclose(online.refit().human_reward_, log.human_reward_, atol=1e-12)


def test_a_step_of_the_online_rule_is_the_papers():
    mdp = fi.MDP(np.ones((2, 2, 2)) / 2, 0.9)
    model = fi.TAMER(learning_rate=0.5).start(mdp).update(0.0, 0, 1).update(1.0, 1, 0)
    model.update(1.6, feedback=[(1.5, 4.0)])
    np.testing.assert_allclose(model.human_reward_, [0, 1.0, 1.0, 0])  # ½ · (4 − 0) · (½, ½)
    model.update(1.7, feedback=[(1.65, 4.0)])  # 0.15 s of the first step and 0.45 s of the second
    share = np.array([0.25, 0.75])
    np.testing.assert_allclose(model.human_reward_[1:3], 1 + 0.5 * 3 * share)
    assert model.choose(0) == 1 and model.choose(1) == 0


def test_with_features_it_judges_choices_that_were_never_seen(rng):
    x = rng.normal(size=(18, 3))
    mdp = fi.MDP(rng.dirichlet(np.ones(6), (6, 3)), 0.9, features=x)
    truth = x @ [1.0, -2.0, 0.5]
    uniform = np.zeros((6, 3))
    uniform[:, :2] = 0.5  # the third action is never taken
    trips = fi.sample_trajectories(mdp, uniform, 20, rng, horizon=50, initial_distribution=np.full(6, 1 / 6))
    clock, trainer = 0.5 * np.arange(51), fi.SimulatedTrainer(mdp, truth, rate=4.0)
    said = [trainer.feedback(clock, pairs_of(mdp, t), rng) for t in trips]
    model = fi.TAMER(on="features").fit(mdp, trips, [clock] * 20, said)
    np.testing.assert_allclose(model.coef_, [1.0, -2.0, 0.5], atol=0.15)
    assert model.credit_.reshape(6, 3)[:, 2].sum() == 0
    assert np.corrcoef(model.human_reward_.reshape(6, 3)[:, 2], truth.reshape(6, 3)[:, 2])[0, 1] > 0.99


def test_a_person_who_knows_the_way_trains_a_good_policy_online(rng):
    grid = gridworld(5, wind=0.0)
    mdp = grid.mdp
    trainer = fi.SimulatedTrainer.of_reward(mdp, grid.pair_reward, rate=2.0)
    model = fi.TAMER().start(mdp)
    best = fi.value_iteration(mdp, grid.pair_reward)
    pending, clock = np.empty((0, 2)), 0.0
    for _ in range(40):
        state = int(rng.integers(24))
        for _ in range(15):
            came = pending[pending[:, 0] <= clock]
            pending = pending[pending[:, 0] > clock]
            action = model.choose(state, rng)
            model.update(clock, state, action, came)
            pair = mdp.pair_index([state], [action])
            new = trainer.feedback([clock, clock + 0.5], pair, rng)
            pending = np.concatenate([pending, new])
            pending = pending[np.argsort(pending[:, 0], kind="stable")]
            state, clock = int(mdp.transitions[pair].indices[mdp.transitions[pair].data.argmax()]), clock + 0.5
    value = fi.policy_evaluation(mdp, model.refit().policy(), grid.pair_reward).value
    start = fi.policy_evaluation(mdp, None, grid.pair_reward).value
    assert value.mean() > 0.9 * best.value.mean() > 2 * start.mean()


def test_a_trainer_says_nothing_where_the_judgement_is_missing(rng):
    mdp = fi.MDP(np.ones((2, 2, 2)) / 2, 0.9)
    trainer = fi.SimulatedTrainer(mdp, [np.nan, 1.0, 1.0, np.nan], rate=5.0)
    said = trainer.feedback(np.arange(101.0), np.tile([0, 3], 50), rng)
    assert said.shape == (0, 2) and trainer.judge(0, rng) is None and trainer.judge(1, rng) == 1.0
    said = trainer.feedback(np.arange(101.0), np.tile([0, 1], 50), rng)
    assert 170 < len(said) < 330 and (np.diff(said[:, 0]) >= 0).all()  # 250 are expected


def test_ties_are_broken_by_the_lowest_action_and_terminal_states_have_none():
    mdp = fi.MDP(np.ones((3, 2, 3)) / 3, 0.9, terminal=[1], state_ids=["a", "end", "c"], action_ids=["left", "right"])
    model = fi.TAMER().start(mdp)
    np.testing.assert_array_equal(model.policy(), [1, 0, 1, 0])
    assert model.choose("a") == "left"
    model.update(0.0, "a", "left").update(1.0, "c", "right", feedback=[(0.9, -1.0)])
    assert model.choose("a") == "right"
    with pytest.raises(InvalidInputError, match="'end' is terminal"):
        model.choose("end")


def test_wrong_input_is_named(rng):
    mdp = fi.MDP(np.ones((2, 2, 2)) / 2, 0.9)
    trips = fi.Trajectories.from_sequences([[0, 1, 0]], [[1, 0]], ids=["ann"])

    def fit(times=([0, 1, 2],), feedback=([(1.5, 1.0)],), **options):
        return fi.TAMER(**options).fit(mdp, trips, times, feedback)

    for change, message in (({"times": [[0, 1]]}, "'ann' has 2 choices and times of shape"),
                            ({"times": [[0, 2, 1]]}, "finite and rise"),
                            ({"feedback": [[(1.5, np.nan)]]}, "that of 'ann' is not"), ({"feedback": [None]}, "some feedback"),
                            ({"feedback": [[(1.5, 1)], None]}, "got 2 for 1"), ({"feedback": [[(0.1, 1.0)]]}, "no step precedes"),
                            ({"feedback": [["yes"]]}, "that of 'ann' is not"), ({"on": "features"}, "needs features"),
                            ({"delay": ("uniform", 0.8, 0.2)}, "lowest < highest"), ({"delay": 0.5}, "a delay must be"),
                            ({"delay": ("normal", 1, 1)}, "'normal'"), ({"l2": 0}, "`l2`"),
                            ({"uncredited": "ignore"}, "uncredited")):
        with pytest.raises(InvalidInputError, match=message):
            fit(**change)
    dropped = fit(feedback=[[(0.1, 1.0), (1.5, 1.0)]], uncredited="drop")
    assert dropped.n_uncredited_ == 1 and dropped.n_feedback_ == 1
    with pytest.raises(NotFittedError):
        fi.TAMER().update(0.0, 0, 0)
    online = fi.TAMER().start(mdp).update(1.0, 0, 0)
    for arguments, message in (((0.5, 0, 0), "run backwards"), ((2.0, 0), "come together"),
                               ((2.0, 0, 0, [(0.5, 1.0)]), "since the last call"),
                               ((float("nan"), 0, 0), "`time`"), ((2.0, 5, 0), "5"), ((2.0, 0, 0, "good"), "feedback")):
        with pytest.raises(InvalidInputError, match=message):
            online.update(*arguments)
    for options, message in (({"guidance_rate": 0.5}, "name objects"), ({"guidance_rate": 2}, "guidance_rate"),
                             ({"noise": -1}, "noise"), ({"guidance_rate": 0.5, "objects": [0.5] * 4}, "4 integers"),
                             ({"wanted": [True]}, "4 entries")):
        with pytest.raises(InvalidInputError, match=message):
            fi.SimulatedTrainer(mdp, np.zeros(4), **options)
