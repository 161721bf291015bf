"""rosbag2 recordings, in and out."""
