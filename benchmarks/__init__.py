"""Benchmarks. Each one measures this library and its peers in the same run: `make bench`."""
