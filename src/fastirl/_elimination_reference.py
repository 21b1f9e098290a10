"""The slow twin of the elimination: each formula without tricks.

States i, arcs with log weight w, M = exp(w), G = (I − M)^-1. `pattern` is (rank, up_ptr, up_first, rows, arc_slot) of an
`EliminationOrder`; k, i, j are ranks; a ⊕ b = logaddexp. Numbers lie in one vector of n + 2F slots,

    [ S: loops, by rank | U: k→j for j in up(k) | D: j→k for j in up(k) ],     F = up_ptr[n].

A pivot fails where S_k >= 0: the loops at k through lower ranks sum to infinity. Then C_k = −inf, which takes k off the
graph, and the elimination goes on. Loops at k stay inside its strongly connected component, so pivots of one
component tell nothing of another's; and a value whose walks meet no failed state is what it would have been without it.
"""

import numpy as np


def up(pattern, k):
    """up(k), and its slice of pairs in U and in D."""
    _, up_ptr, up_first, rows, _ = pattern
    pairs = slice(up_ptr[k], up_ptr[k + 1])
    return rows[up_first[k]:up_first[k] + pairs.stop - pairs.start], pairs


def parts(pattern, slots):
    """Views S, U, D of a vector (or of rows) of slots."""
    n, pairs = pattern[0].size, pattern[1][-1]
    return slots[:n], slots[n:n + pairs], slots[n + pairs:]


def share(term, total):
    """exp(term − total), the part of a ⊕ that a term is; 0 for a term of −inf."""
    term, total = np.broadcast_arrays(np.asarray(term, float), np.asarray(total, float))
    result = np.zeros(term.shape)
    there = term > -np.inf
    result[there] = np.exp(term[there] - total[there])
    return result


def closure(loop):
    """C = −log(1 − exp(S)), by log1mexp: each branch is exact where it is used. −inf where S >= 0."""
    if loop >= 0:
        return -np.inf
    return -np.log(-np.expm1(loop)) if loop > -np.log(2.0) else -np.log1p(-np.exp(loop))


def scatter(pattern, utility):
    """Slots of the completed graph before any elimination: parallel arcs are ⊕-summed, what nothing fills is −inf."""
    slots = np.full(pattern[0].size + 2 * pattern[1][-1], -np.inf)
    np.logaddexp.at(slots, pattern[4], utility)
    return slots


def triangles(pattern, k):
    """For each i of up(k): its place p in up(k), the j > i of up(k) as a slice of it, and their pairs (i, j)."""
    above, _ = up(pattern, k)
    for p, i in enumerate(above):
        of_i, pairs = up(pattern, i)
        yield p, i, slice(p + 1, above.size), pairs.start + np.searchsorted(of_i, above[p + 1:])


def eliminate(pattern, utility):
    """(slots, C, failed): the numeric phase, and the ranks whose pivot failed.

        for k ascending:  C_k = −log(1 − exp S_k);  w_ij ⊕= D_ki + C_k + U_kj  for i, j in up(k)
    """
    slots = scatter(pattern, utility)
    loops, ups, downs = parts(pattern, slots)
    close = np.empty(loops.size)
    for k in range(loops.size):
        close[k] = closure(loops[k])
        _, own = up(pattern, k)
        into, out = downs[own] + close[k], ups[own]
        for p, i, rest, pairs in triangles(pattern, k):
            loops[i] = np.logaddexp(loops[i], into[p] + out[p])
            ups[pairs] = np.logaddexp(ups[pairs], into[p] + out[rest])
            downs[pairs] = np.logaddexp(downs[pairs], into[rest] + out[p])
    return slots, close, np.flatnonzero(loops >= 0)


def tree_path(pattern, k):
    """Ranks from k to its root."""
    while True:
        yield k
        above, _ = up(pattern, k)
        if above.size == 0:
            return
        k = above[0]


def half_path(pattern, weights, close, k):
    """a (of an origin at rank k, weights = U) or b (of a destination, weights = D): a_k = 0, a_j ⊕= a_k + C_k + U_kj."""
    result = np.full(close.size, -np.inf)
    result[k] = 0.0
    for k in tree_path(pattern, k):
        above, own = up(pattern, k)
        result[above] = np.logaddexp(result[above], result[k] + close[k] + weights[own])
    return result


def log_inverse(pattern, factors, origins, destinations):
    """(log G_od for each pair, {o: a}, {d: b})."""
    slots, close, _ = factors
    _, ups, downs = parts(pattern, slots)
    rank = pattern[0]
    a = {o: half_path(pattern, ups, close, rank[o]) for o in set(origins)}
    b = {d: half_path(pattern, downs, close, rank[d]) for d in set(destinations)}
    return np.array([np.logaddexp.reduce(a[o] + close + b[d]) for o, d in zip(origins, destinations)]), a, b


def as_logs(origins, destinations, stopping):
    """The log G's that make V: +log G_od, and −log G_dd under first arrival: (origins, destinations, signs)."""
    o, d = [int(s) for s in origins], [int(s) for s in destinations]
    if stopping == "exit":
        return o, d, np.ones(len(o))
    return o + d, d + d, np.repeat([1.0, -1.0], len(o))


