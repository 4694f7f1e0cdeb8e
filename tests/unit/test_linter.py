# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The settings linter: knowledge, versions, line numbers, broken and hostile files, declared services."""

from __future__ import annotations

import importlib.util
import os
import time
from pathlib import Path

import pytest
from ansible_collections.ai_infra.workstation.plugins.plugin_utils.linter import (
    allocator,
    compose_ports,
    context,
    dockerfile,
    findings,
    flags,
    knowledge,
    lint,
    nodes,
    page,
    shell,
    versions,
)
from hypothesis import given
from hypothesis import strategies as st

ROOT = Path(__file__).resolve().parents[2]
TABLE = versions.Table(
    "e",
    ("0.8.0", "0.10.0", "0.12.0"),
    {"OLD": ("0.8.0", "0.8.0"), "MID": ("0.10.0", "0.10.0"), "NEW": ("0.12.0", None), "ALL": ("0.8.0", None)},
)


# ---- knowledge


def test_every_record_is_whole() -> None:
    for record in knowledge.records():
        assert record.kind in knowledge.KINDS, record
        assert record.verdict in knowledge.VERDICTS, record
        assert record.source, record
        assert record.reader, record
        assert record.severity in ("", *findings.SEVERITIES), record
        if record.verdict != "real":
            assert record.what, record
            assert knowledge.rule_of(record.kind, record.verdict) in knowledge.rules(), record
        if record.verdict == "fictitious" and record.kind == "environment":
            assert record.reader == "nobody", record
        for rule in record.values:
            assert rule.say, record
            assert knowledge.rule_of(record.kind, rule.verdict) in knowledge.rules(), record


def test_no_setting_has_two_records() -> None:
    seen = [(one.kind, one.name, one.engine if one.kind == "flag" else "") for one in knowledge.records()]
    assert sorted(set(seen)) == sorted(seen)


def test_records_and_tables_of_versions_agree() -> None:
    for engine, table in knowledge.tables().items():
        for record in (one for one in knowledge.records() if one.engine == engine):
            names = getattr(table, record.kind, {})
            if record.verdict == "fictitious":
                assert record.name not in names, record
            if record.until:
                assert names[record.name][1] == record.until, record


def test_every_rule_says_what_and_why() -> None:
    for rule in knowledge.rules().values():
        assert rule.severity in findings.SEVERITIES
        assert rule.what.endswith(".")
        assert rule.why.endswith(".")


def test_knowledge_is_plain_ascii() -> None:
    for path in knowledge.FOLDER.glob("*.yml"):
        path.read_text(encoding="ascii")


# ---- versions


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("0.14.1", (0, 14, 1)),
        ("v0.20.0", (0, 20)),
        ("0.20", (0, 20)),
        ("0.8.5.post1", (0, 8, 5)),
        ("b9294", (9294,)),
        ("0.11.0-cu128", (0, 11)),
        ("latest", ()),
        ("", ()),
    ],
)
def test_versions_are_read(text: str, key: tuple) -> None:
    assert versions.version_key(text) == key


@pytest.mark.parametrize(
    ("name", "version", "state"),
    [
        ("OLD", "0.8.0", "present"),
        ("OLD", "0.9.0", "present"),  # nobody looked there: the benefit of the doubt
        ("OLD", "0.10.0", "removed"),
        ("OLD", "0.11.0", "removed"),
        ("OLD", None, "removed"),
        ("MID", "0.8.0", "not_yet"),
        ("MID", "0.9.0", "present"),
        ("MID", "0.11.0", "present"),
        ("MID", "0.12.0", "removed"),
        ("NEW", "0.10.0", "not_yet"),
        ("NEW", "0.10.1", "present"),
        ("NEW", "9.0", "present"),
        ("NEW", None, "present"),
        ("ALL", "0.1.0", "present"),
        ("ALL", "12345", "present"),  # a build number is no release
        ("OTHER", "0.8.0", "unknown"),
    ],
)
def test_where_a_name_stands(name: str, version: str | None, state: str) -> None:
    assert TABLE.presence("environment", name, version).state == state


