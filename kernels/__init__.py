"""Triton kernels, imported as `minillm.kernels`."""
