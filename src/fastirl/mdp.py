"""Markov decision processes with a sparse transition tensor: one row of probabilities for each state-action pair."""

import copy
import math
from functools import cached_property

import numpy as np
from scipy import sparse

from ._validation import (
    LabelIndex, column_names, factorize, feature_matrix, feature_names as checked_names, float_vector, freeze, frozen_features,
    index_vector, label_vector, load_arrays, one_of, positive_number, refuse_repeats, save_arrays, shown, whole_number,
)
from .exceptions import InvalidInputError

__all__ = ["MDP", "REWARD_READINGS"]

REWARD_READINGS = ("state", "state_action", "pair", "transition")

_SUM_TOLERANCE = 1e-8  # of the sum of a row of probabilities, and of a policy's in one state
_NNZ_LIMIT = 2**31 - 1  # entries of the tensor are numbered with 32 bits, in SciPy's CSR too
_BLOCK = 2**22  # entries handled at a time where a temporary is needed


class MDP:
    r"""A Markov decision process: transition probabilities :math:`p(s' \mid s, a)`, a discount, terminal states.

    The tensor is held in state-action-pair form. Pair :math:`i` is state ``pair_state[i]`` with action
    ``pair_action[i]``, and row :math:`i` of `transitions` is :math:`p(\cdot \mid s, a)`. Pairs are sorted by state and
    within a state by action; the pairs of state :math:`s` are ``pair_ptr[s]`` … ``pair_ptr[s + 1] - 1``. States may
    have different actions. A model is immutable; :meth:`with_features` and :meth:`with_discount` make another one that
    shares the tensor. Other ways in: :meth:`from_pairs`, :meth:`from_gymnasium`, :meth:`from_counts`, :meth:`load`.

    Parameters
    ----------
    transitions : (S, A, S) dense array, or a list of A sparse (S, S) matrices
        ``transitions[s, a, t]``, or ``transitions[a][s, t]``, is the probability to move from s to t under a. A list
        must hold SciPy sparse matrices; a nested list of numbers is read as the (S, A, S) array.
    discount : float, 0 ≤ discount ≤ 1
        Discount 0 is the myopic agent; at discount 1 values exist only where the process ends or the horizon is finite.
    terminal : (S,) bool, or indices of states, or None for no terminal state
        The process ends on arrival in a terminal state. Its value is 0, its own reward does not count, it has no
        actions: rows given for it are ignored, whatever they hold. Terminal states are never detected: a state that
        leads to itself with certainty stays an ordinary state, which acts and earns for ever, unless it is named here.
    features : (n_pairs, k), (S, k) or (S, A, k) array, or sparse with two axes; see :meth:`with_features`
    feature_names : k names, default x0, x1, …
    available : (S, A) bool, False where a state lacks an action; None where every state has every action
        Rows of unavailable actions are ignored. A row of zeros is an error unless it is declared here.
    state_ids : (S,) unique labels, default 0 … S − 1
    action_ids : (A,) unique labels, default 0 … A − 1
    normalize : bool
        Divide each row by its sum. Otherwise a row that does not sum to 1 within 1e-8 is an error, and one that does is
        kept as it is: `max_row_sum` says what a certificate has to reckon with.
    allow_leak : bool
        Accept rows that sum to less than 1: with the missing probability the process ends, at value 0.

    Attributes
    ----------
    n_states, n_actions, n_pairs, nnz, n_features : int
    transitions : (n_pairs, n_states) scipy.sparse.csr_array, float64, sorted, without duplicates, read-only
    indptr : (n_pairs + 1,) int64, where each pair's entries begin
    indices : (nnz,) int32, next states
    probability : (nnz,) float64
    pair_state, pair_action : (n_pairs,) int32
    pair_ptr : (n_states + 1,) int64
    pair_order : (n_pairs,) int64
        Position of each pair among the rows that were given: ``array[mdp.pair_order]`` brings an array over the rows of
        :meth:`from_pairs`, or ``array.reshape(S * A, …)[mdp.pair_order]`` one over states and actions, into our order.
    terminal : (n_states,) bool
    discount : float
    features : (n_pairs, k) float64 array or csr_array, or None
    feature_names : tuple of str
    state_ids, action_ids : labels
    min_row_sum, max_row_sum : float, extremes of the row sums as added up in double precision; 1.0 without pairs
    reward : (n_pairs,) the environment's own expected rewards, set by :meth:`from_gymnasium`; otherwise None
    initial_distribution : (n_states,) the environment's own, set by :meth:`from_gymnasium`; otherwise None

    Raises
    ------
    InvalidInputError
        Naming state and action: a row sum other than 1, an entry that is negative or not finite, a non-terminal state
        without actions, a pair given twice, more than 2³¹ − 1 nonzero entries; and a wrong shape, a discount outside
        [0, 1], labels that are not unique.

    Notes
    -----
    Memory. The dense form and the list cost one copy of the nonzero entries. :meth:`from_pairs` keeps a CSR matrix
    without any copy where it is float64 with 32-bit indices, sorted within rows and without duplicates, its rows are in
    our order, and none belongs to a terminal state; the model then holds read-only views, and whoever writes to the
    arrays afterwards breaks the model. Otherwise one copy is made. Explicit zeros are kept. Beside the tensor a model
    holds at most 16 bytes a pair, and 8 more in `pair_order` where the rows had to be moved or left out.

    What it does not do: it does not solve anything, holds no reward of its own except an environment's, and knows
    neither time-dependent transitions nor partial observation.
    """

    def __init__(self, transitions, discount=0.99, terminal=None, features=None, *, feature_names=None, available=None,
                 state_ids=None, action_ids=None, normalize=False, allow_leak=False):
        tensor = _checked_tensor(transitions)
        if isinstance(tensor, list):
            n_states, n_actions = tensor[0].shape[0], len(tensor)
        else:
            n_states, n_actions = tensor.shape[:2]
        self._set_labels(n_states, n_actions, state_ids, action_ids)
        self._set_terminal(terminal)
        self._discount = positive_number("discount", discount, upper=1, strict=False)
        mask = self._available(available)
        state, action = np.nonzero(mask)
        self._set_pairs(state, action, state * n_actions + action)
        read = _sparse_blocks if isinstance(tensor, list) else _dense_blocks
        matrix = self._stacked(read(tensor, mask), _bound_of_entries(tensor))
        self._set_tensor(matrix, True, normalize, allow_leak)
        self._set_features(features, feature_names)

    # -- construction

    @classmethod
    def from_pairs(cls, transitions, state, action, discount=0.99, terminal=None, features=None, *, feature_names=None,
                   n_actions=None, state_ids=None, action_ids=None, normalize=False, allow_leak=False):
        """A model from state-action pairs in any order.

        Parameters
        ----------
        transitions : (n_rows, n_states) CSR matrix or array: row i is p(· | state[i], action[i])
        state, action : (n_rows,) indices; a pair may occur only once
        features : (n_rows, k) dense or sparse, rows in the order given
        n_actions : int, default one more than the largest action, or the number of `action_ids`
        discount, terminal, feature_names, state_ids, action_ids, normalize, allow_leak : as of :class:`MDP`

        Returns
        -------
        MDP, whose `pair_order` maps arrays over the rows given: ``array[mdp.pair_order]``

        Notes
        -----
        Rows are sorted by state, then action. The matrix is not copied where that and its dtypes allow (see Notes of
        :class:`MDP`). Rows of terminal states are left out.
        """
        matrix = _checked_csr(transitions)
        n_rows, n_states = matrix.shape
        self = cls.__new__(cls)
        state = index_vector("state", state, n_states, n_rows)
        if n_actions is None and action_ids is not None:
            n_actions = len(action_ids)
        limit = _NNZ_LIMIT if n_actions is None else whole_number("n_actions", n_actions, lower=1)
        action = index_vector("action", action, limit, n_rows)
        n_actions = 1 + int(action.max(initial=0)) if n_actions is None else limit
        self._set_labels(n_states, int(n_actions), state_ids, action_ids)
        self._set_terminal(terminal)
        self._discount = positive_number("discount", discount, upper=1, strict=False)
        order = self._order_of(state, action)
        moved = order is not None
        if moved:
            state, action, matrix = state[order], action[order], matrix[order]
        self._set_pairs(state, action, order)
        self._set_tensor(matrix, moved, normalize, allow_leak)
        if features is not None:
            feature_names = column_names(features, feature_names)
            features = feature_matrix("features", features, n_rows, feature_names)
            self._set_features(features[order] if moved else features, feature_names, "pair")
        else:
            self._set_features(None, feature_names)
        return self

    @classmethod
    def one_step(cls, choices, features=None, *, feature_names=None):
        """Choices of one step, such as answers to prompts: a contextual bandit. Whatever is chosen ends the process.

        Parameters
        ----------
        choices : sequence of different (state, action) pairs of labels, in any order; a state has the actions that come with it
        features : (n_choices, k) dense or sparse, rows in the order given
        feature_names : k names

        Returns
        -------
        MDP of discount 1. Its states are those named, in their order, and a terminal one after them, labelled "(end)" among
        texts, one more than the largest among integers. ``array[mdp.pair_order]`` brings an array over the choices into our order

        Raises
        ------
        InvalidInputError : something else than pairs, a pair that comes twice, labels of mixed kinds
        """
        if isinstance(choices, (str, bytes)) or not np.iterable(choices):
            raise InvalidInputError(f"`choices` must be a sequence of (state, action) pairs: got {shown(choices)}; pass a list")
        choices = list(choices)
        for n, choice in enumerate(choices):
            if not isinstance(choice, (tuple, list, np.ndarray)) or len(choice) != 2:
                raise InvalidInputError(f"each choice must be a (state, action) pair: entry {n} is {shown(choice)}; "
                                        "pass labels of both")
        if not choices:
            raise InvalidInputError("there must be some choices: got none; pass (state, action) pairs")
        states, actions = (label_vector(name, [choice[k] for choice in choices]) for k, name in enumerate(("state", "action")))
        (state, first), (action, first_action) = factorize(states), factorize(actions)
        ids, n = states[first], first.size
        if ids.dtype.kind in "iu":
            end = ids.max() + 1
        elif ids.dtype.kind == "U":
            end = "(end)"
            while end in ids:
                end = f"({end})"
        else:
            end = ("end", n)
        state_ids = np.fromiter([*ids.tolist(), end], object, n + 1)
        rows = np.ones(state.size), np.full(state.size, n), np.arange(state.size + 1)
        matrix = sparse.csr_array(rows, shape=(state.size, n + 1))
        return cls.from_pairs(matrix, state, action, 1.0, [n], features, feature_names=feature_names, state_ids=state_ids,
                              action_ids=actions[first_action])

    @classmethod
    def from_gymnasium(cls, env, discount=0.99):
        r"""The model of a gymnasium toy-text environment: FrozenLake, Taxi, CliffWalking, or any with ``unwrapped.P``.

        Parameters
        ----------
        env : an environment whose ``env.unwrapped.P[s][a]`` lists (probability, next state, reward, terminated)
        discount : float, 0 ≤ discount ≤ 1

        Returns
        -------
        MDP
            with `reward`, the expected reward of each pair, :math:`\sum_{s'} p \, r`, for ``reward_vector(mdp.reward)``
            and the solvers, and `initial_distribution` where the environment tells it (``initial_state_distrib``).

        Notes
        -----
        Entries of one next state are added up. A terminated transition ends the process:

        - A state becomes terminal, and its own rows are ignored, if it can be entered by terminated transitions only
          (from states that act) and the environment does not start there: the holes and the goal of FrozenLake, the
          goal of CliffWalking.
        - Where a state is entered by terminated transitions and also by others, it goes on acting, and the terminated
          ones lead to one terminal state that is added, the last. Taxi gets it: dropping the passenger ends the episode
          in a state from which P goes on, so that the model has one state more than the environment.

        Time limits (``TimeLimit`` and other wrappers) are not part of the model.
        """
        inner = getattr(env, "unwrapped", env)
        table = getattr(inner, "P", None)
        if table is None:
            raise InvalidInputError(
                f"the environment must hold its transitions in env.unwrapped.P: {type(env).__name__} has none; "
                "pass a toy-text environment, or use MDP.from_counts on observed transitions"
            )
        start = getattr(inner, "initial_state_distrib", None)
        state, action, pairs, entries = _read_gymnasium(table)
        n_states = len(table)
        index_vector("next states of env.unwrapped.P", entries["next"], n_states)
        begins = np.zeros(n_states, bool) if start is None else np.asarray(start, float) > 0
        terminal, extra = _ends(n_states, state[entries["pair"]], entries, begins)
        entries["next"][entries["terminated"] & ~terminal[entries["next"]]] = n_states
        size = n_states + extra
        where = (entries["pair"], entries["next"])
        matrix = sparse.coo_array((entries["probability"], where), shape=(pairs, size)).tocsr()
        matrix.eliminate_zeros()
        mdp = cls.from_pairs(matrix, state, action, discount, np.concatenate([terminal, np.ones(extra, bool)]))
        reward = np.bincount(entries["pair"], entries["probability"] * entries["reward"], minlength=pairs)
        mdp.reward = _read_only(mdp.reward_vector(reward[mdp.pair_order], "pair"))
        if start is not None:
            mdp.initial_distribution = _read_only(np.concatenate([np.asarray(start, float), np.zeros(extra)]))
        return mdp

    @classmethod
    def from_counts(cls, state, action, next_state, n_states, n_actions, discount=0.99, terminal=None, features=None, *,
                    count=None, prior=0.0, support="all", unseen="error", available=None, feature_names=None,
                    state_ids=None, action_ids=None):
        r"""A model estimated from observed transitions, for unknown dynamics.

        .. math:: p(t \mid s, a) = \frac{N(s, a, t) + \alpha\,[t \in U(s)]}{N(s, a) + \alpha\,|U(s)|}

        the relative frequencies at :math:`\alpha = 0`, and the posterior mean under a symmetric Dirichlet prior above.

        Parameters
        ----------
        state, action, next_state : (n,) indices, one entry for each observation
        n_states, n_actions : int
        count : (n,) how often each was observed, default 1; fractions are weights
        prior : float of at least 0, the pseudo-count α of each next state in the support
        support : where the prior puts mass, U(s)
            "all": every state, which makes the tensor dense, n_pairs × n_states entries. "seen": the states that were
            seen to follow s under any action. A (S, S) sparse or dense matrix: its nonzeros in row s, a map of where s
            can lead; an observation outside is an error.
        unseen : what happens to a state-action pair that was never observed
            "error": it is an error, which names the first. "drop": the state lacks the action. "prior": the pair gets
            the prior's mean, uniform over U(s); needs prior > 0 and a support of s that is not empty.
        available : (S, A) bool, False where a state lacks an action; pairs so declared are ignored even where observed
        discount, terminal, features, feature_names, state_ids, action_ids : as of :class:`MDP`

        Returns
        -------
        MDP, whose `pair_order` counts pairs as ``state * n_actions + action``

        Notes
        -----
        Observations in terminal states are ignored. What is returned is a point estimate: it carries no uncertainty.
        """
        n_states, n_actions = whole_number("n_states", n_states, lower=1), whole_number("n_actions", n_actions, lower=1)
        one_of("unseen", unseen, ("error", "drop", "prior"))
        prior = positive_number("prior", prior, strict=False)
        if unseen == "prior" and prior == 0:
            raise InvalidInputError("unseen='prior' must come with a prior above 0: prior is 0; pass prior=1.0, say")
        self = cls.__new__(cls)
        self._set_labels(n_states, n_actions, state_ids, action_ids)
        self._set_terminal(terminal)
        self._discount = positive_number("discount", discount, upper=1, strict=False)
        counts = _count_matrix(state, action, next_state, count, n_states, n_actions)
        seen = np.asarray(counts.sum(axis=1)).reshape(n_states, n_actions) > 0
        wanted = self._available(available, unseen != "drop")
        if unseen == "drop":
            wanted &= seen
        elif unseen == "error":
            self._refuse_unseen(wanted & ~seen)
        pair_state, pair_action = np.nonzero(wanted)
        self._set_pairs(pair_state, pair_action, pair_state * n_actions + pair_action)
        counts = counts[self.pair_order]
        if prior > 0:
            counts = counts + prior * self._support_rows(support, counts, wanted)
        self._set_tensor(counts.tocsr(), True, True, False)
        self._set_features(features, feature_names)
        return self

    # -- the parts of a construction

    def _set_labels(self, n_states, n_actions, state_ids, action_ids):
        if n_states < 1 or n_actions < 1:
            raise InvalidInputError(
                f"a model must have at least one state and one action: got {n_states} states and {n_actions} actions; "
                "pass a tensor that is not empty"
            )
        _refuse_overflow("n_states", n_states)
        self.n_states, self.n_actions = int(n_states), int(n_actions)
        for name, ids, size in (("state_ids", state_ids, n_states), ("action_ids", action_ids, n_actions)):
            if ids is not None:
                ids = label_vector(name, ids, size, mixed=True)
                refuse_repeats(name, ids)
            setattr(self, name, _read_only(np.arange(size) if ids is None else ids))
        self.reward = self.initial_distribution = None

    def _set_terminal(self, terminal):
        n = self.n_states
        mask = np.zeros(n, bool)
        given = np.asarray([] if terminal is None else terminal)
        if given.dtype.kind == "b":
            if given.shape != (n,):
                raise InvalidInputError(f"`terminal` as a mask must have shape ({n},): got {given.shape}; pass one "
                                        "entry for each state, or the indices of terminal states")
            mask |= given
        elif given.size:
            index = index_vector("terminal", given, n)
            twice = np.bincount(index) > 1
            if twice.any():
                raise InvalidInputError(
                    f"`terminal` as indices must name each state once: {np.argmax(twice)} occurs again; pass a bool "
                    "array if it is meant as a mask"
                )
            mask[index] = True
        self.terminal = _read_only(mask)

    def _available(self, available, complete=True):
        """(S, A) bool: pairs that exist. `complete`: every non-terminal state must have one."""
        shape = (self.n_states, self.n_actions)
        mask = np.ones(shape, bool)
        if available is not None:
            given = np.asarray(available)
            if given.shape != shape or given.dtype.kind != "b":
                raise InvalidInputError(f"`available` must be a bool array of shape {shape}: got shape {given.shape}, "
                                        f"dtype {given.dtype}; pass one row for each state")
            mask &= given
        mask[self.terminal] = False
        if complete:
            self._refuse_idle(mask.any(axis=1))
        return mask

    def _refuse_idle(self, acts):
        idle = ~acts & ~self.terminal
        if idle.any():
            raise InvalidInputError(
                f"each non-terminal state must have at least one action: state "
                f"{shown(self.state_ids[np.argmax(idle)])} has none; name it in `terminal` or give it a pair"
            )

    def _refuse_unseen(self, missing):
        if missing.any():
            s, a = np.argwhere(missing)[0]
            raise InvalidInputError(
                f"each state-action pair must have been observed: {self._name(s, a)} never was ({missing.sum()} such "
                "pairs); pass unseen='drop', unseen='prior' with prior > 0, or the pairs that exist as `available`"
            )

    def _order_of(self, state, action):
        """Rows in our order without those of terminal states; None where that is the order given."""
        key = state.astype(np.int64)
        key *= self.n_actions
        key += action
        order = None if key.size < 2 or (key[1:] >= key[:-1]).all() else np.argsort(key, kind="stable")
        if order is not None:
            key = key[order]
        twice = key[1:] == key[:-1]
        if twice.any():
            s, a = divmod(int(key[np.argmax(twice)]), self.n_actions)
            raise InvalidInputError(f"each state-action pair must be given once: {self._name(s, a)} has more than one "
                                    "row; merge its rows, or number the actions apart")
        if self.terminal.any() and self.terminal[state].any():
            order = np.arange(key.size) if order is None else order
            order = order[~self.terminal[state[order]]]
        return order

    def _set_pairs(self, state, action, order):
        """Pairs that are sorted already; `order` is None where they are the rows as given."""
        counts = np.bincount(state, minlength=self.n_states)
        self._refuse_idle(counts > 0)
        self.pair_ptr = _read_only(np.concatenate([[0], np.cumsum(counts)]).astype(np.int64))
        self.pair_state = _read_only(np.ascontiguousarray(state, dtype=np.int32))
        self.pair_action = _read_only(np.ascontiguousarray(action, dtype=np.int32))
        self._pair_order = None if order is None else _read_only(np.asarray(order, dtype=np.int64))

    def _stacked(self, blocks, bound):
        """One CSR matrix from blocks of consecutive pairs; what it reserves beyond its entries is never touched."""
        bound = min(bound, _NNZ_LIMIT)
        data, indices = np.empty(bound), np.empty(bound, np.int32)
        indptr = np.zeros(self.n_pairs + 1, np.int64)
        row = entry = 0
        for block in blocks:
            rows, entries = block.shape[0], block.nnz
            if entry + entries > _NNZ_LIMIT:
                past = int(np.searchsorted(block.indptr, _NNZ_LIMIT - entry, side="right")) - 1
                self._refuse_entries_beyond(row + past)
            data[entry:entry + entries], indices[entry:entry + entries] = block.data, block.indices
            indptr[row + 1:row + rows + 1] = block.indptr[1:].astype(np.int64) + entry
            row, entry = row + rows, entry + entries
        return _csr(data[:entry], indices[:entry], indptr, (self.n_pairs, self.n_states))

    def _set_tensor(self, matrix, owned, normalize, allow_leak):
        """Check the rows and keep them. `owned`: the arrays are ours to write to."""
        if normalize and allow_leak:
            raise InvalidInputError("normalize and allow_leak must not both be True: rescaling fills every leak; "
                                    "choose one of the two")
        if matrix.nnz > _NNZ_LIMIT:
            self._refuse_entries_beyond(int(np.searchsorted(matrix.indptr, _NNZ_LIMIT, side="right")) - 1)
        if not matrix.has_canonical_format:
            matrix = matrix if owned else matrix.copy()
            owned = True
            matrix.sum_duplicates()
        data = np.ascontiguousarray(matrix.data[:matrix.indptr[-1]], dtype=np.float64)
        owned = owned or not np.may_share_memory(data, matrix.data)
        self.indices = _read_only(np.ascontiguousarray(matrix.indices[:data.size], dtype=np.int32))
        self.indptr = _read_only(np.ascontiguousarray(matrix.indptr, dtype=np.int64))
        self.probability = data
        self._refuse_entries()
        sums = self._row_sums(allow_leak, normalize)
        if normalize:
            self._rescale(sums, owned)
            sums = self._row_sums(False, False)
        self.probability = _read_only(self.probability)
        self.min_row_sum, self.max_row_sum = float(np.min(sums, initial=np.inf)), float(np.max(sums, initial=-np.inf))
        if not self.n_pairs:
            self.min_row_sum = self.max_row_sum = 1.0

    def _refuse_entries_beyond(self, pair):
        raise InvalidInputError(
            f"`transitions` must have at most {_NNZ_LIMIT:,} nonzero entries, the limit of 32-bit indices: "
            f"{self._pair(pair)} passes it; split the model, or leave out small probabilities"
        )

    def _refuse_entries(self):
        """Next states within 0 … n − 1, probabilities finite and ≥ 0: extremes first, the place only if wrong."""
        if not self.nnz:
            return
        if self.indices.min() < 0 or self.indices.max() >= self.n_states:
            entry = int(np.argmax((self.indices < 0) | (self.indices >= self.n_states)))
            raise InvalidInputError(
                f"each next state must lie between 0 and {self.n_states - 1}: {self._pair_of_entry(entry)} leads to "
                f"{self.indices[entry]}; check the column numbers"
            )
        if self.probability.min() >= 0 and self.probability.max() < np.inf:
            return
        entry = int(np.argmax(~((self.probability >= 0) & (self.probability < np.inf))))
        raise InvalidInputError(
            f"each probability must be finite and at least 0: {self._pair_of_entry(entry)}, next state "
            f"{shown(self.state_ids[self.indices[entry]])} has {self.probability[entry]:g}; mend that entry"
        )

    def _row_sums(self, allow_leak, normalize):
        sums = self._csr_of(self.probability) @ np.ones(self.n_states)
        if normalize:
            bad, way_out = ~(sums > 0), "a row of zeros cannot be rescaled: declare it as unavailable or fill it"
        elif allow_leak:
            bad, way_out = ~(sums <= 1 + _SUM_TOLERANCE), "only a sum below 1 is a leak: pass normalize=True to rescale"
        else:
            bad = ~(np.abs(sums - 1) <= _SUM_TOLERANCE)
            way_out = ("pass normalize=True to rescale, or allow_leak=True if the process ends with the missing "
                       "probability")
        if bad.any():
            pair = int(np.argmax(bad))
            if not (normalize or allow_leak) and sums[pair] == 0:
                way_out = "declare an action that does not exist as unavailable (`available`, or leave its pair out)"
            rule = "at most 1" if allow_leak else "1"
            raise InvalidInputError(f"each row of `transitions` must sum to {rule}: {self._pair(pair)} sums to "
                                    f"{sums[pair]:.10g}; {way_out}")
        return sums

    def _rescale(self, sums, owned):
        out = self.probability if owned and self.probability.flags.writeable else np.empty_like(self.probability)
        counts = np.diff(self.indptr)
        for first, last in self._blocks():
            part = slice(self.indptr[first], self.indptr[last])
            np.divide(self.probability[part], np.repeat(sums[first:last], counts[first:last]), out=out[part])
        self.probability = out

    def _support_rows(self, support, counts, wanted):
        """(n_pairs, n_states) ones on the support of each pair's state."""
        n = self.n_states
        if isinstance(support, str):
            one_of("support", support, ("all", "seen"))
            if support == "all":
                _refuse_overflow("a model with support='all'", self.n_pairs * n)
                pattern = sparse.csr_array(np.ones((n, n)))
            else:
                by_state = sparse.csr_array((np.ones(self.n_pairs), np.arange(self.n_pairs), self.pair_ptr),
                                            shape=(n, self.n_pairs))
                pattern = _pattern(by_state @ counts)
            rows = pattern[self.pair_state]
        else:
            pattern = _pattern(support if sparse.issparse(support) else np.asarray(support))
            if pattern.shape != (n, n):
                raise InvalidInputError(f"`support` must be 'all', 'seen' or an ({n}, {n}) matrix: got shape "
                                        f"{pattern.shape}; pass one row of possible next states for each state")
            rows = pattern[self.pair_state]
            outside = (_pattern(counts) - _pattern(counts).multiply(rows)).tocoo()
            outside.eliminate_zeros()
            if outside.nnz:
                raise InvalidInputError(
                    f"each observed next state must be in the support: {self._pair(int(outside.row[0]))} led to "
                    f"{shown(self.state_ids[outside.col[0]])}; add it to `support`"
                )
        empty = (np.diff(rows.indptr) == 0) & (np.diff(counts.indptr) == 0)
        if empty.any():
            raise InvalidInputError(
                f"a pair that was never observed needs a support: {self._pair(int(np.argmax(empty)))} has none; "
                "pass a `support` that covers it, or unseen='drop'"
            )
        return rows

    def _set_features(self, features, names, features_on="auto"):
        if features is None:
            if names is not None:
                raise InvalidInputError(f"`feature_names` must come with `features`: {tuple(names)!r} name none; "
                                        "pass the features, or leave the names out")
            self.features, self.feature_names = None, ()
            return
        names = column_names(features, names)
        self.features = frozen_features(self._pair_features(features, features_on, names))
        self.feature_names = checked_names(names, self.features.shape[1])

    def _pair_features(self, features, features_on, names):
        one_of("features_on", features_on, ("auto", "state", "state_action", "pair"))
        shape = features.shape if sparse.issparse(features) else np.shape(features)
        fits = {"state": len(shape) == 2 and shape[0] == self.n_states,
                "state_action": len(shape) == 3 and shape[:2] == (self.n_states, self.n_actions),
                "pair": len(shape) == 2 and shape[0] == self.n_pairs}
        readings = [name for name, fit in fits.items() if fit]
        if readings == ["state", "pair"] and not self.terminal.any():  # one action a state: both mean the same
            readings = ["pair"]
        how = self._choose("features", "features_on", features_on, readings, shape,
                           f"({self.n_states}, k) per state, ({self.n_states}, {self.n_actions}, k) per state and "
                           f"action, ({self.n_pairs}, k) per pair")
        if how == "state_action":
            features = np.asarray(features)[self.pair_state, self.pair_action]
        elif how == "state":
            features = features.tocsr() if sparse.issparse(features) else np.asarray(features)
            features = features[self.pair_state]
        return feature_matrix("features", features, self.n_pairs, names)

    @staticmethod
    def _choose(name, option, asked, readings, shape, shapes):
        """The reading asked for if it fits, or the only one that does."""
        if asked != "auto":
            if asked in readings:
                return asked
            raise InvalidInputError(f"`{name}` with {option}={asked!r} must fit the model: got shape {shape}; "
                                    f"pass {shapes}")
        if len(readings) == 1:
            return readings[0]
        if not readings:
            raise InvalidInputError(f"`{name}` must fit the model: got shape {shape}; pass {shapes}")
        listed = " or ".join(f"{option}={reading!r}" for reading in readings)
        raise InvalidInputError(f"`{name}` must have one meaning: shape {shape} can be read in {len(readings)} ways; "
                                f"pass {listed}")

    # -- other models of the same tensor

    def with_features(self, features, names=None, features_on="auto"):
        """The same model with other features; the tensor is shared.

        Parameters
        ----------
        features : array or scipy sparse matrix of finite numbers
            (n_pairs, k), a row for each pair in our order; (n_states, k), the features of the state acted in; or
            (n_states, n_actions, k), of which entries of pairs that do not exist are ignored. Kept as (n_pairs, k),
            sparse as csr_array.
        names : k names; the model's own are kept where their number fits, else x0, x1, …
        features_on : "auto", "state", "state_action" or "pair"
            "auto" goes by the shape; where two readings that differ fit, it is an error that lists them.

        Returns
        -------
        MDP
        """
        twin = copy.copy(self)
        names = column_names(features, names)
        if names is None and features is not None and np.shape(features)[-1:] == (len(self.feature_names),):
            names = self.feature_names
        twin._set_features(features, names, features_on)
        return twin

    @property
    def discount(self):
        """The discount, which stays as it is: :meth:`with_discount` makes another model."""
        return self._discount

    @discount.setter
    def discount(self, value):
        raise AttributeError(f"a model must stay as it is, for what was found out about it is kept: discount = {value!r} is an "
                             "assignment; use mdp.with_discount(…)")

    def with_discount(self, discount):
        """The same model with another discount, 0 ≤ discount ≤ 1; the tensor is shared."""
        twin = copy.copy(self)
        twin._discount = positive_number("discount", discount, upper=1, strict=False)
        return twin

    # -- what it is

    @property
    def n_pairs(self):
        return self.pair_state.size

    @property
    def pair_order(self):
        return np.arange(self.n_pairs) if self._pair_order is None else self._pair_order

    @property
    def nnz(self):
        return self.indices.size

    @property
    def n_features(self):
        return len(self.feature_names)

    @cached_property
    def transitions(self):
        """(n_pairs, n_states) csr_array over the model's own arrays: row i is p(· | pair_state[i], pair_action[i])."""
        matrix = self._csr_of(self.probability)
        matrix.indptr.flags.writeable = False
        matrix.has_canonical_format = True  # seen to by _set_tensor; spares SciPy a pass over the entries
        return matrix

    @cached_property
    def deterministic(self):
        """bool: every pair leads to one state with probability exactly 1."""
        parts = (self.probability[i:i + _BLOCK] for i in range(0, self.nnz, _BLOCK))
        return self.min_row_sum == 1 and all(((part == 0) | (part == 1)).all() for part in parts)

    def __repr__(self):
        ends = f" ({self.terminal.sum():,} terminal)" if self.terminal.any() else ""
        names = ", ".join(self.feature_names[:8]) + (", …" if self.n_features > 8 else "")
        return (f"MDP({self.n_states:,} states{ends}, {self.n_actions:,} actions, {self.n_pairs:,} pairs, "
                f"{self.nnz:,} transitions, discount {self.discount:g}" + (f", features: {names})" if names else ")"))

    def state_index(self, labels):
        """Indices of the states with these labels (see `state_ids`); an unknown label is an error that names it."""
        return LabelIndex(self.state_ids, "model").locate("states", labels, "known to the model", "mdp.state_ids")

    def action_index(self, labels):
        """Indices of the actions with these labels (see `action_ids`); an unknown label is an error that names it."""
        return LabelIndex(self.action_ids, "model").locate("actions", labels, "known to the model", "mdp.action_ids")

    def pair_index(self, state, action):
        """(n,) numbers of the pairs of these (n,) state and action indices; a pair that does not exist is an error."""
        state = index_vector("state", state, self.n_states)
        action = index_vector("action", action, self.n_actions, state.size)
        found = self._find_pairs(state, action)
        if (found < 0).any():
            bad = int(np.argmax(found < 0))
            why = "the state is terminal" if self.terminal[state[bad]] else "the state lacks the action"
            raise InvalidInputError(f"each pair must exist in the model: entry {bad} is "
                                    f"{self._name(state[bad], action[bad])}, but {why}; see mdp.pair_state and "
                                    "mdp.pair_action")
        return found

    def _find_pairs(self, state, action):
        """Numbers of pairs, −1 where a pair does not exist."""
        key = np.asarray(state, dtype=np.int64) * self.n_actions + action
        if not self.n_pairs:
            return np.full(key.shape, -1, np.int64)
        spot = np.minimum(np.searchsorted(self._keys, key), self.n_pairs - 1)
        return np.where(self._keys[spot] == key, spot, -1)

    @cached_property
    def _keys(self):
        return self.pair_state.astype(np.int64) * self.n_actions + self.pair_action

    # -- rewards

    def reward_vector(self, reward, reward_on="auto"):
        r"""Expected reward of each pair, whatever the rewards are given on.

        Parameters
        ----------
        reward : array, or a scipy sparse matrix of rewards per transition; None for the environment's own
            −inf forbids a pair. NaN and +inf are errors.
        reward_on : what the entries belong to

            - "state", (n_states,): :math:`r(s)`, earned in the state acted in, on each step that leaves it. For rewards
              on arrival, :math:`\sum_{s'} p\,r(s')`, pass ``mdp.transitions @ r`` per pair.
            - "state_action", (n_states, n_actions): :math:`r(s, a)`; entries of pairs that do not exist are ignored.
            - "pair", (n_pairs,): in the order of `pair_state`; rows given to :meth:`from_pairs` are brought into it by
              ``reward[mdp.pair_order]``.
            - "transition": :math:`\sum_{s'} p(s' \mid s, a)\, r(s, a, s')`, from (nnz,) entries in the order of
              ``mdp.indices``, a sparse (n_pairs, n_states) matrix (0 where it has no entry), or an
              (n_states, n_actions, n_states) array. Entries of impossible transitions do not count; −inf on a possible
              one forbids the pair.
            - "auto": by the shape. Where two readings that differ have the same shape (n_pairs = n_states, say), it is
              an error that lists them.

        Returns
        -------
        (n_pairs,) float64

        Raises
        ------
        InvalidInputError : a shape that does not fit, an ambiguous one, NaN or +inf (naming state and action)

        Notes
        -----
        A terminal state's own reward never counts: it has no pairs, nothing is earned there, and its value is 0. What
        is earned on the way in belongs to the pair, or the transition, that leads there.
        """
        one_of("reward_on", reward_on, ("auto", *REWARD_READINGS))
        if reward is None:
            if self.reward is None:
                raise InvalidInputError("`reward` must be given: this model carries none of its own; only "
                                        "MDP.from_gymnasium sets one")
            return self.reward.copy()
        if not sparse.issparse(reward):
            reward = _numbers("reward", reward)
        elif reward.dtype.kind not in "fiub":
            raise InvalidInputError(f"`reward` must hold real numbers: got dtype {reward.dtype}; convert it to float64")
        how = self._choose("reward", "reward_on", reward_on, self._readings(reward), reward.shape,
                           f"({self.n_states},) per state, ({self.n_states}, {self.n_actions}) per state and action, "
                           f"({self.n_pairs},) per pair, or per transition ({self.nnz},), a sparse ({self.n_pairs}, "
                           f"{self.n_states}) or an ({self.n_states}, {self.n_actions}, {self.n_states}) array")
        if how == "state":
            found = reward[self.pair_state]
        elif how == "state_action":
            found = reward[self.pair_state, self.pair_action]
        else:
            found = np.array(reward) if how == "pair" else self._expected(reward)
        bad = ~(found < np.inf)
        if bad.any():
            pair = int(np.argmax(bad))
            raise InvalidInputError(f"`reward` must not hold NaN or +inf: {self._pair(pair)} has {found[pair]}; "
                                    "use a finite reward, or -inf to forbid the pair")
        return found

    def _readings(self, reward):
        """What this shape can mean; of readings that agree for every reward only one is listed."""
        if sparse.issparse(reward):
            return ["transition"] if reward.shape == (self.n_pairs, self.n_states) else []
        if reward.ndim == 1:
            sizes = {"state": self.n_states, "pair": self.n_pairs, "transition": self.nnz}
            found = [name for name, size in sizes.items() if size == reward.size]
            if "pair" in found and "state" in found and not self.terminal.any():
                found.remove("state")
            if "pair" in found and "transition" in found and self.deterministic:
                found.remove("transition")
            return found
        if reward.shape == (self.n_states, self.n_actions):
            return ["state_action"]
        return ["transition"] if reward.shape == (self.n_states, self.n_actions, self.n_states) else []

    def _expected(self, reward):
        """Σ p r over the possible transitions of each pair, a block of pairs at a time."""
        if sparse.issparse(reward):
            reward = self._entries_of(reward)
        result = np.zeros(self.n_pairs)
        ones = np.ones(self.n_states)
        for first, last in self._blocks():
            part = slice(self.indptr[first], self.indptr[last])
            columns, starts = self.indices[part], self.indptr[first:last + 1] - self.indptr[first]
            if reward.ndim == 3:
                pair = np.repeat(np.arange(first, last), np.diff(starts))
                values = reward[self.pair_state[pair], self.pair_action[pair], columns]
            else:
                values = reward[part]
            values = np.where(self.probability[part] > 0, values, 0.0)
            bad = ~(values < np.inf)
            if bad.any():
                entry = int(np.argmax(bad))
                raise InvalidInputError(
                    f"`reward` must not hold NaN or +inf: {self._pair_of_entry(part.start + entry)}, next state "
                    f"{shown(self.state_ids[columns[entry]])} has {values[entry]}; use a finite reward, or -inf to "
                    "forbid the pair"
                )
            values *= self.probability[part]
            result[first:last] = _csr(values, columns, starts, (last - first, self.n_states)) @ ones
        return result

    def _entries_of(self, matrix):
        """(nnz,) entries of a sparse matrix at the places of ours, 0 where it has none."""
        matrix = matrix.tocsr()
        if not matrix.has_canonical_format:
            matrix = matrix.copy()
            matrix.sum_duplicates()
        if matrix.nnz == self.nnz and np.array_equal(matrix.indptr, self.indptr) \
                and np.array_equal(matrix.indices, self.indices):
            return np.asarray(matrix.data[:self.nnz], dtype=np.float64)
        result = np.zeros(self.nnz)
        for first, last in self._blocks():
            part = slice(self.indptr[first], self.indptr[last])
            mine = np.repeat(np.arange(last - first), np.diff(self.indptr[first:last + 1])) * self.n_states
            mine += self.indices[part]
            rows = slice(matrix.indptr[first], matrix.indptr[last])
            theirs = np.repeat(np.arange(last - first), np.diff(matrix.indptr[first:last + 1])) * self.n_states
            theirs += matrix.indices[rows]
            _, at, where = np.intersect1d(mine, theirs, assume_unique=True, return_indices=True)
            result[part][at] = matrix.data[rows][where]
        return result

    # -- policies

    def policy_vector(self, policy):
        """(n_pairs,) probabilities of actions, from any form of a policy.

        Parameters
        ----------
        policy : (n_pairs,) probabilities in our order; (n_states, n_actions) probabilities, 0 where an action does not
            exist; (n_states,) integers, one action index for each state; or None for the uniform policy. Rows and
            entries of terminal states are ignored.

        Returns
        -------
        (n_pairs,) float64, which sums to 1 over the pairs of each non-terminal state

        Raises
        ------
        InvalidInputError : naming the state, where it does not, or where mass lies on an action that does not exist
        """
        if policy is None:
            return 1.0 / np.diff(self.pair_ptr)[self.pair_state]
        given = np.asarray(policy)
        whole = given.dtype.kind in "iu" and given.shape == (self.n_states,)
        if whole and self.n_pairs == self.n_states and self.n_actions > 1:
            raise InvalidInputError(
                f"`policy` must have one meaning: {given.size} integers can be actions of states or probabilities of "
                "pairs; pass probabilities as floats, or an (n_states, n_actions) matrix"
            )
        if whole and (self.n_pairs != self.n_states or not given.any()):  # of one action only, ones are probabilities
            acts = np.flatnonzero(~self.terminal)
            found = np.zeros(self.n_pairs)
            found[self.pair_index(acts, given[acts])] = 1.0
            return found
        given = _numbers("policy", given)
        if given.shape == (self.n_states, self.n_actions) and given.ndim == 2:
            self._refuse_absent(given)
            given = given[self.pair_state, self.pair_action]
        elif given.shape != (self.n_pairs,):
            raise InvalidInputError(
                f"`policy` must fit the model: got shape {given.shape}; pass ({self.n_pairs},) probabilities of pairs, "
                f"({self.n_states}, {self.n_actions}) of states and actions, or ({self.n_states},) integer actions"
            )
        return self._checked_policy(np.array(given))

    def _refuse_absent(self, matrix):
        absent = np.ones(matrix.shape, bool)
        absent[self.pair_state, self.pair_action] = False
        absent[self.terminal] = False
        absent &= np.nan_to_num(matrix, nan=0.0) != 0
        if absent.any():
            s, a = np.argwhere(absent)[0]
            raise InvalidInputError(f"`policy` must be 0 where an action does not exist: {self._name(s, a)} has "
                                    f"{matrix[s, a]:g}; see mdp.pair_state and mdp.pair_action")

    def _checked_policy(self, policy):
        bad = ~((policy >= 0) & (policy < np.inf))
        if bad.any():
            pair = int(np.argmax(bad))
            raise InvalidInputError(f"`policy` must be finite and at least 0: {self._pair(pair)} has {policy[pair]:g}; "
                                    "pass probabilities")
        sums = np.bincount(self.pair_state, policy, minlength=self.n_states)
        bad = (np.abs(sums - 1) > _SUM_TOLERANCE) & ~self.terminal
        if bad.any():
            s = int(np.argmax(bad))
            raise InvalidInputError(f"`policy` must sum to 1 over the actions of each state: state "
                                    f"{shown(self.state_ids[s])} sums to {sums[s]:.10g}; divide by the sums")
        return policy

    def policy_matrix(self, policy):
        """(n_states, n_actions) probabilities; 0 where an action does not exist, and in terminal states.

        Parameters
        ----------
        policy : any form that :meth:`policy_vector` takes
        """
        result = np.zeros((self.n_states, self.n_actions))
        result[self.pair_state, self.pair_action] = self.policy_vector(policy)
        return result

    def transition_matrix(self, policy):
        r"""Transitions between states under a policy, :math:`P_\pi(s, s') = \sum_a \pi(a \mid s)\, p(s' \mid s, a)`.

        Parameters
        ----------
        policy : any form that :meth:`policy_vector` takes

        Returns
        -------
        (n_states, n_states) csr_array
            Rows of terminal states are empty: the process ends there. So :math:`V = (I - \gamma P_\pi)^{-1} r_\pi`
            holds with :math:`r_\pi = 0` there.
        """
        n = self.n_pairs
        chosen = sparse.csr_array((self.policy_vector(policy), np.arange(n, dtype=np.int32),
                                   self.pair_ptr.astype(np.int32)), shape=(self.n_states, n))
        return (chosen @ self.transitions).tocsr()

    def to_dense(self, max_entries=10**8):
        """(n_states, n_actions, n_states) array; rows of terminal states and of actions that do not exist are 0.

        Parameters
        ----------
        max_entries : int, an array of more entries (8 bytes each) is an error
        """
        shape = (self.n_states, self.n_actions, self.n_states)
        if math.prod(shape) > max_entries:
            raise InvalidInputError(f"a dense tensor must have at most {max_entries:,} entries: this one would have "
                                    f"{math.prod(shape):,}; use mdp.transitions, or raise max_entries")
        result = np.zeros(shape)
        pair = np.repeat(np.arange(self.n_pairs), np.diff(self.indptr))
        result[self.pair_state[pair], self.pair_action[pair], self.indices] = self.probability
        return result

    # -- saving

    def save(self, path):
        """Write the model as npz, uncompressed and without pickle."""
        arrays = {name: getattr(self, name) for name in
                  ("probability", "indices", "indptr", "pair_state", "pair_action", "terminal", "state_ids",
                   "action_ids")}
        if self._pair_order is not None:
            arrays["pair_order"] = self._pair_order
        arrays["discount"] = np.asarray(self.discount)
        for name in ("reward", "initial_distribution"):
            if getattr(self, name) is not None:
                arrays[name] = getattr(self, name)
        if sparse.issparse(self.features):
            arrays.update({f"features_{part}": getattr(self.features, part) for part in ("data", "indices", "indptr")})
        elif self.features is not None:
            arrays["features"] = self.features
        if self.features is not None:
            arrays["feature_names"] = np.asarray(self.feature_names, dtype=str)
        save_arrays(path, arrays)

    @classmethod
    def load(cls, path):
        """Read a model that :meth:`save` wrote, and check it as any other."""
        data = load_arrays(path, "MDP.save", (
            "probability", "indices", "indptr", "pair_state", "pair_action", "terminal", "state_ids", "action_ids",
            "discount"))
        names = [str(name) for name in data["feature_names"]] if "feature_names" in data else None
        features = data.get("features")
        if "features_data" in data:
            features = sparse.csr_array((data["features_data"], data["features_indices"], data["features_indptr"]),
                                        shape=(data["pair_state"].size, len(names)))
        matrix = _csr(data["probability"], data["indices"], data["indptr"],
                      (data["pair_state"].size, data["state_ids"].size))
        mdp = cls.from_pairs(matrix, data["pair_state"], data["pair_action"], float(data["discount"]), data["terminal"],
                             features, feature_names=names, state_ids=data["state_ids"],
                             action_ids=data["action_ids"], allow_leak=True)
        mdp._pair_order = _read_only(data["pair_order"]) if "pair_order" in data else None
        for name in ("reward", "initial_distribution"):
            if name in data:
                setattr(mdp, name, _read_only(data[name]))
        return mdp

    def __getstate__(self):
        # what the solver found out can be found again
        return {name: value for name, value in self.__dict__.items() if name != "_solver_pattern"}

    def __setstate__(self, state):
        # arrays come out of pickle and deepcopy writeable
        self.__dict__.update({name: freeze(value) for name, value in state.items()})

    # -- helpers

    def _csr_of(self, data):
        return _csr(data, self.indices, self.indptr, (self.n_pairs, self.n_states))

    def _blocks(self):
        """(first, last) ranges of pairs with about `_BLOCK` entries each."""
        cuts = np.searchsorted(self.indptr, np.arange(_BLOCK, self.nnz, _BLOCK))
        bounds = np.unique(np.concatenate([[0], cuts, [self.n_pairs]])).tolist()
        return zip(bounds[:-1], bounds[1:])

    def _name(self, state, action):
        return f"state {shown(self.state_ids[state])}, action {shown(self.action_ids[action])}"

    def _shown_state(self, state):
        return shown(self.state_ids[state])

    def _pair(self, pair):
        return self._name(self.pair_state[pair], self.pair_action[pair])

    def _pair_of_entry(self, entry):
        return self._pair(int(np.searchsorted(self.indptr, entry, side="right")) - 1)


