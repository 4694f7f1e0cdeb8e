# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the model store does not take, each said in one line."""

from __future__ import annotations

import pytest
from ansible_collections.ai_infra.workstation.plugins.module_utils.errors import WorkstationError
from model_box import Box


@pytest.fixture
def box(tmp_path):
    return Box(tmp_path)


BAD = [
    ({"models": [{"name": "../x", "path": "x"}]}, "is not a name"),
    ({"models": [{"name": "x"}]}, "no source, files or path"),
    ({"models": [{"name": "x", "path": "x"}, {"name": "x", "path": "y"}]}, "x is named twice"),
    ({"models": [{"name": "x", "path": "p"}, {"name": "y", "path": "p"}]}, "the path 'p' belongs to x already"),
    ({"models": [{"name": "x", "path": "../p"}]}, "not a plain path below the root"),
    ({"models": [{"name": "x", "path": "/p"}]}, "not a plain path below the root"),
    ({"models": [{"name": "x", "path": ".ai-workstation/manifest.json"}]}, "not a plain path below the root"),
    ({"models": [{"name": "x", "source": "ftp://h/x"}]}, "is not the address of a file"),
    ({"models": [{"name": "x", "source": "https://h/"}]}, "is not the address of a file"),
    ({"models": [{"name": "x", "source": "https://u:secret@h/x"}]}, "must not hold a password"),
    ({"models": [{"name": "x", "source": "http://models.example/x"}]}, "over plain http the sha256 is required"),
    ({"models": [{"name": "x", "source": "hf://owner/x"}]}, "is not like hf://owner/name@revision/file"),
    ({"models": [{"name": "x", "source": "https://h/x", "sha256": ["12"]}]}, "is not 64 hexadecimal digits"),
    ({"models": [{"name": "x", "source": "https://h/x", "sha256": ["0" * 64] * 2}]}, "2 entries for 1 files"),
    ({"models": [{"name": "x", "source": "https://h/x-00002-of-00003.gguf"}]}, "name its first, x-00001-of-00003.gguf"),
    ({"models": [{"name": "x", "source": "https://h/x.gguf", "unpack": True}]}, "is not an archive"),
    ({"models": [{"name": "x", "source": "https://h/x", "files": [{"source": "https://h/y"}]}]}, "files stands alone"),
    ({"models": [{"name": "x", "source": "file://elsewhere/x"}]}, "names a host"),
    ({"root": "models"}, "not a plain absolute path"),
    ({"root": "/"}, "not a plain absolute path"),
    ({"mode": "0666"}, "services read models"),
    ({"space_reserve": "much"}, "space_reserve: 'much' is not a size"),
    ({"retries": -1}, "is not a whole number from 0 to 100"),
]


@pytest.mark.parametrize(("params", "message"), BAD, ids=[message for _params, message in BAD])
def test_bad_input_is_one_line(box, params, message):
    with pytest.raises(WorkstationError, match=message) as caught:
        box.call(*params.get("models", ()), **{name: value for name, value in params.items() if name != "models"})
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value)
    assert box.writes == []