@pytest.mark.parametrize(
    ("image", "engine"),
    [
        ("vllm/vllm-openai:v0.11.0", ("vllm", "0.11.0")),
        ("registry.example:5000/ai/vllm:0.9.2-cu128@sha256:00", ("vllm", "0.9.2")),
        ("vllm/vllm-openai", ("vllm", None)),
        ("ghcr.io/ggml-org/llama.cpp:server-cuda-b9294", ("llama.cpp", "9294")),
        ("ghcr.io/ggml-org/llama.cpp:server", ("llama.cpp", None)),
        ("local/llama-server:1.0", ("llama.cpp", None)),
        ("postgres:17", ("", None)),
    ],
)
def test_engines_by_image(image: str, engine: tuple) -> None:
    assert context.engine_of_image(image) == engine


# ---- reading


def test_values_of_compose_are_expanded_as_far_as_they_are_known() -> None:
    assert nodes.expanded("a${X:-b}c") == "abc"
    assert nodes.expanded("${X:-${Y:-z}}") == "z"
    assert nodes.expanded("${X}") is None
    assert nodes.expanded("$$HOME") == "$HOME"
    assert nodes.expanded("1$") == "1$"


def test_merges_are_underneath_and_lines_are_those_of_the_values() -> None:
    text = "x: &a\n  b: 1\n  c: 2\ny:\n  <<: *a\n  c: 3\n"
    found = nodes.entries(nodes.get(nodes.documents(text)[0], "y"))
    assert {key: (nodes.scalar(value), nodes.line(value)) for key, (_key, value) in found.items()} == {
        "b": ("1", 2),
        "c": ("3", 6),
    }


def test_a_folded_command_keeps_its_lines(tmp_path) -> None:
    text = "services:\n  a:\n    image: vllm/vllm-openai:v0.33.0\n    command: >\n      --model x\n\n      --swap-space 4\n"  # noqa: E501
    (tmp_path / "compose.yml").write_text(text)
    assert [(one.rule, one.line) for one in lint.lint_path(tmp_path).findings] == [("flag-removed", 7)]


def test_commands_in_a_shell_are_seen(tmp_path) -> None:
    text = 'services:\n  a:\n    image: a:1\n    entrypoint: [sh, -c, "exec llama-server --hugepages"]\n'
    (tmp_path / "compose.yml").write_text(text)
    assert [(one.rule, one.line) for one in lint.lint_path(tmp_path).findings] == [("flag-fictitious", 4)]


def test_dockerfile_lines_continue_over_comments() -> None:
    text = "# escape=`\nFROM a:1\nENV A=1 `\n# no\n\n  B=2\nRUN <<EOF\nENV X\nEOF\nCMD x\n"
    found = list(dockerfile.instructions(text))
    assert [(one.name, one.first) for one in found] == [("FROM", 2), ("ENV", 3), ("RUN", 7), ("CMD", 10)]
    assert found[1].lines[-1] == ("  B=2", 6)


def test_commands_of_a_dockerfile_are_those_of_its_image(tmp_path) -> None:
    text = 'FROM vllm/vllm-openai:v0.18.0\nRUN nvidia-smi -pm 1\nCMD ["--model", "x", \\\n  "--swap-space", "4"]\n'
    (tmp_path / "Dockerfile.gpu").write_text(text)
    found = [(one.rule, one.line) for one in lint.lint_path(tmp_path).findings]
    assert found == [("flag-deprecated", 2), ("flag-removed", 4)]


def test_words_of_a_script_keep_their_lines() -> None:
    assert shell.words(["vllm serve 'a b' \\", "  --x=1 # no"], 7) == [
        ("vllm", 7),
        ("serve", 7),
        ("a b", 7),
        ("--x=1", 8),
    ]


def test_variables_of_docker_run_and_of_programs_are_seen(tmp_path) -> None:
    text = "VLLM_CUDA_GRAPHS=1 vllm serve m\ndocker run -e VLLM_USE_V1=1 vllm/vllm-openai:v0.20.0 --swap-space 1\n"
    (tmp_path / "run").write_text("#!/usr/bin/env bash\n" + text)
    found = [(one.rule, one.line) for one in lint.lint_path(tmp_path).findings]
    assert found == [("env-fictitious", 2), ("env-removed", 3), ("flag-removed", 3)]


