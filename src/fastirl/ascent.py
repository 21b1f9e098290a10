"""First-order ascent of a likelihood under bounds and penalties, and the log that lets a killed fit resume."""

import hashlib
import io
import os
import struct
import zlib
from dataclasses import dataclass

import numpy as np
from scipy import optimize

from ._validation import shown
from .exceptions import DivergenceError, InvalidInputError, UndecidedError

__all__ = ["Ascent", "Checkpoint", "climb", "climb_within", "fingerprint"]


_MOST = 2_000  # linear conditions that a quadratic program begins with


@dataclass(frozen=True)
class Ascent:
    """Where a climb ended. `objective` has the penalties in it, `value` has not."""

    theta: np.ndarray
    value: float
    objective: float
    slope: float
    converged: bool
    message: str
    n_iter: int


def climb(evaluate, start, *, l1=None, l2=None, lower=None, upper=None, scale=None, max_iter=200, tol=1e-6, memory=10,
          on_iteration=None):
    r"""Maximise L(θ) − Σ l1 |θ| − Σ l2 θ² / 2 with lower ≤ θ ≤ upper, by L-BFGS-B.

    Parameters
    ----------
    evaluate : callable θ -> (L, ∇L); DivergenceError and UndecidedError mark points where L does not exist
    start : (k,) a point where it does
    l1, l2, lower, upper : (k,) or None
    scale : (k,) typical size of what a parameter multiplies; the search is in θ · scale
    max_iter : int
    tol : the largest slope that is left, in scaled parameters, relative to max(1, |L|)
    memory : pairs of steps that L-BFGS keeps
    on_iteration : callable (iteration, objective, slope), optional

    Returns
    -------
    Ascent

    Notes
    -----
    |θ| is smooth on the halves θ = p − q with p, q ≥ 0, where L-BFGS-B keeps exact zeros. The slope is that of the
    steepest feasible direction: at θ = 0 it is what of ∇L exceeds l1, at a bound what points inside. A point where L does
    not exist counts as one on a parabola that leads back to the best one.
    """
    start = np.asarray(start, float)
    k = start.size
    zeros = np.zeros(k)
    scale = np.ones(k) if scale is None else np.asarray(scale, float)
    l1, l2 = (zeros if x is None else np.asarray(x, float) for x in (l1, l2))
    lower = np.full(k, -np.inf) if lower is None else np.asarray(lower, float)
    upper = np.full(k, np.inf) if upper is None else np.asarray(upper, float)
    split = np.flatnonzero(l1 > 0)
    start = np.clip(start, lower, upper)
    state = {"best": None, "n": 0}

    def at(theta):
        """(−objective, its gradient, L's own) or None."""
        try:
            value, gradient = evaluate(theta)
        except (DivergenceError, UndecidedError):
            return None
        total = value - float(l1 @ np.abs(theta)) - 0.5 * float(l2 @ theta**2)
        found = (total, gradient - l2 * theta, value)
        if state["best"] is None or total > state["best"][1]:
            state["best"] = (theta.copy(), total, found[1], value)
        return found

    def slope(theta, gradient):
        """(k,) the steepest feasible ascent, in scaled parameters."""
        steep = np.where(theta > 0, gradient - l1, np.where(theta < 0, gradient + l1,
                                                              np.sign(gradient) * np.maximum(np.abs(gradient) - l1, 0.0)))
        steep[(theta <= lower) & (steep < 0)] = 0.0
        steep[(theta >= upper) & (steep > 0)] = 0.0
        return steep / scale

    def join(x):
        theta = x[:k] / scale
        if split.size:
            theta[split] -= x[k:] / scale[split]
        # a bound times a scale over the scale is not always the bound
        for bound in (lower, upper):
            near = np.isfinite(bound) & (np.abs(theta - bound) <= 1e-15 * np.abs(bound))
            theta[near] = bound[near]
        return theta

    def negative(x):
        theta = join(x)
        found = at(theta)
        if found is None:
            home, total, _, _ = state["best"]
            away = (theta - home) * scale
            weight = (1.0 + abs(total)) / max(away @ away, 1e-300)
            value, gradient = -total + weight * (away @ away), 2.0 * weight * away
            if split.size:
                return value, np.concatenate([gradient, -gradient[split]])
            return value, gradient
        total, gradient, value = found
        gradient = -gradient / scale
        if not split.size:
            return -total, gradient
        # with p, q >= 0 the penalty is l1 (p + q), which is l1 |p − q| wherever one of them is 0
        pay = l1[split] / scale[split]
        penalty = float(pay @ (x[split] + x[k:])) - float(l1[split] @ np.abs(theta[split]))
        other = -gradient[split] + pay
        gradient[split] += pay
        return -total + penalty, np.concatenate([gradient, other])

    if at(start) is None:
        evaluate(start)  # raises by name
    low, high = lower * scale, upper * scale
    x = start * scale
    if split.size:
        x[split] = np.maximum(start, 0.0)[split] * scale[split]
        x = np.concatenate([x, np.maximum(-start, 0.0)[split] * scale[split]])
        low, high = low.copy(), high.copy()
        second = np.stack([np.maximum(-upper, 0.0)[split], np.maximum(-lower, 0.0)[split]]) * scale[split]
        low[split], high[split] = np.maximum(lower, 0.0)[split] * scale[split], np.maximum(upper, 0.0)[split] * scale[split]
        low, high = np.concatenate([low, second[0]]), np.concatenate([high, second[1]])
    bounds = optimize.Bounds(low, high)

    def limit():
        return tol * max(1.0, abs(state["best"][1]))

    def callback(x):
        state["n"] += 1
        theta, total, gradient, _ = state["best"]
        state["slope"] = float(np.abs(slope(theta, gradient)).max(initial=0.0))
        if on_iteration is not None:
            on_iteration(state["n"], total, state["slope"])
        if state["slope"] <= limit() or state["n"] >= max_iter:
            raise StopIteration

    state["slope"] = float(np.abs(slope(*state["best"][::2])).max(initial=0.0))
    stalled = 0
    while state["slope"] > limit() and state["n"] < max_iter and stalled < 2:
        before, old = state["best"][1], state["n"]
        optimize.minimize(negative, x, jac=True, method="L-BFGS-B", bounds=bounds, callback=callback,
                          options={"maxiter": max_iter - state["n"], "maxcor": memory, "gtol": 0.0, "ftol": 0.0, "maxls": 40,
                                   "maxfun": 100 * max_iter + 100})
        theta, total, gradient, _ = state["best"]
        state["slope"] = float(np.abs(slope(theta, gradient)).max(initial=0.0))
        # a line search that failed lost its memory: once more from the best point, without it
        stalled = stalled + 1 if total - before <= 1e-13 * abs(total) or state["n"] == old else 0
        x = theta * scale
        if split.size:
            x = np.concatenate([x, np.maximum(-theta, 0.0)[split] * scale[split]])
            x[split] = np.maximum(theta, 0.0)[split] * scale[split]
    theta, total, _, value = state["best"]
    converged = state["slope"] <= limit()
    message = f"the largest slope left is {state['slope']:.1e} (at most {limit():.1e} is converged)"
    if not converged:
        message += f"; max_iter={max_iter} reached" if state["n"] >= max_iter else "; no step up was found"
    return Ascent(theta, value, total, state["slope"], bool(converged), message, state["n"])


