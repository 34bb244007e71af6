"""Generated stubs of the contract. Never edited: `make generate` writes them."""
