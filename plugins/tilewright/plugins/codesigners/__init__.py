"""Plugins that search hardware and mappings together."""
