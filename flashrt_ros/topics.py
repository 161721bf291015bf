"""Names of the topics that are not the robot's own; the robot's are in its file (config.TopicsConfig)."""

STATUS = "~/status"
DIAGNOSTICS = "/diagnostics"
