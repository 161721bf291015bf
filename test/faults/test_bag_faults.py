"""F76-F81: bags that were cut, damaged, mislabelled, incomplete, out of order or written without checksums."""

from __future__ import annotations

import struct
import tracemalloc

import pytest
from support.bags import PERIOD_NS, START_NS, STRING, Row, cdr_text, chunks_of, rows, write_db3, write_mcap

from flashrt_ros.bags.bag import BagWriter
from flashrt_ros.bags.chunk_codec import decompress, zstd
from flashrt_ros.bags.mcap_records import Malformed
from flashrt_ros.bags.reading import BagError, BagReader, TopicInfo
from flashrt_ros.bags.robot_topics import judge_topics
from flashrt_ros.config.config_file import load_robot

IMAGE, JOINTS, COMMAND = "sensor_msgs/msg/Image", "sensor_msgs/msg/JointState", "std_msgs/msg/Float64MultiArray"


def read(path):
    with BagReader(path) as bag:
        got = [Row(m.topic, m.log_time_ns, m.data) for m in bag]
        return got, bag.findings


def of(findings, fault):
    return [f for f in findings if f.fault == fault]


def lost(findings):
    return sum(f.count for f in findings if f.is_loss)


@pytest.fixture
def mcap(tmp_path):
    return write_mcap(tmp_path / "x.mcap", rows())


def damage(path, offset, value=None):
    data = bytearray(path.read_bytes())
    data[offset] = data[offset] ^ 0x40 if value is None else value
    path.write_bytes(data)


# ---- F76 cut


def test_F76_cut_inside_a_chunk_gives_every_whole_chunk(mcap):
    places = chunks_of(mcap)
    assert len(places) > 4
    whole = places[:3]
    mcap.write_bytes(mcap.read_bytes()[: places[3].begin + 60])
    got, findings = read(mcap)
    assert got == rows()[: sum(c.messages for c in whole)]
    (found,) = of(findings, "F76")
    assert found.is_loss and f"byte {places[3].begin}" in found.text and "60 bytes dropped" in found.text


def test_F76_cuts_anywhere_are_typed_and_give_a_prefix(tmp_path, mcap):
    data, want, places = mcap.read_bytes(), rows(), chunks_of(mcap)
    cut = tmp_path / "cut.mcap"
    refused = 0
    edges = {e + d for c in places for e in (c.begin, c.end) for d in (-1, 0, 1, 9)}
    sizes = sorted({*range(0, len(data), 5), *range(40), *edges, *range(len(data) - 40, len(data))})
    for size in sizes:
        cut.write_bytes(data[:size])
        whole = sum(c.messages for c in places if c.end <= size)
        try:
            got, findings = read(cut)
        except BagError as error:
            refused += 1
            assert error.fault == "F76" and not whole
            continue
        assert got == want[:whole], size
        assert of(findings, "F76"), size
    assert 0 < refused < len(sizes) / 2


def test_F76_metadata_tells_how_many_messages_are_lost(tmp_path):
    with BagWriter(tmp_path / "bag", compress=False) as bag:
        bag.add("/a", STRING)
        for i in range(8):
            bag.write("/a", START_NS + i, cdr_text("x" * 300_000))
    (file,) = (tmp_path / "bag").glob("*.mcap")
    places = chunks_of(file)
    file.write_bytes(file.read_bytes()[: places[1].begin + 100])
    got, findings = read(tmp_path / "bag")
    assert len(got) == places[0].messages and lost(findings) == 8 - len(got)


def test_F76_killed_recorder_leaves_whole_chunks_only(mcap):
    end = chunks_of(mcap)[-1].end
    data = mcap.read_bytes()
    while data[end] == 7:  # message indexes of the last chunk
        end += 9 + struct.unpack_from("<Q", data, end + 1)[0]
    mcap.write_bytes(data[:end])
    got, findings = read(mcap)
    assert got == rows() and "nothing before is missing" in of(findings, "F76")[0].text


