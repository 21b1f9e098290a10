"""The slow twins: each quantity written from its equation in plain NumPy, for tests and benchmarks only.

    F  Fosgerau, Frejinger, Karlstrom (2013), A link based network route choice model with unrestricted choice set
    Z  Ziebart, Maas, Bagnell, Dey (2008), Maximum entropy inverse reinforcement learning
    M  Mai, Fosgerau, Frejinger (2015), A nested recursive logit model for route choice analysis

Symbols: u arc utility, V soft value, P choice probability, F expected visits, gamma discount, d destination. A graph is
(n_states, tail, head) with one entry per arc; parallel arcs and loops are arcs like others. `stopping` is
"first_arrival" (the trip ends when it first reaches d) or "exit" (d offers an exit of utility 0).
"""

import numpy as np


def hard_values(n_states, tail, head, utility, destination, stopping="first_arrival"):
    """Utility of the best path: phi(i) = max_j u_ij + phi(j), phi(d) = 0 (Bellman 1958, Ford 1956).

    Under "exit" a path may pass by d. A cycle of positive utility among the states concerned raises ArithmeticError.
    """
    value = np.full(n_states, -np.inf)
    value[destination] = 0.0
    for _ in range(n_states + 1):
        new = np.full(n_states, -np.inf)
        np.maximum.at(new, tail, utility + value[head])
        new[destination] = 0.0 if stopping == "first_arrival" else max(new[destination], 0.0)
        new = np.maximum(new, value)
        if np.array_equal(new, value):
            return value
        value = new
    raise ArithmeticError("a cycle of positive utility")


def bellman_step(n_states, tail, head, utility, destination, stopping, discount, value):
    """T V(i) = log(1[i = d and exit] + sum_j exp(u_ij + gamma V(j))), and 0 at d under first arrival (F eq. 3)."""
    new = np.full(n_states, -np.inf)
    if stopping == "exit":
        new[destination] = 0.0
    np.logaddexp.at(new, tail, utility + discount * value[head])
    if stopping == "first_arrival":
        new[destination] = 0.0
    return new


def soft_values(n_states, tail, head, utility, destination, stopping="first_arrival", discount=1.0, max_steps=None,
                limit=200_000):
    """V = T V, iterated in logs from "only d, at once" (F eq. 3; Z algorithm 1); with `max_steps` just so often.

    Iterates rise to V, and t of them sum the paths of at most t arcs. The largest change never grows, so the loop ends
    when it is rounding. Without a finite V the limit raises ArithmeticError.
    """
    value = np.full(n_states, -np.inf)
    value[destination] = 0.0
    for _ in range(limit if max_steps is None else max_steps):
        new = bellman_step(n_states, tail, head, utility, destination, stopping, discount, value)
        finite = np.isfinite(new)
        if max_steps is None and np.array_equal(finite, np.isfinite(value)):
            change = np.abs(new[finite] - value[finite])
            if (change <= 1e-15 * np.maximum(1.0, np.abs(new[finite]))).all():
                return new
        value = new
    if max_steps is None:
        raise ArithmeticError(f"no fixed point within {limit} iterations")
    return value


def choice_probabilities(n_states, tail, head, utility, destination, stopping="first_arrival", discount=1.0, value=None,
                         value_after=None):
    """P(arc | tail) = exp(u + gamma V(head) - V(tail)) (F eq. 4); 0 where d is out of reach, and past d at its end.

    `value_after` is V after the step where it differs from V before it (paths of bounded length).
    """
    if value is None:
        value = soft_values(n_states, tail, head, utility, destination, stopping, discount)
    after = value if value_after is None else value_after
    possible = np.isfinite(utility) & np.isfinite(after[head])
    if stopping == "first_arrival":
        possible &= tail != destination
    result = np.zeros(len(utility))
    result[possible] = np.exp((utility + discount * after[head])[possible] - value[tail][possible])
    return result


def transition_matrix(n_states, tail, head, probability):
    """(n_states, n_states) dense: the probabilities of parallel arcs add up."""
    matrix = np.zeros((n_states, n_states))
    np.add.at(matrix, (tail, head), probability)
    return matrix


