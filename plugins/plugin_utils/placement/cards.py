# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Can all GPU wishes be met together? Exact: bin packing of VRAM with few GPUs, equal ones taken as one.

A GPU holds one whole wish, or any number of parts whose sum is not above its VRAM less the slack.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from ...module_utils.errors import RefusedError
from .machine import Gpu
from .packing import STEPS
from .wishes import GpuWish

Hand = dict[str, tuple[str, ...]]  # service -> UUIDs


@dataclass(frozen=True)
class Call:
    """The GPU wish of one service. `near`: its CPUs must be near its GPUs, so which node they are on matters."""

    name: str
    wish: GpuWish
    near: bool = False


def deal(
    gpus: Sequence[Gpu], calls: Sequence[Call], used: Mapping[str, int], agree: Callable[[Hand], bool] | None = None
) -> Hand | None:
    """GPUs for all calls, or None.

    `used`: bytes already taken by UUID. `agree` may turn a hand down, also one that is not complete: then none that
    begins like it is good.
    """
    return _Deal(gpus, calls, used, agree).run()


def holds(gpus: Sequence[Gpu], calls: Sequence[Call], used: Mapping[str, int], hand: Hand) -> bool:
    """Whether there is room for this hand."""
    left = {gpu.uuid: gpu.usable_bytes - used.get(gpu.uuid, 0) for gpu in gpus}
    for call in calls:
        for gpu in gpus:
            if gpu.uuid in hand[call.name]:
                left[gpu.uuid] -= call.wish.need(gpu)
    return all(size >= 0 for size in left.values())


class _Deal:
    def __init__(
        self,
        gpus: Sequence[Gpu],
        calls: Sequence[Call],
        used: Mapping[str, int],
        agree: Callable[[Hand], bool] | None,
    ) -> None:
        self.gpus = gpus
        self.calls = sorted(calls, key=self._order)
        self.left = {gpu.uuid: gpu.usable_bytes - used.get(gpu.uuid, 0) for gpu in gpus}
        self.agree = agree
        self.hand: Hand = {}
        self.dead: set[object] = set()
        self.steps = 0
        # Who may use a GPU is part of what makes two of them equal.
        self.who = {gpu.uuid: tuple(call.wish.accepts(gpu) for call in self.calls) for gpu in gpus}
        self.near = any(call.near for call in calls)

    def _order(self, call: Call) -> tuple[int, bool, int, str]:
        """The hardest first: few GPUs to choose from, whole ones, many bytes."""
        accepted = [gpu for gpu in self.gpus if call.wish.accepts(gpu)]
        most = max((call.wish.need(gpu) for gpu in accepted), default=0)
        return len(accepted) - call.wish.count, not call.wish.whole, -most, call.name

    def run(self) -> Hand | None:
        return self.hand if self._walk(0) else None

    def _walk(self, index: int) -> bool:
        if self.agree and (index == 0 or self.calls[index - 1].near) and not self.agree(self.hand):
            return False
        if index == len(self.calls):
            return True
        self.steps += 1
        if self.steps > STEPS:
            raise RefusedError("services: too many to decide whether all GPU wishes can be met; name GPUs by uuid")
        state = self._state(index)
        if state in self.dead:
            return False
        call = self.calls[index]
        for chosen in self._ways(call):
            needs = [call.wish.need(gpu) for gpu in chosen]
            for gpu, need in zip(chosen, needs, strict=True):
                self.left[gpu.uuid] -= need
            self.hand[call.name] = tuple(gpu.uuid for gpu in chosen)
            if self._walk(index + 1):
                return True
            del self.hand[call.name]
            for gpu, need in zip(chosen, needs, strict=True):
                self.left[gpu.uuid] += need
        self.dead.add(state)
        return False

    def _class(self, gpu: Gpu) -> tuple[object, ...]:
        return gpu.node if self.near else None, gpu.vram_bytes, self.left[gpu.uuid], self.who[gpu.uuid]

    def _state(self, index: int) -> object:
        """What decides about the rest: the GPUs as classes, and the nodes of those whose CPUs must be near."""
        where = {gpu.uuid: gpu.node for gpu in self.gpus}
        nodes = tuple(
            frozenset(where[uuid] for uuid in self.hand[call.name]) for call in self.calls[:index] if call.near
        )
        return index, nodes, tuple(sorted(repr(self._class(gpu)) for gpu in self.gpus))

    def _ways(self, call: Call) -> Iterator[tuple[Gpu, ...]]:
        """Sets of `count` GPUs that fit, one of each kind of set, the tightest GPUs first."""
        groups: dict[tuple[object, ...], list[Gpu]] = {}
        for gpu in sorted(self.gpus, key=lambda gpu: (self.left[gpu.uuid], gpu.address)):
            need = call.wish.need(gpu)
            empty = self.left[gpu.uuid] == gpu.usable_bytes
            if call.wish.accepts(gpu) and need <= self.left[gpu.uuid] and (empty or not call.wish.whole):
                groups.setdefault(self._class(gpu), []).append(gpu)
        yield from _hands(list(groups.values()), call.wish.count)


def _hands(groups: Sequence[Sequence[Gpu]], count: int) -> Iterator[tuple[Gpu, ...]]:
    if count == 0:
        yield ()
    elif groups:
        for number in range(min(count, len(groups[0])), -1, -1):
            for rest in _hands(groups[1:], count - number):
                yield (*groups[0][:number], *rest)
