"""Recorded data: what a measured study leaves in the repository, small and tidy, and how it comes back."""
