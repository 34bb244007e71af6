"""Sessions in memory: the newest revision wins, and activity that is written behind."""
