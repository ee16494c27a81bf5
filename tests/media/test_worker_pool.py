"""Decoding in a worker process: equal pixels, limits, crashes, threads and forks."""

from __future__ import annotations

import mmap
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from slime_vlm.errors import MediaError
from slime_vlm.media import open_image, worker_pool
from slime_vlm.media.decoding import needs_worker
from slime_vlm.media.request import Request
from slime_vlm.workers.process import WorkerProcess
from slime_vlm.workers.shared_memory import SharedMemory
from tests.media.failing import failure, opened_here
from tests.robustness import hostile_files


@pytest.fixture
def scan(tmp_path) -> Path:
    # More than one band of `colours.boxes`, and rows that do not divide it.
    pixels = np.random.default_rng(0).integers(0, 256, (1301, 1003, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "scan.tif")
    return tmp_path / "scan.tif"


def idle_workers() -> list[int]:
    return [worker.process.pid for worker in worker_pool._pool.idle]


def test_pixels_equal_those_decoded_here(scan):
    assert np.array_equal(np.asarray(open_image(scan)), np.asarray(opened_here(scan)))


@pytest.mark.parametrize(
    "is_linux", [pytest.param(True, marks=pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="Linux")), False]
)
def test_who_changes_an_image_gets_a_copy(scan, monkeypatch, is_linux):
    worker_pool.end_all()
    if not is_linux:
        monkeypatch.delattr(mmap, "MADV_HUGEPAGE", raising=False)
        monkeypatch.setattr(SharedMemory, "create", lambda _num_bytes: None)
    image, expected = open_image(scan), opened_here(scan)
    assert (image.mode, image.size, bool(image.readonly)) == ("RGB", (1003, 1301), True)
    assert image.tobytes() == expected.tobytes()
    assert image.resize((40, 60)).tobytes() == expected.resize((40, 60)).tobytes()
    assert pickle.loads(pickle.dumps(image)).tobytes() == expected.tobytes()
    untouched = image.copy()
    ImageDraw.Draw(image).rectangle((0, 0, 1003, 1301), "red")
    assert image.getpixel((5, 5)) == (255, 0, 0)
    assert untouched.tobytes() == expected.tobytes()
    assert (worker_pool._pool.idle[0].shared is not None) is is_linux
    worker_pool.end_all()


@pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="needs Linux")
def test_a_worker_that_is_taken_over_cannot_cut_shared_memory_off():
    shared = SharedMemory.create(4096)
    assert shared is not None
    other = SharedMemory(os.dup(shared.descriptor))
    with pytest.raises(PermissionError):
        os.ftruncate(other.descriptor, 0)
    other.content[:2] = b"ab"
    assert bytes(shared.content[:3]) == b"ab\0"
    shared.close()
    other.close()


def test_without_permission_for_shared_memory_there_is_a_pipe(scan, monkeypatch):
    def refuse(*_arguments):
        raise PermissionError

    worker_pool.end_all()
    monkeypatch.setattr(os, "memfd_create", refuse, raising=False)
    assert open_image(scan).tobytes() == opened_here(scan).tobytes()
    assert worker_pool._pool.idle[0].shared is None
    worker_pool.end_all()


def test_an_image_larger_than_allowed_is_not_received(scan, monkeypatch):
    monkeypatch.setattr(WorkerProcess, "receive", lambda _worker: {"error": None, "sizes": [[10**6, 10**6]]})
    with pytest.raises(MediaError, match="1000000 x 1000000 pixels"):
        open_image(scan)