def test_names_that_the_files_expand_are_the_authors_own(tmp_path) -> None:
    (tmp_path / ".env").write_text("VLLM_IMAGE_TAG=v0.20.0\nVLLM_OTHER_NAME=1\n")
    (tmp_path / "compose.yml").write_text("services: {a: {image: 'vllm/vllm-openai:${VLLM_IMAGE_TAG}'}}\n")
    assert [one.setting for one in lint.lint_path(tmp_path).findings] == ["VLLM_OTHER_NAME"]


def test_ports_are_read_in_every_form() -> None:
    text = "services: {a: {image: a, ports: ['8000:80', '127.0.0.1:1-2:3-4/udp', '90', '${P}:1', 81:80, {target: 5}]}}"
    root = nodes.get(nodes.documents(text)[0], "services", "a")
    from ansible_collections.ai_infra.workstation.plugins.plugin_utils.linter import compose_service  # noqa: PLC0415

    found = compose_ports.ports(compose_service.read_service("a", root, text.splitlines()))
    assert [(one.ip, one.host, one.target, one.kind) for one in found] == [
        ("", 8000, 80, "tcp"),
        ("127.0.0.1", 1, 3, "udp"),
        ("127.0.0.1", 2, 4, "udp"),
        ("", None, 90, "tcp"),
        ("", 81, 80, "tcp"),
        ("", None, 5, "tcp"),
    ]


def test_options_of_the_allocator_may_hold_lists() -> None:
    assert allocator.options("a:1,b:[256:1,512:2], c:True,") == {"a": "1", "b": "[256:1,512:2]", "c": "True"}


# ---- files


def test_only_files_of_known_kinds_are_checked_and_links_are_not_followed(tmp_path) -> None:
    outside = tmp_path / "outside.env"
    outside.write_text("VLLM_CUDA_GRAPHS=1\n")
    root = tmp_path / "root"
    for folder in (".git", "node_modules", "sub"):
        (root / folder).mkdir(parents=True)
        (root / folder / "a.env").write_text("VLLM_CUDA_GRAPHS=1\n")
    (root / "link.env").symlink_to(outside)
    (root / "loop").symlink_to(root)
    os.mkfifo(root / "pipe.env")
    (root / "notes.md").write_text("VLLM_CUDA_GRAPHS=1\n")
    (root / "other.yml").write_text("a: [\n")
    report = lint.lint_path(root)
    assert [(one.file, one.line) for one in report.findings] == [("sub/a.env", 1)]
    assert report.files == {"environment": 1}


@pytest.mark.parametrize(
    ("name", "content", "rule"),
    [
        ("compose.yml", b"\0\1", "file-unreadable"),
        ("compose.yml", b"a: \xff\n", "file-unreadable"),
        ("compose.yml", b"services: {a: 5, b: {image: [x]}}", "file-unreadable"),
        ("a.env", b"#" * (lint.LARGEST + 1), "file-skipped"),
    ],
)
def test_what_cannot_be_read_is_a_finding(name: str, content: bytes, rule: str, tmp_path) -> None:
    (tmp_path / name).write_bytes(content)
    assert rule in [one.rule for one in lint.lint_path(tmp_path).findings]


def test_one_file_can_be_named_and_a_missing_path_is_said(tmp_path) -> None:
    (tmp_path / "a.env").write_text("VLLM_CUDA_GRAPHS=1\n")
    assert [one.file for one in lint.lint_path(tmp_path / "a.env").findings] == ["a.env"]
    with pytest.raises(FileNotFoundError, match="does not exist"):
        lint.lint_path(tmp_path / "b")


def test_nothing_of_the_files_is_constructed_or_grows(tmp_path) -> None:
    bomb = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"{name}: &{name} [{', '.join(['*' + before] * 9)}]\n"
        for before, name in zip("abcdefgh", "bcdefghi", strict=True)
    )
    text = bomb + "services:\n  a: !!python/object/apply:os.system ['touch " + str(tmp_path / "pwned") + "']\n"
    text += "  b: &b\n    <<: *b\n    environment: {A: !vault x}\n"
    (tmp_path / "compose.yml").write_text(text)
    start = time.process_time()
    lint.lint_path(tmp_path)
    assert time.process_time() - start < 5
    assert not (tmp_path / "pwned").exists()


