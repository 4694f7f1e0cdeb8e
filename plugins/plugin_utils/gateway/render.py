# Copyright: ai_infra.workstation contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The text of haproxy.cfg. What the values were chosen by is in docs/gateway.md."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from . import answers
from .answers import quoted
from .endpoints import Endpoint
from .options import Options
from .pools import Pool, pools

HEAD = "# Made by ai_infra.workstation (filter haproxy_config). The next run writes it anew.\n"
# What engines answer to clients. Everything else that they have (slots, adapters, sleep, metrics) is not reached.
PATHS = (
    "/v1/audio/speech", "/v1/audio/transcriptions", "/v1/audio/translations", "/v1/chat/completions",
    "/v1/completions", "/v1/embeddings", "/v1/images/generations", "/v1/messages", "/v1/models", "/v1/rerank",
    "/v1/responses", "/v1/score",
)  # fmt: skip
_NO_LIMIT = 1_000_000_000
# The part of the buffer that headers may take: a body of unknown length that fills the rest was cut.
_HEADROOM = 8192


def config(endpoints: Sequence[Endpoint], options: Options) -> str:
    """All sections."""
    found = pools(endpoints)
    sections = [
        _section("global", _global(options)),
        _section("defaults", _defaults(options)),
        *([_section("resolvers docker", _resolvers())] if options.docker_dns else []),
        _section("frontend api", _api(endpoints, found, options)),
        _section("frontend metrics", _metrics(options)),
        *([_section("backend clients", _clients(options))] if _limited(options) else []),
        *(_section(f"backend {pool.name}", _pool(pool, options)) for pool in found),
    ]
    return "\n".join([HEAD, *sections])


def _section(title: str, lines: Iterator[str]) -> str:
    return title + "\n" + "".join(f"    {line}\n" for line in lines)


def _limited(options: Options) -> bool:
    return bool(options.rate_limit_requests or options.client_rate_limits)


def _global(options: Options) -> Iterator[str]:
    yield "log stdout format raw daemon info" if options.log == "stdout" else f"log {options.log} daemon info"
    yield f"maxconn {options.max_connections}"
    yield f"stats socket {options.admin_socket} mode 600 level admin"
    yield f"tune.bufsize {options.body_buffer_bytes}"
    # After a reload the old process lets its answers finish, for as long as one may take.
    yield f"hard-stop-after {options.answer_timeout_seconds}s"


def _defaults(options: Options) -> Iterator[str]:
    yield "mode http"
    yield "log global"
    yield "option dontlognull"
    yield "option http-no-delay"
    # A client that has gone frees its engine.
    yield "option abortonclose"
    yield "option redispatch 1"
    yield "retries 4"
    yield "retry-on conn-failure empty-response 503"
    yield "timeout connect 2s"
    yield "timeout client 60s"
    yield "timeout http-request 60s"
    yield "timeout http-keep-alive 60s"
    yield "timeout queue 60s"
    yield f"timeout server {options.answer_timeout_seconds}s"
    yield "timeout tunnel 1h"
    yield "timeout check 2s"
    for answer in answers.own_errors():
        yield f"http-error {answer.words()}"


def _resolvers() -> Iterator[str]:
    """Docker's own name server: a container that was made anew has another address."""
    yield "nameserver engine 127.0.0.11:53"
    yield "resolve_retries 3"
    yield "timeout resolve 1s"
    yield "timeout retry 1s"
    yield "hold valid 1s"
    yield "hold nx 3s"
    yield "hold obsolete 3s"


def _api(endpoints: Sequence[Endpoint], found: Sequence[Pool], options: Options) -> Iterator[str]:
    names = " ".join(endpoint.name for endpoint in endpoints)
    if options.tls_certificate:
        yield f"bind {options.bind} ssl crt {options.tls_certificate} alpn h2,http/1.1 ssl-min-ver TLSv1.2"
    else:
        yield f"bind {options.bind}"
    # The name of the client and of the model, never a key.
    yield (
        "log-format '%ci client=%[var(txn.client)] %HM %HPO model=%[var(txn.model),json(utf8s)] %b/%s "
        "status=%ST first_ms=%Tr all_ms=%Ta bytes=%B state=%ts retries=%rc'"
    )
    yield "monitor-uri /healthz"
    yield "option http-buffer-request"
    if options.tls_certificate and options.hsts_seconds:
        yield f"http-after-response set-header Strict-Transport-Security max-age={options.hsts_seconds}"
    yield f"http-request return {answers.TOO_LARGE.words()} if {{ req.body_size gt {options.max_body_bytes} }}"
    yield from _client(options)
    yield "http-request set-var(txn.endpoint) path,field(2,/) if !{ path_beg /v1/ }"
    yield f"http-request replace-path ^/[^/]+(/v1/.*)$ \\1 if {{ var(txn.endpoint) -m str {names} }}"
    paths = " ".join(sorted({*PATHS, *options.paths}))
    yield f"http-request return {answers.UNKNOWN_PATH.words()} unless {{ path -m str {paths} }}"
    yield (
        f"http-request return status 200 content-type application/json string {quoted(answers.model_list(endpoints))} "
        "if { path /v1/models } !{ var(txn.endpoint) -m found }"
    )
    yield from _route(found, options)
    yield "http-response set-header X-Gateway-Server %s"
    yield "use_backend %[var(txn.pool)]"


