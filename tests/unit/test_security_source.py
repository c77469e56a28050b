"""The source itself: no pickle, no yaml.load, no shell strings, no code from model repositories; locks with hashes."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
FOLDERS = ("src", "workflow", "benchmarks", "tests")
SOURCES = sorted(path for folder in FOLDERS for path in (REPOSITORY / folder).rglob("*.py"))
PICKLES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
LOCKS = sorted((REPOSITORY / "envs").glob("*.txt"))


def called(call: ast.Call) -> str:
    """Return a call's dotted name as written."""
    return ast.unparse(call.func)


def calls() -> Iterator[tuple[Path, ast.Call]]:
    """Yield every call of the project's Python files."""
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                yield path, node


def keyword(call: ast.Call, name: str) -> object:
    """Return the constant that a keyword is given, None where it is not given."""
    found = [one.value for one in call.keywords if one.arg == name]
    if not found:
        return None
    return found[0].value if isinstance(found[0], ast.Constant) else ast.unparse(found[0])


def test_there_is_source_to_look_at() -> None:
    assert len(SOURCES) > 200
    assert {"workflow.txt", "dev.txt", "engine-cuda.txt", "engine-cpu.txt"} <= {path.name for path in LOCKS}


def test_nothing_is_pickled() -> None:
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [one.name for one in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not PICKLES & {name.split(".")[0] for name in names}, path
    for path, call in calls():
        name = called(call)
        assert not name.endswith(("read_pickle", "to_pickle")), path
        assert keyword(call, "allow_pickle") in (None, False), path
        if name in ("np.load", "numpy.load"):
            assert keyword(call, "allow_pickle") is False, f"{path}:{call.lineno}: say allow_pickle=False"
        if name == "torch.load":
            assert keyword(call, "weights_only") is True, f"{path}:{call.lineno}"


def test_yaml_is_loaded_safely() -> None:
    unsafe = {
        f"yaml.{name}" for name in ("load", "load_all", "full_load", "full_load_all", "unsafe_load", "unsafe_load_all")
    }
    for path, call in calls():
        assert called(call) not in unsafe, f"{path}:{call.lineno}"


def test_no_command_goes_through_a_shell() -> None:
    shells = {"os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput", "eval", "exec"}
    for path, call in calls():
        assert called(call) not in shells, f"{path}:{call.lineno}"
        assert called(call) not in ("asyncio.create_subprocess_shell",), f"{path}:{call.lineno}"
        assert keyword(call, "shell") in (None, False), f"{path}:{call.lineno}"


def test_no_code_of_a_model_repository_is_run_unless_the_model_says_so() -> None:
    in_the_engines_interpreter = REPOSITORY / "src/memgap/kinds/static/generate.py"
    for path in SOURCES:
        if path.is_relative_to(REPOSITORY / "src") and path != in_the_engines_interpreter:
            tree = ast.parse(path.read_text(encoding="utf-8"))
            imports = [one.name for node in ast.walk(tree) if isinstance(node, ast.Import) for one in node.names]
            imports += [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
            assert not {"transformers", "auto_gptq"} & {name.split(".")[0] for name in imports}, path
    for path, call in calls():
        asked = keyword(call, "trust_remote_code")
        its_own_key = path == in_the_engines_interpreter and asked == "model['trust_remote_code']"
        assert asked in (None, False) or its_own_key, f"{path}:{call.lineno}"


RULES = sorted((REPOSITORY / "workflow").rglob("*.smk"))


@pytest.mark.parametrize("path", RULES, ids=[path.name for path in RULES])
def test_every_value_in_a_rules_shell_command_is_quoted(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    for command in re.findall(r"^    shell:\n((?:        .*\n)+)", text, re.MULTILINE):
        for field in re.findall(r"\{([^{}]+)\}", command):
            assert field.endswith(":q"), f"{path.name}: {{{field}}} has to be {{{field}:q}}"


@pytest.mark.parametrize("path", LOCKS, ids=[path.name for path in LOCKS])
def test_locks_have_exact_versions_with_hashes(path: Path) -> None:
    text = path.read_text(encoding="utf-8").replace("\\\n", " ")
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.strip().startswith(("#", "--"))]
    assert lines
    if path.name == "engine-cpu-torch.txt":  # not on PyPI: see docs/security.md
        assert re.fullmatch(r"torch==\d+\.\d+\.\d+\+cpu", *lines)
        return
    for line in lines:
        assert re.match(r"[A-Za-z0-9._-]+(\[[^\]]+\])?\s*(==\S+|@ https://\S+)", line), line
        assert re.search(r"--hash=sha256:[0-9a-f]{64}", line), line[:80]


def test_installs_ask_for_the_hashes() -> None:
    for path in (REPOSITORY / "Makefile", REPOSITORY / "src/memgap/install/engine.py"):
        text = path.read_text(encoding="utf-8")
        assert "--require-hashes" in text, path
