"""What runs in an engine's environment needs none of the analysis packages."""

import subprocess
import sys

import pytest

FORBIDDEN = ("pandas", "pyarrow", "matplotlib", "seaborn", "pulp")
"""Only in the extra `analysis`: an engine's environment may lack them."""
FORBID = f"""
import importlib, sys

class Forbid:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {FORBIDDEN!r}:
            raise ImportError(f"{{name}} is not for an engine's environment")

sys.meta_path.insert(0, Forbid())
for name in sys.argv[1:]:
    importlib.import_module(name)
"""
MEASURING = (
    "memgap.session.run",
    "memgap.session.bench",
    "memgap.kinds.registry",
    "memgap.kinds.locust.measure",
    "memgap.kinds.locust.locust_run",
    "memgap.kinds.offline.measure",
    "memgap.kinds.offline.worker",
    "memgap.kinds.online.measure",
    "memgap.kinds.static.measure",
    "memgap.kinds.static.worker",
    "memgap.tuning.run",
    "memgap.labs.command",
    "memgap.advisor.verify",
)
HOSTS = tuple(f"memgap.host.{name}" for name in ("server", "replicas", "worker", "supervisor", "mps"))
BESIDE = (
    "memgap.telemetry.sampler",
    "memgap.telemetry.gpm",
    "memgap.load.workers",
    "memgap.mock_server.__main__",
    "memgap.commands.rerun",
    "memgap.workflow",
)


@pytest.mark.parametrize("modules", [MEASURING, HOSTS, BESIDE], ids=["measuring", "hosts", "beside"])
def test_modules_of_an_engine_environment_need_no_analysis_package(modules: tuple[str, ...]) -> None:
    done = subprocess.run([sys.executable, "-c", FORBID, *modules], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
