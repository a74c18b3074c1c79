"""Grafana's JSON from `boards/`: `python -m serve_app.observe.dashboards` writes `cluster/monitoring/grafana/`.

Needs the development dependency `grafana-foundation-sdk`; nothing that runs imports this module.
"""

import sys
from pathlib import Path

from grafana_foundation_sdk.builders.common import GraphThresholdsStyleConfig, StackingConfig, VizLegendOptions
from grafana_foundation_sdk.builders.dashboard import Dashboard, DatasourceVariable, Row, ThresholdsConfig
from grafana_foundation_sdk.builders.heatmap import Panel as Heatmap
from grafana_foundation_sdk.builders.prometheus import Dataquery
from grafana_foundation_sdk.builders.stat import Panel as Stat
from grafana_foundation_sdk.builders.timeseries import Panel as Timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.common import GraphTresholdsStyleMode, LegendDisplayMode, LegendPlacement, StackingMode
from grafana_foundation_sdk.models.dashboard import DataSourceRef, Threshold, ThresholdsMode
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

from serve_app.observe.boards import BOARDS, Board, Panel, Query

WIDTH, HEIGHT = 24, 8
SOURCE = DataSourceRef(type_val="prometheus", uid="${source}")


def rendered(board: Board) -> str:
    """The dashboard as Grafana imports and provisions it."""
    dashboard = (
        Dashboard(board.title)
        .uid(board.uid)
        .description(board.text)
        .tags(["tierwise"])
        .timezone("browser")
        .time("now-1h", "now")
        .refresh("10s")
        .with_variable(DatasourceVariable("source").type("prometheus").label("Prometheus"))
    )
    for title, row in board.rows.items():
        dashboard = dashboard.with_row(Row(title))
        for panel in row:
            dashboard = dashboard.with_panel(_panel(panel, max(6, WIDTH // len(row))))
    return JSONEncoder(sort_keys=True, indent=2).encode(dashboard.build()) + "\n"


def _panel(panel: Panel, width: int) -> Timeseries | Stat | Heatmap:
    made: Timeseries | Stat | Heatmap
    match panel.kind:
        case "stat":
            made = Stat()
        case "heatmap":
            made = Heatmap()
        case _:
            made = _lines(panel)
    made = made.title(panel.title).description(panel.text).unit(panel.unit).datasource(SOURCE).height(HEIGHT).span(width)
    for number, query in enumerate(panel.queries):
        made = made.with_target(_query(query, number, heatmap=panel.kind == "heatmap"))
    return made


def _lines(panel: Panel) -> Timeseries:
    legend = VizLegendOptions().display_mode(LegendDisplayMode.LIST).placement(LegendPlacement.BOTTOM).show_legend(show_legend=True)
    made = Timeseries().legend(legend).min(0).fill_opacity(10)
    if panel.stacked:
        made = made.stacking(StackingConfig().mode(StackingMode.NORMAL))
    if panel.bound is not None:
        steps = [Threshold(value=None, color="transparent"), Threshold(value=panel.bound, color="red")]
        made = made.thresholds(ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(steps))
        made = made.thresholds_style(GraphThresholdsStyleConfig().mode(GraphTresholdsStyleMode.LINE))
    return made


def _query(query: Query, number: int, *, heatmap: bool) -> Dataquery:
    made = Dataquery().expr(query.expr).legend_format(query.legend or "__auto").ref_id(chr(ord("A") + number)).datasource(SOURCE)
    return made.format(PromQueryFormat.HEATMAP) if heatmap else made


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for board in BOARDS:
        (folder / f"{board.uid}.json").write_text(rendered(board), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "cluster/monitoring/grafana"))
