"""One adapter per peer: the same problem, the same answer, each library's own best way.

An adapter is built once per problem (set-up is not timed) and then asked for the log likelihood of all trips and its
gradient in the weights: `evaluate(theta) -> (log_likelihood, gradient)`.
"""

import time

import numpy as np
import scipy.sparse as sp
from scipy.sparse.linalg import splu

import fastirl as fi
from fastirl import _core, _reference
from fastirl.objectives import RouteObjective
from fastirl.route_choice import RouteModel

# np.vecdot (NumPy 2) is half again as fast as einsum on these shapes
_rowwise_dot = getattr(np, "vecdot", lambda a, b: np.einsum("ij,ij->i", a, b))


class Adapter:
    """What a peer can do: by default every problem."""

    why_not = ""

    @classmethod
    def can(cls, problem):
        return True

    def details(self):
        """Extra columns for the table."""
        return {}


class Fastirl(Adapter):
    """fastirl on one thread, as MaxEntIRL.fit evaluates it: trips are matched once."""

    name = "fastirl"
    n_threads, method = 1, "auto"

    def __init__(self, problem):
        net = fi.RoadNetwork.from_arcs(problem.n_states, problem.tail, problem.head, problem.features)
        trips = fi.Trajectories.from_sequences(problem.sequences())
        model = RouteModel(stopping=problem.stopping, n_threads=self.n_threads, method=self.method)
        self._objective = RouteObjective(net, net.match(trips, problem.stopping), fi.LinearReward(), model)
        self._net, self._trips, self._problem = net, trips, problem

    def evaluate(self, theta):
        self._objective.forget()
        point = self._objective.at(np.asarray(theta, dtype=float), 1)
        return point.value, point.gradient

    def details(self):
        utility = self._net.features @ np.asarray(self._problem.theta, dtype=float)
        found = fi.route_log_likelihood(self._net, utility, self._trips, stopping=self._problem.stopping, n_threads=1,
                                        method=self.method)
        if found.method == "elimination":
            order = self._net.elimination_order()
            return {"method": found.method, "n_pairs": order.n_pairs, "n_triangles": order.n_triangles}
        return {"method": found.method, "forward_sweeps": float(np.median(found.n_sweeps)),
                "adjoint_sweeps": float(np.median(found.n_adjoint_sweeps)), "search_share": self._search_share(utility)}

    def _search_share(self, utility):
        """Share of the shortest-path searches in an evaluation: both timed here, one after the other."""
        topology, batches = self._net._topology, self._objective.observed.queries.batches
        begin = time.perf_counter()
        for batch in batches:
            _core.hard_values(*topology.arrays, utility, batch.destination)
        search = time.perf_counter() - begin
        begin = time.perf_counter()
        self.evaluate(self._problem.theta)
        return search / (time.perf_counter() - begin)


class FastirlTwoThreads(Fastirl):
    name = "fastirl, two threads"
    n_threads = 2


class FastirlSweeps(Fastirl):
    name = "fastirl, sweeps"
    method = "sweep"
    why_not = "sweeps for each destination take minutes there"

    @classmethod
    def can(cls, problem):
        return problem.n_states < 100_000


class SlowTwin(Adapter):
    """The package's own definition in plain NumPy: what the kernels are equal to."""

    name = "slow twin (NumPy)"
    why_not = "it takes a dense pass over all arcs for each sweep"

    def __init__(self, problem):
        self._problem = problem
        steps = sp.csr_array((np.arange(1, problem.tail.size + 1), (problem.tail, problem.head)),
                             shape=(problem.n_states,) * 2)
        self._trips = [(int(trip[0]), int(trip[-1]), np.asarray(steps[trip[:-1], trip[1:]]).ravel() - 1)
                       for trip in problem.sequences()]

    @classmethod
    def can(cls, problem):
        return problem.size == "small" and problem.n_states <= 1000

    def evaluate(self, theta):
        problem = self._problem
        per_trip, gradient = _reference.log_likelihood_and_gradient(
            problem.n_states, problem.tail, problem.head, problem.features @ np.asarray(theta), self._trips,
            stopping=problem.stopping)
        return per_trip.sum(), problem.features.T @ gradient


