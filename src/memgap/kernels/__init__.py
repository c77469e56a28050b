"""GPU kernels: what class each belongs to, read from ncu, nsys and torch.profiler."""
