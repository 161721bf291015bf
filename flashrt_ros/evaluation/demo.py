"""The demo as a function: run seeded episodes and write `result.json`, `report.html` and a film into a folder."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from flashrt_core.errors import ConfigError

from .closed_loop import Episode
from .report import PageParts, write_report
from .rollout import Rollout, run_seeds
from .summary import summarise
from .video import write_gif

FILM_EPISODES = 3
MAX_SEED = 2**40  # a policy call's seed is made of it and must stay below 2**63


@dataclass(frozen=True)
class DemoOutput:
    """What a demo made: the figures, the episodes and the files written."""

    result: dict[str, object]
    episodes: list[Episode]
    files: tuple[Path, ...]


def run_demo(
    what: Rollout,
    *,
    episodes: int = 20,
    seed: int = 500_000,
    out: Path = Path("demo-out"),
    jobs: int = 1,
    on_episode: Callable[[Episode], None] | None = None,
    watch: Callable | None = None,
    command: str = "",
) -> DemoOutput:
    """Run seeds `seed .. seed + episodes - 1` and write the files. The folder is made before anything is run.

    on_episode: called after each episode. watch: as in `closed_loop.run_episode`; then there is no film. command: the
    line that repeats the run, for the report. Raises ConfigError for bad numbers or a folder that cannot be written.
    """
    if not 1 <= episodes <= 100_000:
        raise ConfigError("episodes", expected="1..100000", found=episodes)
    if not 0 <= seed <= MAX_SEED:
        raise ConfigError("seed", expected=f"0..{MAX_SEED}", found=seed)
    if what.loop.realtime and jobs > 1:
        raise ConfigError("jobs", expected="1 with realtime: episodes would disturb each other's ticks", found=jobs)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError("out", expected="a folder that can be written", found=f"{out}: {error.strerror}") from None
    seeds = range(seed, seed + episodes)
    # drawing a film inside a paced loop would make its ticks late
    film = () if what.loop.realtime or watch is not None else tuple(seeds[:FILM_EPISODES])
    what = replace(what, shots=True, film_seeds=film)
    start, done = time.monotonic(), []
    for episode in run_seeds(what, seeds, jobs, watch):
        done.append(episode)
        if on_episode is not None:
            on_episode(episode)
    result = summarise(done, what, seed, time.monotonic() - start)
    return DemoOutput(result, done, write_files(out, result, done, command))


def write_files(
    out: Path, result: dict[str, object], episodes: list[Episode], command: str, more: PageParts | None = None
) -> tuple[Path, ...]:
    """Write the three files; an old film is removed when there is none to take its place. more: of the page."""
    data, film, page = out / "result.json", out / "demo.gif", out / "report.html"
    data.write_text(json.dumps(result, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    film.unlink(missing_ok=True)
    filmed = write_gif(film, episodes) > 0
    write_report(page, result, episodes, film=film if filmed else None, command=command, more=more or PageParts())
    return (page, film, data) if filmed else (page, data)
