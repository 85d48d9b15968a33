"""How settings are given: YAML files, command lines and the records of runs, read into dataclasses and compared.

May import: units, errors. Must never know what is configured: no name of a setting stands here.
"""
