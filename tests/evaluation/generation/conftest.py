"""Being here, it puts this folder on sys.path, so that tests can import the helpers beside it."""
