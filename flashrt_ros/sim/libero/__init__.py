"""LIBERO and robosuite tasks: the simulator in a process of its own, the protocol of the reference evaluation, its results."""
