"""The only package with Ray: connection, actors, pool, scaling, failures, metrics."""
