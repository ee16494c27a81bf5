"""The command line imports nothing heavy before it runs, and every failure that a user can cause is one line."""

from __future__ import annotations

import errno
import gc
import importlib.util
import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from slime_vlm.cli import main
from slime_vlm.cli.terminal import collector_paused
from slime_vlm.errors import InputError
from tests.media.failing import absent_in_worker
from tests.media.test_video import write_clip
from tests.tiny_reader import save_tiny_reader


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "slime_vlm", *arguments],
        capture_output=True,
        text=True,
        check=False,
    )


def test_help_lists_the_commands():
    done = run("--help")
    assert done.returncode == 0
    for command in ("ask", "train", "pages", "convert", "new"):
        assert command in done.stdout


def test_help_imports_nothing_heavy():
    program = (
        "import sys; from slime_vlm.cli import main; sys.argv.append('--help')\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "heavy = {'torch', 'transformers', 'numpy', 'PIL', 'yaml'} & set(sys.modules)\n"
        "sys.exit(f'imported: {sorted(heavy)}' if heavy else 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_collector_rests_during_imports_alone():
    assert gc.isenabled()
    frozen = gc.get_freeze_count()
    with collector_paused():
        assert not gc.isenabled()
        kept = [[] for _ in range(1000)]
    assert gc.isenabled()
    assert gc.get_freeze_count() >= frozen + len(kept)
    gc.unfreeze()
    gc.disable()
    try:
        with collector_paused():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()
        gc.unfreeze()


def test_version():
    done = run("--version")
    assert done.returncode == 0
    assert done.stdout.startswith("slime-vlm ")


# `slime ask` on a tiny random model, in this process ---------------------------------------------------------------


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    return save_tiny_reader(tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture
def page(tmp_path) -> Path:
    path = tmp_path / "page.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (150, 90, 3), dtype=np.uint8)).save(path)
    return path


@pytest.fixture
def slime(monkeypatch, capsys):
    """Run the command line in this process: exit code, standard output, standard error."""
    monkeypatch.delenv("SLIME_DEBUG", raising=False)

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["slime", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            main()
        captured = capsys.readouterr()
        return int(end.value.code or 0), captured.out, captured.err

    return call


def failure_line(result: tuple[int, str, str], code: int = 2) -> str:
    """Check that a call failed with one line and nothing else, and return that line."""
    found, out, err = result
    assert (found, out) == (code, "")
    assert err.startswith("slime: ")
    assert err.count("\n") == 1
    return err


def test_ask_streams_one_answer(slime, checkpoint, page):
    code, out, err = slime("ask", page, "-q", "What is the total?", "--model", checkpoint, "--max-new-tokens", 8)
    assert (code, err) == (0, "")
    assert out.count("\n") >= 1
    expected = slime("ask", page, "-q", "What is the total?", "-m", checkpoint, "--max-new-tokens", 8, "--json")[1]
    assert out.strip() == json.loads(expected)["answer"]


def piped(monkeypatch, content: bytes, terminal: bool = False) -> None:
    """Let standard input hold some bytes."""
    stream = io.TextIOWrapper(io.BytesIO(content))
    monkeypatch.setattr(stream, "isatty", lambda: terminal)
    monkeypatch.setattr(sys, "stdin", stream)


def test_ask_reads_an_image_from_standard_input(slime, monkeypatch, checkpoint, page, tmp_path):
    arguments = ("-q", "a?", "-m", checkpoint, "--max-new-tokens", 4)
    expected = slime("ask", page, *arguments)
    piped(monkeypatch, page.read_bytes())
    assert slime("ask", "-", *arguments, "--show", tmp_path / "a.png") == expected
    assert (tmp_path / "a.png").is_file()
    piped(monkeypatch, page.read_bytes())
    code, out, _ = slime("ask", page, "-", *arguments, "--json")
    assert (code, [json.loads(line)["image"] for line in out.splitlines()]) == (0, [str(page), "-"])


def test_what_standard_input_cannot_be(slime, monkeypatch, page):
    for content, terminal, names, expected in (
        (b"no image", False, ["-"], "slime: standard input: not an image"),
        (b"", False, ["-"], "standard input is empty, expected an image"),
        (b"", True, ["-"], "which is a terminal; pipe one: slime ask - < photo.png"),
        (page.read_bytes(), False, ["-", "-"], "holds one image; name it once"),
    ):
        piped(monkeypatch, content, terminal)
        assert expected in failure_line(slime("ask", *names, "-q", "a?"))


def test_ask_json_has_a_line_for_each_image_and_question(slime, checkpoint, page, tmp_path):
    other = tmp_path / "ünï.png"
    Image.new("L", (70, 40)).save(other)
    code, out, _ = slime(
        "ask",
        page,
        other,
        "-q",
        "a?",
        "-q",
        "b?",
        "-m",
        checkpoint,
        "--json",
        "--max-new-tokens",
        3,
        "--max-local-tokens",
        5,
    )
    assert code == 0
    records = [json.loads(line) for line in out.splitlines()]
    assert [(r["image"], r["question"]) for r in records] == [(str(i), q) for i in (page, other) for q in ("a?", "b?")]
    for record in records:
        assert list(record) == ["image", "question", "answer", "confidence", "grid", "tokens", "seconds"]
        rows, columns = record["grid"]
        assert record["tokens"] == {"global": 16, "local": 4 * rows * columns, "kept": 5}
        assert list(record["seconds"]) == ["load", "open", "preprocess", "encode", "select", "prefill", "decode"]
    assert [r["seconds"]["encode"] > 0 for r in records] == [True, False, True, False]
    assert [r["seconds"]["load"] > 0 for r in records] == [True, False, False, False]


def test_ask_shows_where_it_looked(slime, checkpoint, page, tmp_path):
    target = tmp_path / "new" / "overlay.png"
    assert slime("ask", page, "-q", "a?", "-m", checkpoint, "--show", target, "--max-new-tokens", 2)[0] == 0
    assert Image.open(target).width >= 300
    code, out, _ = slime("ask", page, "-q", "a?", "-q", "b?", "-m", checkpoint, "--show", target, "--max-new-tokens", 2)
    assert code == 0
    assert "a?" in out
    assert sorted(path.name for path in target.parent.iterdir()) == ["overlay-1.png", "overlay-2.png", "overlay.png"]


@pytest.mark.parametrize("size", [(1, 1), (30_000, 200)])
def test_ask_takes_images_of_extreme_sizes(slime, checkpoint, tmp_path, size):
    path = tmp_path / "extreme.png"
    Image.new("RGB", size, "white").save(path)
    show = tmp_path / "overlay.png"
    assert slime("ask", path, "-q", "a?", "-m", checkpoint, "--max-new-tokens", 2, "--show", show)[0] == 0


@pytest.mark.parametrize(
    ("name", "mode"), [("deep.tif", "I;16"), ("clear.png", "RGBA"), ("print.tif", "CMYK"), ("palette.gif", "P")]
)
def test_ask_takes_images_of_other_kinds(slime, checkpoint, tmp_path, name, mode):
    Image.new(mode, (60, 90)).save(tmp_path / name)
    assert slime("ask", tmp_path / name, "-q", "a?", "-m", checkpoint, "--max-new-tokens", 2)[0] == 0


def test_bad_images_are_one_line(slime, page, tmp_path):
    cut, text = tmp_path / "cut.jpg", tmp_path / "text.png"
    Image.open(page).save(cut)
    cut.write_bytes(cut.read_bytes()[:2000])
    text.write_text("words\n")
    assert "damaged or incomplete" in failure_line(slime("ask", cut, "-q", "a?"))
    assert "not an image" in failure_line(slime("ask", text, "-q", "a?"))
    assert "no such file" in failure_line(slime("ask", page, tmp_path / "none.png", "-q", "a?"))
    assert "folder" in failure_line(slime("ask", tmp_path, "-q", "a?"))
    # Later images and questions, too, are looked at before a model is.
    assert "damaged or incomplete" in failure_line(slime("ask", page, cut, "-q", "a?", "-m", "./nowhere"))
    assert "stands for an image" in failure_line(slime("ask", page, "-q", "a?", "-q", "<image>", "-m", "./nowhere"))
    assert "--max-pixels 13500" in failure_line(slime("ask", page, "-q", "a?", "--max-pixels", 100))


def test_ask_takes_pages_and_windows(slime, checkpoint, tmp_path):
    first, second = Image.new("L", (40, 60)), Image.new("L", (90, 60), 255)
    first.save(tmp_path / "scan.gif", save_all=True, append_images=[second.resize((40, 60))])
    Image.fromarray(np.full((40, 60), 1000, np.uint16)).save(tmp_path / "deep.png")
    spec, deep = f"{tmp_path / 'scan.gif'}#2", tmp_path / "deep.png"
    asked = ("ask", spec, deep, "-q", "a?", "-m", checkpoint, "--max-new-tokens", 2)
    code, out, err = slime(*asked, "--json", "--window", "-600/1500")
    assert (code, err) == (0, "")
    assert [json.loads(line)["image"] for line in out.splitlines()] == [spec, str(deep)]
    code, out, _ = slime(*asked)
    assert code == 0
    assert "scan.gif#2: a?" in out


def test_bad_pages_windows_and_addresses_are_one_line(slime, page):
    assert "there is no #2, it has one page" in failure_line(slime("ask", f"{page}#2", "-q", "a?"))
    assert "--window 40: expected CENTER/WIDTH" in failure_line(slime("ask", page, "-q", "a?", "--window", "40"))
    address = "https://images.test/a.png"
    # Found before the first image is opened.
    assert "without --allow-url" in failure_line(slime("ask", page, address, "-q", "a?"))
    inside = slime("ask", "http://127.0.0.1/a.png", "-q", "a?", "--allow-url", "--max-download", 1)
    assert "127.0.0.1 is not public" in failure_line(inside)


@pytest.mark.parametrize(
    ("module", "head", "extra"),
    [
        ("pypdfium2", b"%PDF-1.4", "pdf"),
        ("pydicom", bytes(128) + b"DICM", "dicom"),
        ("pillow_heif", b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "heic"),
        ("tifffile", b"II*\0", "tiff"),
    ],
)
def test_ask_names_the_extra_to_install(slime, tmp_path, module, head, extra):
    path = tmp_path / "image"
    path.write_bytes(head + bytes(200))
    with absent_in_worker(module):
        assert f'install it with pip install "slime-vlm[{extra}]"' in failure_line(slime("ask", path, "-q", "a?"))


@pytest.mark.parametrize("question", ["", "  "])
def test_an_empty_question_is_one_line(slime, page, question):
    assert "question is empty" in failure_line(slime("ask", page, "-q", question))


def test_bad_settings_are_one_line(slime, checkpoint, page, tmp_path):
    asked = ("ask", page, "-q", "a?", "-m")
    assert "no such folder" in failure_line(slime(*asked, "./nowhere"))
    assert "nonsense" in failure_line(slime(*asked, checkpoint, "--device", "nonsense"))
    assert "float7" in failure_line(slime(*asked, checkpoint, "--dtype", "float7"))
    assert "fast chooses the numbers itself" in failure_line(slime(*asked, checkpoint, "--fast", "--dtype", "bf16"))
    assert "float8_e4m3fn" in failure_line(slime(*asked, checkpoint, "--dtype", "float8_e4m3fn"))
    assert "has no values" in failure_line(slime(*asked, checkpoint, "--device", "meta"))
    unselective = save_tiny_reader(tmp_path / "unselective", selector="none")
    line = failure_line(slime(*asked, unselective, "--max-local-tokens", 5))
    assert "max_local_tokens is 5, but this model has no selector" in line
    assert ".xyz is not an image format" in failure_line(slime(*asked, checkpoint, "--show", tmp_path / "a.xyz"))
    assert "folder" in failure_line(slime(*asked, checkpoint, "--show", tmp_path))
    (tmp_path / "file").write_text("")
    assert "nothing can be written" in failure_line(slime(*asked, checkpoint, "--show", tmp_path / "file" / "a.png"))
    assert "<image>" in failure_line(slime("ask", page, "-q", "what is <image>?", "-m", checkpoint))


def test_wrong_usage_ends_with_two(slime, page):
    assert failure_line(slime("ask", page)) == "slime: Missing option '--question' / '-q'; see slime ask --help\n"
    assert "'--max-new-tokens'" in failure_line(slime("ask", page, "-q", "a?", "--max-new-tokens", 0))
    assert "No such option" in failure_line(slime("ask", page, "--nonsense"))
    assert "'aks'" in failure_line(slime("aks"))


def test_no_arguments_print_the_help(slime):
    for command in ((), ("ask",), ("eval",)):
        code, out, err = slime(*command)
        assert code == 2
        assert "Usage:" in out + err
        assert "slime: " not in err


@pytest.mark.parametrize(
    ("command", "defaults"),
    [
        (("ask",), ["cuda if there is one", "float32 on CPU, bfloat16 on GPU", "200 million pixels"]),
        (("chat",), ["cuda if there is one", "float32 on CPU, bfloat16 on GPU", "200 million pixels"]),
        (("train",), ["runs/NAME OF THE RECIPE"]),
        (("new",), ["what the language model was trained with", "that of the language model"]),
        (("eval", "pages"), ["1, 2 and 6", "all"]),
    ],
)
def test_help_shows_every_default(slime, monkeypatch, command, defaults):
    monkeypatch.setenv("COLUMNS", "300")
    monkeypatch.setenv("TERMINAL_WIDTH", "300")
    code, out, _ = slime(*command, "--help")
    assert code == 0
    for default in defaults:
        assert f"[default: ({default})" in out
    # What rich takes for markup leaves a gap before the stop.
    assert " ." not in out.replace(" ...", "")


def test_questions_about_a_video(slime, checkpoint, tmp_path):
    clip = write_clip(tmp_path / "clip.mp4", 16)
    code, out, _ = slime(
        "ask", clip, "-q", "what?", "-m", checkpoint, "--frames", 4, "--json", "--show", tmp_path / "frames.png"
    )
    assert code == 0
    record = json.loads(out)
    assert record["grid"] == [2, 2]
    assert record["frames"] == [0.2, 0.6, 1.0, 1.4]
    assert Image.open(tmp_path / "frames.png").height > 300


def test_other_failures(slime, monkeypatch, page):
    def failing(error: BaseException):
        def fail(*_: object, **__: object) -> None:
            raise error

        return fail

    asked = ("ask", page, "-q", "a?")
    for error, code, words in [
        (OSError(errno.ENOSPC, "No space left on device", "overlay.png"), 1, "the disk is full: overlay.png"),
        (PermissionError(errno.EACCES, "Permission denied", "overlay.png"), 1, "Permission denied: overlay.png"),
        (MemoryError(), 1, "out of memory"),
        (RuntimeError("could not create a primitive"), 1, "out of memory"),
        (RuntimeError("std::bad_alloc"), 1, "out of memory"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"), 1, "out of memory"),
        (ModuleNotFoundError("No module named 'yaml'", name="yaml"), 2, 'pip install "slime-vlm[train]"'),
    ]:
        monkeypatch.setattr("slime_vlm.media.open_input", failing(error))
        assert words in failure_line(slime(*asked), code)
    monkeypatch.setattr("slime_vlm.media.open_input", failing(KeyboardInterrupt()))
    assert slime(*asked)[0] == 130


def test_a_defect_and_debugging_show_the_traceback(monkeypatch, page):
    monkeypatch.setattr(sys, "argv", ["slime", "ask", str(page), "-q", ""])
    monkeypatch.setenv("SLIME_DEBUG", "1")
    with pytest.raises(InputError):
        main()
    monkeypatch.setenv("SLIME_DEBUG", "0")
    monkeypatch.setattr("slime_vlm.media.open_input", lambda *_, **__: 1 / 0)
    monkeypatch.setattr(sys, "argv", ["slime", "ask", str(page), "-q", "a?"])
    with pytest.raises(ZeroDivisionError):
        main()


def test_pages_writes_records_and_images(slime, tmp_path):
    code, out, _ = slime("pages", "--out", tmp_path / "pages", "-n", 2, "--kind", "form", "--split", "heldout")
    assert code == 0
    assert "2 pages" in out
    records = [json.loads(line) for line in (tmp_path / "pages" / "pages.jsonl").read_text().splitlines()]
    assert [(tmp_path / "pages" / record["image"]).exists() for record in records] == [True, True]
    assert "nonsense" in failure_line(slime("pages", "--out", tmp_path / "pages", "--kind", "nonsense"))
    assert "nonsense" in failure_line(slime("pages", "--out", tmp_path / "pages", "--split", "nonsense"))


def test_pages_with_the_font_of_pillow_alone(slime, tmp_path, monkeypatch):
    from slime_vlm.pages import fonts

    found = importlib.util.find_spec
    monkeypatch.setattr(fonts.importlib.util, "find_spec", lambda name: None if "font" in name else found(name))
    fonts._path.cache_clear()
    fonts.font_metrics.cache_clear()
    fonts._font.cache_clear()
    said = failure_line(slime("pages", "--out", tmp_path / "all", "--count", 1))
    assert 'pip install "slime-vlm[eval]", or take the font of Pillow: slime pages --fonts pillow' in said
    assert slime("pages", "--out", tmp_path / "own", "--count", 1, "--fonts", "pillow")[0] == 0
    assert len(list((tmp_path / "own").rglob("*.png"))) == 1
    folder = slime("pages", "--out", tmp_path / "own", "--count", 1, "--fonts", tmp_path)
    assert "expected pillow, or --source browser" in failure_line(folder)


def test_convert_and_train_name_what_is_missing(slime, tmp_path):
    assert str(tmp_path / "none") in failure_line(slime("convert", tmp_path / "none", tmp_path / "out"))
    assert "none.yaml" in failure_line(slime("train", tmp_path / "none.yaml", "--dry-run"))
