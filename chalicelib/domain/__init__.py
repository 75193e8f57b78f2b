"""What appjobs is about: pure, without a clock and without I/O."""
