"""Features of the frozen vision encoder on disk: computed once, read in later epochs, stages and runs."""
