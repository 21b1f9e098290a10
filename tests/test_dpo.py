"""Direct preference optimisation against closed forms, enumeration, an independent minimiser, and planning with a KL penalty."""

import itertools
import runpy
from pathlib import Path

import numpy as np
import pytest
from scipy import optimize

import fastirl as fi
from fastirl import dpo
from fastirl.exceptions import ConvergenceWarning, InvalidInputError, NoFiniteOptimumError, NotFittedError
from real_data import need


EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


def sigmoid(x):
    return 1.0 / (1.0 + np.exp(-x))


def logit(p):
    return np.log(p) - np.log1p(-p)


def bandit(n_prompts, n_answers):
    """Prompts, each with its answers; every answer ends the process."""
    tensor = np.zeros((n_prompts + 1, n_answers, n_prompts + 1))
    tensor[:, :, -1] = 1.0
    return fi.MDP(tensor, 1.0, terminal=[n_prompts])


def tree(depth=2):
    """A binary tree: state n leads to 2n + 1 and 2n + 2; leaves are terminal."""
    n = 2 ** (depth + 1) - 1
    tensor = np.zeros((n, 2, n))
    for s in range(n // 2):
        for a in range(2):
            tensor[s, a, 2 * s + 1 + a] = 1.0
    return fi.MDP(tensor, 1.0, terminal=np.arange(n // 2, n))


def tree_trajectories(depth):
    states, actions = [], []
    for path in itertools.product(range(2), repeat=depth):
        here = [0]
        for a in path:
            here.append(2 * here[-1] + 1 + a)
        states.append(here)
        actions.append(list(path))
    return fi.Trajectories.from_sequences(states, actions)


def infinite(labels, reward, rng):
    """All pairs of the labels with the outcome's expectation as a soft label, in uneven numbers."""
    pairs = list(itertools.combinations(range(len(labels)), 2))
    return ([labels[i] for i, _ in pairs], [labels[j] for _, j in pairs],
            [sigmoid(reward[i] - reward[j]) for i, j in pairs], rng.uniform(1, 50, len(pairs)))


def joined(*parts):
    return fi.Comparisons.from_pairs(*(sum((list(part[k]) for part in parts), []) for k in range(3)),
                                     weight=np.concatenate([part[3] for part in parts]))


@pytest.fixture
def rng():
    return np.random.default_rng(7)


@pytest.mark.parametrize("beta", [0.1, 0.7, 4.0])
def test_infinite_bradley_terry_data_give_the_tilted_reference_within_components(beta, rng):
    mdp, reward = bandit(2, 6), rng.normal(size=(2, 6))
    reference = rng.dirichlet(np.full(6, 2.0), 3)
    # prompt 0: {0, 1, 2} and {3, 4} are linked, 5 is never compared; prompt 1: all
    groups = [[(0, 0), (0, 1), (0, 2)], [(0, 3), (0, 4)], [(1, a) for a in range(6)]]
    c = joined(*(infinite(group, [reward[at] for at in group], rng) for group in groups))
    model = fi.DPO(beta, reference).fit(mdp, None, c)
    assert model.convex_ and model.converged_ and model.decrement_ < 1e-8
    policy = model.policy().reshape(2, 6)
    for group in groups:
        at = tuple(np.array(group).T)
        tilted = reference[at] * np.exp(reward[at] / beta)
        np.testing.assert_allclose(policy[at], reference[at].sum() * tilted / tilted.sum(), rtol=1e-9)
    assert policy[0, 5] == reference[0, 5]
    np.testing.assert_allclose(policy.sum(axis=1), 1, rtol=1e-12)
    component = model.component_.reshape(2, 6)
    assert component[0, 5] == -1 and len(set(component[0, :3])) == 1 and component[0, 0] != component[0, 3]
    np.testing.assert_allclose(model.implicit_reward_, beta * np.log(model.policy() / reference[:2].ravel()), atol=1e-9)


def test_on_infinite_data_it_is_a_reward_model_and_planning_with_a_kl_penalty(rng):
    # the optimum that PPO with a KL penalty aims at, in the bandit case
    mdp, reward, beta = bandit(4, 5), rng.normal(size=(4, 5)), 0.6
    reference = rng.dirichlet(np.ones(5), 5)
    c = joined(*(infinite([(s, a) for a in range(5)], reward[s], rng) for s in range(4)))
    planned = fi.soft_value_iteration(mdp, reward.ravel(), temperature=beta, reference_policy=reference).policy
    np.testing.assert_allclose(fi.DPO(beta, reference).fit(mdp, None, c).policy(), planned, rtol=1e-8, atol=1e-13)


def test_regularised_planning_is_the_optimum_of_reward_less_kl(rng):
    mdp, reward, beta = bandit(1, 4), rng.normal(size=4), 0.5
    reference = np.tile(rng.dirichlet(np.ones(4)), (2, 1))
    planned = fi.soft_value_iteration(mdp, reward, temperature=beta, reference_policy=reference)

    def gain(policy):
        return policy @ reward - beta * policy @ np.log(policy / reference[0])

    assert gain(planned.policy) == pytest.approx(planned.value[0], abs=1e-10)
    assert all(gain(rng.dirichlet(np.ones(4))) < gain(planned.policy) for _ in range(200))


def test_regularised_planning_is_the_optimum_on_a_process_with_chance(rng):
    # reward less β KL of every visit, which PPO with a KL penalty climbs: no other policy earns more, in any state
    mdp, beta = fi.MDP(rng.dirichlet(np.ones(5), (5, 3)), 0.9), 0.4
    reward, reference = rng.normal(size=15), rng.dirichlet(np.ones(3), 5)
    planned = fi.soft_value_iteration(mdp, reward, "pair", temperature=beta, reference_policy=reference)

    def value(policy):
        return fi.policy_evaluation(mdp, policy, reward, "pair", temperature=beta, reference_policy=reference).value

    np.testing.assert_allclose(value(planned.policy), planned.value, atol=1e-6)
    for scale in (0.05, 0.5, 2.0):
        for _ in range(5):
            other = (planned.policy * np.exp(scale * rng.normal(size=15))).reshape(5, 3)
            assert (value(other / other.sum(axis=1, keepdims=True)) < planned.value).all()


def test_trajectories_of_a_deterministic_process_give_planning_with_a_kl_penalty(rng):
    mdp, trips, beta = tree(3), tree_trajectories(3), 0.5
    reward = rng.normal(size=mdp.n_pairs)
    reference = np.column_stack([share := rng.uniform(0.2, 0.8, mdp.n_states), 1 - share])
    returns = [reward[mdp.pair_index(t.states[:-1], t.actions)].sum() for t in trips]
    c = joined(infinite(list(range(8)), returns, rng))
    model = fi.DPO(beta, reference).fit(mdp, trips, c)
    planned = fi.soft_value_iteration(mdp, reward, temperature=beta, reference_policy=reference).policy
    np.testing.assert_allclose(model.policy(), planned, rtol=1e-6)
    assert not model.convex_ and model.converged_ and model.least_curvature_ > -1e-9 and model.component_ is None


def test_from_one_start_under_determinism_it_is_the_likelihood_of_free_rewards_on_any_data(rng):
    # soft values absorb what normalises, so that the loss of a policy is that of some reward, and the other way round
    mdp, trips = tree(3), tree_trajectories(3)
    c = fi.Comparisons.from_pairs(*rng.integers(0, 4, (2, 40)) + np.array([[0], [4]]), rng.choice([0.1, 0.5, 0.9], 40))
    with pytest.warns(fi.IdentificationWarning):
        model = fi.PreferenceIRL(fi.FreeReward(on="pair")).fit(mdp, trips, c)
    for beta in (0.2, 1.0, 3.0):
        assert fi.DPO(beta).fit(mdp, trips, c).loss_ * 40 == pytest.approx(-model.log_likelihood_, rel=1e-9)


def test_choices_are_bradley_terry_on_any_data(rng):
    wins = rng.integers(1, 9, (5, 5)) * (1 - np.eye(5, dtype=int))
    c = fi.Comparisons.from_matrix(wins, labels=list("abcde"))
    mapping = {label: (0, a) for a, label in enumerate("abcde")}
    model = fi.DPO(0.3).fit(bandit(1, 5), mapping, c)
    strength = fi.bradley_terry(c).strength
    np.testing.assert_allclose(model.implicit_reward_ - model.implicit_reward_.mean(), strength - strength.mean(), atol=1e-7)


@pytest.mark.parametrize("share", [0.5, 0.8, 1.0])
@pytest.mark.parametrize("noise", [0.05, 0.3])
def test_the_conservative_margin_has_its_closed_form_also_on_one_sided_labels(share, noise):
    c = fi.Comparisons.from_pairs([(0, 0)], [(0, 2)], share, weight=[7.0])
    model = fi.DPO(0.4, label_smoothing=noise).fit(bandit(1, 3), None, c)
    ratio = model.implicit_reward_ / 0.4
    assert ratio[0] - ratio[2] == pytest.approx(logit((1 - noise) * share + noise * (1 - share)) / 0.4, rel=1e-8, abs=1e-9)
    if share == 1.0:
        assert ratio[0] - ratio[2] == pytest.approx(logit(1 - noise) / 0.4, rel=1e-8)


def test_the_robust_loss_undoes_flipped_labels(rng):
    # labels of a true Bradley-Terry model, a share of which is flipped
    mdp, reward, noise, beta = bandit(1, 4), np.array([0.5, 0.0, -0.4, 0.2]), 0.2, 0.8
    first, second, share, weight = infinite([(0, a) for a in range(4)], reward, rng)
    flipped = [(1 - noise) * p + noise * (1 - p) for p in share]
    noisy = fi.Comparisons.from_pairs(first, second, flipped, weight=weight)
    clean = fi.Comparisons.from_pairs(first, second, share, weight=weight)
    robust = fi.DPO(beta, label_smoothing=noise, smoothing="robust").fit(mdp, None, noisy)
    np.testing.assert_allclose(robust.policy(), fi.DPO(beta).fit(mdp, None, clean).policy(), rtol=1e-8)
    # its value is the mean of the loss of the paper over the labels
    margin = np.subtract.outer(*[robust.implicit_reward_] * 2)[np.triu_indices(4, 1)]

    def paper(m):
        return ((1 - noise) * -np.log(sigmoid(m)) + noise * np.log(sigmoid(-m))) / (1 - 2 * noise)

    p = np.array(flipped)
    assert robust.loss_ == pytest.approx(np.average(p * paper(margin) + (1 - p) * paper(-margin), weights=weight), rel=1e-9)


def test_one_sided_labels_have_no_finite_optimum_where_the_loss_says_so():
    mdp, c = bandit(1, 3), fi.Comparisons.from_winners([(0, 0)], [(0, 1)])
    for model in (fi.DPO(), fi.DPO(label_smoothing=0.1, smoothing="robust")):
        with pytest.raises(NoFiniteOptimumError, match=r"\(0, 0\) loses .*; pass label_smoothing=0.1") as caught:
            model.fit(mdp, None, c)
        assert caught.value.items == ((0, 0),)
        with pytest.raises(NotFittedError):
            model.policy()
    assert fi.DPO(loss="ipo").fit(mdp, None, c).converged_


def test_a_group_that_never_loses_is_named():
    f, s = [(0, 0), (0, 1), (0, 0), (0, 2), (0, 3)], [(0, 1), (0, 0), (0, 2), (0, 3), (0, 2)]
    with pytest.raises(NoFiniteOptimumError, match=r"\(0, 0\), \(0, 1\) lose nothing") as caught:
        fi.DPO().fit(bandit(1, 5), None, fi.Comparisons.from_winners(f, s))
    assert caught.value.items == ((0, 0), (0, 1))


def test_the_robust_loss_is_refused_exactly_where_a_set_of_choices_loses_nothing(rng):
    # every set listed: its debiased losses to the rest must be above 0
    mdp, refused = bandit(1, 4), 0
    for _ in range(40):
        pairs = list(itertools.combinations(range(4), 2))
        wins, noise = rng.integers(0, 4, (2, len(pairs))) + np.array([[0], [1]]), 0.2
        share = wins[0] / wins.sum(axis=0)
        target = (share - noise) / (1 - 2 * noise)
        least = min(sum(n * ((1 - t) * (i in chosen and j not in chosen) + t * (j in chosen and i not in chosen))
                        for (i, j), n, t in zip(pairs, wins.sum(axis=0), target))
                    for size in (1, 2, 3) for chosen in itertools.combinations(range(4), size))
        if abs(least) < 1e-6:
            continue
        c = fi.Comparisons.from_pairs([(0, i) for i, _ in pairs], [(0, j) for _, j in pairs], share, weight=wins.sum(axis=0))
        model = fi.DPO(label_smoothing=noise, smoothing="robust")
        if least < 0:
            refused += 1
            with pytest.raises(NoFiniteOptimumError):
                model.fit(mdp, None, c)
        else:
            assert model.fit(mdp, None, c).converged_
    assert 5 < refused < 35


@pytest.mark.parametrize("share", [1e-3, 1e-9, 1e-15, 1 - 1e-12, 1 - 2**-52])
def test_nearly_one_sided_labels_have_their_margin_to_the_last_digits(share):
    # a small slope alone would end four units short at 1e-15
    model = fi.DPO(0.7).fit(bandit(1, 2), None, fi.Comparisons.from_pairs([(0, 0)], [(0, 1)], [share]))
    exact = np.log(share) - np.log(1.0 - share)
    assert model.implicit_reward_[0] - model.implicit_reward_[1] == pytest.approx(exact, rel=1e-9)
    assert model.converged_ and model.last_move_ < 1e-6


@pytest.mark.parametrize("share", [0.3, 1.0])
def test_the_ipo_margin_has_its_closed_form(share):
    c = fi.Comparisons.from_pairs([(0, 0)], [(0, 1)], share)
    model = fi.DPO(0.25, loss="ipo").fit(bandit(1, 3), None, c)
    ratio = model.implicit_reward_ / 0.25
    assert ratio[0] - ratio[1] == pytest.approx((share - 0.5) / 0.25, rel=1e-10)
    h, tau = ratio[0] - ratio[1], 0.25
    assert model.loss_ == pytest.approx(share * (h - 0.5 / tau) ** 2 + (1 - share) * (h + 0.5 / tau) ** 2, rel=1e-10)


def test_ipo_on_pairs_from_a_behaviour_policy_tilts_by_the_chance_to_beat_it(rng):
    # Azar et al. 2023: π ∝ π_ref exp(p(y ≻ μ) / τ), for preferences of any kind
    n, tau = 5, 0.3
    behaviour, reference = rng.dirichlet(np.ones(n)), np.tile(rng.dirichlet(np.ones(n)), (2, 1))
    prefers = rng.uniform(0, 1, (n, n))
    prefers = np.triu(prefers, 1) + np.tril(1 - prefers.T, -1) + 0.5 * np.eye(n)
    pairs = list(itertools.combinations(range(n), 2))
    c = fi.Comparisons.from_pairs([(0, i) for i, _ in pairs], [(0, j) for _, j in pairs], [prefers[i, j] for i, j in pairs],
                                  weight=[behaviour[i] * behaviour[j] for i, j in pairs])
    tilted = reference[0] * np.exp(prefers @ behaviour / tau)
    model = fi.DPO(tau, reference, loss="ipo").fit(bandit(1, n), None, c)
    np.testing.assert_allclose(model.policy(), tilted / tilted.sum(), rtol=1e-9)


@pytest.mark.parametrize("options", [{}, {"label_smoothing": 0.1}, {"loss": "ipo"}])
def test_ties_are_two_halves_copies_are_weight_and_the_order_of_naming_means_nothing(options, rng):
    mdp = bandit(1, 4)
    f, s = rng.integers(0, 4, 60), rng.integers(1, 4, 60)
    s = (f + s) % 4
    mu = rng.choice([0.0, 0.5, 1.0], 60)
    label = {a: (0, a) for a in range(4)}

    def policy(*data, **more):
        return fi.DPO(0.5, **options).fit(mdp, label, fi.Comparisons.from_pairs(*data, **more)).policy()

    plain = policy(f, s, mu)
    halves = policy(np.r_[f, f], np.r_[s, s], np.r_[np.ceil(mu), np.floor(mu)], weight=np.full(120, 0.5))
    np.testing.assert_allclose(plain, halves, rtol=1e-9)
    np.testing.assert_allclose(plain, policy(np.r_[f, f], np.r_[s, s], np.r_[mu, mu]), rtol=1e-9)
    np.testing.assert_allclose(plain, policy(s, f, 1 - mu), rtol=1e-9)
    # all outcomes turned round: log ratios change sign, up to the constant that normalises
    turned = np.log(policy(f, s, 1 - mu)) + np.log(plain)
    np.testing.assert_allclose(turned, turned[0], atol=1e-8)


def test_of_all_minimisers_it_is_the_nearest_to_the_reference(rng):
    mdp, reference = bandit(1, 5), np.tile(rng.dirichlet(np.full(5, 3.0)), (2, 1))
    c = joined(infinite([(0, 0), (0, 1)], [1.0, 0.0], rng), infinite([(0, 2), (0, 3)], [0.0, 2.0], rng))
    model = fi.DPO(0.5, reference).fit(mdp, None, c)
    policy = model.policy()

    def away(p):
        return reference[0] @ np.log(reference[0] / p)

    for _ in range(50):
        # another share of the mass for each component: the same loss, farther away
        other = policy * np.exp(rng.normal(size=3))[[0, 0, 1, 1, 2]]
        other /= other.sum()
        assert np.log(other[0] / other[1]) == pytest.approx(np.log(policy[0] / policy[1]))
        assert away(other) > away(policy)


def plain_loss(kind, beta, mdp, reference, visits, first, second, mu, weight):
    """The mean loss as a function of free logits for every pair, from its definition."""
    def loss(z):
        top = np.full(mdp.n_states, -np.inf)
        np.maximum.at(top, mdp.pair_state, z)
        mass = np.bincount(mdp.pair_state, np.exp(z - top[mdp.pair_state]), mdp.n_states)
        ratio = z - (top[mdp.pair_state] + np.log(mass[mdp.pair_state])) - np.log(reference)
        h = (visits[first] - visits[second]) @ ratio
        if kind == "ipo":
            each = mu * (h - 0.5 / beta) ** 2 + (1 - mu) * (h + 0.5 / beta) ** 2
        else:
            each = -mu * np.log(sigmoid(beta * h)) - (1 - mu) * np.log(sigmoid(-beta * h))
        return np.average(each, weights=weight)
    return loss


@pytest.mark.parametrize("kind", ["sigmoid", "ipo"])
def test_trajectories_under_chance_reach_what_an_independent_minimiser_reaches(kind, rng):
    tensor = rng.dirichlet(np.ones(5), (5, 3))
    mdp = fi.MDP(tensor, 0.9)
    reference = rng.dirichlet(np.full(3, 3.0), 5)
    trips = fi.sample_trajectories(mdp, None, 30, rng, horizon=4, initial_distribution=np.eye(5)[0])
    visits = np.zeros((30, mdp.n_pairs))
    for n, t in enumerate(trips):
        np.add.at(visits[n], mdp.pair_index(t.states[:-1], t.actions), 1.0)
    first, second = rng.integers(0, 15, 80), rng.integers(15, 30, 80)
    mu, weight = rng.uniform(0.1, 0.9, 80), rng.uniform(0.5, 2, 80)
    c = fi.Comparisons.from_pairs(first, second, mu, weight=weight)
    model = fi.DPO(0.5, reference, loss=kind).fit(mdp, trips, c)
    loss = plain_loss(kind, 0.5, mdp, reference.ravel(), visits, first, second, mu, weight)
    start = np.log(reference.ravel())
    found = optimize.minimize(loss, start, method="BFGS", options={"gtol": 1e-7})
    assert model.loss_ == pytest.approx(loss(np.log(model.policy())), rel=1e-10)
    assert model.loss_ <= found.fun + 1e-8 and model.loss_ < loss(start) - 1e-3
    slope = optimize.approx_fprime(np.log(model.policy()), loss, 1e-6)
    assert np.abs(slope).max() < 1e-5
    assert model.converged_ and model.least_curvature_ > -1e-9


def test_states_that_none_visits_and_choices_that_none_takes_keep_the_reference(rng):
    tensor = np.zeros((4, 4, 4))
    tensor[:, :, 3] = 1.0
    tensor[0, :, 3], tensor[0, 0, 1], tensor[0, 1, 2] = [0, 0, 1, 1], 1.0, 1.0
    mdp = fi.MDP(tensor, 1.0, terminal=[3])
    reference = rng.dirichlet(np.ones(4), 4)
    trips = fi.Trajectories.from_sequences([[0, 1, 3], [0, 1, 3]], [[0, 2], [0, 1]], ids=["left", "right"])
    model = fi.DPO(1.0, reference, loss="ipo").fit(mdp, trips, fi.Comparisons.from_winners(["left"], ["right"]))
    policy = model.policy().reshape(3, 4)
    np.testing.assert_array_equal(policy[2], reference[2])
    np.testing.assert_allclose(policy[0], reference[0], rtol=1e-12)  # both take the same choice there
    assert policy[1, 0] / policy[1, 3] == pytest.approx(reference[1, 0] / reference[1, 3])
    assert np.log(policy[1, 2] / reference[1, 2]) - np.log(policy[1, 1] / reference[1, 1]) == pytest.approx(0.5)


def test_prompts_and_answers_are_a_process_of_one_step(rng):
    # prompts with different answers, as a table of texts would have them
    rows = [("joke", "pun"), ("poem", "ode"), ("joke", "riddle"), ("poem", "haiku"), ("joke", "story")]
    mdp = fi.MDP.one_step(rows, features=np.arange(5.0)[:, None], feature_names=["row"])
    assert mdp.discount == 1 and mdp.state_ids.tolist() == ["joke", "poem", "(end)"] and mdp.terminal.tolist() == [0, 0, 1]
    assert [rows[i] for i in mdp.pair_order] == list(zip(mdp.state_ids[mdp.pair_state], mdp.action_ids[mdp.pair_action]))
    np.testing.assert_array_equal(mdp.features[:, 0], mdp.pair_order)
    policy = fi.DPO(0.5).fit(mdp, None, fi.Comparisons.from_pairs([rows[0]], [rows[2]], [0.75])).policy()
    np.testing.assert_allclose(policy[mdp.pair_order.argsort()], [0.6, 0.5, 0.2 / 3, 0.5, 1 / 3], rtol=1e-8)
    assert fi.MDP.one_step([(3, 1), (1, 1)]).state_ids.tolist() == [3, 1, 4]
    assert fi.MDP.one_step([("(end)", 0)]).state_ids.tolist() == ["(end)", "((end))"]
    for choices, message in (([("a", "b"), ("a", "b")], "given once"), (["ab"], "entry 0 is 'ab'"), ([], "some choices"),
                             ([("a", "b"), (1, "b")], "one kind"), ([("a", None)], "missing")):
        with pytest.raises(InvalidInputError, match=message):
            fi.MDP.one_step(choices)


def test_choices_written_as_trajectories_of_one_step_are_the_same(rng):
    mdp, reward = bandit(2, 3), rng.normal(size=(2, 3))
    named = {s * 3 + a: (s, a) for s in range(2) for a in range(3)}
    trips = fi.Trajectories.from_sequences([[s] for s, _ in named.values()], [[a] for _, a in named.values()], ids=list(named))
    c = joined(*(infinite([s * 3 + a for a in range(3)], reward[s], rng) for s in range(2)))
    a, b = fi.DPO(0.5).fit(mdp, named, c), fi.DPO(0.5).fit(mdp, trips, c)
    assert a.convex_ and b.convex_
    np.testing.assert_array_equal(a.policy(), b.policy())


def test_a_choice_in_one_state_may_be_compared_with_one_in_another(rng):
    mdp = bandit(2, 3)
    c = fi.Comparisons.from_pairs([(0, 0), (0, 1)], [(1, 0), (1, 2)], [0.7, 0.4])
    model = fi.DPO(0.5).fit(mdp, None, c)
    assert not model.convex_ and model.converged_
    table = model.summary()
    np.testing.assert_allclose(table["fitted"], [0.7, 0.4], atol=1e-7)


def test_many_logits_are_solved_without_their_hessian(rng):
    mdp, trips = tree(9), tree_trajectories(9)
    first, second = rng.integers(0, 256, 600), rng.integers(256, 512, 600)
    c = fi.Comparisons.from_pairs(first, second, rng.choice([0.0, 1.0], 600))
    model = fi.DPO(1.0, label_smoothing=0.1, tol=1e-7).fit(mdp, trips, c)
    assert model.converged_ and np.isnan(model.least_curvature_)
    assert model.loss_ < np.log(2)


def test_trajectories_with_one_sided_labels_have_no_finite_optimum():
    trips = fi.Trajectories.from_sequences([[0, 1, 3], [0, 1, 4]], [[0, 0], [0, 1]], ids=["a", "b"])
    c = fi.Comparisons.from_winners(["a", "a"], ["b", "b"])
    with pytest.raises(NoFiniteOptimumError, match="'a' and 'b' part"):
        fi.DPO().fit(tree(2), trips, c)
    model = fi.DPO(0.5, label_smoothing=0.1).fit(tree(2), trips, c)
    assert model.implicit_reward_[2] - model.implicit_reward_[3] == pytest.approx(logit(0.9), rel=1e-7)


def test_a_margin_out_of_reach_ends_at_the_edge_and_says_so():
    # the other trajectory has no choice, so that the margin is at most log 2: the label asks for more
    tensor = np.zeros((3, 2, 3))
    tensor[:, :, 2] = 1.0
    mdp = fi.MDP(tensor, 1.0, terminal=[2], available=[[True, True], [True, False], [True, True]])
    trips = fi.Trajectories.from_sequences([[0], [1]], [[0], [0]], ids=["free", "forced"])
    model = fi.DPO(0.5, label_smoothing=0.1).fit(mdp, trips, fi.Comparisons.from_winners(["free"], ["forced"]))
    assert model.policy()[0] == pytest.approx(1) and "1 choices go to probability 0" in model.message_
    other = fi.DPO(0.5, loss="ipo").fit(mdp, trips, fi.Comparisons.from_winners(["forced"], ["free"]))
    assert np.log(2 * other.policy()[0]) == pytest.approx(-1, abs=1e-8) and other.converged_ and "edge" not in other.message_


def test_stopping_early_is_said(rng):
    c = joined(infinite([(0, a) for a in range(4)], rng.normal(size=4) * 3, rng))
    with pytest.warns(ConvergenceWarning, match="did not converge: the largest slope"):
        model = fi.DPO(max_iter=1).fit(bandit(1, 4), None, c)
    assert not model.converged_


def test_it_is_a_learner_like_the_others(rng):
    mdp = bandit(2, 3)
    c = fi.Comparisons.from_pairs([(1, 0), (1, 0)], [(1, 1), (1, 2)], [0.7, 0.9])
    model = fi.DPO(0.5).fit(mdp, None, c)
    visits = model.visitation()  # from the states that were asked about
    np.testing.assert_allclose(visits.state[:2], [0, 1], atol=1e-9)
    assert np.isfinite(model.log_likelihoods(fi.Trajectories.from_sequences([[1]], [[0]]))[0])
    assert "0.700" in str(model.summary()) and "DPO(beta=0.5" in repr(model)


@pytest.mark.parametrize("options, message", [
    ({"label_smoothing": 0.5}, "must lie below 0.5"), ({"label_smoothing": -0.1}, "label_smoothing"),
    ({"loss": "hinge"}, "'sigmoid', 'ipo'"), ({"loss": "ipo", "label_smoothing": 0.1}, "goes with loss='sigmoid'"),
    ({"beta": 0}, "`beta`"), ({"smoothing": "cdpo"}, "'conservative', 'robust'"), ({"max_iter": 0}, "max_iter"),
])
def test_wrong_options_are_named(options, message):
    with pytest.raises(InvalidInputError, match=message):
        fi.DPO(**options)


def test_wrong_data_are_named():
    mdp, c = bandit(1, 3), fi.Comparisons.from_winners(["x"], ["y"])
    trips = fi.Trajectories.from_sequences([[0], [0]], [[0], [1]], ids=["x", "z"])
    model = fi.DPO()
    for choices, message in ((None, "'x' is none; pass trajectories"), (trips, "'y' is none; see trajectories.ids"),
                             ({"x": (0, 0)}, "'y' is absent"), ({"x": (0, 0), "y": (0, 7)}, "7"),
                             ({"x": 3, "y": (0, 1)}, "'x' is 3"), ([(0, 0)], "must be Trajectories, a mapping")):
        with pytest.raises(InvalidInputError, match=message):
            model.fit(mdp, choices, c)
    with pytest.raises(InvalidInputError, match="must be Comparisons: got list"):
        model.fit(mdp, None, [(0, 1)])
    with pytest.raises(InvalidInputError, match="must be an MDP: got str"):
        model.fit("mdp", None, c)
    with pytest.raises(InvalidInputError, match="state 0, action 1 of 'y' has probability 0"):
        fi.DPO(reference=[[1, 0, 0], [1, 0, 0]]).fit(mdp, {"x": (0, 0), "y": (0, 1)}, c)
    with pytest.raises(InvalidInputError, match="some weight"):
        model.fit(mdp, {"x": (0, 0), "y": (0, 1)}, fi.Comparisons.from_winners(["x"], ["y"], weight=[0]))


# -- the pipeline: cloned policy, orders of answers, reward model, regularised policy


@pytest.fixture(scope="module")
def pipeline():
    example = runpy.run_path(str(EXAMPLES / "rlhf_tabular.py"))
    return example, example["pipeline"](n_demonstrations=300, n_sets=300, seed=1)


def test_the_measures_of_the_example_are_exact(pipeline):
    example, found = pipeline
    mdp, clone, worth = found["mdp"], found["clone"], found["worth"]
    spread = [example["worths"](mdp, clone, worth, task) for task in range(6)]
    assert all(sum(one.values()) == pytest.approx(1) for one in spread)
    mean = np.mean([sum(v * p for v, p in one.items()) for one in spread])
    assert mean == pytest.approx(example["measures"](found, clone)[0], abs=1e-5)
    assert example["preferred"](mdp, clone, clone, worth) == pytest.approx(0.5)
    assert example["measures"](found, clone)[1] == pytest.approx(0, abs=1e-9)
    drawn = fi.sample_trajectories(mdp, clone, 4000, np.random.default_rng(0), initial_distribution=found["starts"])
    pair = mdp.pair_index(mdp.state_index(drawn.states[np.repeat(drawn.lengths > 1, drawn.lengths) & (drawn.states != "end")]),
                          mdp.action_index(drawn.actions))
    assert worth[pair].sum() / 4000 == pytest.approx(example["measures"](found, clone)[0], abs=0.1)


def test_a_learned_reward_that_is_optimised_too_far_is_no_longer_what_people_want(pipeline):
    example, found = pipeline
    mdp, clone, learned = found["mdp"], found["clone"], found["reward model"].reward_

    def planned(beta):
        return fi.soft_value_iteration(mdp, learned, "pair", temperature=beta, reference_policy=clone).policy

    at = {beta: example["measures"](found, planned(beta)) for beta in (10.0, 0.4, 0.05)}
    start = example["measures"](found, clone)[0]
    assert at[0.4][0] > at[10.0][0] > start and at[0.05][0] < at[0.4][0] - 1  # the true reward rises, then falls
    assert at[10.0][1] < at[0.4][1] < at[0.05][1]
    assert at[10.0][2] < at[0.4][2] < at[0.05][2]  # while the learned one rises all the way


def test_nothing_beats_planning_on_the_true_reward_at_its_own_price(pipeline):
    example, found = pipeline
    plan = fi.soft_value_iteration(found["mdp"], found["worth"], "pair", temperature=0.5, reference_policy=found["clone"]).policy
    dpo = fi.DPO(0.5, found["clone"], label_smoothing=0.05).fit(found["mdp"], found["trips"], found["pairs"])
    assert dpo.converged_

    def worth(policy):
        reward, kl, _ = example["measures"](found, policy)
        return reward - 0.5 * kl

    assert worth(plan) > max(worth(dpo.policy()), worth(found["clone"]), worth(found["writers"]))


# --- rankings: Plackett-Luce DPO (Rafailov et al. 2023, appendix A.3)


def chance(reward, order, n_ranked=None):
    """P(order) under Plackett-Luce, by its definition; of the first few only where n_ranked says so."""
    found, left = 1.0, list(order)
    for item in order[:n_ranked]:
        found *= np.exp(reward[item]) / sum(np.exp(reward[other]) for other in left)
        left.remove(item)
    return found


def all_orders(labels, reward, n_ranked=None):
    """Every order with its probability as its weight: infinite data."""
    orders = list(itertools.permutations(range(len(labels))))
    if n_ranked is not None:
        orders = [order for order in orders if list(order[n_ranked:]) == sorted(order[n_ranked:])]
    items = np.empty((len(orders), len(labels)), object)
    for r, order in enumerate(orders):
        items[r] = np.fromiter((labels[k] for k in order), object, len(labels))
    return fi.Rankings.from_arrays(items.reshape(-1), np.arange(len(orders) + 1) * len(labels),
                                   n_ranked=None if n_ranked is None else np.full(len(orders), n_ranked),
                                   weight=[chance(reward, order, n_ranked) for order in orders])


@pytest.mark.parametrize("beta", [0.1, 1.0, 3.0])
@pytest.mark.parametrize("n_ranked", [None, 1, 2])
def test_all_orders_in_their_shares_give_the_tilted_reference(beta, n_ranked, rng):
    mdp, reward, reference = bandit(1, 5), rng.normal(size=4), rng.dirichlet(np.full(5, 2.0), 2)
    data = all_orders([(0, a) for a in range(4)], reward, n_ranked)  # the fifth answer is never ranked
    model = fi.DPO(beta, reference).fit(mdp, None, rankings=data)
    tilted = reference[0, :4] * np.exp(reward / beta)
    np.testing.assert_allclose(model.policy()[:4], reference[0, :4].sum() * tilted / tilted.sum(), rtol=1e-8)
    assert model.policy()[4] == reference[0, 4] and model.convex_ and model.converged_
    # the least mean loss is the entropy of the orders
    p = data.weight
    assert model.loss_ == pytest.approx(-(p @ np.log(p)), rel=1e-10) and p.sum() == pytest.approx(1.0)


def test_choices_of_the_best_have_a_closed_form(rng):
    # all answers on offer: β log π / π_ref are the logarithms of how often each was chosen
    count, reference = np.array([5, 1, 11, 3]), rng.dirichlet(np.ones(4), 2)
    best = fi.Rankings.from_arrays([[a, *(b for b in range(4) if b != a)] for a in range(4)], n_ranked=1, weight=count)
    model = fi.DPO(0.4, reference).fit(bandit(1, 4), {a: (0, a) for a in range(4)}, rankings=best)
    tilted = reference[0] * count**2.5
    np.testing.assert_allclose(model.policy(), tilted / tilted.sum(), rtol=1e-9)


def test_rankings_of_choices_are_plackett_luce_on_any_data(rng):
    orders = [list(rng.permutation(list("abcde"))[: rng.integers(2, 6)]) for _ in range(60)]
    data = fi.Rankings.from_lists(orders, weight=rng.integers(1, 4, 60))
    model = fi.DPO(0.3).fit(bandit(1, 5), {label: (0, a) for a, label in enumerate("abcde")}, rankings=data)
    fit = fi.plackett_luce(data)
    np.testing.assert_allclose(model.implicit_reward_ - model.implicit_reward_.mean(), fit.strength, atol=1e-7)
    assert model.loss_ * data.weight.sum() == pytest.approx(-fit.log_likelihood, rel=1e-12)


def test_the_sushi_orders_have_their_published_maximum():
    data = fi.Rankings.read_preflib(need("ranking") / "sushi10" / "sushi.soc")
    mdp = fi.MDP.one_step([("sushi", label) for label in data.labels.tolist()])
    model = fi.DPO(0.5).fit(mdp, {label: ("sushi", label) for label in data.labels.tolist()}, rankings=data)
    assert model.loss_ * 5000 == pytest.approx(71211.599225, abs=1e-5) and model.converged_


def test_rankings_of_two_are_comparisons_and_both_kinds_add_up(rng):
    first, second, share, weight = infinite([(0, a) for a in range(4)], rng.normal(size=4), rng)
    half = len(first) // 2
    c = fi.Comparisons.from_pairs(first, second, share, weight=weight)
    orders = [pair for i, j in zip(first, second) for pair in ((i, j), (j, i))]
    items = np.fromiter((label for pair in orders for label in pair), object, 2 * len(orders))
    mass = np.array([w for p, n in zip(share, weight) for w in (p * n, (1 - p) * n)])
    as_rankings = fi.Rankings.from_arrays(items, 2 * np.arange(len(orders) + 1), weight=mass)
    one, other = fi.DPO(0.7).fit(bandit(1, 5), None, c), fi.DPO(0.7).fit(bandit(1, 5), None, rankings=as_rankings)
    np.testing.assert_allclose(one.policy(), other.policy(), rtol=1e-9)
    assert one.loss_ == pytest.approx(other.loss_, rel=1e-12)
    mixed = fi.DPO(0.7).fit(bandit(1, 5), None, c.subset(rows=np.arange(half)), rankings=as_rankings.subset(
        np.arange(2 * half, len(orders))))
    np.testing.assert_allclose(mixed.policy(), one.policy(), rtol=1e-9)
    assert mixed.loss_ == pytest.approx(one.loss_, rel=1e-12)
    ours, theirs = one.summary().to_dict(), mixed.summary().to_dict()
    pairs = {frozenset((a, b)): (w, p if a < b else 1 - p, m if a < b else -m) for a, b, w, p, m in zip(
        ours["first"], ours["second"], ours["weight"], ours["preferred"], ours["margin"])}
    for a, b, w, p, m in zip(theirs["first"], theirs["second"], theirs["weight"], theirs["preferred"], theirs["margin"]):
        np.testing.assert_allclose(pairs[frozenset((a, b))], (w, p if a < b else 1 - p, m if a < b else -m), rtol=1e-7)


def test_rankings_of_trajectories_of_a_deterministic_process_give_planning_with_a_kl_penalty(rng):
    mdp, trips, beta = tree(2), tree_trajectories(2), 0.5
    reward = rng.normal(size=mdp.n_pairs)
    reference = np.column_stack([share := rng.uniform(0.2, 0.8, mdp.n_states), 1 - share])
    returns = [reward[mdp.pair_index(t.states[:-1], t.actions)].sum() for t in trips]
    model = fi.DPO(beta, reference).fit(mdp, trips, rankings=all_orders([0, 1, 2, 3], returns))
    planned = fi.soft_value_iteration(mdp, reward, temperature=beta, reference_policy=reference).policy
    np.testing.assert_allclose(model.policy(), planned, rtol=1e-6)
    assert not model.convex_ and model.converged_ and model.least_curvature_ > -1e-9


def test_the_loss_of_rankings_of_trajectories_is_that_of_its_definition_and_is_stationary(rng):
    # trajectories that share choices, rankings of unequal lengths, some cut, beside comparisons
    mdp, trips, beta = tree(3), tree_trajectories(3), 0.8
    orders = [[int(k) for k in rng.permutation(8)[: rng.integers(2, 6)]] for _ in range(25)]
    cut = [rng.integers(1, len(order) + 1) for order in orders]
    data = fi.Rankings.from_arrays(np.concatenate(orders), np.append(0, np.cumsum([len(order) for order in orders])),
                                   n_ranked=cut, weight=rng.uniform(0.5, 2, 25))
    c = fi.Comparisons.from_pairs(*rng.integers(0, 4, (2, 9)) + np.array([[0], [4]]), rng.choice([0.2, 0.5, 0.9], 9))
    model = fi.DPO(beta).fit(mdp, trips, c, rankings=data)
    visits = np.zeros((8, mdp.n_pairs))
    for k, trip in enumerate(trips):
        np.add.at(visits[k], mdp.pair_index(trip.states[:-1], trip.actions), 1.0)

    def loss(z):
        log = z - np.log(np.bincount(mdp.pair_state, np.exp(z), mdp.n_states)[mdp.pair_state])
        height = beta * visits @ (log - np.log(0.5))
        total = 0.0
        for order, n, w in zip(orders, data.n_ranked, data.weight):
            total -= w * np.log(chance(height, order, int(n)))
        for i, j, mu in zip(c.first, c.second, c.outcome):
            m = height[c.labels[i]] - height[c.labels[j]]
            total -= mu * np.log(sigmoid(m)) + (1 - mu) * np.log(sigmoid(-m))
        return total

    best = np.log(model.policy())
    assert model.loss_ * (data.weight.sum() + 9) == pytest.approx(loss(best), rel=1e-10)
    slope = optimize.approx_fprime(best, loss, 1e-6)
    assert np.abs(slope).max() < 1e-4
    for _ in range(20):
        assert loss(best + 0.05 * rng.normal(size=best.size)) > loss(best)
    # first and second derivatives, away from the optimum, against differences
    labels, first, second, inner, _ = model._asked(c, data)
    items, _ = dpo._resolve(mdp, trips, labels)
    slots = dpo._Slots(mdp, mdp.policy_vector(None), items)
    problem = dpo._Softmax(slots, dpo._differences(first, second, len(labels)) @ slots.items, inner)
    z, step = rng.normal(size=slots.size), 1e-5
    basis = step * np.eye(z.size)
    found = [(problem.value(z + e) - problem.value(z - e)) / (2 * step) for e in basis]
    np.testing.assert_allclose(problem.gradient(z), found, atol=1e-7)
    found = np.array([(problem.gradient(z + e) - problem.gradient(z - e)) / (2 * step) for e in basis])
    np.testing.assert_allclose(problem.hessian(z), found, atol=1e-7)
    v = rng.normal(size=z.size)
    np.testing.assert_allclose(problem.hessian_times(z, v), problem.hessian(z) @ v, atol=1e-10)


def test_rankings_without_a_finite_optimum_name_what_never_loses():
    choices = {label: (0, a) for a, label in enumerate("abcd")}
    for rankings, items in (([["a", "b", "c"], ["a", "c", "b"]], ("a",)), ([["b", "a", "c"]], ("b",)),
                            ([["a", "b"], ["b", "a", "c", "d"], ["d", "c"]], ("a", "b"))):
        with pytest.raises(NoFiniteOptimumError, match="loses? nothing .*more rankings") as caught:
            fi.DPO().fit(bandit(1, 4), choices, rankings=rankings)
        assert set(caught.value.items) == set(items)
    # a comparison may be what is missing
    assert fi.DPO().fit(bandit(1, 4), choices, fi.Comparisons.from_pairs(["c"], ["a"], [0.5]),
                        rankings=[["a", "b", "c"], ["a", "c", "b"]]).converged_
    with pytest.raises(NoFiniteOptimumError, match="falls for ever"):
        fi.DPO().fit(tree(2), tree_trajectories(2), rankings=[[0, 1, 2], [0, 2, 3], [3, 1]])


def test_two_labels_may_mean_one_choice_in_a_ranking():
    choices = {"a": (0, 0), "again": (0, 0), "b": (0, 1)}
    data = [["a", "again", "b"], ["b", "a", "again"], ["again", "b", "a"], ["a", "b", "again"]]
    model = fi.DPO().fit(bandit(1, 2), choices, rankings=data)

    def loss(h):
        return -sum(np.log(chance({"a": h, "again": h, "b": 0.0}, order)) for order in data)

    best = optimize.minimize_scalar(loss, bounds=(-5, 5), method="bounded", options={"xatol": 1e-10}).x
    assert model.implicit_reward_[0] - model.implicit_reward_[1] == pytest.approx(best, abs=1e-6)
    assert model.loss_ == pytest.approx(loss(best) / 4, rel=1e-9)


@pytest.mark.parametrize("options, arguments, message", [
    ({"loss": "ipo"}, {"rankings": [["a", "b"]]}, "`rankings` go with .*loss='ipo'"),
    ({"label_smoothing": 0.1}, {"rankings": [["a", "b"]]}, "`rankings` go with .*label_smoothing=0.1"),
    ({}, {"rankings": fi.Rankings.from_lists([[("a", "b"), "c"]])}, "no ties"),
    ({}, {"rankings": [["a", "z"]]}, "hold every compared label: 'z'"),
    ({}, {"rankings": [["a"], ["b"]]}, "some weight"),
    ({}, {"rankings": []}, "some weight"),
    ({}, {"rankings": "ab"}, "`rankings` must be Rankings"),
    ({}, {"rankings": 3}, "`rankings` must be Rankings"),
    ({}, {"rankings": ["ab"]}, "ranking 0 is 'ab'"),
    ({}, {"rankings": [["a", 1]]}, "`rankings` must hold labels of one kind"),
    ({}, {"rankings": [["a", "a"]]}, "'a' twice"),
    ({}, {"comparisons": fi.Rankings.from_lists([["a", "b"]])}, "pass rankings="),
    ({}, {"comparisons": fi.Comparisons.from_pairs([1], [2], [0.5]), "rankings": [["a", "b"]]}, "one kind: they have 1"),
    ({}, {}, "some weight"),
])
def test_wrong_rankings_are_named(options, arguments, message):
    with pytest.raises(InvalidInputError, match=message):
        fi.DPO(**options).fit(bandit(1, 3), {"a": (0, 0), "b": (0, 1), "c": (0, 2)}, **arguments)


def test_tuples_are_labels_in_rankings_given_as_lists():
    mdp = fi.MDP.one_step([("joke", "pun"), ("joke", "riddle"), ("joke", "story")])
    orders = [[("joke", "pun"), ("joke", "riddle"), ("joke", "story")], [("joke", "story"), ("joke", "pun")],
              [("joke", "riddle"), ("joke", "pun")]]
    model = fi.DPO().fit(mdp, None, rankings=orders)
    named = fi.DPO().fit(mdp, {a: ("joke", a) for a in ("pun", "riddle", "story")},
                         rankings=[[a for _, a in order] for order in orders])
    np.testing.assert_allclose(model.policy(), named.policy(), rtol=1e-12)
