"""Where draws and simulations are made: Dask workers of this machine, of Slurm jobs, or of any scheduler.

May import errors and machine. Must never know what the work is, nor load JAX; Dask is loaded when workers are wanted.
"""
