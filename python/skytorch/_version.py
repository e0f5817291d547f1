"""The package's version: the same number as the Cargo workspace's (a test holds the two together)."""

__version__ = "0.1.0"