def climb_within(evaluate, start, rows, right, *, l2=None, lower=None, upper=None, scale=None, max_iter=200, tol=1e-6):
    r"""Maximise L(θ) − Σ l2 θ² / 2 of few parameters with rows·θ ≤ right and lower ≤ θ ≤ upper, by sequential quadratic programs.

    Parameters
    ----------
    evaluate : callable θ -> (L, ∇L), which must exist a little outside too
    start : (k,) a point within
    rows, right : (m, k), (m,)
    l2, lower, upper, scale, max_iter, tol : as of :func:`climb`

    Returns
    -------
    Ascent, whose θ is within, and whose slope is what of ∇L the conditions that hold with equality do not push back

    Notes
    -----
    SciPy's SLSQP. Of many conditions those near the boundary are taken first, and others where they are broken. It starts
    anew from its last point, without its memory, as long as that gains.
    """
    k = len(start)
    scale = np.ones(k) if scale is None else np.asarray(scale, float)
    l2 = np.zeros(k) if l2 is None else np.asarray(l2, float)
    low = np.full(k, -np.inf) if lower is None else np.asarray(lower, float) * scale
    high = np.full(k, np.inf) if upper is None else np.asarray(upper, float) * scale
    both = np.unique(np.column_stack([rows / scale, right]), axis=0)
    rows, right = both[:, :-1], both[:, -1]
    home = x = np.asarray(start, float) * scale

    def negative(x):
        theta = x / scale
        value, gradient = evaluate(theta)
        return -(value - 0.5 * float(l2 @ theta**2)), -(gradient - l2 * theta) / scale

    working = np.zeros(right.size, bool)
    working[np.argsort(right - rows @ x)[:_MOST]] = True
    best, n_iter = negative(x)[0], 0
    for _ in range(30):
        taken, bound = rows[working], right[working]
        found = optimize.minimize(
            negative, x, jac=True, method="SLSQP", bounds=optimize.Bounds(low, high),
            constraints=[{"type": "ineq", "fun": lambda x: bound - taken @ x, "jac": lambda x: -taken}] if bound.size else [],
            options={"maxiter": max(max_iter - n_iter, 1), "ftol": 1e-11 * max(1.0, abs(best))})
        n_iter += int(found.nit)
        reached = np.clip(found.x, low, high) if np.isfinite(found.x).all() else x
        broken = (rows @ reached > right + 1e-7 * (1.0 + np.abs(right))) & ~working
        if broken.any() and n_iter < max_iter:
            working |= broken
            x = reached
            continue
        reached = _back_within(reached, home, rows, right)
        value = negative(reached)[0]
        gain = best - value
        if gain > 0:
            x, best = reached, value
        else:
            x = _back_within(x, home, rows, right)
        if gain <= 1e-9 * max(1.0, abs(best)) or n_iter >= max_iter:
            break
    theta = x / scale
    value, gradient = evaluate(theta)
    steep = (gradient - l2 * theta) / scale
    near = 1e-6 * (1.0 + np.abs(x).max(initial=0.0))
    normals = np.concatenate([rows[right - rows @ x <= near], np.eye(k)[high - x <= near], -np.eye(k)[x - low <= near]])
    pushed = normals.T @ optimize.nnls(normals.T, steep)[0] if normals.size else 0.0
    slope, limit = float(np.abs(steep - pushed).max(initial=0.0)), tol * max(1.0, abs(best))
    converged = slope <= limit
    message = f"the largest slope left is {slope:.1e} (at most {limit:.1e} is converged)"
    if not converged:
        message += f"; max_iter={max_iter} reached" if n_iter >= max_iter else "; no step up was found"
    return Ascent(theta, value, value - 0.5 * float(l2 @ theta**2), slope, bool(converged), message, n_iter)


