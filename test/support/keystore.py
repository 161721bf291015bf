"""An SROS2 keystore made from a policy file with openssl: what `ros2 security` makes, where that is not installed.

Facts: DDS Security 1.1 (governance and permissions documents, signed as S/MIME), the ROS 2 design article on security
enclaves (folder layout), ROS topic and service name mangling for DDS.
"""

from __future__ import annotations

import shutil
import subprocess
import xml.etree.ElementTree as ET
from pathlib import Path
from xml.sax.saxutils import escape

SCHEMA = "http://www.omg.org/spec/DDS-SECURITY/20170901/omg_shared_ca_{}.xsd"
DAYS = 30
DISCOVERY = "ros_discovery_info"  # each ROS 2 process tells there which nodes it has
GOVERNANCE = """\
<dds xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xsi:noNamespaceSchemaLocation="{schema}">
  <domain_access_rules>
    <domain_rule>
      <domains><id>{domain}</id></domains>
      <allow_unauthenticated_participants>false</allow_unauthenticated_participants>
      <enable_join_access_control>true</enable_join_access_control>
      <discovery_protection_kind>ENCRYPT</discovery_protection_kind>
      <liveliness_protection_kind>ENCRYPT</liveliness_protection_kind>
      <rtps_protection_kind>SIGN</rtps_protection_kind>
      <topic_access_rules>
        <topic_rule>
          <topic_expression>*</topic_expression>
          <enable_discovery_protection>true</enable_discovery_protection>
          <enable_liveliness_protection>true</enable_liveliness_protection>
          <enable_read_access_control>true</enable_read_access_control>
          <enable_write_access_control>true</enable_write_access_control>
          <metadata_protection_kind>ENCRYPT</metadata_protection_kind>
          <data_protection_kind>ENCRYPT</data_protection_kind>
        </topic_rule>
      </topic_access_rules>
    </domain_rule>
  </domain_access_rules>
</dds>
"""
PERMISSIONS = """\
<dds xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xsi:noNamespaceSchemaLocation="{schema}">
  <permissions>
    <grant name="{enclave}">
      <subject_name>CN={enclave}</subject_name>
      <validity><not_before>2020-01-01T00:00:00</not_before><not_after>2099-01-01T00:00:00</not_after></validity>
      <allow_rule>
        <domains><id>{domain}</id></domains>
        <publish><topics>{publish}</topics></publish>
        <subscribe><topics>{subscribe}</topics></subscribe>
      </allow_rule>
      <default>DENY</default>
    </grant>
  </permissions>
</dds>
"""


def rights(policy: Path, enclave: str) -> dict[str, set[str]]:
    """publish, subscribe, reply, request -> full ROS names of an enclave with one profile."""
    profile = ET.parse(policy).getroot().find(f".//enclave[@path='{enclave}']/profiles/profile")
    out: dict[str, set[str]] = {"publish": set(), "subscribe": set(), "reply": set(), "request": set()}
    for group in (*profile.findall("topics"), *profile.findall("services")):
        for right, verdict in group.attrib.items():
            assert verdict == "ALLOW", (enclave, right, verdict)
            out[right] |= {profile.get("ns") + item.text.strip() for item in group}
    return out


def dds_topics(of: dict[str, set[str]]) -> tuple[set[str], set[str]]:
    """(publish, subscribe) as DDS names: a topic is rt/..., a service a pair of rq/...Request and rr/...Reply."""
    questions = {right: {f"rq{name}Request" for name in of[right]} for right in ("reply", "request")}
    answers = {right: {f"rr{name}Reply" for name in of[right]} for right in ("reply", "request")}
    publish = {f"rt{name}" for name in of["publish"]} | questions["request"] | answers["reply"]
    subscribe = {f"rt{name}" for name in of["subscribe"]} | questions["reply"] | answers["request"]
    return publish | {DISCOVERY}, subscribe | {DISCOVERY}


class Keystore:
    """A certificate authority, a signed governance file and enclaves in a folder. domain: the only ROS domain allowed."""

    def __init__(self, folder: Path, domain: int):
        self.folder, self.domain = folder, domain
        for name in ("public", "private", "enclaves"):
            (folder / name).mkdir(parents=True)
        self._key, self._cert = folder / "private/ca.key.pem", folder / "public/ca.cert.pem"
        self._new_key(self._key)
        _openssl("req", "-new", "-x509", "-sha256", "-key", self._key, "-out", self._cert, "-days", str(DAYS),
                 "-subj", "/CN=sros2CA", "-addext", "basicConstraints=critical,CA:TRUE")  # fmt: skip
        text = GOVERNANCE.format(schema=SCHEMA.format("governance"), domain=domain)
        self._sign(text, folder / "enclaves/governance.xml")

    def add(self, enclave: str, of: dict[str, set[str]]) -> None:
        """Key, certificate and signed permissions of an enclave such as "/flashrt/operator"."""
        place = self.folder / "enclaves" / enclave.strip("/")
        place.mkdir(parents=True)
        key, request = place / "key.pem", place / "request.pem"
        self._new_key(key)
        name = "/CN=" + enclave.replace("/", "\\/")
        _openssl("req", "-new", "-sha256", "-key", key, "-out", request, "-subj", name)
        _openssl("x509", "-req", "-sha256", "-in", request, "-CA", self._cert, "-CAkey", self._key, "-CAcreateserial",
                 "-days", str(DAYS), "-out", place / "cert.pem")  # fmt: skip
        request.unlink()
        publish, subscribe = ("".join(f"<topic>{escape(t)}</topic>" for t in sorted(topics)) for topics in dds_topics(of))
        self._sign(
            PERMISSIONS.format(schema=SCHEMA.format("permissions"), enclave=escape(enclave), domain=self.domain,
                               publish=publish, subscribe=subscribe),
            place / "permissions.xml",
        )  # fmt: skip
        for name in ("identity_ca.cert.pem", "permissions_ca.cert.pem"):
            shutil.copy(self._cert, place / name)
        shutil.copy(self.folder / "enclaves/governance.p7s", place / "governance.p7s")

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs to take part; without a valid enclave it does not start (Enforce)."""
        return {
            "ROS_SECURITY_ENABLE": "true", "ROS_SECURITY_STRATEGY": "Enforce", "ROS_SECURITY_KEYSTORE": str(self.folder),
        }  # fmt: skip

    def _new_key(self, path: Path) -> None:
        _openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", path)
        path.chmod(0o600)

    def _sign(self, text: str, path: Path) -> None:
        path.write_text(text, encoding="utf-8")
        signed = path.with_suffix(".p7s")
        _openssl("smime", "-sign", "-text", "-in", path, "-out", signed, "-signer", self._cert, "-inkey", self._key)

    def signed(self, path: Path) -> bool:
        """Whether a signed document is by this authority and unchanged."""
        command = ["openssl", "smime", "-verify", "-text", "-in", str(path), "-CAfile", str(self._cert)]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0


def _openssl(*words: object) -> None:
    subprocess.run(["openssl", *map(str, words)], check=True, capture_output=True)
