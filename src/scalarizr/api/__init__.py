"""The public surface: one class a namespace, each method a typed signature, its docstring and a call into the domain."""
