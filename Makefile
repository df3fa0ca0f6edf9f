# One command each; a virtual environment is made from requirements.txt first where there is none.
PYTHON ?= python3
BIN := .venv/bin
DEMO := output/demo/fold1
REFERENCES := $(DEMO)/references
ON_DEMO := --config config/demo/ytvis.yaml --fold 1

.PHONY: demo test lint parity clean-demo

$(BIN)/ready: requirements.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	touch $@

# Maps of 9 x 15 are too small to share: on busy cores two threads took five times as long as one. The references need
# no training and are measured on the second core meanwhile.
demo: export OMP_NUM_THREADS = 1
demo: $(BIN)/ready
	$(BIN)/python -m tools.make_demo_data --output output/demo_data
	$(MAKE) --no-print-directory --jobs 2 $(DEMO)/done $(REFERENCES)/references.md
	$(BIN)/python -m tools.make_demo_data --layout clip --output output/demo_clip
	$(BIN)/python segment.py --support output/demo_clip/support --video output/demo_clip/video.* \
		--checkpoint $(DEMO)/last.pth --output output/demo_clip/result
	$(BIN)/python test.py $(ON_DEMO) --save-masks $(DEMO)/masks --save-overlays $(DEMO)/overlays
	@cat $(REFERENCES)/references.md; sed -n 's/^| mean |  |\(.*|\)[^|]*|$$/| VIPMT |\1/p' $(DEMO)/test/table.md
	@echo "Overlays to look at: $(DEMO)/overlays; masks: $(DEMO)/masks; all of it: $(DEMO)/report.html"

$(DEMO)/done:
	$(BIN)/python train.py $(ON_DEMO) --resume
	touch $@

$(REFERENCES)/references.md:
	mkdir -p $(@D)
	$(BIN)/python -m tools.workshop.baselines $(ON_DEMO) --output $(@D) > $(@D)/log 2>&1 || { cat $(@D)/log; exit 1; }

test: $(BIN)/ready
	$(BIN)/ruff check .
	$(BIN)/python -m pytest -q -n auto --dist loadfile

lint: $(BIN)/ready
	$(BIN)/ruff check .

parity: $(BIN)/ready
	$(BIN)/python -m tools.workshop.check_parity tests/parity --dtype float32
	$(BIN)/python -m tools.workshop.check_parity tests/parity/dan --dtype float32

clean-demo:
	rm -rf output/demo output/demo_data output/demo_clip
