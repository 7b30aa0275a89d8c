"""Models: from a reference to a folder, what is in it, whether an adapter fits, the merge, and the demo's assets."""