_TEXT = st.text(alphabet="aAVL=_:$-#'\"\\\n []{}&*!|>,./019\t", max_size=200)


@given(_TEXT)
def test_no_text_breaks_a_checker(text: str) -> None:
    place = context.Context("f", "vllm", "0.11.0")
    prefixes = ("", "services:\n  a:\n    image: vllm/vllm-openai\n    ports:\n      - ", "FROM a\nENV ", "vllm serve ")
    for name in ("compose.yml", "Dockerfile", "a.sh", "a.env", "sysctl.d/a.conf"):
        check = lint.classify(name, "")[1]
        for prefix in prefixes:
            lines = (prefix + text).count("\n") + 1
            assert all(0 <= one.line <= lines + 1 for one in check(prefix + text, place))


# ---- declared services


def test_a_declared_service_is_checked_by_its_version() -> None:
    found = lint.lint_service("vllm", "0.18.0", {"VLLM_USE_V1": 1, "HF_HOME": "/c"}, ["--swap-space", "4", "--port=1"])
    assert [(one.rule, one.severity, one.setting) for one in found] == [
        ("env-removed", "error", "VLLM_USE_V1"),
        ("flag-removed", "error", "--swap-space"),
    ]
    assert lint.lint_service("vllm", "0.10.0", {"VLLM_USE_V1": None}, "--swap-space 4") == []
    assert [one.rule for one in lint.lint_service("llama.cpp", "b11549", {}, "--mlock -ngl 99")] == ["flag-removed"]
    assert lint.lint_service("llama.cpp", "b9294", {"LLAMA_ARG_MLOCK": "1"}, "--mlock --ctx-size 8192 -ngl 99") == []


def test_a_finding_says_what_why_and_what_to_do() -> None:
    one = lint.lint_service("vllm", "0.18.0", {}, ["--swap-space"])[0]
    assert str(one) == (
        ":0: error: flag-removed: --swap-space: vllm had it up to 0.17.0; 0.18.0 does not. V1 has no CPU swap of blocks; "  # noqa: E501
        "use --kv-offloading-size"
    )
    assert one.as_dict()["replacement"] == "--kv-offloading-size"


def test_negative_numbers_are_values() -> None:
    words = [("-ngl", 1), ("-1", 1), ("--x", 2), ("--y=$Z", 3), ("$W", 3)]
    assert [(one.name, one.value) for one in flags.parse(words, "llama.cpp")] == [
        ("-ngl", "-1"),
        ("--x", None),
        ("--y", None),
    ]


# ---- the script that makes the tables


