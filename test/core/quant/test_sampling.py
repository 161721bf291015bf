"""Stratified choice of calibration frames."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flashrt_core.core.quant.sampling import stratified_sample, stratified_sample_indices
from flashrt_core.errors import ConfigError


def table(lengths: list[int], tasks: list[int] | None = None) -> dict[str, np.ndarray]:
    """One episode per entry of `lengths`; rows in recording order, `index` is the global frame."""
    episode = np.repeat(np.arange(len(lengths)), lengths)
    frame = np.concatenate([np.arange(n) for n in lengths]) if lengths else np.zeros(0, int)
    task = np.repeat(tasks if tasks else [0] * len(lengths), lengths)
    return {"episode_index": episode, "frame_index": frame, "task_index": task, "index": 100 + np.arange(len(episode))}


def test_spreads_over_episodes_and_over_the_time_within_each():
    df = table([10] * 8)
    picks = np.array(stratified_sample_indices(df, n=8)) - 100
    assert sorted(picks // 10) == [0, 0, 2, 2, 4, 4, 6, 6]  # max(8 // 2, 3) = 4 episodes at an even stride
    assert sorted(picks % 10) == [0, 0, 0, 0, 5, 5, 5, 5]


def test_rows_out_of_time_order_are_sorted_by_frame():
    df = table([10])
    order = np.random.default_rng(0).permutation(10)
    shuffled = {name: column[order] for name, column in df.items()}
    assert stratified_sample_indices(shuffled, n=2) == [100, 105]


@given(st.lists(st.integers(1, 12), min_size=1, max_size=9), st.integers(1, 40), st.integers(0, 20))
def test_always_distinct_and_as_many_as_there_are(lengths, n, excluded):
    df = table(lengths)
    exclude = {100 + i for i in range(excluded)}
    picks = stratified_sample_indices(df, n=n, exclude=exclude)
    left = max(sum(lengths) - excluded, 0)
    assert len(picks) == len(set(picks)) == min(n, left)
    assert not exclude & set(picks)
    assert picks == stratified_sample_indices(df, n=n, exclude=exclude)
    assert all(isinstance(i, int) for i in picks)


def test_task_filter_and_exclude():
    df = table([5, 5, 5], tasks=[7, 8, 7])
    assert all(i - 100 in (*range(5), *range(10, 15)) for i in stratified_sample_indices(df, n=6, task_filter=7))
    with pytest.raises(ValueError, match="task_filter"):
        stratified_sample_indices(df, task_filter=9)
    assert stratified_sample_indices(df, n=3, exclude=range(100, 115)) == []


def test_other_column_names_and_no_task_column_when_it_is_not_needed():
    df = table([4, 4])
    renamed = {"ep": df["episode_index"], "t": df["frame_index"], "row": df["index"]}
    assert len(stratified_sample_indices(renamed, 4, episode_col="ep", frame_col="t", index_col="row")) == 4


def test_missing_column_is_named_with_the_nearest():
    df = table([4])
    df["episode_idx"] = df.pop("episode_index")
    with pytest.raises(KeyError) as caught:
        stratified_sample_indices(df)
    assert isinstance(caught.value, ValueError)
    assert "episode_index" in str(caught.value) and "did you mean 'episode_idx'" in str(caught.value)
    structured = np.zeros(3, dtype=[("index", int), ("frame_index", int)])
    with pytest.raises(ConfigError, match="episode_index"):
        stratified_sample_indices(structured)


def test_n_below_one():
    with pytest.raises(ValueError, match="n"):
        stratified_sample_indices(table([4]), n=0)


def test_accepts_objects_with_column_access_only():
    class Frame:
        """What pandas and Arrow tables have in common."""

        columns = ("episode_index", "frame_index", "index")

        def __getitem__(self, name):
            return list(table([6, 6])[name])

    assert stratified_sample_indices(Frame(), n=4) == stratified_sample_indices(table([6, 6]), n=4)


def test_stratified_sample_loads_in_order():
    df = table([9, 9, 9])
    loaded = stratified_sample(df, lambda i: {"frame": i}, n=5, exclude=[100])
    assert [o["frame"] for o in loaded] == stratified_sample_indices(df, n=5, exclude=[100])
