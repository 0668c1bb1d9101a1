"""One run on several processes: the mesh, who holds what, how ranks start, meet and end."""
