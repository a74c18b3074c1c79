"""What a check found."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Report:
    """`problems` keep the application from working; `warnings` do not. One line each, in the order of the file's parts."""

    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def problem(self, where: str, text: str) -> None:
        self.problems.append(one_line(f"{where}: {text}"))

    def under(self, where: str, lines: list[str]) -> None:
        """Problems that were found by a part of its own, with paths relative to `where`; "" keeps them."""
        self.problems.extend(one_line(f"{where}.{line}" if where else line) for line in lines)

    def warning(self, where: str, text: str) -> None:
        self.warnings.append(one_line(f"{where}: {text}"))


def one_line(text: str) -> str:
    """Keys and values come from the file: a line break or an escape code in them must not reach the terminal."""
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)
