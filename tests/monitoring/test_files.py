"""Rules, alerts and dashboards as files: what Prometheus and Grafana will make of them, without either running."""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from serve_app.observe import metrics
from serve_app.observe.boards import BOARDS, panels
from serve_app.observe.dashboards import rendered
from serve_app.observe.exporter import EXPORTED
from tests.graph import REPO
from tests.monitoring.prometheus import MONITORING, needs_prometheus

RULES = sorted((MONITORING / "rules").iterdir())
TESTS = sorted(Path(__file__).parent.glob("*.test.yml"))
SUFFIXES = ("_bucket", "_count", "_sum")
OURS = {f"ray_{metric.name}" for metric in (*metrics.COUNTERS, *metrics.HISTOGRAMS, *metrics.GAUGES)} | set(EXPORTED)
# Of Ray, Serve and vLLM; tests on running graphs hold them.
THEIRS = {
    "ray_serve_num_http_requests_total",
    "ray_serve_autoscaling_target_replicas",
    "ray_serve_replica_processing_queries",
    "ray_node_cpu_utilization",
    "ray_node_mem_used",
    "ray_node_mem_total",
    "ray_vllm_prompt_tokens_total",
    "ray_vllm_generation_tokens_total",
    "ray_vllm_request_queue_time_seconds",
    "ray_vllm_time_to_first_token_seconds",
    "ray_vllm_kv_cache_usage_perc",
    "ray_vllm_prefix_cache_hits_total",
    "ray_vllm_prefix_cache_queries_total",
}


def rules() -> list[dict[str, Any]]:
    return [rule for file in RULES for group in yaml.safe_load(file.read_text())["groups"] for rule in group["rules"]]


def alerts() -> list[dict[str, Any]]:
    return [rule for rule in rules() if "alert" in rule]


def promtool(*arguments: object) -> None:
    done = subprocess.run(["promtool", *map(str, arguments)], capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@needs_prometheus
def test_prometheus_takes_the_configuration_and_every_rule() -> None:
    promtool("check", "config", MONITORING / "prometheus.yml")


@needs_prometheus
@pytest.mark.timeout(150)
def test_every_alert_fires_where_it_must_and_only_there() -> None:
    promtool("test", "rules", *TESTS)


def test_every_alert_is_tested_both_ways() -> None:
    cases = [case for file in TESTS for test in yaml.safe_load(file.read_text())["tests"] for case in test.get("alert_rule_test", ())]
    names = {alert["alert"] for alert in alerts()}
    assert {case["alertname"] for case in cases if case["exp_alerts"]} == names
    assert {case["alertname"] for case in cases if not case["exp_alerts"]} == names


def test_every_alert_names_a_heading_of_the_runbook() -> None:
    for alert in alerts():
        page, anchor = alert["annotations"]["runbook"].split("#")
        headings = re.findall(r"^#+ (.+)$", (REPO / page).read_text(), re.MULTILINE)
        assert anchor in {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}, anchor


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: str(board.uid))
def test_the_committed_dashboards_are_what_the_generator_makes(board: Any) -> None:
    committed = (MONITORING / "grafana" / f"{board.uid}.json").read_text()
    assert committed == rendered(board), "run: python -m serve_app.observe.dashboards"
    shown = json.loads(committed)
    expected = [query.expr for row in board.rows.values() for panel in row for query in panel.queries]
    assert [target["expr"] for panel in shown["panels"] for target in panel.get("targets", ())] == expected


def test_there_is_no_dashboard_that_nobody_makes() -> None:
    assert {file.stem for file in (MONITORING / "grafana").glob("*.json")} == {board.uid for board in BOARDS}


@needs_prometheus
def test_every_query_of_a_dashboard_parses(tmp_path: Path) -> None:
    exprs = [query.expr.replace("$__rate_interval", "1m") for panel in panels() for query in panel.queries]
    as_rules = [{"record": f"query:number_{number}", "expr": expr} for number, expr in enumerate(exprs)]
    (tmp_path / "queries.yml").write_text(yaml.safe_dump({"groups": [{"name": "queries", "rules": as_rules}]}))
    promtool("check", "rules", tmp_path / "queries.yml")


def test_every_name_in_a_query_is_one_that_exists() -> None:
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    exprs = [rule["expr"] for rule in rules()] + [query.expr for panel in panels() for query in panel.queries]
    used = {name for expr in exprs for name in re.findall(r"\b(?:ray_\w+|tierwise[:_][\w:]+)", re.sub(r'"[^"]*"', "", expr))}
    bare = {next((name.removesuffix(end) for end in SUFFIXES if name.endswith(end)), name) for name in used}
    assert bare <= OURS | THEIRS | recorded, bare - OURS - THEIRS - recorded
    assert bare >= THEIRS | recorded, THEIRS | recorded - bare
    assert OURS - bare == UNSHOWN


def test_the_page_on_metrics_lists_every_name_with_its_labels_and_meaning() -> None:
    kinds = {"counter": metrics.COUNTERS, "histogram": metrics.HISTOGRAMS, "gauge": metrics.GAUGES}
    ours = {(f"ray_{m.name}", kind, ", ".join(m.labels), m.help) for kind, group in kinds.items() for m in group}
    costs = {(n, "counter" if n.endswith("_total") else "gauge", ", ".join(labels), text) for n, (text, labels) in EXPORTED.items()}
    page = (REPO / "docs" / "observability.md").read_text()
    rows = {tuple(cell.strip() for cell in row) for row in re.findall(r"^\| `(\w+)` \| (\w+) \|(.*?)\|(.*?)\|$", page, re.MULTILINE)}
    assert rows == ours | costs


UNSHOWN = {"tierwise_cost_all_large_usd_total", "tierwise_cost_engine_tokens_total", "tierwise_cost_saved_usd", "tierwise_cost_targets"} | {
    "tierwise_cost_last_reading_timestamp_seconds",
    "ray_tierwise_drift_psi",  # of one replica; the dashboards show the fleet's
    "tierwise_cost_prices_info",
}
