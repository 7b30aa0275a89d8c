"""The spot-check: are the answers still right? Asking and scoring run beside a server; deciding is pure."""
