"""`python -m pipelines.ledger`: bring the ledger's database to the newest schema, and end. Safe to run at every start.

`careloom up` does the same by itself; this is for where something else starts the processes.
"""

from __future__ import annotations

import logging
import sys

from sqlalchemy.exc import SQLAlchemyError

from pipelines.config import load
from pipelines.errors import ConfigError
from pipelines.ledger import migrate
from pipelines.telemetry.log_lines import set_up

log = logging.getLogger("pipelines.ledger")


def main() -> int:
    """Migrate; returns the exit code: 0 done, 1 the database does not answer or refuses, 2 wrong configuration."""
    set_up("ledger")
    try:
        config = load()
        set_up("ledger", config.logging)
        url = config.ledger.url.get_secret_value()
    except ConfigError as error:
        log.critical("%s", error)
        return 2
    try:
        migrate(url)
    except SQLAlchemyError as error:
        log.critical("the ledger's database cannot be migrated: %s", type(error).__name__)
        return 1
    log.info("the ledger has the newest schema")
    return 0


if __name__ == "__main__":
    sys.exit(main())
