"""The encoder that hears, the language model that speaks, the adapter between."""
