# make demo: the main job on real photos, without a download. make test: the whole test suite.

PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test test-slow test-faults test-torch lint docs lock benchmark audit clean

demo: .venv/ready
	$(BIN)/kerastk demo

# The order is that of tests/conftest.py, not that of how many tests a file has.
test: .venv/ready
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

test-slow: .venv/ready
	$(BIN)/python -m pytest -n 2 --dist loadfile -m slow --ignore tests/faults

# Runs killed, starved and lied to, each a real process.
test-faults: .venv/ready
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "slow or not slow" tests/faults

lint: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# Needs a PyTorch of your own in .venv; its Linux wheel brings CUDA, so it is not in the lock.
test-torch: .venv/ready
	KERAS_BACKEND=torch $(BIN)/python -m pytest tests/training/test_backends.py tests/networks/test_crf.py tests/networks/test_tagger.py \
	    tests/networks/test_autoencoder.py tests/networks/test_rbm.py tests/training/test_reconstruction.py

docs: .venv/ready
	$(BIN)/python docs/make_cli_reference.py
	$(BIN)/python docs/make_schedule_pictures.py

benchmark: .venv/ready
	$(BIN)/python benchmarks/finetune.py

# uv where there is one, else venv and pip; both install what requirements.txt names, by hash.
.venv/ready: requirements.txt pyproject.toml
	@if command -v uv >/dev/null; then \
	    [ -d .venv ] || uv venv --python $(PYTHON) .venv; \
	    uv pip install --python $(BIN)/python --require-hashes -r requirements.txt && \
	    uv pip install --python $(BIN)/python --no-deps --no-build-isolation -e .; \
	else \
	    [ -d .venv ] || $(PYTHON) -m venv .venv; \
	    $(BIN)/python -m pip install --disable-pip-version-check --quiet --require-hashes -r requirements.txt && \
	    $(BIN)/python -m pip install --disable-pip-version-check --quiet --no-deps --no-build-isolation -e .; \
	fi
	@touch $@

lock:
	uv pip compile pyproject.toml --group dev --universal --python-version 3.11 --generate-hashes \
	    --no-emit-index-url --no-emit-find-links --no-annotate --no-header -o requirements.txt

# Known vulnerabilities of what requirements.txt pins; needs uv, and fails where PyPI's advisories are out of reach.
audit:
	uvx --from 'pip-audit>=2.9,<3' pip-audit --strict --requirement requirements.txt --require-hashes --disable-pip

clean:
	rm -rf .venv build dist kerastk-demo .pytest_cache .ruff_cache
