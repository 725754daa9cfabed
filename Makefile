# `make demo` and `make test` need only Python 3.11 or newer: they build their own
# virtual environment from the lock file.

PYTHON ?= python3
VENV ?= .venv
RUN ?= runs/tiny
CLIP = musilingo_jax/assets/musilingo-tiny-corpus/clips/00002.ogg
SONG ?=
# Whose tests `make shapes` runs.
ROOMS ?= tests

.PHONY: demo test test-long test-fast shapes lint docs docs-check wheel lock recipe soundfonts teachers music measure

# The locked packages without the test tools, then this project itself.
$(VENV)/demo.stamp: requirements.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed; set PYTHON=…" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet -r requirements.lock
	$(VENV)/bin/python -m pip install --quiet --no-deps --editable .
	touch $@

$(VENV)/test.stamp: requirements-test.lock $(VENV)/demo.stamp
	$(VENV)/bin/python -m pip install --quiet -r requirements-test.lock
	touch $@

# Python with the settings of malloc in that file.
TUNED_PYTHON = env $(shell grep -v '^\#' launch/malloc.env) $(VENV)/bin/python

# Trains an adapter, evaluates it, and asks about a bundled clip that was not trained on.
# SONG=path asks about a song, too: of recordings that adapter has learnt nothing, so the
# adapter that comes with the embedded model answers.
demo: $(VENV)/demo.stamp
	@test -z "$(SONG)" -o -f "$(SONG)" || { echo "error: SONG=$(SONG): there is no such file" >&2; exit 1; }
	$(TUNED_PYTHON) -m musilingo_jax.train --config=configs/tiny.py --config.run=$(RUN)
	$(TUNED_PYTHON) -m musilingo_jax.evaluate --config=configs/tiny.py --config.run=$(RUN)
	$(TUNED_PYTHON) -m musilingo_jax.chat $(CLIP) --run=$(RUN) \
	  --ask "What style of music is this?" \
	  --ask "Which instrument plays the melody?" \
	  --ask "Describe this music."
	@test -z "$(SONG)" || $(TUNED_PYTHON) -m musilingo_jax.chat "$(SONG)" \
	  --model=musilingo-tiny \
	  --ask "What genre is this song?" \
	  --ask "Are there vocals?" \
	  --ask "Are there drums?" \
	  --ask "How many beats per minute does it have?" \
	  --ask "Is it energetic or calm?" \
	  --ask "Describe this music."

# Two tests at a time; those of one file come after each other, since they share models.
# XLA compiles their programs in a ninth of the time and optimises them little, and so
# does Numba, which librosa needs; `make shapes` compiles those of the rooms that compute
# as users do. Python keeps its bytecode, or each program would compile its modules again.
PYTEST = env -u PYTHONDONTWRITEBYTECODE NUMBA_OPT=0 \
  XLA_FLAGS="--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false $$XLA_FLAGS" \
  $(VENV)/bin/python -m pytest -n 2 --dist loadfile

test: $(VENV)/test.stamp
	$(PYTEST)

# The long tests that each change must pass, too.
test-long: $(VENV)/test.stamp
	$(PYTEST) tests/test_docs.py tests/recipes -m "slow or not slow" \
	  -k "test_marked_commands_run or main_job or is_measured"

# What takes under a minute together.
test-fast: $(VENV)/test.stamp
	$(PYTEST) -m "not slow and not medium"

# Checks the annotations of public functions, shapes included, at each call.
shapes: $(VENV)/test.stamp
	$(PYTEST) -p tests.helpers.shape_checks $(ROOMS)

