"""JSON-RPC: declaring methods, checking parameters, running them, telling what went wrong. Knows no domain."""
