"""A model that keeps learning behind HTTP: a durable log, a fold over it, versions, and what watches them."""
