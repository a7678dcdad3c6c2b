"""One attempt at one order, and the transaction that its handler may write in."""
