"""What rules ask of the configuration, as functions of their wildcards; mistakes of the user in the words for them."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from memgap.canonical import content_key
from memgap.declared.tables import TableSpec
from memgap.errors import UserError
from memgap.study.plan import plan_of
from memgap.study.resources import session_runtime_min
from memgap.study.study import Study
from memgap.workflow import jobs, targets


class Wildcards(Protocol):
    """Snakemake's, as far as they are read here."""

    def items(self) -> Sequence[tuple[str, str]]: ...


Ask = Callable[[Wildcards], Any]


class Rules:
    """The questions of rules about one study; a mistake of the user becomes a `mistake`, Snakemake's own error."""

    def __init__(self, study: Study, mistake: type[Exception], locust_note: str) -> None:
        self._study = study
        self._mistake = mistake
        self._locust_note = locust_note
        self.image = self._asking(lambda job: jobs.image_of(study, job))
        self.gpus = self._asking(lambda job: jobs.gpus_of(study, job))
        self.advised_table = self._asking(lambda job: targets.advised_table(study, job["model"]))
        self.twin_tables = self._asking(lambda job: targets.twin_tables(study, job["model"]))
        self.fleet_tables = self._asking(lambda job: targets.fleet_tables(study, job["fleet"]))
        self.race_before = self._asking(lambda job: targets.race_before(study, job))
        self.lab_key = self._asking(lambda job: targets.lab_key(study, job["lab"]))
        self.race_key = self._asking(lambda job: targets.race_key(study, job))

    def plan(self, kind: str) -> Ask:
        """A job's slice of the configuration: it is done again when this has changed, and only then."""
        return self._asking(lambda job: content_key(plan_of(self._study, kind, next(iter(job.values()), "settings"))))

    def figure(self, attribute: str) -> Ask:
        """What `targets.Made` says of the figure at the wildcard `figure`."""
        return self._asking(lambda job: getattr(targets.figure_at(self._study, job["figure"]), attribute))

    def table(self, spec: TableSpec, attribute: str) -> Ask:
        """What `targets.Made` says of a table of the wildcard `group`, if it has one."""
        return self._asking(lambda job: getattr(targets.Made(self._study, spec, job.get("group", "")), attribute))

    def target(self, name: str) -> Ask:
        """The files of a target, such as `tuning`."""
        return self._asking(lambda job: targets.target_files(self._study, name))

    def session_inputs(self, wildcards: Wildcards) -> list[str]:
        """What has to be there before a session is measured."""
        files: list[str] = self._asking(
            lambda job: jobs.session_inputs(self._study, job["session"], self._locust_note)
        )(wildcards)
        return files

    def runtime_min(self, wildcards: Wildcards, attempt: int) -> int:
        """The time limit of a job's try, in minutes."""
        return session_runtime_min(self._study.config["resources"], attempt)

    def _asking(self, answer: Callable[[Mapping[str, str]], Any]) -> Ask:
        def ask(wildcards: Wildcards) -> Any:
            try:
                return answer(dict(wildcards.items()))
            except UserError as error:
                raise self._mistake(f"memgap: {error}") from error

        return ask
