"""Episodes in this process, and what any run is judged by: figures, charts, pages, films."""
