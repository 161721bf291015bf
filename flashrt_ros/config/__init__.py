"""The policy's, the node's and the robot's configuration: dataclasses, and the files they are read from."""
