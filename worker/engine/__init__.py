"""What speaks to a Docker Engine: the only importer of docker."""
