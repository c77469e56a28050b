"""Server flags and variables that memgap sets itself: a configuration that gives them is refused."""

from collections.abc import Iterable

from memgap.engine.adapters import ADAPTERS
from memgap.errors import UserError

FLAGS = ADAPTERS["vllm"].flags.reserved
TRUST = "trust-remote-code"
FILE_OF_FLAGS = "config"
VARIABLES = tuple(dict.fromkeys(name for one in ADAPTERS.values() for name in one.flags.reserved_variables))


def check_flags(
    flags: Iterable[str],
    where: str,
    what: str = "server flag",
    reason: str = "is set by memgap itself",
    reserved: Iterable[str] = FLAGS,
) -> None:
    """Raise UserError for the first flag that is `reserved`, or that an engine would take for the short form of one."""
    for flag in flags:
        if _means(flag, (TRUST, f"no-{TRUST}")):
            raise UserError(
                f"{where}: the {what} {flag!r} is a matter of the model; remove it from `server` and, where its "
                "code is to be run, set `trust_remote_code: true` in `models.<name>`."
            )
        if flag == FILE_OF_FLAGS:
            raise UserError(
                f"{where}: the {what} 'config' names a file of flags, which no record shows; give the flags here."
            )
        if _means(flag, reserved):
            raise UserError(f"{where}: the {what} {flag!r} {reason}; remove it from `server`.")


def check_variables(names: Iterable[str], where: str) -> None:
    """Raise UserError for the first variable that memgap sets itself."""
    for name in names:
        if name in VARIABLES:
            raise UserError(f"{where}: the variable {name} is set by memgap itself; remove it from `env`.")


def _means(flag: str, reserved: Iterable[str]) -> bool:
    """Whether a flag is one of `reserved` or the beginning of one, which argparse takes for it."""
    return any(one.startswith(flag) for one in reserved)
