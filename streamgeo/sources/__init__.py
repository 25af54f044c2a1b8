"""Sources: one file a format, each with ``open_scene(path, ...)`` giving a lazy scene from the header."""
