"""One side against another: folders of results, versions of an engine, and the version that a step came with."""
