"""Groups of commands; phenotype.cli puts them together. Rooms are imported when their command is called."""
