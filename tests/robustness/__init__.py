"""Damaged and hostile files of every kind, from seeded mutators; `make fuzz` tries many more than the tests do."""
