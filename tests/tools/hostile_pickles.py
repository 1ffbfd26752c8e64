"""Random pickles that would create a file if anything in them ran."""

import os
import pickle
import random
import struct
from collections.abc import Callable
from pathlib import Path

MARK, REDUCE, TUPLE, EMPTY_DICT, EMPTY_LIST, NONE, STOP = b"(", b"R", b"t", b"}", b"]", b"N", b"."


def text(value: str) -> bytes:
    encoded = value.encode()
    return b"X" + struct.pack("<I", len(encoded)) + encoded


def named(module: str, name: str, rng: random.Random) -> bytes:
    """Pushes a global, by either opcode for it."""
    if rng.random() < 0.5:
        return f"c{module}\n{name}\n".encode()
    return text(module) + text(name) + b"\x93"


def tuple_of(*parts: bytes) -> bytes:
    return MARK + b"".join(parts) + TUPLE


def calls(marker: Path, rng: random.Random) -> tuple[str, str, tuple[bytes, ...]]:
    """A function and its pickled arguments that create `marker`."""
    path = text(str(marker))
    source = text(f"open({str(marker)!r}, 'w').close()")
    return rng.choice(
        [
            ("os", "mkdir", (path,)),
            ("os", "makedirs", (path,)),
            ("posix", "mkdir", (path,)),
            ("io", "open", (path, text("w"))),
            ("io", "FileIO", (path, text("w"))),
            ("builtins", "open", (path, text("w"))),
            ("builtins", "exec", (source,)),
            ("builtins", "eval", (source,)),
            ("logging", "FileHandler", (path,)),
            ("shutil", "copyfile", (text(os.devnull), path)),
            ("zipfile", "ZipFile", (path, text("w"))),
            ("sqlite3", "connect", (path,)),
            ("pickle", "loads", (text(""),)),  # replaced below: a pickle within a pickle
        ]
    )


def attack(marker: Path, rng: random.Random, depth: int = 0) -> bytes:
    """Opcodes that leave one object on the stack and create `marker` where the pickle is trusted."""
    module, name, arguments = calls(marker, rng)
    if module == "pickle":
        inner = b"\x80\x02" + attack(marker, rng, depth + 1) + STOP
        arguments = (b"B" + struct.pack("<I", len(inner)) + inner,)
    carriers: list[Callable[[], bytes]] = [
        lambda: named(module, name, rng) + tuple_of(*arguments) + REDUCE,
        lambda: b"(" + b"".join(arguments) + f"i{module}\n{name}\n".encode(),  # INST
        lambda: b"(" + named(module, name, rng) + b"".join(arguments) + b"o",  # OBJ
        lambda: through_rebuild(named(module, name, rng), arguments, rng),
        lambda: through_partial(named(module, name, rng), arguments, rng),
    ]
    if depth < 2:
        carriers.append(lambda: inside_rebuild(attack(marker, rng, depth + 1), rng))
    return rng.choice(carriers)()


def through_rebuild(function: bytes, arguments: tuple[bytes, ...], rng: random.Random) -> bytes:
    """PyTorch's own rebuilder calls the function that it is given."""
    rebuild = named("torch._tensor", "_rebuild_from_type_v2", rng)
    return (
        rebuild
        + tuple_of(function, named("torch", "Tensor", rng), tuple_of(*arguments), EMPTY_DICT)
        + REDUCE
    )


def through_partial(function: bytes, arguments: tuple[bytes, ...], rng: random.Random) -> bytes:
    bound = named("functools", "partial", rng) + tuple_of(function, *arguments) + REDUCE
    return bound + tuple_of() + REDUCE


def inside_rebuild(payload: bytes, rng: random.Random) -> bytes:
    """The attack as data or state of a parameter."""
    name = rng.choice(["_rebuild_parameter", "_rebuild_parameter_with_state"])
    fields = (
        [payload, b"\x88", NONE] if name == "_rebuild_parameter" else [NONE, b"\x88", NONE, payload]
    )
    return named("torch._utils", name, rng) + tuple_of(*fields) + REDUCE


def hostile_program(marker: Path, rng: random.Random) -> bytes:
    """A pickle whose attack stands somewhere in a checkpoint."""
    payload = attack(marker, rng)
    place = rng.choice(["whole", "value", "log", "key", "list", "build", "item"])
    if place == "whole":
        body = payload
    elif place == "value":
        body = (
            EMPTY_DICT + MARK + text("state_dict") + EMPTY_DICT + text("x") + payload + b"s" + b"u"
        )
    elif place == "log":
        body = (
            EMPTY_DICT
            + MARK
            + text("message_hub")
            + payload
            + text("state_dict")
            + EMPTY_DICT
            + b"u"
        )
    elif place == "key":
        body = EMPTY_DICT + tuple_of(text("k"), payload) + NONE + b"s"
    elif place == "list":
        body = EMPTY_LIST + MARK + payload + b"e"
    elif place == "build":
        body = (
            named("types", "SimpleNamespace", rng)
            + tuple_of()
            + REDUCE
            + EMPTY_DICT
            + text("a")
            + payload
            + b"sb"
        )
    else:
        body = (
            named("collections", "OrderedDict", rng)
            + tuple_of()
            + REDUCE
            + text("a")
            + payload
            + b"s"
        )
    # What the program does first decides whether PyTorch's own reader refuses it before ours is asked.
    foreign = rng.choice([b"", b"cmmengine.logging.history_buffer\nHistoryBuffer\n0"])
    return b"\x80\x02" + foreign + body + STOP


class Trusting(pickle.Unpickler):
    """Imports and calls whatever a pickle names, but for the framework that is not installed."""

    def find_class(self, module: str, name: str) -> object:
        if module.startswith("mmengine"):
            return dict
        return super().find_class(module, name)
