"""Other libraries' names and signatures, so that their programs become programs of this library by one import line."""

__all__ = []
