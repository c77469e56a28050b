"""Secrets: refused in configurations, redacted from whatever is kept, never in a command line; private folders."""

import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from memgap.config.load import check_config
from memgap.engine.adapters import adapter_for
from memgap.engine.flags import model_flags
from memgap.errors import UserError
from memgap.models import resolve_model
from memgap.recorded.export import export
from memgap.redact import REDACTED, redact, redacted_command
from memgap.session.run import _Tee
from memgap.store.points import PointStore
from memgap.workflow import load_study
from tests.support.records import small_config, small_study, store_point
from tests.support.sessions import run_all

HF = "hf_" + "AbCdEfGhIjKlMnOpQrSt"
SK = "sk-" + "proj-AbCdEfGhIjKlMnOpQrSt"


def refusal(**changes: Any) -> str:
    """Return what a configuration with these fixed arguments is refused with."""
    with pytest.raises(UserError) as caught:
        load_study(small_config(**changes))
    return str(caught.value)


@pytest.mark.parametrize(
    "name",
    [
        *("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "OPENAI_API_KEY", "MY_API_KEY", "GITHUB_TOKEN", "A_SECRET"),
        *("DB_PASSWORD", "PASSWORD_FILE_X", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "hf_token", "my_token"),
    ],
)
def test_a_secret_variable_is_refused_with_what_to_do(name: str) -> None:
    said = refusal(env={name: "very-secret-value"})
    assert f"env.{name}" in said and f"export {name} before memgap starts" in said
    assert "very-secret-value" not in said


@pytest.mark.parametrize("name", ["OMP_NUM_THREADS", "TOKENIZERS_PARALLELISM", "VLLM_MAX_TOKENS", "AWS_REGION", "PATH"])
def test_other_variables_are_carried(name: str) -> None:
    (record, *_) = [point.record for point in small_study(env={name: "1"}).points.values()]
    assert record["server"]["env"] == {name: "1"}


@pytest.mark.parametrize("value", [HF, f"x {SK}", "http://user:pass" + "word@host/x", "AKIA" + "ABCDEFGHIJKLMNOP"])
def test_the_shape_of_a_secret_is_refused_wherever_it_stands(value: str) -> None:
    for changes in ({"env": {"NOTE": value}}, {"server": {"note": value}}, {"server": {"note": {"a": [value]}}}):
        said = refusal(**changes)
        assert "has the shape of a token or password" in said and value not in said
    config = small_config()
    config["engines"]["mock"]["python"] = value
    with pytest.raises(UserError, match="shape of a token"):
        check_config(config)


def test_a_secret_flag_is_refused() -> None:
    assert "a flag of this name holds a secret" in refusal(server={"hf-token": "x"})
    assert "is set by memgap itself" in refusal(server={"api-key": "x"})


def test_texts_are_redacted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_SERVICE_TOKEN", "plain-value-1")
    text = "\n".join(
        [
            *(
                f"loading with {HF}",
                f"key {SK}!",
                "HF_TOKEN=abcdef",
                "'api_key': ['one', 'two']",
                "it said plain-value-1",
            ),
            *("Authorization: Bearer abcdefghij", "https://me:pw" + "@host/a", "eos_token='</s>' max_tokens=5"),
        ]
    )
    told = redact(text, ["session-key"])
    for secret in (HF, SK, "abcdef", "'one'", "'two'", "plain-value-1", "abcdefghij", "me:pw"):
        assert secret not in told
    assert "eos_token='</s>' max_tokens=5" in told and "@host/a" in told
    assert redact("it was session-key", ["session-key"]) == f"it was {REDACTED}"
    assert redacted_command(["vllm", "--hf-token", "abc", "--port", "1"]) == [
        "vllm",
        "--hf-token",
        REDACTED,
        "--port",
        "1",
    ]


def test_what_is_stored_and_exported_is_redacted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_PASSWORD", "open-sesame")
    record = next(iter(small_study().points.values())).record
    error = {"kind": "crash", "message": f"no access with {HF}", "log_tail": "SOME_PASSWORD is open-sesame"}
    key = store_point(tmp_path / "points", record, {"duration_s": 1.0}, status="crash", error=error)
    text = (tmp_path / "points" / key / "point.json").read_text()
    assert HF not in text and "open-sesame" not in text and REDACTED in text
    point = PointStore(tmp_path / "points").read(key)
    assert point is not None and point["record"] == record

    older = {**point, "error": error}
    older["provenance"] = {**point["provenance"], "commands": [["/x/python", "--hf-token", "abc", HF]]}
    (tmp_path / "points" / key / "point.json").write_text(json.dumps(older))
    export(tmp_path, tmp_path / "recorded")
    (exported,) = (tmp_path / "recorded").glob("*.jsonl")
    assert HF not in exported.read_text() and "open-sesame" not in exported.read_text()
    assert json.loads(exported.read_text())["provenance"]["commands"] == [["python", "--hf-token", REDACTED, REDACTED]]


def test_a_session_keeps_no_secret_and_its_key_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A whole session on the simulated engine, with a token in the environment that the server gets."""
    monkeypatch.setenv("HF_TOKEN", "a-token-of-mine")
    keys: list[str] = []
    launch = type(adapter_for("mock")).launch

    def noted(self: Any, *arguments: Any) -> Any:
        keys.append(arguments[-1])
        return launch(self, *arguments)

    monkeypatch.setattr(type(adapter_for("mock")), "launch", noted)
    said = run_all(small_study(batch_cap=1, load={"requests": 2, "warmup_requests": 1}), tmp_path / "results")
    assert len(keys) == 1 and len(keys[0]) >= 32
    for path in (path for path in tmp_path.rglob("*") if path.is_file()):
        data = path.read_bytes()
        assert keys[0].encode() not in data and b"a-token-of-mine" not in data, path
    assert keys[0] not in said
    (point,) = [json.loads(path.read_text()) for path in tmp_path.rglob("point.json")]
    assert keys[0] not in " ".join(point["provenance"]["commands"][0])


def test_a_sessions_log_is_redacted(tmp_path: Path) -> None:
    with (tmp_path / "log").open("w") as log, (tmp_path / "screen").open("w") as screen:
        print(f"memgap: refused {HF}", file=_Tee(screen, log))
    assert HF not in (tmp_path / "log").read_text() + (tmp_path / "screen").read_text()


def test_results_are_not_for_everybody_to_write(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        record = next(iter(small_study().points.values())).record
        key = store_point(tmp_path, record, {})
        PointStore(tmp_path).write(key, json.loads((tmp_path / key / "point.json").read_text()), {"server.log": b"x"})
    finally:
        os.umask(before)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / key).iterdir()}
    assert modes == {"point.json": 0o644, "server.log": 0o644}
    assert stat.S_IMODE((tmp_path / key).stat().st_mode) == 0o755


def test_a_sessions_working_folder_is_private(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    modes: list[int] = []
    launch = type(adapter_for("mock")).launch

    def noted(self: Any, *arguments: Any) -> Any:
        modes.extend(stat.S_IMODE(path.stat().st_mode) for path in tmp_path.rglob(".*.work"))
        return launch(self, *arguments)

    monkeypatch.setattr(type(adapter_for("mock")), "launch", noted)
    run_all(small_study(batch_cap=1, load={"requests": 2, "warmup_requests": 1}), tmp_path / "results")
    assert modes == [0o700]


def test_code_of_a_model_is_run_only_where_the_configuration_says_so(tmp_path: Path) -> None:
    plain = resolve_model("opt-1.3b", {"opt-1.3b": {"weights": "hub"}})
    assert "trust_remote_code" not in plain and "--trust-remote-code" not in model_flags(plain, "x")
    off = resolve_model("opt-1.3b", {"opt-1.3b": {"weights": "hub", "trust_remote_code": False}})
    assert off == plain
    trusted = resolve_model("opt-1.3b", {"opt-1.3b": {"weights": "hub", "trust_remote_code": True}})
    assert trusted == {**plain, "trust_remote_code": True}
    assert model_flags(trusted, "x").count("--trust-remote-code") == 1
    with pytest.raises(UserError, match="synthetic weights come without code"):
        resolve_model("opt-1.3b", {"opt-1.3b": {"weights": "synthetic", "trust_remote_code": True}})


@pytest.mark.parametrize("flag", ["trust-remote-code", "trust-remote", "no-trust-remote-code", "trust"])
def test_the_flag_of_that_name_points_to_the_key(flag: str) -> None:
    assert "set `trust_remote_code: true` in `models.<name>`" in refusal(server={flag: True})


@pytest.mark.parametrize("flag", ["config", "hos", "api-k", "serve", "load"])
def test_no_flag_gets_round_the_reserved_ones(flag: str) -> None:
    said = refusal(server={flag: "x"})
    assert "a file of flags" in said if flag == "config" else "is set by memgap itself" in said


WORDS = ("memgap", "engine", "invalid", "completed", "DEFAULT", "Server")


@pytest.mark.parametrize("word", WORDS)
def test_a_secret_that_is_an_ordinary_word_is_not_looked_for(word: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DB_PASSWORD", word)
    assert redact(f"the {word} is here") == f"the {word} is here"
    assert redact(f"DB_PASSWORD={word} is here") == f"DB_PASSWORD={REDACTED} is here", "beside its name it is hidden"


@pytest.mark.parametrize(
    "word", ["tiny-opt", "bfloat16", "memgap-mock", "memgap.mock_server", "start_timeout", "engine"]
)
def test_memgaps_own_words_stay_in_a_point(tmp_path: Path, word: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever somebody's password is, a point says what it was measured with and what came of it."""
    monkeypatch.setenv("GITHUB_TOKEN", word)
    record = next(iter(small_study().points.values())).record
    error = {"kind": "start_timeout", "message": "it said s3cret-of-mine", "log_tail": "s3cret-of-mine"}
    monkeypatch.setenv("DB_PASSWORD", "s3cret-of-mine")
    key = store_point(tmp_path / "points", record, {"duration_s": 1.0}, status="start_timeout", error=error)
    point = json.loads((tmp_path / "points" / key / "point.json").read_text())
    whole = json.dumps({name: part for name, part in point.items() if name != "error"})
    assert REDACTED not in whole and point["error"]["kind"] == "start_timeout"
    assert REDACTED in point["error"]["message"] and "s3cret-of-mine" not in json.dumps(point)
    assert redacted_command(["python", "-m", word, "--hf-token", "abc"]) == [
        "python",
        "-m",
        word,
        "--hf-token",
        REDACTED,
    ]


def test_a_measured_point_has_no_hole_where_the_environment_has_its_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DB_PASSWORD", "memgap")
    monkeypatch.setenv("GITHUB_TOKEN", "memgap-mock")
    said = run_all(small_study(batch_cap=1, load={"requests": 2, "warmup_requests": 1}), tmp_path / "results")
    (text,) = [path.read_text() for path in tmp_path.rglob("point.json")]
    assert REDACTED not in text + said
