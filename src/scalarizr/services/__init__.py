"""Starting and stopping programs through whatever supervises them on this host."""
