# `make help` lists what there is. Everything sets itself up; a second start finds that done.

HOST     ?= localhost
SUITES   ?=
ARGS     ?=
APPLY    ?=
# Without APPLY=1 nothing is changed: the run shows what would be.
preview  := $(if $(filter 1 yes true,$(APPLY)),,--check --diff)

export LC_ALL := C.UTF-8
export PATH   := $(CURDIR)/.venv/bin:$(PATH)

.PHONY: help site demo test lab stack-full test-gpu bench lint docs lock setup clean

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /  make \1	/p' Makefile scripts/consumer.mk | expand -t 24

site: ## preview HOST=localhost; APPLY=1 makes it so
	@scripts/setup
	@ansible-playbook site.yml -l $(HOST) $(preview) $(ARGS)

test: ## every suite this machine can run; SUITES="unit lint" picks some
	@scripts/setup dev
	@python scripts/run_tests.py $(SUITES)

lint: ## the lint suite alone
	@scripts/setup dev
	@python scripts/run_tests.py lint

lab: ## all proofs on a whole machine in QEMU; writes build/proof.json
	@scripts/setup dev
	@python scripts/run_tests.py lab

stack-full: ## the real vLLM (on CPUs), Open WebUI, llama.cpp and gateway, end to end; builds 7 GB of images
	@scripts/setup dev
	@python scripts/run_tests.py stack-full

demo: ## try it on a throwaway workstation, no GPU needed; ARGS=container for a container
	@scripts/setup dev
	@python scripts/demo.py $(ARGS)

test-gpu: ## read-only checks on a machine with a card
	@scripts/setup dev
	@pytest tests/gpu $(ARGS)

bench: ## measure; prints and writes build/bench.json
	@scripts/setup dev
	@python benchmarks/run.py $(ARGS)

setup: ## the virtual environment with all development tools
	@scripts/setup dev

docs: ## renew the pages that are made from code
	@scripts/setup dev
	@PYTHONPATH=.ansible/collections python scripts/generate_docs.py

lock: ## renew requirements/*.lock from pyproject.toml
	@scripts/setup
	@scripts/lock --upgrade

clean: ## remove what set-up and tests made in the checkout
	rm -rf .venv .venv-newest .ansible .hypothesis build

include scripts/consumer.mk
