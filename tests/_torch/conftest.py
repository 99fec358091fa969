"""The tables of contracts are imported by their names, and hold no tests themselves."""

collect_ignore_glob = ["contracts*.py"]
