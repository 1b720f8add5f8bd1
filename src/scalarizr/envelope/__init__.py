"""Opening what comes in and sealing what goes out (WIRE.md). Knows nothing of HTTP servers or JSON-RPC."""
