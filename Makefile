# make demo   set up, then make 8 s of music from a text (MODEL=folder-or-name for another model; pansori-mini is included too)
# make test   set up, then run the tests, the comparison with audiocraft included, and say why each skipped one was
# make test-all   the same with the slow tests, which repeat claims at other sizes or concern only the recipe
# make lint   set up, then ruff and pyright
# make gpu    set up, then check and measure on a CUDA card; writes gpu-report.md, to paste into an issue

PYTHON ?= python3
PROMPT ?= happy pop song, piano with drums, 110 bpm
SEED ?= 0
MODEL ?= general-mini
VENV := .venv
PY := $(VENV)/bin/python
DEMO := demo
# Modules are compiled when they are first imported: compiling all of torch's took a third of the set-up.
INSTALL := $(PY) -m pip install --quiet --no-compile
# Where a machine forbids bytecode, every process of the tests compiles torch and transformers anew: 8 s instead of 4.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test test-all lint gpu clean

demo: $(VENV)/.ready
	@mkdir -p $(DEMO)
	@$(PY) -m musicgen generate --model "$(MODEL)" --prompt "$(PROMPT)" --duration 8 --seed $(SEED) --out $(DEMO)/music.wav > $(DEMO)/.path
	@echo "The music is here:"
	@echo "$(CURDIR)/$$(tail -n 1 $(DEMO)/.path)"

test: $(VENV)/.ready-tests lint
	$(PY) -m pytest -n 2 --dist loadgroup

test-all: $(VENV)/.ready-tests lint
	$(PY) -m pytest -n 2 --dist loadgroup --slow

lint: $(VENV)/.ready-tests
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/pyright

gpu: $(VENV)/.ready-tests
	$(PY) benchmarks/gpu.py --out gpu-report.md

$(VENV)/.ready: requirements.txt requirements-standalone.txt
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet --upgrade pip
	$(INSTALL) -r requirements-standalone.txt
	$(INSTALL) -r requirements.txt
	@touch $@

$(VENV)/.ready-tests: $(VENV)/.ready tests/requirements.txt
	$(INSTALL) -r tests/requirements.txt
	$(INSTALL) --no-deps audiocraft==1.3.0
	@touch $@

clean:
	rm -rf $(VENV) $(DEMO)