def values(pattern, factors, origins, destinations, stopping):
    """V_d(o) of each pair: log G_od − log G_dd under first arrival, log G_od under exit."""
    o, d, signs = as_logs(origins, destinations, stopping)
    found, _, _ = log_inverse(pattern, factors, o, d)
    return (signs * found).reshape(-1, len(origins)).sum(axis=0)


def values_of_all(pattern, factors, destination, stopping):
    """(n,) V_d of every state: b goes down the whole tree, log G_kd = C_k + (b_k ⊕ U_kj + log G_jd)."""
    slots, close, _ = factors
    _, ups, downs = parts(pattern, slots)
    rank = pattern[0]
    result = half_path(pattern, downs, close, rank[destination])
    for k in range(result.size - 1, -1, -1):
        above, own = up(pattern, k)
        result[k] = close[k] + np.logaddexp.reduce(ups[own] + result[above], initial=result[k])
    if stopping == "first_arrival":
        result = result - result[rank[destination]]
    return result[rank]


def gradient(pattern, factors, utility, origins, destinations, weight, stopping):
    """(m,) Σ weight dV_d(o)/du: expected arc counts, by one reverse pass for all pairs.

    A pair of V = −inf counts nothing. Under first arrival two queries are subtracted, so what cancels (arcs that leave a
    destination) is rounding, not 0.
    """
    slots, close, _ = factors
    loops, ups, downs = parts(pattern, slots)
    rank = pattern[0]
    o, d, signs = as_logs(origins, destinations, stopping)
    found, a, b = log_inverse(pattern, factors, o, d)
    give = (signs * np.resize(np.asarray(weight, float), signs.size)).reshape(-1, len(origins))
    give = np.where(np.isfinite(found[:len(origins)]), give, 0.0).reshape(-1)
    back = np.zeros(slots.size)
    loops_back, ups_back, downs_back = parts(pattern, back)
    close_back = np.zeros(close.size)
    a_back, b_back = ({s: np.zeros(close.size) for s in half} for half in (a, b))
    for origin, destination, log_g, g in zip(o, d, found, give):
        if g:
            part = g * share(a[origin] + close + b[destination], log_g)
            a_back[origin] += part
            b_back[destination] += part
            close_back += part
    for half, half_back, weights, weights_back in ((a, a_back, ups, ups_back), (b, b_back, downs, downs_back)):
        for state, x in half.items():
            x_back = half_back[state]
            for k in reversed(list(tree_path(pattern, rank[state]))):
                above, own = up(pattern, k)
                part = share(x[k] + close[k] + weights[own], x[above]) * x_back[above]
                weights_back[own] += part
                close_back[k] += part.sum()
                x_back[k] += part.sum()
    for k in range(close.size - 1, -1, -1):
        _, own = up(pattern, k)
        into, out = downs[own] + close[k], ups[own]
        into_back, out_back = downs_back[own], ups_back[own]
        for p, i, rest, pairs in triangles(pattern, k):
            q = share(into[p] + out[p], loops[i]) * loops_back[i]
            into_back[p] += q
            out_back[p] += q
            close_back[k] += q
            q = share(into[p] + out[rest], ups[pairs]) * ups_back[pairs]
            into_back[p] += q.sum()
            out_back[rest] += q
            close_back[k] += q.sum()
            q = share(into[rest] + out[p], downs[pairs]) * downs_back[pairs]
            into_back[rest] += q
            out_back[p] += q.sum()
            close_back[k] += q.sum()
        loops_back[k] += close_back[k] * share(loops[k] + close[k], 0.0)  # exp S / (1 − exp S)
    return share(utility, slots[pattern[4]]) * back[pattern[4]]


def add(value, slope, term, term_slope):
    """(value ⊕ term, its slope): shares weigh the slopes, which have a last axis more."""
    total = np.logaddexp(value, term)
    return total, share(value, total)[..., None] * slope + share(term, total)[..., None] * term_slope


def eliminate_tangents(pattern, utility, features):
    """(factors, slopes of the slots (., p), slopes of C (n, p)) for u = u0 + X theta: forward, ∂C = ∂S e^S/(1 − e^S)."""
    slots = scatter(pattern, utility)
    slope = np.zeros((slots.size, features.shape[1]))
    np.add.at(slope, pattern[4], share(utility, slots[pattern[4]])[:, None] * features)
    loops, ups, downs = parts(pattern, slots)
    d_loops, d_ups, d_downs = parts(pattern, slope)
    close, d_close = np.empty(loops.size), np.zeros((loops.size, features.shape[1]))
    for k in range(loops.size):
        close[k] = closure(loops[k])
        d_close[k] = d_loops[k] * share(loops[k] + close[k], 0.0)
        _, own = up(pattern, k)
        into, out, d_into, d_out = downs[own] + close[k], ups[own], d_downs[own] + d_close[k], d_ups[own]
        for p, i, rest, pairs in triangles(pattern, k):
            loops[i], d_loops[i] = add(loops[i], d_loops[i], into[p] + out[p], d_into[p] + d_out[p])
            ups[pairs], d_ups[pairs] = add(ups[pairs], d_ups[pairs], into[p] + out[rest], d_into[p] + d_out[rest])
            downs[pairs], d_downs[pairs] = add(
                downs[pairs], d_downs[pairs], into[rest] + out[p], d_into[rest] + d_out[p])
    return (slots, close, np.flatnonzero(loops >= 0)), slope, d_close


