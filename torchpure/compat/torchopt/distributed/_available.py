"""Whether workers can be used."""


def is_available() -> bool:
    """Return False: there are no remote procedure calls here.

    >>> is_available()
    False
    """
    return False
