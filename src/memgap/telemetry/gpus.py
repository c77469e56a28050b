"""Which GPUs a server uses: CUDA's rules for its environment, applied to what the driver lists. Nothing is asked here.

The rules are those of CUDA's documentation: `CUDA_VISIBLE_DEVICES` names GPUs by number, by UUID or by the beginning of
one, and MIG slices by their UUID; the first entry that names none ends the list, and an entry given twice empties it.
Numbers count in the order of `CUDA_DEVICE_ORDER`. 43 values were compared with what CUDA 13.0 shows on two H200.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

CHOSEN, ORDER, INJECTED = "CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "NVIDIA_VISIBLE_DEVICES"
_NUMBER = re.compile(r"[+-]?\d+")
_OLD_SLICE = re.compile(r"MIG-(GPU-[0-9a-f-]+)/(\d+)/(\d+)", re.IGNORECASE)


@dataclass(frozen=True)
class Device:
    """A GPU, or a MIG slice of one, as the driver lists it; empty texts where the driver does not say.

    `index` is NVML's number of the GPU, `part` the number of a slice on it, `instance` a slice's GPU and compute
    instance. `bus` is the GPU's place on the PCI bus. A GPU that is divided has its `slices`, and no work itself.
    """

    index: int
    uuid: str = ""
    name: str = ""
    bus: str = ""
    divided: bool = False
    slices: tuple["Device", ...] = ()
    part: int | None = None
    instance: tuple[int, int] | None = None

    @property
    def id(self) -> str:
        """What tells it from the machine's others, also in another process: its UUID, else its number."""
        return self.uuid or (str(self.index) if self.part is None else f"{self.index}:{self.part}")

    @property
    def label(self) -> str:
        """What a sentence calls it."""
        number = f"GPU {self.index}" if self.part is None else f"slice {self.part} of GPU {self.index}"
        return f"{number} ({self.name})" if self.name else number


@dataclass(frozen=True)
class Choice:
    """The devices that were found, in CUDA's order, and in `doubt` a sentence where they cannot be known."""

    devices: tuple[Device, ...] = ()
    doubt: str = ""

    @property
    def ids(self) -> list[str]:
        """What names the devices to another process."""
        return [one.id for one in self.devices]


def id_list(text: str) -> list[str]:
    """Return the ids of a command line's list."""
    return [one for one in text.split(",") if one]


def visible(devices: Sequence[Device], environment: Mapping[str, str]) -> Choice:
    """Return the devices that CUDA shows a process of this environment."""
    chosen = environment.get(CHOSEN)
    if chosen is None:
        return _all(_injected(devices, environment), environment)
    entries = chosen.split(",")
    if entries[0].startswith(("GPU-", "MIG-")):
        return Choice(_named(devices, entries))
    return _numbered(_all(devices, environment), entries)


def used(
    devices: Sequence[Device], environment: Mapping[str, str], number: int, first: int = 0, step: int = 1
) -> Choice:
    """Return the devices of a server over `number` GPUs: CUDA's number `first` and every `step`-th from there.

    Fewer than `number` where the others are on another machine. Where some of the machine's are used and the driver's
    order need not be CUDA's: none, and the `doubt`.
    """
    seen = visible(devices, environment)
    ours = seen.devices[first::step][:number]
    certain = not seen.doubt or len(ours) == len(_all(devices, environment).devices)
    return Choice(ours) if certain else Choice((), seen.doubt)


def found_on(choice: Choice, holding: Sequence[Device], number: int) -> Choice:
    """Return the choice corrected by what was seen: `holding` are the devices that the server's processes are on.

    The choice stands unless the server is seen on as many devices as it uses and one of the chosen is not among them.
    """
    seen = {one.id for one in holding}
    if len(holding) < number or (choice.devices and all(one.id in seen for one in choice.devices)):
        return choice
    return Choice(tuple(holding))


