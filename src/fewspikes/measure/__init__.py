"""What a network does on images: counting, calibration, sensitivity, diagnosis, evaluation."""
