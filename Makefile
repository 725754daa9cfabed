# `make demo` and `make test` need Python 3.11 or newer and nothing else: they build
# their own virtual environment from the lock file.

PYTHON ?= python3
VENV ?= .venv
RUN ?= runs/tiny
SONG ?= musilingo_jax/assets/musilingo-tiny-corpus/clips/00002.ogg

.PHONY: demo test lint lock recipe soundfonts

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

# Keeps glibc from handing large arrays back to the system and fetching them again,
# which costs a CPU up to a fifth of its time.
demo recipe: export MALLOC_MMAP_MAX_ = 0
demo recipe: export MALLOC_TRIM_THRESHOLD_ = 8000000000
demo recipe: export MALLOC_TOP_PAD_ = 67108864
demo recipe: export MALLOC_ARENA_MAX = 1

# Asks about a bundled clip that was not trained on, or about SONG=path.
demo: $(VENV)/demo.stamp
	@test -f "$(SONG)" || { echo "error: $(SONG): there is no such file" >&2; exit 1; }
	$(VENV)/bin/python -m musilingo_jax.train --config=configs/tiny.py --config.run=$(RUN)
	$(VENV)/bin/python -m musilingo_jax.evaluate --config=configs/tiny.py --config.run=$(RUN)
	$(VENV)/bin/python -m musilingo_jax.chat "$(SONG)" --run=$(RUN) \
	  --ask "What style of music is this?" \
	  --ask "Which instrument plays the melody?" \
	  --ask "Describe this music."

test: $(VENV)/test.stamp
	$(VENV)/bin/python -m pytest

lint: $(VENV)/test.stamp
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

# The soundfonts that the embedded model is trained on, and the unseen one it is tested
# on, from Debian's packages (no root needed), unpacked below build/.
soundfonts: build/soundfonts/.stamp
build/soundfonts/.stamp:
	mkdir -p build/packages
	cd build/packages && apt-get download fluid-soundfont-gm \
	  musescore-general-soundfont-small timgm6mb-soundfont
	for package in build/packages/*.deb; do dpkg -x $$package build/packages/root; done
	mkdir -p build/soundfonts
	ln -f build/packages/root/usr/share/sounds/sf*/*.sf? build/soundfonts/
	touch $@

# Makes the embedded model and corpus from nothing: see musilingo_jax/recipes/tiny.py.
# (tinysoundfont asks for an audio device library that rendering to files never uses.)
recipe: $(VENV)/demo.stamp build/soundfonts/.stamp
	$(VENV)/bin/python -m pip install --quiet --no-deps tinysoundfont==0.3.7
	$(VENV)/bin/python -m musilingo_jax.recipes.tiny \
	  --config=configs/tiny_from_scratch.py --soundfonts=build/soundfonts

# Resolves the newest versions that pyproject.toml allows; needs `uv`.
# requirements-test.lock is kept by hand: torch's CPU and GPU builds need other packages.
lock:
	printf '# Made by `make lock` from pyproject.toml.\n' > requirements.lock
	uv pip compile --quiet --no-header --no-annotate pyproject.toml >> requirements.lock
