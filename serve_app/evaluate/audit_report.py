"""From an audit to its page and its lines."""

from collections.abc import Callable

import numpy as np

from serve_app.domain import Json
from serve_app.evaluate import audit, audit_clusters, audit_page
from serve_app.evaluate.audit import Audit, Seen, Wanted
from serve_app.offline import LazyEmbedder
from serve_app.routing import features
from serve_app.settings import parse


def write(wanted: Wanted, *, say: Callable[[str], None], seen: Seen, embedder: LazyEmbedder | None = None) -> Json:
    """Write the page and tell its figures. Raises `TierwiseError` when nothing can be read."""
    settings = parse({"profile": wanted.profile})
    embedder = embedder or LazyEmbedder(settings.embedder)
    found = audit.run(wanted, say=say, seen=seen, embedder=embedder)
    summary = audit.summary(found)
    groups = _clusters(found, embedder, settings.router.max_chars)
    summary["clusters"] = [{"share": one.share, "terms": list(one.terms)} for one in groups]
    wanted.out.write_text(audit_page.page(found, summary, groups), encoding="utf-8")
    return summary


def as_lines(summary: Json) -> list[str]:
    """For a terminal."""
    saved = "" if summary["saved_share"] is None else f", saves {summary['saved_share']:.1%}"
    prompts, low, high = summary["prompts"], summary["large_share_low"], summary["large_share_high"]
    resumed = f" ({summary['resumed']:,} scored before)" if summary["resumed"] else ""
    fitted = f"{summary['kind']} calibration, threshold {summary['threshold']:g}"
    uncertain = f"{summary['uncertain'] / prompts:.1%} uncertain, {summary['novel'] / prompts:.1%} novel"
    drift = "" if summary["drift"] is None else f"; drift {summary['drift']:.2f} (above 0.25: unlike the calibration's rows)"
    lines = [
        f"{prompts:,} prompts{resumed}, {summary['unreadable']:,} not read; {fitted}",
        f"{summary['large_share']:.1%} to the large tier (95 % interval {low:.1%} to {high:.1%}), {uncertain}{drift}",
        f"all large ${summary['all_large_usd']:.4g}, routed ${summary['routed_usd']:.4g}{saved}",
        f"{summary['out']}: the page",
    ]
    few = prompts < audit_page.ENOUGH
    return [*lines, f"fewer than {audit_page.ENOUGH:,} prompts: take more before you plan by it"] if few else lines


def _clusters(found: Audit, embedder: LazyEmbedder, max_chars: int) -> list[audit_clusters.Cluster]:
    sample = found.totals.hard.kept
    if len(sample) < 2 * audit_clusters.ROWS_EACH:
        return []
    vectors = np.stack(embedder.encode([features.cut(one.text, max_chars) for one in sample]))
    return audit_clusters.clusters(sample, vectors, seed=found.wanted.seed)
