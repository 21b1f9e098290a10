"""The model of a Markov decision process: laws of its forms; the oracles are dense arrays and gymnasium's own P."""

import tracemalloc

import gymnasium
import numpy as np
import pytest
from scipy import sparse

from fastirl import mdp as module
from fastirl.exceptions import InvalidInputError
from fastirl.mdp import MDP

S, A = 7, 3


def dense_tensor(seed=0, n_states=S, n_actions=A, density=0.5):
    rng = np.random.default_rng(seed)
    tensor = rng.random((n_states, n_actions, n_states)) * (rng.random((n_states, n_actions, n_states)) < density)
    always = rng.integers(n_states, size=(n_states, n_actions))
    tensor[np.arange(n_states)[:, None], np.arange(n_actions), always] += 0.5
    return tensor / tensor.sum(axis=2, keepdims=True)


def some_available(seed=0):
    rng = np.random.default_rng(seed)
    mask = rng.random((S, A)) < 0.6
    mask[np.arange(S), rng.integers(A, size=S)] = True
    return mask


def some_policy(mdp, seed=0):
    weights = np.random.default_rng(seed).random(mdp.n_pairs)
    return weights / np.bincount(mdp.pair_state, weights, minlength=mdp.n_states)[mdp.pair_state]


def assert_same_model(one, other):
    np.testing.assert_array_equal(one.pair_state, other.pair_state)
    np.testing.assert_array_equal(one.pair_action, other.pair_action)
    np.testing.assert_array_equal(one.indptr, other.indptr)
    np.testing.assert_array_equal(one.indices, other.indices)
    np.testing.assert_array_equal(one.probability, other.probability)
    np.testing.assert_array_equal(one.terminal, other.terminal)


# --- one model, whatever form it came in


@pytest.mark.parametrize("terminal", (None, [2], [0, 6]))
@pytest.mark.parametrize("available", (None, some_available()))
def test_all_forms_of_a_tensor_make_the_same_model(terminal, available):
    tensor = dense_tensor()
    options = dict(terminal=terminal, available=available)
    one = MDP(tensor, **options)
    assert_same_model(one, MDP(tensor.tolist(), **options))
    assert_same_model(one, MDP(np.asfortranarray(tensor), **options))
    for kind in (sparse.csr_array, sparse.csc_matrix, sparse.coo_array):
        assert_same_model(one, MDP([kind(tensor[:, a]) for a in range(A)], **options))
    keep = np.ones((S, A), bool) if available is None else available
    rows = np.random.default_rng(1).permutation(np.flatnonzero(keep))
    other = MDP.from_pairs(sparse.csr_array(tensor.reshape(S * A, S)[rows]), rows // A, rows % A, n_actions=A,
                           terminal=terminal)
    assert_same_model(one, other)
    np.testing.assert_array_equal(rows[other.pair_order], one.pair_order)
    acting = keep & ~one.terminal[:, None]
    np.testing.assert_array_equal(one.to_dense(), tensor * acting[:, :, None])
    np.testing.assert_array_equal(one.transitions.toarray(), tensor[acting])


def test_blocks_do_not_show_in_the_result(monkeypatch):
    tensor, reward = dense_tensor(), np.random.default_rng(3).normal(size=(S, A, S))
    whole = MDP(tensor, available=some_available(), terminal=[3])
    scaled = MDP(tensor * 2.0, normalize=True)
    expected = whole.reward_vector(reward)
    monkeypatch.setattr(module, "_BLOCK", 5)
    assert_same_model(whole, MDP(tensor, available=some_available(), terminal=[3]))
    assert_same_model(whole, MDP([sparse.csr_array(tensor[:, a]) for a in range(A)], available=some_available(),
                                 terminal=[3]))
    assert_same_model(scaled, MDP(tensor * 2.0, normalize=True))
    np.testing.assert_allclose(whole.reward_vector(reward), expected, rtol=1e-14)
    loose = (whole.transitions.toarray() > 0).astype(float)
    loose[0] = 1.0
    loose = sparse.csr_array(loose)
    np.testing.assert_allclose(whole.reward_vector(loose), 1.0, rtol=1e-14)


def test_the_layout_is_what_kernels_rely_on():
    mdp = MDP(dense_tensor(), available=some_available(), terminal=[4])
    types = {"indptr": np.int64, "indices": np.int32, "probability": np.float64, "pair_state": np.int32,
             "pair_action": np.int32, "pair_ptr": np.int64, "pair_order": np.int64, "terminal": np.bool_}
    for name, dtype in types.items():
        assert getattr(mdp, name).dtype == dtype and getattr(mdp, name).flags.c_contiguous
    for name in set(types) - {"pair_order"}:
        with pytest.raises(ValueError, match="read-only"):
            getattr(mdp, name)[0] = 0
    assert mdp.transitions.indices.dtype == np.int32 and mdp.transitions.has_canonical_format
    counts = np.diff(mdp.pair_ptr)
    np.testing.assert_array_equal(np.repeat(np.arange(S), counts), mdp.pair_state)
    assert counts[4] == 0 and (counts[~mdp.terminal] > 0).all()
    assert (mdp.n_states, mdp.n_actions, mdp.n_pairs, mdp.nnz) == (S, A, mdp.pair_ptr[-1], mdp.indptr[-1])


def test_relabelling_states_relabels_the_model():
    tensor, new = dense_tensor(), np.random.default_rng(5).permutation(S)
    there = np.empty_like(tensor)
    there[np.ix_(new, np.arange(A), new)] = tensor
    mdp, moved = MDP(tensor, terminal=[1]), MDP(there, terminal=[new[1]])
    pairs = moved.pair_index(new[mdp.pair_state], mdp.pair_action)
    np.testing.assert_array_equal(moved.transitions.toarray()[pairs][:, new], mdp.transitions.toarray())


def test_duplicate_entries_are_added_and_unsorted_rows_sorted():
    matrix = sparse.csr_array((np.array([0.25, 0.5, 0.25, 1.0]), np.array([2, 0, 2, 1]), np.array([0, 3, 4, 4])),
                              shape=(3, 3))
    mdp = MDP.from_pairs(matrix, [0, 1, 2], [0, 0, 0], terminal=[2])
    np.testing.assert_array_equal(mdp.transitions.toarray(), [[0.5, 0, 0.5], [0, 1, 0]])
    np.testing.assert_array_equal(matrix.indices, [2, 0, 2, 1])  # the caller's matrix stays as it was
    assert mdp.nnz == 3


