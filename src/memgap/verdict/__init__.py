"""Whether a point's numbers can be believed, and who was its limit."""

from memgap.verdict.judge import Verdict, judge

__all__ = ["Verdict", "judge"]
