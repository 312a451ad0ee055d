"""An example of a Tilewright plugin package."""