# --- terminal states


def test_rows_of_terminal_states_are_ignored_whatever_they_hold():
    tensor = dense_tensor()
    expected = MDP(tensor, terminal=[2])
    for rubbish in (np.nan, -1.0, np.inf, 0.0):
        tensor[2] = rubbish
        assert_same_model(expected, MDP(tensor, terminal=np.arange(S) == 2))
        assert_same_model(expected, MDP.from_pairs(tensor.reshape(-1, S), np.arange(S * A) // A, np.arange(S * A) % A,
                                                   terminal=[2]))


def test_an_absorbing_state_is_ordinary_unless_it_is_named():
    tensor = np.array([[[0.0, 1.0]], [[0.0, 1.0]]])
    assert not MDP(tensor).terminal.any() and MDP(tensor).n_pairs == 2
    assert MDP(tensor, terminal=[1]).n_pairs == 1
    np.testing.assert_array_equal(MDP(tensor, terminal=[1]).transition_matrix(None).toarray(), [[0, 1], [0, 0]])


def test_a_model_may_consist_of_terminal_states():
    mdp = MDP(np.zeros((2, 1, 2)), terminal=[0, 1])
    assert mdp.n_pairs == mdp.nnz == 0
    assert mdp.reward_vector([1.0, 2.0]).shape == (0,)
    assert mdp.transition_matrix(None).nnz == 0 and mdp.to_dense().sum() == 0
    assert mdp.min_row_sum == mdp.max_row_sum == 1.0
    assert_same_model(mdp, MDP.from_pairs(sparse.csr_array((0, 2)), [], [], terminal=[True, True]))


def test_a_terminal_states_own_reward_does_not_count():
    # a chain 0 → 1 → 2, state 2 terminal: V(0) = r(0) + γ r(1), whatever r(2) is
    tensor = np.zeros((3, 1, 3))
    tensor[0, 0, 1] = tensor[1, 0, 2] = 1.0
    mdp = MDP(tensor, terminal=[2], discount=0.5)
    for own in (0.0, 1e6, np.nan, np.inf, -np.inf):
        reward = mdp.reward_vector([1.0, 10.0, own], "state")
        np.testing.assert_array_equal(reward, [1.0, 10.0])
        state_reward = np.zeros(3)
        state_reward[mdp.pair_state] = reward
        value = np.linalg.solve(np.eye(3) - 0.5 * mdp.transition_matrix(None).toarray(), state_reward)
        np.testing.assert_allclose(value, [6.0, 10.0, 0.0], rtol=1e-15)


# --- rewards


def test_rewards_in_every_form_are_the_dense_expectation():
    tensor, mask = dense_tensor(), some_available()
    mdp = MDP(tensor, available=mask, terminal=[5])
    mask = mask & ~mdp.terminal[:, None]
    rng = np.random.default_rng(2)
    by_state, by_both, by_step = rng.normal(size=S), rng.normal(size=(S, A)), rng.normal(size=(S, A, S))
    np.testing.assert_array_equal(mdp.reward_vector(by_state), np.repeat(by_state[:, None], A, 1)[mask])
    np.testing.assert_array_equal(mdp.reward_vector(by_both), by_both[mask])
    np.testing.assert_array_equal(mdp.reward_vector(by_both[mask]), by_both[mask])
    oracle = np.einsum("sat,sat->sa", tensor, by_step)[mask]
    entries = by_step[mask][tensor[mask] > 0]
    other_pattern = sparse.csr_array(by_step[mask] * (rng.random(by_step[mask].shape) < 0.5))
    for form in (by_step, entries, sparse.csr_array(by_step[mask]), sparse.csc_matrix(by_step[mask])):
        np.testing.assert_allclose(mdp.reward_vector(form), oracle, rtol=1e-13, atol=1e-14)
        np.testing.assert_allclose(mdp.reward_vector(form, "transition"), oracle, rtol=1e-13, atol=1e-14)
    np.testing.assert_allclose(mdp.reward_vector(other_pattern), (tensor[mask] * other_pattern.toarray()).sum(1),
                               rtol=1e-13, atol=1e-14)
    # on arrival
    np.testing.assert_allclose(mdp.reward_vector(mdp.transitions @ by_state, "pair"),
                               np.einsum("sat,t->sa", tensor, by_state)[mask], rtol=1e-13)


