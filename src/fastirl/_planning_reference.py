"""The slow twins of planning: each quantity written from its equation in plain NumPy, for tests and benchmarks only.

    P  Puterman (1994), Markov decision processes
    R  Rust (1987), Optimal replacement of GMC bus engines
    Z  Ziebart (2010), Modeling purposeful adaptive behavior with the principle of maximum causal entropy

Symbols: r reward of a pair (s, a), p next-state probabilities, gamma discount, T temperature, rho reference policy, V
value, Q value of a pair, pi policy, D visitation, d0 initial distribution. An `MDP` gives the tensor; rewards, policies
and reference policies are arrays over its pairs. `temperature=0` is the hard problem everywhere. Terminal states have
value 0 and no pairs; a reward of -inf forbids a pair. Everything is dense: for small models.
"""

import numpy as np


def tensor(mdp):
    """(n_pairs, n_states) dense p."""
    return mdp.transitions.toarray()


def q_values(mdp, reward, value):
    """Q(s, a) = r(s, a) + gamma sum_s' p(s' | s, a) V(s') (P eq. 4.3.2); an impossible s' does not count.

    So Q = -inf where the pair is forbidden or can lead to a state of value -inf. At discount 0 no s' counts.
    """
    if mdp.discount == 0:
        return np.array(reward, dtype=float)
    p, lost = tensor(mdp), np.isneginf(value)
    q = reward + mdp.discount * (p @ np.where(lost, 0.0, value))
    q[(p[:, lost] > 0).any(axis=1)] = -np.inf
    return q


def by_state(mdp, pairs):
    """The pairs of each state as a slice, terminal states left out: (state, slice)."""
    ends = mdp.pair_ptr
    return [(s, slice(ends[s], ends[s + 1])) for s in range(mdp.n_states) if ends[s + 1] > ends[s]]


def best_of(mdp, q, temperature=0.0, log_reference=None):
    """(V, pi) of pairs worth Q: the maximum, the first action attaining it; or at temperature T > 0

        V(s) = T log sum_a rho(a|s) exp(Q(s, a) / T),   pi(a|s) = rho(a|s) exp((Q(s, a) - V(s)) / T)

    (Z eq. 4.7 - 4.9; R eq. 4.13 with rho = 1). A state without a possible pair is worth -inf, its pi is 0.
    """
    value, policy = np.zeros(mdp.n_states), np.zeros(mdp.n_pairs)
    for s, own in by_state(mdp, q):
        if temperature == 0:
            score = q[own]
            value[s] = score.max()
            if value[s] > -np.inf:
                policy[own.start + int(np.argmax(score))] = 1.0
            continue
        score = q[own] / temperature + (0.0 if log_reference is None else log_reference[own])
        top = score.max()
        if top == -np.inf:
            value[s] = -np.inf
            continue
        mass = np.exp(score - top)
        value[s] = temperature * (top + np.log(mass.sum()))
        policy[own] = mass / mass.sum()
    return value, policy


def bellman(mdp, reward, value):
    """(TV, Q, greedy pi): TV(s) = max_a Q(s, a) (P eq. 6.2.1)."""
    q = q_values(mdp, reward, value)
    new, policy = best_of(mdp, q)
    return new, q, policy


def soft_bellman(mdp, reward, value, temperature=1.0, log_reference=None):
    """(TV, Q, pi): TV(s) = T log sum_a rho exp(Q / T) (Z eq. 4.7; R eq. 4.14)."""
    q = q_values(mdp, reward, value)
    new, policy = best_of(mdp, q, temperature, log_reference)
    return new, q, policy


def corrected(mdp, value, ahead, q, delta, middle, margin):
    """One step of the equation of a correction of `value` on the pairs within `margin` of the best, for states that have some.

    delta(s) = max_i (TV(s) - V(s) - middle + Q_i - TV(s) + gamma sum_t≠s p_i(t) delta(t)) / (1 - gamma p_i(s)).
    """
    state = mdp.pair_state
    near = mdp.free[state] & np.isfinite(q) & (q >= ahead[state] - margin)
    matrix = tensor(mdp)
    own = matrix[np.arange(mdp.n_pairs), state]
    right = (q - value[state] - middle + mdp.discount * (matrix @ delta - own * delta[state])) / (1 - mdp.discount * own)
    out = delta.copy()
    for s in np.unique(state[near]):
        out[s] = right[near & (state == s)].max()
    return out


