"""What tests and benches share: contract checks every implementation must pass, and paired timings."""
