"""F85 without DDS: which middleware is warned about when SROS2 is on, and the artifacts made of the shipped policy."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import xml.etree.ElementTree as ET

import pytest
from support.keystore import Keystore, dds_topics, rights

from flashrt_ros.config.config_file import config_folder
from flashrt_ros.security import FLOORS, fast_dds_version, floor_warning, security_on

POLICY = config_folder() / "security" / "policy.xml"
MAPS = "7f0 r-xp 0 fe:01 1 /opt/ros/lib/lib{}.so.{}\n7f1 rw-p 0 00:00 0 [heap]\n"


@pytest.mark.parametrize(
    "file, version", [("fastdds", "3.2.2"), ("fastrtps", "2.6.10"), ("fastrtps", "2.14.4"), ("fastcdr", "2.2.5")]
)
def test_version_is_that_of_the_library_in_the_process(file, version):
    expected = None if file == "fastcdr" else tuple(map(int, version.split(".")))
    assert fast_dds_version(MAPS.format(file, version)) == expected


def test_a_library_named_by_its_series_has_its_version_beside_it(tmp_path):
    (tmp_path / "libfastdds.so.3.2").touch()
    maps = f"7f0 r-xp 0 fe:01 1 {tmp_path}/libfastdds.so.3.2\n"
    assert fast_dds_version(maps) is None
    (tmp_path / "libfastdds.so.3.2.2").touch()
    assert fast_dds_version(maps) == (3, 2, 2)


@pytest.mark.parametrize("version", ["2.6.11", "2.6.12", "3.3.1", "3.4.1", "3.5.0", "4.0.0"])
def test_F85_versions_from_the_floor_of_their_series_on_are_fine(version):
    assert floor_warning("rmw_fastrtps_cpp", tuple(map(int, version.split(".")))) is None


@pytest.mark.parametrize("version", ["2.6.10", "2.14.4", "3.2.2", "3.3.0", "3.4.0"])
def test_F85_older_versions_and_series_without_a_floor_are_warned_about(version):
    said = floor_warning("rmw_fastrtps_cpp", tuple(map(int, version.split("."))))
    assert f"Fast DDS {version}" in said
    assert all(".".join(map(str, floor)) in said for floor in FLOORS)


def test_F85_unknown_is_warned_about_and_cyclone_is_not():
    assert "not known" in floor_warning("rmw_fastrtps_cpp", None)
    assert "rmw_zenoh_cpp" in floor_warning("rmw_zenoh_cpp", None)
    assert floor_warning("rmw_cyclonedds_cpp", None) is None


def test_on_is_what_ros_takes_for_on():
    assert security_on({"ROS_SECURITY_ENABLE": "true"}) and security_on({"ROS_SECURITY_ENABLE": "True"})
    assert not security_on({}) and not security_on({"ROS_SECURITY_ENABLE": "false"})


# ---- artifacts of config/security/policy.xml


@pytest.fixture(scope="module")
def keystore(tmp_path_factory):
    if shutil.which("openssl") is None and os.environ.get("CI") != "true":
        pytest.skip("needs openssl")
    made = Keystore(tmp_path_factory.mktemp("sros2") / "keystore", domain=7)
    for enclave in ("/flashrt/policy_node", "/flashrt/operator"):
        made.add(enclave, rights(POLICY, enclave))
    return made


@pytest.mark.parametrize("enclave", ["policy_node", "operator"])
def test_F85_signed_permissions_are_those_of_the_policy(keystore, enclave):
    place = keystore.folder / "enclaves/flashrt" / enclave
    assert keystore.signed(place / "permissions.p7s") and keystore.signed(place / "governance.p7s")
    grant = ET.parse(place / "permissions.xml").getroot().find("permissions/grant")
    assert grant.findtext("subject_name") == f"CN=/flashrt/{enclave}" and grant.findtext("default") == "DENY"
    publish, subscribe = ({t.text for t in grant.findall(f"allow_rule/{right}/topics/topic")} for right in ("publish", "subscribe"))
    assert (publish, subscribe) == dds_topics(rights(POLICY, f"/flashrt/{enclave}"))
    if enclave == "operator":
        assert "rt/policy_node/status" in subscribe and "rq/policy_node/change_stateRequest" in publish
        assert not [t for t in publish | subscribe if "set_parameters" in t or t == "rt/tabletop/commands"]
    done = subprocess.run(
        ["openssl", "verify", "-CAfile", str(place / "identity_ca.cert.pem"), str(place / "cert.pem")], capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert stat.S_IMODE((place / "key.pem").stat().st_mode) == 0o600


def test_F85_a_changed_document_or_another_authority_is_noticed(keystore, tmp_path):
    signed = keystore.folder / "enclaves/flashrt/operator/permissions.p7s"
    text = signed.read_bytes()
    changed = tmp_path / "permissions.p7s"
    changed.write_bytes(text.replace(b"rt/policy_node/prompt", b"rt/tabletop/commands"))
    assert changed.read_bytes() != text and not keystore.signed(changed)
    other = Keystore(tmp_path / "other", domain=7)
    other.add("/flashrt/operator", rights(POLICY, "/flashrt/operator"))
    assert not keystore.signed(other.folder / "enclaves/flashrt/operator/permissions.p7s")
