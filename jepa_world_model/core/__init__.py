"""Floor 0: barriers, graph, contracts, step, engine. Knows neither z/h/p nor robots."""
