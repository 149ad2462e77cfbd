"""Networks, the blocks that two or more of them share, losses as formulas, and networks cut into parts."""
