"""The demo over DDS: processes, the three witnesses of a run, its figures, its command line."""
