"""From a message to an observation: validators, newest-value slots, age and skew rules. No rclpy."""
