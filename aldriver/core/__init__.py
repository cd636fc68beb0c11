"""What every stage shares: frames, units, records, the store and the recipe. Knows no engine."""
