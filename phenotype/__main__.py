"""`python -m phenotype` is `phenotype`."""

from phenotype.cli import main

main()
