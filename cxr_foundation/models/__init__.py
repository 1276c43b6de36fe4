"""Encoders: every `cxr_*` architecture, its weights, and the folders that they are published in."""