class Null(Adapter):
    """Does nothing: what a call through the adapter costs."""

    name = "null"

    def __init__(self, problem):
        self._gradient = np.zeros(problem.features.shape[1])

    def evaluate(self, theta):
        return 0.0, self._gradient


class SciPySplu(Adapter):
    """Recursive logit by SciPy's sparse LU: I - M factored once, all destinations solved together.

    With M = exp(utility) on arcs and G = (I - M)^-1, z_d = G e_d; log likelihood = sum u(path) - sum log z_d(o).
    The gradient is X^T (observed - expected arc counts), expected from the adjoint solves lambda_d = G^T seeds_d as
    lambda_d(k) M_ka z_d(a). What made it fast, each choice measured on the road problem (466 destinations):

    - states without outgoing arcs (dummy destinations) leave the system: their columns of M are right-hand sides;
    - no pivoting and a symmetric order (I - M is an M-matrix where the answer exists): solves take 2/3 of the time;
    - the order of the first factorisation is kept, and matrices are refilled in place: half the factor time;
    - a second factorisation, of the transpose, beats trans="T" where there are many destinations: that call goes
      through the right-hand sides one by one (set-up times both and keeps the faster);
    - 16 right-hand sides at a time stay in the cache: half the solve time of one block of 466, and no array of
      n_states x n_destinations;
    - expected arc counts as row dots of two gathers beat one sparse product per feature.

    It does not certify that the path sums are finite: a sum that came out negative is an error, nothing more.
    """

    name = "scipy splu"
    block = 16

    def __init__(self, problem):
        self.features = problem.features
        tail, head = problem.tail.astype(np.int64), problem.head.astype(np.int64)
        self._set_observed(problem, tail, head)
        self._set_matrix(problem, tail, head)
        self._set_queries(problem)
        self._two_factors = True
        self._two_factors = self._faster_with_two_factors(problem.theta)

    def evaluate(self, theta):
        theta = np.asarray(theta, dtype=np.float64)
        utility = self.features @ theta
        weight = np.exp(utility)
        forward = self._factor(self._forward, weight)
        adjoint = self._factor(self._adjoint, weight) if self._two_factors else None
        into = self._into_absorbing(weight)
        log_likelihood = self._observed @ utility
        dots = np.zeros(self._inner.size)
        expected = np.zeros(weight.size)
        for block in self._blocks:
            z = forward.solve(block.right_hand_side(into, self._n_core))
            value, seeds = block.values_and_seeds(z)
            log_likelihood -= value
            lam = adjoint.solve(seeds) if self._two_factors else forward.solve(seeds, trans="T")
            if block.arcs.size:
                expected[block.arcs] = weight[block.arcs] * lam[block.arc_tails, block.arc_columns]
            lam, z = np.ascontiguousarray(lam), np.ascontiguousarray(z)
            dots += _rowwise_dot(lam.take(self._inner_tail, 0), z.take(self._inner_head, 0))
        expected[self._inner] += weight[self._inner] * dots
        return float(log_likelihood), self.features.T @ (self._observed - expected)

    def _set_observed(self, problem, tail, head):
        key = tail * problem.n_states + head
        order = np.argsort(key, kind="stable")
        if (np.diff(key[order]) == 0).any():
            arc = order[1:][np.diff(key[order]) == 0][0]
            raise ValueError(
                f"a benchmark problem must not have parallel arcs: arc {arc} repeats {tail[arc]} -> {head[arc]}; "
                "merge the two"
            )
        states, offsets = problem.trip_states.astype(np.int64), problem.trip_offsets
        is_step = np.ones(states.size, dtype=bool)
        is_step[offsets[1:] - 1] = False
        step = np.flatnonzero(is_step)
        step_key = states[step] * problem.n_states + states[step + 1]
        place = np.minimum(np.searchsorted(key[order], step_key), key.size - 1)
        wrong = key[order][place] != step_key
        if wrong.any():
            first = step[wrong][0]
            raise ValueError(
                f"each step of a trip must be an arc: {states[first]} -> {states[first + 1]} is none; "
                "correct the trips of the problem"
            )
        self._observed = np.bincount(order[place], minlength=key.size).astype(np.float64)

    def _set_matrix(self, problem, tail, head):
        """I - M on the states with outgoing arcs, renumbered once by the better of two fill-reducing orders."""
        core = np.unique(tail)
        core_of = np.full(problem.n_states, -1)
        core_of[core] = np.arange(core.size)
        self._n_core = core.size
        inner = np.flatnonzero(core_of[head] >= 0)
        self._inner = inner
        weight = np.exp(problem.features @ np.asarray(problem.theta))
        trial = sp.csc_matrix((weight[inner], (core_of[tail[inner]], core_of[head[inner]])), shape=(core.size,) * 2)
        trial = (sp.identity(core.size, format="csc") - trial).tocsc()
        fewest, rank = None, None
        # MMD_ATA is left out: a hub makes its pattern dense
        for spec in ("COLAMD", "MMD_AT_PLUS_A"):
            factor = splu(trial, permc_spec=spec, diag_pivot_thresh=0.0, options={"SymmetricMode": True})
            if fewest is None or factor.nnz < fewest:
                fewest, rank, self.permc_spec = factor.nnz, factor.perm_c.astype(np.int64), spec
        self.factor_nnz = int(fewest)
        core_of[core] = rank
        self._core_of = core_of
        self._inner_tail, self._inner_head = core_of[tail[inner]], core_of[head[inner]]
        self._forward = self._pattern(self._inner_tail, self._inner_head)
        self._adjoint = self._pattern(self._inner_head, self._inner_tail)
        outer = np.flatnonzero(core_of[head] < 0)
        self._outer, self._outer_tail, self._outer_head = outer, core_of[tail[outer]], head[outer]

    def _pattern(self, row, column):
        """A matrix in compressed columns with the diagonal in, and the place of each entry in its data."""
        n = self._n_core
        diagonal = np.arange(n)
        key = np.concatenate([diagonal, column]) * n + np.concatenate([diagonal, row])
        unique, slot = np.unique(key, return_inverse=True)
        starts = np.searchsorted(unique, np.arange(n + 1) * n)
        matrix = sp.csc_matrix((np.zeros(unique.size), (unique % n).astype(np.intc), starts.astype(np.intc)),
                               shape=(n, n))
        return matrix, slot

    def _factor(self, pattern, weight):
        matrix, slot = pattern
        entries = np.concatenate([np.ones(self._n_core), -weight[self._inner]])
        matrix.data[:] = np.bincount(slot, weights=entries, minlength=matrix.data.size)
        return splu(matrix, permc_spec="NATURAL", diag_pivot_thresh=0.0, options={"SymmetricMode": True})

    def _set_queries(self, problem):
        """One query per distinct origin and destination, grouped into blocks of destinations."""
        states, offsets = problem.trip_states.astype(np.int64), problem.trip_offsets
        pairs, count = np.unique(np.column_stack([states[offsets[1:] - 1], states[offsets[:-1]]]), axis=0,
                                 return_counts=True)
        destination, origin = pairs.T
        # without arcs out of the destination, or on first arrival, a one-state trip is certain: no query
        certain = (destination == origin) & ((self._core_of[origin] < 0) | (problem.stopping == "first_arrival"))
        destination, origin, count = destination[~certain], origin[~certain], count[~certain]
        wanted = np.unique(destination)
        absorbing = self._core_of[wanted] < 0
        # a column of M for each absorbing destination, emptied and refilled at each evaluation
        column_of = np.full(problem.n_states, -1)
        column_of[wanted[absorbing]] = np.arange(absorbing.sum())
        used = column_of[self._outer_head] >= 0
        self._outer, self._outer_tail = self._outer[used], self._outer_tail[used]
        column = column_of[self._outer_head[used]]
        order = np.lexsort((self._outer_tail, column))
        self._outer, self._outer_tail, column = self._outer[order], self._outer_tail[order], column[order]
        self._outer_starts = np.searchsorted(column, np.arange(absorbing.sum() + 1)).astype(np.intc)
        wanted = np.concatenate([wanted[absorbing], wanted[~absorbing]])
        self._blocks = []
        for start in range(0, wanted.size, self.block):
            members = wanted[start:start + self.block]
            position = np.full(problem.n_states, -1)
            position[members] = np.arange(members.size)
            mine = position[destination] >= 0
            outer = (column >= start) & (column < start + members.size)
            self._blocks.append(_Block(
                start=start, core=self._core_of[members], first_arrival=problem.stopping == "first_arrival",
                rows=self._core_of[origin[mine]], columns=position[destination[mine]], count=count[mine],
                arcs=self._outer[outer], arc_tails=self._outer_tail[outer], arc_columns=column[outer] - start,
                labels=np.column_stack([origin[mine], destination[mine]]),
            ))

    def _into_absorbing(self, weight):
        shape = (self._n_core, self._outer_starts.size - 1)
        rows = self._outer_tail.astype(np.intc)
        return sp.csc_matrix((weight[self._outer], rows, self._outer_starts), shape=shape)

    def _faster_with_two_factors(self, theta):
        seconds = {}
        for choice in (True, False):
            self._two_factors = choice
            self.evaluate(theta)
            start = time.perf_counter()
            self.evaluate(theta)
            seconds[choice] = time.perf_counter() - start
        return seconds[True] <= seconds[False]


