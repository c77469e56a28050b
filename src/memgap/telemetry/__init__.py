"""What is sampled on a fixed clock while a point runs: the engine's metrics, the GPU, the host."""
