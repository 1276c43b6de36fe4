"""Self-supervised methods, one file each; they are found by being here."""
