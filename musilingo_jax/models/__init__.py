"""What computes: the encoder, the language model, and the adapter between them."""
