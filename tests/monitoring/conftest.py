# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Prometheus' own tools."""

from __future__ import annotations

import shutil

import pytest

_TOOLS = ("promtool", "amtool", "prometheus", "prometheus-alertmanager", "prometheus-node-exporter")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    missing = [tool for tool in _TOOLS if shutil.which(tool) is None]
    for item in items:
        if missing and "tests/monitoring/" in str(item.path):
            item.add_marker(pytest.mark.skip(reason=f"{', '.join(missing)} not installed"))
