"""Object stores: where backups and uploaded snapshots go, all through one interface."""
