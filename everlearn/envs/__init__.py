"""Worlds in which agents act: Gymnasium environments, and the batched forms behind them."""
