"""A domain is free when none of its DDS ports is bound, by the kernel's own table."""

import socket

from flashrt_ros.ros_demo.domain import DOMAINS, free_domain, used_ports


def test_a_bound_port_takes_its_domain():
    ports = {7400 + 250 * d + offset for d, offset in zip(DOMAINS, (0, 1, 10, 249) * 30, strict=False) if d != 42}
    assert {free_domain(ports | {53, 7399, 65535}) for _ in range(20)} == {42}
    assert free_domain(ports | {7400 + 250 * 42}) in DOMAINS  # all taken: better one of them than none


def test_the_kernel_tells_what_is_bound(tmp_path):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as end:
        end.bind(("127.0.0.1", 0))
        assert end.getsockname()[1] in used_ports()
    assert used_ports((str(tmp_path / "none"),)) == set()
