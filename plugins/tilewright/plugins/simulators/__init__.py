"""Simulators: what schedules cost."""
