# All of it lives in .venv and in the user's cache directory; only missing Debian packages need root.
SHELL := /bin/bash
PYTHON ?= python3
BIN := .venv/bin
LABKIT := $(BIN)/labkit
DOCKER ?= 26.1
.DEFAULT_GOAL := help
.PHONY: help setup lab run unit test matrix soak lint audit docs dist bench clean

help: ## show this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

setup: .venv/.done ## set everything up: Python environment, Debian packages, engine
	@tools/debian-packages $(BIN)/python

.venv/.done: requirements.lock pyproject.toml
	@tools/python-environment $(PYTHON)
	@touch $@

lab: setup ## stand the swarm up and open JupyterLab on your copies of the labs, in labkit-labs
	@$(LABKIT) lab --docker $(DOCKER)

run: setup ## execute every lab headless; report/index.html shows what was seen
	$(LABKIT) run --report report

unit: .venv/.done ## pass the tests that need no swarm, browser or kernel, in under a minute
	$(BIN)/pytest -n auto tests/unit

test: setup ## lint and pass every test, on a real swarm
	@tools/debian-packages $(BIN)/python chromium gpg gpg-agent \
		configurable-http-proxy=node-configurable-http-proxy
	$(MAKE) --no-print-directory lint
	$(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder

matrix: setup ## pass the labs on each Docker version, and write tests/matrix.json
	$(BIN)/python tests/matrix.py

soak: setup ## kill, crowd and repeat for hours what must not break, and write docs/reliability.md
	$(BIN)/python -m tests.soak

lint: .venv/.done ## check style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

audit: ## ask whether an advisory is known for a dependency in the lock
	@$(PYTHON) tools/audit.py requirements.lock

docs: .venv/.done ## build the documentation's pages, build/docs/index.html
	$(BIN)/sphinx-build -W --keep-going -b html docs build/docs

dist: .venv/.done ## build the source distribution and the wheel, and install the wheel to check it
	rm -rf build/lib dist
	$(BIN)/python -m build --no-isolation
	$(BIN)/pytest -m "not live" --distributions dist tests/dist

bench: setup ## measure what people wait for, beside what they would do without labkit
	$(LABKIT) bench

clean: ## take every lab down and remove what was built here; your copies of the labs stay
	-$(LABKIT) down --all
	rm -rf .venv report build dist