def test_pair_order_brings_arrays_over_the_callers_rows_into_the_models_order():
    tensor, rows = dense_tensor(), np.random.default_rng(1).permutation(S * A)
    reward = np.random.default_rng(2).normal(size=(S, A))
    features = np.random.default_rng(3).normal(size=(S * A, 2))
    mdp = MDP.from_pairs(tensor.reshape(-1, S)[rows], rows // A, rows % A, terminal=[0], features=features[rows])
    np.testing.assert_array_equal(reward.ravel()[rows][mdp.pair_order], mdp.reward_vector(reward))
    np.testing.assert_array_equal(mdp.features, features[A:])
    mdp = MDP(tensor, terminal=[0])
    np.testing.assert_array_equal(reward.ravel()[mdp.pair_order], mdp.reward_vector(reward))


def test_minus_infinity_forbids_a_pair_and_impossible_transitions_do_not_count():
    tensor = np.array([[[0.5, 0.5], [1.0, 0.0]], [[0.0, 1.0], [0.5, 0.5]]])
    mdp = MDP(tensor)
    np.testing.assert_array_equal(mdp.reward_vector([[-np.inf, 1], [2, 3]]), [-np.inf, 1, 2, 3])
    reward = np.ones((2, 2, 2))
    reward[0, 1, 1], reward[1, 0, 0], reward[1, 1, 0] = np.nan, -np.inf, -np.inf
    np.testing.assert_array_equal(mdp.reward_vector(reward), [1, 1, 1, -np.inf])
    explicit = sparse.csr_array((np.array([1.0, 0.0, 1.0]), np.array([0, 1, 1]), np.array([0, 2, 3])), shape=(2, 2))
    zeros = MDP.from_pairs(explicit, [0, 1], [0, 0])
    assert zeros.nnz == 3
    for ignored in (-np.inf, np.nan, np.inf):
        np.testing.assert_array_equal(zeros.reward_vector([2.0, ignored, 3.0], "transition"), [2.0, 3.0])


def test_rewards_that_are_nan_or_plus_infinity_are_named():
    mdp = MDP(dense_tensor(), state_ids=list("abcdefg"), action_ids=["left", "stay", "right"])
    reward = np.zeros((S, A))
    for bad in (np.nan, np.inf):
        reward[3, 1] = bad
        with pytest.raises(InvalidInputError, match="state 'd', action 'stay' has .*; use a finite reward"):
            mdp.reward_vector(reward)
    full = np.zeros((S, A, S))
    target = int(mdp.indices[mdp.indptr[5]])
    full[1, 2, target] = np.nan
    with pytest.raises(InvalidInputError, match=f"state 'b', action 'right', next state '{'abcdefg'[target]}' has nan"):
        mdp.reward_vector(full)


def test_complex_rewards_are_refused_and_not_cut():
    mdp = MDP(dense_tensor())
    for reward in (np.ones((S, A)) + 1j, sparse.csr_array(np.ones((mdp.n_pairs, S)) * 1j)):
        with pytest.raises(InvalidInputError, match="numbers.*complex.*; convert it"):
            mdp.reward_vector(reward)


def test_no_array_of_a_model_can_be_written_to():
    mdp = MDP(dense_tensor())
    for array in (mdp.probability, mdp.indices, mdp.indptr, mdp.terminal, mdp.pair_state, mdp.transitions.data,
                  mdp.transitions.indices, mdp.transitions.indptr):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1


def test_a_reward_that_fits_two_readings_is_an_error_that_lists_them():
    # 3 states, the last terminal; 3 pairs
    matrix = sparse.csr_array(np.array([[0.5, 0.5, 0], [0, 0.5, 0.5], [0, 0, 1.0]]))
    mdp = MDP.from_pairs(matrix, [0, 0, 1], [0, 1, 0], terminal=[2])
    assert mdp.n_pairs == mdp.n_states
    with pytest.raises(InvalidInputError, match="reward_on='state' or reward_on='pair'"):
        mdp.reward_vector([1.0, 2.0, 3.0])
    np.testing.assert_array_equal(mdp.reward_vector([1.0, 2.0, 3.0], "state"), [1, 1, 2])
    np.testing.assert_array_equal(mdp.reward_vector([1.0, 2.0, 3.0], "pair"), [1, 2, 3])
    with pytest.raises(InvalidInputError, match="features_on='state' or features_on='pair'"):
        mdp.with_features(np.eye(3))
    np.testing.assert_array_equal(mdp.with_features(np.eye(3), features_on="state").features, np.eye(3)[[0, 0, 1]])


def test_readings_that_agree_for_every_reward_are_not_a_collision():
    one_action = MDP(dense_tensor(n_actions=1))
    reward = np.arange(float(S))
    np.testing.assert_array_equal(one_action.reward_vector(reward), reward)
    chain = MDP(np.roll(np.eye(4), 1, axis=1)[:, None, :].repeat(2, axis=1))
    assert chain.deterministic and chain.nnz == chain.n_pairs
    np.testing.assert_array_equal(chain.reward_vector(np.arange(8.0)), np.arange(8.0))


@pytest.mark.parametrize("reward, on", [
    (np.zeros(5), "auto"), (np.zeros((A, S)), "auto"), (np.zeros((S, A)), "state"), (0.0, "auto"),
    (sparse.csr_array((S, S)), "auto"), (np.zeros(S), "pair"), (np.zeros((S, A, A)), "transition"),
])
def test_a_reward_that_fits_nothing_is_an_error_that_lists_the_shapes(reward, on):
    with pytest.raises(InvalidInputError, match=r"\(7,\) per state, \(7, 3\) per state and action"):
        MDP(dense_tensor()).reward_vector(reward, on)
    with pytest.raises(InvalidInputError, match="`reward_on` must be one of"):
        MDP(dense_tensor()).reward_vector(reward, "link")


# --- policies


def test_policies_in_every_form_agree_with_the_dense_product():
    tensor, mask = dense_tensor(), some_available()
    mdp = MDP(tensor, available=mask, terminal=[5])
    policy = some_policy(mdp)
    matrix = mdp.policy_matrix(policy)
    np.testing.assert_allclose(matrix.sum(axis=1), ~mdp.terminal, rtol=1e-14)
    assert (matrix[~mask] == 0).all() and (matrix[5] == 0).all()
    np.testing.assert_array_equal(mdp.policy_vector(matrix), policy)
    np.testing.assert_allclose(mdp.transition_matrix(policy).toarray(), np.einsum("sa,sat->st", matrix, tensor),
                               rtol=1e-13)
    actions = np.argmax(mask, axis=1)
    chosen = tensor[np.arange(S), actions] * ~mdp.terminal[:, None]
    np.testing.assert_array_equal(mdp.transition_matrix(actions).toarray(), chosen)
    np.testing.assert_allclose(mdp.policy_vector(None), 1 / (mask & ~mdp.terminal[:, None]).sum(1)[mdp.pair_state])


@pytest.mark.parametrize("change, message", [
    (lambda p: -p, "state 0, action 0 has -"), (lambda p: p * np.nan, "state 0, action 0 has nan"),
    (lambda p: p * 1.001, "state 0 sums to 1.001"), (lambda p: p[:-1], r"pass \(21,\) probabilities of pairs"),
    (lambda p: np.array([0, 0, 0, 0, 0, 0, 3]), "`action` must lie between 0 and 2"),
])
def test_a_policy_that_is_none_is_named(change, message):
    mdp = MDP(dense_tensor())
    with pytest.raises(InvalidInputError, match=message):
        mdp.policy_vector(change(some_policy(mdp)))


def test_a_policy_must_not_use_actions_that_do_not_exist():
    mask = np.ones((S, A), bool)
    mask[2, 1] = False
    mdp = MDP(dense_tensor(), available=mask)
    with pytest.raises(InvalidInputError, match="state 2, action 1 has 0.333"):
        mdp.policy_matrix(np.full((S, A), 1 / 3))
    with pytest.raises(InvalidInputError, match="state 2, action 1, but the state lacks the action"):
        mdp.policy_vector(np.ones(S, int))


def test_integers_that_can_be_actions_or_probabilities_are_an_error():
    matrix = sparse.csr_array(np.array([[0.5, 0.5, 0], [0, 0.5, 0.5], [0, 0, 1.0]]))
    mdp = MDP.from_pairs(matrix, [0, 0, 1], [0, 1, 0], terminal=[2])
    with pytest.raises(InvalidInputError, match="integers can be actions of states or probabilities"):
        mdp.policy_vector([0, 1, 1])
    np.testing.assert_array_equal(mdp.policy_vector([0.0, 1.0, 1.0]), [0, 1, 1])
    single = MDP(dense_tensor(n_actions=1))
    np.testing.assert_array_equal(single.policy_vector(np.zeros(S, int)), single.policy_vector(np.ones(S, int)))


# --- gymnasium

GAMES = {
    "FrozenLake 4x4": ("FrozenLake-v1", {}),
    "FrozenLake 8x8 dry": ("FrozenLake-v1", {"map_name": "8x8", "is_slippery": False}),
    "Taxi": ("Taxi-v4", {}),
    "Taxi in rain": ("Taxi-v4", {"is_rainy": True}),
    "CliffWalking": ("CliffWalking-v1", {}),
    "CliffWalking on ice": ("CliffWalking-v1", {"is_slippery": True}),
}


def make(name):
    identifier, options = GAMES[name]
    return gymnasium.make(identifier, **options)


@pytest.mark.parametrize("name", GAMES)
def test_a_games_episodes_are_those_of_its_own_table(name):
    """Sweeps over P as gymnasium steps through it (terminated: nothing follows) equal dense sweeps over the model."""
    env, discount, sweeps = make(name), 0.9, 60
    table = env.unwrapped.P
    mdp = MDP.from_gymnasium(env, discount)
    n = len(table)
    tensor, reward = np.zeros((n, len(table[0]), n)), np.zeros((n, len(table[0])))
    for s in range(n):
        for a in table[s]:
            for probability, after, earned, terminated in table[s][a]:
                tensor[s, a, after] += probability * (not terminated)
                reward[s, a] += probability * earned
    expected, found = np.zeros(n), np.zeros(mdp.n_states)
    for _ in range(sweeps):
        expected = (reward + discount * tensor @ expected).max(axis=1)
        q = np.full((mdp.n_states, mdp.n_actions), -np.inf)
        q[mdp.pair_state, mdp.pair_action] = mdp.reward + discount * (mdp.transitions @ found)
        found = np.where(mdp.terminal, 0.0, q.max(axis=1))
    acting = np.flatnonzero(~mdp.terminal)
    np.testing.assert_allclose(found[acting], expected[acting], rtol=1e-12, atol=1e-12)
    assert np.abs(expected).max() > 0.01


@pytest.mark.parametrize("name, n_states, terminal", [
    ("FrozenLake 4x4", 16, [5, 7, 11, 12, 15]),  # holes and goal of SFFF FHFH FFFH HFFG
    ("CliffWalking", 48, [47]), ("CliffWalking on ice", 48, [47]),
    ("Taxi", 501, [500]), ("Taxi in rain", 501, [500]),
])
def test_a_game_ends_where_its_rules_say(name, n_states, terminal):
    env = make(name)
    mdp = MDP.from_gymnasium(env)
    assert mdp.n_states == n_states
    np.testing.assert_array_equal(np.flatnonzero(mdp.terminal), terminal)
    begins = getattr(env.unwrapped, "initial_state_distrib", None)
    assert (mdp.initial_distribution is None) == (begins is None)
    if begins is not None:
        np.testing.assert_array_equal(mdp.initial_distribution[:len(begins)], begins)
        assert mdp.initial_distribution[mdp.terminal].sum() == 0
    np.testing.assert_array_equal(mdp.reward_vector(None), mdp.reward)


class Game:
    def __init__(self, table, begins=None):
        self.P = table
        if begins is not None:
            self.initial_state_distrib = np.array(begins)


def test_a_state_that_is_entered_both_ways_goes_on_and_a_terminal_state_is_added():
    # from 0: to 1 with the end (half), to 1 without (half); 1 acts
    outcomes = [(0.5, 1, 4.0, True), (0.5, 1, 2.0, False), (0.0, 0, np.inf, True)]
    table = {0: {0: outcomes}, 1: {0: [(1.0, 0, 1.0, False)]}}
    mdp = MDP.from_gymnasium(Game(table))
    np.testing.assert_array_equal(mdp.transitions.toarray(), [[0, 0.5, 0.5], [1, 0, 0]])
    np.testing.assert_array_equal(mdp.terminal, [False, False, True])
    np.testing.assert_array_equal(mdp.reward, [3.0, 1.0])


def test_a_state_in_which_episodes_begin_goes_on():
    table = [[[(1.0, 1, 1.0, True)]], [[(1.0, 0, 2.0, False)]]]
    assert MDP.from_gymnasium(Game(table)).n_states == 2
    mdp = MDP.from_gymnasium(Game(table, [0.5, 0.5]))
    np.testing.assert_array_equal(mdp.transitions.toarray(), [[0, 0, 1], [1, 0, 0]])
    np.testing.assert_array_equal(mdp.initial_distribution, [0.5, 0.5, 0.0])


def test_states_that_cease_to_be_terminal_act():
    # 1 and 2 are entered by terminated transitions; 1 also by a plain one from 0; so 1 acts and enters 2 plainly
    table = [[[(1.0, 1, 0, True)], [(1.0, 1, 0, False)]], [[(1.0, 2, 0, False)]], [[(1.0, 2, 0, True)]]]
    mdp = MDP.from_gymnasium(Game(table))
    np.testing.assert_array_equal(np.flatnonzero(mdp.terminal), [3])
    np.testing.assert_array_equal(mdp.transitions.indices, [3, 1, 2, 3])


def test_an_environment_without_a_table_is_named():
    with pytest.raises(InvalidInputError, match="object has none; pass a toy-text environment, or use MDP.from_counts"):
        MDP.from_gymnasium(object())
    with pytest.raises(InvalidInputError, match="next states of env.unwrapped.P` must lie between 0 and 0"):
        MDP.from_gymnasium(Game([[[(1.0, 1, 0.0, False)]]]))


# --- counts


def observations(tensor, n, seed=0):
    rng = np.random.default_rng(seed)
    state, action = rng.integers(tensor.shape[0], size=n), rng.integers(tensor.shape[1], size=n)
    return state, action, (tensor[state, action].cumsum(axis=1) < rng.random((n, 1))).sum(axis=1)


def test_counts_give_relative_frequencies_and_with_a_prior_the_posterior_mean():
    state, action, after = observations(dense_tensor(), 3000)
    table = np.zeros((S, A, S))
    np.add.at(table, (state, action, after), 1.0)
    plain = MDP.from_counts(state, action, after, S, A)
    np.testing.assert_allclose(plain.to_dense(), table / table.sum(2, keepdims=True), rtol=1e-14)
    smooth = MDP.from_counts(state, action, after, S, A, prior=0.5)
    oracle = (table + 0.5) / (table.sum(2, keepdims=True) + 0.5 * S)
    np.testing.assert_allclose(smooth.to_dense(), oracle, rtol=1e-14)
    seen = table.sum(1, keepdims=True) > 0
    local = MDP.from_counts(state, action, after, S, A, prior=0.5, support="seen")
    oracle = (table + 0.5 * seen) / (table.sum(2, keepdims=True) + 0.5 * seen.sum(2, keepdims=True))
    np.testing.assert_allclose(local.to_dense(), oracle, rtol=1e-14)
    for support in (seen[:, 0], sparse.csc_matrix(seen[:, 0].astype(float))):
        given = MDP.from_counts(state, action, after, S, A, prior=0.5, support=support)
        np.testing.assert_allclose(given.to_dense(), oracle, rtol=1e-14)
    cells = np.argwhere(table)
    weighed = MDP.from_counts(*cells.T, S, A, count=table[tuple(cells.T)], terminal=[6])
    np.testing.assert_allclose(weighed.to_dense()[:6], plain.to_dense()[:6], rtol=1e-14)


def test_pairs_never_observed_are_an_explicit_decision():
    seen = dict(state=[0, 0, 1], action=[0, 1, 0], next_state=[1, 1, 2], n_states=3, n_actions=2)
    with pytest.raises(InvalidInputError, match=r"state 1, action 1 never was \(1 such pairs\); pass unseen='drop'"):
        MDP.from_counts(**seen, terminal=[2])
    dropped = MDP.from_counts(**seen, terminal=[2], unseen="drop")
    np.testing.assert_array_equal(dropped.pair_order, [0, 1, 2])
    with pytest.raises(InvalidInputError, match="state 2 has none; name it in `terminal`"):
        MDP.from_counts(**seen, unseen="drop")
    prior = MDP.from_counts(**seen, terminal=[2], unseen="prior", prior=2.0)
    np.testing.assert_allclose(prior.transitions.toarray()[3], 1 / 3)
    known = MDP.from_counts(**seen, terminal=[2], unseen="prior", prior=2.0, support=np.eye(3, k=1))
    np.testing.assert_array_equal(known.transitions.toarray(), [[0, 1, 0], [0, 1, 0], [0, 0, 1], [0, 0, 1]])
    declared = MDP.from_counts(**seen, terminal=[2], available=np.array([[1, 1], [1, 0], [0, 0]], bool))
    assert_same_model(declared, dropped)


@pytest.mark.parametrize("options, message", [
    (dict(unseen="prior"), "prior is 0"), (dict(prior=-1.0), "`prior` must be finite and at least 0"),
    (dict(unseen="guess"), "`unseen` must be one of"), (dict(prior=1.0, support="near"), "`support` must be one of"),
    (dict(prior=1.0, support=np.eye(2)), r"must be 'all', 'seen' or an \(3, 3\) matrix"),
    (dict(prior=1.0, support=np.eye(3)), "state 0, action 0 led to 1; add it to `support`"),
    (dict(prior=1.0, unseen="prior", terminal=None, support="seen"), "state 2, action 0 has none"),
    (dict(count=[1.0, -1.0, 1.0]), "`count` must not be negative"),
])
def test_counts_that_cannot_be_are_named(options, message):
    arguments = dict(terminal=[2], available=np.array([[1, 1], [1, 0], [1, 0]], bool)) | options
    with pytest.raises(InvalidInputError, match=message):
        MDP.from_counts([0, 0, 1], [0, 1, 0], [1, 1, 2], 3, 2, **arguments)


# --- what is refused


def spoiled(change):
    tensor = dense_tensor()
    change(tensor)
    return tensor


def set_entry(value):
    return lambda tensor: tensor.__setitem__((4, 1, 2), value)


@pytest.mark.parametrize("change, message", [
    (set_entry(np.nan), "state 4, action 1, next state 2 has nan; mend that entry"),
    (set_entry(-0.25), "state 4, action 1, next state 2 has -0.25"),
    (set_entry(np.inf), "state 4, action 1, next state 2 has inf"),
    (lambda tensor: tensor.__imul__(np.where(np.arange(S) == 4, 0.5, 1.0)[:, None, None]),
     "state 4, action 0 sums to 0.5; pass normalize=True to rescale"),
    (lambda tensor: tensor.__setitem__((4, 1), 0.0), "state 4, action 1 sums to 0; declare an action"),
])
def test_each_form_names_the_state_and_action_of_a_bad_row(change, message):
    tensor = spoiled(change)
    with pytest.raises(InvalidInputError, match=message):
        MDP(tensor)
    with pytest.raises(InvalidInputError, match=message):
        MDP([sparse.csr_array(tensor[:, a]) for a in range(A)])
    rows = np.random.default_rng(0).permutation(S * A)
    with pytest.raises(InvalidInputError, match=message):
        MDP.from_pairs(sparse.csr_array(tensor.reshape(-1, S)[rows]), rows // A, rows % A)


def test_row_sums_within_the_tolerance_are_kept_and_reported():
    tensor = dense_tensor()
    tensor[0] *= 1 + 0.9e-8
    mdp = MDP(tensor)
    assert mdp.max_row_sum == pytest.approx(1 + 0.9e-8, abs=1e-15)
    np.testing.assert_array_equal(mdp.to_dense(), tensor)
    tensor[0] *= 1 + 0.2e-8
    with pytest.raises(InvalidInputError, match="state 0, action 0 sums to 1.00000001"):
        MDP(tensor)


def test_normalize_rescales_and_leaves_the_callers_arrays_alone():
    tensor = dense_tensor()
    scaled = tensor * np.random.default_rng(4).uniform(0.1, 9, (S, A, 1))
    np.testing.assert_allclose(MDP(scaled, normalize=True).to_dense(), tensor, rtol=1e-14)
    matrix = sparse.csr_array(scaled.reshape(-1, S))
    before = matrix.data.copy()
    mdp = MDP.from_pairs(matrix, np.arange(S * A) // A, np.arange(S * A) % A, normalize=True)
    np.testing.assert_allclose(mdp.to_dense(), tensor, rtol=1e-14)
    np.testing.assert_array_equal(matrix.data, before)
    assert mdp.max_row_sum == pytest.approx(1, abs=1e-15)
    scaled[4, 1] = 0.0
    with pytest.raises(InvalidInputError, match="state 4, action 1 sums to 0; a row of zeros cannot be rescaled"):
        MDP(scaled, normalize=True)


def test_a_leak_ends_the_process_only_where_it_is_allowed():
    tensor = dense_tensor()
    tensor[3] *= 0.25
    tensor[4, 0] = 0.0
    with pytest.raises(InvalidInputError, match="allow_leak=True"):
        MDP(tensor)
    mdp = MDP(tensor, allow_leak=True)
    assert mdp.min_row_sum == 0.0 and not mdp.deterministic
    np.testing.assert_array_equal(mdp.to_dense(), tensor)
    tensor[3] *= 8
    with pytest.raises(InvalidInputError, match="sum to at most 1: state 3, action 0 sums to 2"):
        MDP(tensor, allow_leak=True)
    with pytest.raises(InvalidInputError, match="must not both be True"):
        MDP(tensor, allow_leak=True, normalize=True)


@pytest.mark.parametrize("transitions, message", [
    (np.zeros((3, 4)), r"shape \(S, A, S\): got \(3, 4\)"),
    (np.zeros((2, 3, 3)), r"looks like \(A, S, S\)"),
    (np.zeros((0, 1, 0)), "at least one state"), (np.zeros((2, 0, 2)), "at least one state and one action"),
    ([], "shape"), ("abc", "must hold numbers"), ([[["a"]]], "must hold numbers"),
    (sparse.eye_array(3), "got one sparse matrix"),
    ([np.eye(3), np.eye(3)], "must hold sparse matrices: entry 0 is a dense array"),
    ([sparse.eye_array(3), np.eye(3)], "entry 1 is ndarray"),
    ([sparse.eye_array(3), sparse.eye_array(4)], r"action 1 has \(4, 4\)"),
    ([sparse.csr_array((2, 3))], r"action 0 has \(2, 3\)"),
    ([sparse.eye_array(3) * 1j], "real numbers"),
])
def test_what_is_no_tensor_is_named(transitions, message):
    with pytest.raises(InvalidInputError, match=message):
        MDP(transitions)


@pytest.mark.parametrize("options, message", [
    (dict(discount=1.01), "`discount` must be finite and at least 0 and at most 1: got 1.01"),
    (dict(discount=-0.1), "`discount`"), (dict(discount=np.nan), "`discount`"), (dict(discount="most"), "`discount`"),
    (dict(terminal=[7]), "`terminal` must lie between 0 and 6"), (dict(terminal=[1, 1]), "1 occurs again; pass a bool"),
    (dict(terminal=np.zeros(3, bool)), r"must have shape \(7,\): got \(3,\)"),
    (dict(available=np.ones((A, S), bool)), r"bool array of shape \(7, 3\)"),
    (dict(available=np.ones((S, A))), "dtype float64"),
    (dict(available=np.arange(S)[:, None].repeat(A, 1) != 3), "state 3 has none"),
    (dict(state_ids=list("abcdefa")), "'a' occurs 2 times"), (dict(action_ids=["x"]), "`action_ids` must have 3"),
    (dict(features=np.zeros((5, 2))), r"\(7, k\) per state"),
    (dict(features=np.full((S, 1), np.nan)), "must be finite"),
    (dict(features=np.zeros((S, 2)), feature_names=["x"]), "one name for each of the 2"),
    (dict(features=np.zeros((S, 2)), feature_names=["x", "x"]), "different texts"),
    (dict(feature_names=["x"]), "must come with `features`"),
])
def test_what_does_not_fit_a_tensor_is_named(options, message):
    with pytest.raises(InvalidInputError, match=message):
        MDP(dense_tensor(), **options)


@pytest.mark.parametrize("state, action, options, message", [
    ([0, 1, 1], [0, 0, 0], {}, "state 1, action 0 has more than one row"),
    ([0, 0, 1], [0, 1, 0], {}, "state 2 has none; name it in `terminal`"),
    ([0, 1], [0, 0], {}, "`state` must have 3 entries"), ([0, 1, 2], [0, 0], {}, "`action` must have 3 entries"),
    ([0, 1, 3], [0, 0, 0], {}, "`state` must lie between 0 and 2"),
    ([0, 1, 2], [0, -1, 0], {}, "`action` must lie between"),
    ([0, 1, 2], [0, np.nan, 0], {}, "`action` must hold whole numbers"),
    ([0, 1, 2], [0, 1, 2], dict(n_actions=2), "`action` must lie between 0 and 1"),
    ([0, 1, 2], [0, 1, 2], dict(features=np.zeros((4, 1))), "`features` must have 3 rows"),
    ([0, 1, 2], [0, 1, 2], dict(features=sparse.csr_array((4, 1))), "`features` must have 3 rows"),
])
def test_pairs_that_make_no_model_are_named(state, action, options, message):
    with pytest.raises(InvalidInputError, match=message):
        MDP.from_pairs(sparse.eye_array(3, format="csr"), state, action, **options)


def test_a_broken_csr_matrix_is_refused_before_it_is_read():
    for name, value in (("indices", np.array([0, 9, 2])), ("indices", np.array([0, -1, 2]))):
        matrix = sparse.eye_array(3, format="csr")
        setattr(matrix, name, value.astype(np.int32))
        with pytest.raises(InvalidInputError, match=f"state 1, action 0 leads to {value[1]}; check the column"):
            MDP.from_pairs(matrix, [0, 1, 2], [0, 0, 0])
    matrix = sparse.eye_array(3, format="csr")
    matrix.indptr = np.array([0, 2, 1, 3], np.int32)
    with pytest.raises(InvalidInputError, match="indptr does not ascend"):
        MDP.from_pairs(matrix, [0, 1, 2], [0, 0, 0])
    with pytest.raises(InvalidInputError, match="two dimensions"):
        MDP.from_pairs(np.zeros(3), [0, 1, 2], [0, 0, 0])


def test_more_entries_than_32_bits_can_number_are_named(monkeypatch):
    tensor = dense_tensor(density=1.0)
    monkeypatch.setattr(module, "_NNZ_LIMIT", 4 * S + 2)  # passed by the fifth pair: state 1, action 1
    rows = np.arange(S * A)
    for build in (lambda: MDP(tensor), lambda: MDP([sparse.csr_array(tensor[:, a]) for a in range(A)]),
                  lambda: MDP.from_pairs(sparse.csr_array(tensor.reshape(-1, S)), rows // A, rows % A)):
        with pytest.raises(InvalidInputError, match="at most 30 nonzero entries.*: state 1, action 1 passes it"):
            build()
    with pytest.raises(InvalidInputError, match="support='all' must not exceed 30 entries"):
        MDP.from_counts(rows // A, rows % A, rows % S, S, A, prior=1.0)


# --- memory


def pairs_with_right_types(n_states=20_000, n_actions=4, width=25):
    indices = (np.arange(n_states)[:, None, None] + np.arange(width)) % n_states
    indices = np.sort(np.broadcast_to(indices, (n_states, n_actions, width)), axis=2).astype(np.int32).ravel()
    data = np.full(indices.size, 1 / width)
    indptr = np.arange(0, indices.size + 1, width, dtype=np.int32)
    pairs = np.arange(n_states * n_actions, dtype=np.int32)
    matrix = sparse.csr_array((data, indices, indptr), shape=(pairs.size, n_states))
    return matrix, pairs // n_actions, pairs % n_actions


def peak(build):
    tracemalloc.start()
    try:
        model = build()
        return tracemalloc.get_traced_memory()[1], model
    finally:
        tracemalloc.stop()


def test_arrays_of_the_right_types_are_not_copied():
    matrix, state, action = pairs_with_right_types()
    used, mdp = peak(lambda: MDP.from_pairs(matrix, state, action))
    assert np.shares_memory(mdp.probability, matrix.data) and np.shares_memory(mdp.indices, matrix.indices)
    assert np.shares_memory(mdp.transitions.data, matrix.data)
    assert used < 60 * mdp.n_pairs + 100 * mdp.n_states  # nothing of the 12 bytes × 25 a pair
    assert matrix.data.flags.writeable and not mdp.probability.flags.writeable


@pytest.mark.parametrize("change", ("order", "terminal", "duplicates", "types", "normalize", "list"))
def test_otherwise_one_copy_is_made(change):
    matrix, state, action = pairs_with_right_types()
    options = {}
    if change == "order":
        state, action = state[::-1], action[::-1]
    elif change == "terminal":
        options["terminal"] = [5]
    elif change == "duplicates":
        matrix.indices[:2] = matrix.indices[1]
        matrix.has_canonical_format = False
    elif change == "types":
        matrix.indices, matrix.indptr = matrix.indices.astype(np.int64), matrix.indptr.astype(np.int64)
        matrix.data = matrix.data.astype(np.float32)
        options["normalize"] = True
    elif change == "normalize":
        options["normalize"] = True
    form = [matrix[a::4] for a in range(4)]
    build = (lambda: MDP(form)) if change == "list" else (lambda: MDP.from_pairs(matrix, state, action, **options))
    module_block, module._BLOCK = module._BLOCK, 2**15
    try:
        used, mdp = peak(build)
    finally:
        module._BLOCK = module_block
    assert not np.shares_memory(mdp.probability, matrix.data)
    assert used < 12.5 * matrix.nnz + 80 * mdp.n_pairs + 100 * mdp.n_states


# --- conveniences


def test_features_per_state_action_and_pair_agree_dense_and_sparse():
    mask = some_available()
    mdp = MDP(dense_tensor(), available=mask, terminal=[5])
    mask = mask & ~mdp.terminal[:, None]
    cube = np.random.default_rng(6).normal(size=(S, A, 4))
    by_both = mdp.with_features(cube, list("abcd"))
    np.testing.assert_array_equal(by_both.features, cube[mask])
    assert by_both.feature_names == tuple("abcd") and by_both.n_features == 4 and mdp.n_features == 0
    np.testing.assert_array_equal(by_both.with_features(cube[mask]).features, cube[mask])
    assert by_both.with_features(cube[mask]).feature_names == tuple("abcd")
    assert mdp.with_features(cube[:, 0]).feature_names == ("x0", "x1", "x2", "x3")
    np.testing.assert_array_equal(mdp.with_features(cube[:, 0]).features, cube[:, 0][mdp.pair_state])
    for kind in (sparse.csr_array, sparse.coo_matrix):
        for features in (cube[:, 0], cube[mask]):
            found = mdp.with_features(kind(features)).features
            assert isinstance(found, sparse.csr_array)
            np.testing.assert_array_equal(found.toarray(), mdp.with_features(features).features)
    with pytest.raises(ValueError, match="read-only"):
        by_both.features[0] = 0
    with pytest.raises(InvalidInputError, match="row 1, column 0 is nan"):
        mdp.with_features(sparse.csr_array(np.where(np.arange(mdp.n_pairs) == 1, np.nan, 1.0)[:, None]))
    assert mdp.with_discount(0.5).discount == 0.5 and mdp.discount == 0.99
    assert mdp.with_discount(0).indices is mdp.indices


def test_deterministic_means_one_successor_with_certainty():
    assert MDP(np.eye(3)[:, None]).deterministic
    assert not MDP(dense_tensor()).deterministic
    assert not MDP(np.eye(3)[:, None] * (1 - 1e-9)).deterministic
    explicit = sparse.csr_array((np.array([1.0, 0.0]), np.array([0, 1]), np.array([0, 2])), shape=(1, 2))
    assert MDP.from_pairs(explicit, [0], [0], terminal=[1]).deterministic


def test_it_says_what_it_is():
    mdp = MDP(dense_tensor(), terminal=[2], discount=0.95, features=np.eye(S))
    assert repr(mdp) == (f"MDP(7 states (1 terminal), 3 actions, 18 pairs, {mdp.nnz} transitions, discount 0.95, "
                         "features: x0, x1, x2, x3, x4, x5, x6)")
    with pytest.raises(InvalidInputError, match="at most 100 entries: this one would have 147"):
        mdp.to_dense(max_entries=100)


def test_labels_find_states_actions_and_pairs():
    mask = np.ones((S, A), bool)
    mask[2, 1] = False
    mdp = MDP(dense_tensor(), available=mask, terminal=[5], state_ids=list("gfedcba"), action_ids=[10, 30, 20])
    np.testing.assert_array_equal(mdp.state_index(["a", "g"]), [6, 0])
    assert mdp.state_index("f") == 1 and mdp.action_index(20) == 2
    np.testing.assert_array_equal(mdp.pair_index(mdp.pair_state, mdp.pair_action), np.arange(mdp.n_pairs))
    for labels, bad in ((["a", "z"], "entry 1 is 'z'"), ([3], "entry 0 is 3")):
        with pytest.raises(InvalidInputError, match=bad):
            mdp.state_index(labels)
    mixed = MDP(dense_tensor(), state_ids=np.array([1, "goal", 2.5, "x", "y", "z", 7], object))
    np.testing.assert_array_equal(mixed.state_index(np.array(["goal", 7], object)), [1, 6])
    assert mixed.state_index("x") == 3
    cells = MDP(dense_tensor(), state_ids=[(0, i) for i in range(S)])
    assert cells.state_index((0, 3)) == 3 and cells.state_index([(0, 1), (0, 2)]).tolist() == [1, 2]
    with pytest.raises(InvalidInputError, match="'x' occurs 2 times"):
        MDP(dense_tensor(), state_ids=np.array([1, "x", 2, "x", 3, 4, 5], object))
    with pytest.raises(InvalidInputError, match="entry 0 is 'x'"):
        mdp.action_index("x")
    with pytest.raises(InvalidInputError, match="entry 1 is state 'e', action 30, but the state lacks the action"):
        mdp.pair_index([0, 2], [0, 1])
    with pytest.raises(InvalidInputError, match="entry 0 is state 'b', action 10, but the state is terminal"):
        mdp.pair_index([5], [0])


@pytest.mark.parametrize("features", (None, np.eye(S), sparse.eye_array(S)))
def test_what_is_saved_is_what_is_loaded(tmp_path, features):
    rows = np.random.default_rng(1).permutation(S * A)
    tensor = dense_tensor()
    tensor[1] *= 0.5
    mdp = MDP.from_pairs(tensor.reshape(-1, S)[rows], rows // A, rows % A, 0.9, [4], allow_leak=True,
                         state_ids=list("abcdefg"), action_ids=["x", "y", "z"])
    if features is not None:
        mdp = mdp.with_features(features, list("ABCDEFG"))
    mdp.save(tmp_path / "model.npz")
    found = MDP.load(tmp_path / "model.npz")
    assert_same_model(mdp, found)
    assert found.discount == 0.9 and found.feature_names == mdp.feature_names
    np.testing.assert_array_equal(found.pair_order, mdp.pair_order)
    np.testing.assert_array_equal(found.state_ids, mdp.state_ids)
    np.testing.assert_array_equal(found.action_ids, mdp.action_ids)
    if features is not None:
        assert sparse.issparse(found.features) == sparse.issparse(features)
        np.testing.assert_array_equal(found.features @ np.eye(S), mdp.features @ np.eye(S))


def test_a_games_reward_and_start_are_saved_and_a_file_of_another_kind_is_refused(tmp_path):
    mdp = MDP.from_gymnasium(make("Taxi"))
    mdp.save(tmp_path / "taxi.npz")
    found = MDP.load(tmp_path / "taxi.npz")
    np.testing.assert_array_equal(found.reward, mdp.reward)
    np.testing.assert_array_equal(found.initial_distribution, mdp.initial_distribution)
    np.savez(tmp_path / "other.npz", x=np.zeros(1))
    with pytest.raises(InvalidInputError, match="MDP.save wrote: .* lacks 'action_ids'; check"):
        MDP.load(tmp_path / "other.npz")
    labelled = MDP(np.eye(2)[:, None], state_ids=np.array([1, "goal"], object))
    with pytest.raises(InvalidInputError, match="holds int objects, such as 1; relabel"):
        labelled.save(tmp_path / "labelled.npz")
    with pytest.raises(InvalidInputError, match="carries none of its own"):
        labelled.reward_vector(None)


def test_a_discount_cannot_be_assigned_and_words_are_no_numbers():
    mdp = MDP(np.full((3, 2, 3), 1 / 3), 0.9)
    with pytest.raises(AttributeError, match=r"stay as it is.*discount = 0.5.*with_discount"):
        mdp.discount = 0.5
    assert (mdp.discount, mdp.with_discount(0.5).discount) == (0.9, 0.5)
    for wrong in ("0.9", b"0.9", True):
        with pytest.raises(InvalidInputError, match="`discount` must be a number"):
            MDP(np.full((3, 2, 3), 1 / 3), wrong)
