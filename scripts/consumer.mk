# For repositories that have this one as a submodule (docs/consumers.md): the services of this workstation.

export CMD ?=
INVENTORY  ?=
from       := $(if $(INVENTORY),-i $(INVENTORY))

.PHONY: up gpu-up cpu-up down status logs logs-gpu shell-gpu shell update-models install

up: ## start all services, and wait until they are well
	@scripts/stack up

gpu-up: ## start the services that use a GPU
	@scripts/stack up gpu

cpu-up: ## start the services that use none
	@scripts/stack up cpu

down: ## stop all services; `make up` starts them again
	@scripts/stack down

status: ## each service with state, health and address
	@scripts/stack status

logs: ## what the services said; FOLLOW=1 goes on
	@scripts/stack logs

logs-gpu: ## the same of those that use a GPU
	@scripts/stack logs gpu

shell-gpu: ## a shell in the first GPU service; CMD="nvidia-smi" runs a command
	@scripts/stack shell-gpu "$$CMD"

shell: ## a shell that knows the addresses; CMD="..." runs a command
	@scripts/stack shell "$$CMD"

update-models: ## load the declared models of HOST
	@scripts/setup
	@ansible-playbook $(from) playbooks/models.yml -l $(HOST) -e models_action=load $(ARGS)

install: ## deploy what the inventory declares for HOST
	@scripts/setup
	@ansible-playbook $(from) site.yml -l $(HOST) $(ARGS)
