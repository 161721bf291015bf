"""The control loop: tick, guard, hold, faults and health. No rclpy."""
