"""The engines, beside each other, over shared statements and one shared conversion of rows."""
