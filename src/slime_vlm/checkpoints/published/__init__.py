"""The authors' layout: its config, its tensor names, reading it, and conversion both ways."""
