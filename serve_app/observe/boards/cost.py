"""Dollars, in both views."""

from serve_app.observe.boards.parts import BY_TIER, Board, Panel, Query, or_none, rate

COST = Board(
    "tierwise-cost",
    "tierwise / Cost",
    "Both views in dollars: token prices, and the machines' hours with idle time. Needs `tierwise cost-exporter`.",
    {
        "Today": (
            Panel("Spent today", "", (Query("tierwise_cost_today_usd", "{{view}}"),), "currencyUSD", "stat", cost=True),
            Panel(
                "Saved today",
                "Against the same traffic, all large. Negative: it cost more.",
                (Query("tierwise_cost_saved_today_usd", "{{view}}"),),
                "currencyUSD",
                "stat",
                cost=True,
            ),
            Panel("1,000 requests", "", (Query("tierwise_cost_per_1000_requests_usd", "{{view}}"),), "currencyUSD", "stat", cost=True),
            Panel("Spent an hour", "", (Query("tierwise_cost_spend_usd_per_hour", "{{view}}"),), "currencyUSD", "stat", cost=True),
        ),
        "Token prices": (
            Panel(
                "Dollars an hour by tier",
                "",
                (Query(f"3600 * {rate('ray_tierwise_spent_usd_total', 'tier')}", BY_TIER),),
                "currencyUSD",
                stacked=True,
            ),
            Panel(
                "Spent, and all large",
                "Dollars an hour.",
                (
                    Query(f"3600 * {rate('ray_tierwise_spent_usd_total')}", "spent"),
                    Query(f"3600 * {rate('ray_tierwise_all_large_usd_total')}", "all large"),
                ),
                "currencyUSD",
            ),
            Panel(
                "Tokens a second",
                "cached is a part of input.",
                (
                    Query(rate("ray_tierwise_tokens_total", "tier, kind"), "{{tier}} {{kind}}"),
                    Query(or_none(rate("ray_tierwise_mirror_tokens_total", "tier, kind")), "mirrors {{tier}} {{kind}}"),
                ),
            ),
            Panel(
                "Mirrors, dollars an hour",
                "Beside what clients got.",
                (Query(or_none(f"3600 * {rate('ray_tierwise_mirror_spent_usd_total', 'tier')}"), BY_TIER),),
                "currencyUSD",
            ),
        ),
        "The fleet": (
            Panel(
                "What the fleet's dollars went into",
                "Dollars an hour, over ten minutes.",
                (Query('3600 * sum by (item) (rate(tierwise_cost_usd_total{view="fleet"}[10m]))', "{{item}}"),),
                "currencyUSD",
                stacked=True,
                cost=True,
            ),
            Panel(
                "A million tokens",
                "Of today, idle time included.",
                (Query("tierwise_cost_per_million_tokens_usd", "{{view}} {{tier}}"),),
                "currencyUSD",
                cost=True,
            ),
            Panel(
                "Machines",
                "unpriced ones are charged nothing.",
                (Query("tierwise_cost_nodes", "{{instance}}"), Query("tierwise_cost_nodes_unpriced", "unpriced")),
                cost=True,
            ),
        ),
    },
)
