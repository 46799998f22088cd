"""What libraries have to say while a verb runs goes to the person, and never into the verb's answer."""

from __future__ import annotations

import logging
import sys

import structlog


def log_aside() -> None:
    """Warnings and worse, on standard error."""
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )
