"""How input is damaged: JSON-like content op by op, bytes piece by piece, and how many examples are tried."""

import copy
import datetime
import os
from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from memgap.errors import UserError

LONG = os.environ.get("HYPOTHESIS_PROFILE") == "long"
LONGER = 50
"""So many times more examples, and other ones each time, with HYPOTHESIS_PROFILE=long."""


def fuzz(examples: int) -> settings:
    """Return the settings of a fuzz test: the same few examples always, or many new ones in a long run."""
    return settings(
        max_examples=examples * (LONGER if LONG else 1),
        derandomize=not LONG,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )


def deep(levels: int) -> Any:
    """Return lists in lists."""
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


TEXTS = (
    *(
        "",
        " ",
        "x",
        "null",
        "auto",
        "-1",
        "1e5",
        "nan",
        "--help",
        "-v",
        "../../etc/passwd",
        "a b",
        "a;b",
        "$(id)",
        "`id`",
    ),
    *("'", '"', "\n", "a\nb", "\r", "\0", "\ud800", "\u202e", "é", "😀", "{x}", "{wildcards.model}", "%s", "9" * 5000),
    *("bfloat16", "opt-1.3b", "max-num-seqs", "default", "x" * 3000),
)
NUMBERS = (0, -1, 1, 2, 7, 2**31, 2**63, -(2**63), 10**400, 0.0, -0.5, 1e-320, 1e308, float("nan"), float("inf"))
OTHERS: tuple[Any, ...] = (
    *(
        None,
        True,
        False,
        [],
        {},
        [None],
        [[]],
        {"": None},
        {"a": {"b": []}},
        [1, "x", None],
        {1: 2},
        {None: 1},
        {True: 0},
    ),
    *(datetime.date(2024, 1, 1), datetime.datetime(2024, 1, 1), b"bytes", {1, 2}, deep(3), deep(200)),
)
JSON_OTHERS = (
    None,
    True,
    False,
    [],
    {},
    [None],
    [[]],
    {"": None},
    {"a": {"b": []}},
    [1, "x", None],
    deep(3),
    deep(200),
)


MILD: tuple[Any, ...] = (
    *(None, True, False, 0, 1, 2, 3, 64, 100_000, 2**40, 0.5, 1.5, -1, "x", "1", "default", [], {}, [1], [1, 2], ["x"]),
    *([True, False], [0.5, 2.0], {"min": 1, "max": 2}, {"x": 1}, "own", "one", "study"),
)
"""Values that get past the first checks."""


def _places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the path of every value inside a value."""
    found = [path] if path else []
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, one in inner:
        if len(path) < 30:
            found += _places(one, (*path, key))
    return found


def _parent(value: Any, path: tuple[Any, ...]) -> Any:
    for key in path[:-1]:
        value = value[key]
    return value


@st.composite
def damaged(draw: st.DrawFn, base: Any, only_json: bool = False) -> Any:
    """Return a copy of JSON-like content with one to three things wrong; `only_json`: what a JSON file can hold."""
    content = copy.deepcopy(base)
    wild = st.sampled_from([*TEXTS, *NUMBERS, *(JSON_OTHERS if only_json else OTHERS)])
    mild = st.sampled_from(MILD)
    for _ in range(draw(st.sampled_from([1, 1, 1, 2, 3]))):
        values = draw(st.sampled_from([wild, mild])).map(copy.deepcopy)
        places = _places(content)
        if not places:
            return draw(values)
        path = places[draw(st.integers(0, len(places) - 1))]
        parent, key = _parent(content, path), path[-1]
        change = draw(
            st.sampled_from(["replace", "replace", "replace", "remove", "rename", "move", "wrap", "add", "edit"])
        )
        if change == "remove":
            del parent[key]
        elif change == "rename" and isinstance(parent, dict):
            name = draw(st.sampled_from([*TEXTS, *([] if only_json else [1, None])]))
            parent[name] = parent.pop(key)
        elif change == "move":
            other = places[draw(st.integers(0, len(places) - 1))]
            parent[key] = copy.deepcopy(_parent(content, other)[other[-1]])
        elif change == "wrap":
            parent[key] = [parent[key], draw(values)]
        elif change == "add" and isinstance(parent[key], dict):
            parent[key][draw(st.sampled_from(TEXTS))] = draw(values)
        elif change == "edit" and isinstance(parent[key], str):
            at = draw(st.integers(0, len(parent[key])))
            parent[key] = parent[key][:at] + draw(st.sampled_from(TEXTS)) + parent[key][at:]
        else:
            parent[key] = copy.deepcopy(draw(values))
    return content


PIECES = (
    *(b"", b"\0", b"\xff\xfe", b"\n", b"\r\n", b"\r\n\r\n", b"\n\n", b",", b'"', b"{", b"}", b"[", b"]", b": ", b"#"),
    *(
        b"nan",
        b"-1",
        b"1e999",
        b"NaN",
        b"Infinity",
        b"null",
        b"9" * 40,
        b"9" * 5000,
        b"\x1f\x8b",
        b"\xed\xa0\x80",
        b"\\ud800",
    ),
    *(
        b"data: ",
        b"[" * 2000,
        b"{" * 2000,
        b"&a [*a]",
        b"!!python/object/apply:os.system [id]",
        b"%",
        b"=",
        b"\t",
        b"'",
    ),
)


@st.composite
def garbled(draw: st.DrawFn, base: bytes) -> bytes:
    """Return bytes with one to four pieces cut out, doubled, replaced or cut off."""
    data = base
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(data)))
        length = draw(st.sampled_from([0, 1, 2, 3, 8, 64]))
        change = draw(st.sampled_from(["insert", "replace", "double", "cut off", "flip"]))
        if change == "insert":
            data = data[:start] + draw(st.sampled_from(PIECES)) + data[start:]
        elif change == "replace":
            data = data[:start] + draw(st.sampled_from(PIECES)) + data[start + length :]
        elif change == "double":
            data = data[: start + length] + data[start:]
        elif change == "cut off":
            data = data[:start]
        elif start < len(data):
            data = data[:start] + bytes([data[start] ^ (1 << draw(st.integers(0, 7)))]) + data[start + 1 :]
    return data


def tolerates(job: Callable[[], Any], *allowed: type[Exception]) -> Any:
    """Run `job`; returns its result, or None where it raised UserError with one sentence, or one of `allowed`."""
    try:
        return job()
    except UserError as error:
        said = str(error)
        assert said and "\n" not in said and "\r" not in said, f"not one line: {said!r}"
        assert len(said) < 2000, f"no sentence but {len(said)} characters: {said[:200]!r}..."
        said.encode()
        return None
    except allowed:
        return None
