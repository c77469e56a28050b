"""What profilers say of kernels: classes, metrics, traces, timelines."""
