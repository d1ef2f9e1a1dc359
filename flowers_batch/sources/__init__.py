"""Where images come from: folders, lists, tars, tables; the order of paths."""