def _back_within(x, home, rows, right):
    """The point of the way from x home at which no condition is broken."""
    excess = rows @ x - right
    bad = excess > 0
    if not bad.any():
        return x
    share = excess[bad] / np.maximum(excess[bad] + (right - rows @ home)[bad], 1e-300)
    return x + min(float(share.max()) * (1.0 + 1e-9), 1.0) * (home - x)


def fingerprint(*parts):
    """A digest of arrays and settings: fits with the same one are the same fit."""
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, np.ndarray) and part.dtype != object:
            digest.update(f"{part.dtype.str}{part.shape}".encode())
            digest.update(np.ascontiguousarray(part).data)
        else:
            digest.update(repr(part).encode())
        digest.update(b"|")
    return digest.hexdigest()


class Checkpoint:
    """Evaluations of a fit, appended to a file as they are made, and read back when the fit is run again.

    An optimiser is a function of what it was told: when a killed fit runs again, its evaluations up to the kill are read from
    the log, bit for bit, and it goes on from there. A record is (length, CRC-32, npz); one cut short by a kill is dropped.
    """

    MAGIC = b"fastirl evaluations 1\n"

    def __init__(self, path, identity):
        self.path, self.found, self.n_replayed = os.fspath(path), {}, 0
        head = self.MAGIC + identity.encode() + b"\n"
        if os.path.exists(self.path) and os.path.getsize(self.path):
            self._read(head)
        else:
            with open(self.path, "wb") as file:
                file.write(head)
                file.flush()
                os.fsync(file.fileno())

    def _read(self, head):
        with open(self.path, "rb") as file:
            data = file.read()
        if not data.startswith(self.MAGIC):
            # a kill may fall into the very first write
            if self.MAGIC.startswith(data) or head.startswith(data):
                with open(self.path, "wb") as file:
                    file.write(head)
                return
            raise InvalidInputError(f"`checkpoint` must be a log of evaluations: {self.path!r} is another file; name one that "
                                    "does not exist yet")
        if not data.startswith(head):
            if head.startswith(data):
                with open(self.path, "wb") as file:
                    file.write(head)
                return
            raise InvalidInputError(f"a checkpoint must belong to the same fit: {self.path!r} is of other data or settings; "
                                    "delete it, or name another file")
        at = len(head)
        while at + 12 <= len(data):
            size, check = struct.unpack_from("<QI", data, at)
            body = data[at + 12:at + 12 + size]
            if len(body) < size or zlib.crc32(body) != check:
                break
            with np.load(io.BytesIO(body), allow_pickle=False) as record:
                self.found[record["key"].tobytes()] = {name: record[name] for name in record.files if name != "key"}
            at += 12 + size
        if at < len(data):
            with open(self.path, "r+b") as file:
                file.truncate(at)

    def get(self, key):
        """The record of a key (bytes), or None."""
        found = self.found.get(key)
        self.n_replayed += found is not None
        return found

    def put(self, key, **arrays):
        """Append a record and force it to the disk."""
        buffer = io.BytesIO()
        np.savez(buffer, key=np.frombuffer(key, np.uint8), **arrays)
        body = buffer.getvalue()
        with open(self.path, "ab") as file:
            file.write(struct.pack("<QI", len(body), zlib.crc32(body)) + body)
            file.flush()
            os.fsync(file.fileno())
        self.found[key] = arrays


def checked_path(path):
    """`path` where a log can be written."""
    try:
        folder = os.path.dirname(os.path.abspath(os.fspath(path)))
    except TypeError:
        raise InvalidInputError(f"`checkpoint` must be the path of a file: got {shown(path)}; pass a text or a Path") from None
    if os.path.isdir(path):
        raise InvalidInputError(f"`checkpoint` must be the path of a file: {os.fspath(path)!r} is a folder; name a file in it")
    if not os.path.isdir(folder):
        raise InvalidInputError(f"`checkpoint` must lie in a folder that exists: {folder!r} does not; create it")
    return os.fspath(path)