def test_F76_cut_database(tmp_path):
    path = write_db3(tmp_path / "x.db3", rows(200))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    got, findings = read(path)
    want = {r.at_ns: r for r in rows(200)}
    assert 20 < len(got) < 200 and all(want[r.at_ns] == r for r in got)
    assert of(findings, "F76") and of(findings, "F77")


def test_F76_file_of_a_split_bag_is_gone(tmp_path):
    with BagWriter(tmp_path / "bag") as bag:
        bag.add("/a", STRING)
        bag.write("/a", 5, cdr_text("x"))
    text = (tmp_path / "bag/metadata.yaml").read_text()
    (tmp_path / "bag/metadata.yaml").write_text(text.replace("- bag.mcap", "- bag.mcap\n  - bag_1.mcap"))
    got, findings = read(tmp_path / "bag")
    assert len(got) == 1 and "bag_1.mcap" in of(findings, "F76")[0].text


# ---- F77 damaged


def test_F77_flipped_byte_names_the_chunk_and_counts_its_messages(mcap):
    places = chunks_of(mcap)
    damage(mcap, (places[2].begin + places[2].end) // 2 + 20)
    got, findings = read(mcap)
    before = sum(c.messages for c in places[:2])
    assert got == [r for i, r in enumerate(rows()) if not before <= i < before + places[2].messages]
    (found,) = of(findings, "F77")
    assert "chunk 2:" in found.text and found.count == places[2].messages


@pytest.mark.parametrize("compression", ["zstd", "lz4", ""])
def test_F77_any_flipped_byte_of_the_chunks_is_found(tmp_path, compression):
    """With CRC: what is read is what was written, and what is missing is told. No byte is let pass."""
    path = write_mcap(tmp_path / "x.mcap", rows(), compression=compression)
    data, want = path.read_bytes(), rows()
    index = {r.at_ns: r for r in want}
    for place in chunks_of(path):
        for offset in range(place.begin, place.end, 3):
            path.write_bytes(data)
            damage(path, offset)
            got, findings = read(path)
            assert all(index[r.at_ns] == r for r in got), offset
            assert len(got) == len(want) or lost(findings) >= len(want) - len(got), (offset, findings)


def test_F77_damaged_length_goes_on_at_the_next_chunk(mcap):
    places = chunks_of(mcap)
    damage(mcap, places[1].begin + 4)  # a chunk of 2^24 bytes more
    got, findings = read(mcap)
    before = places[0].messages
    assert got == [r for i, r in enumerate(rows()) if not before <= i < before + places[1].messages]
    assert lost(findings) == places[1].messages


def test_F77_bad_compressed_sizes_make_no_large_memory(mcap):
    place = chunks_of(mcap)[0]
    data = bytearray(mcap.read_bytes())
    struct.pack_into("<Q", data, place.begin + 9 + 16, 1 << 60)
    mcap.write_bytes(data)
    got, findings = read(mcap)
    assert len(got) == 40 - place.messages and lost(findings) == place.messages


@pytest.mark.parametrize("compression", ["zstd", "lz4"])
def test_F77_a_chunk_that_grows_beyond_its_size_is_stopped(compression):
    from lz4 import frame

    stored = (zstd().compress if compression == "zstd" else frame.compress)(bytes(64 << 20))
    tracemalloc.start()
    with pytest.raises(Malformed, match="1001 bytes, 1000 expected"):
        decompress(stored, compression, 1000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 << 20, peak


def test_F77_damaged_summary_is_not_used(mcap):
    data = mcap.read_bytes()
    summary = struct.unpack_from("<Q", data, len(data) - 28)[0]
    damage(mcap, data.index(b"/a", summary) + 1)
    got, findings = read(mcap)
    assert got == rows() and "summary" in of(findings, "F77")[0].text
    damage(mcap, data.index(b"/a", summary) + 1, ord("c"))  # and the only other description of the topics is gone
    place = chunks_of(write_mcap(mcap.with_name("whole.mcap"), rows()))[0]
    damage(mcap, (place.begin + place.end) // 2)
    got, findings = read(mcap)
    assert not got and lost(findings) >= 40, "topics by a damaged summary"


def test_F77_names_with_control_characters_reach_no_terminal(tmp_path):
    path = write_mcap(tmp_path / "x.mcap", rows(), compression="", crc=False)
    path.write_bytes(path.read_bytes().replace(b"\x02\0\0\0/b\x03", b"\x02\0\0\0\x1b[\x03"))
    got, findings = read(path)
    assert {r.topic for r in got} <= {"/a"} and of(findings, "F77") and all(f.text.isprintable() for f in findings)
    write_db3(tmp_path / "x.db3", [Row("/a\x1b[2J", 5, b"\0\1\0\0"), *rows(4)])
    got, findings = read(tmp_path / "x.db3")
    assert len(got) == 4 and lost(findings) >= 1 and all(f.text.isprintable() for f in findings)


def test_F77_damaged_page_of_a_database_loses_its_rows_only(tmp_path):
    path = write_db3(tmp_path / "x.db3", rows(300))
    data = bytearray(path.read_bytes())
    data[512 * 20 : 512 * 20 + 40] = b"\xff" * 40
    path.write_bytes(data)
    got, findings = read(path)
    want = {r.at_ns: r for r in rows(300)}
    assert 250 < len(got) < 300 and all(want[r.at_ns] == r for r in got)
    assert lost(findings) >= 300 - len(got)


# ---- F78 metadata


def our_bag(folder):
    with BagWriter(folder) as bag:
        bag.add("/a", STRING)
        for i in range(3):
            bag.write("/a", START_NS + i, cdr_text(str(i)))
    return folder / "metadata.yaml"


@pytest.mark.parametrize(
    "change, words",
    [
        (None, "missing"),
        (lambda t: t.replace("message_count: 3", "message_count: 7"), "7 messages announced, 3 are there"),
        (lambda t: t.replace("name: /a", "name: /b"), "does not name /a"),
        (lambda t: t.replace("std_msgs/msg/String", "std_msgs/msg/Bool"), "not 'std_msgs/msg/Bool'"),
        (lambda t: t.replace("- bag.mcap", "- other.mcap"), "does not name bag.mcap"),
        (lambda t: "a: [", "unreadable"),
        (lambda t: "a: 1", "not as rosbag2 writes it"),
        (lambda t: "x" * (2 << 20), "unreadable"),
    ],
)
def test_F78_metadata_missing_or_wrong_is_said_and_the_file_counts(tmp_path, change, words):
    file = our_bag(tmp_path / "bag")
    if change is None:
        file.unlink()
    else:
        file.write_text(change(file.read_text()))
    with BagReader(tmp_path / "bag") as bag:
        assert dict(bag.topics) == {"/a": TopicInfo(STRING, 3)} and len(list(bag)) == 3
        assert any(words in f.text for f in of(bag.findings, "F78")), bag.findings


def test_F78_folder_before_the_files_name_as_rosbag2_wrote_it_once(tmp_path):
    file = our_bag(tmp_path / "bag")
    file.write_text(file.read_text().replace("- bag.mcap", "- bag/bag.mcap"))
    assert len(read(tmp_path / "bag")[0]) == 3 and read(tmp_path / "bag")[1] == []


def test_F78_right_metadata_is_no_finding(tmp_path):
    our_bag(tmp_path / "bag")
    assert read(tmp_path / "bag")[1] == []


# ---- F79 topics


def robot_topics(**changes):
    topics = {
        "/agentview/image": TopicInfo(IMAGE, 5), "/wrist/image": TopicInfo(IMAGE, 5), "/joint_states": TopicInfo(JOINTS, 5),
        "/tabletop/commands": TopicInfo(COMMAND, 5),
    }  # fmt: skip
    for name, value in changes.items():
        topic = next(t for t in topics if name in t)
        topics[topic] = value
        if value is None:
            del topics[topic]
    return topics


def test_F79_missing_wrong_or_empty_topics_are_named():
    robot = load_robot("tabletop")
    assert judge_topics(robot_topics(), robot) == []
    (found,) = judge_topics(robot_topics(wrist=None), robot)
    assert found.fault == "F79" and "/wrist/image: missing, known: /agentview/image," in found.text
    (found,) = judge_topics(robot_topics(joint=TopicInfo(STRING, 5)), robot)
    assert f"{STRING} in the place of {JOINTS}" in found.text
    (found,) = judge_topics(robot_topics(commands=TopicInfo(COMMAND, 0)), robot)
    assert "no messages" in found.text
    assert len(judge_topics({}, robot)) == 4


def test_F79_topic_of_another_encoding_is_left_out_and_said(tmp_path):
    path = write_mcap(tmp_path / "x.mcap", rows(), compression="", crc=False)
    path.write_bytes(path.read_bytes().replace(b"\x02\0\0\0/b\x03\0\0\0cdr", b"\x02\0\0\0/b\x03\0\0\0js1"))
    got, findings = read(path)
    assert {r.topic for r in got} == {"/a"} and "/b: messages are 'js1', not CDR" in of(findings, "F79")[0].text


def test_F79_nothing_to_read_is_an_error(tmp_path):
    with pytest.raises(BagError) as caught, BagReader(tmp_path / "nowhere"):
        pass
    assert caught.value.fault == "F79"


# ---- F80 log time


@pytest.mark.parametrize("write", [write_mcap, write_db3], ids=["mcap", "sqlite3"])
def test_F80_log_time_that_goes_back_is_sorted_and_counted(tmp_path, write):
    written = rows()
    written[10], written[30] = (
        Row("/a", START_NS + 3 * PERIOD_NS, b"\0\1\0\0late"),
        Row("/b", START_NS, b"\0\1\0\0back"),
    )
    got, findings = read(
        write(tmp_path / "x.mcap", written) if write is write_mcap else write(tmp_path / "x.db3", written)
    )
    assert got == sorted(written, key=lambda r: r.at_ns)
    assert sum(f.count for f in of(findings, "F80")) == 2


@pytest.mark.parametrize("write", [write_mcap, write_db3], ids=["mcap", "sqlite3"])
def test_F80_is_one_finding_a_file_with_the_largest_step(tmp_path, write):
    """A recorder that writes late puts a step into every chunk: a line for each would hide all others."""
    folder = tmp_path / "bag"
    folder.mkdir()
    suffix, step = "mcap" if write is write_mcap else "db3", 25_000_000
    for part in range(2):
        written = [Row(r.topic, r.at_ns + part * 10**12, r.data) for r in rows(80)]
        for i in range(5, 80, 8):
            written[i] = Row(written[i].topic, written[i - 1].at_ns - step - 10_000_000 * (i == 45), written[i].data)
        path = write(folder / f"x_{part}.{suffix}", written)
        assert suffix == "db3" or len(chunks_of(path)) > 6
    got, findings = read(folder)
    back = of(findings, "F80")
    assert [f.text for f in back] == [f"x_{p}.{suffix}: log time goes back at 10 messages, by up to 0.035 s" for p in range(2)]
    assert [f.count for f in back] == [10, 10] and [r.at_ns for r in got] == sorted(r.at_ns for r in got)


# ---- F81 no CRC


def test_F81_file_without_crc_is_unverified(tmp_path):
    path = write_mcap(tmp_path / "x.mcap", rows(), crc=False)
    with BagReader(path) as bag:
        assert [Row(m.topic, m.log_time_ns, m.data) for m in bag] == rows() and not bag.verified
        (found,) = bag.findings
    assert found.fault == "F81" and found.count == 40 and "without CRC" in found.text
    assert of(read(write_db3(tmp_path / "x.db3", rows()))[1], "F81")
