"""Another place that holds a store, by URL. One protocol, one file per kind of place, wrappers for behaviour."""