def span_bounds(mdp, old, new):
    """(low, high): new + low <= V* <= new + high, for new = T old (MacQueen 1966; Porteus 1971; P theorem 6.6.3).

    With d = new - old, low = gamma / (1 - gamma) min d and high the same of max d, where every row sums to 1. Where one
    loses mass (to a terminal state, or by a leak), 0 joins the minimum and the maximum. Exact arithmetic is assumed.
    """
    finite = (np.diff(mdp.pair_ptr) > 0) & np.isfinite(new) & np.isfinite(old)
    change = new[finite] - old[finite]
    if not finite.all() or (tensor(mdp).sum(axis=1) != 1).any():
        change = np.append(change, 0.0)
    factor = mdp.discount / (1 - mdp.discount)
    return factor * change.min(), factor * change.max()


def value_iteration(mdp, reward, tol=1e-8, temperature=0.0, log_reference=None, initial_value=None, limit=1_000_000):
    """(V, Q, pi, bound, n) by Jacobi sweeps V <- TV, until MacQueen and Porteus's bounds are 2 tol apart.

    V is the middle of the bounds, and bound half their distance. For discount < 1.
    """
    value = np.zeros(mdp.n_states) if initial_value is None else np.array(initial_value, dtype=float)
    value[mdp.terminal] = 0.0
    for n in range(1, limit + 1):
        new, _, _ = soft_bellman(mdp, reward, value, temperature, log_reference)
        if np.array_equal(np.isfinite(new), np.isfinite(value)):
            low, high = span_bounds(mdp, value, new)
            if high - low <= 2 * tol:
                new = new + np.where(mdp.terminal, 0.0, (low + high) / 2)
                _, q, policy = soft_bellman(mdp, reward, new, temperature, log_reference)
                return new, q, policy, (high - low) / 2, n
        value = new
    raise ArithmeticError(f"no fixed point within {limit} sweeps")


def soft_value_iteration(mdp, reward, tol=1e-8, temperature=1.0, log_reference=None, initial_value=None):
    """Soft value iteration (Z algorithm 9.1 with a discount; R's contraction): see value_iteration."""
    return value_iteration(mdp, reward, tol, temperature, log_reference, initial_value)


def finite_horizon(mdp, reward, horizon, temperature=0.0, log_reference=None, final_value=None):
    """(V (H + 1, n_states), Q (H, n_pairs), pi (H, n_pairs)): V_H = 0, V_t = T V_t+1 (P section 4.5)."""
    value = np.zeros((horizon + 1, mdp.n_states))
    if final_value is not None:
        value[horizon] = np.where(mdp.terminal, 0.0, final_value)
    q, policy = np.zeros((horizon, mdp.n_pairs)), np.zeros((horizon, mdp.n_pairs))
    for t in range(horizon - 1, -1, -1):
        value[t], q[t], policy[t] = soft_bellman(mdp, reward, value[t + 1], temperature, log_reference)
    return value, q, policy


# -- a given policy


def state_sum(mdp, pairs):
    """(n_states, …): entries of the pairs of each state added up."""
    total = np.zeros((mdp.n_states, *np.shape(pairs)[1:]))
    np.add.at(total, mdp.pair_state, pairs)
    return total


def policy_matrix(mdp, policy):
    """(n_states, n_states) P_pi(s, s') = sum_a pi(a|s) p(s'|s, a); rows of terminal states are 0."""
    return state_sum(mdp, policy[:, None] * tensor(mdp))


def policy_reward(mdp, policy, reward, temperature=0.0, log_reference=None):
    """(n_pairs,) r - T log(pi / rho) of the pairs that pi takes, 0 of the others: what the soft value of pi adds up."""
    taken = policy > 0
    earned = np.zeros(mdp.n_pairs)
    earned[taken] = np.asarray(reward, dtype=float)[taken]
    if temperature > 0:
        earned[taken] -= temperature * np.log(policy[taken])
        if log_reference is not None:
            earned[taken] += temperature * np.asarray(log_reference)[taken]
    return earned


