#!/usr/bin/env bash
# colcon test of what ros/build.sh built. usage: ros/test.sh VENV [more words for colcon test]
set -euo pipefail
root=$(dirname "$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)")
venv=$(cd "$1" && pwd)
build=build/ros/$(basename "$venv" | tr -d .)  # one for each environment: the cache of another would be used
shift
export AMENT_PREFIX_PATH=$venv CMAKE_PREFIX_PATH=$venv PATH=$venv/bin:$PATH PYTHONSAFEPATH=1
cd "$root"
colcon --log-base "$build/log" test --base-paths . --packages-select flashrt_ros --build-base "$build" \
  --install-base "$venv" --merge-install "$@"
colcon --log-base "$build/log" test-result --test-result-base "$build" --verbose
