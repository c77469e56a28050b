"""The kinds of measurement, one folder or file each."""
