"""Bad input, signals and closed pipes: one line and the right exit code."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from oodjax.command_line import Parser, UsageError, check_folder, execute, folder, names, one_line

PROGRAM = """
import sys, time
from oodjax.command_line import Parser, execute
from pathlib import Path
def prepare():
    if "early" in sys.argv:
        wait()
def wait():
    try:
        print("ready", flush=True)
        time.sleep(30)
    finally:
        Path(sys.argv[1]).write_text("cleaned up")
def work(_):
    wait()
    return 0
raise SystemExit(execute(Parser(prog="python -m tool"), prepare, work, "go on"))
"""


@pytest.mark.parametrize(
    "number, code, word", [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")]
)
@pytest.mark.parametrize("when", ["early", "late"])
def test_a_signal_is_one_line(tmp_path, number, code, word, when):
    trace = tmp_path / "trace"
    command = [sys.executable, "-c", PROGRAM, str(trace), when]
    running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert running.stdout is not None and running.stdout.readline() == "ready\n"
    running.send_signal(number)
    _, error = running.communicate(timeout=20)
    assert running.returncode == code
    assert error == (f"tool: {word}\n" if when == "early" else f"tool: {word}; go on\n")
    assert trace.exists() == (when == "late")


GIVEN = {
    "oodjax.run": [],
    "oodjax.report": ["."],
    "oodjax.fit": ["--model", "nowhere", "--to", "new"],
    "oodjax.score": ["--monitor", "nowhere", "image.png"],
}
DURING = [(module, "argparse") for module in GIVEN] + [("oodjax.run", "pandas"), ("oodjax.report", "pandas")]
DURING += [("oodjax.fit", "jax")]


@pytest.mark.parametrize(("module", "imported"), DURING)
def test_a_signal_during_the_imports_is_one_line(module, imported, tmp_path):
    hook = "import sys, os, signal\nclass Hook:\n    def find_spec(self, name, *_):\n"
    hook += "        if name == '%s': os.kill(os.getpid(), signal.SIGINT)\nsys.meta_path.insert(0, Hook())\n"
    (tmp_path / "sitecustomize.py").write_text(hook % imported)
    path = os.pathsep.join([str(tmp_path), *sys.path])
    command = [sys.executable, "-m", module, *GIVEN[module]]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path}, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (130, f"{module}: interrupted\n")


def test_a_closed_pipe_ends_without_a_word():
    code = "from oodjax.command_line import *\n"
    code += "raise SystemExit(execute(Parser(prog='tool'), lambda: 0, lambda _: print('x' * 100_000) or 0))"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as running:
        assert running.stdout is not None and running.stderr is not None
        running.stdout.close()
        error = running.stderr.read()
    assert (running.returncode, error) == (141, b"")


def test_output_that_the_terminal_cannot_show_is_escaped():
    code = "from oodjax.command_line import *\n"
    code += "raise SystemExit(execute(Parser(prog='tool'), lambda: 0, lambda _: print('\\u74f7') or 0))"
    settings = {**os.environ, "PYTHONIOENCODING": "latin-1"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, env=settings)
    assert (done.returncode, done.stdout) == (0, b"\\u74f7\n")


def test_handlers_are_given_back():
    before = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
    assert execute(Parser(prog="tool"), lambda: 3, lambda n: n + 1) == 4
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == before


def test_an_error_is_one_safe_line_whatever_it_holds(capsys):
    with pytest.raises(SystemExit) as stopped:
        Parser(prog="python -m tool").error("unknown\nname \x1b[31mred\u2028 " + "n" * 5000)
    error = capsys.readouterr().err
    assert stopped.value.code == 2 and error.startswith("tool: unknown name \\x1b[31mred ") and error.endswith("nnn\n")
    assert "…" in error and len(error) < 400 and error.count("\n") == 1
    assert one_line("Größe 瓷") == "Größe 瓷"


@pytest.mark.parametrize(
    "given, said",
    [
        (["--out=--"], "--out needs a value"),
        (["--out", ""], "expected a folder"),
        (["--out="], "expected a folder"),
        (["--names", ","], "expected names"),
        (["--names", ""], "expected names"),
        (["--names=--"], "needs a value"),
    ],
)
def test_empty_values_are_refused(given, said, capsys):
    command = Parser(prog="tool")
    command.add_argument("--out", type=folder)
    command.add_argument("--names", type=names, nargs="+")
    with pytest.raises(SystemExit) as stopped:
        command.parse_args(given)
    error = capsys.readouterr().err
    assert stopped.value.code == 2 and said in error and error.count("\n") == 1


def test_folders_that_cannot_be_written_are_named(tmp_path):
    (tmp_path / "file").write_text("precious")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "link").symlink_to(tmp_path)
    bad = {
        "file": "file is not a folder",
        "file/below": "file is not a folder",
        "dangling": "link to .*nowhere, which",
        "dangling/below": "link to .*nowhere, which",
        "loop": "a link to",
        "n" * 256: "longer than 255 bytes",
        "é" * 128: "longer than 255 bytes",
        "a\\b": "backslash",
        "gs:": "address",
        "gs:/x": "address",
        "a[1]": "pattern",
        "x\udcff": "not UTF-8",
        "/".join(["d" * 200] * 30): "too long",
    }
    for name, said in bad.items():
        with pytest.raises(UsageError, match=f"(?s)^cannot write to .*{said}.*name another"):
            check_folder(tmp_path / name, checkpoints=True)
    for name in ("new", "new/deep", "link/new", "a b", "100%", "gs", "a:b", "é" * 127, "[x"):
        check_folder(tmp_path / name, checkpoints=True)
    for name in ("a\\b", "gs:", "a[1]"):
        check_folder(tmp_path / name)
    assert {p.name for p in tmp_path.iterdir()} == {"file", "dangling", "loop", "link"}


def test_no_device_is_one_line():
    for platform in ("tpu", "banana"):
        command = [sys.executable, "-m", "oodjax.run"]
        done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "JAX_PLATFORMS": platform})
        assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
        assert f"JAX_PLATFORMS is {platform!r}: unset it, or set it to cpu" in done.stderr
