"""musicnn against the same network in torch, and its spectrogram against librosa."""

import subprocess
import sys

import jax
import librosa
import numpy as np
import pytest
import soundfile
import torch
from helpers import programs, tensorflow_bundle
from torch.nn import functional

from musilingo_jax.models.taggers import musicnn
from musilingo_jax.models.taggers.musicnn import PATCH, TAGS, Musicnn, patches_of
from musilingo_jax.recipes import teachers
from musilingo_jax.runtime.errors import UserError

pytestmark = pytest.mark.medium


def random_arrays():
    """Weights as a checkpoint holds them, an optimiser's among them."""
    rng = np.random.default_rng(0)
    arrays = {}
    for name, shape in musicnn._shapes().items():
        scale = np.prod(shape[:-1]) ** -0.5 if len(shape) > 1 else 0.2
        array = scale * rng.normal(size=shape)
        if name.endswith(("gamma", "moving_variance")):
            array = np.abs(1 + array)
        arrays[name] = array.astype(np.float32)
        arrays[f"{name}/Adam"] = array.astype(np.float32)
    return arrays


def torch_logits(arrays, patches):
    """The network, written again from its description, channels first."""
    weights = {name: torch.from_numpy(array) for name, array in arrays.items()}

    def of(kind, number, part):
        return weights[f"{kind}_{number}/{part}" if number else f"{kind}/{part}"]

    def norm(x, number):
        shape = [1, -1] + [1] * (x.ndim - 2)
        parts = ("moving_mean", "moving_variance", "gamma", "beta")
        mean, variance, gamma, beta = (
            of("batch_normalization", number, part).reshape(shape) for part in parts
        )
        return (x - mean) / torch.sqrt(variance + 1e-3) * gamma + beta

    def convolved(x, number):
        kernel = of("conv2d", number, "kernel").permute(3, 2, 0, 1)
        more = kernel.shape[2] - 1
        x = functional.pad(x, (0, 0, more // 2, more - more // 2))
        y = functional.conv2d(x, kernel, of("conv2d", number, "bias"))
        return norm(functional.relu(y), number + 1)

    x = norm(torch.from_numpy(patches)[:, None], 0)
    front = torch.cat([convolved(x, number).amax(3) for number in range(5)], 1)
    found = [front]
    for number in (5, 6, 7):
        below = found[-1].transpose(1, 2)[:, None]
        y = convolved(below, number)[..., 0]
        found.append(y if number == 5 else y + found[-1])
    everything = torch.cat(found, 1)
    pooled = torch.stack([everything.amax(2), everything.mean(2)], 2).flatten(1)
    hidden = norm(pooled, 9) @ weights["dense/kernel"] + weights["dense/bias"]
    hidden = norm(functional.relu(hidden), 10)
    return (hidden @ weights["dense_1/kernel"] + weights["dense_1/bias"]).numpy()


def test_logits_are_those_of_torch():
    arrays = random_arrays()
    patches = np.random.default_rng(1).uniform(0, 3, (3, PATCH, 96)).astype(np.float32)
    found = jax.jit(lambda net, x: net(x))(Musicnn.of(arrays, "here"), patches)
    expected = torch_logits(arrays, patches)
    assert found.shape == (3, 50) and np.abs(expected).max() > 0.5
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_there_are_fifty_tags_of_each_set():
    for tags in TAGS.values():
        assert len(tags) == len(set(tags)) == 50
    assert TAGS["MTT_musicnn"].index("no vocals") == 21
    assert TAGS["MSD_musicnn"].index("alternative rock") == 8


@pytest.mark.slow
def test_patches_are_librosas_bands():
    rng = np.random.default_rng(0)
    waveform = rng.normal(scale=0.2, size=7 * 16_000).astype(np.float32)
    patches = patches_of(waveform)
    assert patches.shape == (2, PATCH, 96)  # 438 frames: two patches, the rest is left.
    power = librosa.feature.melspectrogram(
        y=waveform, sr=16_000, n_fft=512, hop_length=256, n_mels=96
    )
    expected = np.log10(1 + 1e4 * power.T[: 2 * PATCH]).reshape(patches.shape)
    np.testing.assert_allclose(patches, expected, atol=1e-3)


def test_loud_and_silent_sound_give_numbers():
    """With NumPy 2, the package's own float16 arithmetic overflows on any song."""
    tone = np.sin(np.arange(4 * 16_000) * 0.3).astype(np.float32)
    for gain in (0.0, 1.0, 1e3):
        assert np.isfinite(patches_of(gain * tone)).all()
    assert not patches_of(0 * tone).any()


@pytest.mark.parametrize("change", ["missing", "shape", "nan"])
def test_other_weights_are_refused(change):
    arrays = random_arrays()
    if change == "missing":
        del arrays["dense/bias"]
    elif change == "shape":
        arrays["dense/bias"] = arrays["dense/bias"][:7]
    else:
        arrays["dense/bias"] = np.full(200, np.nan, np.float32)
    with pytest.raises(UserError, match="here: .*dense/bias"):
        Musicnn.of(arrays, "here")


@pytest.mark.slow
def test_songs_are_heard_to_their_end(tmp_path):
    net = Musicnn.of(random_arrays(), "here")
    rng = np.random.default_rng(2)
    song = tmp_path / "song.wav"
    soundfile.write(song, rng.normal(scale=0.1, size=40 * 16_000), 16_000)
    heard = teachers.hear({"MTT_musicnn": net}, song)["MTT_musicnn"]
    waveform, _ = soundfile.read(song, dtype="float32")
    logits = np.asarray(net(patches_of(waveform)))
    assert len(logits) == 13
    np.testing.assert_allclose(heard, (1 / (1 + np.exp(-logits))).mean(0), atol=1e-5)
    soundfile.write(song, np.zeros(16_000), 16_000)
    with pytest.raises(UserError, match="lasts 1.0 s, and these taggers need three"):
        teachers.hear({"MTT_musicnn": net}, song)


def test_another_file_is_no_teacher(tmp_path):
    wheel = tmp_path / "musicnn.whl"
    done = programs.run("recipes.teachers", "song.mp3", f"--wheel={wheel}")
    assert done.returncode == 1 and "make teachers" in done.stderr
    tensorflow_bundle.write(tmp_path, random_arrays())
    wheel.write_bytes(b"PK")
    with pytest.raises(UserError, match="is not the wheel of musicnn 0.1.0"):
        teachers.load(wheel)


@pytest.mark.slow
def test_the_published_weights_hear(tmp_path):
    """Downloads the package; a tone that bows itself is no rock band."""
    fetched = subprocess.run(
        [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        + [f"--dest={tmp_path}", "musicnn==0.1.0"],
        capture_output=True,
        text=True,
        check=False,
    )
    if fetched.returncode:
        pytest.skip(f"pip cannot download musicnn: {fetched.stderr.strip()[-200:]}")
    nets = teachers.load(next(tmp_path.glob("*.whl")))
    clip = programs.ROOT / "musilingo_jax/assets/musilingo-tiny-corpus/clips/00002.ogg"
    heard = teachers.hear(nets, clip)
    best = {name: TAGS[name][each.argmax()] for name, each in heard.items()}
    assert best == {"MTT_musicnn": "violin", "MSD_musicnn": "jazz"}
    patches = np.random.default_rng(1).uniform(0, 3, (2, PATCH, 96)).astype(np.float32)
    for net in nets.values():
        expected = torch_logits(net.weights, patches)
        assert np.abs(net(patches) - expected).max() < 1e-5 * np.abs(expected).max()
