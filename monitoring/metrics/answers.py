"""What the ledger says of answers: models, tokens, cost, guards, findings."""

from __future__ import annotations

from monitoring.metrics.declaring import MODEL_BUCKETS, TOKEN_BUCKETS, ledger

MODEL_DURATION = ledger(
    "histogram",
    "gen_ai_client_operation_duration_seconds",
    "The model's time for the answer that counted.",
    "gen_ai_operation_name",
    "gen_ai_provider_name",
    "gen_ai_request_model",
    "scenario",
    buckets=MODEL_BUCKETS,
)
MODEL_TOKENS = ledger(
    "histogram",
    "gen_ai_client_token_usage",
    "Tokens of the answer that counted and of its prompt.",
    "gen_ai_operation_name",
    "gen_ai_provider_name",
    "gen_ai_request_model",
    "gen_ai_token_type",
    "scenario",
    buckets=TOKEN_BUCKETS,
)
MODEL_REQUESTS = ledger(
    "counter",
    "careloom_model_requests_total",
    "Questions that a model answered, in tries that failed too.",
    "model",
    "scenario",
)
MODEL_TOKENS_SPENT = ledger(
    "counter",
    "careloom_model_tokens_total",
    "Tokens of all answers and of their prompts, in tries that failed too.",
    "model",
    "scenario",
    "gen_ai_token_type",
)
MODEL_SECONDS = ledger(
    "counter",
    "careloom_model_seconds_total",
    "The models' time for all answers, in tries that failed too.",
    "model",
    "scenario",
)
MODEL_COST = ledger(
    "counter",
    "careloom_model_cost_total",
    "What all answers cost by the configured prices.",
    "model",
    "scenario",
    "currency",
)
GUARD_VERDICTS = ledger(
    "counter",
    "careloom_guard_verdicts_total",
    "What guards found wrong with answers, by what became of it.",
    "scenario",
    "guard",
    "code",
    "action",
)
HOOK_ERRORS = ledger(
    "counter",
    "careloom_plugin_hook_errors_total",
    "Lifecycle hooks of plugins that failed, or counted what they had not declared.",
    "plugin",
    "hook",
    "scenario",
)
FINDINGS = ledger("counter", "careloom_findings_total", "What rules found without a model.", "scenario", "stage")
STATEMENTS_CUT = ledger(
    "counter",
    "careloom_statements_cut_total",
    "Statements of a model that the record does not support.",
    "scenario",
    "stage",
)
MODEL_INFO = ledger(
    "gauge", "careloom_model_info", "1 for each configured model; of which weights.", "model", "version"
)