def _client(options: Options) -> Iterator[str]:
    """Who asks, and whether it may ask once more."""
    if options.keys_file:
        yield f"http-request set-var(txn.client) http_auth_bearer,sha2(256),hex,lower,map({options.keys_file})"
        yield f"http-request return {answers.WRONG_KEY.words()} unless {{ var(txn.client) -m found }}"
        yield "http-request del-header Authorization"
    else:
        yield "http-request set-var(txn.client) src"
    if not _limited(options):
        return
    yield "http-request track-sc0 var(txn.client) table clients"
    yield f"http-request set-var(txn.allowed) int({options.rate_limit_requests or _NO_LIMIT})"
    for client, rate in sorted(options.client_rate_limits.items()):
        yield f"http-request set-var(txn.allowed) int({rate}) if {{ var(txn.client) -m str {client} }}"
    # What is refused is not counted, so a client that keeps asking gets its share all the same.
    yield (
        f"http-request return {answers.too_many(options.rate_limit_seconds).words()} "
        "if { sc_gpc0_rate(0),sub(txn.allowed) ge 0 }"
    )
    yield "http-request sc-inc-gpc0(0)"


def _route(found: Sequence[Pool], options: Options) -> Iterator[str]:
    """By the engine in the path, else by the model in X-Model, else by the model in the body."""
    for pool in found:
        if len(pool.endpoints) == 1:
            name = pool.endpoints[0].name
            yield f"http-request set-var(txn.pool) str({pool.name}) if {{ var(txn.endpoint) -m str {name} }}"
    yield "http-request set-var(txn.model) req.hdr(X-Model)"
    yield "http-request set-var(txn.model) req.body,json_query('$.model') unless { var(txn.model) -m len gt 0 }"
    routed, named = "{ var(txn.pool) -m found }", "{ var(txn.model) -m len gt 0 }"
    if options.default_model:
        yield f"http-request set-var(txn.model) str({options.default_model}) if !{routed} !{named}"
    for pool in found:
        if pool.models:
            models = " ".join(pool.models)
            yield f"http-request set-var(txn.pool) str({pool.name}) if !{routed} {{ var(txn.model) -m str {models} }}"
    if not options.default_model:
        yield "http-request set-var(txn.read) req.body_len"
        whole = options.body_buffer_bytes - _HEADROOM
        for cut in ("{ req.body_size,sub(txn.read) gt 0 }", f"{{ req.body_len gt {whole} }}"):
            yield f"http-request return {answers.CUT.words()} if !{routed} !{named} {cut}"
        yield f"http-request return {answers.NO_MODEL.words()} if !{routed} !{named}"
    yield f"http-request return {answers.UNKNOWN_MODEL.words('lf-string')} unless {routed}"


def _metrics(options: Options) -> Iterator[str]:
    yield f"bind {options.metrics_bind}"
    yield "no log"
    yield "http-request use-service prometheus-exporter if { path /metrics }"
    yield f"http-request return {answers.UNKNOWN_PATH.words()}"


def _clients(options: Options) -> Iterator[str]:
    seconds = options.rate_limit_seconds
    yield f"stick-table type string len 64 size 10k expire {2 * seconds}s store gpc0,gpc0_rate({seconds}s)"


def _pool(pool: Pool, options: Options) -> Iterator[str]:
    yield "balance leastconn"
    # A session stays where its prefix is cached.
    yield "stick-table type string len 40 size 100k expire 30m"
    yield f"stick on req.hdr({options.session_header}),sha1,hex"
    yield "option httpchk"
    yield f"http-check send meth GET uri {pool.health} ver HTTP/1.1 hdr Host gateway"
    yield "http-check expect status 200"
    yield f"default-server {_server_defaults(pool, options)}"
    for endpoint in pool.endpoints:
        limit = f" maxconn {endpoint.max_requests}" if endpoint.max_requests else ""
        backup = " backup" if endpoint.backup and len(pool.endpoints) > 1 else ""
        yield f"server {endpoint.name} {endpoint.address}{limit}{backup}"


def _server_defaults(pool: Pool, options: Options) -> str:
    inter, fast = options.check_interval_ms, max(20, options.check_interval_ms * 2 // 5)
    words = [f"check inter {inter}ms fastinter {fast}ms downinter {inter}ms fall 2 rise {options.breaker_checks}"]
    words.append("slowstart 2s")
    # An engine that is alone is not taken out for an error: there is no other one to ask.
    if options.breaker_errors and len(pool.endpoints) > 1:
        words.append(f"observe layer7 error-limit {options.breaker_errors} on-error mark-down")
    if options.docker_dns:
        words.append("resolvers docker init-addr libc,none resolve-prefer ipv4")
    return " ".join(words)
