"""Fuzzing with atheris: one module a target, each of which holds what comes out against what was promised."""
