"""Offline jobs: answer the records of a file with the scheduler of the server, and resume after a kill."""
