"""What is done to a network: plain functions that work in anyone's training loop."""