lint: $(VENV)/lint.stamp
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/basedpyright --pythonpath $(VENV)/bin/python
	$(VENV)/bin/shellcheck --external-sources launch/*.sh launch/slurm.sbatch .ci/run
	$(VENV)/bin/codespell

$(VENV)/lint.stamp: requirements-lint.lock $(VENV)/test.stamp
	$(VENV)/bin/python -m pip install --quiet -r requirements-lint.lock
	touch $@

# Builds the documentation in site/; a warning is an error.
docs: $(VENV)/docs.stamp
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/mkdocs build --strict --quiet
$(VENV)/docs.stamp: requirements-docs.lock $(VENV)/demo.stamp
	$(VENV)/bin/python -m pip install --quiet -r requirements-docs.lock
	touch $@

# Runs or parses every command of the documentation.
docs-check: $(VENV)/test.stamp
	$(VENV)/bin/python -m pytest tests/test_docs.py tests/runtime/test_help.py -m "slow or not slow"

wheel: $(VENV)/test.stamp
	$(VENV)/bin/python -m pip wheel --quiet --no-deps --wheel-dir dist .

# Downloads Debian's packages of the soundfonts that the embedded model is trained on,
# and of the unseen one that it is tested on, and unpacks them in build/. Needs no root.
# csound-soundfont is in the public domain.
soundfonts: build/soundfonts/.four
build/soundfonts/.four:
	mkdir -p build/packages
	cd build/packages && apt-get download fluid-soundfont-gm \
	  musescore-general-soundfont-small csound-soundfont timgm6mb-soundfont
	for package in build/packages/*.deb; do dpkg -x $$package build/packages/root; done
	mkdir -p build/soundfonts
	ln -f build/packages/root/usr/share/sounds/sf*/*.sf? build/soundfonts/
	touch $@

# Downloads the packages whose models teach: musilingo_jax/recipes/{teachers,notes}.py.
teachers: build/teachers/musicnn.whl build/teachers/basic_pitch.whl
build/teachers/musicnn.whl: $(VENV)/demo.stamp
	mkdir -p build/teachers
	$(VENV)/bin/python -m pip download --quiet --no-deps --dest build/teachers musicnn==0.1.0
	mv build/teachers/musicnn-0.1.0-py3-none-any.whl $@
build/teachers/basic_pitch.whl: $(VENV)/demo.stamp
	mkdir -p build/teachers
	$(VENV)/bin/python -m pip download --quiet --no-deps --dest build/teachers basic-pitch==0.4.0
	mv build/teachers/basic_pitch-0.4.0-py2.py3-none-any.whl $@

# Downloads about 3 GB of Debian's packages of games and of speech; keeps the recordings.
music: $(VENV)/demo.stamp
	$(VENV)/bin/python -m musilingo_jax.recipes.recordings --out=build/music

# Makes the embedded model and corpus from nothing: see musilingo_jax/recipes/tiny.py.
# tinysoundfont depends on a library for audio devices, which rendering to files does not
# use: hence --no-deps.
recipe: $(VENV)/demo.stamp build/soundfonts/.four teachers music
	$(VENV)/bin/python -m pip install --quiet --no-deps tinysoundfont==0.3.7
	$(VENV)/bin/python -m pip install --quiet onnxruntime==1.32.0
	$(TUNED_PYTHON) -m musilingo_jax.recipes.tiny \
	  --config=configs/tiny_from_scratch.py --soundfonts=build/soundfonts \
	  --music=build/music --teachers=build/teachers
	$(MAKE) measure MODEL=build/tiny/model MEASURED=build/tiny/measured \
	  LOG=build/tiny/log.json

# Measures what a model says of recordings that it did not learn from: configs/real_songs.py.
MODEL ?= musilingo-tiny
MEASURED ?= runs/real_songs
LOG ?=
measure: $(VENV)/demo.stamp teachers music
	$(VENV)/bin/python -m pip install --quiet onnxruntime==1.32.0
	$(TUNED_PYTHON) -m musilingo_jax.recipes.measure --config=configs/real_songs.py \
	  --config.model.pretrained=$(MODEL) --config.run=$(MEASURED) --music=build/music --teachers=build/teachers \
	  $(if $(LOG),--log=$(LOG))

# Locks the newest versions that pyproject.toml allows and that run with Python 3.11; needs
# `uv`. Then update musilingo_jax/runtime/tested_versions.py. requirements-newest.lock is
# what `pip freeze` prints after the tests with a newer Python. requirements-test.lock is
# kept by hand: torch's builds for CPUs and for GPUs need different packages.
lock:
	printf '# Made by `make lock` from pyproject.toml.\n' > requirements.lock
	uv pip compile --quiet --no-header --no-annotate pyproject.toml >> requirements.lock
