"""BagReader against the libraries that wrote the bags: every message, in order of log time, from every kind of bag."""

import shutil
import tracemalloc

import numpy as np
import pytest
from mcap.reader import make_reader
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer
from support.bags import PERIOD_NS, START_NS, STORE, STRING, Row, cdr_text, rows, write_db3, write_mcap

from flashrt_ros.bags.bag import BagWriter
from flashrt_ros.bags.findings import Findings
from flashrt_ros.bags.reading import BagError, BagMessage, BagReader, TopicInfo
from flashrt_ros.bags.source import merged


def read(path, topics=None) -> tuple[list[Row], list]:
    with BagReader(path, topics) as bag:
        got = [Row(m.topic, m.log_time_ns, m.data) for m in bag]
        return got, bag.findings


def faults(findings) -> set[str]:
    return {f.fault for f in findings}


@pytest.mark.parametrize("compression", ["zstd", "lz4", ""])
@pytest.mark.parametrize("chunked", [True, False])
@pytest.mark.parametrize("summary", [True, False])
def test_mcap_files_of_the_formats_own_library(tmp_path, compression, chunked, summary):
    want = rows()
    path = write_mcap(tmp_path / "x.mcap", want, compression=compression, chunked=chunked, summary=summary)
    with BagReader(path) as bag:
        assert dict(bag.topics) == {t: TopicInfo(STRING, 20) for t in ("/a", "/b")}
        assert (bag.start_ns, bag.end_ns) == (START_NS, START_NS + 39 * PERIOD_NS)
        got = list(bag)
        assert [Row(m.topic, m.log_time_ns, m.data) for m in got] == want
        assert isinstance(got[0], BagMessage) and got[0].type == STRING
        assert faults(bag.findings) == (set() if chunked else {"F81"}) and bag.verified is chunked
        assert [m.data for m in bag] == [r.data for r in want], "a second iteration"


@pytest.mark.parametrize("plugin", list(StoragePlugin))
@pytest.mark.parametrize("mode", list(CompressionMode))
def test_bags_of_rosbags_in_every_compression_mode(tmp_path, plugin, mode):
    if plugin is StoragePlugin.SQLITE3 and mode is CompressionMode.STORAGE:
        pytest.skip("no such bag")
    writer = Writer(tmp_path / "bag", version=9, storage_plugin=plugin)
    if mode is not CompressionMode.NONE:
        writer.set_compression(mode, CompressionFormat.ZSTD)
    want = rows()
    with writer:
        topics = {t: writer.add_connection(t, STRING, typestore=STORE) for t in ("/a", "/b")}
        for r in want:
            writer.write(topics[r.topic], r.at_ns, r.data)
    got, findings = read(tmp_path / "bag")
    assert got == want and faults(findings) == {"F81"}, "this library writes no checksums"
    file = next(p for p in (tmp_path / "bag").iterdir() if "metadata" not in p.name)
    assert read(file)[0] == want, "the bare file"


def test_our_own_bags_are_verified(tmp_path):
    with BagWriter(tmp_path / "bag") as bag:
        bag.add("/a", STRING)
        for r in rows(topics=("/a",)):
            bag.write(r.topic, r.at_ns, r.data)
    got, findings = read(tmp_path / "bag")
    assert got == rows(topics=("/a",)) and findings == []


def test_schema_1_database_and_other_name(tmp_path):
    want = rows(10)
    write_db3(tmp_path / "data", want)
    assert read(tmp_path / "data")[0] == want


def test_only_the_topics_asked_for(tmp_path):
    path = write_mcap(tmp_path / "x.mcap", rows())
    with BagReader(path, ["/b", "/none"]) as bag:
        assert list(bag.topics) == ["/b"] and {m.topic for m in bag} == {"/b"}
    write_db3(tmp_path / "x.db3", rows())
    assert {r.topic for r in read(tmp_path / "x.db3", ["/b"])[0]} == {"/b"}


def test_split_bags_are_one_stream_in_the_order_of_their_numbers(tmp_path):
    want = rows(60)
    for i, part in enumerate(want[k : k + 5] for k in range(0, 60, 5)):
        write_mcap(tmp_path / f"bag_{i}.mcap", part)
    got, findings = read(tmp_path)
    assert got == want and faults(findings) == {"F78"}


