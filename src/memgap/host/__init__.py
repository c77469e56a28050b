"""What runs what is measured: servers, replicas, workers, and their supervision."""
