"""The contracts of Replicate models: fields in, a file out."""
