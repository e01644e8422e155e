"""Comparing arrays so that a difference can be found again: what differs, where first, both values."""

from __future__ import annotations

import numpy as np


def difference(ours: np.ndarray | None, truth: np.ndarray, *, tolerance: float = 0.0) -> str | None:
    """None if equal, bit for bit or within `tolerance` of the truth's scale; else a line that says where and how much."""
    if ours is None:
        return "is missing"
    if ours.shape != truth.shape or ours.dtype != truth.dtype:
        return f"is {ours.dtype}{list(ours.shape)}, expected {truth.dtype}{list(truth.shape)}"
    if tolerance == 0.0:
        same = ours == truth if ours.dtype.kind != "f" else ours.view(np.uint32) == truth.view(np.uint32)
    else:
        same = np.abs(ours.astype(np.float64) - truth) <= tolerance * scale(truth)  # false for NaN
    if same.all():
        return None
    where = np.unravel_index(np.argmin(same), same.shape)
    at = [int(i) for i in where]
    return f"differs in {(~same).sum()} of {same.size} places, first at {at}: {ours[where]} instead of {truth[where]}"


def scale(truth: np.ndarray) -> float:
    return float(np.abs(truth).max())


def relative_error(ours: list[np.ndarray], truth: list[np.ndarray]) -> float:
    """Largest difference in units of the largest value of its picture."""
    return max(float(np.abs(o.astype(np.float64) - t).max()) / scale(t) for o, t in zip(ours, truth))


def rms_error(ours: list[np.ndarray], truth: list[np.ndarray]) -> float:
    """Root mean square over all values of all pictures."""
    squares = [np.square(o.astype(np.float64) - t).ravel() for o, t in zip(ours, truth)]
    return float(np.sqrt(np.concatenate(squares).mean()))
