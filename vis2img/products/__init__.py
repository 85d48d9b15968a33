"""The files that imaging leaves: FITS cubes, primary beams, quick looks, and CLEAN images by WSClean.

May import imaging and what lies below it.
Must never read visibilities or make an image of them: it is handed images, or a measurement set to pass on to WSClean.
"""