def policy_evaluation(mdp, policy, reward, temperature=0.0, log_reference=None):
    """V = (I - gamma P_pi)^-1 r_pi by a dense solve (P theorem 6.1.1).

    States from which pi comes with positive probability to a pair worth -inf are worth -inf, and left out of the solve.
    """
    earned, matrix = policy_reward(mdp, policy, reward, temperature, log_reference), policy_matrix(mdp, policy)
    lost = np.zeros(mdp.n_states, bool)
    lost[mdp.pair_state[np.isneginf(earned)]] = True
    for _ in range(mdp.n_states if mdp.discount > 0 else 0):
        lost |= (matrix[:, lost] > 0).any(axis=1)
    keep = np.flatnonzero(~lost)
    value = np.full(mdp.n_states, -np.inf)
    income = state_sum(mdp, policy * np.where(np.isneginf(earned), 0.0, earned))
    value[keep] = np.linalg.solve(np.eye(keep.size) - mdp.discount * matrix[np.ix_(keep, keep)], income[keep])
    return value


def policy_evaluation_finite(mdp, policy, reward, horizon, temperature=0.0, log_reference=None):
    """(H + 1, n_states): V_H = 0, V_t = r_pi + gamma P_pi V_t+1 (P eq. 4.2.1). `policy` (n_pairs,) or (H, n_pairs)."""
    policy = np.broadcast_to(policy, (horizon, mdp.n_pairs))
    value = np.zeros((horizon + 1, mdp.n_states))
    for t in range(horizon - 1, -1, -1):
        earned = policy_reward(mdp, policy[t], reward, temperature, log_reference)
        q = q_values(mdp, earned, value[t + 1])
        taken = np.zeros(mdp.n_pairs)
        np.multiply(policy[t], q, out=taken, where=policy[t] > 0)
        value[t] = state_sum(mdp, taken)
    return value


# -- visitation


def visitation_finite(mdp, policy, initial_distribution, horizon):
    """(D (H + 1, n_states), F (H, n_pairs)): D_0 = d0, F_t(s, a) = D_t(s) pi_t(a|s), D_t+1 = p' F_t (Z algorithm 9.3).

    Without discount. What arrives in a terminal state is counted once, on arrival: it has no pairs to leave by.
    """
    policy = np.broadcast_to(policy, (horizon, mdp.n_pairs))
    state, pair = np.zeros((horizon + 1, mdp.n_states)), np.zeros((horizon, mdp.n_pairs))
    state[0] = initial_distribution
    for t in range(horizon):
        pair[t] = state[t, mdp.pair_state] * policy[t]
        state[t + 1] = tensor(mdp).T @ pair[t]
    return state, pair


def visitation(mdp, policy, initial_distribution):
    """(D, F): D = sum_t gamma^t D_t = (I - gamma P_pi')^-1 d0 by a dense solve, F(s, a) = D(s) pi(a|s) (P section 6.9).

    In terminal states D is the discounted mass that arrives, at discount 1 the probability to end there.
    """
    matrix = np.eye(mdp.n_states) - mdp.discount * policy_matrix(mdp, policy).T
    state = np.linalg.solve(matrix, np.asarray(initial_distribution, dtype=float))
    return state, state[mdp.pair_state] * policy


# -- maximum entropy: what a vector of rewards says of trajectories


def value_derivative(mdp, policy, reward_derivative, horizon=None):
    """dV of the soft value: dV = pi (dr + gamma p dV), a dense solve (R p. 1033; Z section 9.2); `policy` its optimum.

    reward_derivative (n_pairs, k) -> (n_states, k), or with a horizon (H + 1, n_states, k), dV_H = 0.
    """
    if horizon is None:
        income = state_sum(mdp, policy[:, None] * reward_derivative)
        return np.linalg.solve(np.eye(mdp.n_states) - mdp.discount * policy_matrix(mdp, policy), income)
    result = np.zeros((horizon + 1, mdp.n_states, reward_derivative.shape[1]))
    for t in range(horizon - 1, -1, -1):
        onwards = reward_derivative + mdp.discount * tensor(mdp) @ result[t + 1]
        result[t] = state_sum(mdp, policy[t][:, None] * onwards)
    return result