# -- tensors in -----------------------------------------------------------------------------------


def _checked_tensor(transitions):
    """A list of CSR matrices, or an (S, A, S) array."""
    if sparse.issparse(transitions):
        raise InvalidInputError(
            "`transitions` must be an (S, A, S) array or a list of A sparse (S, S) matrices: got one sparse matrix of "
            f"shape {transitions.shape}; pass [matrix] for a single action, or use MDP.from_pairs"
        )
    if isinstance(transitions, (list, tuple)) and any(sparse.issparse(item) for item in transitions):
        return _checked_list(transitions)
    if isinstance(transitions, (list, tuple)) and any(isinstance(item, np.ndarray) for item in transitions):
        raise InvalidInputError(
            "a list of `transitions` must hold sparse matrices: entry 0 is a dense array, which could be a state's or "
            "an action's; pass np.stack(matrices, axis=1) for (S, S) matrices of the actions"
        )
    try:
        array = np.asarray(transitions)
        array = array if array.dtype.kind == "f" else array.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise InvalidInputError(f"`transitions` must hold numbers: {error}; pass an (S, A, S) array") from None
    if array.ndim != 3 or array.shape[0] != array.shape[2]:
        hint = "pass transitions[s, a, t]"
        if array.ndim == 3 and array.shape[1] == array.shape[2]:
            hint = "it looks like (A, S, S): pass np.moveaxis(transitions, 0, 1)"
        raise InvalidInputError(f"`transitions` must have shape (S, A, S): got {array.shape}; {hint}")
    return array


