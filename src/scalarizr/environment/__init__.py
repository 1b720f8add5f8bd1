"""Where roles, certificates, virtual hosts and metrics come from: local files, or the control plane's QueryEnv."""
