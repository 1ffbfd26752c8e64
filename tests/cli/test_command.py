"""The module that the console script starts."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HEAVY = ("torch", "transformers", "rasterio", "scipy", "pandas", "datasets", "gradio")
COMMAND = f"""
import sys
from crossearth_command import main
try:
    main()
finally:
    print(sorted(set(sys.modules) & {{*{HEAVY}}}))
"""


def test_an_interrupt_during_the_imports_is_one_sentence(tmp_path):
    (tmp_path / "crossearth_hf").mkdir()
    slow = (
        "import os, signal, time\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a job in the background ignores it
        "os.kill(os.getpid(), signal.SIGINT)\n"
        "time.sleep(60)\n"
    )
    (tmp_path / "crossearth_hf" / "__init__.py").write_text(slow)
    command = [
        sys.executable,
        "-c",
        "import sys; from crossearth_command import main; sys.exit(main())",
    ]
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 130
    assert done.stderr == "crossearth: interrupted; no unfinished file is left behind\n"


@pytest.mark.parametrize("arguments", [["--help"], ["predict", "--help"], ["evaluate", "model"]])
def test_help_and_missing_arguments_wait_for_no_library(arguments, tmp_path):
    command = [sys.executable, "-c", COMMAND, *arguments]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == (0 if "--help" in arguments else 2)
    assert done.stdout.splitlines()[-1] == "[]"
