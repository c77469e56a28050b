"""Trace files as people have them: units and blocks are found or asked for, the form of the file is no matter."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from memgap.datasets import build_dataset, load_dataset, resolve_dataset, save_dataset, store_dataset
from memgap.datasets.build import built
from memgap.errors import UserError

BAILIAN = [
    {"chat_id": n, "parent_chat_id": -1, "timestamp": at, "input_length": 40, "output_length": 5, "type": "text"}
    | {"turn": 1, "hash_ids": [3, 10 * n, 10 * n + 1]}
    for n, at in enumerate((61.114, 62.5, 70.25, 71.0), start=1)
]
PLAIN = [(0, 20, 5), (1500, 31, 6), (2500, 32, 7), (4000, 17, 8)]
"""Times in ms, lengths of prompts and answers."""


def spec(path: Path, requests: int = 4, **entry: Any) -> dict[str, Any]:
    entry = {"kind": "trace", "path": str(path), **entry}
    return resolve_dataset("d", {"d": entry}, requests=requests, vocabulary_size=8192)


def written(folder: Path, text: str | bytes, name: str = "t") -> Path:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def lines(rows: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def mooncake(times: list[float], **more: Any) -> list[dict[str, Any]]:
    return [{"timestamp": at, "input_length": 30, "output_length": 5, **more} for at in times]


def due_s(path: Path, **entry: Any) -> list[float | None]:
    return [one.due_s for one in build_dataset(spec(path, **entry))]


def shared(a: list[int], b: list[int]) -> int:
    return next((n for n, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


# --- units of time -------------------------------------------------------------------------------------------------


def test_qwen_bailian_has_seconds_and_blocks_of_16(tmp_path: Path) -> None:
    prompts, facts = built(spec(written(tmp_path, lines(BAILIAN))))
    assert [one.due_s for one in prompts] == pytest.approx([0.0, 1.386, 9.136, 9.886])
    assert {shared(prompts[0].token_ids, other.token_ids) for other in prompts[1:]} == {16}
    assert facts is not None and (facts["time_unit"], facts["block_tokens"]) == ("s", 16)


@pytest.mark.parametrize(
    ("times", "due"),
    [
        ([0, 1500, 2500, 4000], [0, 1.5, 2.5, 4.0]),  # 0.75 requests/s as ms, one in 22 minutes as s
        ([0.5, 1.0, 2.25, 3.0], [0, 0.5, 1.75, 2.5]),  # 1,200 requests/s as ms
        ([1715299200000, 1715299200500, 1715299202000, 1715299203000], [0, 0.5, 2.0, 3.0]),
        ([1715299200, 1715299203, 1715299204, 1715299206], [0, 3, 4, 6]),
        ([1715299200000000000 + 10**9 * n for n in range(4)], [0, 1, 2, 3]),
        ([7, 7, 7, 7], [0, 0, 0, 0]),
    ],
)
def test_the_unit_is_the_one_whose_rate_a_service_has(tmp_path: Path, times: list[float], due: list[float]) -> None:
    assert due_s(written(tmp_path, lines(mooncake(times)))) == pytest.approx(due)


AMBIGUOUS: list[float] = [0, 30, 60, 90]
"""33 requests a second, or one in half a minute."""


def test_a_unit_that_cannot_be_known_is_asked_for(tmp_path: Path) -> None:
    path = written(tmp_path, lines(mooncake(AMBIGUOUS)))
    with pytest.raises(UserError, match=r"0\.0333 requests/s \(`time_unit: s`\) or 33\.3 requests/s"):
        build_dataset(spec(path))
    assert due_s(path, time_unit="s") == [0, 30, 60, 90]
    assert due_s(path, time_unit="ms") == pytest.approx([0, 0.03, 0.06, 0.09])


def test_blocks_tell_who_wrote_a_file_whose_rate_does_not(tmp_path: Path) -> None:
    own = [{**row, "input_length": 1000, "hash_ids": [1, 2 + n]} for n, row in enumerate(mooncake(AMBIGUOUS))]
    assert due_s(written(tmp_path, lines(own))) == pytest.approx([0, 0.03, 0.06, 0.09])
    own = [{**row, "hash_ids": [1, 2 + n]} for n, row in enumerate(mooncake(AMBIGUOUS))]
    assert due_s(written(tmp_path, lines(own))) == [0, 30, 60, 90]


def test_a_columns_name_may_say_the_unit(tmp_path: Path) -> None:
    path = written(tmp_path, "timestamp (ms),input_length,output_length\n0,30,5\n30,30,5\n60,30,5\n90,30,5\n")
    assert due_s(path) == pytest.approx([0, 0.03, 0.06, 0.09])


def test_a_published_unit_is_checked_too(tmp_path: Path) -> None:
    text = "Timestamp,Request tokens,Response tokens\n" + "".join(f"{at},{n},{m}\n" for at, n, m in PLAIN)
    with pytest.raises(UserError, match="does not say the unit of its times"):
        build_dataset(spec(written(tmp_path, text)))
    assert due_s(tmp_path / "t", time_unit="ms") == [0, 1.5, 2.5, 4.0]


@pytest.mark.parametrize("unit", ["minutes", 5, True])
def test_units_are_known_ones(tmp_path: Path, unit: Any) -> None:
    with pytest.raises(UserError, match="time_unit is"):
        spec(tmp_path, time_unit=unit)


def test_what_is_found_in_the_file_is_not_in_the_key(tmp_path: Path) -> None:
    plain = spec(tmp_path)
    assert "time_unit" not in plain and "block_tokens" not in plain
    assert len({plain["key"], spec(tmp_path, time_unit="s")["key"], spec(tmp_path, block_tokens=16)["key"]}) == 3


# --- hash blocks ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("block", "full_only"), [(512, False), (64, False), (128, False), (16, True), (32, True)])
def test_the_size_of_blocks_follows_from_their_number(tmp_path: Path, block: int, full_only: bool) -> None:
    rows: list[dict[str, Any]] = []
    for n, tokens in enumerate((5 * block + 3, 3 * block, 2 * block + 1, 4 * block - 1)):
        ids = tokens // block if full_only else -(-tokens // block)
        rows.append({"timestamp": 1000 * n, "input_length": tokens, "output_length": 5})
        rows[-1]["hash_ids"] = [1, *range(100 * n + 2, 100 * n + 1 + ids)]
    prompts, facts = built(spec(written(tmp_path, lines(rows)), max_prompt_tokens=9000, max_total_tokens=9000))
    assert facts is not None and facts["block_tokens"] == block and facts["rows_with_other_blocks"] == 0
    assert {shared(prompts[0].token_ids, other.token_ids) for other in prompts[1:]} == {block}


def test_blocks_that_fit_no_size_are_asked_for(tmp_path: Path) -> None:
    rows = mooncake([0, 1000, 2000, 3000])
    for row, ids in zip(rows, ([1], [1, 2, 3], [1, 2, 3, 4, 5, 6, 7], [1] * 30), strict=True):
        row["hash_ids"] = ids
    path = written(tmp_path, lines(rows))
    with pytest.raises(UserError, match="no block size fits"):
        build_dataset(spec(path))
    with pytest.raises(UserError, match="only 1 of 4 rows"):
        build_dataset(spec(path, block_tokens=512))
    rows = [{**row, "hash_ids": list(range(10))} for row in rows]  # 3 tokens each
    assert len(build_dataset(spec(written(tmp_path, lines(rows)), block_tokens=3))) == 4


def test_ids_of_64_bits_are_different_blocks(tmp_path: Path) -> None:
    rows = [{**row, "hash_ids": [5 + (n << 32)]} for n, row in enumerate(mooncake([0, 1000, 2000, 3000]))]
    prompts = build_dataset(spec(written(tmp_path, lines(rows))))
    assert len({tuple(one.token_ids) for one in prompts}) == 4


# --- forms of files ------------------------------------------------------------------------------------------------

ROWS = [{"timestamp": at, "input_length": n, "output_length": m, "hash_ids": [at, 7]} for at, n, m in PLAIN]
CSV = "timestamp,input_length,output_length,hash_ids\n" + "".join(f'{at},{n},{m},"[{at}, 7]"\n' for at, n, m in PLAIN)
FORMS: dict[str, str | bytes] = {
    "lines": lines(ROWS),
    "array": json.dumps(ROWS, indent=1),
    "csv": CSV,
    "mark": "\ufeff" + CSV,
    "mark, lines": "\ufeff" + lines(ROWS),
    "mark, array": "\ufeff" + json.dumps(ROWS),
    "utf-16": CSV.encode("utf-16"),
    "gzip": gzip.compress(CSV.encode()),
    "crlf": CSV.replace("\n", "\r\n"),
    "blank lines": "\n \n" + CSV.replace("\n", "\n\n"),
    "blank lines, lines": "\n" + lines(ROWS).replace("\n", "\n\n"),
    "blanks": CSV.replace(",", " , ").replace('" , "', '","').replace(' , "', ', "').replace("_", " ").upper(),
    "semicolons": CSV.replace(",", ";").replace("; 7", ", 7"),
    "tabs": CSV.replace(",", "\t").replace("\t 7", ", 7"),
    "texts": lines(
        [{**row, "timestamp": str(row["timestamp"]), "input_length": f"{row['input_length']}"} for row in ROWS]
    ),
    "floats": lines([{**row, "input_length": float(str(row["input_length"]))} for row in ROWS]),
    "comments": "# from a dump\n" + CSV,
    "told delimiter": "sep=,\n" + CSV,
    "other letters": CSV.replace("hash_ids", "hash_ids,Mod\xe8le", 1).encode("latin-1"),
    "unsorted": lines(ROWS[::-1]),
    "more columns": lines([{"model": "m", **row, "cost": None} for row in ROWS]),
    "aliases": lines(ROWS).replace("_length", "_tokens"),
}


@pytest.mark.parametrize("form", FORMS)
def test_the_form_of_a_file_changes_nothing(tmp_path: Path, form: str) -> None:
    reference = build_dataset(spec(written(tmp_path, lines(ROWS), "reference")))
    read = build_dataset(spec(written(tmp_path, FORMS[form])))
    assert [(one.due_s, len(one.token_ids), one.output_tokens) for one in read] == [
        (at / 1000, n, m) for at, n, m in PLAIN
    ]
    assert read == reference


def test_decimal_commas_beside_semicolons(tmp_path: Path) -> None:
    text = "Timestamp;Request tokens;Response tokens\n0;30;5\n0,5;30;5\n1,25;30;5\n2;30;5\n"
    assert due_s(written(tmp_path, text)) == [0, 0.5, 1.25, 2.0]


def test_azures_traces_of_2024_and_2025(tmp_path: Path) -> None:
    later = ["2024-05-10 00:00:00.009930+00:00", "2024-05-10 02:00:00.2599300+02:00", "2024-05-09 20:00:01-04:00"]
    text = "TIMESTAMP,ContextTokens,GeneratedTokens\n" + "".join(f"{at},30,5\n" for at in later)
    assert due_s(written(tmp_path, text), requests=3) == pytest.approx([0, 0.25, 0.99007])
    text = (
        "TIMESTAMP,NumImages,ContextTokens,GeneratedTokens\n2024-10-15 08:00:00,0,30,5\n2024-10-15 08:00:02.5,3,30,5\n"
    )
    _, facts = built(spec(written(tmp_path, gzip.compress(text.encode())), 2))
    assert facts is not None and facts["rows_with_images"] == 1 and facts["window_s"] == 2.5


# --- what is left out ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "bad", ["nan,30,5", "inf,30,5", "-inf,30,5", "9,nan,5", "9,30,inf", "9,-30,5", "9,30.5,5", "9,30"]
)
def test_rows_that_are_no_numbers_are_left_out_and_counted(tmp_path: Path, bad: str) -> None:
    good = "".join(f"{n},30,5\n" for n in range(4))
    path = written(tmp_path, f"Timestamp,Request tokens,Response tokens\n{bad}\n{good}")
    prompts, facts = built(spec(path))
    assert [one.due_s for one in prompts] == [0, 1, 2, 3]
    assert facts is not None and (facts["rows"], facts["rows_unreadable"]) == (5, 1)


def test_a_nan_in_json_is_no_number_either(tmp_path: Path) -> None:
    rows = mooncake([float("nan"), 0, 1000, 2000, 3000])
    assert due_s(written(tmp_path, lines(rows))) == [0, 1, 2, 3]


def test_a_file_of_which_much_cannot_be_read_is_refused(tmp_path: Path) -> None:
    text = "Timestamp,Request tokens,Response tokens\n0,30,5\nx,30,5\n2,30,5\ny,30,5\n"
    with pytest.raises(UserError, match=r"line 3: not a time and two lengths .* 2 of its 4 rows"):
        build_dataset(spec(written(tmp_path, text), 2))


def test_what_the_limits_drop_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [(0.5 * n, 30 if n % 4 == 0 else 5000, 0 if n == 1 else 5) for n in range(20)]
    text = "Timestamp,Request tokens,Response tokens\n" + "".join(f"{at},{n},{m}\n" for at, n, m in rows)
    given = spec(written(tmp_path, text, "long.csv"))
    store_dataset(tmp_path / "d.npz", given)
    said = capsys.readouterr().err
    assert "without 9 of the 13 rows of that time, at 0.5 requests/s of the trace's 2 " in said
    assert "Of all 20 rows" in said and "14 outside the limits of lengths, 1 without an answer are left out" in said
    facts = load_dataset(tmp_path / "d.npz").statistics["trace"]
    assert (facts["window_rows"], facts["window_sent"], facts["rows_outside_limits"]) == (13, 4, 14)
    with pytest.raises(UserError, match=r"5 usable rows of 20, but 6 .*14 outside the limits"):
        build_dataset(spec(tmp_path / "long.csv", 6))


def test_a_dataset_that_was_read_before_the_unit_was_checked_is_built_again(tmp_path: Path) -> None:
    given = spec(written(tmp_path, lines(ROWS)))
    save_dataset(tmp_path / "d.npz", given, build_dataset(given))
    with pytest.raises(UserError, match="by an earlier version"):
        load_dataset(tmp_path / "d.npz")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "0 usable rows of 0"),
        ("a;b\n1;2\n", "no known columns"),
        ('[{"a": 1}]', "no known columns"),
        ("[1, 2, 3]", "line 1: not a time"),
        ('{"timestamp": 1, "input_length": 9', "line 1: not a time"),
        ('[{"timestamp": 1', "no text of a known layout"),
        (lines(mooncake([0], hash_ids="abc")), "line 1: not a time"),
        (lines(mooncake([0], hash_ids=["a"])), "line 1: not a time"),
        (b"\x1f\x8b123", "no text of a known layout|cannot be read"),
        (b"\xff\xfe\x00", "no text of a known layout"),
        (b"PK\x03\x04\xff\xff", "no known columns"),
        (CSV.replace("hash_ids", "input_length", 1), "two columns input_length"),
    ],
)
def test_what_is_no_trace_is_refused_with_one_sentence(tmp_path: Path, text: str | bytes, message: str) -> None:
    with pytest.raises(UserError, match=message):
        build_dataset(spec(written(tmp_path, text)))