def test_rows_longer_than_a_band(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (3, 300_000, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "wide.tif")
    assert np.array_equal(np.asarray(open_image(tmp_path / "wide.tif")), pixels)


def test_only_files_of_known_cost_are_decoded_here(tmp_path):
    for suffix, needed in [("png", False), ("jpg", False), ("webp", False), ("gif", False)] + [
        (suffix, True) for suffix in ("tif", "bmp", "jp2", "avif", "ppm", "ico")
    ]:
        path = tmp_path / f"a.{suffix}"
        Image.new("RGB", (16, 16)).save(path)
        assert needs_worker(Request(path, "a")) is needed, suffix
        assert needs_worker(Request(path, "a", page=1)) is True


def test_one_worker_serves_many_files(scan):
    open_image(scan)
    before = idle_workers()
    open_image(scan)
    assert "not an image" in failure(__file__)
    assert idle_workers() == before


def test_a_relative_name_after_a_change_of_folder(scan, monkeypatch):
    open_image(scan)
    monkeypatch.chdir(scan.parent)
    assert open_image("scan.tif").size == (1003, 1301)


def test_threads_have_workers_of_their_own(scan):
    with ThreadPoolExecutor(6) as threads:
        found = list(threads.map(open_image, [scan] * 12))
    assert len({image.tobytes() for image in found}) == 1
    assert 1 <= len(idle_workers()) <= worker_pool.MAX_WORKERS


def _opened_in_a_child(path: Path, parents: list[int], answers: multiprocessing.Queue) -> None:
    size = open_image(path).size
    answers.put((size, bool(set(idle_workers()) & set(parents))))


@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_child_processes_start_their_own(scan, method):
    open_image(scan)
    context = multiprocessing.get_context(method)
    answers = context.Queue()
    parents = idle_workers()
    # Like workers of a data loader, which may have no children of multiprocessing.
    child = context.Process(target=_opened_in_a_child, args=(scan, parents, answers), daemon=True)
    child.start()
    assert answers.get(timeout=60) == ((1003, 1301), False)
    child.join()
    assert child.exitcode == 0
    assert open_image(scan).size == (1003, 1301)
    assert idle_workers() == parents


def test_workers_end_with_their_process(scan):
    program = (
        "from slime_vlm.media import open_image, worker_pool; import os, signal, sys; open_image(sys.argv[1]); "
        "print(worker_pool._pool.idle[0].process.pid, flush=True); os.kill(os.getpid(), signal.SIGKILL)"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", program, str(scan)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    worker = int(done.stdout)
    until = time.monotonic() + 20
    while os.path.exists(f"/proc/{worker}/stat") and time.monotonic() < until:
        if Path(f"/proc/{worker}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
            break
        time.sleep(0.05)
    else:
        assert not os.path.exists(f"/proc/{worker}/stat")


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (signal.SIGSEGV, "its decoder crashed (SIGSEGV); make a new copy of it"),
        (signal.SIGABRT, "gave up (SIGABRT), most likely because opening it takes more than 1,500 MB of memory"),
    ],
)
def test_a_crash_is_one_error(scan, tmp_path, number, words):
    open_image(scan)
    (victim, *_others) = reversed(idle_workers())
    # Reading from a pipe without a writer waits, so the signal arrives while the file is being decoded.
    os.mkfifo(tmp_path / "pipe")
    crash = threading.Timer(0.3, os.kill, (victim, number))
    crash.start()
    with pytest.raises(MediaError) as raised:
        worker_pool.run("image", Request(tmp_path / "pipe", "pipe"))
    crash.join()
    assert words in str(raised.value)
    assert victim not in idle_workers()
    assert open_image(scan).size == (1003, 1301)


@pytest.mark.parametrize("name", [pytest.param("flate.pdf", marks=pytest.mark.slow), "deflated.dcm"])
def test_memory_limit(tmp_path, name, scan):
    path = tmp_path / name
    hostile_files.HOSTILE_FILES[name](path)
    line = failure(path, max_memory=60_000_000)
    assert "opening it takes more than 60 MB of memory" in line
    assert "--max-memory" in line
    assert open_image(scan).size == (1003, 1301)


@pytest.mark.slow
def test_time_limit(tmp_path, monkeypatch):
    monkeypatch.setattr(worker_pool, "CPU_SECONDS", 1)
    hostile_files.many_scans_jpeg(tmp_path / "scans.jpg", side=8000, scans=1000)
    assert needs_worker(Request(tmp_path / "scans.jpg", "scans.jpg"))
    assert "opening it takes more than 1 seconds of computing" in failure(tmp_path / "scans.jpg")


def test_a_worker_that_waits_for_ever_is_ended(tmp_path, monkeypatch):
    monkeypatch.setattr(worker_pool, "CPU_SECONDS", 1)
    monkeypatch.setattr(worker_pool, "_WAITING", 0.5)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(MediaError, match="more than 1 seconds"):
        worker_pool.run("image", Request(tmp_path / "pipe", "pipe"))


def test_the_worker_imports_no_torch():
    program = "import slime_vlm.media.decoding_worker, sys; print('torch' in sys.modules)"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    assert subprocess.check_output([sys.executable, "-c", program], text=True, env=environment) == "False\n"