def visitation_frequencies(n_states, tail, head, utility, destination, start, stopping="first_arrival", discount=1.0,
                           max_steps=None):
    """(visits, arc_counts) of travellers that begin as `start` says: F = start + gamma P' F (Z algorithm 1, M eq. 17).

    With `max_steps` the choices depend on the arcs left, and visits are summed forward in time.
    """
    graph = (n_states, tail, head, utility, destination, stopping)
    if max_steps is None:
        chance = choice_probabilities(*graph, discount)
        visits = np.linalg.solve(np.eye(n_states) - discount * transition_matrix(n_states, tail, head, chance).T, start)
        return visits, visits[tail] * chance
    here, visits, counts = np.array(start, dtype=float), np.array(start, dtype=float), np.zeros(len(utility))
    for left in range(max_steps, 0, -1):
        now, later = (soft_values(*graph, 1.0, steps) for steps in (left, left - 1))
        moved = here[tail] * choice_probabilities(*graph, 1.0, now, later)
        here = np.bincount(head, moved, minlength=n_states)
        visits += here
        counts += moved
    return visits, counts


def trip_coefficients(tail, head, trip, stopping, discount):
    """How each V enters log L = sum_t [u_t + gamma V(s_t+1) - V(s_t)], less V(d) for the exit: a dict of states.

    At discount 1 the inner terms cancel, which is what makes it right for paths of bounded length too.
    """
    origin, destination, arcs = trip
    states = [origin, *(head[arc] for arc in arcs)]
    result = dict.fromkeys(states, 0.0)
    for before, after in zip(states[:-1], states[1:]):
        result[before] -= 1.0
        result[after] += discount
    if stopping == "exit":
        result[destination] -= 1.0
    return result


def log_likelihood_and_gradient(n_states, tail, head, utility, trips, stopping="first_arrival", discount=1.0,
                                max_steps=None):
    """(per_trip, gradient in the utilities of their sum) for trips (origin, destination, arcs): F eq. 6.

    d log L / du = arcs taken + sum of coefficient * dV/du, and dV(i)/du are the visits from i (Z eq. 6: observed minus
    expected counts).
    """
    per_trip, gradient = np.zeros(len(trips)), np.zeros(len(utility))
    for n, trip in enumerate(trips):
        graph = (n_states, tail, head, utility, trip[1])
        value = soft_values(*graph, stopping, discount, max_steps)
        start = np.zeros(n_states)
        for state, coefficient in trip_coefficients(tail, head, trip, stopping, discount).items():
            if coefficient:
                start[state] = coefficient
                per_trip[n] += coefficient * value[state]
        per_trip[n] += sum(utility[arc] for arc in trip[2])
        np.add.at(gradient, np.asarray(trip[2], dtype=int), 1.0)
        gradient += visitation_frequencies(*graph, start, stopping, discount, max_steps)[1]
    return per_trip, gradient


def tangents(n_states, tail, head, utility, features, destination, stopping="first_arrival", discount=1.0,
             max_steps=None):
    """(n_states, k) dV/dtheta of u = X theta: dV = P (x + gamma dV), one dense solve (M eq. 11); or T steps of it."""
    graph = (n_states, tail, head, utility, destination, stopping)

    def mean(chance, per_arc):
        result = np.zeros((n_states, features.shape[1]))
        np.add.at(result, tail, chance[:, None] * per_arc)
        return result

    if max_steps is None:
        chance = choice_probabilities(*graph, discount)
        matrix = np.eye(n_states) - discount * transition_matrix(n_states, tail, head, chance)
        return np.linalg.solve(matrix, mean(chance, features))
    slope = np.zeros((n_states, features.shape[1]))
    for left in range(1, max_steps + 1):
        now, later = (soft_values(*graph, 1.0, steps) for steps in (left, left - 1))
        slope = mean(choice_probabilities(*graph, 1.0, now, later), features + slope[head])
    return slope


def reached(n_states, tail, head, start):
    """(n_states,) bool: where walks from the states in `start` lead, themselves included."""
    mark = np.zeros(n_states, bool)
    mark[start] = True
    for _ in range(n_states):
        mark[head[mark[tail]]] = True
    return mark


def spectral_radius(n_states, tail, head, utility, destination, stopping="first_arrival", origins=None):
    """Spectral radius of exp(u) on the states that lie on a walk from an origin to d (all origins by default).

    Below 1 is when the sum over those walks is finite. Under "first_arrival" d ends walks and leaves the matrix.
    """
    possible = np.isfinite(utility)
    if stopping == "first_arrival":
        possible = possible & (tail != destination)
    tail, head, utility = tail[possible], head[possible], utility[possible]
    matter = reached(n_states, head, tail, [destination])
    if origins is not None:
        matter &= reached(n_states, tail, head, origins)
    matrix = transition_matrix(n_states, tail, head, np.exp(utility))
    inside = np.flatnonzero(matter)
    return float(np.abs(np.linalg.eigvals(matrix[np.ix_(inside, inside)])).max()) if inside.size else 0.0
