"""Results of other load generators read as points beside ours, and our points written in other tools' formats."""
