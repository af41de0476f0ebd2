"""How labkit talks to a node: to its daemon, and to the agent that runs commands there."""