def _checked_list(matrices):
    result = []
    for a, item in enumerate(matrices):
        if not sparse.issparse(item):
            raise InvalidInputError(f"a list of `transitions` must hold sparse matrices: entry {a} is "
                                    f"{type(item).__name__}; convert it with scipy.sparse.csr_array")
        if item.ndim != 2 or item.shape[0] != item.shape[1] or item.shape != matrices[0].shape:
            raise InvalidInputError(f"each matrix of `transitions` must have the same shape (S, S): action {a} has "
                                    f"{item.shape}; pass one square matrix for each action")
        result.append(_checked_csr(item))
    return result


def _checked_csr(matrix):
    """A CSR matrix whose row pointers can be trusted; columns and values are looked at later."""
    if not sparse.issparse(matrix):
        matrix = _two_axes("transitions", matrix)
    if matrix.ndim != 2:
        raise InvalidInputError(f"`transitions` must have two dimensions: got shape {matrix.shape}; pass (n_pairs, "
                                "n_states)")
    matrix = matrix.tocsr() if sparse.issparse(matrix) else sparse.csr_array(matrix)
    if matrix.dtype.kind not in "fiub":
        raise InvalidInputError(f"`transitions` must hold real numbers: got dtype {matrix.dtype}; convert it "
                                "to float64")
    indptr, size = matrix.indptr, min(matrix.indices.size, matrix.data.size)
    if indptr.size != matrix.shape[0] + 1 or indptr[0] != 0 or indptr[-1] > size or (indptr[1:] < indptr[:-1]).any():
        raise InvalidInputError("`transitions` must be a valid CSR matrix: its indptr does not ascend from 0 to at "
                                f"most {size}; rebuild the matrix")
    return matrix


