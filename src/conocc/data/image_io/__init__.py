"""The formats of image files that take more than a few lines: one file each.

A reader takes the bytes of a whole file and gives its pixels, or says in a ValueError why not;
`conocc.data.image_io.read` knows them all, and makes a sentence of the reason. `pixels` and `tags` are what
several formats share.
"""
