"""What the jobs that measure need: their model, workloads, environment, image and GPUs."""

from collections.abc import Mapping
from typing import Any

from memgap.containers.jobs import image_for_jobs
from memgap.errors import UserError
from memgap.kinds.locust.environment import installed_note
from memgap.kinds.locust.kind import LOADTEST
from memgap.kinds.registry import kind_of
from memgap.models.staging import hub_model_name, model_folder_name
from memgap.study.resources import session_gpus
from memgap.study.study import Study

Record = Mapping[str, Any]


def session_records(study: Study, session: str) -> list[Record]:
    """Return the records of a session's points."""
    return [study.points[key].record for key in study.sessions[session]]


def session_inputs(study: Study, session: str, locust_note: str) -> list[str]:
    """Return the files that have to be there before a session is measured; none for recorded data.

    `locust_note`: what says that Locust is installed, where the workflow has to install it.
    """
    if study.config["recorded"]:
        return []
    records = session_records(study, session)
    keys = {record["dataset"]["key"] for record in records if "dataset" in record}
    files = [f"results/datasets/{key}.npz" for key in sorted(keys)]
    folder, staged = model_folder_name(records[0]["model"]), hub_model_name(records[0]["model"])
    if staged in study.hub_models:
        files.append(f"results/hub/{staged}.json")
    elif folder:
        files.append(f"results/models/{folder}/config.json")
    return files + ([str(installed_note() or locust_note)] if kind_of(records[0]) is LOADTEST else [])


def records_of(study: Study, job: Mapping[str, str]) -> list[Record]:
    """Return the records that a measuring job starts servers for, by wildcards: session, lab, model (to verify)."""
    if "lab" in job:
        return [cell["record"] for cell in study.labs[job["lab"]]["cells"]]
    if "session" in job:
        return session_records(study, job["session"])
    return [point["record"] for point in study.verification_plan(job["model"])["points"]]


def image_of(study: Study, job: Mapping[str, str]) -> str | None:
    """Return the image of a measuring job's engine, as a rule names it."""
    engines: Mapping[str, Any] = study.config["engines"]
    if "tuning" in job:
        (engine,) = study.tunings[job["tuning"]]["engines"]
        return image_for_jobs(engines[engine])
    images = {image_for_jobs(engines[record["engine"]["name"]]) for record in records_of(study, job)}
    if len(images) > 1:
        raise UserError(f"config: labs.{job['lab']}: its arms have engines in several images; give all the same one.")
    return next(iter(images), None)


def gpus_of(study: Study, job: Mapping[str, str]) -> int:
    """Return how many GPUs a measuring job asks for."""
    if "tuning" in job:
        return int(study.tunings[job["tuning"]]["settings"]["gpus"])
    here = [record for record in records_of(study, job) if not kind_of(record).elsewhere]
    return max((session_gpus(record, study.config["resources"]) for record in here), default=0)
