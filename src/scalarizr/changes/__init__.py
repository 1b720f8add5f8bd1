"""Changes of configuration files: all or nothing, whatever happens meanwhile."""
