"""Classes of GPU kernels by their names, after the rules in `classes.yaml`."""

import re
from functools import lru_cache
from pathlib import Path

from memgap.own_yaml import own_yaml

UNCLASSIFIED = "unclassified"
CLASSES = (
    *("attention", "kv_write", "matmul", "norm", "activation", "sampling", "embedding", "memory", "elementwise"),
    *("input", "communication", "other", UNCLASSIFIED),
)
"""Every value of a column `kernel_class`."""

_RULES = Path(__file__).with_name("classes.yaml")
_WRAPPERS = re.compile(r"^(device_kernel|Kernel2?|enable_sm\d+\w*)$")
_OPENING, _CLOSING = "<({[", ">)}]"


@lru_cache(maxsize=1)
def rules() -> tuple[tuple[str, re.Pattern[str]], ...]:
    """Return the ordered rules: class and pattern. Raises ValueError where `classes.yaml` names an unknown class."""
    found = []
    for rule in own_yaml(_RULES.read_text())["rules"]:
        if rule["class"] not in CLASSES:
            raise ValueError(f"{_RULES.name}: {rule['class']!r} is no kernel class")
        found.append((rule["class"], re.compile(rule["pattern"], re.IGNORECASE if rule.get("flags") == "i" else 0)))
    return tuple(found)


@lru_cache(maxsize=65536)
def kernel_class(name: str) -> str:
    """Return the class of a kernel, one of `CLASSES`; `unclassified` where no rule knows the name.

    `name` may be demangled with or without templates and arguments, or short. Two short names say too little: `Kernel`
    (CUTLASS 2) counts as matmul, `device_kernel` (CUTLASS 3, but FlashAttention 3 as well) stays unclassified; give the
    demangled name where there is one.
    """
    text = name.strip()
    return next((kind for kind, pattern in rules() if pattern.search(text)), UNCLASSIFIED)


@lru_cache(maxsize=65536)
def short_name(name: str) -> str:
    """Return a demangled name without return type, namespaces, templates and arguments: `FlashAttnFwdSm90`.

    Wrappers give way to what they launch (`cutlass::device_kernel<flash::FlashAttnFwdSm90<...>>`). Names of copies
    (`Memcpy HtoD (Pinned -> Device)`), mangled names and such that do not parse are returned as they are.
    """
    text = name.strip()
    if re.match(r"\[?(CUDA )?mem(cpy|set)\b", text, re.IGNORECASE):
        return text
    base, inside = _base_and_template(text)
    if inside and _WRAPPERS.match(base):
        return short_name(inside) or base
    return base or text


def _base_and_template(text: str) -> tuple[str, str]:
    """Return a name's last part at the outermost level, and the first of its template arguments."""
    text = text.replace("(anonymous namespace)::", "").replace("<unnamed>::", "")
    depth, plain, inside = 0, "", ""
    for place, letter in enumerate(text):
        if letter == "(" and depth == 0:
            break
        if letter in _OPENING:
            if depth == 0 and letter == "<":
                inside = _first_argument(text[place + 1 :])
            depth += 1
        elif letter in _CLOSING:
            depth -= 1
        elif depth == 0:
            plain += letter
    words = plain.split()
    return (words[-1].rsplit("::", 1)[-1] if words else ""), inside


def _first_argument(text: str) -> str:
    """Return what stands before the first comma or the closing bracket of the same level."""
    depth = 0
    for place, letter in enumerate(text):
        if depth == 0 and letter in ",>":
            return text[:place].strip()
        depth += (letter in _OPENING) - (letter in _CLOSING)
    return ""
