"""The figures of docs/bags.md are those of bench/results/bag_reading.json, and these meet what the project promises."""

import json
import sys

from support.checkers import ROOT

sys.path.insert(0, str(ROOT / "bench"))
import bag_reading

DATA = json.loads((ROOT / "bench/results/bag_reading.json").read_text())


def test_page_has_the_measured_figures():
    text = (ROOT / "docs/bags.md").read_text(encoding="utf-8")
    assert bag_reading.MARKED.search(text)
    assert bag_reading.fill(text, DATA) == text, "run: python bench/bag_reading.py --docs"
    assert bag_reading.fill(text.replace(" MB |\n", " GB |\n"), DATA) == text


def test_reading_meets_the_goals():
    """Issue 5: 1,000 messages/s on one core with room to spare, memory that does not grow with the bag."""
    for name, runs in DATA["kinds"].items():
        few, many = (runs[f"{n} images"] for n in bag_reading.COUNTS)
        assert many["messages_per_s"] > 2_000 and many["messages"] == 2 * bag_reading.COUNTS[1], name
        assert many["memory_growth_mb"] < few["memory_growth_mb"] + 20, name
