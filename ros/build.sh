#!/usr/bin/env bash
# Builds messages and package with colcon into a virtual environment that holds the ROS 2 wheels, so that its Python finds
# both without any set-up. usage: ros/build.sh VENV [more words for colcon build]
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(dirname "$here")
venv=$(cd "$1" && pwd)
build=build/ros/$(basename "$venv" | tr -d .)  # one for each environment: the cache of another would be used
shift
"$venv/bin/python" "$here/make_prefix.py"
export AMENT_PREFIX_PATH=$venv CMAKE_PREFIX_PATH=$venv PATH=$venv/bin:$PATH
cd "$root"
colcon --log-base "$build/log" build --base-paths . --packages-select flashrt_ros \
  --build-base "$build" --install-base "$venv" --merge-install --event-handlers console_direct+ \
  --cmake-args -G Ninja -DCMAKE_BUILD_TYPE=Release -DPython3_EXECUTABLE="$venv/bin/python" \
  -DCMAKE_PROJECT_INCLUDE="$here/pipwheels.cmake" "$@"
# colcon replaced setup.bash by one that knows only its own package.
"$venv/bin/python" "$here/make_prefix.py"
