"""The key and the session of every point that a file in config/ asks for: recorded data stay valid to the last key.

A change that moves a key or a session makes every stored point of other people stale. Where that is meant, raise
HARNESS_VERSION and write the lists anew: `python tests/unit/test_golden_keys.py`.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from memgap.config.files import read_config_files
from memgap.config.load import check_config
from memgap.study.study import expand_study
from memgap.tuning.points import known_points

CONFIG = Path(__file__).parents[2] / "config"
GOLDEN = Path(__file__).parent / "data" / "golden"


def expanded(name: str) -> Iterator[str]:
    files = [CONFIG / f"{name}.yaml"]
    study = expand_study(check_config(read_config_files(files)))
    for part in (study.sweeps, study.offline, study.loadtests):
        for group, members in part.items():
            for experiment, key in members:
                yield f"{group} {experiment} {key} {study.points[key].session}"
    for group, plan in study.tunings.items():
        for experiment, point in known_points(plan, Path("no-results-yet")):
            yield f"{group} {experiment} {point.key} {point.session}"


@pytest.mark.parametrize("name", sorted(path.stem for path in CONFIG.glob("*.yaml") if path.stem != "fleet.example"))
def test_points_keep_their_keys_and_sessions(name: str) -> None:
    assert list(expanded(name)) == (GOLDEN / f"{name}.txt").read_text(encoding="utf-8").splitlines()


if __name__ == "__main__":
    GOLDEN.mkdir(parents=True, exist_ok=True)
    for file in sorted(CONFIG.glob("*.yaml")):
        if file.stem != "fleet.example":
            (GOLDEN / f"{file.stem}.txt").write_text("\n".join(expanded(file.stem)) + "\n", encoding="utf-8")