def pinned(devices: Sequence[Device], environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variable that makes CUDA keep to `NVIDIA_VISIBLE_DEVICES` where the container's runtime did not.

    That is so in a container with all rights, which sees every GPU of its machine. Empty where nothing has to be said.
    """
    injected = _injected(devices, environment)
    if environment.get(CHOSEN) is not None or len(injected) == len(devices) or not all(one.uuid for one in injected):
        return {}
    return {CHOSEN: ",".join(one.uuid for one in injected)}


def _injected(devices: Sequence[Device], environment: Mapping[str, str]) -> Sequence[Device]:
    """Return the devices that `NVIDIA_VISIBLE_DEVICES` names; all where the container's runtime has left no others.

    Inside a container the driver lists what the runtime let in, and the variable's numbers are those of the machine
    outside. So it only says something where more devices are listed than it names.
    """
    text = environment.get(INJECTED, "").strip()
    entries = [one.strip() for one in text.split(",") if one.strip()]
    if text.casefold() in ("", "all", "void", "none") or len(devices) <= len(entries):
        return devices
    named = _named(devices, entries) if "-" in entries[0] else ()
    by_number = [one for entry in entries for one in devices if entry == str(one.index)]
    return named or by_number or devices


def _all(devices: Sequence[Device], environment: Mapping[str, str]) -> Choice:
    """Return all devices in CUDA's order; a divided GPU stands for its first slice, the only one that CUDA shows."""
    by_bus = environment.get(ORDER, "").strip().upper() == "PCI_BUS_ID"
    ordered = sorted(devices, key=lambda one: one.bus) if by_bus and all(one.bus for one in devices) else devices
    shown = tuple(part for one in ordered for part in (one.slices[:1] if one.divided or one.slices else (one,)))
    if len({one.name for one in ordered}) > 1 and not by_bus:
        return Choice(shown, f"the GPUs are of several kinds, which CUDA orders by speed; set {ORDER}=PCI_BUS_ID")
    if 0 < sum(one.part is not None for one in shown) < len(shown):
        return Choice(shown, f"some of the GPUs are divided by MIG; name those to use by UUID in {CHOSEN}")
    return Choice(shown)


def _numbered(every: Choice, entries: Sequence[str]) -> Choice:
    found: list[Device] = []
    for entry in entries:
        number = _NUMBER.match(entry.strip())
        if number is None or not 0 <= int(number[0]) < len(every.devices):
            break
        found.append(every.devices[int(number[0])])
    if len({one.id for one in found}) < len(found):
        return Choice()
    return Choice(tuple(found), every.doubt)


def _named(devices: Sequence[Device], entries: Sequence[str]) -> tuple[Device, ...]:
    found: list[Device] = []
    for entry in entries:
        device = _by_uuid(devices, entry)
        if device is None:
            break
        found.append(device)
    return () if len({one.id for one in found}) < len(found) else tuple(found)


def _by_uuid(devices: Sequence[Device], entry: str) -> Device | None:
    """Return the device that a UUID, its beginning, or a slice's old name (MIG-GPU-UUID/1/0) means, if it is one.

    As CUDA does it: GPU- and MIG- in capitals and without a blank before them, digits in any case.
    """
    if not entry.startswith(("GPU-", "MIG-")):
        return None
    entry = entry.strip().casefold()
    if old := _OLD_SLICE.fullmatch(entry):
        instance = int(old[2]), int(old[3])
        owners = [one for one in devices if one.uuid.casefold().startswith(old[1])]
        candidates = [part for one in owners for part in one.slices if part.instance == instance]
    elif entry.startswith("mig-"):
        slices = [part for one in devices for part in one.slices]
        candidates = [one for one in slices if one.uuid.casefold().startswith(entry)]
    else:
        owners = [one for one in devices if one.uuid.casefold().startswith(entry)]
        if len(owners) == 1 and (owners[0].divided or owners[0].slices):
            return owners[0].slices[0] if owners[0].slices else None
        candidates = owners
    exact = [one for one in candidates if one.uuid.casefold() == entry]
    return (exact or candidates)[0] if len(exact or candidates) == 1 else None
