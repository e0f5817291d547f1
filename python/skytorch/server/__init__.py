"""The server process: flags, life and death, health, logs and measurements around the C++ executor.

Operators run in server/ (C++), bytes in `skytorch._wire`. This package must not register the device `sky`, and
imports only what a start needs: a local server stands between the user and the first tensor.
"""
