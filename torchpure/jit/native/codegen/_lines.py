"""Indented lines of C++."""

_INDENT = "  "


class Lines:
    """Lines of C++, indented by the number of open blocks."""

    def __init__(self) -> None:
        self.text: list[str] = []
        self._depth = 1

    def line(self, text: str) -> None:
        """Write a line."""
        self.text.append(_INDENT * self._depth + text)

    def open(self, text: str) -> None:
        """Open a block."""
        self.line(text + " {")
        self._depth += 1

    def close(self, count: int = 1) -> None:
        """Close blocks."""
        for _ in range(count):
            self._depth -= 1
            self.line("}")
