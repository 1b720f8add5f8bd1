"""The public surface: one class a namespace, each method a signature, a docstring and a call into the domain."""
