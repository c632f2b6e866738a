"""What every training step needs, whatever the method: micro-batches, forwards, replicas, several processes."""
