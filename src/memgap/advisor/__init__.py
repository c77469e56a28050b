"""The batching configuration advisor (BCA): which batch cap to run, what memory it needs, with which flags."""
