"""For tools that look for this file; everything is in pyproject.toml. In a ROS workspace colcon uses CMakeLists.txt."""

from setuptools import setup

setup()
