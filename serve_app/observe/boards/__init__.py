"""The Grafana dashboards. `tests/monitoring` holds every query against a Prometheus that scraped a real run."""

from serve_app.observe.boards.cost import COST
from serve_app.observe.boards.engines import ENGINES
from serve_app.observe.boards.overview import OVERVIEW
from serve_app.observe.boards.parts import Board, Panel, Query
from serve_app.observe.boards.routing import ROUTING

__all__ = ["BOARDS", "Board", "Panel", "Query", "panels"]
BOARDS = (OVERVIEW, ROUTING, COST, ENGINES)


def panels() -> tuple[Panel, ...]:
    return tuple(panel for board in BOARDS for row in board.rows.values() for panel in row)
