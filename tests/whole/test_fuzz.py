"""Damaged, hostile and senseless input: exit code 0 or 2, one sentence, no traceback; at length: `tools/fuzz.py`."""

import os
import pickle
import signal
from collections import Counter
from pathlib import Path

import fuzz
import pytest
from fuzz_cases import CANARY, FRAMES, HOSTILE, hostile_pickle, make_workplace

pytestmark = [
    pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="cases are timed by signals"),
    pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning"),
]
CASES = {
    "training configs": 60,
    "training flags": 60,
    "conversion configs": 15,
    "reports": 25,
    "archives": 25,
}
FEW = 12  # of targets that run a model


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    interrupt, terminate = signal.getsignal(signal.SIGALRM), signal.getsignal(signal.SIGTERM)
    yield make_workplace(tmp_path_factory.mktemp("fuzz") / "workplace")
    signal.signal(signal.SIGALRM, interrupt)
    signal.signal(signal.SIGTERM, terminate)


@pytest.mark.parametrize("name", fuzz.TARGETS)
def test_no_input_is_answered_with_a_traceback(workplace, name, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    cases = CASES.get(name, FEW)
    findings = fuzz.explore(fuzz.TARGETS[name], workplace, cases=cases, seed=0)
    assert findings.failures == {}
    assert findings.codes.total() == cases


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("which", HOSTILE, ids=lambda which: ".".join(which[:2]))
def test_nothing_runs_that_a_pickle_names(workplace, which, zipped):
    target, codes = fuzz.TARGETS["checkpoints"], Counter()
    for frame in FRAMES:
        case = ("hostile", which, frame, zipped, ".pth")
        assert fuzz.failure(target, case, workplace, codes) is None
    assert codes == {2: len(FRAMES)}


def test_the_canary_can_sing(workplace, tmp_path):
    """The pickles are not empty threat: whoever unpickles them runs what they name."""
    content = hostile_pickle(HOSTILE[0], "call", False, (workplace / "source.pth").read_bytes())
    home = os.getcwd()
    os.chdir(tmp_path)
    try:
        pickle.loads(content)
    finally:
        os.chdir(home)
    assert (tmp_path / CANARY).exists()


def test_a_failure_is_found(workplace):
    """The harness sees a traceback, a wrong exit code and what is left behind."""

    def raises(case):
        return [][case]

    def leaves(case):
        Path(".left").touch()
        return 0

    for call, name in (
        (raises, "IndexError"),
        (lambda case: 1, "exit code 1"),
        (leaves, "left behind"),
    ):
        found = fuzz.failure(fuzz.Target(None, call), 0, workplace, Counter())
        assert found is not None
        assert found[0].startswith(name)
