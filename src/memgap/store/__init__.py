"""What has been measured: one folder a point, written whole or not at all."""
