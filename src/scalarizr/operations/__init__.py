"""Long work: recorded before it starts, done by a process of its own, followed, cancelled, never lost."""
