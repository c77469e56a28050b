"""The key and the session of every point that a file in config/ asks for: recorded data stay valid to the last key.

A change that moves a key or a session makes every stored point of other people stale. Where that is meant, raise
HARNESS_VERSION and write the lists anew: `python tests/unit/test_golden_keys.py`.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from memgap.canonical import content_key
from memgap.config.files import read_config_files
from memgap.config.load import check_config
from memgap.kinds.registry import session_of
from memgap.recorded.files import read_points
from memgap.study.study import expand_study

CONFIG = Path(__file__).parents[2] / "config"
GOLDEN = Path(__file__).parent / "data" / "golden_keys.txt"
RECORDED = CONFIG.parent / "recorded"


def expanded(stem: str) -> Iterator[str]:
    files = [CONFIG / f"{stem}.yaml"]
    config = check_config(read_config_files(files))
    config["url"] = "http://127.0.0.1:8000"  # config/endpoint.yaml leaves it to the command line
    for engine in config["engines"].values():  # "auto" would be what is installed on this machine
        engine["version"] = "0.0.0" if engine["version"] == "auto" else engine["version"]
    study = expand_study(config)
    for name, group in study.groups.items():
        for experiment, key in group.members:
            yield f"{name} {experiment} {key} {study.points[key].session}"
    for name, (kind, plan) in study.plans.items():
        for experiment, point in kind.known_points(plan, Path("no-results-yet")):
            yield f"{name} {experiment} {point.key} {point.session}"


def every_file() -> list[str]:
    stems = sorted(path.stem for path in CONFIG.glob("*.yaml") if path.stem != "fleet.example")
    return [f"{stem} {line}" for stem in stems for line in expanded(stem)]


def test_points_keep_their_keys_and_sessions() -> None:
    assert every_file() == GOLDEN.read_text(encoding="utf-8").splitlines()


@pytest.mark.parametrize("folder", sorted(path.name for path in RECORDED.iterdir()))
def test_recorded_points_have_the_key_and_the_session_of_their_record(folder: str) -> None:
    files = sorted((RECORDED / folder).glob("*.jsonl"))
    assert files
    for path in files:
        for point in read_points(path):
            assert point["key"] == content_key(point["record"])
            assert session_of(point["record"]) == path.stem


if __name__ == "__main__":
    GOLDEN.write_text("\n".join(every_file()) + "\n", encoding="utf-8")
