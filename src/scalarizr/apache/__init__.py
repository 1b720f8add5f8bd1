"""Apache httpd: its configuration, read and edited as text; its program; the virtual hosts that the agent keeps."""
