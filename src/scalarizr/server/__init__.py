"""The HTTP server around envelope and rpc: bounded in time, memory and connections (WIRE.md, "HTTP")."""
