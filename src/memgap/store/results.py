"""A folder of results, and where everything in it lies: the paths are written here and nowhere else.

What Snakemake makes (tables, figures, advice) is named in the declarations of tables and figures and in the rules.
"""

from dataclasses import dataclass
from pathlib import Path

from memgap.store.points import PointStore


@dataclass(frozen=True)
class Results:
    """The folder, `results` unless it is named otherwise."""

    folder: Path

    @property
    def points(self) -> Path:
        """The store's folder: one folder a point."""
        return self.folder / "points"

    @property
    def store(self) -> PointStore:
        """The store of points."""
        return PointStore(self.points)

    @property
    def plans(self) -> Path:
        """Where the plans of sessions are kept."""
        return self.folder / "plans"

    @property
    def sessions(self) -> Path:
        """Where sessions leave their outcomes."""
        return self.folder / "sessions"

    @property
    def datasets(self) -> Path:
        """Where tokenised workloads are."""
        return self.folder / "datasets"

    @property
    def leases(self) -> Path:
        """Where sessions say what they work on."""
        return self.folder / "leases"

    @property
    def tuning(self) -> Path:
        """Where the races of tunings leave their outcomes."""
        return self.folder / "tuning"

    def lab(self, name: str) -> Path:
        """Return where a run of a lab leaves its outcome."""
        return self.folder / "labs" / f"{name}.json"

    def plan(self, session: str) -> Path:
        """Return where a session's plan is kept."""
        return self.plans / f"{session}.json"

    def outcome(self, session: str) -> Path:
        """Return where a session leaves its outcome."""
        return self.sessions / f"{session}.json"

    def work(self, session: str) -> Path:
        """Return the working folder of a session, which ends with it."""
        return self.sessions / f".{session}.work"

    def dataset(self, key: str) -> Path:
        """Return where a dataset's prompts are."""
        return self.datasets / f"{key}.npz"

    def model(self, folder: str) -> Path:
        """Return the folder of a model with made-up weights."""
        return self.folder / "models" / folder
