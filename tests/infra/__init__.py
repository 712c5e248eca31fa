"""What lies in `infra/`."""
