"""The page in a browser: Debian's Chromium, headless, without a network.

Slow: it starts a program and a browser. Left out without the packages gradio and
playwright and the browser itself. With the variable PICTURES, which names a folder, it
writes the pictures of the documentation.
"""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import soundfile
from helpers import tiny_model as tiny
from helpers.programs import ROOT

pytest.importorskip("gradio", reason="needs the extra `web`")
playwright = pytest.importorskip(
    "playwright.sync_api", reason="needs the package playwright"
)
CHROMIUM = shutil.which("chromium")
if CHROMIUM is None:
    pytest.skip("needs Debian's chromium", allow_module_level=True)

pytestmark = pytest.mark.slow

CLIPS = sorted((ROOT / "musilingo_jax/assets/musilingo-tiny-corpus/clips").glob("*"))
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
FLAGS += ["--disable-component-update", "--disable-sync"]
PATIENCE = 240  # Seconds, on a machine that does other things.
HINT = "Ask in your own words"


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def page_at_work(*flags, folder):
    """The program; yields its address, and ends it as Ctrl-C does."""
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "musilingo_jax.web", f"--port={port}", *flags],
        env=os.environ | {"TMPDIR": str(folder)},
        stderr=subprocess.PIPE,
    )
    address = f"http://127.0.0.1:{port}/"
    try:
        end = time.monotonic() + PATIENCE
        while True:
            try:
                urllib.request.urlopen(address, timeout=5).close()
                break
            except OSError:
                assert process.poll() is None, process.stderr.read()
                assert time.monotonic() < end
                time.sleep(0.5)
        yield address
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
    finally:
        process.kill()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("uploads")


@pytest.fixture(scope="module")
def address(folder):
    with page_at_work(folder=folder) as address:
        yield address
    assert not list(folder.glob("musilingo-web-*"))


@pytest.fixture(scope="module")
def driver():
    """Playwright, of which a thread can have one only."""
    with playwright.sync_playwright() as driver:
        yield driver


@pytest.fixture(scope="module")
def browser(driver):
    browser = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
    yield browser
    browser.close()


@contextmanager
def tab(browser, address, *, width=1280, height=900, scheme="light", hosts=None):
    context = browser.new_context(
        viewport={"width": width, "height": height}, color_scheme=scheme
    )
    page = context.new_page()
    page.set_default_timeout(PATIENCE * 1000)
    if hosts is not None:
        page.on("request", lambda request: hosts.add(request.url.split("/")[2]))
    page.goto(address)
    page.wait_for_selector("#question textarea")
    yield page
    context.close()


def add(page, path, count):
    page.set_input_files("#song input[type=file]", str(path))
    page.wait_for_function(f"document.querySelectorAll('.song').length == {count}")


# Notes each length that the last answer has, however short it lasts.
WATCH = """() => {
  window.lengths = [];
  new MutationObserver(() => {
    const answer = [...document.querySelectorAll("#chat .bot")].pop();
    const length = answer ? answer.innerText.trim().length : 0;
    if (window.lengths.at(-1) !== length) window.lengths.push(length);
  }).observe(document.querySelector("#chat"),
             {subtree: true, childList: true, characterData: true});
}"""


def ask(page, question):
    """Types a question; returns the lengths that its answer had, and the answer."""
    before = page.locator("#chat .bot").count()
    page.evaluate(WATCH)
    page.fill("#question textarea", question)
    page.keyboard.press("Enter")
    page.wait_for_function(f"document.querySelectorAll('#chat .bot').length > {before}")
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        text = page.locator("#chat .bot").last.inner_text().strip()
        if text and not text.endswith("…"):
            return page.evaluate("window.lengths"), text
        time.sleep(0.1)
    raise AssertionError(page.inner_text("body"))


def picture(page, name, *, whole=False):
    if folder := os.environ.get("PICTURES"):
        page.mouse.move(0, 0)
        page.evaluate("document.activeElement.blur()")
        time.sleep(0.5)
        page.screenshot(path=Path(folder) / f"{name}.png", full_page=whole)


