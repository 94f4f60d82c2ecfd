"""When a picture leaves: confidence and decision, calibration, certificates, and what exits are worth."""
