"""Policy workers: the process that runs the model, its shared memory, and its stand-ins. No rclpy."""
