"""The vision towers of Qwen2-VL, Qwen2.5-VL and Qwen3-VL: one encoder, a module for what each family changes.

Imports `parts`, `kernels` and `pack`.
"""
