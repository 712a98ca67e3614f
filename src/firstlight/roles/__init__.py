"""The parties: each role as services and actions over the rooms below."""
