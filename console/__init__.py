"""The operator's console. A package, so that `importlib.resources` finds its files wherever they are installed."""
