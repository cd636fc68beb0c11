"""Export room: a potential in the forms LAMMPS runs, each run and compared before it counts as exported."""
