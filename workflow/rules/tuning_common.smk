# What the rules of tunings share: names of files, and which race builds on which.
from pathlib import Path

from memgap.canonical import canonical_json
from memgap.tuning.plan import outcome_path, race_plan, races, tier_before

TUNING_FIGURES = ["speedup", "pareto", "factors"]


def tuning_in_report(name):
    return report(
        f"results/tuning/{{tuning}}/{name}.csv",
        caption="../report/tuning.rst",
        category="Tuning",
        labels={"tuning": "{tuning}", "file": name},
    )


def tuning_figure_in_report(kind):
    return report(
        f"figures/tuning/{{tuning}}.{{figure}}.{kind}",
        caption="../report/tuning.rst",
        category="Tuning",
        labels={"tuning": "{tuning}", "file": f"{{figure}}.{kind}"},
    )


def tuning_plan(name):
    """The plan of a tuning; missing is an error only where it is wanted."""
    if name not in STUDY.tunings:
        raise WorkflowError(
            f"memgap: config: tuning.{name} is missing; known are {', '.join(STUDY.tunings) or 'none'}."
        )
    return STUDY.tunings[name]


def race_files(name):
    """The outcomes of all races of a tuning."""
    tuned = tuning_plan(name)
    return [
        str(outcome_path(Path("results"), tuned, subject, tier))
        for subject, tier in races(tuned)
    ]


def race_before(wildcards):
    """The outcome that a race builds on; none for the first tier."""
    tuned = tuning_plan(wildcards.tuning)
    before = tier_before(tuned, wildcards.tier)
    subject = (wildcards.model, wildcards.dataset)
    return (
        [str(outcome_path(Path("results"), tuned, subject, before))] if before else []
    )


def race_image(wildcards):
    (engine,) = tuning_plan(wildcards.tuning)["engines"]
    return image_for_jobs(CONFIG["engines"][engine])


def race_gpus(wildcards):
    return tuning_plan(wildcards.tuning)["settings"]["gpus"]


def tuning_files():
    if not STUDY.tunings:
        raise WorkflowError(
            "memgap: config: tuning is missing; try --configfile config/tuning.yaml."
        )
    return [
        file
        for name in STUDY.tunings
        for file in (
            f"results/tuning/{name}/optimization_summary.csv",
            *(
                f"figures/tuning/{name}.{figure}.{kind}"
                for figure in TUNING_FIGURES
                for kind in ("pdf", "png", "csv")
            ),
        )
    ]