def _two_axes(name, values):
    """Numbers with two axes; NaN is looked for later, where it can be named."""
    array = _numbers(name, values)
    if array.ndim != 2:
        raise InvalidInputError(f"`{name}` must have two dimensions: got shape {array.shape}; pass (rows, columns)")
    return array


def _bound_of_entries(tensor):
    """At least the number of nonzero entries."""
    return sum(matrix.nnz for matrix in tensor) if isinstance(tensor, list) else int(np.count_nonzero(tensor))


def _dense_blocks(tensor, mask):
    """CSR blocks of consecutive available pairs of an (S, A, S) array."""
    n_states, n_actions, _ = tensor.shape
    step = max(1, _BLOCK // (n_actions * n_states))
    for s in range(0, n_states, step):
        yield sparse.csr_array(tensor[s:s + step][mask[s:s + step]].astype(np.float64, copy=False))


def _sparse_blocks(matrices, mask):
    """CSR blocks of consecutive available pairs of a list of (S, S) matrices."""
    n_states = matrices[0].shape[0]
    step = max(1, int(_BLOCK / (1 + sum(matrix.nnz for matrix in matrices) / n_states)))
    for s in range(0, n_states, step):
        block = sparse.vstack([matrix[s:s + step] for matrix in matrices], format="csr")
        state, action = np.nonzero(mask[s:s + step])
        block = block[action * (block.shape[0] // len(matrices)) + state]
        block.sum_duplicates()
        yield block


def _csr(data, indices, indptr, shape):
    """A csr_array over these arrays; SciPy wants both index arrays to be of one type."""
    if indptr[-1] <= _NNZ_LIMIT:
        indptr = indptr.astype(np.int32)
    return sparse.csr_array((data, indices, indptr), shape=shape)


# -- gymnasium, counts ----------------------------------------------------------------------------


def _read_gymnasium(table):
    """States and actions of pairs, their number, and a dict of arrays with one row for each listed outcome."""
    state, action, rows = [], [], []
    for s in range(len(table)):
        choices = table[s]
        for a in (sorted(choices) if isinstance(choices, dict) else range(len(choices))):
            rows += [(len(state), *outcome[:4]) for outcome in choices[a]]
            state.append(s)
            action.append(a)
    columns = list(zip(*rows)) if rows else [[]] * 5
    entries = {"pair": np.array(columns[0], dtype=np.int64), "probability": np.array(columns[1], dtype=np.float64),
               "next": np.array(columns[2], dtype=np.int64), "reward": np.array(columns[3], dtype=np.float64),
               "terminated": np.array(columns[4], dtype=bool)}
    possible = entries["probability"] != 0
    entries = {name: column[possible] for name, column in entries.items()}
    return np.array(state, dtype=np.int64), np.array(action, dtype=np.int64), len(state), entries


def _ends(n_states, tail, entries, begins):
    """(terminal, extra): states entered by terminated transitions only, and whether one more is needed.

    Transitions out of a terminal state do not count, hence the repetition: a state that ceases to be terminal acts, and
    what it enters unterminated ceases to be terminal as well.
    """
    head, terminated = entries["next"], entries["terminated"]
    terminal = np.zeros(n_states, bool)
    terminal[head[terminated]] = True
    terminal &= ~begins
    while True:
        entered = head[~terminated & ~terminal[tail] & terminal[head]]
        if not entered.size:
            break
        terminal[entered] = False
    return terminal, int((terminated & ~terminal[head] & ~terminal[tail]).any())


def _count_matrix(state, action, next_state, count, n_states, n_actions):
    """(S·A, S) CSR of how often each transition was observed."""
    state = index_vector("state", state, n_states)
    action = index_vector("action", action, n_actions, state.size)
    next_state = index_vector("next_state", next_state, n_states, state.size)
    if count is None:
        count = np.ones(state.size)
    count = float_vector("count", count, state.size, nonnegative=True)
    row = state.astype(np.int64) * n_actions + action
    counts = sparse.coo_array((count, (row, next_state)), shape=(n_states * n_actions, n_states)).tocsr()
    counts.eliminate_zeros()
    return counts


def _pattern(matrix):
    """Ones where a matrix is not zero."""
    matrix = sparse.csr_array(matrix, copy=True)
    matrix.sum_duplicates()
    matrix.eliminate_zeros()
    return sparse.csr_array((np.ones(matrix.nnz), matrix.indices, matrix.indptr), shape=matrix.shape)


# -- features, labels, arrays ---------------------------------------------------------------------


def _numbers(name, values):
    try:
        if np.iscomplexobj(values):
            raise TypeError("complex ones have no order")
        return np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InvalidInputError(f"`{name}` must hold numbers: {error}; convert it to numbers first") from None


def _refuse_overflow(what, size):
    if size > _NNZ_LIMIT:
        raise InvalidInputError(f"{what} must not exceed {_NNZ_LIMIT:,} entries, the limit of 32-bit indices: it would "
                                f"have {size:,}; split the model, or give a sparser one")


def _read_only(array):
    """A view that cannot be written to; the array itself stays as it is."""
    view = array.view()
    view.flags.writeable = False
    return view
