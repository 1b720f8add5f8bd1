"""PostgreSQL: the local cluster, its service, its passwords, its replication, its data bundles."""
