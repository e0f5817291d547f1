"""Adapters for libraries that know devices by a fixed list, one module each; docs/libraries.md says who needs one.

Nothing here is imported by the rest of the package, and importing this package imports none of the libraries.
"""
