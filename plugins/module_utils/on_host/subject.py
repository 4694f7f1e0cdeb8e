# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Subjects by the name of their part."""

from __future__ import annotations

import importlib
from typing import Any

from ..engine.plan import Subject


def subject_of(part: str) -> Subject:
    """The subject of a part; imported only where a machine has that part."""
    found: Any = importlib.import_module(f"..subjects.{part}", __package__)
    return found  # type: ignore[no-any-return]
