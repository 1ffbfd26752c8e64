"""JSON and YAML of strangers: every kind of wrong document is one sentence, at once and in bounded memory."""

import json
import os

import pytest

from crossearth_hf.errors import InputError
from crossearth_hf.files.documents import (
    LARGEST_JSON,
    LARGEST_YAML,
    read_json,
    read_yaml,
    tensor_shapes,
)

WRONG = {
    "empty": b"",
    "null": b"null",
    "list": b"[]",
    "number": b"5",
    "text": b'"x"',
    "deep": b"[" * 200_000,
    "zeros": b"\0" * 100,
    "UTF-16": '{"a": 1}'.encode("utf-16"),
    "binary": bytes(range(256)),
    "long": b" " * (LARGEST_JSON + 1),
}


@pytest.mark.parametrize("name", WRONG)
@pytest.mark.parametrize("read", [read_json, read_yaml])
def test_what_is_no_object_is_one_sentence(tmp_path, read, name):
    path = tmp_path / "given.json"
    path.write_bytes(WRONG[name])
    with pytest.raises(InputError, match=r"given.json cannot be read .*; write it again$"):
        read(path, "write it again")


def test_pipes_folders_and_missing_files_are_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for name in ("pipe", "", "absent", "zero\0byte"):
        with pytest.raises(InputError, match="cannot be read"):
            read_json(tmp_path / name, "name another")
        with pytest.raises(InputError, match="is not a weight file"):
            tensor_shapes(tmp_path / name, "name another")


def test_a_byte_order_mark_is_no_content(tmp_path):
    (tmp_path / "a.json").write_bytes('\ufeff{"a": 1}'.encode())
    assert read_json(tmp_path / "a.json", "") == read_yaml(tmp_path / "a.json", "") == {"a": 1}


def test_a_few_lines_of_references_do_not_become_billions_of_values(tmp_path):
    lines = [
        "a0: &a0 {x: 1}",
        *(f"a{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 9)}]}}" for i in range(1, 30)),
    ]
    (tmp_path / "laughs.yaml").write_text("\n".join(lines))
    with pytest.raises(InputError, match="references such as"):
        read_yaml(tmp_path / "laughs.yaml", "write it out")


def test_long_yaml_is_refused(tmp_path):
    (tmp_path / "long.yaml").write_text("a: [" + "[], " * LARGEST_YAML)
    with pytest.raises(InputError, match="larger than 256 KiB"):
        read_yaml(tmp_path / "long.yaml", "shorten it")


def header(path, content):
    path.write_bytes(len(content).to_bytes(8, "little") + content)
    return path


def test_headers_of_weights(tmp_path):
    good = {
        "__metadata__": {"format": "pt"},
        "w": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]},
    }
    assert tensor_shapes(header(tmp_path / "good", json.dumps(good).encode()), "") == {"w": (2, 3)}
    for content in (
        b"",
        b"[]",
        b'{"w": []}',
        b'{"w": {"shape": [-1]}}',
        b'{"w": {"shape": [true]}}',
        b"[" * 100_000,
    ):
        with pytest.raises(InputError, match=r"bad is not a weight file .*; load it again"):
            tensor_shapes(header(tmp_path / "bad", content), "load it again")
    (tmp_path / "bad").write_bytes((99 << 20).to_bytes(8, "little") + b'{"' + b"x" * 1000)
    with pytest.raises(InputError, match=f"header would have {99 << 20} bytes"):
        tensor_shapes(tmp_path / "bad", "load it again")
