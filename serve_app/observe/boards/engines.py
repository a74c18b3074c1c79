"""Queues, replicas, and what the engines say of themselves."""

from serve_app.observe.boards.parts import BY_TIER, Board, Panel, Query, or_none, quantiles, rate

ENGINES = Board(
    "tierwise-engines",
    "tierwise / Engines",
    "Queues, replicas and the engines' own figures.",
    {
        "Tiers": (
            Panel("Waiting", "Sequences inside the engines.", (Query("tierwise:tier_waiting:max", BY_TIER),), bound=50.0),
            Panel(
                "Running, of capacity",
                "",
                (Query("max by (tier) (ray_tierwise_tier_running) / max by (tier) (ray_tierwise_tier_capacity)", BY_TIER),),
                "percentunit",
            ),
            Panel("Replicas", "Those that report.", (Query("max by (tier) (ray_tierwise_tier_replicas)", BY_TIER),)),
            Panel(
                "In flight",
                "Of all ingress replicas: waiting for a tier, or being answered.",
                (Query("sum by (tier) (ray_tierwise_in_flight)", BY_TIER),),
            ),
            Panel("Breakers", "1: open, 0.5: probing.", (Query("max by (tier) (ray_tierwise_breaker_open)", BY_TIER),)),
        ),
        "Attempts": (
            Panel(
                "Generations",
                "A second, by how they ended.",
                (Query(rate("ray_tierwise_attempts_total", "tier, outcome"), "{{tier}} {{outcome}}"),),
                "reqps",
            ),
            Panel(
                "Retries", "At the tier that had failed.", (Query(or_none(rate("ray_tierwise_retries_total", "tier")), BY_TIER),), "reqps"
            ),
            Panel(
                "Fallbacks", "By the tier that is asked.", (Query(or_none(rate("ray_tierwise_fallbacks_total", "tier")), BY_TIER),), "reqps"
            ),
            Panel(
                "Lost",
                "Chunks that no engine should have sent, and records that found no place.",
                (
                    Query(or_none(rate("ray_tierwise_skipped_chunks_total")), "chunks skipped"),
                    Query(or_none(rate("ray_tierwise_records_dropped_total")), "records dropped"),
                ),
            ),
            Panel(
                "Records that wait",
                "In the ingress replicas to be acknowledged, in the ledger to be written. What finds no place is dropped.",
                (Query("sum by (at) (ray_tierwise_ledger_backlog_records)", "{{at}}"),),
            ),
            Panel(
                "Text that waits",
                "Stored prompts and mirrored answers among those records.",
                (Query("sum by (at) (ray_tierwise_ledger_backlog_bytes)", "{{at}}"),),
                "bytes",
            ),
        ),
        "vLLM": (
            Panel(
                "Tokens a second",
                "By model: with the router's ratings, mirrors and probes.",
                (
                    Query(rate("ray_vllm_prompt_tokens_total", "model_name"), "{{model_name}} prompt"),
                    Query(rate("ray_vllm_generation_tokens_total", "model_name"), "{{model_name}} generated"),
                ),
                vllm=True,
            ),
            Panel("Time in the engine's queue", "", quantiles("ray_vllm_request_queue_time_seconds", "model_name"), "s", vllm=True),
            Panel(
                "Time to first token",
                "By the engine's clock.",
                quantiles("ray_vllm_time_to_first_token_seconds", "model_name"),
                "s",
                vllm=True,
            ),
            Panel(
                "KV cache",
                "The fullest replica; shown while it works.",
                (Query("max by (model_name) (max_over_time(ray_vllm_kv_cache_usage_perc[5m]))", "{{model_name}}"),),
                "percentunit",
                vllm=True,
            ),
            Panel(
                "Prefix cache",
                "Share of the prompts' tokens that were there already.",
                (
                    Query(
                        f"({rate('ray_vllm_prefix_cache_hits_total', 'model_name')})"
                        f" / ({rate('ray_vllm_prefix_cache_queries_total', 'model_name')} > 0)",
                        "{{model_name}}",
                    ),
                ),
                "percentunit",
                vllm=True,
            ),
        ),
        "Ray": (
            Panel(
                "Replicas that Serve wants",
                "",
                (Query('max by (deployment) (ray_serve_autoscaling_target_replicas{application="tierwise"})', "{{deployment}}"),),
            ),
            Panel(
                "Queries inside replicas",
                "",
                (Query('sum by (deployment) (ray_serve_replica_processing_queries{application="tierwise"})', "{{deployment}}"),),
            ),
            Panel("CPU of the nodes", "", (Query("max by (ip) (ray_node_cpu_utilization)", "{{ip}}"),), "percent"),
            Panel(
                "Memory of the nodes",
                "",
                (Query("max by (ip) (ray_node_mem_used) / max by (ip) (ray_node_mem_total)", "{{ip}}"),),
                "percentunit",
            ),
        ),
    },
)
