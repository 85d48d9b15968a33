"""Reports: figures of scores, of embeddings and of what a network looks at, and the pages and tables that hold them.

It may import scores and networks; it must not know how scores were made, nor the command line.
"""
