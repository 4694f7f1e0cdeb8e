# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Which engines answer for which model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .endpoints import HEALTH, Endpoint


@dataclass(frozen=True)
class Pool:
    """Engines that can stand in for each other, with the models that all of them serve and no other one does."""

    endpoints: tuple[Endpoint, ...]
    models: tuple[str, ...]

    @property
    def name(self) -> str:
        return ".".join(("pool", *(endpoint.name for endpoint in self.endpoints)))

    @property
    def health(self) -> str:
        """The path that is asked: a pool has one, so engines of several kinds are asked what all of them know."""
        paths = {HEALTH[endpoint.kind] for endpoint in self.endpoints}
        return paths.pop() if len(paths) == 1 else HEALTH["openai"]


def pools(endpoints: Sequence[Endpoint]) -> list[Pool]:
    """One pool for each set of engines that serve the same models, and one for each engine by itself (for its path)."""
    models = sorted({model for endpoint in endpoints for model in endpoint.models})
    served: dict[tuple[Endpoint, ...], list[str]] = {(endpoint,): [] for endpoint in endpoints}
    for model in models:
        served.setdefault(tuple(one for one in endpoints if model in one.models), []).append(model)
    found = [Pool(group, tuple(names)) for group, names in served.items()]
    return sorted(found, key=lambda pool: pool.name)
