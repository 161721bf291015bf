"""The bundled simulation, the policy node on the bundled policy, started and activated: ros2 launch flashrt_ros demo.launch.py."""

from flashrt_ros.launching import policy_launch


def generate_launch_description():
    return policy_launch(simulation="tabletop", policy="pi05", robot="tabletop", autostart="true")
