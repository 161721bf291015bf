"""A LIBERO task and the policy node, started and activated by the simulation: libero.launch.py checkpoint:=DIR suite:=libero_10."""

from flashrt_ros.launching import policy_launch


def generate_launch_description():
    return policy_launch(simulation="libero", policy="pi05", robot="libero_panda", splice="none")
