"""nginx: its configuration, read and edited as text; its program; the proxies and upstreams that the agent keeps."""
