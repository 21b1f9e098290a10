"""Which states can end, and where a process can stay for ever: what values at discount 1 rest on.

Terms (Bertsekas and Tsitsiklis 1991; de Alfaro 1997): a policy is proper if it ends with certainty from every state; an
end component is a set of states, and of pairs in them, in which some policy stays for ever and goes everywhere.
"""

import numpy as np
from scipy import sparse
from scipy.sparse import csgraph

__all__ = ["drain", "ends_surely", "end_components", "gains", "reaches_end"]

_LEAK = 1e-8  # of a row's sum; what MDP takes for rounding
_FAR = np.iinfo(np.int64).max


class _Pattern:
    """Which entries are possible, and which pairs can end at once: by a leak or in a terminal state."""

    def __init__(self, mdp):
        possible = mdp.probability > 0
        self.pair = np.repeat(np.arange(mdp.n_pairs), np.diff(mdp.indptr))[possible]
        self.head = mdp.indices[possible]
        self.tail = mdp.pair_state[self.pair]
        sums = mdp.transitions @ np.ones(mdp.n_states)
        self.leaks = sums < 1 - _LEAK
        self.ends = self.leaks.copy()
        self.ends[self.pair[mdp.terminal[self.head]]] = True
        self.pair_state = mdp.pair_state
        self._into = None

    def pairs_into(self, states):
        """Pairs that may lead into these states, some more than once."""
        if self._into is None:
            n = 1 + int(max(self.head.max(initial=-1), states.max(initial=-1)))
            counts = np.bincount(self.head, minlength=n)
            self._into = np.concatenate([[0], np.cumsum(counts)]), np.argsort(self.head, kind="stable")
        ptr, order = self._into
        states = states[states < ptr.size - 1]
        first, size = ptr[states], ptr[states + 1] - ptr[states]
        at = np.arange(size.sum()) + np.repeat(first - np.cumsum(size) + size, size)
        return self.pair[order[at]]


def _drain(pattern, pairs, gone):
    """Close, in place, the pairs that may lead to states that are gone; a state left without a pair is gone too, and so on.

    A corridor takes one step a state here, each as long as what it closes, where a search of the whole graph for each would
    take for ever. Returns the states that are gone beside those given.
    """
    count = np.bincount(pattern.pair_state[pairs], minlength=1 + int(pattern.pair_state.max(initial=-1)))
    found = [np.empty(0, np.int64)]
    while gone.size:
        hit = np.unique(pattern.pairs_into(gone))
        hit = hit[pairs[hit]]
        pairs[hit] = False
        states, lost = np.unique(pattern.pair_state[hit], return_counts=True)
        count[states] -= lost
        gone = states[count[states] == 0].astype(np.int64)
        found.append(gone)
    return np.concatenate(found)


def drain(mdp, pairs, gone):
    """(n_states,) bool: states that are gone, those given or left without a pair that leads to none of them."""
    result = gone.copy()
    result[_drain(_Pattern(mdp), pairs & ~gone[mdp.pair_state], np.flatnonzero(gone))] = True
    return result


def _search(n_states, pattern, pairs):
    """Breadth-first search backward from the end over these pairs: rank in the order found, _FAR where not found."""
    use = pairs[pattern.pair]
    done = pairs & pattern.ends
    tail_of_pair = np.zeros(pairs.size, np.int64)
    tail_of_pair[pattern.pair] = pattern.tail
    heads = np.concatenate([pattern.head[use], np.full(int(done.sum()), n_states)])
    tails = np.concatenate([pattern.tail[use], tail_of_pair[done]])
    graph = sparse.csr_array((np.ones(heads.size, np.int8), (heads, tails)), shape=(n_states + 1, n_states + 1))
    order = csgraph.breadth_first_order(graph, n_states, return_predecessors=False)
    rank = np.full(n_states + 1, _FAR)
    rank[order] = np.arange(order.size)
    return rank


