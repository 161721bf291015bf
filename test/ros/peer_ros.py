"""A process that listens to a policy node's status and publishes a prompt for it: an operator or an intruder.

usage: peer_ros.py NODE SECONDS PROMPT [--ros-args ...] (PROMPT "": says nothing).
Prints what it heard as JSON: {"heard": count, "prompts": [...]}.
"""

import json
import sys
import time

import rclpy
from flashrt_ros.msg import PolicyStatus
from rclpy.parameter import Parameter
from std_msgs.msg import String

from flashrt_ros import qos

node_name, seconds, prompt = sys.argv[1], float(sys.argv[2]), sys.argv[3]
rclpy.init(args=sys.argv)
# The shipped policy lets an operator answer no service: not even those that rclpy makes for each node.
node = rclpy.create_node(
    "operator", start_parameter_services=False,
    parameter_overrides=[Parameter("start_type_description_service", value=False)],
)  # fmt: skip
prompts: list[str] = []
node.create_subscription(PolicyStatus, f"/{node_name}/status", lambda m: prompts.append(m.prompt), qos.STATUS)
publisher = node.create_publisher(String, f"/{node_name}/prompt", qos.PROMPT)
end = time.monotonic() + seconds
while time.monotonic() < end:
    if prompt:
        publisher.publish(String(data=prompt))
    rclpy.spin_once(node, timeout_sec=0.2)
print(json.dumps({"heard": len(prompts), "prompts": sorted(set(prompts))}))
node.destroy_node()
rclpy.try_shutdown()
