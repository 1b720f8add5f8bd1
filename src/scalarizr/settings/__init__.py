"""Typed settings: what can be set, reading it from TOML, writing the commented file."""