def long_song(folder):
    """Two minutes of which the model hears parts."""
    waves = [soundfile.read(path)[0] for path in CLIPS[:12]]
    rate = soundfile.info(CLIPS[0]).samplerate
    path = folder / "long mix.flac"
    soundfile.write(path, np.concatenate(waves), rate)
    return path


def test_songs_are_heard_and_asked_about(browser, address, tmp_path):
    hosts = set()
    with tab(browser, address, hosts=hosts) as page:
        add(page, CLIPS[2], 1)
        lengths, answer = ask(page, "Describe this music.")
        assert len(lengths) > 2, f"it did not stream: {lengths}"
        assert len(answer.split()) > 5
        _, more = ask(page, "What is the tempo?")
        assert more
        add(page, long_song(tmp_path), 2)
        assert re.search(r"Heard: \d\d:\d\d–", page.inner_text("#songs"))
        assert page.locator(".wave-rest").count() > 20
        _, both = ask(page, "Which song is faster?")
        assert re.search(r"00\d+\.ogg: .*\n+.*long_?.mix\.flac: ", both), both
        assert "cannot compare" in page.inner_text("#status")
        picture(page, "web-desktop")
        page.get_by_role("button", name="Export").click()
        page.wait_for_function("document.body.innerText.includes('is ready')")
        page.get_by_role("button", name="Try again").click()
        page.wait_for_function(
            f"document.querySelector('#status').innerText.includes('{HINT}')"
            " || document.querySelector('#status').innerText.includes('Note')"
        )
        page.get_by_role("button", name="Clear", exact=True).last.click()
        page.wait_for_selector("#songs .empty")
        assert page.locator("#chat .bot").count() == 0
    assert hosts == {address.split("/")[2]}


def real_song(folder):
    """A song that is played, of a package of Debian; skips without the package."""
    if shutil.which("apt-get") is None or shutil.which("dpkg") is None:
        pytest.skip("needs a package of Debian")
    command = ["apt-get", "download", "ardentryst"]
    done = subprocess.run(command, cwd=folder, capture_output=True, check=False)
    packages = list(folder.glob("ardentryst*.deb"))
    if done.returncode or not packages:
        pytest.skip("Debian's package ardentryst cannot be downloaded")
    subprocess.run(["dpkg", "-x", packages[0], folder / "root"], check=True)
    songs = (folder / "root/usr/share/games/ardentryst/Music").glob("*.ogg")
    return max(songs, key=lambda path: path.stat().st_size)


def test_a_real_song_is_heard_in_parts(browser, address, tmp_path):
    path = real_song(tmp_path)
    with tab(browser, address) as page:
        add(page, path, 1)
        assert page.locator(".wave-rest").count() > 20
        _, answer = ask(page, "What is the tempo?")
        assert answer


@pytest.fixture(scope="module")
def endless(tmp_path_factory):
    """A small model whose answers are too long to wait for."""
    folder = tmp_path_factory.mktemp("endless")
    tiny.save_model(folder, tiny.llama())
    for name, section, values in (
        ("config.json", "generate", {"max_new_tokens": 8000, "min_new_tokens": 7999}),
        ("language_model/config.json", None, {"max_position_embeddings": 16_384}),
    ):
        content = json.loads((folder / name).read_text())
        (content[section] if section else content).update(values)
        (folder / name).write_text(json.dumps(content))
    return folder


def test_stop_ends_an_answer_and_keeps_what_is_there(browser, endless, folder):
    with (
        page_at_work(f"--model={endless}", folder=folder) as address,
        tab(browser, address) as page,
    ):
        assert endless.name in page.inner_text("#head")
        assert str(endless) not in page.inner_text("#head")
        add(page, CLIPS[2], 1)
        page.fill("#question textarea", "What is it?")
        page.keyboard.press("Enter")
        long = "document.querySelector('#chat .bot')?.innerText.length > 40"
        page.wait_for_function(long)
        page.get_by_role("button", name="Stop", exact=True).click()
        page.wait_for_function(
            "document.querySelector('#chat .bot').innerText.includes('(stopped)')"
        )
        page.wait_for_selector("button:has-text('Ask'):visible")
        page.wait_for_function(
            f"document.querySelector('#status').innerText.includes('{HINT}')"
        )


