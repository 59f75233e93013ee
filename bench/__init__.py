"""What certrail does beside others that do the same: run by hand, not by the tests."""
