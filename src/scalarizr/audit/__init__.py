"""The audit log: a line a command, each chained to the one before, so that a removed or altered line shows."""
