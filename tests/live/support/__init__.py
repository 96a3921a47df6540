"""Real servers, scripted peers and a fault proxy, each in a process of its own, for tests in any language's binding."""