def test_equal_times_keep_the_order_of_recording(tmp_path):
    want = [Row("/a", START_NS + i // 7, cdr_text(str(i))) for i in range(70)]
    assert read(write_mcap(tmp_path / "x.mcap", want, chunk=100))[0] == want
    assert read(write_db3(tmp_path / "x.db3", want))[0] == want


def test_random_orders_of_recording_come_out_as_a_stable_sort(tmp_path):
    for seed in range(20):
        rng = np.random.default_rng(seed)
        written = [Row("/a", START_NS + int(t), cdr_text(str(i))) for i, t in enumerate(rng.integers(0, 50, 60))]
        want = sorted(written, key=lambda r: r.at_ns)
        back = sum(t < max([0, *before]) for t, before in _with_history(written))
        for path in (
            write_mcap(tmp_path / f"{seed}.mcap", written, chunk=150),
            write_db3(tmp_path / f"{seed}.db3", written),
        ):
            got, findings = read(path)
            assert got == want
            assert sum(f.count for f in findings if f.fault == "F80") == back, path


def _with_history(written):
    times = [r.at_ns for r in written]
    return [(t, times[:i]) for i, t in enumerate(times)]


def test_memory_is_bounded_when_all_chunks_overlap_in_time(tmp_path, monkeypatch):
    """Chunks of 1 MB that all span the whole bag: no more than the cache is kept."""
    import flashrt_ros.bags.mcap_file as mcap_file

    monkeypatch.setattr(mcap_file, "CACHE_BYTES", 4 << 20)
    big = cdr_text("x" * 250_000)
    written = [Row("/a", START_NS + (i % 4) * 1000 + i // 4, big) for i in range(160)]
    path = write_mcap(tmp_path / "x.mcap", written, compression="", chunk=1_000_000)
    with BagReader(path) as bag:
        tracemalloc.start()
        count = sum(len(m.data) for m in bag)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert count == 160 * len(big) and peak < 12 << 20, peak


def test_memory_does_not_grow_with_the_bag(tmp_path):
    peaks = []
    for count in (20, 200):
        written = [Row("/a", START_NS + i, cdr_text("x" * 250_000)) for i in range(count)]
        path = write_mcap(tmp_path / f"{count}.mcap", written, compression="", chunk=1_000_000)
        with BagReader(path) as bag:
            tracemalloc.start()
            assert sum(1 for _ in bag) == count
            peaks.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
    assert peaks[1] < peaks[0] * 1.2, peaks


def test_the_formats_own_library_reads_our_bags_with_crc(tmp_path):
    with BagWriter(tmp_path / "bag", compress=False) as bag:
        bag.add("/a", STRING)
        for r in rows(topics=("/a",)):
            bag.write(r.topic, r.at_ns, r.data)
    with next((tmp_path / "bag").glob("*.mcap")).open("rb") as file:
        reader = make_reader(file, validate_crcs=True)
        got = [Row(c.topic, m.log_time, m.data) for _, c, m in reader.iter_messages()]
        assert got == rows(topics=("/a",)) and reader.get_header().profile == "ros2"
        assert all(c.message_encoding == "cdr" for c in reader.get_summary().channels.values())


def test_an_empty_bag_is_a_bag(tmp_path):
    BagWriter(tmp_path / "bag").close()
    with BagReader(tmp_path / "bag") as bag:
        assert list(bag) == [] and dict(bag.topics) == {} and bag.start_ns is None and bag.findings == []


def test_what_is_no_bag_is_refused(tmp_path):
    with pytest.raises(BagError, match="no such file"), BagReader(tmp_path / "none"):
        pass
    with pytest.raises(BagError, match=r"\.mcap or \.db3"), BagReader(tmp_path):
        pass
    (tmp_path / "notes.txt").write_text("not a recording")
    with pytest.raises(BagError, match="another kind"), BagReader(tmp_path / "notes.txt"):
        pass
    (tmp_path / "x.db3").write_bytes(b"no database" * 100)
    with pytest.raises(BagError, match="sqlite3 database"), BagReader(tmp_path / "x.db3"):
        pass


def test_metadata_cannot_lead_out_of_the_folder(tmp_path):
    secret = write_mcap(tmp_path / "secret.mcap", rows())
    (tmp_path / "bag").mkdir()
    write_mcap(tmp_path / "bag" / "bag_0.mcap", rows(4))
    (tmp_path / "bag" / "metadata.yaml").write_text(
        "rosbag2_bagfile_information:\n  relative_file_paths: ['../secret.mcap', bag_0.mcap]\n  message_count: 4\n"
        "  storage_identifier: mcap\n  topics_with_message_count: []\n"
    )
    got, findings = read(tmp_path / "bag")
    assert secret.exists() and len(got) == 4 and any("secret.mcap" in f.text for f in findings)


def test_no_temporary_file_stays(tmp_path, monkeypatch):
    from backports import zstd

    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    path = write_mcap(tmp_path / "x.mcap", rows())
    (tmp_path / "x.mcap.zstd").write_bytes(zstd.compress(path.read_bytes()))
    assert read(tmp_path / "x.mcap.zstd")[0] == rows()
    assert list((tmp_path / "tmp").iterdir()) == []
    shutil.rmtree(tmp_path / "tmp")


def test_sources_open_only_when_their_time_has_come():
    opened = []

    class Part:
        def __init__(self, start):
            self.start_ns = start

        def rows(self, topics):
            opened.append(self.start_ns)
            yield from ((self.start_ns + i, (self.start_ns, i)) for i in range(3))

        def message(self, key):
            return BagMessage("/a", STRING, sum(key), b"")

    stream = merged([Part(20), Part(0), Part(10)], None)
    assert next(stream).log_time_ns == 0 and opened == [0]
    assert [m.log_time_ns for m in stream] == [1, 2, 10, 11, 12, 20, 21, 22]


def test_many_findings_of_a_kind_become_one():
    findings = Findings()
    for i in range(25):
        findings.add("F77", f"chunk {i}", 2)
    findings.add("F76", "cut", 1)
    listed = findings.listed()
    assert [f.fault for f in listed] == ["F76"] + ["F77"] * 11
    assert listed[-1].text == "15 more of this kind" and sum(f.count for f in listed) == 51