def ends_surely(mdp, open_pairs, free):
    """States from which some policy ends with certainty, and such a policy.

    Parameters
    ----------
    open_pairs : (n_pairs,) bool, pairs that may be chosen; free : (n_states,) bool, states that act

    Returns
    -------
    (sure, best): (n_states,) bool, and (n_states,) int32, the place of the chosen pair among its state's, −1 where none
    """
    n, pattern = mdp.n_states, _Pattern(mdp)
    sure = free.copy()
    pairs = open_pairs & free[mdp.pair_state]
    gone = ~(free | mdp.terminal)
    while True:
        sure[_drain(pattern, pairs, np.flatnonzero(gone))] = False
        rank = _search(n, pattern, pairs)
        gone = sure & (rank[:n] == _FAR)
        if not gone.any():
            break
        sure &= ~gone
        pairs &= sure[mdp.pair_state]
    # each state's pair that may come nearest to the end: it comes nearer with positive probability
    nearest = np.where(pairs & pattern.ends, 0, _FAR)
    rank[:n][mdp.terminal] = 0
    use = pairs[pattern.pair]
    np.minimum.at(nearest, pattern.pair[use], rank[pattern.head[use]])
    best = np.full(n, -1, np.int32)
    order = np.lexsort((nearest, mdp.pair_state))
    first = np.ones(order.size, bool)
    first[1:] = mdp.pair_state[order][1:] != mdp.pair_state[order][:-1]
    chosen = order[first]
    chosen = chosen[sure[mdp.pair_state[chosen]]]
    best[mdp.pair_state[chosen]] = chosen - mdp.pair_ptr[mdp.pair_state[chosen]]
    return sure, best


def reaches_end(mdp, pairs):
    """(n_states,) bool: whether the end can be reached over these pairs."""
    return _search(mdp.n_states, _Pattern(mdp), pairs)[:mdp.n_states] < _FAR


def end_components(mdp, open_pairs, free):
    """Maximal end components among the free states.

    Returns
    -------
    (label, pairs): (n_states,) int, −1 outside; (n_pairs,) bool, the pairs that stay inside
    """
    n, pattern = mdp.n_states, _Pattern(mdp)
    pairs = open_pairs & free[mdp.pair_state] & ~pattern.leaks
    pairs[pattern.pair[~free[pattern.head]]] = False
    while True:
        acts = np.zeros(n, bool)
        acts[mdp.pair_state[pairs]] = True
        _drain(pattern, pairs, np.flatnonzero(free & ~acts))
        use = pairs[pattern.pair]
        graph = sparse.csr_array((np.ones(int(use.sum()), np.int8), (pattern.tail[use], pattern.head[use])), shape=(n, n))
        _, label = csgraph.connected_components(graph, connection="strong")
        leaves = use & (label[pattern.tail] != label[pattern.head])
        if not leaves.any():
            break
        pairs[pattern.pair[leaves]] = False
    inside = np.zeros(n, bool)
    inside[mdp.pair_state[pairs]] = True
    _, label = np.unique(np.where(inside, label, -1), return_inverse=True)
    return label.reshape(-1) - (not inside.all()), pairs


def gains(mdp, reward, label, pairs, temperature, max_sweeps=20_000):
    """Bounds on the best average reward per step within each end component, entropy included where temperature > 0.

    Relative value iteration, damped against periodicity; the changes of a sweep bound the gain from both sides (Odoni
    1969). Ends when the sign of every gain is known, or each is within rounding of 0, or sweeps run out.

    Returns
    -------
    (low, high): (n_components,)
    """
    rows = np.flatnonzero(pairs)
    states, local = np.unique(mdp.pair_state[rows], return_inverse=True)
    starts = np.flatnonzero(np.diff(local.reshape(-1), prepend=-1))
    matrix = mdp.transitions[rows][:, states]
    reward, group = reward[rows], label[states]
    order = np.argsort(group, kind="stable")
    cuts = np.flatnonzero(np.diff(group[order], prepend=-1))
    value = np.zeros(states.size)
    small = 1e-13 * max(1.0, float(np.abs(reward).max()), temperature * np.log(max(np.diff(starts).max(initial=1), 2)))
    for _ in range(max_sweeps):
        q = reward + matrix @ value
        ahead = np.maximum.reduceat(q, starts)
        if temperature > 0:
            share = np.exp((q - ahead[local.reshape(-1)]) / temperature)
            ahead = ahead + temperature * np.log(np.add.reduceat(share, starts))
        change = (ahead - value)[order]
        low, high = np.minimum.reduceat(change, cuts), np.maximum.reduceat(change, cuts)
        margin = small * (1 + np.abs(value).max())
        if ((high < -margin) | (low > margin) | (np.maximum(high, -low) <= margin)).all():
            break
        value = 0.5 * (value + ahead)
        top = np.maximum.reduceat(value[order], cuts)
        value -= top[np.searchsorted(group[order][cuts], group)]
    return low, high