def soft_solution(mdp, reward, temperature=1.0, log_reference=None, tol=1e-12):
    """(V, Q, pi) by soft policy iteration, which is Newton's method on V = TV (R p. 1032; P section 6.4): V <- V_pi.

    From the policy that takes every pair that is not forbidden, which serves discount 1 with terminal states as well.
    """
    possible = np.isfinite(reward)
    if log_reference is not None:
        possible = possible & np.isfinite(log_reference)
    policy = possible / np.maximum(state_sum(mdp, possible.astype(float)), 1.0)[mdp.pair_state]
    value = policy_evaluation(mdp, policy, reward, temperature, log_reference)
    for _ in range(200):
        _, _, policy = soft_bellman(mdp, reward, value, temperature, log_reference)
        new = policy_evaluation(mdp, policy, reward, temperature, log_reference)
        if np.abs(new - value).max() <= tol * max(1.0, np.abs(new).max()):
            _, q, policy = soft_bellman(mdp, reward, new, temperature, log_reference)
            return new, q, policy
        value = new
    raise ArithmeticError("no fixed point within 200 steps of Newton")


def log_likelihood(mdp, features, weights, steps, horizon=None, temperature=1.0, log_reference=None):
    """(L, scores (n_steps, k)): L = sum log pi(a|s) = sum (Q(s, a) - V(s)) / T + log rho, scores (dQ - dV) / T.

    `steps` is (state, pair, time); the time counts only with a horizon, where pi_t is used (R eq. 4.12; Z section 6.2).
    """
    state, pair, time = steps
    reward = features @ weights
    if horizon is None:
        value, q, policy = soft_solution(mdp, reward, temperature, log_reference)
        slope = value_derivative(mdp, policy, features)
        per_step = q[pair] - value[state]
        scores = features[pair] + mdp.discount * (tensor(mdp) @ slope)[pair] - slope[state]
    else:
        value, q, policy = finite_horizon(mdp, reward, horizon, temperature, log_reference)
        slope = value_derivative(mdp, policy, features, horizon)
        per_step = q[time, pair] - value[time, state]
        onwards = np.einsum("ns,nsk->nk", tensor(mdp)[pair], slope[np.asarray(time) + 1])
        scores = features[pair] + mdp.discount * onwards - slope[time, state]
    found = per_step / temperature + (0.0 if log_reference is None else np.asarray(log_reference)[pair])
    return found.sum(), scores / temperature


def feature_matching(mdp, features, weights, trips, horizon=None, temperature=1.0, log_reference=None):
    """(g, dg): the dual of maximum causal entropy subject to matched features (Z theorem 6.2, section 5.3),

        g = 1 / T sum_trips (sum_t gamma^t r(s_t, a_t) - V_0(s_0)),   dg = 1 / T (observed - expected features),

    both discounted; the expected ones are F of the soft policy from the trips' first states. `trips`: lists of pairs.
    """
    reward = features @ weights
    first = np.bincount(mdp.pair_state[[trip[0] for trip in trips]], minlength=mdp.n_states).astype(float)
    observed = np.zeros(mdp.n_pairs)
    for trip in trips:
        np.add.at(observed, np.asarray(trip), mdp.discount ** np.arange(len(trip)))
    if horizon is None:
        value, _, policy = soft_solution(mdp, reward, temperature, log_reference)
        _, expected = visitation(mdp, policy, first)
    else:
        values, _, policy = finite_horizon(mdp, reward, horizon, temperature, log_reference)
        value = values[0]
        _, pair = visitation_finite(mdp, policy, first, horizon)
        expected = mdp.discount ** np.arange(horizon) @ pair
    return (observed @ reward - first @ value) / temperature, features.T @ (observed - expected) / temperature
