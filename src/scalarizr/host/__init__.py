"""The host itself: its files, programs, processes, kernel figures, name and interfaces."""
