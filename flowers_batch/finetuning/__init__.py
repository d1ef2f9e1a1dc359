"""The network itself trained further."""
