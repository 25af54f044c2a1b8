"""The operations of Buffer and Stream, one family a file, named as in mlx-data."""
