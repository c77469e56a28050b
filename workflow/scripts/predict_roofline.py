"""Predictions of the configuration: predict_roofline.py --config CONFIG --name NAME --csv FILE."""

import sys
from pathlib import Path

from memgap.roofline.predictions import planned_predictions
from memgap.script import run_script, script_parser
from memgap.store.atomic import write_text
from memgap.study.plan import requested_plan


def main(arguments: list[str] | None = None) -> int:
    """Write the table of predictions; returns the exit status."""
    parser = script_parser("Predict decoding by the roofline.")
    parser.add_argument("--csv", type=Path, required=True)
    options = parser.parse_args(arguments)

    def predict() -> None:
        table = planned_predictions(requested_plan(options, "predictions"))
        write_text(options.csv, table.to_csv(index=False, lineterminator="\n", float_format="%.9g"))

    return run_script(predict)


if __name__ == "__main__":
    sys.exit(main())
