"""Models: what was asked, what it cost, and vLLM's own metrics."""

from __future__ import annotations

from monitoring.dashboards.description import SCENARIO, Board, Panel, Row, grown, not_zero, or_zero, quantile, rate

_DURATION, _TOKENS = "gen_ai_client_operation_duration_seconds", "gen_ai_client_token_usage"

_VERSIONS = "max by (model, version) (careloom_model_info)"
#: What a model did in a day, beside its version; 0 where it was not asked.
_OF_A_DAY = f"sum by (model) (increase({{}}[1d])) * on (model) group_right () {_VERSIONS} or 0 * {_VERSIONS}"

BOARD = Board(
    "careloom-models",
    "careloom · Models",
    "Requests, tokens, time and cost by scenario and model; below it what vLLM says of itself.",
    (
        Row(
            "As careloom sees them",
            (
                Panel(
                    "Answered questions",
                    "In tries that failed too.",
                    "reqps",
                    {
                        "{{model}} {{scenario}}": not_zero(
                            rate("careloom_model_requests_total", SCENARIO, "model, scenario"), "scenario"
                        )
                    },
                    airflow=True,
                ),
                Panel(
                    "Tokens",
                    "Prompts and answers, in tries that failed too.",
                    "short",
                    {
                        "{{model}} {{gen_ai_token_type}}": rate(
                            "careloom_model_tokens_total", SCENARIO, "model, gen_ai_token_type"
                        )
                    },
                ),
                Panel(
                    "Models at work",
                    "Seconds of model time a second: how many answers at once on average.",
                    "short",
                    {"{{model}}": rate("careloom_model_seconds_total", SCENARIO, "model")},
                    runbook="CareloomModelSlow",
                ),
                Panel(
                    "Time of an answer",
                    "Of the answers that counted.",
                    "s",
                    {
                        "50 of 100, {{gen_ai_request_model}}": quantile(
                            0.5, _DURATION, SCENARIO, "gen_ai_request_model"
                        ),
                        "95 of 100, {{gen_ai_request_model}}": quantile(
                            0.95, _DURATION, SCENARIO, "gen_ai_request_model"
                        ),
                    },
                    runbook="CareloomModelSlow",
                ),
                Panel(
                    "Tokens of an answer, 95 of 100",
                    "Of the answers that counted, and of their prompts.",
                    "short",
                    {"{{gen_ai_token_type}}": quantile(0.95, _TOKENS, SCENARIO, "gen_ai_token_type")},
                ),
                Panel(
                    "Cost of a day",
                    "By the configured prices; 0 where there are none.",
                    "short",
                    {
                        "{{currency}} {{scenario}}": or_zero(
                            grown("careloom_model_cost_total", SCENARIO, "currency, scenario", over="1d"), "scenario"
                        )
                    },
                    airflow=True,
                ),
            ),
        ),
        Row(
            "What answers",
            (
                Panel(
                    "Models",
                    "Those that are configured, the weights of each, and what they answered and cost in a day.",
                    "none",
                    {
                        "configured": "count by (model, version) (careloom_model_info)",
                        "answers of a day": _OF_A_DAY.format("careloom_model_requests_total"),
                        "model seconds of a day": _OF_A_DAY.format("careloom_model_seconds_total"),
                        "tokens of a day": _OF_A_DAY.format("careloom_model_tokens_total"),
                        "cost of a day": _OF_A_DAY.format("careloom_model_cost_total"),
                    },
                    "table",
                    width=24,
                    height=6,
                    decimals=0,
                    units={"model seconds of a day": "s"},
                ),
            ),
        ),
        Row(
            "vLLM",
            (
                Panel(
                    "Requests in the server",
                    "Running and waiting.",
                    "short",
                    {
                        "running": "sum by (model_name) (vllm:num_requests_running)",
                        "waiting": "sum by (model_name) (vllm:num_requests_waiting)",
                    },
                    runbook="CareloomModelServerDown",
                ),
                Panel(
                    "KV cache",
                    "Share in use; at 1 requests are preempted.",
                    "percentunit",
                    {"{{instance}}": "vllm:kv_cache_usage_perc"},
                    runbook="CareloomModelServerDown",
                ),
                Panel(
                    "Prefix cache",
                    "Share of prompt tokens that were there already.",
                    "percentunit",
                    {"hits": f"{rate('vllm:prefix_cache_hits_total')} / {rate('vllm:prefix_cache_queries_total')}"},
                    runbook="CareloomModelSlow",
                ),
                Panel(
                    "To the first token",
                    "And from token to token.",
                    "s",
                    {
                        "first, 95 of 100": quantile(0.95, "vllm:time_to_first_token_seconds"),
                        "next, 95 of 100": quantile(0.95, "vllm:inter_token_latency_seconds"),
                    },
                    runbook="CareloomModelSlow",
                ),
                Panel(
                    "Queue and whole request",
                    "95 of 100.",
                    "s",
                    {
                        "queue": quantile(0.95, "vllm:request_queue_time_seconds"),
                        "whole": quantile(0.95, "vllm:e2e_request_latency_seconds"),
                    },
                    runbook="CareloomBudgetBurns",
                ),
                Panel(
                    "Generated, preempted",
                    "Tokens a second; requests that lost their place.",
                    "short",
                    {
                        "tokens": rate("vllm:generation_tokens_total"),
                        "preempted": rate("vllm:num_preemptions_total"),
                    },
                    runbook="CareloomModelSlow",
                ),
            ),
        ),
    ),
)
