"""Floor 4: what a model knows (probes, evaluate), what it shows (snapshot, figures), the page of a run."""
