"""The agent that runs on every server of a fleet and lets one API manage it."""

__version__ = "0.1.0"
