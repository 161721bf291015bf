"""`python -m flashrt_ros.ros_demo`: the demo over DDS."""

import sys

from ..cli_ros_demo import main

sys.exit(main())