class _Block:
    """A few destinations that are solved together."""

    def __init__(self, **fields):
        vars(self).update(fields)
        self.width = self.core.size
        self.inside = np.flatnonzero(self.core >= 0)

    def right_hand_side(self, into, n_core):
        right = np.zeros((n_core, self.width), order="F")
        last = min(self.start + self.width, into.shape[1])
        if self.start < last:
            right[:, :last - self.start] = into[:, self.start:last].toarray(order="F")
        right[self.core[self.inside], self.inside] = 1.0
        return right

    def values_and_seeds(self, z):
        """Sum of V_d(o) over the block's trips, and its derivative in z."""
        reached = z[self.rows, self.columns]
        bad = ~((reached > 0) & np.isfinite(reached))
        if bad.any():
            origin, destination = self.labels[bad][0]
            raise ArithmeticError(
                f"a path sum must be a positive double: from {origin} to {destination} it is {reached[bad][0]}; "
                "use weights where it neither diverges nor underflows"
            )
        value = self.count @ np.log(reached)
        seeds = np.zeros(z.shape, order="F")
        seeds[self.rows, self.columns] = self.count / reached
        if self.first_arrival and self.inside.size:
            trips = np.bincount(self.columns, weights=self.count, minlength=self.width)[self.inside]
            rows = self.core[self.inside]
            loops = z[rows, self.inside]
            value -= trips @ np.log(loops)
            seeds[rows, self.inside] -= trips / loops
        return value, seeds


