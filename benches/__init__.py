"""Benchmarks: every figure is a ratio against something real (local torch, a raw socket, memcpy) in the same run.

`python -m benches` prints them all; `--only NAME` one group. One file is one group; sizes, op sequences and model
configs are constants of those files. A figure that misses its target is printed as missed, never left out.
"""
