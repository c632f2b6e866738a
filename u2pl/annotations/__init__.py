"""What annotation tools write and read: exports become class indices, masks become pre-annotations."""