class PlainSplu(SciPySplu):
    """The same as one writes it at first: SciPy's default order and pivots, right-hand sides by the hundreds, trans="T"."""

    name = "scipy splu, plain"
    block = 256

    def _set_matrix(self, problem, tail, head):
        core = np.unique(tail)
        core_of = np.full(problem.n_states, -1)
        core_of[core] = np.arange(core.size)
        self._n_core, self._core_of = core.size, core_of
        self._inner = inner = np.flatnonzero(core_of[head] >= 0)
        self._inner_tail, self._inner_head = core_of[tail[inner]], core_of[head[inner]]
        self._forward = self._pattern(self._inner_tail, self._inner_head)
        outer = np.flatnonzero(core_of[head] < 0)
        self._outer, self._outer_tail, self._outer_head = outer, core_of[tail[outer]], head[outer]

    def _factor(self, pattern, weight):
        matrix, slot = pattern
        entries = np.concatenate([np.ones(self._n_core), -weight[self._inner]])
        matrix.data[:] = np.bincount(slot, weights=entries, minlength=matrix.data.size)
        return splu(matrix)

    def _faster_with_two_factors(self, theta):
        return False


LOG_LIKELIHOOD = (Fastirl, FastirlTwoThreads, FastirlSweeps, SciPySplu, PlainSplu, SlowTwin, Null)
