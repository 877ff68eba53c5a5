"""What every room needs: errors, files, progress bars, devices."""
