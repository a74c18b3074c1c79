"""The first dashboard: is it up, is it fast, where do requests go, what does that save."""

from serve_app.observe.boards.parts import BY_TIER, Board, Panel, Query, quantiles, rate

DURATION = "ray_tierwise_gen_ai_server_request_duration_seconds"
TTFT = "ray_tierwise_gen_ai_server_time_to_first_token_seconds"
TPOT = "ray_tierwise_gen_ai_server_time_per_output_token_seconds"
DECISIONS = "ray_tierwise_decisions_total"
OVERVIEW = Board(
    "tierwise-overview",
    "tierwise / Overview",
    "Is it up, is it fast, where do requests go, what does that save.",
    {
        "Now": (
            Panel("Decisions a second", "Requests that a tier was chosen for.", (Query(rate(DECISIONS)),), "reqps", "stat"),
            Panel(
                "Large share",
                "Of the decisions of the last half hour; above a quarter an alert begins.",
                (Query("tierwise:large_share:ratio_rate30m"),),
                "percentunit",
                "stat",
            ),
            Panel("Errors", "Requests that failed for a reason of ours.", (Query("tierwise:errors:ratio_rate5m"),), "percentunit", "stat"),
            Panel(
                "Saved an hour",
                "By token prices, against the same answers on the large tier.",
                (Query("tierwise:saved_usd_per_hour:rate5m"),),
                "currencyUSD",
                "stat",
            ),
        ),
        "Traffic": (
            Panel("Decisions by tier", "A second.", (Query(rate(DECISIONS, "tier"), BY_TIER),), "reqps", stacked=True),
            Panel(
                "How requests ended",
                "rejected: the client's mistake; refused: a queue was full; cancelled: the client left.",
                (Query(rate("ray_tierwise_requests_total", "outcome"), "{{outcome}}"),),
                "reqps",
                stacked=True,
            ),
            Panel(
                "Answers by status",
                "As Serve counts them, for the two endpoints that generate.",
                (Query(rate("ray_serve_num_http_requests_total", "status_code", 'route=~"/v1/(chat/)?completions"'), "{{status_code}}"),),
                "reqps",
                stacked=True,
            ),
            Panel(
                "Errors and fallbacks",
                "Of all requests.",
                (Query("tierwise:errors:ratio_rate5m", "errors"), Query("tierwise:fallbacks:ratio_rate5m", "fallbacks")),
                "percentunit",
            ),
        ),
        "Latency": (
            Panel("Whole requests", "From arrival to the last byte.", quantiles(DURATION), "s", bound=2.0),
            Panel("Time to first token", "Streams only.", quantiles(TTFT), "s", bound=1.0),
            Panel("Time per output token", "Of the tokens after the first; streams only.", quantiles(TPOT), "s"),
            Panel(
                "Waiting and running",
                "Sequences inside the engines.",
                (
                    Query("tierwise:tier_waiting:max", "{{tier}} waiting"),
                    Query("max by (tier) (ray_tierwise_tier_running)", "{{tier}} running"),
                ),
                bound=50.0,
            ),
        ),
    },
)
