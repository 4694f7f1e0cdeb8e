"""What converging costs: our four roles beside a conventional playbook with the same settings."""

from __future__ import annotations

from .measure import rows

__all__ = ["rows"]
