PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.installed
INSTALL = $(BIN)/python -m pip install --quiet --disable-pip-version-check
PICTURE := $(BIN)/python -m livebook.picture
export PYDEVD_DISABLE_FILE_VALIDATION := 1

.PHONY: help book test report lab reference site pdf serve lint portability versions mutation bench paper truths gpu clean
.DELETE_ON_ERROR:

help: ## list the targets
	@grep -hE '^[a-z]+:.*##' Makefile | sed -E 's/:.*## /|/' | while IFS='|' read -r name text; do \
	  printf '  make %-11s %s\n' "$$name" "$$text"; done

$(READY): constraints.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11, 5) and \
	  "python: expected version 3.11.5 or newer, got %d.%d.%d (set PYTHON=...)" % sys.version_info[:3])'
	@echo "Installing into .venv (a few minutes, once)"
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear .venv
	@$(INSTALL) -c constraints.txt -e '.[book,test]'
	@touch $@

book: $(READY) ## execute every chapter into _build, then build the site
	@$(BIN)/python -m livebook.run --to _build/executed
	@$(MAKE) --no-print-directory site NOTEBOOKS=_build/executed

NOTEBOOKS ?= chapters
site: $(READY) ## build the site from the committed notebooks
	@$(BIN)/python -m livebook.site --notebooks $(NOTEBOOKS)

THREADS ?= 1
SIDE_BY_SIDE := -n $(if $(filter 1,$(THREADS)),2,1)
test: $(READY) ## unit tests, every committed notebook, the ledger, the site in a browser
	@$(MAKE) --no-print-directory site
	@OMP_NUM_THREADS=$(THREADS) $(BIN)/python -m pytest tests $(SIDE_BY_SIDE) --dist loadgroup
	@OMP_NUM_THREADS=$(THREADS) $(BIN)/python -m pytest chapters report $(SIDE_BY_SIDE) --dist loadfile -p livebook.nbval_plugin --nbval \
	  --nbval-current-env --nbval-cell-timeout 600

report: $(READY) ## what to trust in your own data (DATA=table.csv LABEL=column OUT=folder)
	@$(BIN)/python -m livebook.report $(foreach option,DATA LABEL KIND TEST IMAGES MODEL RIDGE OUT,\
	  $(if $($(option)),--$(shell echo $(option) | tr A-Z a-z) "$($(option))"))

lab: $(READY) ## JupyterLab with copies of the chapters (installed at the first call; _build/lab)
	@$(BIN)/python -c 'import jupyterlab, jupyterlab_myst' 2>/dev/null || $(INSTALL) -c constraints.txt -e '.[lab]'
	@$(BIN)/python -m livebook.lab

reference: $(READY) ## execute every chapter and refresh the committed notebooks
	@$(BIN)/python -m livebook.run --to chapters
	@$(PICTURE) chapters/02_leave_one_out.ipynb fig-helpful data/helpful.png

pdf: $(READY) ## the built site as one file, _build/book.pdf (Chromium prints it)
	@$(BIN)/python -c 'import pypdf' 2>/dev/null || $(INSTALL) -c constraints.txt -e '.[pdf]'
	@$(BIN)/python -m livebook.pdf

serve: ## show the built site at http://127.0.0.1:8000
	@test -f _build/html/index.html || { echo "serve: expected a built site, found none; run make book"; exit 1; }
	@$(BIN)/python -m http.server --bind 127.0.0.1 --directory _build/html 8000

lint: $(READY) ## style of the code
	@$(BIN)/ruff check . && $(BIN)/ruff format --check .

portability: $(READY) ## compare under other settings (SETTINGS="perturbed-1" CHAPTERS="00_notation")
	@$(BIN)/python -m livebook.portability $(addprefix --setting=,$(SETTINGS)) $(CHAPTERS)

versions: $(READY) ## unit tests under other versions, Python's too (VERSIONS="3.12 newest")
	@$(BIN)/python -m livebook.versions $(VERSIONS)

mutation: $(READY) ## share of random changes of the library that its tests notice, or the notebooks (BY=book WITHIN=30) (SAMPLE=400 SEED=0 MINUTES=60); resumable
	@$(BIN)/python -c 'import cosmic_ray' 2>/dev/null || $(INSTALL) -c constraints.txt -e '.[mutation]'
	@nice $(BIN)/python benchmarks/mutation.py --sample $(or $(SAMPLE),400) --seed $(or $(SEED),0) $(addprefix --minutes ,$(MINUTES)) \
	  $(addprefix --by ,$(BY)) $(addprefix --within ,$(WITHIN))

bench: $(READY) ## what the library costs, into data/recorded/bench*.json
	@for part in bench finite_width dynamics training; do $(BIN)/python benchmarks/$$part.py || exit 1; done

PROFILE ?= profiles/paper.yaml
paper: $(READY) ## full-size runs (profiles/paper.yaml), into data/recorded (WORKERS=2 or CLUSTER=tcp://host:8786)
	@$(BIN)/python -m livebook.run --profile $(PROFILE) --to _build/paper --timeout 86400 \
	  $(if $(WORKERS),--workers $(WORKERS)) $(if $(CLUSTER),--cluster $(CLUSTER))

truths: $(READY) ## the public truth sets anew, into the package, those of 5,000 points into _build/truths; resumable
	@$(BIN)/python benchmarks/truths.py

gpu: $(READY) ## what needs a graphics card, in 9 minutes (MINUTES=9), into _build/gpu; resumable
	@$(BIN)/python benchmarks/gpu.py --minutes $(or $(MINUTES),9)

clean: ## remove what was built and the checkpoints of long runs, not the environment
	@rm -rf _build .hypothesis