def tangents(pattern, utility, features, origins, destinations, stopping):
    """(n_pairs, p) dV_d(o)/dtheta: the score of each trip is its own features less this. 0 where V = −inf."""
    (slots, close, _), slope, d_close = eliminate_tangents(pattern, utility, features)
    _, ups, downs = parts(pattern, slots)
    _, d_ups, d_downs = parts(pattern, slope)
    rank = pattern[0]

    def half(weights, d_weights, state):
        x, d_x = np.full(close.size, -np.inf), np.zeros(d_close.shape)
        x[rank[state]] = 0.0
        for k in tree_path(pattern, rank[state]):
            above, own = up(pattern, k)
            x[above], d_x[above] = add(
                x[above], d_x[above], x[k] + close[k] + weights[own], d_x[k] + d_close[k] + d_weights[own])
        return x, d_x

    o, d, signs = as_logs(origins, destinations, stopping)
    a = {s: half(ups, d_ups, s) for s in set(o)}
    b = {s: half(downs, d_downs, s) for s in set(d)}
    result, reached = np.zeros((len(o), features.shape[1])), np.zeros(len(o), bool)
    for n, (origin, destination) in enumerate(zip(o, d)):
        term = a[origin][0] + close + b[destination][0]
        total = np.logaddexp.reduce(term)
        reached[n] = total > -np.inf
        result[n] = signs[n] * (share(term, total) @ (a[origin][1] + d_close + b[destination][1]))
    result = result.reshape(-1, len(origins), features.shape[1]).sum(axis=0)
    return np.where(reached[:len(origins), None], result, 0.0)


def smallest_pivot(pattern, factors):
    """min 1 − exp S_k: what the error of V is proportional to the inverse of; <= 0 where a pivot failed."""
    return float((-np.expm1(parts(pattern, factors[0])[0])).min())


# --- which pairs have a finite value, when a pivot failed


def reached_from(n, tail, head, start):
    """(n,) bool: where walks from a state lead, itself included."""
    mark = np.zeros(n, bool)
    mark[start] = True
    while True:
        new = head[mark[tail] & ~mark[head]]
        if new.size == 0:
            return mark
        mark[new] = True


def spoiled(pattern, factors, tail, head, utility, origin, destination):
    """A failed state on some walk o → d, or −1. Walks use the arcs of finite utility; o and d count themselves."""
    possible = utility > -np.inf
    tail, head, n = tail[possible], head[possible], pattern[0].size
    on_walk = reached_from(n, tail, head, origin) & reached_from(n, head, tail, destination)
    failed = np.isin(pattern[0], factors[2])
    found = np.flatnonzero(on_walk & failed)
    return int(found[0]) if found.size else -1


def solve(pattern, tail, head, utility, origins, destinations, stopping="first_arrival", weight=None):
    """Values and gradient of pairs, where pivots may fail.

    One elimination serves every pair that no failed state lies on a walk of. Under "exit" such a state means +inf. Under
    "first_arrival" it may lie behind d: then once more for that d, without the arcs that leave it, where V = log G_od, and
    what fails there and lies on a walk o → d means +inf.

    Returns
    -------
    dict: value (n_pairs,), +inf where the pair's own sum is infinite, −inf where no walk exists; gradient (m,) of
    Σ weight V over finite pairs; failed (n_pairs,) a state whose loops are infinite, −1 where none
    """
    origins, destinations = np.asarray(origins), np.asarray(destinations)
    weight = np.ones(origins.size) if weight is None else np.asarray(weight, float)
    value, failed = np.zeros(origins.size), np.full(origins.size, -1)
    total = np.zeros(utility.size)

    def serve(pairs, u, rule):
        """Those of the pairs that this elimination cannot serve; the others are done."""
        factors = eliminate(pattern, u)
        failed[pairs] = -1
        if factors[2].size:
            failed[pairs] = [spoiled(pattern, factors, tail, head, u, origins[n], destinations[n]) for n in pairs]
        good = pairs[failed[pairs] < 0]
        if good.size:
            value[good] = values(pattern, factors, origins[good], destinations[good], rule)
            total[:] += gradient(pattern, factors, u, origins[good], destinations[good], weight[good], rule)
        return pairs[failed[pairs] >= 0]

    left = serve(np.arange(origins.size), utility, stopping)
    if stopping == "first_arrival":
        again = left
        left = [serve(again[destinations[again] == d], np.where(tail == d, -np.inf, utility), "exit")
                for d in np.unique(destinations[again])]
        left = np.concatenate(left) if left else again
    value[left] = np.inf
    return {"value": value, "gradient": total, "failed": failed}
