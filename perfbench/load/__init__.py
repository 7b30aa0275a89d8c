"""Load: arrivals, the wire, and Locust in a process of its own. `engine.LoadProcess` is the way in."""