def test_names_are_read_out_of_sources(tmp_path) -> None:
    spec = importlib.util.spec_from_file_location("engine_knowledge", ROOT / "scripts" / "engine_knowledge.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    package = tmp_path / "vllm"
    (package / "engine").mkdir(parents=True)
    (package / "entrypoints" / "new").mkdir(parents=True)
    (package / "envs.py").write_text('environment_variables: dict = {"VLLM_A": 1, "HOME": 2, **other}\n')
    (package / "engine" / "arg_utils.py").write_text('g.add_argument("--a-b", "-a", help="--no")\n')
    text = "class MyFrontendArgs:\n    api_key: str\n    x: ClassVar[int]\n"
    (package / "entrypoints" / "new" / "cli_args.py").write_text(text)
    assert script.vllm(tmp_path) == {"environment": {"VLLM_A"}, "flag": {"--a-b", "-a", "--api-key"}}
    (tmp_path / "arg.cpp").write_text(
        'add_opt(common_arg( {"-t", "--threads"}, "N", "--help text").set_env("LLAMA_ARG_THREADS"));\n'
        'add_opt(common_arg({"--x"}, {"--no-x"}, "").set_examples({LLAMA_EXAMPLE_SERVER}));\n'
        'add_opt(common_arg({"--y"}, "").set_examples({LLAMA_EXAMPLE_CLI}));\n'
        'add_opt(common_arg({"--z"}, "").set_excludes({LLAMA_EXAMPLE_SERVER}));\n'
    )
    names = script.llama_cpp(tmp_path)
    assert names == {"environment": {"LLAMA_ARG_THREADS"}, "flag": {"-t", "--threads", "--x", "--no-x"}}
    text = script.render("e", {"2": names, "1": {"environment": set(), "flag": {"--old"}}})
    assert '  - "1"\n  - "2"\n' in text
    assert '  --old: ["1", "1"]\n' in text
    assert '  --x: ["2", null]\n' in text


def test_the_page_is_made_from_the_knowledge() -> None:
    text = (ROOT / "docs" / "linter.md").read_text(encoding="ascii")
    assert text == page.linter_page(), "run scripts/generate_docs.py"
    assert all(f"\n    {name}  (" in text for name in knowledge.rules())


@pytest.mark.parametrize(
    ("text", "rules"),
    [
        ("export CUDA_OWN_DIR=/c\necho $CUDA_OWN_DIR\n", []),
        ("export CUDA_OWN_DIR=/c\n", ["env-unknown"]),
        ("cat <<EOF\nnvidia-smi -pm 1\nEOF\nnvidia-smi -pm 1\n", ["flag-deprecated"]),
        ("# echo 3 > /proc/sys/vm/drop_caches\n", []),
        ("llama-server -m x | tee --hugepages\n", []),
        ("echo 3 > /proc/sys/vm/swappiness\n", []),
        ("echo 300 > /proc/sys/vm/swappiness\n", ["sysctl-wrong-value"]),
        ("echo 'never ends\n", []),
    ],
)
def test_scripts(text: str, rules: list[str], tmp_path) -> None:
    (tmp_path / "a.sh").write_text(text)
    assert [one.rule for one in lint.lint_path(tmp_path).findings] == rules


def test_noexec_is_not_exec(tmp_path) -> None:
    text = "services: {a: {image: 'vllm/vllm-openai:v0.11.0', tmpfs: ['/tmp:rw,noexec']}}\n"
    (tmp_path / "compose.yml").write_text(text)
    assert [one.rule for one in lint.lint_path(tmp_path).findings] == ["compose-tmp-noexec"]


def test_findings_are_counted_and_chosen_by_severity() -> None:
    three = [findings.Finding("f", 1, "r", severity, "s", "m") for severity in findings.SEVERITIES]
    assert findings.count(three) == {"error": 1, "warning": 1, "info": 1}
    chosen = {severity: len(findings.at_least(three, severity)) for severity in findings.SEVERITIES}
    assert chosen == {"info": 3, "warning": 2, "error": 1}
    assert findings.in_order([three[0], three[0]]) == [three[0]]


def test_a_variable_of_a_container_is_for_the_program_there(tmp_path) -> None:
    text = "services: {a: {image: a:1, environment: ['VLLM_MY_NAME=${VLLM_MY_NAME}']}}\n"
    (tmp_path / "compose.yml").write_text(text)
    (tmp_path / "a.sh").write_text("export VLLM_MY_NAME=1\n")
    assert [(one.file, one.rule) for one in lint.lint_path(tmp_path).findings] == [("compose.yml", "env-unknown")]


def test_a_value_that_compose_expands_into_a_flag_is_no_variable_of_the_engine(tmp_path) -> None:
    (tmp_path / ".env").write_text("VLLM_TENSOR_PARALLEL_SIZE=1\n")
    text = "services: {a: {image: 'vllm/vllm-openai:v0.11.0', command: '-tp ${VLLM_TENSOR_PARALLEL_SIZE}'}}\n"
    (tmp_path / "compose.yml").write_text(text)
    assert [one.rule for one in lint.lint_path(tmp_path).findings] == ["compose-shared-memory"]


def test_arguments_end_at_an_operator() -> None:
    words = [("llama-server", 1), ("-m", 1), ("x", 1), ("|", 1), ("tee", 1), ("--a", 1)]
    assert flags.engine_command(words) == ("llama.cpp", [("-m", 1), ("x", 1)])
