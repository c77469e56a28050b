"""The flags that a server was given, asked by what they mean and not by an engine's name for them."""

from collections.abc import Mapping, Sequence
from typing import Any

from memgap.engine.adapters import adapter_for
from memgap.engine.base import FlagNames
from memgap.engine.disaggregation import PREFILL
from memgap.errors import UserError
from memgap.models.architecture import ModelArchitecture

PARALLEL = ("tensor_parallel", "pipeline_parallel", "context_parallel", "data_parallel")
"""The GPUs of one server are the product of these; replicas share one set of GPUs."""


class GivenFlags:
    """Flags of a server of an engine adapter; meanings are the fields of `FlagNames`, such as "max_seqs".

    `where` names the place in the configuration for sentences about a value that cannot be.
    """

    def __init__(
        self, adapter: str, flags: Mapping[str, Any], where: str = "", members: Sequence["GivenFlags"] = ()
    ) -> None:
        self.names: FlagNames = adapter_for(adapter).flags
        hyphened = {name.replace("_", "-"): value for name, value in flags.items()}
        self._flags = {self.names.aliases.get(name, name): value for name, value in hyphened.items()}
        self._where = where
        self._members = members

    @classmethod
    def of(cls, record: Mapping[str, Any], where: str = "") -> "GivenFlags":
        """Return the flags of a point's server; of a group those that its members share."""
        adapter, where = record["engine"]["adapter"], where or f"model {record['model']['name']}"
        members = [cls(adapter, arguments, where) for arguments in member_flags(record["server"]).values()]
        return cls(adapter, record["server"]["args"], where, members)

    def name(self, meaning: str) -> str | None:
        """Return what the engine calls a flag, None where it has none."""
        found: str | None = getattr(self.names, meaning)
        return found

    def get(self, meaning: str, default: Any = None) -> Any:
        """Return the value of a flag, `default` where it was not given or the engine has none."""
        name = self.name(meaning)
        return self._flags.get(name, default) if name is not None else default

    def __contains__(self, meaning: object) -> bool:
        """Whether a flag was given."""
        return self.get(str(meaning)) is not None

    def whole(self, meaning: str, default: int) -> int:
        """Return a flag that memgap has to know as a whole number; raises UserError for another value."""
        value = self.get(meaning)
        if value is None:
            return default
        if isinstance(value, bool) or not str(value).isdigit():
            raise UserError(
                f"{self._where}: the server flag {self.name(meaning)} has to be a whole number here, not {value!r}."
            )
        return int(value)

    @property
    def gpus(self) -> int:
        """How many GPUs the flags spread one server over, of a group all its members; raises UserError for no whole
        number."""
        if self._members:
            return sum(one.gpus for one in self._members)
        return self._product(PARALLEL if not self.get("data_parallel_attention") else PARALLEL[:-1])

    @property
    def gpus_here(self) -> int:
        """How many of them are on one machine, where the flags say how many data-parallel engines are."""
        if self._members or "data_parallel_local" not in self:
            return self.gpus
        return self._product((*PARALLEL[:-1], "data_parallel_local"))

    def _product(self, meanings: Sequence[str]) -> int:
        product = 1
        for meaning in meanings:
            size = self.whole(meaning, 1)
            if size < 1:
                raise UserError(f"{self._where}: the server flag {self.name(meaning)} has to be 1 at least.")
            product *= size
        return product

    def longest(self, model: Mapping[str, Any]) -> int:
        """Return the most tokens of a request: the server's bound, or else the model's own."""
        return self.whole("max_model_len", ModelArchitecture.from_dict(model["architecture"]).max_length)


def member_flags(server: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return by name, in the order of names, the flags of each member of a group of servers; empty without a group."""
    members = server.get("topology", {}).get("members", {})
    return {name: without_none({**server["args"], **one.get("server", {})}) for name, one in sorted(members.items())}


def answering(server: Mapping[str, Any]) -> int:
    """Return how many servers of a server record answer: its replicas, or the members that do not only prefill."""
    members = server.get("topology", {}).get("members")
    if members is None:
        return int(server["replicas"])
    return sum(one.get("role") != PREFILL for one in members.values())


def without_none(flags: Mapping[str, Any]) -> dict[str, Any]:
    """Return flags without those that null removes."""
    return {name: value for name, value in flags.items() if value is not None}
