"""Figures, each with its peers in one run: `make bench`."""
