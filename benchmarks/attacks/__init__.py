"""What `attack.py` throws at the library: damaged files, and calls with extreme arguments."""
