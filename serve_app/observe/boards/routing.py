"""Why requests go where they go, and whether the router is well."""

from serve_app.observe.boards.parts import BY_TIER, Board, Panel, Query, or_none, quantiles, rate

DECISIONS = "ray_tierwise_decisions_total"
COMPARED = "ray_tierwise_mirrors_compared_total"
ROUTING = Board(
    "tierwise-routing",
    "tierwise / Routing",
    "Why requests go where they go, and whether the router is well.",
    {
        "Decisions": (
            Panel(
                "Large share", "Of the last half hour.", (Query("tierwise:large_share:ratio_rate30m", "large"),), "percentunit", bound=0.25
            ),
            Panel("Reasons", "A second.", (Query(rate(DECISIONS, "reason"), "{{reason}}"),), "reqps", stacked=True),
            Panel("Modes", "normal, shadow, canary.", (Query(rate(DECISIONS, "mode"), "{{mode}}"),), "reqps", stacked=True),
            Panel("Scores", "How hard requests are, 0 to 1.", (Query(rate("ray_tierwise_score_bucket", "le"), "{{le}}"),), kind="heatmap"),
            Panel(
                "Drift",
                "Population stability index of the last hour against the calibration: of the scores, of novel prompts. Below 0.1: none.",
                (Query("tierwise:drift:psi_rate1h", "{{signal}}"),),
                bound=0.25,
            ),
            Panel(
                "Novel prompts",
                "Share of the scored requests of the last hour.",
                (Query("tierwise:novel:ratio_rate1h", "novel"),),
                "percentunit",
            ),
            Panel(
                "Threshold in force", "With what capacity adds to it.", (Query("max (ray_tierwise_threshold)", "threshold"),), "percentunit"
            ),
        ),
        "The router": (
            Panel(
                "Stages of a decision",
                "embed and assess run beside each other; decide is all of it.",
                quantiles("ray_tierwise_router_stage_seconds", "stage"),
                "s",
            ),
            Panel(
                "Late or failed signals",
                "A second.",
                (Query(or_none(rate("ray_tierwise_signal_faults_total", "signal, state")), "{{signal}} {{state}}"),),
                "reqps",
            ),
            Panel(
                "Requests without any score",
                "They go to the large tier.",
                (Query(or_none(rate(DECISIONS, where='reason="fallback_router_error"')), "without a score"),),
                "reqps",
            ),
            Panel(
                "Calibrations refused",
                "Tries to put a promoted calibration into force that failed; the old one stays.",
                (Query(or_none(rate("ray_tierwise_calibration_refused_total", "why")), "{{why}}"),),
                "reqps",
            ),
            Panel(
                "Early exits",
                "The small tier doubted itself and the large one answered.",
                (Query(or_none(rate("ray_tierwise_escalations_total")), "escalations"),),
                "reqps",
            ),
        ),
        "Mirrors and limits": (
            Panel(
                "Mirrors",
                "What became of answers that could have been mirrored.",
                (Query(or_none(rate("ray_tierwise_mirrors_total", "state")), "{{state}}"),),
                "reqps",
                stacked=True,
            ),
            Panel(
                "Mirrors that differ",
                "Share of the mirrored answers whose text is not the same, case, spaces and punctuation aside.",
                (
                    Query(
                        rate(COMPARED, "tier", 'verdict="different"') + " / " + rate(COMPARED, "tier"),
                        BY_TIER,
                    ),
                ),
                "percentunit",
            ),
            Panel(
                "Feedback",
                "Answers that clients called good (0.5 or more) or bad, by the tier that gave them.",
                (Query(or_none(rate("ray_tierwise_feedback_total", "tier, verdict")), "{{tier}} {{verdict}}"),),
                "reqps",
                stacked=True,
            ),
            Panel(
                "Refused before a decision",
                "By the limit that was met.",
                (Query(or_none(rate("ray_tierwise_refusals_total", "limit")), "{{limit}}"),),
                "reqps",
            ),
        ),
    },
)
