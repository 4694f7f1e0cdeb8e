# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Typed values: what is parsed is what is printed, and bad input is one line."""

from __future__ import annotations

import pytest
from ansible_collections.ai_infra.workstation.plugins.module_utils import values
from ansible_collections.ai_infra.workstation.plugins.module_utils.errors import InputError
from hypothesis import given
from hypothesis import strategies as st

CPUS = st.sets(st.integers(0, 300))


@given(CPUS)
def test_cpu_lists_and_masks_round_trip(numbers: set[int]) -> None:
    ordered = tuple(sorted(numbers))
    assert values.cpus("x", values.cpu_list(numbers)) == ordered
    assert values.cpu_mask(values.print_cpu_mask(numbers)) == ordered


@given(st.integers(0, 1 << 50))
def test_sizes_round_trip(number: int) -> None:
    assert values.size("x", values.print_size(number)) == number


def test_masks_are_printed_as_the_kernel_does() -> None:
    assert values.print_cpu_mask([0, 32, 33]) == "3,00000001"
    assert values.print_cpu_mask([]) == "0"
    assert values.cpu_mask("ff,00000000,00000001") == (0, 64, 65, 66, 67, 68, 69, 70, 71)


@pytest.mark.parametrize("bad", ["0-3,,9", "3-1", "a", "0-", "-1", True, 1.5, None, "0-99999", {"a": 1}])
def test_bad_cpu_lists(bad) -> None:
    with pytest.raises(InputError, match=r"^cpus: ") as caught:
        values.cpus("cpus", bad)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "number"), [("2M", 2 << 20), ("1GiB", 1 << 30), ("2048kB", 2 << 20), ("512", 512), (64, 64)]
)
def test_sizes(text, number: int) -> None:
    assert values.size("size", text) == number


@pytest.mark.parametrize("bad", ["2X", "", "1.5G", "-1M", True, None])
def test_bad_sizes(bad) -> None:
    with pytest.raises(InputError, match="is not a size"):
        values.size("size", bad)


@pytest.mark.parametrize("bad", ["fast", 9000, -1, True, "1.5"])
def test_bad_integers_name_the_range(bad) -> None:
    with pytest.raises(InputError, match="power: .* is not a whole number from 1 to 600 W"):
        values.integer("power", bad, 1, 600, "W")


def test_choices() -> None:
    assert values.selected("always [madvise] never") == "madvise"
    assert values.offered("always [madvise] never") == ("always", "madvise", "never")
    with pytest.raises(InputError, match="'x' is not one of a, b"):
        values.choice("mode", "x", ["a", "b"])
