"""Image files: from the bytes of a whole file to its pixels, or a sentence that says why not.

`conocc.data.image_io.read` knows all formats, and the others read one or a few each.
"""
