"""Guests with stock Debian kernels, in which the live tests run."""
