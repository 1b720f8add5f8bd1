"""What the agent knows of the host it manages: its name, its figures, its metrics, its logs."""
