"""Contracts are tables that test_contracts.py reads: pytest is not to import them a second time, for doctests."""

collect_ignore_glob = ["contracts*.py"]