def test_what_the_microphone_hears_is_asked_about(driver, address, tmp_path):
    """The browser has a microphone that hears a file."""
    heard = tmp_path / "heard.wav"
    wave, rate = soundfile.read(CLIPS[3])
    soundfile.write(heard, wave, rate, subtype="PCM_16")
    flags = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
    flags += [f"--use-file-for-fake-audio-capture={heard}"]
    browser = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS + flags)
    with tab(browser, address) as page:
        page.locator("#song button[aria-label='Record audio']").click()
        page.get_by_role("button", name="Record", exact=True).click()
        time.sleep(4)
        page.locator("#song button:has-text('Stop'):visible").first.click()
        page.wait_for_selector(".song")
        assert "recording 1" in page.inner_text("#songs")
        assert "all of it" in page.inner_text("#songs")
        _, answer = ask(page, "What is the tempo?")
        assert answer
    browser.close()


def test_a_text_that_was_renamed_is_refused(browser, address, folder, tmp_path):
    fake = tmp_path / "song.mp3"
    fake.write_text("These are words, and no sound.\n" * 20)
    with tab(browser, address) as page:
        page.set_input_files("#song input[type=file]", str(fake))
        page.wait_for_selector("#heard [role=alert]")
        said = page.inner_text("#heard")
        assert said == "song.mp3: cannot be decoded: it is text."
        assert page.locator(".song").count() == 0
        picture(page, "web-refused")
        ask_button = page.get_by_role("button", name="Ask", exact=True)
        page.fill("#question textarea", "What is it?")
        ask_button.click()
        page.wait_for_function("document.body.innerText.includes('add a song first')")
    assert not list(folder.rglob("song.mp3"))


def test_a_phone_in_the_dark(browser, address):
    with tab(browser, address, width=390, height=844, scheme="dark") as page:
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        add(page, CLIPS[3], 1)
        ask(page, "Which instrument plays the melody?")
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        background = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert max(map(int, re.findall(r"\d+", background)[:3])) < 80
        picture(page, "web-phone", whole=True)


def test_keys_are_enough(browser, address):
    """Every control is reached by Tab, and the suggestions by Enter."""
    with tab(browser, address) as page:
        add(page, CLIPS[4], 1)
        page.locator("body").click(position={"x": 5, "y": 5})
        reached = []
        for _ in range(40):
            page.keyboard.press("Tab")
            reached.append(
                page.evaluate(
                    "document.activeElement.innerText ||"
                    " document.activeElement.getAttribute('aria-label') ||"
                    " document.activeElement.placeholder || ''"
                )
            )
            if reached[-1].startswith("What is the tempo"):
                break
        page.keyboard.press("Enter")
        page.wait_for_selector("#chat .bot")
        for _ in range(12):
            page.keyboard.press("Tab")
            reached.append(
                page.evaluate(
                    "document.activeElement.innerText ||"
                    " document.activeElement.placeholder || ''"
                )
            )
        text = "\n".join(reached)
        for name in ("Drop Audio", "Describe this", "What would you", "Ask", "Try"):
            assert name in text or name.lower() in text.lower(), reached


def test_a_page_with_a_password_asks_for_it(browser, folder, tmp_path):
    (tmp_path / "password").write_text("correct horse")
    flag = f"--password-file={tmp_path / 'password'}"
    with page_at_work(flag, folder=folder) as address:
        page = browser.new_context().new_page()
        page.set_default_timeout(PATIENCE * 1000)
        page.goto(address)
        page.wait_for_selector("input[type=password]")
        assert page.locator("#question").count() == 0
        page.locator("input").first.fill("me")
        page.fill("input[type=password]", "correct horse")
        page.get_by_role("button", name="Login").click()
        page.wait_for_selector("#question textarea")
