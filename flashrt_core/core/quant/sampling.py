"""Choose calibration frames from a recorded dataset: spread over episodes, then over the time within each.

Names and defaults of the arguments are those of upstream FlashRT (`core/calibration.py`); the columns are LeRobot's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Protocol, TypeVar

import numpy as np

from ...errors import ConfigError, nearest

Observation = TypeVar("Observation")


class Columns(Protocol):
    """A table read by column: a pandas DataFrame, a dict of arrays, an Arrow or NumPy structured table."""

    def __getitem__(self, name: str) -> Iterable[int]: ...


class MissingColumn(ConfigError, KeyError):
    """The table has no such column; also a KeyError, for callers that treat it as a mapping."""

    __str__ = Exception.__str__  # KeyError's own would show the message as a repr


def stratified_sample_indices(
    df: Columns,
    n: int = 8,
    *,
    task_filter: int | None = None,
    task_col: str = "task_index",
    episode_col: str = "episode_index",
    frame_col: str = "frame_index",
    index_col: str = "index",
    exclude: Iterable[int] | None = None,
) -> list[int]:
    """At most `n` distinct values of `index_col`, deterministic.

    min(#episodes, max(n // 2, 3)) episodes at an even stride, ceil(n / episodes) frames at even positions of each; what
    `exclude` or short episodes leave open is filled from the rest of the table in order. `task_col` is read only when
    `task_filter` is given. Fewer than `n` come back when the table is smaller.
    Errors: ConfigError (a ValueError) for n < 1 or a task without rows; MissingColumn (also a KeyError).
    """
    if n < 1:
        raise ConfigError("n", expected="an integer >= 1", found=n)
    index, episode, frame = (_column(df, name) for name in (index_col, episode_col, frame_col))
    keep = np.ones(len(index), dtype=bool)
    if task_filter is not None:
        keep &= _column(df, task_col) == task_filter
        if not keep.any():
            raise ConfigError("task_filter", expected=f"a value that occurs in column {task_col!r}", found=task_filter)
    if exclude is not None:
        keep &= ~np.isin(index, np.fromiter((int(i) for i in exclude), dtype=np.int64))
    index, episode, frame = index[keep], episode[keep], frame[keep]
    if not len(index):
        return []

    episodes = np.unique(episode)
    chosen = episodes[_even_positions(len(episodes), min(len(episodes), max(n // 2, 3)))]
    per_episode = -(-n // len(chosen))
    by_episode = []
    for value in chosen:
        rows = np.flatnonzero(episode == value)
        rows = rows[np.argsort(frame[rows], kind="stable")]
        by_episode.append(rows[_even_positions(len(rows), min(len(rows), per_episode))])
    picks = dict.fromkeys(int(i) for rows in by_episode for i in index[rows])
    if len(picks) < n:
        picks.update(dict.fromkeys(int(i) for i in index))
    return list(picks)[:n]


def stratified_sample(
    df: Columns, load_fn: Callable[[int], Observation], n: int = 8, **kwargs: object
) -> list[Observation]:
    """load_fn(index) for each of stratified_sample_indices(df, n, **kwargs), in that order."""
    return [load_fn(index) for index in stratified_sample_indices(df, n, **kwargs)]


def _even_positions(length: int, count: int) -> np.ndarray:
    """`count` distinct positions in range(length), evenly strided from the first."""
    return np.arange(count) * length // count


def _column(df: Columns, name: str) -> np.ndarray:
    try:
        column = df[name]
    except (KeyError, ValueError, IndexError) as error:  # mapping and pandas, NumPy structured arrays, others
        known = df.keys() if isinstance(df, Mapping) else getattr(df, "columns", ())
        names = [str(k) for k in known]
        hint = nearest(name, names) if names else None
        raise MissingColumn(f"column {name!r}", found="none in the table", hint=hint) from error
    values = np.asarray(column)
    if values.ndim != 1:
        raise ConfigError(f"column {name!r}", expected="one value per row", found=f"shape {values.shape}")
    return values
