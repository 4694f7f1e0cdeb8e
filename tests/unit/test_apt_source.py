# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""apt_source: a key is compared before apt hears of it. The keys are made by gpg, and so are their fingerprints."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.ai_infra.workstation.plugins.module_utils.apt.openpgp import fingerprints
from ansible_collections.ai_infra.workstation.plugins.module_utils.apt.source import FOLDER, converge
from ansible_collections.ai_infra.workstation.plugins.module_utils.errors import InputError, RefusedError
from fake_kernel import FakeKernel

ONE = """\
-----BEGIN PGP PUBLIC KEY BLOCK-----

mDMEawHB6BYJKwYBBAHaRw8BAQdAa7rHc9vNIW6EKSkyxZfjqS0Kra2iK7XIpbAL
/xCz+IK0CHRlc3Qgb25liJAEExYIADgWIQRuLCjYkLOYVEekggVhxCscksq0xgUC
awHB6AIbAwULCQgHAgYVCgkICwIEFgIDAQIeAQIXgAAKCRBhxCscksq0xsDBAQD9
2OaucWnBaHCFoEJTwvONn9qtNCCpogwBtoLe6YTTegD+IBzW6rNP6aDPkYtGduQ7
GDVaZqANrny7Q8AytqJ8yAM=
=R1Uf
-----END PGP PUBLIC KEY BLOCK-----
"""
BOTH = """\
-----BEGIN PGP PUBLIC KEY BLOCK-----

mDMEawHB6BYJKwYBBAHaRw8BAQdAa7rHc9vNIW6EKSkyxZfjqS0Kra2iK7XIpbAL
/xCz+IK0CHRlc3Qgb25liJAEExYIADgWIQRuLCjYkLOYVEekggVhxCscksq0xgUC
awHB6AIbAwULCQgHAgYVCgkICwIEFgIDAQIeAQIXgAAKCRBhxCscksq0xsDBAQD9
2OaucWnBaHCFoEJTwvONn9qtNCCpogwBtoLe6YTTegD+IBzW6rNP6aDPkYtGduQ7
GDVaZqANrny7Q8AytqJ8yAOYMwRrAcHoFgkrBgEEAdpHDwEBB0BfvqpOgEl8/NbT
wSVOZ3mT38xSl1h4Wfd4XxiRiB9rt7QIdGVzdCB0d2+IkAQTFggAOBYhBGn3OfY/
paRdSP6IKk4jUKEcDho3BQJrAcHoAhsDBQsJCAcCBhUKCQgLAgQWAgMBAh4BAheA
AAoJEE4jUKEcDho3BC0A/A4krIq8m6B3PV+ARgz+cIS6rTKegss+AADPxvdA3Pp7
AP0S6n2oFRA0SySpeKZIapCX4k/3oy107RratcKmSMMRAQ==
=OPkq
-----END PGP PUBLIC KEY BLOCK-----
"""
PRINTS = [
    "6E2C28D890B3985447A4820561C42B1C92CAB4C6",
    "69F739F63FA5A45D48FE882A4E2350A11C0E1A37",
]
URL = "https://repo.example/key.asc"
PATH = f"{FOLDER}/ai-workstation-docker.sources"


class Web:
    """What addresses answer, and which were asked."""

    def __init__(self, text: str = ONE) -> None:
        self.text = text
        self.asked: list[str] = []

    def __call__(self, address: str) -> str:
        self.asked.append(address)
        return self.text


@pytest.fixture
def kernel(tmp_path: Path) -> FakeKernel:
    kernel = FakeKernel(tmp_path)
    os.makedirs(kernel.at(FOLDER))
    return kernel


def call(kernel: FakeKernel, web: Web, check: bool = False, **params: Any) -> dict[str, Any]:
    given: dict[str, Any] = {
        "name": "docker",
        "uris": ["https://repo.example/debian"],
        "suites": ["trixie"],
        "components": ["stable"],
        "architectures": [],
        "key_url": URL,
        "key": None,
        "fingerprints": PRINTS[:1],
        "existing": "refuse",
        "state": "present",
    }
    return converge({**given, **params}, check, kernel, web)


def test_fingerprints_are_those_that_gpg_names() -> None:
    assert fingerprints(ONE) == PRINTS[:1]
    assert fingerprints(BOTH) == PRINTS
    assert fingerprints(ONE.replace("\n", "\r\n")) == PRINTS[:1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<html>", "found 0"),
        (ONE + ONE, "found 2"),
        (ONE.replace("mDM", "!!!"), "damaged"),
        ("\n".join(ONE.splitlines()[:3] + ONE.splitlines()[-1:]), "damaged"),
    ],
)
def test_what_is_no_key_is_one_line(text: str, message: str) -> None:
    with pytest.raises(RefusedError, match=message):
        fingerprints(text)


def test_one_file_with_the_key_in_it_and_no_second_download(kernel: FakeKernel) -> None:
    web = Web()
    predicted = call(kernel, web, check=True)
    assert not kernel.writes
    assert call(kernel, web) == predicted
    lines = (kernel.text(PATH) or "").splitlines()
    assert lines[1:6] == [
        "Types: deb",
        "URIs: https://repo.example/debian",
        "Suites: trixie",
        "Components: stable",
        "Signed-By:",
    ]
    assert lines[7] == " ."
    assert not call(kernel, Web("not asked"))["changed"]
    assert call(kernel, Web("not asked"), suites=["forky"])["changed"]
    assert call(kernel, web, state="absent")["changed"]
    assert not kernel.exists(PATH)
    assert not call(kernel, web, state="absent")["changed"]


@pytest.mark.parametrize("key", [BOTH, ONE])
def test_a_strange_key_is_refused_before_anything_is_written(kernel: FakeKernel, key: str) -> None:
    with pytest.raises(RefusedError, match="apt was not told of it"):
        call(kernel, Web(key), fingerprints=["0" * 40 if key == ONE else PRINTS[0]])
    assert not kernel.writes


def test_a_renewed_fingerprint_fetches_the_key_again(kernel: FakeKernel) -> None:
    call(kernel, Web())
    web = Web(BOTH)
    assert call(kernel, web, fingerprints=PRINTS)["changed"] is False
    kernel.put(PATH, (kernel.text(PATH) or "").replace(" mDM", " mDN"))
    assert call(kernel, web, fingerprints=[text.lower() for text in PRINTS])["changed"]
    assert web.asked == [URL]


def test_a_repository_that_another_file_names_is_refused_with_the_line(kernel: FakeKernel) -> None:
    theirs = f"{FOLDER}/docker.list"
    kernel.put(theirs, "# https://repo.example/debian\ndeb [signed-by=/k] https://repo.example/debian/ trixie stable")
    with pytest.raises(RefusedError, match=f"{theirs} line 2 has this repository already"):
        call(kernel, Web())
    assert not call(kernel, Web("not asked"), existing="keep")["changed"]
    assert not kernel.writes


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"name": "../x"}, "name: '../x'"),
        ({"uris": []}, "uris: needed"),
        ({"key_url": None}, "key_url: needed"),
        ({"fingerprints": ["EBFCD88"]}, "fingerprints: 'EBFCD88' must be 40"),
    ],
)
def test_bad_input_is_one_line(kernel: FakeKernel, params: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        call(kernel, Web(), **params)


def test_a_file_of_others_stays(kernel: FakeKernel) -> None:
    kernel.put(PATH, "Types: deb")
    with pytest.raises(RefusedError, match="not ours"):
        call(kernel, Web())
