# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What is written as YAML is read as what it was."""

from __future__ import annotations

import yaml
from ansible_collections.ai_infra.workstation.plugins.module_utils.stack.yaml_text import dump
from hypothesis import given, settings
from hypothesis import strategies as st

_TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
_SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | _TEXTS
    | st.sampled_from(["yes", "Null", "1e3", "0x1", "~", "-", "\\ud800\\udc00"])
)
_VALUES = st.recursive(
    _SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXTS, inner, max_size=3), max_leaves=12
)


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(_TEXTS, _VALUES, min_size=1, max_size=4))
def test_text_and_data_are_the_same(data) -> None:
    assert yaml.safe_load(dump(data)) == data


def test_it_is_for_people() -> None:
    data = {"b": ["x", {"k": 1, "l": "on"}, []], "a": {"empty": {}, "path": "/a/b", "port": "8080:80"}}
    assert dump(data) == (
        'a:\n  empty: {}\n  path: /a/b\n  port: "8080:80"\nb:\n  - x\n  - k: 1\n    l: "on"\n  - []\n'
    )
