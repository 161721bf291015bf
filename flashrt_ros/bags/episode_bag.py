"""From frames to a recording: each image and state once, at its own time, then the command; a prompt begins each episode."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from flashrt_core.runtime.clock import NS

from ..config.settings import RobotConfig
from .bag import BagWriter
from .episodes import Frame
from .messages import COMMAND, JOINTS, TEXT, MessageCodec, image_type
from .metadata import OfferedQos
from .recorder_topics import full_name
from .robot_topics import NODE

EPOCH_NS = 1_000_000_000 * NS  # log time of frames that bring none
PROMPT_LEAD_NS = NS // 1000
LATCHED = OfferedQos(depth=1, durability=1)


def write_frames(path: Path, frames: Iterable[Frame], robot: RobotConfig, node: str = NODE) -> dict[str, int]:
    """Write a bag that did not exist; returns messages per topic. Memory: one frame."""
    codec = MessageCodec(robot)
    cameras = [(c.view, full_name(c.topic, node)) for c in robot.cameras]
    topics = robot.topics
    state, prompt, command = (full_name(t, node) for t in (topics.state, topics.prompt, topics.forward))
    with BagWriter(path) as bag:
        for camera in robot.cameras:
            bag.add(full_name(camera.topic, node), image_type(camera))
        if robot.state:
            bag.add(state, JOINTS)
        bag.add(prompt, TEXT, LATCHED)
        bag.add(command, COMMAND)
        episode, written, last_ns = None, {}, -PROMPT_LEAD_NS
        for frame in frames:
            if frame.episode != episode:
                episode = frame.episode
                # before what the episode begins with, but behind the command that ends the one before
                at = max(int(frame.times_ns.min()) - PROMPT_LEAD_NS, last_ns + 1)
                bag.write(prompt, at, codec.put_text(frame.task))
            for i, (view, topic) in enumerate(cameras):
                at, stamp = int(frame.times_ns[2 + i]), int(frame.stamps_ns[1 + i])
                if written.get(topic) != at:  # a slow camera's picture is in several frames
                    written[topic] = at
                    bag.write(topic, at, codec.put_image(view, frame.images[i], stamp))
            at, stamp = int(frame.times_ns[1]), int(frame.stamps_ns[0])
            if robot.state and written.get(state) != at:
                written[state] = at
                bag.write(state, at, codec.put_state(frame.state, stamp))
            last_ns = int(frame.times_ns[0])
            bag.write(command, last_ns, codec.put_command(frame.action))
        return dict(bag.counts)
