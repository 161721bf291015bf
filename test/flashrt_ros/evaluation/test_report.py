"""The report page on made-up episodes: what it must show, that it is well formed, and that data cannot become markup."""

import re
from html.parser import HTMLParser

import numpy as np
import pytest

from flashrt_ros.evaluation.charts import bars, histogram, lines
from flashrt_ros.evaluation.closed_loop import Episode, LoopSettings
from flashrt_ros.evaluation.report import page
from flashrt_ros.evaluation.rollout import Rollout
from flashrt_ros.evaluation.summary import summarise
from flashrt_ros.sim.tabletop.prompts import all_prompts

VOID = {"meta", "img", "br"}


class Checker(HTMLParser):
    """Collects the text and fails on tags that do not nest."""

    def __init__(self):
        super().__init__()
        self.open, self.text, self.tags = [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, f"</{tag}> closes something else"

    def handle_data(self, data):
        if not (self.open and self.open[-1] == "style"):
            self.text.append(data)


def read(html: str) -> Checker:
    checker = Checker()
    checker.feed(html)
    assert not checker.open
    return checker


def made_up(seed: int, prompt: str = "pick up the red block", **more) -> Episode:
    rng = np.random.default_rng(seed)
    e = Episode(seed, prompt, success=seed % 2 == 0, steps=12, commands=rng.uniform(-1, 1, (12, 7)).astype(np.float32))
    e.switch_ticks, e.executed, e.elapsed, e.disagreements = [5, 10], [0, 0], [0, 0], [0.1, None]
    e.model_ms = rng.gamma(9, 2.0, 3).tolist()
    e.shots = {k: rng.integers(0, 255, (16, 16, 3), dtype=np.uint8) for k in ("first", "last")}
    for name, value in more.items():
        setattr(e, name, value)
    return e


def test_page_shows_the_figures():
    episodes = [made_up(i) for i in range(6)]
    html = page(summarise(episodes, Rollout(), 0, 1.0), episodes, command="flashrt demo --episodes 6")
    text = " ".join(read(html).text)
    for words in ("50 %", "3 of 6 episodes", "P95", "CB1", "CB6", "flashrt demo --episodes 6", "not done", "seed 5"):
        assert words in text, words


def test_data_cannot_become_markup():
    evil = "<script>alert(1)</script><img src=x>"
    episodes = [made_up(1, evil, error=evil, success=False), made_up(2, evil)]
    checker = read(page(summarise(episodes, Rollout(), 0, 1.0), episodes, command=evil))
    assert not [t for t, _ in checker.tags if t == "script"]
    assert all(a.get("src", "data:").startswith("data:") for t, a in checker.tags if t == "img")
    assert evil in " ".join(checker.text)


@pytest.mark.parametrize(
    "episodes",
    [
        [Episode(0, "a", error="RuntimeError: injected")],
        [made_up(0, switch_ticks=[], executed=[], elapsed=[], disagreements=[])],
        [made_up(0, commands=np.zeros((1, 7), np.float32), steps=1, switch_ticks=[], executed=[], elapsed=[], disagreements=[])],
        [made_up(0, model_ms=[0.0, 0.0])],
        [made_up(0, late_ms=[1.0, 2.0])],
    ],
    ids=["only an error", "no switch", "one step", "no time", "real time"],
)  # fmt: skip
def test_page_of_odd_runs(episodes):
    html = page(summarise(episodes, Rollout(loop=LoopSettings(realtime=True)), 0, 1.0), episodes)
    assert "NaN" not in html and "nan" not in " ".join(read(html).text)


def test_histogram_counts_every_value_and_marks_percentiles():
    html = histogram([1.0] * 5 + [3.0] * 2 + [1000.0], {"P50": 1.0, "P99": 900.0}, "ms", "x")
    counts = [int(t.split(" calls")[0]) for t in read(html).text if " calls" in t]
    assert sum(counts) == 8 and "P50" in html and "P99" in html


def test_lines_stay_inside_the_picture():
    html = lines({"x": np.linspace(-5, 5, 30), "y": np.zeros(30)}, [10, 20], 0.05, "cm", "path")
    points = [a["points"] for t, a in read(html).tags if t == "polyline"]
    xy = np.array([[float(v) for v in p.split(",")] for line in points for p in line.split()])
    assert len(points) == 2 and (xy >= 0).all() and (xy[:, 0] <= 520).all() and (xy[:, 1] <= 210).all()
    assert html.count('class="seam"') == 2


def test_bars_are_as_long_as_the_rate():
    tags = read(bars([("a", 1, 2), ("b", 2, 2), ("c", 0, 0)], "x")).tags
    track = [float(a["width"]) for t, a in tags if a.get("class") == "track"]
    full = [float(a["width"]) for t, a in tags if a.get("class") == "bar good"]
    assert full == pytest.approx([track[0] / 2, track[0], 0])


def test_names_beside_bars_are_not_cut_off_at_the_edge():
    """13 px in a wide font, 7.4 px a character: all of the task's sentences whole, a longer one with its end as a tip."""
    names = [*all_prompts(), "turn on the stove and put the moka pot and the frying pan and the white mug on it"]
    html = bars([(name, 1, 2) for name in names], "x")
    texts = re.findall(r'<text class="t" x="([\d.]+)" y="[\d.]+" text-anchor="end">([^<]+)</text>', html)
    assert [words for _, words in texts[:-1]] == all_prompts()
    assert all(float(x) - 7.4 * len(words) >= 0 for x, words in texts), texts
    assert texts[-1][1].endswith("…") and f"<title>{names[-1]}</title>" in html
