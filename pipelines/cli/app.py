"""The `careloom` command, put together from one file a command; nothing heavy is imported before a command runs."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
from keyword import iskeyword

import typer

from fhir_adapters.errors import AdapterError
from pipelines.errors import CareloomError, ConfigError

#: Commands in the order of `--help`; each is the function of that name in the module of that name (`try_` for "try").
COMMANDS = (
    "demo",
    "up",
    "status",
    "top",
    "trace",
    "send",
    "replay",
    "doctor",
    "plugins",
    "models",
    "new",
    "check",
    "try",
)
#: Groups of commands; each is the `app` in the module of that name.
GROUPS = ("switch", "dead-letters", "knowledge")

HELP = """\
FHIR events through Kafka into Airflow runs of model tasks, written back as labelled FHIR drafts.

To see it work:        careloom demo

To keep it running:    careloom up     (Ctrl-C stops all of it)

In another terminal:   careloom status,  careloom send FILE

When something lacks:  careloom doctor

To add a scenario:     careloom new pre_visit my-scenario,  careloom check,  careloom try

What is installed:     careloom plugins,  careloom models

What failed for good:  careloom dead-letters list

What waits, and why:   careloom top,  careloom trace --last

To run events again:   careloom replay --since 2h --why REASON

To stop a model now:   careloom switch off model NAME --why REASON
"""


def build() -> typer.Typer:
    """The application with all its commands."""
    app = typer.Typer(
        name="careloom",
        help=HELP,
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    for name in COMMANDS:
        python_name = f"{name}_" if iskeyword(name) else name
        app.command(name)(getattr(import_module(f"pipelines.cli.{python_name}"), python_name))
    for name in GROUPS:
        app.add_typer(import_module(f"pipelines.cli.{name.replace('-', '_')}").app, name=name)
    return app


def run(app: Callable[[], None]) -> int:
    """Run a command; what we know to go wrong is one clear line, never a traceback. Returns the exit code.

    2 when the command was called or configured wrongly, 1 when something else failed.
    """
    try:
        app()
    except (CareloomError, AdapterError) as error:
        sys.stderr.write(f"careloom: {error}\n")
        return 2 if isinstance(error, ConfigError) else 1
    except KeyboardInterrupt:
        sys.stderr.write("careloom: stopped\n")
        return 130
    except SystemExit as exit_:
        return exit_.code if isinstance(exit_.code, int) else 1 if exit_.code else 0
    return 0
