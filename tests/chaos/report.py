"""The figures of a run: one JSON line per fault, and the table that `docs/operations.md` makes of them.

python -m tests.chaos.report REPORT.jsonl docs/operations.md     # writes the table between the document's two marks
"""

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

BEGIN, END = "<!-- chaos: the table below is written by `python -m tests.chaos.report` -->", "<!-- chaos: end -->"
COLUMNS = ("fault", "graph", "what a client sees", "what is counted", "recovery", "measured by")


@dataclass(frozen=True)
class Report:
    """Lines are appended, so that several runs can share a file: the last line of a fault and a graph counts."""

    path: Path

    def line(self, fault: str, graph: str, test: str, *, client: str, counted: str, recovery: str, **figures: Any) -> None:
        """Keep and print the figures of one fault. `client`, `counted` and `recovery` become its line of the table."""
        data = {"fault": fault, "graph": graph, "test": test, "client": client, "counted": counted, "recovery": recovery, **figures}
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(data) + "\n")
        print(f"\nchaos: {fault} [{graph}]: {client}; {counted}; recovery {recovery}")


def client_view(figures: dict[str, Any]) -> str:
    """`212 of 220 answered, 8 x 502 engine_error, 3 by another tier or without a signal`."""
    failed = ", ".join(f"{number} x {kind}" for kind, number in figures["failed"].items())
    parts = [
        f"{figures['ok']} of {figures['sent']} answered",
        failed,
        f"{figures['degraded']} of them degraded" if figures["degraded"] else "",
    ]
    return ", ".join(part for part in parts if part)


def seconds(value: float) -> str:
    return "none needed" if value == 0 else f"{value:.1f} s" if value < float("inf") else "not within the test"


def rows(lines: list[str]) -> list[dict[str, Any]]:
    latest: dict[tuple[str, str], dict[str, Any]] = {}
    for line in lines:
        data = json.loads(line)
        latest[data["fault"], data["graph"]] = data
    return list(latest.values())


def table(lines: list[str]) -> str:
    """Markdown, one line per fault and graph."""
    head = [f"| {' | '.join(COLUMNS)} |", "|" + "---|" * len(COLUMNS)]
    body = []
    for row in rows(lines):
        command = f"`make chaos ONLY={row['test']}`"
        cells = [row["fault"], row["graph"], row["client"], row["counted"], row["recovery"], command]
        body.append("| " + " | ".join(str(cell).replace("|", "\\|") for cell in cells) + " |")
    return "\n".join([*head, *body])


def written(document: str, lines: list[str]) -> str:
    """The document with a new table between its marks. Raises ValueError when a mark is missing."""
    before, rest = document.split(BEGIN, 1)
    _, after = rest.split(END, 1)
    return f"{before}{BEGIN}\n\n{table(lines)}\n\n{END}{after}"


def main(report: str, document: str) -> None:
    path = Path(document)
    path.write_text(written(path.read_text(encoding="utf-8"), Path(report).read_text(encoding="utf-8").splitlines()), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
