"""What a person wants to know: who signed, what expires, what is next."""
